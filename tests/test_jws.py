"""The compact JWS reader: stricter than PyJWT, never laxer."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
import timeit
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.jwk_set import VerificationKey, parse_key_set
from asgi_mcp_auth._oauth.jws import ALGORITHMS, Header, decode_base64url, parse_compact
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS
from asgi_mcp_auth.errors import InvalidToken, Reason
from asgi_mcp_auth.testing import Issuer, SigningKey

R: Final = "https://mcp.example.com/mcp"
ISSUER: Final = Issuer(algorithms=())


@functools.cache
def signing_key(alg: str) -> SigningKey:
    return SigningKey(alg, "k1")


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jws(header: bytes | str, payload: bytes | str = "{}", signature: bytes | str = "s") -> bytes:
    return ".".join(map(b64, (header, payload, signature))).encode()


def refusal_of(token: bytes) -> InvalidToken:
    with pytest.raises(InvalidToken) as caught:
        parse_compact(token)
    return caught.value


def key_for(key: SigningKey) -> VerificationKey:
    return parse_key_set({"keys": [key.jwk]}).keys[0]


def test_a_token_is_taken_apart() -> None:
    token = jws('{"alg":"RS256","kid":"k1","typ":"at+jwt","x":1}', '{"iss":"i","n":1}', b"\x00\xff")
    payload, signing_input = b'{"iss":"i","n":1}', token.rsplit(b".", 1)[0]
    header = Header("RS256", "k1", "at+jwt")
    read = parse_compact(token)
    assert (read.header, read.claims, read.payload) == (header, {"iss": "i", "n": 1}, payload)
    assert (read.signing_input, read.signature) == (signing_input, b"\x00\xff")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param('{"alg":"RS256"}', Header("RS256", None, None), id="alg only"),
        pytest.param('{"alg":"none"}', Header("none", None, None), id="RS-71 none is the profile's to refuse"),
        pytest.param('{"alg":"","kid":"","typ":""}', Header("", "", ""), id="empty strings"),
        pytest.param('{"alg":"ES256","kid":"ключ"}', Header("ES256", "ключ", None), id="kid of any script"),
        pytest.param(
            '{"alg":"RS256","jku":"https://evil.example/k","x5u":1,"jwk":{"kty":"oct"},"x5c":["x"],"cty":"JWT"}',
            Header("RS256", None, None),
            id="RS-72 jku x5u jwk x5c are not looked at",
        ),
    ],
)
def test_the_header_members_that_decide(header: str, expected: Header) -> None:
    assert parse_compact(jws(header)).header == expected


WHOLE: Final = jws('{"alg":"RS256"}', '{"a":1}', "sig")
HEADER: Final = b64('{"alg":"RS256"}').encode()

NOT_THREE: Final = "not three parts"
NOT_BASE64: Final = "not canonical base64url"

MALFORMED = [
    pytest.param(b"", NOT_THREE, id="RS-70 empty"),
    pytest.param(b"abc", NOT_THREE, id="RS-70 abc"),
    pytest.param(b"a.b", NOT_THREE, id="RS-70 two parts"),
    pytest.param(b"a.b.c.d", NOT_THREE, id="RS-70 four parts"),
    pytest.param(b"a.b.c.d.e", NOT_THREE, id="RS-70 JWE of five parts"),
    pytest.param(WHOLE + b".", NOT_THREE, id="RS-70 trailing dot"),
    pytest.param(b'{"payload":"e30","signatures":[]}', NOT_THREE, id="RS-70 JSON-serialised JWS"),
    pytest.param(b"..", NOT_BASE64, id="RS-70 three empty parts"),
    pytest.param(WHOLE.rsplit(b".", 1)[0] + b".", NOT_BASE64, id="RS-70 no signature"),
    pytest.param(HEADER + b"..c2ln", NOT_BASE64, id="RS-70 no payload (detached)"),
    pytest.param(b".e30.c2ln", NOT_BASE64, id="RS-70 no header"),
    pytest.param(WHOLE + b"=", NOT_BASE64, id="RS-70 padded signature"),
    pytest.param(
        jws('{"alg":"RS256"}', '{"a":12}').replace(b".eyJhIjoxMn0.", b".eyJhIjoxMn0=."),
        NOT_BASE64,
        id="RS-70 padded payload",
    ),
    pytest.param(WHOLE + b"\n", NOT_BASE64, id="RS-70 newline at the end"),
    pytest.param(b" " + WHOLE, NOT_BASE64, id="RS-70 space in front"),
    pytest.param(WHOLE[:3] + b"\n" + WHOLE[3:], NOT_BASE64, id="RS-70 newline within"),
    pytest.param(WHOLE[:3] + b"\xc3\xa9" + WHOLE[3:], NOT_BASE64, id="RS-70 not ASCII"),
    pytest.param(HEADER + b".e30.+/+/", NOT_BASE64, id="RS-70 standard base64 alphabet"),
    pytest.param(HEADER + b".e30.c2lnx", NOT_BASE64, id="RS-70 a length of 1 modulo 4"),
    pytest.param(HEADER + b".e30.c2lnMR", NOT_BASE64, id="RS-70 stray bits after one byte"),
    pytest.param(HEADER + b".e30.c2lnMTJ", NOT_BASE64, id="RS-70 stray bits after two bytes"),
    pytest.param(HEADER + b".e31.c2ln", NOT_BASE64, id="RS-70 stray bits in the payload"),
    pytest.param(jws("[]"), "not a JSON object", id="RS-70 header array"),
    pytest.param(jws("null"), "not a JSON object", id="RS-70 header null"),
    pytest.param(jws('"x"'), "not a JSON object", id="RS-70 header string"),
    pytest.param(jws("5"), "not a JSON object", id="RS-70 header number"),
    pytest.param(jws("{"), "not JSON", id="RS-70 header cut"),
    pytest.param(jws(b'{"alg":"\xff"}'), "not JSON", id="RS-70 header not UTF-8"),
    pytest.param(jws('{"alg":"RS256","alg":"none"}'), "duplicate member names", id="RS-70 two alg"),
    pytest.param(jws('{"alg":"RS256","kid":"\\ud800"}'), "a lone surrogate", id="RS-70 surrogate in kid"),
    pytest.param(jws('{"alg":"RS256","x":' + "[" * 2000 + "]" * 2000 + "}"), "too many values", id="RS-70 deep header"),
    pytest.param(jws('{"alg":"RS256","x":' + "9" * 5000 + "}"), "a number too long", id="RS-70 bigint header"),
    pytest.param(jws('{"alg":"RS256"}', "[1]"), "not a JSON object", id="RS-70 payload array"),
    pytest.param(jws('{"alg":"RS256"}', "null"), "not a JSON object", id="RS-70 payload null"),
    pytest.param(jws('{"alg":"RS256"}', '"x"'), "not a JSON object", id="RS-70 payload string"),
    pytest.param(jws('{"alg":"RS256"}', "hello"), "not JSON", id="RS-70 payload not JSON"),
    pytest.param(jws('{"alg":"RS256"}', '{"sub":"a","sub":"b"}'), "duplicate member names", id="RS-70 two sub"),
    pytest.param(jws('{"alg":"RS256"}', '{"sub":"\\udc00"}'), "a lone surrogate", id="RS-70 surrogate in sub"),
    pytest.param(
        jws('{"alg":"RS256"}', '{"x":' * 2000 + "1" + "}" * 2000), "too many values", id="RS-70 very deep payload"
    ),
    pytest.param(jws('{"alg":"RS256"}', '{"x":' * 33 + "1" + "}" * 33), "nested too deeply", id="RS-70 deep payload"),
    pytest.param(
        jws('{{"alg":"RS256","x":[{}]}}'.format(",".join(["{}"] * 15))), "too many values", id="A31 header, objects"
    ),
    pytest.param(
        jws('{{"alg":"RS256","x":[{}]}}'.format(",".join("0" * 64))), "too many values", id="A31 header, values"
    ),
    pytest.param(
        jws('{"alg":"RS256"}', '{{"x":[{}]}}'.format(",".join(["{}"] * 2800))),
        "too many values",
        id="A31 payload, 2,800 objects",
    ),
    pytest.param(
        jws('{"alg":"RS256"}', '{{"x":[{}]}}'.format(",".join(["{}"] * 127))),
        "too many values",
        id="A31 payload, objects",
    ),
    pytest.param(
        jws('{"alg":"RS256"}', '{{"x":[{}]}}'.format(",".join("0" * 500))), "too many values", id="A31 payload, values"
    ),
    pytest.param(jws("{}"), "header without a string alg", id="RS-71 no alg"),
    pytest.param(jws('{"alg":5}'), "header without a string alg", id="RS-71 alg int"),
    pytest.param(jws('{"alg":null}'), "header without a string alg", id="RS-71 alg null"),
    pytest.param(jws('{"alg":["RS256"]}'), "header without a string alg", id="RS-71 alg list"),
    pytest.param(jws('{"alg":"RS256","kid":5}'), "kid is not a string", id="RS-75 kid int"),
    pytest.param(jws('{"alg":"RS256","kid":["k1"]}'), "kid is not a string", id="RS-75 kid list"),
    pytest.param(jws('{"alg":"RS256","kid":null}'), "kid is not a string", id="RS-75 kid null"),
    pytest.param(jws('{"alg":"RS256","typ":null}'), "typ is not a string", id="RS-74 typ null"),
    pytest.param(jws('{"alg":"RS256","typ":5}'), "typ is not a string", id="RS-74 typ int"),
    pytest.param(jws('{"alg":"RS256","typ":["JWT"]}'), "typ is not a string", id="RS-74 typ list"),
]


@pytest.mark.parametrize(("token", "found"), MALFORMED)
def test_what_is_no_compact_jws_is_malformed(token: bytes, found: str) -> None:
    refusal = refusal_of(token)
    assert (refusal.reason, refusal.found) == (Reason.MALFORMED_TOKEN, found)
    assert str(refusal.expected).startswith("a compact JWS")


LARGE_TOKENS = [
    pytest.param(
        {"groups": [f"{n:08}-0000-0000-0000-000000000000" for n in range(200)]}, id="A31 Entra ID, 200 groups"
    ),
    pytest.param(
        {"resource_access": {f"client-{n}": {"roles": ["view", "edit"]} for n in range(60)}},
        id="A31 Keycloak, 60 clients",
    ),
    pytest.param({"permissions": [f"permission:{n}" for n in range(450)]}, id="A31 Auth0, 450 permissions"),
]


@pytest.mark.parametrize("claims", LARGE_TOKENS)
def test_large_tokens_of_real_providers_are_within_the_limits(claims: dict[str, Any]) -> None:
    assert parse_compact(jws('{"alg":"RS256"}', json.dumps(claims))).claims == claims


FORGED = [
    pytest.param('{{"a":[{}]}}'.format(",".join(["{}"] * 2800)), id="A31 2,800 objects"),
    pytest.param('{{"a":[{}]}}'.format(",".join(['{"":0}'] * 1500)), id="A31 1,500 objects with a member"),
    pytest.param('{{"a":[{}]}}'.format(",".join("0" * 5800)), id="A31 5,800 numbers"),
    pytest.param('{{"a":[{}]}}'.format(",".join(['""'] * 3900)), id="A31 3,900 strings"),
    pytest.param('{"a":"%s"}' % ("[," * 5900), id="A31 a string of brackets and commas"),
    pytest.param('{"a":%s}' % ("[" * 5800 + "]" * 5800), id="A31 deep nesting"),
    pytest.param('{"a":%s}' % ("9" * 11_000), id="A31 a long number"),
]


def microseconds(token: bytes) -> float:
    """The time to refuse a token, the least of many: other processes disturb a measurement, and only upwards."""

    def refuse() -> None:
        with contextlib.suppress(InvalidToken):
            parse_compact(token)

    return min(timeit.repeat(refuse, number=5, repeat=40)) / 5 * 1e6


def padded(payload: bytes) -> bytes:
    """A token of 16 KiB."""
    token = jws('{"alg":"RS256"}', payload, b"")
    return token + b"A" * ((16 * 1024 - len(token)) // 4 * 4)


@pytest.mark.parametrize("payload", FORGED)
def test_a_forged_token_costs_at_most_twice_what_random_characters_cost(payload: str) -> None:
    garbage = padded(b"x" * 11_900)
    forged = padded(payload.encode())
    assert 16_000 < min(len(forged), len(garbage)) <= 16 * 1024
    for _ in range(3):
        if microseconds(forged) < 2 * microseconds(garbage):
            return
    pytest.fail("three times slower than twice random characters")


@pytest.mark.parametrize(
    "header",
    [
        pytest.param('{"alg":"RS256","crit":["exp2"]}', id="RS-72 crit unknown"),
        pytest.param('{"alg":"RS256","crit":["b64"],"b64":false}', id="RS-72 crit b64 false"),
        pytest.param('{"alg":"RS256","crit":["b64"],"b64":true}', id="RS-72 crit b64 true"),
        pytest.param('{"alg":"RS256","b64":false}', id="RS-72 b64 without crit"),
        pytest.param('{"alg":"RS256","b64":true}', id="RS-72 b64 true"),
        pytest.param('{"alg":"RS256","crit":[]}', id="RS-72 crit empty"),
        pytest.param('{"alg":"RS256","crit":"exp2"}', id="RS-72 crit string"),
        pytest.param('{"alg":"RS256","crit":null}', id="RS-72 crit null"),
        pytest.param('{"alg":"RS256","crit":["exp2"],"exp2":1}', id="RS-72 crit with its member"),
    ],
)
def test_critical_extensions_are_not_understood(header: str) -> None:
    assert refusal_of(jws(header)).reason is Reason.UNSUPPORTED_HEADER


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"AA", b"\x00", id="one byte"),
        pytest.param(b"AAA", b"\x00\x00", id="two bytes"),
        pytest.param(b"AAAA", b"\x00\x00\x00", id="three bytes"),
        pytest.param(b"_-8", b"\xff\xef", id="the alphabet's own characters"),
        pytest.param(b"_____w", b"\xff\xff\xff\xff", id="underscores"),
    ],
)
def test_base64url(text: bytes, expected: bytes) -> None:
    assert decode_base64url(text) == expected


@settings(deadline=None, max_examples=200)
@given(st.binary(min_size=1, max_size=24))
def test_base64url_is_read_back(data: bytes) -> None:
    assert decode_base64url(b64(data).encode()) == data


@settings(deadline=None, max_examples=400)
@given(st.binary(max_size=12) | st.text(alphabet="AQgwEIMUYckos048BR-_+/= \n.", max_size=12).map(str.encode))
@example(b"AB")
@example(b"AAB")
@example(b"A")
@example(b"A===")
def test_bytes_have_one_spelling_in_base64url(text: bytes) -> None:
    try:
        data = decode_base64url(text)
    except ValueError:
        return
    assert b64(data).encode() == text


def test_the_algorithms_are_asymmetric_only() -> None:
    assert sorted(ALGORITHMS) == sorted(DEFAULT_ALGORITHMS)
    assert {known.kty for known in ALGORITHMS.values()} == {"RSA", "EC", "OKP"}


SIGNING = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "Ed448", "EdDSA"]


@pytest.mark.parametrize("alg", [pytest.param(alg, id=f"RS-71 {alg}") for alg in SIGNING])
def test_a_signature_verifies_and_a_flipped_bit_does_not(alg: str) -> None:
    signer = signing_key(alg)
    key = key_for(signer)
    read = parse_compact(ISSUER.mint(R, key=signer).encode())
    assert key.verify(alg, read.signing_input, read.signature)
    flipped = bytearray(read.signing_input)
    flipped[-1] ^= 1
    assert not key.verify(alg, bytes(flipped), read.signature)
    broken = bytearray(read.signature)
    broken[0] ^= 1
    assert not key.verify(alg, read.signing_input, bytes(broken))


def es256_signatures() -> list[Any]:
    signer = signing_key("ES256")
    raw = signer.signature(b"input")
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return [
        pytest.param(raw, True, id="RS-78 raw"),
        pytest.param(bytes(64), False, id="RS-78 r=s=0"),
        pytest.param(bytes(32) + raw[32:], False, id="RS-78 r=0"),
        pytest.param(raw[:32] + bytes(32), False, id="RS-78 s=0"),
        pytest.param(order.to_bytes(32) * 2, False, id="RS-78 r=s=n"),
        pytest.param(b"\xff" * 64, False, id="RS-78 r=s beyond n"),
        pytest.param(encode_dss_signature(r, s), False, id="RS-78 DER"),
        pytest.param(raw[:63], False, id="RS-78 cut"),
        pytest.param(raw + b"\x00", False, id="RS-78 longer"),
        pytest.param(b"\x00" + raw[:32] + b"\x00" + raw[32:], False, id="RS-78 halves padded"),
        pytest.param(raw[32:] + raw[:32], False, id="RS-78 halves exchanged"),
        pytest.param(b"", False, id="RS-78 empty"),
    ]


@pytest.mark.parametrize(("signature", "good"), es256_signatures())
def test_es256_signatures(signature: bytes, good: bool) -> None:
    assert key_for(signing_key("ES256")).verify("ES256", b"input", signature) is good


@pytest.mark.parametrize(
    ("alg", "length"),
    [
        pytest.param("RS256", 256, id="RS-78 RS256"),
        pytest.param("PS256", 256, id="RS-78 PS256"),
        pytest.param("ES512", 132, id="RS-78 ES512"),
        pytest.param("Ed25519", 64, id="RS-78 Ed25519"),
        pytest.param("Ed448", 114, id="RS-78 Ed448"),
    ],
)
def test_signatures_of_zeros_ones_and_any_length_are_only_false(alg: str, length: int) -> None:
    key = key_for(signing_key(alg))
    for size in (0, 1, length - 1, length, length + 1, 2 * length):
        for byte in (b"\x00", b"\x01", b"\xff"):
            assert key.verify(alg, b"input", byte * size) is False


@pytest.mark.requirement("RS-71")
def test_hmac_with_the_public_key_is_no_algorithm() -> None:
    """The classic confusion; PyJWT's own HS256 must not be reachable through the table."""
    signer = signing_key("RS256")
    pem = signer.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signing_input = jws('{"alg":"HS256","kid":"k1"}', json.dumps(ISSUER.claims(R))).rsplit(b".", 1)[0]
    token = signing_input + b"." + b64(hmac.digest(pem, signing_input, hashlib.sha256)).encode()
    read = parse_compact(token)
    assert read.header.alg == "HS256"
    with pytest.raises(InvalidToken) as caught:
        parse_key_set({"keys": [signer.jwk]}).select("k1", "HS256")
    assert caught.value.reason is Reason.KEY_MISMATCH
    with pytest.raises(KeyError):
        key_for(signer).verify("HS256", read.signing_input, read.signature)


def mutate(token: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, cut, piece in edits:
        at = place % (len(token) + 1)
        token = token[:at] + piece + token[at + cut :]
    return token


EDITS: Final = st.lists(
    st.tuples(
        st.integers(0, 2000), st.integers(0, 3), st.binary(max_size=2) | st.sampled_from([b"=", b".", b"A", b"_", b"-"])
    ),
    min_size=1,
    max_size=3,
)

HEADER_VALUES: Final[list[Any]] = [
    *("RS256", "ES256", "none", "k1", "at+jwt", "", "é"),
    *(None, 1, 1.5, [], ["b64"], {}, False, True),
]
CLAIM_VALUES: Final[list[Any]] = ["a", "", None, 1, 1.5, 10**30, [], ["a"], {}, {"a": [1]}, True]
HEADERS: Final = st.one_of(
    st.binary(max_size=20),
    st.dictionaries(
        st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jku", "cty"]),
        st.sampled_from(HEADER_VALUES),
        max_size=5,
    ).map(lambda members: json.dumps(members).encode()),
)
PAYLOADS: Final = st.one_of(
    st.binary(max_size=20),
    st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3), max_size=3).map(
        lambda members: json.dumps(members).encode()
    ),
)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.text(alphabet="eyJ0.=_-A\n", max_size=40).map(str.encode),
        st.builds(jws, HEADERS, PAYLOADS, st.binary(max_size=8)),
        st.builds(mutate, st.just(WHOLE), EDITS),
    )
)
def test_any_bytes_give_a_compact_jws_or_invalid_token(token: bytes) -> None:
    try:
        read = parse_compact(token)
    except InvalidToken as caught:
        refusal = caught
    else:
        assert read.signing_input + b"." + b64(read.signature).encode() == token
        return
    assert refusal.reason in (Reason.MALFORMED_TOKEN, Reason.UNSUPPORTED_HEADER)


def assert_pyjwt_agrees(token: bytes, signer: SigningKey) -> bool:
    """When we accept a token and its signature, PyJWT must, and must read the same. Returns whether we did."""
    try:
        read = parse_compact(token)
    except InvalidToken:
        return False
    key = key_for(signer)
    if read.header.alg not in key.algorithms or not key.verify(read.header.alg, read.signing_input, read.signature):
        return False
    public = signer.private.public_key()
    whole = jwt.api_jws.decode_complete(token, public, [signer.alg])
    assert json.loads(whole["payload"]) == read.claims
    assert whole["signature"] == read.signature
    assert [whole["header"].get(name) for name in ("alg", "kid", "typ")] == list(read.header)
    unchecked: Any = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
    assert jwt.decode(token, public, [signer.alg], options=unchecked) == read.claims
    return True


PYJWT = ["ES256", "RS256", "EdDSA"]


@settings(deadline=None, max_examples=150)
@given(st.sampled_from(PYJWT), st.lists(st.nothing(), max_size=0) | EDITS)
@example("ES256", [])
@example("RS256", [])
@example("EdDSA", [])
def test_whatever_we_accept_of_a_mutated_token_pyjwt_accepts(alg: str, edits: list[tuple[int, int, bytes]]) -> None:
    signer = signing_key(alg)
    token = ISSUER.mint(R, key=signer, scope="mcp:read").encode()
    accepted = assert_pyjwt_agrees(mutate(token, edits), signer)
    if not edits:
        assert accepted


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(PYJWT),
    st.dictionaries(
        st.sampled_from(["kid", "typ", "crit", "b64", "jku", "jwk", "x5c", "zip", "cty"]),
        st.sampled_from(HEADER_VALUES),
        max_size=4,
    ),
    st.dictionaries(
        st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "x"]),
        st.sampled_from(CLAIM_VALUES),
        max_size=5,
    ),
)
@example("ES256", {"kid": None}, {})
@example("ES256", {"typ": None}, {})
def test_whatever_we_accept_of_a_signed_token_pyjwt_accepts(
    alg: str, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    signer = signing_key(alg)
    assert_pyjwt_agrees(ISSUER.sign({"alg": alg, **header}, claims, key=signer).encode(), signer)
