"""Check a key set (RFC 7517): keys that can verify tokens, entries that are skipped, keys that must not be public."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from asgi_mcp_auth._oauth.jwk_set import MAX_KEYS, KeySet, Skipped, SkipReason, read_key_set
from asgi_mcp_auth.doctor import _key_codes as codes
from asgi_mcp_auth.doctor._findings import Code, Finding, cut, found
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = ("check_keys", "check_lifetime")

MAX_LIFETIME = 86_400.0
MIN_LIFETIME = 60.0
SHOWN = 8

SKIPPED: Final[Mapping[SkipReason, Code]] = {
    SkipReason.PRIVATE: codes.PRIVATE_KEY,
    SkipReason.SYMMETRIC: codes.SYMMETRIC_KEY,
    SkipReason.WEAK: codes.WEAK_KEY,
    SkipReason.NOT_FOR_SIGNATURES: codes.ENCRYPTION_KEY,
}


def check_keys(document: Mapping[str, Any], subject: str) -> Iterator[Finding]:
    """Check a JWK Set document.

    Args:
        document: The JWK Set.
        subject: Its URL, or the file that contains it.
    """
    try:
        keys = read_key_set(document)
    except InvalidServerMetadata as error:
        yield found(codes.KEY_SET_REFUSED, subject, error.message)
        return
    if keys.keys:
        shown = [f"{_kid(key.kid)} {'/'.join(sorted(key.algorithms))}" for key in keys.keys[:SHOWN]]
        entries = len(keys.keys) + len(keys.skipped)
        yield found(codes.KEYS_GOOD, subject, f"{len(keys.keys)} of {entries} keys: {', '.join(shown)}")
    else:
        why = ", ".join(sorted({skip.reason for skip in keys.skipped})) or "the set is empty"
        yield found(codes.KEY_SET_REFUSED, subject, f"no usable key: {why}")
    for skipped in keys.skipped:
        yield _skipped(skipped, subject)
    yield from _ambiguous(keys, subject)
    without_alg = [_kid(entry.get("kid")) for entry in _used(document, keys) if entry.get("alg") is None]
    if without_alg:
        yield found(codes.NO_ALG, subject, ", ".join(without_alg[:SHOWN]))


def _kid(kid: object) -> str:
    return "(no kid)" if kid is None else cut(kid, 64)


def _used(document: Mapping[str, Any], keys: KeySet) -> list[dict[str, Any]]:
    """Return the entries that are not skipped, as published."""
    skipped = {entry.position for entry in keys.skipped}
    return [
        cast("dict[str, Any]", entry)
        for position, entry in enumerate(document["keys"][:MAX_KEYS])
        if position not in skipped
    ]


def _skipped(skipped: Skipped, subject: str) -> Finding:
    code = SKIPPED.get(skipped.reason, codes.UNUSABLE_KEY)
    kid = "(no kid)" if skipped.kid is None else skipped.kid[:64]
    return found(code, subject, f"entry {skipped.position}, kid {kid}: {skipped.reason}")


def _ambiguous(keys: KeySet, subject: str) -> Iterator[Finding]:
    """Yield findings for keys that share the kid and algorithm of a token."""
    known = Counter((key.kid, alg) for key in keys.keys for alg in key.algorithms)
    kids = dict.fromkeys(kid for (kid, _), count in known.items() if kid is not None and count > 1)
    for kid in kids:
        yield found(codes.DUPLICATE_KID, subject, f"kid {_kid(kid)}")
    if len(keys.keys) > 1 and any(key.kid is None for key in keys.keys):
        yield found(codes.NO_KID, subject, f"{sum(key.kid is None for key in keys.keys)} of {len(keys.keys)} keys")


def check_lifetime(seconds: float | None, subject: str) -> Iterator[Finding]:
    """Check the lifetime of a key set: long enough to cache the set, short enough to withdraw a key."""
    if seconds is None or seconds < MIN_LIFETIME:
        evidence = "no max-age" if seconds is None else f"{seconds:.0f} s"
        yield found(codes.NOT_CACHEABLE, subject, evidence)
    elif seconds > MAX_LIFETIME:
        yield found(codes.LONG_LIFETIME, subject, f"{seconds:.0f} s")
