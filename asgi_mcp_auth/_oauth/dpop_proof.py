"""DPoP proofs (RFC 9449 section 4) and the nonces of a resource (section 9), as pure functions.

A proof is a JWT that the sender of a token signs for one request, with the key that the token is bound to. The header
carries that key; `kid`, `jku`, `x5u` and `x5c` are never followed. Whether a proof was used before is not checked here.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from asgi_mcp_auth._oauth.access_token import unverified_time
from asgi_mcp_auth._oauth.json_types import JSONObject
from asgi_mcp_auth._oauth.jwk_set import SkipReason, VerificationKey, canonical_members, read_key
from asgi_mcp_auth._oauth.jws import decode_base64url, encode_base64url
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import parse_url
from asgi_mcp_auth.errors import InvalidProof, InvalidToken, Reason

__all__ = (
    "MAX_PROOF",
    "Expected",
    "Proof",
    "ProofKey",
    "ProofSettings",
    "check_proof",
    "digest_of",
    "make_nonce",
    "thumbprint",
)

MAX_PROOF: Final = 8 * 1024
MAX_HEADER_VALUES: Final = 64
MAX_CLAIM_VALUES: Final = 64
MAX_CONTAINERS: Final = 16
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""The members of private and symmetric keys (RFC 7518 section 6)."""

NONCE_SECONDS: Final = 120.0
"""A nonce is accepted in the time slot in which it was made, and in the next slot."""


class ProofKey(NamedTuple):
    """The key in the header of a proof, with its `alg` and its SHA-256 thumbprint."""

    alg: str
    key: VerificationKey
    thumbprint: str


class ProofSettings(NamedTuple):
    """The settings of a resource: the accepted algorithms, and how many seconds `iat` may differ from the clock."""

    algorithms: frozenset[str]
    window: float


class Expected(NamedTuple):
    """What the proof for one request contains.

    Attributes:
        method: The method of the request; GET for the handshake of a websocket.
        url: The URL of the request as the client knows it, without query and fragment.
        ath: The hash of the access token; see `digest_of`. None at a token endpoint, where there is no token yet.
        jkt: The thumbprint of the key that the token is bound to; None at a token endpoint.
    """

    method: str
    url: str
    ath: str | None
    jkt: str | None


class Proof(NamedTuple):
    """A verified proof.

    Attributes:
        header: The header as received, which is the same in all proofs with one key.
        key: The key of the proof.
        is_known: Whether the key was known before.
        jti: The identifier of the proof, unique for its key.
        htu: The URL as the proof names it. The URL of the request may be another spelling of it.
        issued_at: The time at which the proof was made, in seconds since the epoch.
        nonce: The nonce of the server in the proof; None if there is none.
    """

    header: bytes
    key: ProofKey
    is_known: bool
    jti: str
    htu: str
    issued_at: float
    nonce: str | None


def _refused(found: str, expected: str = "a DPoP proof") -> InvalidProof:
    return InvalidProof(Reason.INVALID_DPOP_PROOF, expected=expected, found=found)


def digest_of(token: bytes) -> str:
    """Return the SHA-256 of a token in base64url, as the claim `ath` contains it (RFC 9449 section 4.2)."""
    return encode_base64url(sha256(token).digest())


def thumbprint(members: Mapping[str, str]) -> str:
    """Return the SHA-256 thumbprint of a public key from its required members, and no others (RFC 7638 section 3)."""
    return digest_of(json.dumps(members, sort_keys=True, separators=(",", ":")).encode("utf-8"))


def make_nonce(key: bytes, now: float, *, slots_ago: int = 0) -> str:
    """Return the nonce of a time slot. All processes with the same key make the same nonces, and store none."""
    slot = int(now // NONCE_SECONDS) - slots_ago
    return encode_base64url(hmac.digest(key, b"%d" % slot, "sha256")[:18])


def check_proof(
    lines: list[bytes],
    expected: Expected,
    settings: ProofSettings,
    now: float,
    known_key: Callable[[bytes], ProofKey | None],
) -> Proof:
    """Return the verified proof of a request. Checks that cost less come first, and the signature comes last.

    Args:
        lines: The field lines of `DPoP`.
        expected: What the proof has to contain.
        settings: The settings of the resource.
        now: Seconds since the epoch.
        known_key: Returns the key of a header that was verified before with these settings, or None.

    Raises:
        InvalidProof: `invalid_dpop_proof`: the proof is missing, malformed, or not for this request.
        InvalidToken: `dpop_key_mismatch`: the token is bound to another key.
    """
    header, payload, signing_input, signature = _split(lines)
    known = known_key(header)
    key = known or _read_header(header, settings.algorithms)
    if expected.jkt is not None and key.thumbprint != expected.jkt:  # neither is a secret
        raise InvalidToken(
            Reason.DPOP_KEY_MISMATCH, expected="the key of the token", description="Invalid DPoP key binding"
        )
    claims = _load(payload, MAX_CLAIM_VALUES, "claims")
    jti, htu, issued_at, nonce = _check_claims(claims, expected, settings.window, now)
    try:
        octets = decode_base64url(signature)
    except ValueError:
        raise _refused("the signature not in canonical base64url") from None
    if not key.key.verify(key.alg, signing_input, octets):
        raise _refused("a wrong signature")
    return Proof(header, key, known is not None, jti, htu, issued_at, nonce)


def _split(lines: list[bytes]) -> tuple[bytes, bytes, bytes, bytes]:
    """Return header, payload, signing input and signature of the only proof (RFC 9449 section 4.3, 1 and 2)."""
    if len(lines) != 1:
        raise _refused(f"{len(lines) or 'no'} DPoP fields", "one DPoP field")
    proof = lines[0].strip(b" \t")
    if len(proof) > MAX_PROOF:
        raise _refused(f"{len(proof)} bytes", f"at most {MAX_PROOF} bytes")
    signing_input, _, signature = proof.rpartition(b".")
    header, dot, payload = signing_input.partition(b".")
    if not dot or b"." in payload:
        raise _refused("not three parts")
    return header, payload, signing_input, signature


def _load(segment: bytes, max_values: int, what: str) -> JSONObject:
    try:
        return load_object(decode_base64url(segment), max_values=max_values, max_containers=MAX_CONTAINERS)
    except JSONRefused as error:
        raise _refused(f"{what}: {error}") from None
    except ValueError:
        raise _refused(f"{what} not in canonical base64url") from None


def _read_header(segment: bytes, algorithms: frozenset[str]) -> ProofKey:
    """Return the key of a header (RFC 9449 section 4.3, 4 to 7, without the signature)."""
    header = _load(segment, MAX_HEADER_VALUES, "header")
    typ, alg, jwk = header.get("typ"), header.get("alg"), header.get("jwk")
    if typ != "dpop+jwt":
        raise _refused(f"typ {typ}", "typ dpop+jwt")
    if not isinstance(alg, str) or alg not in algorithms:
        raise _refused(f"alg {alg}", f"alg {' or '.join(sorted(algorithms))}")
    if "crit" in header or "b64" in header:  # RFC 7515 section 4.1.11: no extension is implemented
        raise _refused("crit or b64", "no crit")
    if not isinstance(jwk, dict):
        raise _refused("no jwk", "jwk")
    if not PRIVATE.isdisjoint(jwk):
        raise _refused("a private or symmetric jwk", "a public jwk")
    key = read_key(jwk)
    if isinstance(key, SkipReason):
        raise _refused(f"a jwk that is {key}", "a usable jwk")
    if alg not in key.algorithms:
        raise _refused(f"alg {alg} with a jwk for {' or '.join(sorted(key.algorithms))}", "a jwk for the alg")
    canonical = canonical_members(jwk, str(jwk["kty"]))
    # RFC 7638 section 3: the thumbprint is that of the values as sent, and one key has only one canonical form.
    if isinstance(canonical, SkipReason) or any(jwk.get(name) != value for name, value in canonical.items()):
        raise _refused("a jwk that is not canonical", "a canonical jwk")
    return ProofKey(alg, key, thumbprint(canonical))


def _check_claims(
    claims: JSONObject, expected: Expected, window: float, now: float
) -> tuple[str, str, float, str | None]:
    """Check the claims (RFC 9449 section 4.3, 3 and 8 to 12), and return `jti`, `htu`, `iat` and `nonce`.

    Other claims are ignored, and a claim whose value is `null` is absent.
    """
    jti, htm, htu = _text(claims, "jti"), _text(claims, "htm"), _text(claims, "htu")
    ath = _text(claims, "ath") if expected.ath is not None or claims.get("ath") is not None else None
    nonce = _text(claims, "nonce") if claims.get("nonce") is not None else None
    issued_at = unverified_time(claims, "iat")
    if issued_at is None:
        raise _refused("no iat that is a number", "iat")
    if htm != expected.method:
        raise _refused(f"htm {htm}", f"htm {expected.method}")
    if htu != expected.url and not _same_url(htu, expected.url):
        raise _refused("another htu", f"htu {expected.url}")
    if not abs(now - issued_at) <= window:
        raise _refused(
            f"iat {abs(now - issued_at):.0f} s {'ago' if issued_at < now else 'ahead'}",
            f"iat within {window:g} s of the clock",
        )
    if expected.ath is not None and ath != expected.ath:  # the client knows the token, so its hash is no secret
        raise _refused("the ath of another token", "the ath of the token")
    return jti, htu, issued_at, nonce


def _text(claims: JSONObject, name: str) -> str:
    value = claims.get(name)
    if isinstance(value, str) and value:
        return value
    raise _refused(f"no {name}" if value is None else f"{name} that is no text", name)


_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~\-]")


def _same_url(htu: str, url: str) -> bool:
    """Compare two URLs after normalisation by syntax and scheme (RFC 3986 sections 6.2.2 and 6.2.3).

    An `htu` with a query or a fragment names no request (RFC 9449 section 4.2).
    """
    named, requested = parse_url(htu), parse_url(url)
    if named is None or requested is None or "?" in htu or "#" in htu:
        return False
    return named._replace(path=_normal_path(named.path)) == requested._replace(path=_normal_path(requested.path))


def _normal_path(path: str) -> str:
    """Return a path with canonical escapes and without dot segments (RFC 3986 section 5.2.4)."""
    path = _ESCAPE.sub(_normal_escape, path)
    kept: list[str] = []
    segment = ""
    for segment in path.split("/")[1:]:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join([*kept, ""] if segment in (".", "..") else kept)


def _normal_escape(escape: re.Match[str]) -> str:
    character = chr(int(escape[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else escape[0].upper()
