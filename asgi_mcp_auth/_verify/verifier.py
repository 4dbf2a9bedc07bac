"""Turning a credential into a verified identity: the protocol, the revocation hook, and the user's own functions.

A verifier decides and does not answer the request: it returns `Verified` or a `Refusal`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from asgi_mcp_auth._oauth.confirmation import Confirmation
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import run_on_thread
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal

__all__ = ("CallableVerifier", "IsRevoked", "Verified", "Verifier", "VerifyFunction")

IsRevoked = Callable[[AuthInfo], bool | Awaitable[bool]]
VerifyFunction = Callable[[str], AuthInfo | Awaitable[AuthInfo]]


class Verified(NamedTuple):
    """An accepted credential.

    Attributes:
        auth_info: The identity.
        valid_until: The end of the credential, leeway included; None without an end.
        response_headers: Fields to add to the response of the app.
        kid: The key id in the header of the token.
        alg: The algorithm in the header of the token.
        is_cached: Whether the decision comes from the token cache.
        confirmation: What the token is bound to; the proof is checked afterwards. None for a bearer token.
    """

    auth_info: AuthInfo
    valid_until: float | None = None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()
    kid: str | None = None
    alg: str | None = None
    is_cached: bool = False
    confirmation: Confirmation | None = None


class Verifier(Protocol):
    """Checks a credential. An exception other than a `Refusal` is answered 503 `hook_failed`."""

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the verified credential, or return or raise the refusal."""
        ...


def copy_with_token(auth_info: AuthInfo, token: str | None) -> AuthInfo:
    """Return the identity with this raw token, or without a token."""
    return auth_info if auth_info.token == token else auth_info.replace(token=token)


class CallableVerifier:
    """A function from a token to an `AuthInfo` as a verifier (mcpauth's custom verification).

    An async function runs on the event loop, a sync one on a thread. The issuer, the audience and the expiry of the
    result are checked against what the resource demands.

    Args:
        function: Returns the identity, or raises a refusal (or one of `asgi_mcp_auth.exceptions`).
        issuers: The issuers that the resource trusts.
        resource: The identifier of the resource.
        accepts_audience: Returns whether the audience of an `AuthInfo` is acceptable.
        clock: Seconds since the epoch.
        expose_token: Keep the raw token in `AuthInfo.token`.
        allowed_clients: The accepted clients of each issuer; None accepts all.
        translate: Returns the refusal to answer for a refusal that the function raised.
    """

    def __init__(
        self,
        function: VerifyFunction,
        *,
        issuers: frozenset[str],
        resource: str,
        accepts_audience: Callable[[AuthInfo], bool],
        clock: Callable[[], float],
        expose_token: bool,
        allowed_clients: Mapping[str, frozenset[str] | None] = MappingProxyType({}),
        translate: Callable[[Refusal], Refusal] | None = None,
    ) -> None:
        self._function = function
        self._allowed_clients = allowed_clients
        self._translate = translate
        self._issuers = issuers
        self._resource = resource
        self._accepts_audience = accepts_audience
        self._clock = clock
        self._expose_token = expose_token

    async def _ask(self, token: str) -> object:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(token)
        answer = await run_on_thread(self._function, token)
        return await answer if inspect.isawaitable(answer) else answer

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:  # noqa: ARG002 - the seam
        """Call the function, then check the identity that it returned.

        Raises:
            TypeError: The function did not return an `AuthInfo`.
        """
        token = credential.token.decode("ascii")
        try:
            info = await self._ask(token)
        except Refusal as refusal:
            return (refusal if self._translate is None else self._translate(refusal)).without_traceback()
        if not isinstance(info, AuthInfo):
            raise TypeError(f"The verify function returned {type(info).__name__}, not an AuthInfo")
        if info.issuer not in self._issuers:
            expected = " ".join(sorted(self._issuers))
            return InvalidToken(Reason.UNKNOWN_ISSUER, expected=expected, found=info.issuer, issuer=info.issuer)
        if not self._accepts_audience(info):
            return InvalidToken(Reason.WRONG_AUDIENCE, found=info.audience, issuer=info.issuer)
        allowed = self._allowed_clients.get(info.issuer)
        if allowed is not None and info.client_id not in allowed:
            return InvalidToken(Reason.CLIENT_NOT_ALLOWED, found=info.client_id, issuer=info.issuer)
        if info.expires_at is not None and self._clock() >= info.expires_at:
            return InvalidToken(Reason.TOKEN_EXPIRED, issuer=info.issuer, description="The access token expired")
        info = info if info.resource is not None else info.replace(resource=self._resource)
        return Verified(copy_with_token(info, token if self._expose_token else None), info.expires_at)
