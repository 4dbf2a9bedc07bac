"""Verifying JWT access tokens of several issuers: issuer, header, key, signature, claims (RFC 9068 section 4).

Tokens that have passed are remembered. With a fresh key set in hand nothing has to be waited for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING

from asgi_mcp_auth._keys.registry import Issuers, Trusted
from asgi_mcp_auth._oauth.access_token import check_claims, check_header, unverified_time, valid_from
from asgi_mcp_auth._oauth.credentials import MAX_LENGTH, Credential, is_token
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth._oauth.jws import CompactJWS, parse_compact
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.token_cache import Entry, TokenCache, estimate_size
from asgi_mcp_auth._verify.verifier import Verified, copy_with_token
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal

if TYPE_CHECKING:
    from asgi_mcp_auth.status import ResourceStatus

__all__ = ("JWTVerifier",)


class JWTVerifier:
    """Verifies JWT access tokens of the issuers that one resource trusts.

    Args:
        issuers: The issuers that the resource trusts: their rules and their keys.
        clock: Seconds since the epoch.
        cache_size: How many verified tokens to remember; 0 for none.
        cache_bytes: How much memory they may take.
        expose_token: Keep the raw token in `AuthInfo.token`.

    Attributes:
        cache: The tokens that are remembered.
    """

    def __init__(
        self,
        issuers: Issuers,
        *,
        clock: Callable[[], float],
        cache_size: int,
        cache_bytes: int,
        expose_token: bool,
    ) -> None:
        self.cache = TokenCache(cache_size, cache_bytes, clock)
        self._issuers = issuers
        self._clock = clock
        self._refusals: Counter[str] = Counter()
        self._expose_token = expose_token

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:  # noqa: ARG002 - the seam
        """The decision about a token; what could not be told at once has to wait for keys, or for the resolver."""
        token = credential.token
        digest = sha256(token).digest()
        decided = self.cache.get(digest) or self.verify_new(token, digest)
        if decided is not None:
            return decided
        jws = trusted = None
        try:
            jws = parse_compact(token)
            trusted = await self._issuers.find(jws.claims.get("iss"))
            check_header(jws.header, trusted.rules)
            found, generation = await trusted.keys.select(
                jws.header.kid,
                jws.header.alg,
                issued_at=unverified_time(jws.claims, "iat"),
                leeway=trusted.rules.leeway,
                max_without_kid=trusted.issuer.max_keys_without_kid,
            )
            return self._judge(jws, trusted, found, generation, token, digest)
        except Refusal as refusal:
            return self._refused(refusal, jws, trusted)

    def verify_new(self, token: bytes, digest: bytes) -> Verified | Refusal | None:
        """The decision about a token that is not remembered.

        None where `verify` has to wait, or to fail, or where it would not have been asked: no token is without token68.
        """
        jws = trusted = None
        if len(token) > MAX_LENGTH:
            return None
        try:
            jws = parse_compact(token)
            # Looked up among the trusted before anything is fetched (RFC 8725bis section 3.8).
            trusted = self._issuers.get_cached(jws.claims.get("iss"))
            if trusted is None:
                return None
            header, rules = jws.header, trusted.rules
            check_header(header, rules)
            get_cached = trusted.keys.get_cached(header.kid, header.alg)
            if get_cached is None:
                return None
            candidates, generation = get_cached
            return self._judge(jws, trusted, candidates, generation, token, digest)
        except Refusal as refusal:
            if jws is None and not is_token(token):  # a JWS is token68, so that has not to be looked at before
                return None
            return self._refused(refusal, jws, trusted)
        except Exception:  # noqa: BLE001 - `verify` meets it too, and it is answered 503
            return None

    def _judge(  # noqa: PLR0917 - the token, and the key it is of
        self,
        jws: CompactJWS,
        trusted: Trusted,
        candidates: tuple[VerificationKey, ...],
        generation: object,
        token: bytes,
        digest: bytes,
    ) -> Verified:
        """Signature and claims; what passes is remembered. Raises `InvalidToken`."""
        self.cache.misses += 1
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
        verified = Verified(auth_info, valid_until)
        not_before = valid_from(claims) - rules.leeway
        until, weight = min(valid_until, trusted.until), estimate_size(jws.payload, claims, auth_info)
        self.cache.put(digest, Entry(verified, not_before, until, trusted.keys, generation, weight))
        return verified

    def _refused(self, refusal: Refusal, jws: CompactJWS | None, trusted: Trusted | None) -> Refusal:
        """The refusal, counted, and saying as much of the token as is known."""
        counts = self._refusals
        if jws is not None and trusted is not None:
            refusal.issuer, refusal.kid, refusal.alg = trusted.rules.issuer, jws.header.kid, jws.header.alg
            counts = trusted.keys.refusals
        counts[refusal.reason.value] += 1
        return refusal.without_traceback()

    def status(self, resource: str) -> ResourceStatus:
        """Its picture."""
        from asgi_mcp_auth.status import ResourceStatus  # noqa: PLC0415

        return ResourceStatus(
            resource=resource,
            token_cache=self.cache.status(),
            pool=self._issuers.pool_status(),
            refusals=dict(self._refusals),
        )
