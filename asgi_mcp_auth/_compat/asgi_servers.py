"""How ASGI servers and frameworks differ from each other: data, with the versions in which each behaviour was seen.

What MCP servers do is in `_compat.servers`. Nothing here imports a server or a framework.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = (
    "BREAKS_ON_LATE_BODY",
    "CLIENT_ROOT_PATH",
    "FRAMEWORK_MOUNT",
    "OWN_ROOT_PATH",
    "PREPENDS_ROOT_PATH",
    "QUIRKS",
    "ROUTES_BEFORE_MIDDLEWARE",
    "SEARCHES_ROOT_PATH",
    "SERVERS_WITH_FACTORIES",
    "WSGI_CALL",
    "Quirk",
    "ServerFactory",
)


class Quirk(NamedTuple):
    """One behaviour of one product.

    Attributes:
        product: The product and the versions in which the behaviour was seen.
        behaviour: The behaviour.
        source: Where the product does it.
        marker: What shows the behaviour: the name of a loaded module or its beginning, a key of the scope, or the
            scope's `http_version`.
    """

    product: str
    behaviour: str
    source: str
    marker: str


CLIENT_ROOT_PATH: Final = Quirk(
    "Daphne 4.2",
    "The root path is the value of the request's `Daphne-Root-Path` field, so the client chooses it.",
    "https://github.com/django/daphne/blob/main/daphne/http_protocol.py",
    "daphne.server",
)
FRAMEWORK_MOUNT: Final = Quirk(
    "Starlette 0.35 to 1.10, FastAPI",
    "A mount extends `root_path`, and keeps the server's root path as `app_root_path`.",
    "https://github.com/Kludex/starlette/pull/2400",
    "app_root_path",
)
OWN_ROOT_PATH: Final = Quirk(
    "FastAPI 0.165",
    "`FastAPI(root_path=...)` sets the root path below the middleware. Quart's `root_path` is a folder.",
    "https://fastapi.tiangolo.com/advanced/behind-a-proxy/",
    "fastapi.",
)
ROUTES_BEFORE_MIDDLEWARE: Final = Quirk(
    "Litestar 2.25",
    "`Litestar(middleware=[...])` makes one stack of middlewares for each route: no middleware sees another path.",
    "https://docs.litestar.dev/2/usage/middleware/using-middleware.html",
    "litestar.routes",
)
SEARCHES_ROOT_PATH: Final = Quirk(
    "Litestar 2.6 to 2.25",
    "The router cuts everything up to the root path off, wherever in the path the root path occurs.",
    "https://github.com/litestar-org/litestar/pull/3039",
    "litestar",
)
PREPENDS_ROOT_PATH: Final = Quirk(
    "uvicorn 0.26 to 0.54",
    "`--root-path` is put in front of every path. Hypercorn, Granian, Daphne and gunicorn leave the path.",
    "https://github.com/Kludex/uvicorn/pull/2213",
    "uvicorn",
)
BREAKS_ON_LATE_BODY: Final = Quirk(
    "Hypercorn 0.18",
    "Over HTTP/2, body data that arrives after the response closes the connection, with every request on it.",
    "https://github.com/pgjones/hypercorn/blob/0.18.0/src/hypercorn/protocol/h2.py",
    "2",
)
WSGI_CALL: Final = Quirk(
    "gunicorn 27",
    "The default worker class calls the app as WSGI, `app(environ, start_response)`.",
    "https://docs.gunicorn.org/en/stable/settings.html#worker-class",
    "gunicorn",
)

QUIRKS: Final = (
    CLIENT_ROOT_PATH,
    FRAMEWORK_MOUNT,
    OWN_ROOT_PATH,
    ROUTES_BEFORE_MIDDLEWARE,
    SEARCHES_ROOT_PATH,
    PREPENDS_ROOT_PATH,
    BREAKS_ON_LATE_BODY,
    WSGI_CALL,
)


class ServerFactory(NamedTuple):
    """The method of an MCP server object that returns the server's ASGI app.

    Attributes:
        method: The name of the method.
        product: The product and the versions in which the method was seen.
    """

    method: str
    product: str


SERVERS_WITH_FACTORIES: Final = (
    ServerFactory("http_app", "fastmcp 2.14 to 4.2"),
    ServerFactory("streamable_http_app", "mcp 1.30 to 2.3"),
)
