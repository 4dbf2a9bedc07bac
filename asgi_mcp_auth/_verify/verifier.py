"""Turning a credential into a verified identity: the seam, the revocation hook, and functions of the user's own.

A verifier decides and never answers: `Verified` or a `Refusal` come back, and the middleware does the rest.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol
from urllib.parse import quote

from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._values import dataclass
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal, Unavailable

__all__ = ("CallableVerifier", "IsRevoked", "Verified", "Verifier", "VerifyFunction")

logger = logging.getLogger("asgi_mcp_auth.verifiers")

IsRevoked = Callable[[AuthInfo], bool | Awaitable[bool]]
VerifyFunction = Callable[[str], AuthInfo | Awaitable[AuthInfo]]


@dataclass(frozen=True, slots=True)
class Verified:
    """An accepted credential, the time it is good until (leeway included), and fields to add to the app's response."""

    auth_info: AuthInfo
    valid_until: float | None = None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(
        self,
        auth_info: AuthInfo,
        valid_until: float | None = None,
        response_headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        object.__setattr__(self, "auth_info", auth_info)
        object.__setattr__(self, "valid_until", valid_until)
        object.__setattr__(self, "response_headers", response_headers)


class Verifier(Protocol):
    """Decides about a credential. An exception other than a `Refusal` is answered 503 `hook_failed`."""

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return what was verified, or return or raise the refusal."""
        ...


def copy_with_token(auth_info: AuthInfo, token: str | None) -> AuthInfo:
    """The same identity, with or without the raw token."""
    return auth_info if auth_info.token == token else auth_info.replace(token=token)


def hook_failed(name: str, error: Exception, token: bytes) -> Unavailable:
    """The refusal for code of the user's that raised. The traceback goes to the log, without the token it may quote."""
    told, secret = "".join(traceback.format_exception(error)), token.decode("ascii", "replace")
    for form in (secret, quote(secret), quote(secret, safe="")):
        told = told.replace(form, "[token]")
    logger.error("%s failed:\n%s", name, told)
    return Unavailable(Reason.HOOK_FAILED, found=type(error).__name__)


async def ask_hook(hook: Callable[..., object], *args: object, name: str, token: bytes) -> object:
    """Call a user's function, sync or async. What it raises, unless a `Refusal`, becomes 503 `hook_failed`."""
    try:
        answer = hook(*args)
        return await answer if inspect.isawaitable(answer) else answer
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code: whatever it is, it is no pass
        raise hook_failed(name, error, token) from None


class CallableVerifier:
    """A function of the user's own, `token → AuthInfo`, async or, on a thread, sync (mcpauth's custom verification).

    Its result is held to what the resource demands: a trusted issuer, the audience, the expiry.

    Args:
        function: Returns the identity, or raises a refusal (or one of `asgi_mcp_auth.exceptions`).
        issuers: The issuers that the resource trusts.
        accepts_audience: Whether the `AuthInfo`'s audience is acceptable, or None not to check.
        clock: Seconds since the epoch.
        expose_token: Keep the raw token in `AuthInfo.token`.
        allowed_clients: By issuer: the only clients to accept, or None for any.
        translate: From what the function raised to the refusal that is meant.
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
        """An async function runs here; a sync one may wait on the network, so it runs on a thread."""
        if inspect.iscoroutinefunction(self._function):
            return await self._function(token)
        import anyio.to_thread  # noqa: PLC0415 - few have such a function

        # In a tuple, because trio does not let a thread return what can be awaited.
        (answer,) = await anyio.to_thread.run_sync(lambda: (self._function(token),))
        return await answer if inspect.isawaitable(answer) else answer

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:  # noqa: ARG002 - the seam
        """Ask the function, then check what it says."""
        token = credential.token.decode("ascii")
        try:
            info = await ask_hook(self._ask, token, name="The verify function", token=credential.token)
        except Refusal as refusal:
            return (refusal if self._translate is None else self._translate(refusal)).without_traceback()
        if not isinstance(info, AuthInfo):
            logger.error("The verify function returned %s, not an AuthInfo", type(info).__name__)
            return Unavailable(Reason.HOOK_FAILED, found=type(info).__name__)
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
