"""Post-quantum signatures: ML-DSA in JOSE (RFC 9964), opt-in, and key sets that stand without support."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from harness import INVALID, R, RecordingApp, bearer, call, cht, protect, token
from hypothesis import given
from hypothesis import strategies as st

from asgi_mcp_auth import AuthServerConfig, ConfigurationError, Reason
from asgi_mcp_auth._oauth import ml_dsa
from asgi_mcp_auth._oauth.jwk_set import SkipReason, VerificationKey, parse_key_set, read_key
from asgi_mcp_auth._oauth.jws import parse_compact
from asgi_mcp_auth.config import DEFAULT_ALGORITHMS
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

JWK: Any = importlib.import_module("jwcrypto.jwk").JWK  # has no types
JWS: Any = importlib.import_module("jwcrypto.jws").JWS

SIZES: Final = {"ML-DSA-44": (1312, 2420), "ML-DSA-65": (1952, 3309), "ML-DSA-87": (2592, 4627)}
KEYS: Final = {alg: SigningKey(alg, "pq") for alg in SIZES}
ES256: Final = SigningKey("ES256", "ec")


def config(issuer: Issuer, *algorithms: str) -> list[AuthServerConfig]:
    return [AuthServerConfig(issuer=issuer.url, algorithms=algorithms)] if algorithms else []


@pytest.fixture
def unsupported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation in which ML-DSA can be imported, and fails when it is used."""

    def fail(_: bytes) -> Any:
        msg = "ML-DSA is not supported"
        raise UnsupportedAlgorithm(msg)

    for name, known in ml_dsa.ML_DSA.items():
        monkeypatch.setitem(ml_dsa.ML_DSA, name, known._replace(load_private=fail, load_public=fail))
    ml_dsa.is_available.cache_clear()
    yield
    ml_dsa.is_available.cache_clear()


@pytest.mark.requirement("PQ-1")
@pytest.mark.parametrize("alg", SIZES)
async def test_tokens_are_accepted_if_the_configuration_lists_the_algorithm(alg: str) -> None:
    issuer, app = Issuer(algorithms=(alg,)), RecordingApp()
    protected = protect(issuer, app, authorization_servers=config(issuer, "ES256", alg))
    signed = token(issuer)
    assert [(await call(protected, headers=bearer(signed))).status for _ in range(2)] == [200, 200]
    broken = signed[:-10] + ("A" if signed[-10] != "A" else "B") + signed[-9:]
    answer = await call(protected, headers=bearer(broken))
    assert (answer.status, answer.challenge) == (401, cht(INVALID))


@pytest.mark.requirement("PQ-1")
async def test_no_algorithm_is_accepted_by_default() -> None:
    assert not set(SIZES) & set(DEFAULT_ALGORITHMS)
    issuer, seen = Issuer(algorithms=("ES256", "ML-DSA-65")), list[Any]()
    protected = protect(issuer, RecordingApp(), on_decision=[seen.append])
    assert (await call(protected, headers=bearer(token(issuer, key=issuer.keys[1])))).status == 401
    assert seen[-1].reason == Reason.ALGORITHM_NOT_ALLOWED
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200


@pytest.mark.requirement("PQ-1")
@pytest.mark.parametrize(("alg", "sizes"), SIZES.items())
def test_keys_and_signatures_are_raw_bytes_of_these_lengths(alg: str, sizes: tuple[int, int]) -> None:
    signer = KEYS[alg]
    raw, signature = base64.urlsafe_b64decode(signer.jwk["pub"] + "=="), signer.signature(b"input")
    assert (len(raw), len(signature)) == sizes
    key = read_key(signer.jwk)
    assert isinstance(key, VerificationKey)
    assert key.kid == "pq"
    assert key.algorithms == {alg}
    assert key.verify(alg, b"input", signature)
    for wrong in (signature[:-1], signature + b"\0", b"", signature[::-1]):
        assert not key.verify(alg, b"input", wrong)
    assert not key.verify(alg, b"other", signature)


def changed(alg: str = "ML-DSA-65", /, *without: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (KEYS[alg].jwk | changes).items() if name not in without}


SKIPPED = [
    pytest.param(changed("ML-DSA-65", "alg"), SkipReason.UNSUPPORTED_ALGORITHM, id="PQ-1 without alg"),
    pytest.param(changed(alg="ML-DSA-66"), SkipReason.UNSUPPORTED_ALGORITHM, id="PQ-1 an unknown parameter set"),
    pytest.param(changed(alg="ES256"), SkipReason.UNSUPPORTED_ALGORITHM, id="PQ-1 alg of another kty"),
    pytest.param(changed(alg=["ML-DSA-65"]), SkipReason.UNSUPPORTED_ALGORITHM, id="PQ-1 alg that is a list"),
    pytest.param(changed(alg="ML-DSA-44"), SkipReason.INVALID, id="PQ-1 a key of another parameter set"),
    pytest.param(changed("ML-DSA-65", "pub"), SkipReason.INVALID, id="PQ-1 without pub"),
    pytest.param(changed(pub=""), SkipReason.INVALID, id="PQ-1 an empty pub"),
    pytest.param(changed(pub=5), SkipReason.INVALID, id="PQ-1 pub that is a number"),
    pytest.param(changed(pub=KEYS["ML-DSA-65"].jwk["pub"][:-4]), SkipReason.INVALID, id="PQ-1 a short pub"),
    pytest.param(changed(pub=KEYS["ML-DSA-65"].jwk["pub"] + "AAAA"), SkipReason.INVALID, id="PQ-1 a long pub"),
    pytest.param(changed(priv="AA"), SkipReason.PRIVATE, id="PQ-1 a private key"),
    pytest.param(changed(use="enc"), SkipReason.NOT_FOR_SIGNATURES, id="PQ-1 use enc"),
    pytest.param(
        {"kty": "AKP", "kid": "pq", "pub": "AA", "alg": None}, SkipReason.UNSUPPORTED_ALGORITHM, id="PQ-1 junk"
    ),
]


@pytest.mark.parametrize(("jwk", "reason"), SKIPPED)
def test_a_key_is_skipped_and_the_set_stands(jwk: dict[str, Any], reason: SkipReason) -> None:
    keys = parse_key_set({"keys": [jwk, ES256.jwk]})
    assert [key.kid for key in keys.keys] == ["ec"]
    assert [skipped.reason for skipped in keys.skipped] == [reason]


@pytest.mark.requirement("PQ-1")
@given(st.binary(max_size=64) | st.sampled_from([size for sizes in SIZES.values() for size in sizes]).map(bytes))
def test_any_bytes_are_a_key_or_a_reason(raw: bytes) -> None:
    jwk = {"kty": "AKP", "alg": "ML-DSA-44", "pub": base64.urlsafe_b64encode(raw).decode()}
    read = read_key(jwk)
    assert isinstance(read, VerificationKey) is (len(raw) == SIZES["ML-DSA-44"][0])
    if isinstance(read, VerificationKey):
        assert not read.verify("ML-DSA-44", b"input", raw)
        assert not read.verify("ML-DSA-44", b"input", bytes(SIZES["ML-DSA-44"][1]))


@pytest.mark.requirement("PQ-1")
@pytest.mark.usefixtures("unsupported")
async def test_without_support_the_key_is_skipped_and_the_other_keys_work() -> None:
    keys = parse_key_set({"keys": [KEYS["ML-DSA-87"].jwk, ES256.jwk]})
    assert [skipped.reason for skipped in keys.skipped] == [SkipReason.UNSUPPORTED_ALGORITHM]
    issuer = Issuer(algorithms=("ES256",))
    issuer.keys += [KEYS["ML-DSA-87"]]
    protected = protect(issuer, RecordingApp())
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200


@pytest.mark.requirement("PQ-1")
@pytest.mark.usefixtures("unsupported")
def test_without_support_the_algorithm_is_a_configuration_error() -> None:
    issuer = Issuer(algorithms=("ES256",))
    with pytest.raises(ConfigurationError, match=r"'ML-DSA-44'.* cannot be verified(.|\n)*cryptography 48"):
        protect(issuer, RecordingApp(), authorization_servers=config(issuer, "ES256", "ML-DSA-44"))


@pytest.mark.requirement("PQ-1")
def test_without_the_module_nothing_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ml_dsa.ML_DSA["ML-DSA-44"]._replace(load_private=None, load_public=None)
    monkeypatch.setitem(ml_dsa.ML_DSA, "ML-DSA-44", known)
    assert not ml_dsa.is_available.__wrapped__("ML-DSA-44")
    assert ml_dsa.load_public_key("ML-DSA-44", bytes(1312)) is None


@pytest.mark.requirement("PQ-2")
@pytest.mark.parametrize("alg", SIZES)
async def test_signatures_of_jwcrypto_verify_here_and_ours_there(alg: str) -> None:
    theirs = JWK.generate(kty="AKP", alg=alg, kid="jwcrypto")
    published = theirs.export_public(as_dict=True)
    issuer = Issuer(algorithms=())
    jwt = JWS(json.dumps(issuer.claims(R, scope="mcp:read")))
    jwt.add_signature(theirs, None, json.dumps({"alg": alg, "kid": "jwcrypto", "typ": "at+jwt"}))
    protected = protect(
        issuer,
        RecordingApp(),
        authorization_servers=[AuthServerConfig(issuer=issuer.url, algorithms=[alg], jwks={"keys": [published]})],
    )
    compact = str(jwt.serialize(compact=True))
    assert (await call(protected, headers=bearer(compact))).status == 200
    ours = Issuer(algorithms=()).mint(R, key=KEYS[alg])
    read = JWS()
    read.allowed_algs = [alg]
    read.deserialize(ours, JWK(**KEYS[alg].jwk))
    assert read.is_valid
    assert parse_compact(ours.encode()).header.alg == alg


@pytest.mark.requirement("PQ-1")
def test_the_largest_tokens_fit_into_a_header_field_of_gunicorn() -> None:
    sizes = [len(token(Issuer(algorithms=()), key=key)) for key in KEYS.values()]
    assert sizes == sorted(sizes)
    assert 6300 < sizes[-1] < 6700
