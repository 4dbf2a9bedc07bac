"""What a protected app finds in its scope: `state`, `user`, `auth`, in the forms that frameworks and the MCP SDK read.

When the `mcp` package is loaded, `user` is a subclass of its `AuthenticatedUser` (it checks with isinstance) and
its ContextVar is set, so that `get_access_token()`, per-tool scopes and session binding work unchanged.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NamedTuple

from asgi_mcp_auth.context import AuthInfo

__all__ = ("HIDDEN_TOKEN", "AuthenticatedUser", "Credentials", "Forms", "SDKBridge", "forms_of", "sdk_bridge")

HIDDEN_TOKEN = "[hidden: asgi_mcp_auth was not told expose_token=True]"
"""What the SDK's `AccessToken.token`, which must be a string, says while the raw token is hidden."""


NO_CLIENT = "urn:asgi-mcp-auth:no-client"
"""What the SDK's `AccessToken.client_id` says when the token names no client; never a subject (RFC 9068 section 5)."""


class _Caller:
    """The names by which frameworks ask for a user, from the `AuthInfo`."""

    __slots__ = ()
    auth_info: AuthInfo

    @property
    def display_name(self) -> str:
        """The subject."""
        return self.auth_info.subject

    @property
    def identity(self) -> str:
        """The stable principal key, unlike the subject unique across issuers."""
        return self.auth_info.principal.key


class _Shared:
    """One object serves all requests of a token, so nothing about it can be changed."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        msg = f"{type(self).__name__} is immutable: cannot set {name!r}"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> None:
        msg = f"{type(self).__name__} is immutable: cannot delete {name!r}"
        raise AttributeError(msg)


class AuthenticatedUser(_Shared, _Caller):
    """`scope["user"]`: the interface of Starlette's users, and the `AuthInfo`."""

    __slots__ = ("auth_info",)
    is_authenticated = True

    def __init__(self, auth_info: AuthInfo) -> None:
        object.__setattr__(self, "auth_info", auth_info)

    def __repr__(self) -> str:
        return f"<AuthenticatedUser {self.auth_info.subject!r} of {self.auth_info.issuer!r}>"


class Credentials(_Shared):
    """`scope["auth"]`: the granted scopes, for `@requires` and its like."""

    __slots__ = ("_granted",)

    _granted: tuple[str, ...]

    def __init__(self, scopes: tuple[str, ...]) -> None:
        object.__setattr__(self, "_granted", scopes)

    @property
    def scopes(self) -> list[str]:
        """What was granted, a fresh list each time."""
        return list(self._granted)


Forms = tuple[AuthenticatedUser, Credentials]
"""What an identity is to frameworks: `scope["user"]` and `scope["auth"]`."""


def forms_of(info: AuthInfo) -> Forms:
    """Made of an identity once: 0.1 µs a request instead of 0.4."""
    kept: Forms | None = info._kept  # noqa: SLF001 - the place for it  # pyright: ignore[reportPrivateUsage]
    if kept is None:
        kept = AuthenticatedUser(info), Credentials(info.scopes)
        object.__setattr__(info, "_kept", kept)
    return kept


class SDKBridge(NamedTuple):
    """The MCP SDK's own view of a caller: how to make its user, and the variable that it reads."""

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
    except ImportError:  # an mcp without its server parts, or one that has moved them
        return None

    class BridgedUser(_Caller, SDKAuthenticatedUser):
        """The SDK's user, with our `auth_info` and names.

        It is one request's own, as its parts can be changed; they are made when they are asked for, which is rare:
        that saves 4 µs a request, between a server's and a tool's code 9.
        """

        def __init__(self, auth_info: AuthInfo) -> None:  # pyright: ignore[reportMissingSuperCall]
            self.auth_info = auth_info

        @functools.cached_property
        def access_token(self) -> AccessToken:  # type: ignore[override]
            """The token as the SDK knows it; without the token, unless that is exposed."""
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
            """What was granted: the list of the access token, as in the SDK."""
            return self.access_token.scopes

        @functools.cached_property
        def username(self) -> str:  # type: ignore[override]
            """The client, as in the SDK."""
            return self.access_token.client_id

    return SDKBridge(BridgedUser, auth_context_var)


def sdk_bridge() -> SDKBridge | None:
    """The bridge, if the `mcp` package is loaded in this process. Asked at start-up, never inside a request."""
    return _build_bridge() if "mcp" in sys.modules else None
