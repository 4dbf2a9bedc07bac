"""Which objects can be protected: ASGI 3 apps as they are, ASGI 2 apps adapted, and errors that name the fix."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, cast

from asgiref.compatibility import double_to_single_callable  # pyright: ignore[reportUnknownVariableType]

from asgi_mcp_auth._asgi.asgi_types import ASGIApp, Receive, Scope, Send
from asgi_mcp_auth._compat.asgi_servers import SERVERS_WITH_FACTORIES
from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth.errors import ConfigurationError, Problem

__all__ = ("check_app", "refuse_wsgi_call")

WSGI_MESSAGE = (
    "{name} was called as a WSGI app, app(environ, start_response). Run it with an ASGI server: uvicorn, or gunicorn "
    "with --worker-class asgi or --worker-class uvicorn_worker.UvicornWorker."
)


def check_app(app: object) -> ASGIApp:
    """Return an app in the form of ASGI 3.

    Raises:
        ConfigurationError: The object is not an ASGI app, but for example an MCP server, whose method makes one.
    """
    if not callable(app):
        fix = "Pass the ASGI app to protect."
        for factory in SERVERS_WITH_FACTORIES:
            if callable(getattr(app, factory.method, None)):
                fix = f"Pass its ASGI app: server.{factory.method}()."
                break
        raise ConfigurationError([Problem("app", f"{show(app)} is not an ASGI app.", fix)])
    if _accepts(app, 3):
        return cast("ASGIApp", app)
    if _accepts(app, 1):  # ASGI 2: app(scope) returns what is called with receive and send
        adapt = cast("Callable[[object], ASGIApp]", double_to_single_callable)
        return adapt(app)
    if _accepts(app, 2):
        fix = "Pass an ASGI app; a WSGI app can be adapted, for example with a2wsgi.WSGIMiddleware(app)."
        raise ConfigurationError([Problem("app", f"{show(app)} is a WSGI app.", fix)])
    fix = "An ASGI app is called with scope, receive and send."
    raise ConfigurationError([Problem("app", f"{show(app)} is not an ASGI app.", fix)])


def _accepts(app: Callable[..., object], count: int) -> bool:
    """Return whether an app can be called with `count` positional arguments; of an unknown signature, three.

    asgiref's own test takes a plain function that returns an awaitable for ASGI 2.
    """
    try:
        signature = inspect.signature(app, follow_wrapped=False)
    except (TypeError, ValueError):  # a callable written in C
        return count == 3  # noqa: PLR2004 - scope, receive, send
    try:
        signature.bind(*range(count))
    except TypeError:
        return False
    return True


def refuse_wsgi_call(call: Any) -> Any:
    """Decorate an ASGI `__call__` so that a WSGI server gets an error that names the ASGI worker.

    The decorated method is a plain function, because a WSGI server does not await. Servers recognize it as a coroutine
    function by a mark that exists since Python 3.12; before, the method stays as it is.
    """
    mark: Any = getattr(inspect, "markcoroutinefunction", None)
    if mark is None:
        return call

    @functools.wraps(call)
    def checked(self: object, scope: Scope, receive: Receive, send: Send | None = None) -> Awaitable[None]:
        if send is None:
            raise TypeError(WSGI_MESSAGE.format(name=type(self).__name__))
        running: Awaitable[None] = call(self, scope, receive, send)
        return running

    return mark(checked)
