"""Detects where the middleware is mounted, and warns once for each mistake, with the line that fixes it.

The metadata documents belong to the host root (RFC 9728 section 3.1), which a mounted middleware does not serve. The
warning comes as early as the mount can be known: at construction from the app itself, at the lifespan start-up if its
scope has a root path, else at the first request. `check_response` warns if the app does not serve the resource's path.
"""

from __future__ import annotations

import logging
import sys
from urllib.parse import urlsplit

from asgi_mcp_auth._asgi.asgi_types import Message, Scope, Send
from asgi_mcp_auth._compat.asgi_servers import (
    CLIENT_ROOT_PATH,
    FRAMEWORK_MOUNT,
    OWN_ROOT_PATH,
    ROUTES_BEFORE_MIDDLEWARE,
)
from asgi_mcp_auth._policy.compile import CompiledConfig
from asgi_mcp_auth._policy.problems import show

__all__ = ("MountCheck", "Warnings")

logger = logging.getLogger("asgi_mcp_auth")

MAX_LAYERS = 100
REDIRECTS = frozenset((301, 302, 303, 307, 308))
NOT_FOUND = 404
FIX_IN_PROXY = "In the proxy, for example nginx: location %s { proxy_pass http://%s; }"
FIX_IN_FRAMEWORK = "In the outer app, before other mounts: Mount('/.well-known', app=auth.metadata_app())"


class Warnings:
    """Warnings that are logged once for a configuration, however many apps it protects.

    Attributes:
        documents_served_separately: Whether an app or a router of the metadata documents was made.
    """

    def __init__(self) -> None:
        self.documents_served_separately = False
        self._given: set[str] = set()

    def is_first(self, text: str) -> bool:
        """Return whether this text is given for the first time."""
        if text in self._given:
            return False
        self._given.add(text)
        return True

    def warn_once(self, warning: str, *args: object) -> None:
        """Log a warning the first time it is given, whatever its arguments."""
        if self.is_first(warning):
            logger.warning(warning, *args)


class MountCheck:
    """Detects where one middleware is mounted, and warns if clients cannot reach what they need there.

    Attributes:
        own_root_path: The prefix of `FastAPI(root_path=...)` if the protected app is such an app, else an empty
            string. The app removes this prefix from the path, but the scope does not contain it yet.
    """

    def __init__(self, app: object, config: CompiledConfig, warnings: Warnings) -> None:
        self.own_root_path = _own_root_path(app)
        self._warnings = warnings
        self._has_documents = bool(config.documents)
        self._documents = ", ".join(urlsplit(resource.metadata_url).path for resource in config.resources)
        self._first_document = urlsplit(config.resources[0].metadata_url).path
        self._resource_paths = frozenset(resource.owned_prefix for resource in config.resources)
        if self.own_root_path:
            self._warn_of_mount(self.own_root_path, {})
        elif _is_litestar_route(app):
            self._warn_of_documents(
                "Litestar gives its middlewares no path without a route, so %s of the host root does not reach this "
                "one. Wrap the app, MCPAuthMiddleware(Litestar(...), ...), or give these paths a route: "
                "asgi(path, copy_scope=True)(auth.metadata_app()).",
                self._documents,
            )

    def check_request(self, scope: Scope) -> str:
        """Warn about the root path of a scope, and return the part of the root path that the client may have chosen."""
        self._warn_of_mount(scope["root_path"], scope)
        if CLIENT_ROOT_PATH.marker not in sys.modules:
            return ""
        claimed: str = scope.get(FRAMEWORK_MOUNT.marker, scope.get("root_path")) or ""
        return claimed

    def check_response(self, start: Message, scope: Scope, send: Send) -> Send:
        """Warn if the app does not serve the resource's own path, and return the `send` for the response.

        An MCP client does not follow a redirect with its token, or repeats a POST as a GET. MCP servers also answer
        404 for an unknown session and, since 2026-07-28, for an unknown method: those have a JSON-RPC body.
        """
        path = scope["path"]
        called = {path, (scope.get("root_path") or "").rstrip("/") + path}
        if all((text.rstrip("/") or "/") not in self._resource_paths for text in called):
            return send
        if start["status"] in REDIRECTS:
            self._warn_of_redirect(start, called)
        elif start["status"] == NOT_FOUND and not any(name == b"mcp-session-id" for name, _ in scope["headers"]):
            return self._checking_body(send, path)
        return send

    def _warn_of_redirect(self, start: Message, called: set[str]) -> None:
        location = next((value for name, value in start.get("headers", ()) if bytes(name).lower() == b"location"), b"")
        try:
            target = urlsplit(bytes(location).decode("latin-1")).path
        except ValueError:
            return
        if target not in called and any(target.rstrip("/") == path.rstrip("/") for path in called):
            self._warnings.warn_once(
                "The app redirects the resource's own path to %s, and MCP clients lose the token or the body there. "
                "Serve exactly the path of resource=: Mount('/', app=mcp.http_app(path='/mcp')) instead of "
                "Mount('/mcp', app=mcp.http_app(path='/')).",
                show(target),
            )

    def _checking_body(self, send: Send, path: str) -> Send:
        async def check(message: Message) -> None:
            if message["type"] == "http.response.body" and b'"jsonrpc"' not in message.get("body", b""):
                self._warnings.warn_once(
                    "The app answered 404 to %s, the resource's own path. Serve the MCP endpoint at exactly this path, "
                    "for example mcp.http_app(path=...), or set resource= to the URL of the endpoint.",
                    show(path),
                )
            await send(message)

        return check

    def _warn_of_mount(self, root_path: str, scope: Scope) -> None:
        if FRAMEWORK_MOUNT.marker in scope and scope[FRAMEWORK_MOUNT.marker] != root_path:
            fix = FIX_IN_FRAMEWORK
        else:
            host, port = scope.get("server") or ("127.0.0.1", 8000)
            fix = FIX_IN_PROXY % (self._first_document, host if port is None else f"{host}:{port}")
        self._warn_of_documents(
            "Mounted below %s: %s of the host root has to be routed to this middleware. %s",
            show(root_path),
            self._documents,
            fix,
        )

    def _warn_of_documents(self, what: str, *args: str) -> None:
        if self._has_documents and not self._warnings.documents_served_separately:
            self._warnings.warn_once(what, *args)


def _own_root_path(app: object) -> str:
    is_fastapi = any(base.__module__.startswith(OWN_ROOT_PATH.marker) for base in type(app).__mro__)
    return str(getattr(app, "root_path", "")) if is_fastapi else ""


def _is_litestar_route(app: object) -> bool:
    """Return whether the app is what Litestar passes to each middleware of `Litestar(middleware=[...])`."""
    for _ in range(MAX_LAYERS):  # the middlewares further inside
        below = getattr(app, "app", None)
        if below is None:
            break
        app = below
    return type(getattr(app, "__self__", None)).__module__.startswith(ROUTES_BEFORE_MIDDLEWARE.marker)
