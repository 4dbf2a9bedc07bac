"""Where the middleware stands, and one warning when `/.well-known/*` of the host root cannot reach it there.

In: the app below, and the root paths of scopes. Out: the root path that the app sets itself, and a warning with the
paths to route (RFC 9728 section 3.1 puts the documents at the host root), as early as it can be known: at construction
for what the app itself says, at the lifespan start-up where its scope has a root path, else at the first request.
And the part of a request's root path that its client may have made up.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from asgi_mcp_auth._policy.problems import show
from asgi_mcp_auth.auth import MCPAuth

__all__ = ("MountCheck",)

logger = logging.getLogger("asgi_mcp_auth")

MOST_LAYERS = 100


class MountCheck:
    """The place of one middleware. Each warning is given once for a configuration, however many middlewares it has.

    Attributes:
        own_root_path: What `FastAPI(root_path=...)` sets below the middleware, where it is cut off the path all the
            same; or an empty string.
    """

    def __init__(self, app: object, auth: MCPAuth) -> None:
        self.own_root_path = _own_root_path(app)
        self._auth = auth
        self._paths = ", ".join(urlsplit(resource.metadata_url).path for resource in auth.site.resources)
        if self.own_root_path:
            self.check(self.own_root_path)
        elif _is_litestar_route(app):
            self._tell_once(
                "Litestar gives its middlewares no path without a route, so %s of the host root does not reach this "
                "one. Wrap the app, MCPAuthMiddleware(Litestar(...), ...), or give these paths a route: "
                "asgi(path, copy_scope=True)(auth.metadata_app()).",
                self._paths,
            )

    def check(self, root_path: str) -> None:
        """Below a mount, the host root's `/.well-known/*` does not arrive by itself."""
        self._tell_once(
            "Mounted below %s: %s of the host root has to be routed to this middleware, as it is or below the mount; "
            "or serve MCPAuth.metadata_app() at the host root.",
            show(root_path),
            self._paths,
        )

    @staticmethod
    def claimed_root_path(scope: Mapping[str, Any]) -> str:
        """The root path as far as the client may have chosen it: Daphne takes it from the field `Daphne-Root-Path`.

        Starlette, in its mounts, keeps the server's root path apart in `app_root_path`.
        """
        if "daphne.server" not in sys.modules:
            return ""
        claimed: str = scope.get("app_root_path", scope.get("root_path")) or ""
        return claimed

    def _tell_once(self, what: str, *args: str) -> None:
        # Who has made an app of the documents serves them with it; a configuration without any has none to route.
        if self._auth.serves_documents_apart or not self._auth.site.documents:
            return
        self._auth.warn_once(logger, what, *args)


def _own_root_path(app: object) -> str:
    """Only FastAPI's: Quart's attribute of that name is a folder."""
    is_fastapi = any(base.__module__.startswith("fastapi.") for base in type(app).__mro__)
    return str(getattr(app, "root_path", "")) if is_fastapi else ""


def _is_litestar_route(app: object) -> bool:
    """Whether the app is what Litestar gives to the middlewares of `Litestar(middleware=[...])`, one for each route."""
    for _ in range(MOST_LAYERS):  # the middlewares further inside
        below = getattr(app, "app", None)
        if below is None:
            break
        app = below
    return type(getattr(app, "__self__", None)).__module__.startswith("litestar.routes")
