"""Compact JWS (RFC 7515 section 7.1): read strictly, verify with PyJWT's algorithms.

The reader is ours because it must be stricter than `jwt.decode` (canonical base64url, no duplicate
members, bounded depth; RFC 8725bis sections 3.7 and 3.14) and faster. Whatever it accepts, PyJWT
accepts too. It believes nothing: what it returns is unverified until `VerificationKey.verify` says so.
"""

from __future__ import annotations

import binascii
import functools
from types import MappingProxyType
from typing import Any, NamedTuple

from jwt.algorithms import Algorithm as SignatureAlgorithm
from jwt.algorithms import get_default_algorithms

from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth.errors import InvalidToken, Reason

__all__ = ("ALGORITHMS", "Algorithm", "CompactJWS", "Header", "parse_compact")


class Algorithm(NamedTuple):
    """A JWS algorithm: the key type and curves it goes with, and PyJWT's implementation."""

    kty: str
    curves: tuple[str, ...]
    signature: SignatureAlgorithm


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
"""What can be allowed at all: asymmetric only; `none` and HMAC do not exist here (RFC 8725 section 3.1)."""


class Header(NamedTuple):
    """The members of a JOSE header that decide anything. `jku`, `jwk`, `x5u` and `x5c` are never looked at."""

    alg: str
    kid: str | None
    typ: str | None


class CompactJWS:
    """A JWS taken apart, not verified; `payload` is the JSON text of the claims."""

    __slots__ = ("claims", "header", "payload", "signature", "signing_input")

    def __init__(
        self, header: Header, claims: dict[str, Any], payload: bytes, signing_input: bytes, signature: bytes
    ) -> None:
        self.header = header
        self.claims = claims
        self.payload = payload
        self.signing_input = signing_input
        self.signature = signature


DOT = ord(".")
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/!!!")  # base64's own characters become what it refuses
_PADDING = (b"", b"", b"==", b"=")
# The last character of a group may carry no stray bits, or two spellings would decode alike (RFC 4648 section 3.5).
_CANONICAL_LAST = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")


def _malformed(what: str) -> InvalidToken:
    return InvalidToken(Reason.MALFORMED_TOKEN, expected="a compact JWS", found=what)


def decode_base64url(text: bytes) -> bytes:
    """Canonical, unpadded base64url to bytes; raises `ValueError` for anything else (RFC 7515 section 2)."""
    tail = len(text) & 3
    if not text or (tail and text[-1] not in _CANONICAL_LAST[tail]):
        msg = "not canonical base64url"
        raise ValueError(msg)
    # What is outside the alphabet, strict decoding refuses.
    return binascii.a2b_base64(text.translate(_TO_BASE64) + _PADDING[tail], strict_mode=True)


# All tokens of one key have the same header, so reading it is remembered; a refused one is not.
@functools.lru_cache(maxsize=256)
def _read_header(segment: bytes) -> Header:
    members = load_object(decode_base64url(segment))
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if type(alg) is not str:
        raise _malformed("header without a string alg")
    if "kid" in members and type(kid) is not str:
        raise _malformed("kid is not a string")
    if "typ" in members and type(typ) is not str:
        raise _malformed("typ is not a string")
    # RFC 7515 section 4.1.11: an extension we do not implement, and we implement none (RFC 7797's b64 included).
    if "crit" in members or "b64" in members:
        raise InvalidToken(Reason.UNSUPPORTED_HEADER, expected="no crit", found="crit or b64", alg=alg, kid=kid)
    return Header(alg, kid, typ)


def parse_compact(token: bytes) -> CompactJWS:
    """Take a compact JWS apart: three non-empty canonical base64url parts, header and payload JSON objects.

    Not checked here: the signature, the algorithm, any claim. The caller bounds the length.

    Raises:
        InvalidToken: `malformed_token` or `unsupported_header`.
    """
    signing_input, _, third = token.rpartition(b".")
    first, dot, second = signing_input.partition(b".")
    if not dot or DOT in second:
        raise _malformed("not three parts")
    try:
        header, payload = _read_header(first), decode_base64url(second)
        return CompactJWS(header, load_object(payload), payload, signing_input, decode_base64url(third))
    except JSONRefused as error:
        raise _malformed(str(error)) from None
    except ValueError:
        raise _malformed("not canonical base64url") from None
