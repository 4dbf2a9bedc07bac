"""JSON Web Key Sets (RFC 7517): read leniently key by key, select strictly one key.

A JWK that cannot be used is skipped with a reason. A set without a usable key is refused as a whole, so that the caller
can keep the set that it has.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from asgi_mcp_auth._oauth import ml_dsa
from asgi_mcp_auth._oauth.json_types import is_list, is_object
from asgi_mcp_auth._oauth.jws import VERIFIABLE, encode_base64url
from asgi_mcp_auth._oauth.strict_json import is_valid
from asgi_mcp_auth.errors import InvalidServerMetadata, InvalidToken, Reason, printable

__all__ = (
    "MAX_KEYS",
    "KeySet",
    "SkipReason",
    "Skipped",
    "UnknownKid",
    "VerificationKey",
    "canonical_members",
    "parse_key_set",
    "read_key",
    "read_key_set",
)

MAX_KEYS = 1000
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
# The cost of an RSA verification grows with both the modulus and the public exponent.
MAX_RSA_BITS = 8192
MAX_EXPONENT_BITS = 32

# Ed25519 points of small order, with the sign bit cleared: anyone can sign for such a key (RFC 8032 section 8.9).
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

# Base64url as RFC 7517 wants it, and what some providers publish: padding, and the standard alphabet.
_BASE64 = re.compile(r"[A-Za-z0-9_+/-]+={0,2}")
_TO_BASE64URL = str.maketrans("+/", "-_", "=")
_MATERIAL = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",), "AKP": ("pub",)}
_PARAMETER = {"EC": "crv", "OKP": "crv", "AKP": "alg"}
"""The member that decides with `kty` which algorithms a key is for (RFC 7518, RFC 8037, RFC 9964)."""


class SkipReason(StrEnum):
    """Why a JWK is not used."""

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
    OVER_LIMIT = "over_limit"
    """Stands for every JWK after the first `MAX_KEYS`."""


class Skipped(NamedTuple):
    """A JWK that is not used: its position in the set, its kid (escaped) and the reason."""

    position: int
    kid: str | None
    reason: SkipReason


class UnknownKid(InvalidToken):
    """No JWK of the set has the token's kid, or no key fits a token without a kid. A newer set may have such a key."""


class VerificationKey:
    """A public key and the algorithms that the key may verify."""

    __slots__ = ("_public_key", "algorithms", "identity", "issuer", "kid")

    def __init__(
        self, kid: str | None, algorithms: frozenset[str], public_key: Any, identity: object, issuer: object = None
    ) -> None:
        self.kid = kid
        self.issuer = issuer
        """The JWK's `issuer`: the tenant that the key belongs to, in a key set that tenants share. Usually None."""
        self.algorithms = algorithms
        self.identity = identity
        self._public_key = public_key

    def verify(self, alg: str, signing_input: bytes, signature: bytes) -> bool:
        """Return whether `signature` is this key's over `signing_input`; `alg` must be one of `algorithms`."""
        return VERIFIABLE[alg].verify(signing_input, self._public_key, signature)

    def __repr__(self) -> str:
        return f"<VerificationKey kid={self.kid!r} {'/'.join(sorted(self.algorithms))}>"


class KeySet:
    """The usable keys of one issuer, and the JWKs that were skipped.

    Args:
        keys: The usable keys.
        skipped: The other JWKs.
        unusable: The reason by kid, of JWKs that were skipped.
    """

    __slots__ = ("_by_kid", "_unusable", "exact", "identity", "keys", "skipped")

    def __init__(
        self,
        keys: tuple[VerificationKey, ...],
        skipped: tuple[Skipped, ...],
        unusable: Mapping[str, SkipReason] = MappingProxyType({}),
    ) -> None:
        self.keys = keys
        self.skipped = skipped
        self.identity = frozenset(key.identity for key in keys)
        """Equal for two sets with the same usable keys, in any order."""
        by_kid: dict[str, tuple[VerificationKey, ...]] = {}
        for key in keys:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        self._by_kid = MappingProxyType(by_kid)
        self._unusable = unusable
        alone = [key for sharing in by_kid.values() for key in sharing if len(sharing) == 1]
        exact = {(key.kid, alg): (key,) for key in alone for alg in key.algorithms}
        self.exact: Mapping[tuple[str | None, str], tuple[VerificationKey, ...]] = exact
        """The answers of `select` for kids that one key has, by kid and `alg`."""

    def select(self, kid: str | None, alg: str, *, max_without_kid: int = 1) -> tuple[VerificationKey, ...]:
        """Return the key for a token's (kid, alg). A token without a kid may have up to `max_without_kid` candidates.

        Raises:
            UnknownKid: No JWK has this kid.
            InvalidToken: `key_mismatch` (the key is for another algorithm, or the JWK is listed and cannot be used) or
                `ambiguous_key`.
        """
        with_kid = self.keys if kid is None else self._by_kid.get(kid, ())
        if not with_kid:
            if kid is not None and kid in self._unusable:  # listed, so fetching the set again does not help
                found = f"a JWK that was skipped: {self._unusable[kid]}"
                raise InvalidToken(Reason.KEY_MISMATCH, expected="a usable key", found=found, kid=kid, alg=alg)
            raise UnknownKid(Reason.UNKNOWN_KID, kid=kid, alg=alg)
        fitting = tuple(key for key in with_kid if alg in key.algorithms)
        if not fitting:
            expected = ", ".join(sorted({name for key in with_kid for name in key.algorithms}))
            refusal = UnknownKid if kid is None else InvalidToken  # a fitting key may have been published since
            raise refusal(Reason.KEY_MISMATCH, expected=expected, found=alg, kid=kid, alg=alg)
        if len(fitting) > (max_without_kid if kid is None else 1):
            raise InvalidToken(Reason.AMBIGUOUS_KEY, expected="one key", found=f"{len(fitting)} keys", kid=kid, alg=alg)
        return fitting


def _usable_algorithms(jwk: Mapping[str, object]) -> frozenset[str] | SkipReason:
    """Return the algorithms that a JWK may verify, or why it may not (RFC 7517 section 4, RFC 8725bis section 3.1)."""
    kty, alg, use, key_ops = (jwk.get(name) for name in ("kty", "alg", "use", "key_ops"))
    if kty == "oct":
        return SkipReason.SYMMETRIC
    if not isinstance(kty, str) or kty not in _MATERIAL:
        return SkipReason.UNSUPPORTED_TYPE
    if jwk.get("d") is not None or (kty == "AKP" and jwk.get("priv") is not None):
        return SkipReason.PRIVATE
    # Some providers publish empty values for "not restricted".
    if use not in (None, "", "sig"):
        return SkipReason.NOT_FOR_SIGNATURES
    if key_ops not in (None, []) and (not isinstance(key_ops, list) or "verify" not in key_ops):
        return SkipReason.NOT_FOR_SIGNATURES
    fitting = frozenset(
        name
        for name, known in VERIFIABLE.items()
        if known.kty == kty and (kty == "RSA" or jwk.get(_PARAMETER[kty]) in known.curves)
    )
    if alg is None:
        return fitting or SkipReason.UNSUPPORTED_ALGORITHM
    if not isinstance(alg, str):
        return SkipReason.UNSUPPORTED_ALGORITHM
    if kty == "OKP" and alg in fitting:  # "EdDSA" and the curve's own name are the same algorithm (RFC 9864)
        return fitting
    return fitting & {alg} or SkipReason.UNSUPPORTED_ALGORITHM


def _octets(value: object) -> bytes:
    """Decode a member of the key material; raise `ValueError` if it is not base64url or base64."""
    if not isinstance(value, str) or _BASE64.fullmatch(value) is None:
        raise ValueError("not base64url")
    text = value.translate(_TO_BASE64URL)
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _check_rsa(modulus: int, exponent: int) -> SkipReason | None:
    """Return why an RSA key is not used, or None; checked before the key is made, which costs time too."""
    if modulus.bit_length() > MAX_RSA_BITS or exponent.bit_length() > MAX_EXPONENT_BITS:
        return SkipReason.TOO_LARGE
    if modulus % 2 == 0 or exponent % 2 == 0 or exponent == 1:
        return SkipReason.INVALID
    return SkipReason.WEAK if modulus.bit_length() < MIN_RSA_BITS else None


def canonical_members(jwk: Mapping[str, object], kty: str) -> dict[str, str] | SkipReason:
    """Return the members that make the public key, with the material in canonical base64url (RFC 7518 section 6)."""
    try:
        material = {name: _octets(jwk.get(name)) for name in _MATERIAL[kty]}
    except ValueError:
        return SkipReason.INVALID
    if kty == "RSA":
        material = {name: octets.lstrip(b"\0") for name, octets in material.items()}
        reason = _check_rsa(*(int.from_bytes(octets) for octets in material.values()))
        if reason is not None:
            return reason
    members = {name: encode_base64url(octets) for name, octets in material.items()}
    parameter = _PARAMETER.get(kty)
    return members | {"kty": kty} | ({} if parameter is None else {parameter: str(jwk[parameter])})


def _import_key(members: Mapping[str, str], algorithms: frozenset[str]) -> Any | SkipReason:
    """Return the public key, or why there is none."""
    if members["kty"] == "AKP":
        if not ml_dsa.is_available(members["alg"]):
            return SkipReason.UNSUPPORTED_ALGORITHM
        return ml_dsa.load_public_key(members["alg"], _octets(members["pub"])) or SkipReason.INVALID
    try:
        key = PyJWK(dict(members), "EdDSA" if members["kty"] == "OKP" else min(algorithms)).key
    except (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, LookupError, OverflowError):
        return SkipReason.INVALID
    if isinstance(key, Ed25519PublicKey):
        *low, high = key.public_bytes_raw()
        if bytes((*low, high & 0x7F)) in SMALL_ORDER:
            return SkipReason.WEAK
    return key


def read_key(jwk: object) -> VerificationKey | SkipReason:
    """Return the public key of a JWK, or why it cannot verify signatures."""
    if not is_object(jwk):
        return SkipReason.NOT_AN_OBJECT
    algorithms = _usable_algorithms(jwk)
    if isinstance(algorithms, SkipReason):
        return algorithms
    kid, issuer = jwk.get("kid"), jwk.get("issuer")
    if not is_valid(jwk) or not isinstance(kid, str | None):
        return SkipReason.INVALID
    members = canonical_members(jwk, str(jwk["kty"]))
    if isinstance(members, SkipReason):
        return members
    key = _import_key(members, algorithms)
    if isinstance(key, SkipReason):
        return key
    identity = (kid, algorithms, repr(issuer), frozenset(members.items()))
    return VerificationKey(kid, algorithms, key, identity, issuer)


def read_key_set(document: Mapping[str, object]) -> KeySet:
    """Read a JWK Set. JWKs that cannot verify signatures are skipped, each with a reason; there may be no usable key.

    At most `MAX_KEYS` JWKs are read. A fault inside one JWK, such as a repeated member, skips that JWK if `document`
    comes from `load_tolerant`.

    Raises:
        InvalidServerMetadata: The document has no `keys` array.
    """
    jwks = document.get("keys")
    if not is_list(jwks):
        raise InvalidServerMetadata("The key set has no 'keys' array.")
    keys: dict[object, VerificationKey] = {}
    skipped: list[Skipped] = []
    unusable: dict[str, SkipReason] = {}
    for position, jwk in enumerate(jwks[:MAX_KEYS]):
        read = read_key(jwk)
        if isinstance(read, VerificationKey) and read.identity in keys:
            read = SkipReason.DUPLICATE
        if isinstance(read, VerificationKey):
            keys[read.identity] = read
            continue
        kid = jwk.get("kid") if is_object(jwk) else None
        if isinstance(kid, str):
            unusable[kid] = read
        skipped.append(Skipped(position, None if kid is None else printable(kid), read))
    if len(jwks) > MAX_KEYS:
        skipped.append(Skipped(MAX_KEYS, None, SkipReason.OVER_LIMIT))
    return KeySet(tuple(keys.values()), tuple(skipped), unusable)


def parse_key_set(document: Mapping[str, object]) -> KeySet:
    """Read a JWK Set as `read_key_set` does.

    Raises:
        InvalidServerMetadata: The document has no `keys` array, or no usable key.
    """
    keys = read_key_set(document)
    if not keys.keys:
        why = ", ".join(sorted({skip.reason for skip in keys.skipped})) or "it is empty"
        raise InvalidServerMetadata(f"The key set holds no usable key ({why}).")
    return keys
