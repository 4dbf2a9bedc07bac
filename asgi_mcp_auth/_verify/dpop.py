"""Verification of DPoP for one resource: the proof, the nonce, and that no proof is used twice (RFC 9449)."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._oauth.dpop_proof import Expected, Proof, ProofKey, check_proof, digest_of, make_nonce
from asgi_mcp_auth._oauth.http_cache import MINUTE, TokenBucket
from asgi_mcp_auth._policy.senders import MAX_WINDOW, CompiledDPoP
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.errors import InvalidProof, InvalidToken, NonceRequired, Reason, Refusal, Unavailable
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("DPoP", "KeyLimits")

MAX_KEYS = 4096
MAX_KEPT_HEADER = 2048  # bytes; the header with an RSA key of 8,192 bits has 1,900
SKEW_SECONDS = 10.0  # a process whose clock is slow accepts a proof for longer
MAX_RECORD_SECONDS = 2 * MAX_WINDOW + SKEW_SECONDS  # of a proof whose `iat` is as late as it may be
MAX_SHARE = 0.25  # of the room for records, for one key
MIN_PROOFS_PER_MINUTE = 10


class KeyLimits:
    """Limits the proofs that one key can have recorded, so that no key fills the store for all others.

    Refilled buckets hold a minute's worth. So the records of one key, which last for `MAX_RECORD_SECONDS` at most,
    never take more than `MAX_SHARE` of the room. The limits are of one process, and the same for all of its resources.

    Args:
        room: How many records the store can hold.
    """

    def __init__(self, room: int) -> None:
        most = int(room * MAX_SHARE / (1 + MAX_RECORD_SECONDS / MINUTE))
        self.per_minute = max(MIN_PROOFS_PER_MINUTE, most)
        self._buckets: BoundedMap[str, TokenBucket] = BoundedMap(MAX_KEYS)

    def of(self, thumbprint: str) -> TokenBucket:
        """Return the bucket of a key. Only the holder of a valid token can add one."""
        bucket = self._buckets.get(thumbprint)
        if bucket is None:
            bucket = TokenBucket(self.per_minute)
            self._buckets.put(thumbprint, bucket)
        return bucket


class DPoP:
    """The DPoP proofs of one resource.

    The keys of accepted proofs are kept parsed, the least recently used leave first. Only the holder of a valid token
    can add a key.

    Args:
        compiled: The settings of the resource.
        origin: The origin of the resource, as clients know it.
        clock: Seconds since the epoch.
        replays: Shared by all processes that serve the resource.
        limits: Limits what one key can record, in all resources of this process.
        hooks: Logs failures at a limited rate.
    """

    def __init__(
        self,
        compiled: CompiledDPoP,
        origin: str,
        *,
        clock: Callable[[], float],
        replays: StoreUse,
        limits: KeyLimits,
        hooks: HookCaller,
    ) -> None:
        self._compiled = compiled
        self._origin = origin
        self._clock = clock
        self._replays = replays
        self._limits = limits
        self._hooks = hooks
        self._keys: BoundedMap[bytes, ProofKey] = BoundedMap(MAX_KEYS)

    def check(self, verified: Verified, request: RequestInfo) -> Refusal | Awaitable[Verified | Refusal]:
        """Return the refusal of the proof, or an awaitable that records the proof and returns the identity.

        The nonce is checked after all of the proof, so that a client fixes its defects first; the record comes last,
        so that no defective proof can use up the identifier of another one.
        """
        bound, now = verified.confirmation, self._clock()
        if bound is None or bound.jkt is None:
            refusal: Refusal = InvalidToken(
                Reason.DPOP_KEY_MISMATCH,
                expected="cnf with jkt",
                found="a token that is not bound to a key",
                description="Invalid DPoP key binding",
            )
            return _named(refusal, verified)
        token = request.fields[b"authorization"][0].strip(b" \t").partition(b" ")[2].lstrip(b" ")
        url = request.public_url(self._origin)
        expected = Expected(request.method, url, digest_of(token), bound.jkt)
        lines = request.fields.get(b"dpop", [])
        try:
            proof = check_proof(lines, expected, self._compiled.proofs, now, self._keys.get)
            verified = self._check_nonce(proof, verified, now)
        except Refusal as refused:
            return _named(refused.without_traceback(), verified)
        except Exception as error:  # noqa: BLE001 - a fault of the verification must neither accept nor cause a 500
            return self._hooks.failed("The DPoP verification", error, token)
        if not proof.is_known and len(proof.header) <= MAX_KEPT_HEADER:
            self._keys.put(proof.header, proof.key)
        return self._record(proof, verified, now)

    def _check_nonce(self, proof: Proof, verified: Verified, now: float) -> Verified:
        """Check the nonce. Return the identity with a fresh nonce for the response if the nonce is about to end.

        Raises:
            NonceRequired: The nonce is missing, too old, or made with another secret.
        """
        key = self._compiled.nonce_key
        if key is None:
            return verified
        given, current = (proof.nonce or "").encode("utf-8", "surrogatepass"), make_nonce(key, now).encode("ascii")
        if hmac.compare_digest(given, current):
            return verified
        fresh = ((b"dpop-nonce", current),)
        if hmac.compare_digest(given, make_nonce(key, now, slots_ago=1).encode("ascii")):
            return verified._replace(response_headers=(*verified.response_headers, *fresh))
        found = "no nonce" if proof.nonce is None else "a nonce that is too old, or of another secret"
        raise NonceRequired(Reason.DPOP_NONCE_REQUIRED, expected="a nonce", found=found, response_headers=fresh)

    async def _record(self, proof: Proof, verified: Verified, now: float) -> Verified | Refusal:
        """Record the proof for as long as it would be accepted (RFC 9449 section 11.1), or refuse a repeated one.

        The key has the URL as the proof names it: a thief may spell the path of the request in another way. Proofs
        that are not recorded do not count, so that a thief who repeats one does not use up the limit of its key.
        """
        bucket = self._limits.of(proof.key.thumbprint)
        wait = bucket.take(now)
        if wait:
            return _named(_too_many(self._limits.per_minute, wait), verified)
        key = self._replays.key(proof.key.thumbprint, proof.jti, proof.htu)
        ttl = proof.issued_at + self._compiled.proofs.window - now + SKEW_SECONDS
        try:
            known = await self._replays.add(key, b"1", ttl)
        except Unavailable as unavailable:
            bucket.give_back()
            if self._compiled.accepts_store_failure:
                return verified
            return _named(unavailable.without_traceback(), verified)
        if known is None:
            return verified
        bucket.give_back()
        return _named(InvalidProof(Reason.DPOP_PROOF_REPLAYED, expected="a new jti", found="a known jti"), verified)


def _too_many(per_minute: int, wait: float) -> Unavailable:
    """Return the refusal of a key that has used up its limit. 503, because neither the token nor the proof is wrong."""
    return Unavailable(
        Reason.DPOP_TOO_MANY_PROOFS,
        expected=f"at most {per_minute} proofs of one key in a minute",
        found="more",
        retry_after=wait,
    )


def _named(refusal: Refusal, verified: Verified) -> Refusal:
    """Return the refusal with the issuer and the client of the token, for the log."""
    refusal.issuer, refusal.client_id = verified.auth_info.issuer, verified.auth_info.client_id
    return refusal
