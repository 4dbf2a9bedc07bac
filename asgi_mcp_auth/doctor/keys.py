"""Judging a key set (RFC 7517): what can verify tokens, what will be skipped, and what must never be published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from asgi_mcp_auth._oauth.jwk_set import KeySet, Skipped, SkipReason, read_key_set
from asgi_mcp_auth.doctor import key_codes as codes
from asgi_mcp_auth.doctor.findings import Code, Finding, cut, found
from asgi_mcp_auth.errors import InvalidServerMetadata

__all__ = ("check_keys", "check_lifetime")

DAY = 86_400.0
SHORTEST = 60.0
SHOWN = 8

SKIPPED: Final[Mapping[SkipReason, Code]] = {
    SkipReason.PRIVATE: codes.PRIVATE_KEY,
    SkipReason.SYMMETRIC: codes.SYMMETRIC_KEY,
    SkipReason.WEAK: codes.WEAK_KEY,
    SkipReason.NOT_FOR_SIGNATURES: codes.ENCRYPTION_KEY,
}


def check_keys(document: Mapping[str, Any], subject: str) -> Iterator[Finding]:
    """What a key set document holds.

    Args:
        document: The JWK Set.
        subject: Where it is.
    """
    try:
        keys = read_key_set(document)
    except InvalidServerMetadata as error:
        yield found(codes.KEY_SET_REFUSED, subject, error.message)
        return
    told = [f"{_kid(key.kid)} {'/'.join(sorted(key.algorithms))}" for key in keys.keys[:SHOWN]]
    if keys.keys:
        yield found(codes.KEYS_GOOD, subject, f"{len(keys.keys)} of {_entries(keys)}: {', '.join(told)}")
    else:
        why = ", ".join(sorted({skip.reason for skip in keys.skipped})) or "it is empty"
        yield found(codes.KEY_SET_REFUSED, subject, f"no usable key: {why}")
    for skipped in keys.skipped:
        yield _skipped(skipped, subject)
    yield from _ambiguous(keys, subject)
    used = _used(document, keys)
    lacking = [_kid(entry.get("kid")) for entry in used if entry.get("alg") is None]
    if lacking:
        yield found(codes.NO_ALG, subject, ", ".join(lacking[:SHOWN]))


def _kid(kid: object) -> str:
    return "(no kid)" if kid is None else cut(kid, 64)


def _entries(keys: KeySet) -> int:
    return len(keys.keys) + len(keys.skipped)


def _used(document: Mapping[str, Any], keys: KeySet) -> list[dict[str, Any]]:
    """The entries as published that are not skipped."""
    positions = {skipped.position for skipped in keys.skipped}
    return [cast("dict[str, Any]", entry) for place, entry in enumerate(document["keys"]) if place not in positions]


def _skipped(skipped: Skipped, subject: str) -> Finding:
    code = SKIPPED.get(skipped.reason, codes.UNUSABLE_KEY)
    kid = "(no kid)" if skipped.kid is None else skipped.kid[:64]
    return found(code, subject, f"entry {skipped.position}, kid {kid}: {skipped.reason}")


def _ambiguous(keys: KeySet, subject: str) -> Iterator[Finding]:
    """Keys that a token's (kid, alg) does not tell apart."""
    known = Counter((key.kid, alg) for key in keys.keys for alg in key.algorithms)
    kids = dict.fromkeys(kid for (kid, _), count in known.items() if kid is not None and count > 1)
    for kid in kids:
        yield found(codes.DUPLICATE_KID, subject, f"kid {_kid(kid)}")
    if len(keys.keys) > 1 and any(key.kid is None for key in keys.keys):
        yield found(codes.NO_KID, subject, f"{sum(key.kid is None for key in keys.keys)} of {len(keys.keys)} keys")


def check_lifetime(seconds: float | None, subject: str) -> Iterator[Finding]:
    """Whether the stated lifetime of a key set serves: long enough to be kept, short enough to be withdrawn."""
    if seconds is None or seconds < SHORTEST:
        told = "none stated" if seconds is None else f"{seconds:.0f} s"
        yield found(codes.NOT_CACHEABLE, subject, told)
    elif seconds > DAY:
        yield found(codes.LONG_LIFETIME, subject, f"{seconds:.0f} s")
