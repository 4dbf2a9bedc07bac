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

from asgi_mcp_auth._policy.compile import CompiledConfig
from asgi_mcp_auth._policy.problems import show

__all__ = ("MountCheck", "Warnings")

logger = logging.getLogger("asgi_mcp_auth")

MOST_LAYERS = 100


class Warnings:
    """Warnings that are logged once for a configuration, however many apps it protects.

    Attributes:
        documents_served_separately: Whether an app or a router of the metadata documents was made.
    """

    def __init__(self) -> None:
        self.documents_served_separately = False
        self._given: set[str] = set()

    def warn_once(self, warning: str, *args: object) -> None:
        """Log a warning the first time it is given, whatever its arguments."""
        if warning not in self._given:
            self._given.add(warning)
            logger.warning(warning, *args)


class MountCheck:
    """Detects where one middleware is mounted, and warns if the metadata documents cannot be reached there.

    Attributes:
        own_root_path: The root path that `FastAPI(root_path=...)` sets below the middleware, which is stripped from
            the path all the same; or an empty string.
    """

    def __init__(self, app: object, config: CompiledConfig, warnings: Warnings) -> None:
        self.own_root_path = _own_root_path(app)
        self._warnings = warnings
        self._has_documents = bool(config.documents)
        self._paths = ", ".join(urlsplit(resource.metadata_url).path for resource in config.resources)
        if self.own_root_path:
            self._warn_of_mount(self.own_root_path)
        elif _is_litestar_route(app):
            self._warn(
                "Litestar gives its middlewares no path without a route, so %s of the host root does not reach this "
                "one. Wrap the app, MCPAuthMiddleware(Litestar(...), ...), or give these paths a route: "
                "asgi(path, copy_scope=True)(auth.metadata_app()).",
                self._paths,
            )

    def check_request(self, scope: Mapping[str, Any]) -> str:
        """Warn about the root path of a scope, and return the part of the root path that the client may have chosen.

        Daphne takes the root path from the field `Daphne-Root-Path`. Starlette, in its mounts, keeps the server's root
        path in `app_root_path`.
        """
        self._warn_of_mount(scope["root_path"])
        if "daphne.server" not in sys.modules:
            return ""
        claimed: str = scope.get("app_root_path", scope.get("root_path")) or ""
        return claimed

    def _warn_of_mount(self, root_path: str) -> None:
        self._warn(
            "Mounted below %s: %s of the host root has to be routed to this middleware, as it is or below the mount; "
            "or serve MCPAuth.metadata_app() at the host root.",
            show(root_path),
            self._paths,
        )

    def _warn(self, what: str, *args: str) -> None:
        if self._has_documents and not self._warnings.documents_served_separately:
            self._warnings.warn_once(what, *args)


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
