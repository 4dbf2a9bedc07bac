"""The caller in the scope of a protected app: `user` and `auth` as frameworks and the MCP SDK read them.

When the `mcp` package is loaded, `user` is a subclass of its `AuthenticatedUser` (the SDK checks with isinstance) and
its ContextVar is set, so that `get_access_token()`, per-tool scopes and session binding work unchanged.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgi_mcp_auth.context import AuthInfo

__all__ = ("HIDDEN_TOKEN", "AuthenticatedUser", "Credentials", "SDKBridge", "sdk_bridge")

HIDDEN_TOKEN = "[hidden: set expose_token=True for asgi_mcp_auth]"
"""The SDK's `AccessToken.token`, which must be a string, while the raw token is hidden."""

NO_CLIENT = "urn:asgi-mcp-auth:no-client"
"""The SDK's `AccessToken.client_id` if the token names no client; never a subject (RFC 9068 section 5)."""


class _Caller:
    """The names under which frameworks read a user, derived from the `AuthInfo`."""

    __slots__ = ()
    auth_info: AuthInfo

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.auth_info.subject

    @property
    def identity(self) -> str:
        """The stable key of the principal. Unlike the subject it is unique across issuers."""
        return self.auth_info.principal.key


class AuthenticatedUser(_Caller):
    """`scope["user"]`: the interface of Starlette's users, and the `AuthInfo`. Each request has its own."""

    __slots__ = ("auth_info",)
    is_authenticated = True

    def __init__(self, auth_info: AuthInfo) -> None:
        self.auth_info = auth_info

    def __repr__(self) -> str:
        return f"<AuthenticatedUser {self.auth_info.subject!r} of {self.auth_info.issuer!r}>"


class Credentials:
    """`scope["auth"]`: the granted scopes, for Starlette's `@requires` and the like. Each request has its own."""

    __slots__ = ("scopes",)

    def __init__(self, scopes: tuple[str, ...]) -> None:
        self.scopes = list(scopes)


class SDKBridge(NamedTuple):
    """The MCP SDK's own view of a caller: a function that makes its user, and the variable that the SDK reads."""

    make_user: Callable[[AuthInfo], Any]
    context_var: ContextVar[Any]


@functools.cache
def _build_bridge() -> SDKBridge | None:
    try:
        from mcp.server.auth.middleware.auth_context import auth_context_var  # noqa: PLC0415 - only if mcp is loaded
        from mcp.server.auth.middleware.bearer_auth import (  # noqa: PLC0415
            AuthenticatedUser as SDKAuthenticatedUser,
        )
        from mcp.server.auth.provider import AccessToken  # noqa: PLC0415
    except ImportError:  # an mcp package without its server parts, or with other module names
        return None

    class BridgedUser(_Caller, SDKAuthenticatedUser):
        """The SDK's user, with `auth_info` and the names of `_Caller`.

        Each request has its own, because its parts can be changed. Few requests read them, so they are made when they
        are read (benchmarks: in_process, known token with the MCP SDK bridge).
        """

        def __init__(self, auth_info: AuthInfo) -> None:  # pyright: ignore[reportMissingSuperCall]
            self.auth_info = auth_info

        @functools.cached_property
        def access_token(self) -> AccessToken:  # type: ignore[override]
            """The token as the SDK knows it; without the raw token, unless `expose_token=True` is set."""
            info = self.auth_info
            expires_at = info.expires_at
            return AccessToken(
                token=info.token or HIDDEN_TOKEN,
                client_id=info.client_id or NO_CLIENT,
                scopes=list(info.scopes),
                expires_at=None if expires_at is None else int(expires_at),
                resource=info.resource,
                subject=info.subject,
                claims=info.claims,  # its "iss" completes the SDK's principal
            )

        @functools.cached_property
        def scopes(self) -> list[str]:  # type: ignore[override]
            """The granted scopes: the list of the access token, as in the SDK."""
            return self.access_token.scopes

        @functools.cached_property
        def username(self) -> str:  # type: ignore[override]
            """The client id, as in the SDK."""
            return self.access_token.client_id

    return SDKBridge(BridgedUser, auth_context_var)


def sdk_bridge() -> SDKBridge | None:
    """Return the bridge if the `mcp` package is loaded in this process. Called at start-up, never in a request."""
    return _build_bridge() if "mcp" in sys.modules else None
