"""Verification of JWT access tokens: issuer, header, key, signature and claims, in this order (RFC 9068 section 4).

Accepted tokens are cached. With a fresh key set the verification does not wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from hashlib import sha256

from asgi_mcp_auth._keys.registry import Issuers, Trusted
from asgi_mcp_auth._oauth.access_token import check_claims, check_header, unverified_time, valid_from
from asgi_mcp_auth._oauth.confirmation import read_confirmation
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth._oauth.jws import CompactJWS, parse_compact
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.token_cache import CONFIRMATION_BYTES, WIDEST, Entry, TokenCache, estimate_size
from asgi_mcp_auth._verify.verifier import Verified, copy_with_token
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal
from asgi_mcp_auth.status import ResourceStatus

__all__ = ("JWTVerifier",)


class JWTVerifier:
    """A verifier of JWT access tokens from the issuers that one resource trusts.

    Args:
        issuers: The issuers that the resource trusts: their rules and their keys.
        clock: Seconds since the epoch.
        cache_size: The largest number of cached tokens; 0 disables the cache.
        cache_bytes: The largest memory of the cached tokens, in bytes.
        expose_token: Whether `AuthInfo.token` contains the raw token.
        hooks: Logs failures at a limited rate.

    Attributes:
        cache: The token cache.
    """

    def __init__(
        self,
        issuers: Issuers,
        *,
        clock: Callable[[], float],
        cache_size: int,
        cache_bytes: int,
        expose_token: bool,
        hooks: HookCaller,
    ) -> None:
        self.cache = TokenCache(cache_size, cache_bytes, clock)
        self._issuers = issuers
        self._clock = clock
        self._refusals: Counter[str] = Counter()
        self._expose_token = expose_token
        self._hooks = hooks

    def check(self, token: bytes, digest: bytes) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Verify a token that is not in the cache, and cache it if it is accepted.

        Args:
            token: The token, a token68.
            digest: The cache key of the token.

        Returns:
            The decision if the issuer and its keys are cached, else an awaitable that continues the check.
        """
        jws = trusted = None
        try:
            jws = parse_compact(token)
            # The issuer must be trusted before anything is fetched (RFC 8725bis section 3.8).
            trusted = self._issuers.get_cached(jws.claims.get("iss"))
            if trusted is None:
                return self._continue(jws, None, token, digest)
            check_header(jws.header, trusted.rules)
            keys = trusted.keys.get_cached(jws.header.kid, jws.header.alg)
            if keys is None:
                return self._continue(jws, trusted, token, digest)
            return self._validate(jws, trusted, keys, token, digest)
        except Refusal as refusal:
            return self._refused(refusal, jws, trusted)
        except Exception as error:  # noqa: BLE001 - a fault of the verifier must neither accept a token nor cause a 500
            return self._hooks.failed("The JWT verifier", error, token)

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the decision about a credential, cached or not; see `Verifier`."""
        del request  # the decision about a JWT does not depend on the request
        digest = sha256(credential.scheme + b" " + credential.token).digest()
        decided = self.cache.get(digest) or self.check(credential.token, digest)
        return decided if isinstance(decided, (Verified, Refusal)) else await decided

    async def _continue(
        self, jws: CompactJWS, trusted: Trusted | None, token: bytes, digest: bytes
    ) -> Verified | Refusal:
        """Find the issuer, unless it is known, and its keys; then validate the token."""
        try:
            if trusted is None:
                trusted = await self._issuers.find(jws.claims.get("iss"))
                check_header(jws.header, trusted.rules)
            keys = await trusted.keys.select(
                jws.header.kid,
                jws.header.alg,
                issued_at=unverified_time(jws.claims, "iat"),
                leeway=trusted.rules.leeway,
                max_without_kid=trusted.issuer.config.max_keys_without_kid,
            )
            return self._validate(jws, trusted, keys, token, digest)
        except Refusal as refusal:
            return self._refused(refusal, jws, trusted)

    def _validate(
        self,
        jws: CompactJWS,
        trusted: Trusted,
        keys: tuple[tuple[VerificationKey, ...], object],
        token: bytes,
        digest: bytes,
    ) -> Verified:
        """Check the signature and the claims, and cache the token.

        Raises:
            InvalidToken: The signature or a claim is not acceptable.
        """
        self.cache.misses += 1
        candidates, generation = keys
        alg, rules = jws.header.alg, trusted.rules
        for key in candidates:
            if key.verify(alg, jws.signing_input, jws.signature):
                break
        else:
            raise InvalidToken(Reason.BAD_SIGNATURE)
        if trusted.issuer.template is not None:
            trusted.check_key_issuers(candidates)
        claims = jws.claims
        auth_info = check_claims(claims, rules, self._clock())
        if self._expose_token:
            auth_info = copy_with_token(auth_info, token.decode("ascii"))
        valid_until = (auth_info.expires_at or 0.0) + rules.leeway
        kid = jws.header.kid
        bound = read_confirmation(claims.get("cnf"), rules.confirmations)
        cached = Verified(auth_info, valid_until, kid=kid, alg=alg, is_cached=True, confirmation=bound)
        not_before = valid_from(claims) - rules.leeway
        until, weight = min(valid_until, trusted.until), estimate_size(jws.payload, claims, auth_info)
        weight += 0 if kid is None else WIDEST * len(kid)
        weight += 0 if bound is None else CONFIRMATION_BYTES
        self.cache.put(digest, Entry(cached, not_before, until, trusted.keys, generation, weight))
        return Verified(auth_info, valid_until, kid=kid, alg=alg, confirmation=bound)

    def _refused(self, refusal: Refusal, jws: CompactJWS | None, trusted: Trusted | None) -> Refusal:
        """Count a refusal, add the issuer, `kid` and `alg` if they are known, and return it."""
        counts = self._refusals
        if jws is not None and trusted is not None:
            refusal.issuer, refusal.kid, refusal.alg = trusted.rules.issuer, jws.header.kid, jws.header.alg
            counts = trusted.keys.refusals
        counts[refusal.reason.value] += 1
        return refusal.without_traceback()

    def status(self, resource: str) -> ResourceStatus:
        """Return the status of the resource that this verifier serves."""
        return ResourceStatus(
            resource=resource,
            token_cache=self.cache.status(),
            pool=self._issuers.pool_status(),
            refusals=dict(self._refusals),
        )
