"""The part of `MCPAuth` that users of `mcpauth` know by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast

from asgi_mcp_auth._policy.compile import CompiledConfig
from asgi_mcp_auth._verify.verifier import VerifyFunction
from asgi_mcp_auth.context import AuthInfo, current_auth

if TYPE_CHECKING:
    from starlette.routing import Router

    from asgi_mcp_auth.auth import MCPAuth
    from asgi_mcp_auth.middleware import MCPAuthMiddleware

__all__ = ("MCPAuthInterface",)


class MCPAuthInterface:
    """The caller's identity, a router for the metadata, and a middleware for one resource."""

    site: CompiledConfig
    serves_documents_apart: bool
    """Whether an app or a router of the metadata documents has been made, to serve them beside the middleware."""

    @property
    def auth_info(self) -> AuthInfo | None:
        """The caller of the request being handled; the same as `current_auth()`."""
        return current_auth()

    def resource_metadata_router(self) -> Router:
        """The metadata documents as a Starlette router; splat its `.routes` into an app (needs `starlette`)."""
        from asgi_mcp_auth._asgi.small_apps import starlette_router  # noqa: PLC0415 - needs an optional package

        self.serves_documents_apart = True
        return starlette_router(self.site)

    def bearer_auth_middleware(  # noqa: PLR0917 - mcpauth's signature
        self,
        mode_or_verify: Literal["jwt"] | VerifyFunction,
        audience: str | None = None,
        required_scopes: Sequence[str] | None = None,
        show_error_details: bool = False,
        leeway: float = 60,
        resource: str | None = None,
    ) -> Callable[..., MCPAuthMiddleware]:
        """A middleware class for one resource, as `mcpauth` makes it; with the raw token left to the app.

        Args:
            mode_or_verify: `"jwt"`, or a function from the token to an `AuthInfo`, sync or async.
            audience: One more accepted audience; the resource itself is always accepted.
            required_scopes: Scopes to require beside the policy's.
            show_error_details: Tell the caller what only the operator should know. For debugging.
            leeway: Seconds of clock difference, at most 300; not used with a function.
            resource: Which resource; may be left out when there is only one.

        Raises:
            ConfigurationError: An unknown resource, a wrong mode.
        """
        from asgi_mcp_auth._compat.mcpauth import bearer_auth_middleware  # noqa: PLC0415 - it is built on the middleware

        return bearer_auth_middleware(
            cast("MCPAuth", self),
            mode_or_verify,
            audience=audience,
            required_scopes=required_scopes or (),
            show_error_details=show_error_details,
            leeway=leeway,
            resource=resource,
        )
