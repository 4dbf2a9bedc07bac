"""DPoP proofs as a pure function: every part of a proof wrong, missing or of another type (RFC 9449 section 4.3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from harness import Clock, R
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth._oauth.dpop_proof import (
    MAX_PROOF,
    NONCE_SECONDS,
    Expected,
    ProofKey,
    ProofSettings,
    check_proof,
    digest_of,
    make_nonce,
    thumbprint,
)
from asgi_mcp_auth._oauth.jws import ALGORITHMS
from asgi_mcp_auth.errors import InvalidProof, InvalidToken, Reason, Refusal
from asgi_mcp_auth.testing import Issuer, SigningKey

NOW = 1_800_000_000
TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"  # RFC 9449 section 7.1
ISSUER = Issuer(clock=Clock(NOW), algorithms=("ES256",))
KEY = ISSUER.proof_key
ES256 = ProofSettings(frozenset({"ES256"}), 300.0)
EVERY = ProofSettings(frozenset(ALGORITHMS), 300.0)


def no_key(header: bytes) -> ProofKey | None:
    del header
    return None


def check(
    *lines: str | bytes,
    method: str = "POST",
    url: str = R,
    jkt: str = KEY.thumbprint,
    settings: ProofSettings = ES256,
    now: float = NOW,
    known: Callable[[bytes], ProofKey | None] = no_key,
) -> Any:
    sent = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return check_proof(sent, Expected(method, url, digest_of(TOKEN.encode()), jkt), settings, now, known)


def proof(**changes: Any) -> str:
    return ISSUER.prove("POST", R, TOKEN, **changes)


def refusal(*lines: str | bytes, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        check(*lines, **more)
    return refused.value


@pytest.mark.requirement("RS-135")
def test_the_vectors_of_the_rfcs() -> None:
    assert digest_of(TOKEN.encode()) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
    jwk = {
        "kty": "EC",
        "x": "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
        "y": "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
        "crv": "P-256",
    }
    assert thumbprint(jwk) == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


RFC_PROOF = (  # RFC 9449 section 7.1
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19."
    "eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9."
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)


@pytest.mark.requirement("RS-135")
def test_the_proof_of_the_rfc_is_accepted() -> None:
    verified = check(
        RFC_PROOF,
        method="GET",
        url="https://resource.example.org/protectedresource",
        jkt="0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I",
        now=1562262618,
    )
    assert (verified.jti, verified.issued_at, verified.nonce) == ("e1j3V_bKic8-LAEB", 1562262618, None)


@pytest.mark.requirement("RS-130")
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="missing"),
        pytest.param((proof(), proof()), id="two field lines"),
        pytest.param((f"{proof()},{proof()}",), id="a list"),
        pytest.param((f"{proof()}, {proof()}",), id="a list with a space"),
        pytest.param(("",), id="empty"),
        pytest.param(("a.b",), id="two parts"),
        pytest.param((f"{proof()}.x",), id="four parts"),
        pytest.param((f'"{proof()}"',), id="quoted"),
        pytest.param(("é.é.é".encode(),), id="characters outside base64url"),
        pytest.param((f"{proof()}=",), id="padding"),
        pytest.param((f"a{proof()}",), id="a header that is no JSON"),
        pytest.param((b"\0\xff",), id="bytes"),
    ],
)
def test_one_field_with_one_compact_jwt(lines: tuple[str | bytes, ...]) -> None:
    refused = refusal(*lines)
    assert isinstance(refused, InvalidProof)
    assert (refused.status, refused.wire_code, refused.reason) == (401, "invalid_dpop_proof", Reason.INVALID_DPOP_PROOF)


@pytest.mark.requirement("DP-10")
@pytest.mark.parametrize("size", [MAX_PROOF + 1, 1_000_000])
def test_a_proof_is_at_most_8_kib(size: int) -> None:
    small = proof(filler="")
    long = proof(filler="x" * (size * 3 // 4))
    assert len(small) < MAX_PROOF < len(long)
    assert check(small)
    assert str(refusal(long).found).endswith("bytes")


PRIVATE = SigningKey("ES256")
PRIVATE_JWK = {**KEY.jwk, "d": "abc"}
PUBLIC = {name: KEY.jwk[name] for name in ("kty", "crv", "x", "y")}
RSA_1024 = {"kty": "RSA", "e": "AQAB", "n": "_" * 171}
ES384 = SigningKey("ES384")
ES384_PUBLIC = {name: ES384.jwk[name] for name in ("kty", "crv", "x", "y")}
HUGE = {"kty": "RSA", "e": "AQAB", "n": "_" * 1368}


@pytest.mark.requirement("RS-132")
@pytest.mark.parametrize(
    "header",
    [
        pytest.param({"typ": "JWT"}, id="typ JWT"),
        pytest.param({"typ": "at+jwt"}, id="typ at+jwt"),
        pytest.param({"typ": "DPOP+JWT"}, id="typ in another case"),
        pytest.param({"typ": None}, id="typ null"),
        pytest.param({"typ": ...}, id="no typ"),
        pytest.param({"typ": ["dpop+jwt"]}, id="typ an array"),
        pytest.param({"alg": "none"}, id="alg none"),
        pytest.param({"alg": "HS256"}, id="alg HS256"),
        pytest.param({"alg": "ES384"}, id="alg not allowed"),
        pytest.param({"alg": "es256"}, id="alg in another case"),
        pytest.param({"alg": ...}, id="no alg"),
        pytest.param({"alg": 256}, id="alg a number"),
        pytest.param({"jwk": ...}, id="no jwk"),
        pytest.param({"jwk": None}, id="jwk null"),
        pytest.param({"jwk": []}, id="jwk an array"),
        pytest.param({"jwk": json.dumps(PUBLIC)}, id="jwk a string"),
        pytest.param({"jwk": {}}, id="jwk empty"),
        pytest.param({"jwk": PRIVATE_JWK}, id="jwk private"),
        pytest.param({"jwk": {**PUBLIC, "d": None}}, id="jwk with d null"),
        pytest.param({"jwk": {**PUBLIC, "k": "x"}}, id="jwk with k"),
        pytest.param({"jwk": {**PUBLIC, "p": "x"}}, id="jwk with p"),
        pytest.param({"jwk": {"kty": "oct", "k": "AAAA"}}, id="jwk symmetric"),
        pytest.param({"jwk": {**PUBLIC, "kty": "RSA"}}, id="jwk of another kty"),
        pytest.param({"jwk": {**PUBLIC, "kty": ["EC"]}}, id="jwk kty an array"),
        pytest.param({"jwk": {**PUBLIC, "crv": "P-384"}}, id="jwk of another curve"),
        pytest.param({"jwk": ES384_PUBLIC}, id="jwk of another algorithm"),
        pytest.param({"jwk": {**PUBLIC, "alg": "ES384"}}, id="jwk for another algorithm"),
        pytest.param({"jwk": {**PUBLIC, "use": "enc"}}, id="jwk for encryption"),
        pytest.param({"jwk": {**PUBLIC, "x": PUBLIC["x"] + "="}}, id="jwk with padding"),
        pytest.param({"jwk": {**PUBLIC, "x": PUBLIC["y"]}}, id="jwk not on the curve"),
        pytest.param({"jwk": {**PUBLIC, "x": 1}}, id="jwk with a number"),
        pytest.param({"crit": ["exp"], "exp": 1}, id="crit"),
        pytest.param({"b64": False}, id="b64"),
        pytest.param({"x5c": [["x"] * 8] * 8}, id="too many values"),
    ],
)
def test_a_header_that_is_not_acceptable(header: dict[str, Any]) -> None:
    assert isinstance(refusal(proof(header=header)), InvalidProof)


@pytest.mark.requirement("DP-10")
@pytest.mark.parametrize("jwk", [pytest.param(RSA_1024, id="1,024 bits"), pytest.param(HUGE, id="8,208 bits")])
def test_rsa_keys_have_2048_to_8192_bits(jwk: dict[str, str]) -> None:
    refused = refusal(proof(header={"alg": "RS256", "jwk": jwk}), settings=EVERY)
    assert str(refused.found) in ("a jwk that is weak", "a jwk that is too_large")


@pytest.mark.requirement("DP-10", "DP-3")
@pytest.mark.parametrize("member", ["kid", "jku", "x5u", "x5c", "x5t", "unknown"])
def test_other_members_of_the_header_are_ignored(member: str) -> None:
    assert check(proof(header={member: "https://evil.example/"}))


@pytest.mark.requirement("RS-132")
@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512", "Ed25519", "EdDSA", "Ed448", "RS256", "PS256"])
def test_every_asymmetric_algorithm_can_be_allowed(alg: str) -> None:
    key = SigningKey(alg)
    sent = proof(key=key)
    assert check(sent, jkt=key.thumbprint, settings=EVERY).key.alg == alg
    if alg != "ES256":
        assert isinstance(refusal(sent, jkt=key.thumbprint), InvalidProof)


WRONG_TYPES: tuple[Any, ...] = (..., None, "", True, [], {}, ["POST"])


@pytest.mark.requirement("RS-132", "RS-133", "RS-134", "RS-135", "RS-136", "DP-1")
@pytest.mark.parametrize(
    "claims",
    [
        *(
            pytest.param({name: value}, id=f"{name} {value!r}")
            for name in ("jti", "htm", "htu", "ath", "iat")
            for value in WRONG_TYPES
        ),
        *(pytest.param({name: 5}, id=f"{name} a number") for name in ("jti", "htm", "htu", "ath", "nonce")),
        pytest.param({"nonce": ["x"]}, id="nonce an array"),
        pytest.param({"htm": "post"}, id="RS-133 htm in lower case"),
        pytest.param({"htm": "GET"}, id="RS-133 htm of another method"),
        pytest.param({"htu": R + "?x=1"}, id="RS-134 htu with a query"),
        pytest.param({"htu": R + "?"}, id="RS-134 htu with an empty query"),
        pytest.param({"htu": R + "#f"}, id="RS-134 htu with a fragment"),
        pytest.param({"htu": R.replace("https", "http")}, id="RS-134 htu of http"),
        pytest.param({"htu": "https://mcp.example.com/other"}, id="RS-134 htu of another path"),
        pytest.param({"htu": "https://mcp.example.com/mcp/"}, id="RS-134 htu with a slash"),
        pytest.param({"htu": "https://mcp.example.com/MCP"}, id="RS-134 htu of a path in another case"),
        pytest.param({"htu": "https://evil.example/mcp"}, id="RS-134 htu of another host"),
        pytest.param({"htu": "https://mcp.example.com:8443/mcp"}, id="RS-134 htu of another port"),
        pytest.param({"htu": "https://u@mcp.example.com/mcp"}, id="RS-134 htu with userinfo"),
        pytest.param({"htu": "/mcp"}, id="RS-134 htu relative"),
        pytest.param({"htu": " " + R}, id="RS-134 htu with a space"),
        pytest.param({"htu": "https://mcp.example.com//mcp"}, id="RS-134 htu with two slashes"),
        pytest.param({"htu": "https://mcp.example.com/x%2F..%2Fmcp"}, id="RS-134 htu with an escaped slash"),
        pytest.param({"ath": digest_of(b"another token")}, id="RS-135 ath of another token"),
        pytest.param({"ath": digest_of(TOKEN.encode()) + "="}, id="RS-135 ath with padding"),
        pytest.param({"ath": "\N{SNOWMAN}"}, id="RS-135 ath outside ASCII"),
        pytest.param({"iat": str(NOW)}, id="RS-136 iat a string"),
        pytest.param({"iat": NOW - 301}, id="RS-136 iat too old"),
        pytest.param({"iat": NOW + 301}, id="RS-136 iat too far ahead"),
        pytest.param({"iat": NOW * 1000}, id="RS-136 iat in milliseconds"),
        pytest.param({"iat": -NOW}, id="RS-136 iat negative"),
    ],
)
def test_claims_that_are_not_acceptable(claims: dict[str, Any]) -> None:
    assert isinstance(refusal(proof(**claims)), InvalidProof)


@pytest.mark.requirement("RS-134", "RS-136", "DP-1", "DP-3")
@pytest.mark.parametrize(
    ("claims", "url"),
    [
        pytest.param({"iat": NOW - 300}, R, id="RS-136 the window behind"),
        pytest.param({"iat": NOW + 300}, R, id="RS-136 the window ahead"),
        pytest.param({"iat": NOW + 0.5}, R, id="RS-136 a fraction"),
        pytest.param({"htu": "https://MCP.example.com:443/mcp"}, R, id="RS-134 host in capitals, default port"),
        pytest.param({"htu": "HTTPS://mcp.example.com/mcp"}, R, id="RS-134 scheme in capitals"),
        pytest.param({"htu": "https://mcp.example.com/%6dcp"}, R, id="RS-134 an escape that is not needed"),
        pytest.param({"htu": "https://mcp.example.com/./x/../mcp"}, R, id="RS-134 dot segments"),
        pytest.param({"htu": "https://mcp.example.com"}, "https://mcp.example.com/", id="RS-134 an empty path"),
        pytest.param(
            {"htu": "https://mcp.example.com/a%2fb"}, "https://mcp.example.com/a%2Fb", id="RS-134 case of escapes"
        ),
        pytest.param({"content_digest": "x", "exp": 1, "nbf": [], "aud": "y"}, R, id="DP-3 unknown claims"),
        pytest.param({"nonce": "never asked for"}, R, id="DP-3 a nonce"),
    ],
)
def test_claims_that_are_acceptable(claims: dict[str, Any], url: str) -> None:
    assert check(proof(**claims), url=url)


@pytest.mark.requirement("RS-136")
def test_the_window_can_be_smaller() -> None:
    small = ProofSettings(frozenset({"ES256"}), 60.0)
    assert check(proof(iat=NOW - 60), settings=small)
    assert isinstance(refusal(proof(iat=NOW - 61), settings=small), InvalidProof)


@pytest.mark.requirement("RS-135")
def test_the_key_of_another_token() -> None:
    refused = refusal(proof(key=SigningKey("ES256")))
    assert isinstance(refused, InvalidToken)
    assert (refused.reason, refused.description) == (Reason.DPOP_KEY_MISMATCH, "Invalid DPoP key binding")


@pytest.mark.requirement("RS-132")
def test_the_signature_of_another_key() -> None:
    forged = ISSUER.sign(
        {"typ": "dpop+jwt", "alg": "ES256", "jwk": PUBLIC},
        {"jti": "1", "htm": "POST", "htu": R, "iat": NOW, "ath": digest_of(TOKEN.encode())},
        key=SigningKey("ES256"),
    )
    assert refusal(forged).found == "a wrong signature"
    head, _, _ = proof().rpartition(".")
    for signature in ("", "AAAA", "A" * 86, "A" * 4000):
        assert isinstance(refusal(f"{head}.{signature}"), InvalidProof)


def test_a_known_key_is_not_read_again() -> None:
    first = check(proof())
    asked: list[bytes] = []

    def known(header: bytes) -> ProofKey:
        asked.append(header)
        return first.key  # type: ignore[no-any-return]

    assert check(proof(), known=known).key is first.key
    assert asked == [first.header]


@pytest.mark.requirement("DP-6")
def test_nonces_are_made_from_the_time_and_the_secret() -> None:
    slot = 15_000_000 * NONCE_SECONDS
    assert make_nonce(b"k", slot) == make_nonce(b"k", slot + NONCE_SECONDS - 1)
    assert make_nonce(b"k", slot) == make_nonce(b"k", slot + NONCE_SECONDS, slots_ago=1)
    assert len({make_nonce(b"k", slot), make_nonce(b"l", slot), make_nonce(b"k", slot + NONCE_SECONDS)}) == 3


@pytest.mark.requirement("RS-132")
@given(st.binary(max_size=400) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_pass_or_crash(line: bytes) -> None:
    assert isinstance(refusal(line), InvalidProof)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.requirement("RS-132")
@given(
    st.dictionaries(st.sampled_from(["typ", "alg", "jwk"]), VALUES, min_size=1),
    st.dictionaries(st.sampled_from(["jti", "htm", "htu", "iat", "ath"]), VALUES),
)
def test_no_other_header_passes_or_crashes(header: dict[str, Any], claims: dict[str, Any]) -> None:
    assert isinstance(refusal(proof(header=header, **claims)), Refusal)
