"""The metadata documents on their own: an ASGI app for the host root, and a Starlette router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from asgi_mcp_auth._asgi.sending import complete_lifespan, send_response
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._protocol.responses import json_response
from asgi_mcp_auth._protocol.site import Site

if TYPE_CHECKING:
    from starlette.routing import Router

__all__ = ("MetadataApp", "starlette_router")


class MetadataApp:
    """An ASGI app that answers the metadata paths of a configuration and 404 to everything else."""

    def __init__(self, site: Site) -> None:
        self._documents = site.documents

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request; a lifespan is completed at once."""
        if scope["type"] == "lifespan":
            await complete_lifespan(receive, send)
            return
        request = Request(scope)
        document = None if request.is_websocket else self._documents.get(request.well_known_path)
        answer = json_response(404, {"detail": "Not found"}) if document is None else document.answer(request)
        await send_response(answer, request, receive, send)


def starlette_router(site: Site) -> Router:
    """A router with one route per metadata path."""
    from starlette.routing import Route, Router  # noqa: PLC0415 - an optional package

    app = MetadataApp(site)
    return Router(routes=[Route(unquote(path.decode("ascii")), endpoint=app) for path in site.documents])
