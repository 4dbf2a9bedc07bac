"""Key sets: lenient entry by entry, strict when one key is chosen."""

from __future__ import annotations

import base64
import functools
import json
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.jwk_set import (
    MAX_KEYS,
    KeySet,
    Skipped,
    SkipReason,
    UnknownKid,
    VerificationKey,
    parse_key_set,
)
from asgi_mcp_auth._oauth.strict_json import load_tolerant
from asgi_mcp_auth.errors import InvalidServerMetadata, InvalidToken, Reason
from asgi_mcp_auth.testing import SigningKey

RSA_ALGORITHMS: Final = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
EVERY_ALGORITHM: Final = sorted(RSA_ALGORITHMS | {"ES256", "ES384", "ES512", "Ed25519", "Ed448", "EdDSA"})


@functools.cache
def signing_key(alg: str, name: str, bits: int) -> SigningKey:
    return SigningKey(alg, name, bits=bits)


def jwk(alg: str, /, *without: str, name: str = "k1", bits: int = 2048, **changes: Any) -> dict[str, Any]:
    members = signing_key(alg, name, bits).jwk | changes
    return {member: value for member, value in members.items() if member not in without}


def rsa_of(bits: int, exponent: int = 65537) -> dict[str, Any]:
    """A public RSA key of this size without a private key: generating a large key takes minutes."""
    n, e = (
        base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).rstrip(b"=").decode()
        for number in ((1 << bits - 1) | 1, exponent)
    )
    return {"kty": "RSA", "n": n, "e": e, "kid": "k1"}


def only_key(entry: dict[str, Any]) -> VerificationKey:
    (key,) = parse_key_set({"keys": [entry]}).keys
    return key


USABLE = [
    pytest.param(jwk("RS256"), {"RS256"}, id="RS-75 alg binds an RSA key to it"),
    pytest.param(jwk("RS256", alg="PS512"), {"PS512"}, id="RS-75 any RSA alg"),
    pytest.param(jwk("RS256", "alg"), RSA_ALGORITHMS, id="DC-12 RSA without alg"),
    pytest.param(jwk("RS256", "alg", "use"), RSA_ALGORITHMS, id="DC-12 RSA without alg and use"),
    pytest.param(jwk("RS256", "alg", "kid"), RSA_ALGORITHMS, id="RS-76 RSA without kid"),
    pytest.param(jwk("RS256", alg=None, use=None, key_ops=None), RSA_ALGORITHMS, id="DC-12 null alg, use, key_ops"),
    pytest.param(jwk("ES256", "alg"), {"ES256"}, id="DC-12 P-256 without alg"),
    pytest.param(jwk("ES384", "alg"), {"ES384"}, id="DC-12 P-384 without alg"),
    pytest.param(jwk("ES512", "alg"), {"ES512"}, id="DC-12 P-521 without alg"),
    pytest.param(jwk("ES384"), {"ES384"}, id="RS-75 ES384"),
    pytest.param(jwk("Ed25519", "alg"), {"Ed25519", "EdDSA"}, id="DC-12 Ed25519 without alg"),
    pytest.param(jwk("Ed448", "alg"), {"Ed448", "EdDSA"}, id="DC-12 Ed448 without alg"),
    pytest.param(jwk("Ed25519"), {"Ed25519", "EdDSA"}, id="RS-75 alg Ed25519"),
    pytest.param(jwk("Ed25519", alg="EdDSA"), {"Ed25519", "EdDSA"}, id="RS-75 alg EdDSA with an Ed25519 key"),
    pytest.param(jwk("Ed448", alg="EdDSA"), {"Ed448", "EdDSA"}, id="RS-75 alg EdDSA with an Ed448 key"),
    pytest.param(jwk("RS256", key_ops=["verify"]), {"RS256"}, id="DC-11 key_ops verify"),
    pytest.param(jwk("RS256", key_ops=["sign", "verify"]), {"RS256"}, id="DC-11 key_ops sign and verify"),
    pytest.param(
        jwk("RS256", x5c=["MII"], x5t="x", issuer="https://login.example/{tenantid}/v2.0", unknown={"a": [1]}),
        {"RS256"},
        id="DC-11 members we do not know",
    ),
    pytest.param(rsa_of(2048) | {"alg": "RS256"}, {"RS256"}, id="RS-75 RSA of 2048 bits"),
    pytest.param(rsa_of(8192) | {"alg": "RS256"}, {"RS256"}, id="RS-75 RSA of 8192 bits"),
    pytest.param(jwk("RS256", kid=""), {"RS256"}, id="an empty kid is a kid"),
    pytest.param(jwk("RS256", use=""), {"RS256"}, id="RS-75 use empty"),
    pytest.param(jwk("RS256", key_ops=[]), {"RS256"}, id="RS-75 key_ops empty"),
    pytest.param(jwk("RS256", d=None), {"RS256"}, id="DC-11 d null"),
    pytest.param(jwk("ES256", n=None, e=None, d=None), {"ES256"}, id="DC-11 null members of RSA on an EC key"),
    pytest.param(jwk("RS256", x=None, y=None, crv=None), {"RS256"}, id="DC-11 null members of EC on an RSA key"),
    pytest.param(jwk("Ed25519", y=None, n=5), {"Ed25519", "EdDSA"}, id="DC-11 members of other types on an OKP key"),
    pytest.param(rsa_of(2048, 3), RSA_ALGORITHMS, id="RS-75 e of 2 bits"),
    pytest.param(rsa_of(2048, 2**32 - 1), RSA_ALGORITHMS, id="RS-75 e of 32 bits"),
    pytest.param(jwk("RS256", e="AAEAAQ=="), {"RS256"}, id="DC-11 e with a leading zero and padding"),
]


@pytest.mark.parametrize(("entry", "algorithms"), USABLE)
def test_an_entry_is_used_with(entry: dict[str, Any], algorithms: set[str]) -> None:
    key = only_key(entry)
    assert (key.kid, set(key.algorithms)) == (entry.get("kid"), algorithms)


SKIPPED = [
    pytest.param(None, SkipReason.NOT_AN_OBJECT, id="DC-11 null"),
    pytest.param([], SkipReason.NOT_AN_OBJECT, id="DC-11 array"),
    pytest.param("key", SkipReason.NOT_AN_OBJECT, id="DC-11 string"),
    pytest.param(5, SkipReason.NOT_AN_OBJECT, id="DC-11 number"),
    pytest.param({}, SkipReason.UNSUPPORTED_TYPE, id="DC-11 empty object"),
    pytest.param({"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"}, SkipReason.INVALID, id="DC-11 AKP"),
    pytest.param({"kty": ["RSA"]}, SkipReason.UNSUPPORTED_TYPE, id="DC-11 kty list"),
    pytest.param({"kty": "rsa"}, SkipReason.UNSUPPORTED_TYPE, id="DC-11 kty in lower case"),
    pytest.param({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, SkipReason.SYMMETRIC, id="DC-11 oct"),
    pytest.param(jwk("RS256", d="AQAB"), SkipReason.PRIVATE, id="DC-11 private RSA"),
    pytest.param(jwk("Ed25519", d="AA"), SkipReason.PRIVATE, id="DC-11 private OKP"),
    pytest.param(jwk("RS256", use="enc"), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 use enc"),
    pytest.param(jwk("RS256", use="SIG"), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 use in upper case"),
    pytest.param(jwk("RS256", use=["sig"]), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 use list"),
    pytest.param(jwk("RS256", key_ops=["sign"]), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 key_ops without verify"),
    pytest.param(jwk("RS256", key_ops="verify"), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 key_ops string"),
    pytest.param(jwk("RS256", key_ops={"verify": 1}), SkipReason.NOT_FOR_SIGNATURES, id="RS-75 key_ops object"),
    pytest.param(jwk("RS256", alg="RSA-OAEP"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg RSA-OAEP"),
    pytest.param(jwk("RS256", alg="none"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-71 alg none"),
    pytest.param(jwk("RS256", alg="HS256"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-71 alg HS256"),
    pytest.param(jwk("RS256", alg="rs256"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-71 alg in lower case"),
    pytest.param(jwk("RS256", alg=""), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg empty"),
    pytest.param(jwk("RS256", alg=["RS256"]), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg list"),
    pytest.param(jwk("RS256", alg=5), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg number"),
    pytest.param(jwk("Ed25519", alg=["EdDSA"]), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg list with OKP"),
    pytest.param(jwk("Ed25519", alg={}), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg object with OKP"),
    pytest.param(jwk("RS256", alg="ES256"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 alg of another kty"),
    pytest.param(jwk("ES384", alg="ES256"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 P-384 with ES256"),
    pytest.param(jwk("ES256", alg="ES384"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 P-256 with ES384"),
    pytest.param(jwk("Ed448", alg="Ed25519"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 Ed448 with Ed25519"),
    pytest.param(jwk("Ed25519", alg="Ed448"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-75 Ed25519 with Ed448"),
    pytest.param(jwk("ES256", crv="secp256k1", alg="ES256K"), SkipReason.UNSUPPORTED_ALGORITHM, id="RS-71 ES256K"),
    pytest.param(jwk("ES256", "crv"), SkipReason.UNSUPPORTED_ALGORITHM, id="DC-11 EC without crv"),
    pytest.param(jwk("ES256", crv=["P-256"]), SkipReason.UNSUPPORTED_ALGORITHM, id="DC-11 crv list"),
    pytest.param(jwk("Ed25519", crv="X25519"), SkipReason.UNSUPPORTED_ALGORITHM, id="DC-11 X25519"),
    pytest.param(jwk("Ed25519", "alg", crv="X25519"), SkipReason.UNSUPPORTED_ALGORITHM, id="DC-11 X25519 without alg"),
    pytest.param(jwk("RS256", bits=1024), SkipReason.WEAK, id="RS-75 RSA of 1024 bits"),
    pytest.param(rsa_of(2047), SkipReason.WEAK, id="RS-75 RSA of 2047 bits"),
    pytest.param(rsa_of(8193), SkipReason.TOO_LARGE, id="RS-75 RSA of 8193 bits"),
    pytest.param(rsa_of(16384), SkipReason.TOO_LARGE, id="RS-75 RSA of 16384 bits"),
    pytest.param(jwk("RS256", "n"), SkipReason.INVALID, id="DC-11 RSA without n"),
    pytest.param(jwk("RS256", "e"), SkipReason.INVALID, id="DC-11 RSA without e"),
    pytest.param(jwk("RS256", n=5), SkipReason.INVALID, id="DC-11 n number"),
    pytest.param(jwk("RS256", n=""), SkipReason.INVALID, id="DC-11 n empty"),
    pytest.param(jwk("RS256", n="!!"), SkipReason.INVALID, id="DC-11 n not base64url"),
    pytest.param(jwk("RS256", n="é"), SkipReason.INVALID, id="DC-11 n not ASCII"),
    pytest.param(jwk("RS256", n="A"), SkipReason.INVALID, id="DC-11 n of one character"),
    pytest.param(jwk("RS256", e="AA"), SkipReason.INVALID, id="DC-11 e zero"),
    pytest.param(jwk("RS256", e="AQ"), SkipReason.INVALID, id="DC-11 e one"),
    pytest.param(jwk("RS256", e="Ag"), SkipReason.INVALID, id="DC-11 e two"),
    pytest.param(rsa_of(2048, 65538), SkipReason.INVALID, id="RS-75 e even"),
    pytest.param(rsa_of(2048, 2**32 + 1), SkipReason.TOO_LARGE, id="RS-75 e of 33 bits"),
    pytest.param(rsa_of(3072, 2**3067 + 1), SkipReason.TOO_LARGE, id="RS-75 e of 3068 bits"),
    pytest.param(jwk("RS256", n=rsa_of(2048)["n"][:-1] + "A"), SkipReason.INVALID, id="RS-75 n even"),
    pytest.param(jwk("RS256", e="AQAB==="), SkipReason.INVALID, id="DC-11 three padding characters"),
    pytest.param(jwk("RS256", e="AQ=AB"), SkipReason.INVALID, id="DC-11 padding inside"),
    pytest.param(jwk("RS256", e=" AQAB"), SkipReason.INVALID, id="DC-11 white space"),
    pytest.param(jwk("RS256", e="AQAB\n"), SkipReason.INVALID, id="DC-11 a line break"),
    pytest.param(jwk("ES256", y="AA"), SkipReason.INVALID, id="DC-11 y short"),
    pytest.param(jwk("ES256", y=jwk("ES256")["x"]), SkipReason.INVALID, id="DC-11 point not on the curve"),
    pytest.param(jwk("ES256", "y"), SkipReason.INVALID, id="DC-11 EC without y"),
    pytest.param(jwk("Ed25519", x="AA"), SkipReason.INVALID, id="DC-11 Ed25519 x short"),
    pytest.param(jwk("Ed25519", "x"), SkipReason.INVALID, id="DC-11 Ed25519 without x"),
    pytest.param(jwk("Ed448", x=jwk("Ed25519")["x"]), SkipReason.INVALID, id="DC-11 Ed448 with the x of Ed25519"),
    pytest.param(jwk("RS256", kid=5), SkipReason.INVALID, id="RS-75 kid number"),
    pytest.param(jwk("RS256", kid=["k1"]), SkipReason.INVALID, id="RS-75 kid list"),
]


@pytest.mark.parametrize(("entry", "reason"), SKIPPED)
def test_a_bad_entry_is_skipped_and_never_voids_the_set(entry: Any, reason: SkipReason) -> None:
    good = jwk("ES256", name="good")
    keys = parse_key_set({"keys": [entry, good]})
    assert [key.kid for key in keys.keys] == ["good"]
    assert [(skip.position, skip.reason) for skip in keys.skipped] == [(0, reason)]


@pytest.mark.parametrize(("entry", "reason"), SKIPPED)
def test_a_set_of_a_bad_entry_alone_is_refused(entry: Any, reason: SkipReason) -> None:
    with pytest.raises(InvalidServerMetadata) as caught:
        parse_key_set({"keys": [entry]})
    assert caught.value.message == f"The key set holds no usable key ({reason})."


def test_a_skipped_kid_is_escaped_and_cut() -> None:
    entries = [{"kty": "oct", "kid": "a\nb"}, {"kty": "oct", "kid": "x" * 200}, {"kty": "oct", "kid": 5}, jwk("ES256")]
    assert parse_key_set({"keys": entries}).skipped == (
        Skipped(0, "a\\nb", SkipReason.SYMMETRIC),
        Skipped(1, "x" * 125 + "...", SkipReason.SYMMETRIC),
        Skipped(2, "5", SkipReason.SYMMETRIC),
    )


@pytest.mark.requirement("DC-11")
def test_a_keycloak_style_set_has_one_usable_key() -> None:
    """`RSA-OAEP` for encryption and `RS256` for signatures."""
    signing = jwk("RS256", name="sig", x5c=["MII"], x5t="a")
    encryption = jwk("RS256", name="enc", use="enc", alg="RSA-OAEP")
    keys = parse_key_set({"keys": [encryption, signing]})
    assert [(key.kid, set(key.algorithms)) for key in keys.keys] == [("sig", {"RS256"})]
    assert keys.skipped == (Skipped(0, "enc", SkipReason.NOT_FOR_SIGNATURES),)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param({}, "The key set has no 'keys' array.", id="DC-11 no keys"),
        pytest.param({"keys": None}, "The key set has no 'keys' array.", id="DC-11 keys null"),
        pytest.param({"keys": {"k1": 1}}, "The key set has no 'keys' array.", id="DC-11 keys object"),
        pytest.param({"keys": "x"}, "The key set has no 'keys' array.", id="DC-11 keys string"),
        pytest.param({"Keys": [5]}, "The key set has no 'keys' array.", id="DC-11 Keys"),
        pytest.param({"keys": []}, "The key set holds no usable key (it is empty).", id="DC-11 keys empty"),
        pytest.param(
            {"keys": [{"kty": "oct"}, 5, {"kty": "oct"}]},
            "The key set holds no usable key (not_an_object, symmetric).",
            id="DC-11 nothing usable",
        ),
    ],
)
def test_a_set_is_refused_as_a_whole(document: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidServerMetadata) as caught:
        parse_key_set(document)
    assert (caught.value.message, caught.value.transient) == (message, False)


@pytest.mark.requirement("DC-11")
def test_at_most_1000_keys_are_read_and_more_do_not_refuse_the_set() -> None:
    good, after_the_limit = jwk("ES256"), jwk("ES256", name="k2")
    keys = parse_key_set({"keys": [good, *[5] * (MAX_KEYS - 1), after_the_limit, after_the_limit]})
    assert [key.kid for key in keys.keys] == ["k1"]
    assert [skip.position for skip in keys.skipped] == list(range(1, MAX_KEYS + 1))
    assert keys.skipped[-1] == Skipped(MAX_KEYS, None, SkipReason.OVER_LIMIT)
    assert MAX_KEYS == 1000


FAULTS = [
    pytest.param(b'"kid": "\\ud800"', id="DC-11 a lone surrogate in kid"),
    pytest.param(b'"x_note": ["\\udfff"]', id="DC-11 a lone surrogate in another member"),
    pytest.param(b'"kid": "k1", "kid": "k2"', id="DC-11 a repeated member"),
    pytest.param(b'"kty": "EC"', id="DC-11 a repeated kty"),
    pytest.param(b'"x_note": {"a": 1, "a": 2}', id="DC-11 a repeated member of a nested object"),
    pytest.param(b'"x_note": NaN', id="DC-11 NaN"),
    pytest.param(b'"x_note": [-Infinity]', id="DC-11 Infinity"),
    pytest.param(b'"x_note": 1e999', id="DC-11 a number out of range"),
    pytest.param(b'"x_note": ' + b"1" * 10_000, id="DC-11 a number too long"),
    pytest.param(b'"x_note": "\xff"', id="DC-11 not UTF-8"),
]


@pytest.mark.parametrize("member", FAULTS)
def test_a_fault_inside_one_jwk_skips_that_jwk(member: bytes) -> None:
    bad = json.dumps(jwk("ES256", "kid", name="bad"))[:-1].encode() + b", " + member + b"}"
    document = load_tolerant(b'{"keys": [' + bad + b", " + json.dumps(jwk("ES256", name="good")).encode() + b"]}")
    keys = parse_key_set(document)
    assert [key.kid for key in keys.keys] == ["good"]
    assert [(skip.position, skip.reason) for skip in keys.skipped] == [
        (0, SkipReason.UNSUPPORTED_TYPE if b"kty" in member else SkipReason.INVALID)
    ]


@pytest.mark.requirement("DC-11")
def test_a_set_with_two_keys_arrays_is_refused() -> None:
    entry = json.dumps(jwk("ES256")).encode()
    with pytest.raises(InvalidServerMetadata, match="no 'keys' array"):
        parse_key_set(load_tolerant(b'{"keys": [' + entry + b'], "keys": [' + entry + b"]}"))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "Ed25519"])
def test_material_in_base64_is_read_as_its_canonical_base64url(alg: str) -> None:
    entry = jwk(alg)
    canonical = parse_key_set({"keys": [entry]})
    material = [name for name in ("n", "e", "x", "y") if name in entry]
    for spell in (standard_base64, padded):
        keys = parse_key_set({"keys": [entry | {name: spell(entry[name]) for name in material}]})
        assert keys.identity == canonical.identity
        (key,) = keys.keys
        assert key.verify(alg, b"input", signing_key(alg, "k1", 2048).signature(b"input"))


def padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def standard_base64(text: str) -> str:
    return padded(text).replace("-", "+").replace("_", "/")


UNUSABLE = [
    pytest.param(jwk("RS256", bits=1024), "weak", id="RSA of 1024 bits"),
    pytest.param(jwk("RS256", use="enc"), "not_for_signatures", id="use enc"),
    pytest.param(jwk("RS256", alg="none"), "unsupported_algorithm", id="alg none"),
    pytest.param(jwk("ES256", crv="P-224", alg=None), "unsupported_algorithm", id="P-224"),
    pytest.param(jwk("RS256", "n", "e", x5c=["MII"]), "invalid", id="x5c only"),
    pytest.param(jwk("RS256", n="AQ"), "weak", id="short n"),
    pytest.param({"kty": "oct", "kid": "k1", "k": "AA"}, "symmetric", id="oct"),
]


@pytest.mark.parametrize(("entry", "reason"), UNUSABLE)
def test_a_listed_kid_that_cannot_be_used_is_known_and_a_newer_set_is_not_needed(
    entry: dict[str, Any], reason: str
) -> None:
    keys = parse_key_set({"keys": [entry, jwk("ES256", name="good")]})
    with pytest.raises(InvalidToken) as caught:
        keys.select("k1", "RS256")
    assert not isinstance(caught.value, UnknownKid)
    assert (caught.value.reason, caught.value.found) == (Reason.KEY_MISMATCH, f"a JWK that was skipped: {reason}")
    with pytest.raises(UnknownKid):
        keys.select("k2", "RS256")


def test_a_usable_key_wins_over_an_unusable_jwk_of_the_same_kid() -> None:
    keys = parse_key_set({"keys": [jwk("RS256", use="enc"), jwk("ES256"), jwk("RS256", d="AQAB")]})
    assert [key.kid for key in keys.select("k1", "ES256")] == ["k1"]


# Selecting: entries of the set, the token's kid and alg, and the kids of what is chosen or the reason of the refusal.
TWO_RSA: Final = [jwk("RS256", name="a"), jwk("RS256", name="b")]
SELECTED = [
    pytest.param([jwk("RS256")], "k1", "RS256", ["k1"], id="RS-75 by kid"),
    pytest.param(TWO_RSA, "b", "RS256", ["b"], id="RS-75 by kid, of two"),
    pytest.param([jwk("RS256", "alg")], "k1", "PS256", ["k1"], id="DC-12 a key without alg serves PS256"),
    pytest.param([jwk("RS256", "alg")], "k1", "RS256", ["k1"], id="DC-12 a key without alg serves RS256"),
    pytest.param([jwk("Ed25519")], "k1", "EdDSA", ["k1"], id="RS-75 Ed25519 key, header EdDSA"),
    pytest.param([jwk("Ed25519", alg="EdDSA")], "k1", "Ed25519", ["k1"], id="RS-75 EdDSA key, header Ed25519"),
    pytest.param([jwk("Ed448", alg="EdDSA")], "k1", "Ed448", ["k1"], id="RS-75 EdDSA key, header Ed448"),
    pytest.param([jwk("RS256")], None, "RS256", ["k1"], id="RS-76 no kid, one key"),
    pytest.param([jwk("RS256", "kid")], None, "RS256", [None], id="RS-76 no kid on either side"),
    pytest.param([jwk("RS256"), jwk("ES256", name="e")], None, "ES256", ["e"], id="RS-76 no kid, one compatible key"),
    pytest.param([jwk("RS256"), jwk("ES256")], "k1", "ES256", ["k1"], id="RS-75 one kid, two types: alg decides"),
    pytest.param([jwk("RS256", kid="")], "", "RS256", [""], id="RS-75 the empty kid"),
    pytest.param([jwk("RS256"), jwk("RS256")], "k1", "RS256", ["k1"], id="RS-75 the same key twice is one"),
    pytest.param([jwk("RS256"), jwk("RS256", x5t="x")], None, "RS256", ["k1"], id="RS-76 the same key twice is one"),
    pytest.param([jwk("RS256")], "k2", "RS256", Reason.UNKNOWN_KID, id="RS-77 unknown kid"),
    pytest.param([jwk("RS256")], "K1", "RS256", Reason.UNKNOWN_KID, id="RS-75 kid of another case"),
    pytest.param([jwk("RS256", "kid")], "k1", "RS256", Reason.UNKNOWN_KID, id="RS-75 a key without kid is not k1"),
    pytest.param([jwk("RS256")], "", "RS256", Reason.UNKNOWN_KID, id="RS-75 the empty kid is not none"),
    pytest.param([jwk("RS256")], "k1", "PS256", Reason.KEY_MISMATCH, id="RS-75 RS256 key, PS256 token"),
    pytest.param([jwk("RS256")], "k1", "RS512", Reason.KEY_MISMATCH, id="RS-75 RS256 key, RS512 token"),
    pytest.param([jwk("RS256")], "k1", "ES256", Reason.KEY_MISMATCH, id="RS-75 RSA key, ES256 token"),
    pytest.param([jwk("ES384")], "k1", "ES256", Reason.KEY_MISMATCH, id="RS-75 P-384 key, ES256 token"),
    pytest.param([jwk("Ed448")], "k1", "Ed25519", Reason.KEY_MISMATCH, id="RS-75 Ed448 key, Ed25519 token"),
    pytest.param(
        [jwk("Ed25519", alg="EdDSA")], "k1", "Ed448", Reason.KEY_MISMATCH, id="RS-75 Ed25519 key, Ed448 token"
    ),
    pytest.param([jwk("RS256")], "k1", "HS256", Reason.KEY_MISMATCH, id="RS-71 RSA key, HS256 token"),
    pytest.param([jwk("RS256", "alg")], "k1", "none", Reason.KEY_MISMATCH, id="RS-71 RSA key, none"),
    pytest.param([jwk("RS256")], None, "ES256", Reason.KEY_MISMATCH, id="RS-76 no kid, no compatible key"),
    pytest.param(TWO_RSA, None, "RS256", Reason.AMBIGUOUS_KEY, id="RS-76 no kid, two RSA keys"),
    pytest.param(
        [jwk("RS256"), jwk("RS256", name="b", kid="k1")], "k1", "RS256", Reason.AMBIGUOUS_KEY, id="RS-75 duplicate kid"
    ),
]


@pytest.mark.parametrize(("entries", "kid", "alg", "expected"), SELECTED)
def test_selecting_a_key(
    entries: list[dict[str, Any]], kid: str | None, alg: str, expected: list[str | None] | Reason
) -> None:
    keys = parse_key_set({"keys": entries})
    if not isinstance(expected, Reason):
        assert [key.kid for key in keys.select(kid, alg)] == expected
        return
    with pytest.raises(InvalidToken) as caught:
        keys.select(kid, alg)
    assert (caught.value.reason, caught.value.kid, caught.value.alg) == (expected, kid, alg)
    # Only these may be cured by a newer set, and so may cause a fetch.
    curable = expected is Reason.UNKNOWN_KID or (expected is Reason.KEY_MISMATCH and kid is None)
    assert isinstance(caught.value, UnknownKid) is curable


@pytest.mark.parametrize(
    ("kid", "most", "expected"),
    [
        pytest.param(None, 1, Reason.AMBIGUOUS_KEY, id="RS-76 one candidate by default"),
        pytest.param(None, 2, Reason.AMBIGUOUS_KEY, id="RS-76 fewer than there are"),
        pytest.param(None, 3, ["a", "b", "c"], id="RS-76 as many as there are"),
        pytest.param(None, 4, ["a", "b", "c"], id="RS-76 four"),
        pytest.param("b", 4, ["b"], id="RS-76 with a kid there is one"),
    ],
)
def test_several_candidates_are_an_option(kid: str | None, most: int, expected: list[str] | Reason) -> None:
    keys = parse_key_set({"keys": [jwk("ES256", name=name) for name in "abc"]})
    if not isinstance(expected, Reason):
        assert [key.kid for key in keys.select(kid, "ES256", max_without_kid=most)] == expected
        return
    with pytest.raises(InvalidToken) as caught:
        keys.select(kid, "ES256", max_without_kid=most)
    assert caught.value.reason is expected


@pytest.mark.requirement("DC-11")
def test_a_duplicate_is_skipped_and_listed() -> None:
    keys = parse_key_set({"keys": [jwk("RS256"), jwk("RS256", x5t="x")]})
    assert [key.kid for key in keys.keys] == ["k1"]
    assert [(skip.position, skip.kid, skip.reason.value) for skip in keys.skipped] == [(1, "k1", "duplicate")]


@pytest.mark.requirement("RS-75")
def test_a_duplicate_kid_stays_ambiguous_whatever_the_option() -> None:
    """The option is for tokens without a kid."""
    keys = parse_key_set({"keys": [jwk("ES256", name=name, kid="k1") for name in "ab"]})
    with pytest.raises(InvalidToken) as caught:
        keys.select("k1", "ES256", max_without_kid=4)
    assert caught.value.reason is Reason.AMBIGUOUS_KEY


@pytest.mark.parametrize("crv", ["Ed25519", "Ed448"])
@pytest.mark.parametrize("named", [None, "EdDSA", "own"])
@pytest.mark.parametrize("header", ["Ed25519", "Ed448", "EdDSA"])
def test_the_edwards_matrix(crv: str, named: str | None, header: str) -> None:
    """RFC 8037 and RFC 9864: key curve x key `alg` x header `alg`."""
    signer = signing_key(crv, "k1", 2048)
    entry = jwk(crv, "alg") if named is None else jwk(crv, alg=crv if named == "own" else "EdDSA")
    keys = parse_key_set({"keys": [entry]})
    if header in (crv, "EdDSA"):
        (key,) = keys.select("k1", header)
        assert key.verify(header, b"input", signer.signature(b"input"))
    else:
        with pytest.raises(InvalidToken) as caught:
            keys.select("k1", header)
        assert caught.value.reason is Reason.KEY_MISMATCH


def test_the_identity_is_that_of_the_usable_keys() -> None:
    a, b = jwk("ES256", name="a"), jwk("ES256", name="b")
    whole = parse_key_set({"keys": [a, b]}).identity
    assert parse_key_set({"keys": [b, {"kty": "oct"}, a, a]}).identity == whole
    assert parse_key_set({"keys": [a]}).identity != whole
    assert parse_key_set({"keys": [a, b | {"kid": "c"}]}).identity != whole
    assert parse_key_set({"keys": [a, jwk("ES256", "alg", name="b")]}).identity == whole  # P-256 is ES256 alone
    rsa = jwk("RS256")
    assert parse_key_set({"keys": [rsa]}).identity != parse_key_set({"keys": [rsa | {"alg": "PS256"}]}).identity


def test_a_key_shows_no_material() -> None:
    assert repr(only_key(jwk("Ed25519"))) == "<VerificationKey kid='k1' Ed25519/EdDSA>"


SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "sig", "enc", "AQAB", "AA", "RS256", "k1", "EdDSA"]
    ),
    st.text(max_size=4),
)
JSON: Final = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
MEMBERS: Final = ("kty", "alg", "use", "key_ops", "kid", "crv", "n", "e", "x", "y", "d", "k")


def changed(alg: str, changes: dict[str, Any]) -> dict[str, Any]:
    return jwk(alg) | changes


ENTRIES: Final[st.SearchStrategy[Any]] = st.one_of(
    JSON,
    st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=8),
    st.builds(
        changed,
        st.sampled_from(["RS256", "ES256", "ES384", "Ed25519", "Ed448"]),
        st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=2),
    ),
)


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(
        st.dictionaries(st.sampled_from(["keys", "x"]), JSON, max_size=2),
        st.fixed_dictionaries({"keys": st.lists(ENTRIES, max_size=4)}),
    )
)
@example({"keys": [jwk("Ed25519", alg=["EdDSA"])]})
@example({"keys": [jwk("RS256", crv=["P-256"])]})
@example({"keys": [jwk("ES256", crv={}, alg={})]})
def test_any_document_gives_a_key_set_or_invalid_server_metadata(document: dict[str, Any]) -> None:
    try:
        keys = parse_key_set(document)
    except InvalidServerMetadata:
        return
    assert isinstance(keys, KeySet)
    entries = document["keys"]
    assert 1 <= len(keys.keys) <= len(entries) - len(keys.skipped)
    for key in keys.keys:
        assert key.algorithms
        assert key.algorithms <= set(EVERY_ALGORITHM)
        for alg in key.algorithms:
            assert len(keys.keys) > 1 or keys.select(key.kid, alg) == (key,)
            assert key.verify(alg, b"input", b"\x00" * 64) is False
