"""The apps of the stack tests, all behind one ASGI app, so that one process of a server runs every one of them.

    STACK_APPS   names of apps, separated by spaces: a framework, a dash, and how the middleware stands in it
    STACK_KEYS   the key set of the issuer https://auth.example.com, as JSON
    STACK_BASE   where the apps are for the public: https://mcp.example.com, unless it is given

The app `x` is the resource STACK_BASE/x. Below /x it has, read the framework's natural way:

    GET /whoami   {"sub", "scopes", "started"} …    GET /stream  one word, and another when it is released
    GET /admin    the same; needs mcp:admin         GET /boom    raises
    GET /big      10,000 times x                    GET /visits  counts them in the framework's session
    WS  /ws       says the subject, then echoes

Where the app can leave state at its start-up, /whoami says as "begun" whether it is found in the request.

`wrap` is the middleware around the whole app, `native` the framework's own way of adding middleware. Other middlewares
stand outside and inside, in another order for each. /control/x is no part of the apps: GET says what became of streams,
and with the query `release` lets them go on.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from inspect import get_annotations
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_mcp_auth import (
    AuthServerConfig,
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)

ORIGIN = "https://page.example.com"
BASE = os.environ.get("STACK_BASE", "https://mcp.example.com")
BIG = "x" * 10_000
WELL_KNOWN = "/.well-known/oauth-protected-resource"


@dataclass
class Seen:
    """What one app went through."""

    started: bool = False
    released: bool = False
    finished: int = 0
    ended: int = 0


SEEN = {name: Seen() for name in os.environ["STACK_APPS"].split()}


async def words(seen: Seen) -> AsyncGenerator[bytes]:
    seen.released = False
    try:
        yield b"first\n"
        while not seen.released:  # noqa: ASYNC110 - set by another request
            await anyio.sleep(0.01)
        yield b"second\n"
        seen.finished += 1
    finally:
        seen.ended += 1


def auth_of(name: str) -> MCPAuth:
    metadata = ResourceServerMetadata(
        resource=f"{BASE}/{name}",
        authorization_servers=[
            AuthServerConfig(issuer="https://auth.example.com", jwks=json.loads(os.environ["STACK_KEYS"]))
        ],
    )
    policy = ScopePolicy(default=["mcp:read"], paths={f"{urlsplit(BASE).path}/{name}/admin": ["mcp:admin"]})
    return MCPAuth(ResourceServerConfig(metadata=metadata, policy=policy), allowed_origins=[ORIGIN])


class Stamp:
    """A middleware as people write them: an id on every response."""

    def __init__(self, app: Any, name: bytes) -> None:
        self.app = app
        self.name = name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = message | {"headers": [*message.get("headers", ()), (self.name, b"1")]}
            await send(message)

        await self.app(scope, receive, stamped)


OUTER = Middleware(Stamp, name=b"x-outer")
INNER = Middleware(Stamp, name=b"x-inner")
CORS = Middleware(CORSMiddleware, allow_origins=[ORIGIN], allow_headers=["authorization"])
GZIP = Middleware(GZipMiddleware)
SESSION = Middleware(SessionMiddleware, secret_key="s3cret")


def layers(name: str, auth: MCPAuth, session: Middleware | None = SESSION) -> tuple[list[Middleware], list[Middleware]]:
    """The middlewares, outermost first: ours with those outside it, and those inside."""
    ours = Middleware(MCPAuthMiddleware, auth=auth)
    sessions = [] if session is None else [session]
    if name.endswith("-wrap"):
        return [OUTER, CORS, ours], [GZIP, *sessions, INNER]
    return [OUTER, GZIP, *sessions, ours], [CORS, INNER]


def around(app: Any, middlewares: list[Middleware]) -> Any:
    for middleware in reversed(middlewares):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


def begun(name: str, scope: Any) -> bool:
    """Whether what the app's start-up left in the lifespan's state is in a request's, beside the caller."""
    return scope["state"].get(f"begun {name}") is True


def raw(name: str) -> Any:
    seen = SEEN[name]

    async def answer(send: Any, body: bytes) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})

    async def stream(receive: Any, send: Any) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with anyio.create_task_group() as group:
            group.start_soon(until_gone)
            async for word in words(seen):
                await send({"type": "http.response.body", "body": word, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            group.cancel_scope.cancel()

    async def websocket(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["state"]["claims"]["sub"]})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.started = True
        scope["state"][f"begun {name}"] = True
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print(f"shutdown of {name}", flush=True)  # noqa: T201 - read by the test
        await send({"type": "lifespan.shutdown.complete"})

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await websocket(scope, receive, send)
            return
        match scope["path"].rpartition("/")[2]:
            case "whoami" | "admin":
                told = {"sub": scope["state"]["claims"]["sub"], "scopes": list(scope["auth"].scopes)}
                told |= {"started": seen.started, "begun": begun(name, scope)}
                await answer(send, json.dumps(told).encode())
            case "stream":
                await stream(receive, send)
            case "big":
                await answer(send, BIG.encode())
            case "visits":
                scope["session"]["visits"] = scope["session"].get("visits", 0) + 1
                await answer(send, str(scope["session"]["visits"]).encode())
            case other:
                msg = f"the app's own failure at {other}"
                raise RuntimeError(msg)

    outside, inside = layers(name, auth_of(name))
    return around(app, outside + inside)


def starlette_routes(name: str) -> tuple[list[Route | WebSocketRoute], Any]:
    seen = SEEN[name]

    async def whoami(request: Request) -> JSONResponse:
        told = {"sub": request.state.claims["sub"], "scopes": request.auth.scopes, "started": seen.started}
        return JSONResponse(told | {"begun": begun(name, request.scope)})

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(words(seen))

    async def big(request: Request) -> PlainTextResponse:
        return PlainTextResponse(BIG)

    async def visits(request: Request) -> PlainTextResponse:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    async def boom(request: Request) -> PlainTextResponse:
        msg = "the app's own failure"
        raise RuntimeError(msg)

    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(websocket.user.display_name)
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect:
            pass

    ends: dict[str, Callable[[Request], Any]] = {
        "whoami": whoami,
        "admin": whoami,
        "stream": stream,
        "big": big,
        "visits": visits,
        "boom": boom,
    }
    routes = [Route(f"/{name}/{path}", endpoint) for path, endpoint in ends.items()]
    return [*routes, WebSocketRoute(f"/{name}/ws", websocket)], lifespan_of(name)


def lifespan_of(name: str) -> Any:
    """A lifespan as Starlette, FastAPI and Litestar take it."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[dict[str, bool]]:
        SEEN[name].started = True
        yield {f"begun {name}": True}
        print(f"shutdown of {name}", flush=True)  # noqa: T201 - read by the test

    return lifespan


def starlette(name: str) -> Any:
    routes, lifespan = starlette_routes(name)
    outside, inside = layers(name, auth_of(name))
    if name.endswith("-wrap"):
        return around(Starlette(routes=routes, lifespan=lifespan, middleware=inside), outside)
    return Starlette(routes=routes, lifespan=lifespan, middleware=outside + inside)


def fastapi(name: str) -> Any:
    from fastapi import Depends, FastAPI

    from asgi_mcp_auth import AuthInfo

    routes, lifespan = starlette_routes(name)
    app = FastAPI(lifespan=lifespan)

    def caller(request: Request) -> AuthInfo:
        info: AuthInfo = request.state.mcp_auth
        return info

    async def whoami(request: Request, caller: AuthInfo = Depends(caller)) -> dict[str, Any]:  # noqa: B008 - FastAPI's way
        told = {"sub": caller.subject, "scopes": list(caller.scopes), "started": SEEN[name].started}
        return told | {"begun": begun(name, request.scope)}

    app.get(f"/{name}/whoami")(whoami)
    app.get(f"/{name}/admin")(whoami)
    app.routes.extend(route for route in routes if not route.path.endswith(("whoami", "admin")))
    outside, inside = layers(name, auth_of(name))
    for middleware in reversed(inside if name.endswith("-wrap") else outside + inside):
        app.add_middleware(middleware.cls, *middleware.args, **middleware.kwargs)
    return around(app, outside) if name.endswith("-wrap") else app


def quart(name: str) -> Any:
    from quart import Quart, Response, request, session, websocket

    seen = SEEN[name]
    app = Quart(name)
    app.secret_key = "s3cret"

    async def whoami() -> dict[str, Any]:
        scope: Any = request.scope
        return {"sub": scope["state"]["claims"]["sub"], "scopes": list(scope["auth"].scopes), "started": seen.started}

    async def stream() -> Response:
        response = Response(words(seen))
        response.timeout = None
        return response

    async def big() -> str:
        return BIG

    async def visits() -> str:
        session["visits"] = session.get("visits", 0) + 1
        return str(session["visits"])

    async def boom() -> str:
        msg = "the app's own failure"
        raise RuntimeError(msg)

    async def ws() -> None:
        scope: Any = websocket.scope
        await websocket.send(scope["state"]["claims"]["sub"])
        while True:
            await websocket.send(await websocket.receive())

    async def start() -> None:
        seen.started = True

    async def stop() -> None:
        print(f"shutdown of {name}", flush=True)  # noqa: T201 - read by the test

    for view in (whoami, stream, big, visits, boom):
        app.add_url_rule(f"/{name}/{view.__name__}", view.__name__, view)
    app.add_url_rule(f"/{name}/admin", "admin", whoami)
    app.add_websocket(f"/{name}/ws", "ws", ws)
    app.before_serving(start)
    app.after_serving(stop)
    outside, inside = layers(name, auth_of(name), None)
    if name.endswith("-wrap"):
        return around(app, outside + inside)
    app.asgi_app = around(app.asgi_app, outside + inside)  # type: ignore[method-assign] # Quart's documented way
    return app


def litestar(name: str) -> Any:
    from litestar import Litestar, get, websocket
    from litestar import Request as LitestarRequest
    from litestar import WebSocket as LitestarWebSocket
    from litestar.handlers import asgi
    from litestar.middleware import DefineMiddleware
    from litestar.middleware.session.client_side import CookieBackendConfig
    from litestar.response import Stream

    seen = SEEN[name]

    async def whoami(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        return {"sub": request.state.claims["sub"], "scopes": list(request.auth.scopes), "started": seen.started}

    async def stream() -> Stream:
        return Stream(words(seen))

    async def big() -> str:
        return BIG

    async def visits(request: LitestarRequest[Any, Any, Any]) -> str:
        cast("Any", request).set_session({"visits": request.session.get("visits", 0) + 1})
        return str(request.session["visits"])

    async def boom() -> str:
        msg = "the app's own failure"
        raise RuntimeError(msg)

    async def ws(socket: LitestarWebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.user.display_name)
        while True:
            await socket.send_text(await socket.receive_text())

    names = globals() | locals()  # where Litestar looks up annotations, it would not find those of this function
    for function in (whoami, stream, big, visits, boom, ws):
        function.__annotations__ = get_annotations(function, globals=names, eval_str=True)
    handlers: list[Any] = [get(f"/{name}/{view.__name__}")(view) for view in (stream, big, visits, boom)]
    handlers += [get([f"/{name}/whoami", f"/{name}/admin"])(whoami), websocket(f"/{name}/ws")(ws)]
    auth = auth_of(name)
    outside, inside = layers(name, auth, None)
    sessions = CookieBackendConfig(secret=b"s3cret of nobody").middleware
    if name.endswith("-wrap"):
        return around(Litestar(handlers, middleware=[sessions], lifespan=[lifespan_of(name)]), outside + inside)
    # Litestar's own middlewares see routed paths only, so the metadata document needs a route.
    document = asgi(f"{WELL_KNOWN}/{name}", copy_scope=True)(auth.metadata_app())
    own = [DefineMiddleware(layer.cls, *layer.args, **layer.kwargs) for layer in outside + inside]
    return Litestar([*handlers, document], middleware=[*own, sessions], lifespan=[lifespan_of(name)])


def django(name: str) -> Any:
    conf: Any = import_module("django.conf")
    http: Any = import_module("django.http")
    urls: Any = import_module("django.urls")

    async def whoami(request: Any) -> Any:
        state = request.scope["state"]
        told = {"sub": state["claims"]["sub"], "scopes": list(request.scope["auth"].scopes), "started": False}
        return http.JsonResponse(told)

    async def stream(request: Any) -> Any:
        return http.StreamingHttpResponse(words(SEEN[name]))

    def big(request: Any) -> Any:
        return http.HttpResponse(BIG)

    def visits(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return http.HttpResponse(str(request.session["visits"]))

    def boom(request: Any) -> Any:
        msg = "the app's own failure"
        raise RuntimeError(msg)

    views = {"whoami": whoami, "admin": whoami, "stream": stream, "big": big, "visits": visits, "boom": boom}
    routes: Any = type("Urls", (), {"urlpatterns": [urls.path(f"{name}/{path}", view) for path, view in views.items()]})
    conf.settings.configure(
        SECRET_KEY="s3cret of nobody",
        ROOT_URLCONF=routes,
        ALLOWED_HOSTS=["*"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    )
    outside, inside = layers(name, auth_of(name), None)
    return around(import_module("django.core.asgi").get_asgi_application(), outside + inside)


def mount(name: str) -> Any:
    """The middleware around a part of a Starlette app; the metadata document is a route of the whole."""
    auth = auth_of(name)
    inner = Starlette(routes=[_below(route, name) for route in starlette_routes(name)[0]])
    outside, inside = layers(name, auth)
    routes = [*auth.resource_metadata_router().routes, Mount(f"/{name}", app=around(inner, outside + inside))]
    return Starlette(routes=routes, lifespan=lifespan_of(name))


def _below(route: Route | WebSocketRoute, name: str) -> Route | WebSocketRoute:
    path = route.path.removeprefix(f"/{name}")
    return Route(path, route.endpoint) if isinstance(route, Route) else WebSocketRoute(path, route.endpoint)


def mcp_server(name: str) -> Any:
    """See mcp_apps.py; imported where it is asked for only, because the identity is another where `mcp` is loaded."""
    module = import_module("mcp_apps")
    return getattr(module, name.partition("-")[0])(name, auth_of(name))


MAKERS: dict[str, Callable[[str], Any]] = {
    "sdk": mcp_server,
    "fastmcp": mcp_server,
    "raw": raw,
    "starlette": starlette,
    "fastapi": fastapi,
    "quart": quart,
    "litestar": litestar,
    "django": django,
    "mount": mount,
}
APPS: dict[str, Any] = {name: MAKERS[name.partition("-")[0]](name) for name in SEEN}


async def control(name: str, scope: Any, send: Any) -> None:
    seen = SEEN[name]
    seen.released = seen.released or scope["query_string"] == b"release"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(asdict(seen)).encode()})


async def lifespans(scope: Any, receive: Any, send: Any) -> None:
    """The server's lifespan, for every app that has one."""

    async def run(app: Any, told: Any, done: anyio.Event) -> None:
        async def from_server() -> Any:
            return await told.receive()

        async def to_server(message: Any) -> None:
            assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete"), message
            done.set()

        await app(dict(scope), from_server, to_server)

    with_one = {name: app for name, app in APPS.items() if not name.startswith("django")}  # Django raises
    async with anyio.create_task_group() as group:
        ends: list[Any] = []
        for app in with_one.values():
            into, out = anyio.create_memory_object_stream[Any](2)
            started = anyio.Event()
            group.start_soon(run, app, out, started)
            await into.send(await receive() if not ends else {"type": "lifespan.startup"})
            await started.wait()
            ends.append(into)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for into in ends:
            await into.send({"type": "lifespan.shutdown"})
    await send({"type": "lifespan.shutdown.complete"})


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespans(scope, receive, send)
        return
    path, root = scope["path"], scope.get("root_path", "")
    inner = path.removeprefix(root) if path.startswith(f"{root}/") else path  # servers disagree whether it is in front
    first, _, rest = inner.removeprefix(WELL_KNOWN + urlsplit(BASE).path).removeprefix("/").partition("/")
    if first == "control":
        await control(rest, scope, send)
    else:
        await APPS[first](scope, receive, send)
