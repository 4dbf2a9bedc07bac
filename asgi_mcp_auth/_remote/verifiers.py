"""Turning a credential into a verified identity: JWTs of several issuers, or a function of the user's own.

A verifier decides and never answers: `Verified` or a `Refusal` come back, and the middleware does the rest.
"""

from __future__ import annotations

import inspect
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple, Protocol
from urllib.parse import quote

import anyio
import anyio.to_thread

from asgi_mcp_auth._protocol.claims import check_claims, check_header, unverified_time
from asgi_mcp_auth._protocol.credentials import Credential
from asgi_mcp_auth._protocol.jose import CompactJWS, parse_compact
from asgi_mcp_auth._protocol.request import Request
from asgi_mcp_auth._remote.issuers import Issuers, Trusted
from asgi_mcp_auth._remote.token_cache import Entry, TokenCache
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal, Unavailable
from asgi_mcp_auth.status import ResourceStatus

__all__ = ("CallableVerifier", "IsRevoked", "JWTVerifier", "Verified", "Verifier", "VerifyFunction")

logger = logging.getLogger("asgi_mcp_auth.verifiers")

IsRevoked = Callable[[AuthInfo], bool | Awaitable[bool]]
VerifyFunction = Callable[[str], AuthInfo | Awaitable[AuthInfo]]


class Verified(NamedTuple):
    """An accepted credential, the time it is good until (leeway included), and fields to add to the app's response."""

    auth_info: AuthInfo
    valid_until: float | None = None
    response_headers: tuple[tuple[bytes, bytes], ...] = ()


class Verifier(Protocol):
    """Decides about a credential. An exception other than a `Refusal` is answered 503 `hook_failed`."""

    async def verify(self, credential: Credential, request: Request) -> Verified | Refusal:
        """Return what was verified, or return or raise the refusal."""
        ...


class JWTVerifier:
    """Verifies JWT access tokens of the issuers that one resource trusts.

    Args:
        issuers: The issuers that the resource trusts: their rules and their keys.
        clock: Seconds since the epoch.
        cache_size: How many verified tokens to remember; 0 for none.
        expose_token: Keep the raw token in `AuthInfo.token`.
    """

    def __init__(
        self,
        issuers: Issuers,
        *,
        clock: Callable[[], float],
        cache_size: int,
        expose_token: bool,
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._cache = TokenCache(cache_size) if cache_size > 0 else None
        self._refusals: Counter[str] = Counter()
        self._expose_token = expose_token

    async def verify(self, credential: Credential, request: Request) -> Verified | Refusal:  # noqa: ARG002 - the seam
        """Known tokens from the cache; new ones in the order issuer, header, key, signature, claims."""
        digest = sha256(credential.token).digest()
        if self._cache is not None:
            known = self._cache.get(digest, self._clock())
            if known is not None:
                return known
        try:
            return await self._verify_new(credential.token, digest)
        except Refusal as refusal:
            return refusal.bare()

    async def _verify_new(self, token: bytes, digest: bytes) -> Verified:
        try:
            jws = parse_compact(token)
            # Looked up among the trusted before anything is fetched (RFC 8725bis section 3.8).
            trusted = await self._issuers.find(jws.claims.get("iss"))
        except Refusal as refusal:
            self._refusals[refusal.reason.value] += 1
            raise
        try:
            entry = await self._judge(jws, trusted, token)
        except Refusal as refusal:
            refusal.issuer, refusal.kid, refusal.alg = trusted.rules.issuer, jws.header.kid, jws.header.alg
            trusted.keys.refusals[refusal.reason.value] += 1
            raise
        if self._cache is not None:
            self._cache.put(digest, entry)
        return entry.verified

    async def _judge(self, jws: CompactJWS, trusted: Trusted, token: bytes) -> Entry:
        rules, keys, header = trusted.rules, trusted.keys, jws.header
        check_header(header, rules)
        candidates, generation = await keys.select(
            header.kid,
            header.alg,
            issued_at=unverified_time(jws.claims, "iat"),
            leeway=rules.leeway,
            most_without_kid=trusted.issuer.most_keys_without_kid,
        )
        if not any(key.verify(header.alg, jws.signing_input, jws.signature) for key in candidates):
            raise InvalidToken(Reason.BAD_SIGNATURE)
        trusted.check_key_issuers(candidates)
        auth_info = check_claims(jws.claims, rules, self._clock())
        if self._expose_token:
            auth_info = copy_with_token(auth_info, token.decode("ascii"))
        not_before = max(jws.claims.get("nbf", 0), jws.claims.get("iat", 0)) - rules.leeway
        valid_until = (auth_info.expires_at or 0.0) + rules.leeway
        verified = Verified(auth_info, valid_until)
        return Entry(verified, not_before, min(valid_until, trusted.until), keys, generation)

    def status(self, resource: str) -> ResourceStatus:
        """Its picture."""
        return ResourceStatus(
            resource=resource,
            token_cache=None if self._cache is None else self._cache.status(),
            pool=self._issuers.pool_status(),
            refusals=dict(self._refusals),
        )


def copy_with_token(auth_info: AuthInfo, token: str | None) -> AuthInfo:
    """The same identity, with or without the raw token."""
    return auth_info if auth_info.token == token else auth_info.replace(token=token)


def hook_failed(name: str, error: Exception, token: bytes) -> Unavailable:
    """The refusal for code of the user's that raised. The traceback goes to the log, without the token it may quote."""
    told, secret = "".join(traceback.format_exception(error)), token.decode("ascii")
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


class RevocationCheck:
    """Asks a revocation hook about every accepted token, cached ones included; fails closed.

    Args:
        verifier: What verifies the token first.
        is_revoked: Sync or async; true means refused. An exception means 503.
    """

    def __init__(self, verifier: Verifier, is_revoked: IsRevoked) -> None:
        self._verifier = verifier
        self._is_revoked = is_revoked

    async def verify(self, credential: Credential, request: Request) -> Verified | Refusal:
        """Verify, then ask."""
        verified = await self._verifier.verify(credential, request)
        if isinstance(verified, Refusal):
            return verified
        info = verified.auth_info
        if await ask_hook(self._is_revoked, info, name="is_revoked", token=credential.token) is not False:
            found = f"jti {info.claims.get('jti')} of principal {info.principal.key[:16]}"
            return InvalidToken(Reason.REVOKED, issuer=info.issuer, client_id=info.client_id, found=found)
        return verified


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
        # In a tuple, because trio does not let a thread return what can be awaited.
        (answer,) = await anyio.to_thread.run_sync(lambda: (self._function(token),))
        return await answer if inspect.isawaitable(answer) else answer

    async def verify(self, credential: Credential, request: Request) -> Verified | Refusal:  # noqa: ARG002 - the seam
        """Ask the function, then check what it says."""
        token = credential.token.decode("ascii")
        try:
            info = await ask_hook(self._ask, token, name="The verify function", token=credential.token)
        except Refusal as refusal:
            return (refusal if self._translate is None else self._translate(refusal)).bare()
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
