"""Any ASGI app can be protected; other objects are refused at construction, with the line that fixes the mistake."""

from __future__ import annotations

import inspect
import sys
from functools import partial
from typing import Any

import pytest
from fastmcp import FastMCP
from harness import RecordingApp, bearer, call, protect, token
from hypercorn.utils import is_asgi
from mcp.server import MCPServer, Server
from uvicorn import Config

from asgi_mcp_auth.errors import ConfigurationError
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


async def asgi3(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(scope["state"]["claims"]["sub"]).encode()})


def asgi3_returning_an_awaitable(scope: Any, receive: Any, send: Any) -> Any:
    return asgi3(scope, receive, send)


def asgi2(scope: Any) -> Any:
    return partial(asgi3, scope)


class ASGI2:
    """An ASGI 2 app as Channels 2 wrote them."""

    def __init__(self, scope: Any) -> None:
        self.scope = scope

    async def __call__(self, receive: Any, send: Any) -> None:
        await asgi3(self.scope, receive, send)


@pytest.mark.parametrize(
    "app",
    [
        pytest.param(asgi3, id="ASGI 3"),
        pytest.param(asgi3_returning_an_awaitable, id="ASGI 3, a plain function"),
        pytest.param(partial(asgi3), id="ASGI 3, partial"),
        pytest.param(asgi2, id="ASGI 2, a function"),
        pytest.param(ASGI2, id="ASGI 2, a class"),
    ],
)
async def test_apps_of_both_asgi_versions_can_be_protected(app: Any, issuer: Issuer) -> None:
    answer = await call(protect(issuer, app), headers=bearer(token(issuer)))
    assert (answer.status, answer.body) == (200, b"alice")


def wsgi(environ: Any, start_response: Any) -> Any:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("app", "what", "fix"),
    [
        pytest.param(FastMCP("x"), "FastMCP is not an ASGI app", "server.http_app()", id="fastmcp"),
        pytest.param(MCPServer("x"), "MCPServer is not an ASGI app", "server.streamable_http_app()", id="mcp"),
        pytest.param(
            Server("x"), "Server is not an ASGI app", "server.streamable_http_app()", id="a low-level server of mcp"
        ),
        pytest.param(wsgi, "is a WSGI app", "a2wsgi.WSGIMiddleware(app)", id="WSGI"),
        pytest.param(None, "None is not an ASGI app", "Pass the ASGI app to protect.", id="None"),
        pytest.param(lambda: None, "is not an ASGI app", "scope, receive and send", id="a factory"),
    ],
)
def test_an_object_that_is_no_asgi_app_is_refused_with_the_fix(app: Any, what: str, fix: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protect(issuer, app)
    (problem,) = caught.value.problems
    assert problem.where == "app"
    assert what in problem.what
    assert fix in problem.fix


@pytest.mark.skipif(sys.version_info < (3, 12), reason="inspect.markcoroutinefunction is new in 3.12")
def test_a_wsgi_call_names_the_asgi_worker(issuer: Issuer) -> None:
    guarded: Any = protect(issuer, RecordingApp())
    with pytest.raises(TypeError, match=r"MCPAuthMiddleware was called as a WSGI app.*--worker-class asgi"):
        guarded({"REQUEST_METHOD": "GET"}, print)


def test_servers_recognize_a_protected_app_as_asgi_3(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp())
    assert inspect.iscoroutinefunction(guarded.__call__)
    assert is_asgi(guarded)  # Hypercorn takes every other callable for WSGI
    config = Config(guarded)
    config.load()
    assert config.interface == "asgi3"
