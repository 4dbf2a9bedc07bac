"""JSON Web Key Sets (RFC 7517): parse leniently key by key, select strictly one key.

One bad entry never sinks a set; a set that is not whole, is over the limits or holds no usable key is
refused as a whole, so that the caller can keep the one it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth.errors import InvalidServerMetadata, InvalidToken, Reason, printable

__all__ = (
    "MAX_KEYS",
    "KeySet",
    "SkipReason",
    "Skipped",
    "UnknownKid",
    "VerificationKey",
    "parse_key_set",
    "read_key_set",
)

MAX_KEYS = 100
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS = 8192  # a larger one makes every verification slow

# Ed25519 points of small order, the sign bit cleared: under such a key anybody can sign (RFC 8032 section 8.9).
SMALL_ORDER = frozenset(
    map(
        bytes.fromhex,
        (
            "00" * 32,
            "01" + "00" * 31,
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "ec" + "ff" * 30 + "7f",
            "ed" + "ff" * 30 + "7f",
            "ee" + "ff" * 30 + "7f",
        ),
    )
)

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


class SkipReason(StrEnum):
    """Why an entry of a key set is not used."""

    NOT_AN_OBJECT = "not_an_object"
    UNSUPPORTED_TYPE = "unsupported_type"
    SYMMETRIC = "symmetric"
    PRIVATE = "private"
    NOT_FOR_SIGNATURES = "not_for_signatures"
    UNSUPPORTED_ALGORITHM = "unsupported_algorithm"
    WEAK = "weak"
    TOO_LARGE = "too_large"
    INVALID = "invalid"
    DUPLICATE = "duplicate"


class Skipped(NamedTuple):
    """An entry that is not used: its place in the set, its kid (escaped) and why."""

    position: int
    kid: str | None
    reason: SkipReason


class UnknownKid(InvalidToken):
    """No key of the set has the token's kid (or fits a token without one): a newer set may."""


class VerificationKey:
    """One public key, bound to the algorithms it may be used with."""

    __slots__ = ("_public_key", "algorithms", "identity", "issuer", "kid")

    def __init__(
        self, kid: str | None, algorithms: frozenset[str], public_key: Any, identity: object, issuer: object = None
    ) -> None:
        self.kid = kid
        self.issuer = issuer
        """The entry's `issuer`, which says whose tokens it is for where many tenants share a key set; usually None."""
        self.algorithms = algorithms
        self.identity = identity
        self._public_key = public_key

    def verify(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's over `signing_input`; `alg` must be one of `algorithms`."""
        return ALGORITHMS[alg].signature.verify(signing_input, self._public_key, signature)

    def __repr__(self) -> str:
        return f"<VerificationKey kid={self.kid!r} {'/'.join(sorted(self.algorithms))}>"


class KeySet:
    """The usable keys of one issuer, and what was skipped."""

    __slots__ = ("_by_kid", "exact", "identity", "keys", "skipped")

    def __init__(self, keys: tuple[VerificationKey, ...], skipped: tuple[Skipped, ...]) -> None:
        self.keys = keys
        self.skipped = skipped
        self.identity = frozenset(key.identity for key in keys)
        """Equal for two sets with the same keys, whatever their order or the skipped entries."""
        by_kid: dict[str, tuple[VerificationKey, ...]] = {}
        for key in keys:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        self._by_kid = MappingProxyType(by_kid)
        alone = [key for sharing in by_kid.values() for key in sharing if len(sharing) == 1]
        exact = {(key.kid, alg): (key,) for key in alone for alg in key.algorithms}
        self.exact: Mapping[tuple[str | None, str], tuple[VerificationKey, ...]] = exact
        """By kid and `alg`, the one key of this kid: what `select` would say of most tokens. Of others, ask that."""

    def select(self, kid: str | None, alg: str, *, max_without_kid: int = 1) -> tuple[VerificationKey, ...]:
        """The key for a token's (kid, alg); several candidates only for a token without kid, by option.

        Raises:
            UnknownKid: No key has this kid.
            InvalidToken: `key_mismatch` (the key is for another algorithm) or `ambiguous_key`.
        """
        with_kid = self.keys if kid is None else self._by_kid.get(kid, ())
        if not with_kid:
            raise UnknownKid(Reason.UNKNOWN_KID, kid=kid, alg=alg)
        fitting = tuple(key for key in with_kid if alg in key.algorithms)
        if not fitting:
            expected = ", ".join(sorted({name for key in with_kid for name in key.algorithms}))
            refusal = UnknownKid if kid is None else InvalidToken  # a fitting key may have been published since
            raise refusal(Reason.KEY_MISMATCH, expected=expected, found=alg, kid=kid, alg=alg)
        if len(fitting) > (max_without_kid if kid is None else 1):
            raise InvalidToken(Reason.AMBIGUOUS_KEY, expected="one key", found=f"{len(fitting)} keys", kid=kid, alg=alg)
        return fitting


def _usable_algorithms(jwk: Mapping[str, Any]) -> frozenset[str] | SkipReason:
    """The algorithms an entry may verify, or why it may not (RFC 7517 section 4, RFC 8725bis section 3.1)."""
    kty, alg, use, key_ops = (jwk.get(name) for name in ("kty", "alg", "use", "key_ops"))
    if kty == "oct":
        return SkipReason.SYMMETRIC
    if kty not in ("RSA", "EC", "OKP"):
        return SkipReason.UNSUPPORTED_TYPE
    if "d" in jwk:
        return SkipReason.PRIVATE
    if use not in (None, "sig"):
        return SkipReason.NOT_FOR_SIGNATURES
    if key_ops is not None and (not isinstance(key_ops, list) or "verify" not in key_ops):
        return SkipReason.NOT_FOR_SIGNATURES
    fitting = frozenset(
        name
        for name, known in ALGORITHMS.items()
        if known.kty == kty and (kty == "RSA" or jwk.get("crv") in known.curves)
    )
    if alg is None:
        return fitting or SkipReason.UNSUPPORTED_ALGORITHM
    if not isinstance(alg, str):
        return SkipReason.UNSUPPORTED_ALGORITHM
    if kty == "OKP" and alg in fitting:  # "EdDSA" and the curve's own name are the same algorithm (RFC 9864)
        return fitting
    return fitting & {alg} or SkipReason.UNSUPPORTED_ALGORITHM


def _import_key(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> Any | SkipReason:
    """PyJWT's import, with what it would trip over caught: a bad key must not sink the set."""
    members = {name: jwk.get(name) for name in ("kty", "n", "e", "crv", "x", "y") if name in jwk}
    if not all(isinstance(value, str) and _BASE64URL.fullmatch(value) for value in members.values()):
        return SkipReason.INVALID
    alg = min(algorithms)
    try:
        key = PyJWK(members, "EdDSA" if members["kty"] == "OKP" else alg).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, LookupError, OverflowError):
        return SkipReason.INVALID
    if isinstance(key, Ed25519PublicKey):
        *low, high = key.public_bytes_raw()
        if bytes((*low, high & 0x7F)) in SMALL_ORDER:
            return SkipReason.WEAK
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            return SkipReason.WEAK
        if key.key_size > MAX_RSA_BITS:
            return SkipReason.TOO_LARGE
    return key


def _read_key(jwk: Mapping[str, Any]) -> VerificationKey | SkipReason:
    algorithms = _usable_algorithms(jwk)
    if isinstance(algorithms, SkipReason):
        return algorithms
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        return SkipReason.INVALID
    key = _import_key(jwk, algorithms)
    if isinstance(key, SkipReason):
        return key
    issuer = jwk.get("issuer")
    identity = (kid, algorithms, repr(issuer), *(jwk.get(name) for name in ("kty", "crv", "n", "e", "x", "y")))
    return VerificationKey(kid, algorithms, key, identity, issuer)


def read_key_set(document: Mapping[str, Any]) -> KeySet:
    """Read a JWK Set; entries that cannot verify signatures are skipped, each with its reason; perhaps all of them.

    Raises:
        InvalidServerMetadata: No `keys` array, or more than `MAX_KEYS` entries.
    """
    listed = document.get("keys")
    if not isinstance(listed, list):
        msg = "The key set has no 'keys' array."
        raise InvalidServerMetadata(msg)
    entries = cast("list[object]", listed)
    if len(entries) > MAX_KEYS:
        msg = f"The key set has {len(entries)} keys; at most {MAX_KEYS} are read."
        raise InvalidServerMetadata(msg)
    keys: dict[object, VerificationKey] = {}
    skipped: list[Skipped] = []
    for index, entry in enumerate(entries):
        jwk = cast("dict[str, Any]", entry) if isinstance(entry, dict) else None
        read = SkipReason.NOT_AN_OBJECT if jwk is None else _read_key(jwk)
        if isinstance(read, VerificationKey) and read.identity in keys:
            read = SkipReason.DUPLICATE
        if isinstance(read, SkipReason):
            kid = None if jwk is None else jwk.get("kid")
            skipped.append(Skipped(index, None if kid is None else printable(kid), read))
        else:
            keys[read.identity] = read
    return KeySet(tuple(keys.values()), tuple(skipped))


def parse_key_set(document: Mapping[str, Any]) -> KeySet:
    """Read a JWK Set that can verify something.

    Raises:
        InvalidServerMetadata: As `read_key_set`; or there is not one usable key.
    """
    keys = read_key_set(document)
    if not keys.keys:
        why = ", ".join(sorted({skip.reason for skip in keys.skipped})) or "it is empty"
        msg = f"The key set holds no usable key ({why})."
        raise InvalidServerMetadata(msg)
    return keys
