"""Compact JWS (RFC 7515 section 7.1): a strict reader, and the table of algorithms.

The reader is stricter than `jwt.decode`: canonical base64url, no duplicate members, bounded depth and size
(RFC 8725bis sections 3.7 and 3.14). PyJWT accepts every token that the reader accepts. The result is unverified until
`VerificationKey.verify` has accepted its signature.
"""

from __future__ import annotations

import binascii
import functools
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, NamedTuple

from jwt.algorithms import Algorithm as SignatureAlgorithm
from jwt.algorithms import get_default_algorithms

from asgi_mcp_auth._oauth import ml_dsa
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = (
    "ALGORITHMS",
    "OPAQUE",
    "VERIFIABLE",
    "Algorithm",
    "CompactJWS",
    "Header",
    "decode_base64url",
    "encode_base64url",
    "is_compact",
    "parse_compact",
)


class Algorithm(NamedTuple):
    """A JWS algorithm: its key type, its curves, and PyJWT's implementation."""

    kty: str
    curves: tuple[str, ...]
    signature: SignatureAlgorithm

    @property
    def verify(self) -> Callable[[bytes, Any, bytes], bool]:
        """The function of the signing input, the key and the signature."""
        return self.signature.verify


class PostQuantumAlgorithm(NamedTuple):
    """An algorithm of RFC 9964: `curves` has the algorithm itself, because `alg` of a JWK names the parameter set."""

    kty: str
    curves: tuple[str, ...]
    verify: Callable[[bytes, Any, bytes], bool]


def _algorithms() -> dict[str, Algorithm]:
    known = get_default_algorithms()
    table = {name: Algorithm("RSA", (), known[name]) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")}
    for name, curve in (("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")):
        table[name] = Algorithm("EC", (curve,), known[name])
    # RFC 9864 names the curve in the algorithm; RFC 8037 leaves it to the key.
    for name, curves in (("Ed25519", ("Ed25519",)), ("Ed448", ("Ed448",)), ("EdDSA", ("Ed25519", "Ed448"))):
        table[name] = Algorithm("OKP", curves, known["EdDSA"])
    return table


ALGORITHMS = MappingProxyType(_algorithms())
"""Every algorithm that is allowed by default. `none` and HMAC are absent (RFC 8725 section 3.1)."""

VERIFIABLE = MappingProxyType[str, Algorithm | PostQuantumAlgorithm](
    ALGORITHMS
    | {name: PostQuantumAlgorithm("AKP", (name,), functools.partial(ml_dsa.verify, name)) for name in ml_dsa.ML_DSA}
)
"""Every algorithm that a configuration can allow for tokens."""


class Header(NamedTuple):
    """The members of a JOSE header that affect a decision. `jku`, `jwk`, `x5u` and `x5c` are never read."""

    alg: str
    kid: str | None
    typ: str | None


class CompactJWS:
    """The parts of a compact JWS, not verified. `payload` is the JSON text of the claims."""

    __slots__ = ("claims", "header", "payload", "signature", "signing_input")

    def __init__(
        self, header: Header, claims: JSONObject, payload: bytes, signing_input: bytes, signature: bytes
    ) -> None:
        self.header = header
        self.claims = claims
        self.payload = payload
        self.signing_input = signing_input
        self.signature = signature


# The decoder reads header and payload before the signature is verified, so both limits are low: a forged token then
# costs little more than random characters of the same length.
MAX_HEADER_VALUES = 64
MAX_HEADER_CONTAINERS = 16  # `jwk` and `x5c` are the only registered members that are containers
MAX_CLAIM_VALUES = 500  # Entra ID lists at most 200 groups in a token
MAX_CLAIM_CONTAINERS = 128  # Keycloak needs two for each client in `resource_access`

OPAQUE = "a compact JWS; for opaque tokens set verifier=Choose(opaque=Introspection(...))"
DOT = ord(".")
_TO_BASE64URL = bytes.maketrans(b"+/", b"-_")
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")  # `!` is refused by strict decoding, and so are "+", "/" and "=" then
_PADDING = (b"", b"", b"==", b"=")
# Stray bits in the last character would give one value several spellings (RFC 4648 section 3.5).
_CANONICAL_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


def is_compact(token: bytes) -> bool:
    """Return whether a token has the shape of a compact JWS: three parts. A JWE has five (RFC 7516 section 3.1)."""
    return token.count(b".") == 2  # noqa: PLR2004


def _malformed(what: str, expected: str = "a compact JWS") -> InvalidToken:
    return InvalidToken(Reason.MALFORMED_TOKEN, expected=expected, found=what)


def decode_base64url(text: bytes) -> bytes:
    """Decode canonical, unpadded base64url (RFC 7515 section 2). Raises `ValueError` for anything else."""
    tail = len(text) & 3
    if not text or (tail and text[-1] not in _CANONICAL_LAST[tail]):
        raise ValueError("not canonical base64url")
    # Strict mode refuses every character outside the alphabet.
    return binascii.a2b_base64(text.translate(_TO_BASE64) + _PADDING[tail], strict_mode=True)


def encode_base64url(data: bytes) -> str:
    """Return bytes in unpadded base64url (RFC 7515 section 2)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_BASE64URL, b"=").decode("ascii")


# All tokens that one key signs have the same header. Refused headers are not cached.
@functools.lru_cache(maxsize=256)
def _read_header(segment: bytes) -> Header:
    members = load_object(decode_base64url(segment), max_values=MAX_HEADER_VALUES, max_containers=MAX_HEADER_CONTAINERS)
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if type(alg) is not str:
        raise _malformed("header without a string alg")
    if not isinstance(kid, str) and (kid is not None or "kid" in members):
        raise _malformed("kid is not a string")
    if not isinstance(typ, str) and (typ is not None or "typ" in members):
        raise _malformed("typ is not a string")
    # RFC 7515 section 4.1.11: no extension is implemented here, and RFC 7797's `b64` is one.
    if "crit" in members or "b64" in members:
        raise InvalidToken(Reason.UNSUPPORTED_HEADER, expected="no crit", found="crit or b64", alg=alg, kid=kid)
    return Header(alg, kid, typ)


def parse_compact(token: bytes) -> CompactJWS:
    """Parse three non-empty parts in canonical base64url, of which header and payload are JSON objects.

    The signature, the algorithm and the claims are not checked. The caller bounds the length.

    Raises:
        InvalidToken: `malformed_token` or `unsupported_header`.
    """
    signing_input, _, third = token.rpartition(b".")
    first, dot, second = signing_input.partition(b".")
    if not dot or DOT in second:
        raise _malformed("not three parts", OPAQUE)
    try:
        header, payload = _read_header(first), decode_base64url(second)
        claims = load_object(payload, max_values=MAX_CLAIM_VALUES, max_containers=MAX_CLAIM_CONTAINERS)
        return CompactJWS(header, claims, payload, signing_input, decode_base64url(third))
    except JSONRefused as error:
        raise _malformed(str(error)) from None
    except ValueError:
        raise _malformed("not canonical base64url") from None
