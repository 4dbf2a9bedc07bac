"""A matrix of good and bad tokens, each through the whole middleware.

The answer is 200, 400 or 401, or 503 if the token cannot be verified now. It is never a 500 or an exception, and a token
never selects a URL to fetch. Six other libraries were tried with the same tokens.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from harness import EXPIRED, INVALID, ISS, MALFORMED, Clock, R, RecordingApp, bearer, call, chr_, cht, protect, token

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

Build = Callable[[Issuer, float], "str | bytes"]

METADATA: Final = "/.well-known/oauth-authorization-server"
NONE: Final = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
CANARY: Final = "https://evil.example/canary"


@functools.cache
def attacker() -> SigningKey:
    return SigningKey("RS256", "evil")


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claimed(**changes: Any) -> Build:
    """Return `T{}` with changed claims; `...` removes a claim."""
    return lambda issuer, now: token(issuer, **changes)


def timed(**offsets: float) -> Build:
    """Return `T{}` with times relative to now."""
    return lambda issuer, now: token(issuer, **{name: now + offset for name, offset in offsets.items()})


def headed(**members: Any) -> Build:
    """Return `T{}` with changed header members, signed with the good key."""
    return lambda issuer, now: token(issuer, header=members)


def typed(typ: str | None, **changes: Any) -> Build:
    return lambda issuer, now: token(issuer, typ=typ, **changes)


def good_claims(issuer: Issuer, **changes: Any) -> dict[str, Any]:
    return issuer.claims(R, **({"scope": "mcp:read"} | changes))


def kind_claimed(kind: str) -> Build:
    """Return a token with a `typ` claim, as Keycloak writes it; `Issuer.mint` uses that name for the header."""
    return lambda issuer, now: issuer.sign(
        {"alg": "RS256", "kid": issuer.keys[0].kid, "typ": "JWT"}, good_claims(issuer, typ=kind)
    )


def raw_header(text: str | bytes) -> Build:
    """Return a token with these header bytes and good claims, signed with the good key."""
    data = text.encode() if isinstance(text, str) else text
    return lambda issuer, now: issuer.sign(data, good_claims(issuer))


def raw_payload(text: str | bytes) -> Build:
    """Return a token with a good header and these payload bytes, signed with the good key."""
    data = text.encode() if isinstance(text, str) else text
    return lambda issuer, now: issuer.sign({"alg": "RS256", "kid": issuer.keys[0].kid, "typ": "at+jwt"}, data)


def spliced(**members: str) -> Build:
    """Return a token with good claims and members that `json.dumps` would not write, signed with the good key."""

    def build(issuer: Issuer, now: float) -> str:
        whole = json.dumps(good_claims(issuer, **dict.fromkeys(members, ...)))[:-1]
        text = whole + "".join(f',"{name}":{value}' for name, value in members.items()) + "}"
        built = raw_payload(text)(issuer, now)
        assert isinstance(built, str)
        return built

    return build


def literal(credential: str | bytes) -> Build:
    return lambda issuer, now: credential


def header_only(header: str) -> Build:
    """Return an unsigned token; a client needs no key to make one."""
    return lambda issuer, now: f"{b64(header)}.{b64(json.dumps(good_claims(issuer)))}.AAAA"


def parts(change: Callable[[list[str]], str]) -> Build:
    """Return `T{}` with its three parts joined in another way."""
    return lambda issuer, now: change(token(issuer).split("."))


def by_attacker(**members: Any) -> Build:
    """Return a token signed by an unknown key under a known kid."""
    return lambda issuer, now: token(
        issuer, key=attacker(), header={"kid": issuer.keys[0].kid, **members}, iat=int(now) - 120
    )


def by_unknown_key(issued: float, **members: Any) -> Build:
    """Return a token signed by an unknown key under its own kid."""
    return lambda issuer, now: token(issuer, key=attacker(), header=members, iat=int(now + issued))


NEWER = by_unknown_key(0)


def self_signed(build: Callable[..., Build]) -> Build:
    """Return a token with its verification key in the header."""

    def late(issuer: Issuer, now: float) -> str | bytes:  # the key is made when the test runs
        return build(jwk=attacker().jwk)(issuer, now)

    return late


def id_token(audience: str) -> Build:
    return lambda issuer, now: token(
        issuer, typ="JWT", aud=audience, nonce="n-0S6", at_hash="77Qm", client_id=..., azp="c1", scope=...
    )


def without_kid(issuer: Issuer, now: float) -> str:
    return issuer.sign({"alg": "RS256", "typ": "at+jwt"}, good_claims(issuer))


def without_kid_of_two(issuer: Issuer, now: float) -> str:
    issuer.keys.append(attacker())
    return without_kid(issuer, now)


def hmac_with_pem(issuer: Issuer, now: float) -> str:
    pem = (
        issuer.keys[0]
        .private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    header = json.dumps({"alg": "HS256", "kid": issuer.keys[0].kid, "typ": "at+jwt"})
    signing_input = f"{b64(header)}.{b64(json.dumps(good_claims(issuer)))}"
    return f"{signing_input}.{b64(hmac.digest(pem, signing_input.encode(), hashlib.sha256))}"


def flipped_payload(issuer: Issuer, now: float) -> str:
    header, payload, signature = token(issuer).split(".")
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).replace(b'"alice"', b'"alicf"')
    return f"{header}.{b64(text)}.{signature}"


def es256(change: Callable[[bytes], bytes]) -> Build:
    """Return an ES256 token with changed signature bytes."""

    def build(issuer: Issuer, now: float) -> str:
        header, payload, signature = token(issuer, key=issuer.keys[1]).split(".")
        raw = base64.urlsafe_b64decode(signature + "==")
        assert len(raw) == 64
        return f"{header}.{payload}.{b64(change(raw))}"

    return build


def der(raw: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


def standard_alphabet(issuer: Issuer, now: float) -> str:
    """Return a good token with its signature in the base64 alphabet with `+` and `/`."""
    for attempt in range(50):
        header, payload, signature = token(issuer, jti=f"j{attempt}").split(".")
        if {"-", "_"} & set(signature):
            return f"{header}.{payload}.{signature.replace('-', '+').replace('_', '/')}"
    pytest.fail("no signature with - or _")


def with_nonascii(issuer: Issuer, now: float) -> bytes:
    return token(issuer).encode()[:-4] + "é".encode()


M, C, X = Reason.MALFORMED_TOKEN, Reason.MALFORMED_CLAIM, Reason.MISSING_CLAIM
TYP, KIND, AUD = Reason.TYP_NOT_ACCEPTED, Reason.WRONG_TOKEN_KIND, Reason.WRONG_AUDIENCE
ALG, HEAD, SIG = Reason.ALGORITHM_NOT_ALLOWED, Reason.UNSUPPORTED_HEADER, Reason.BAD_SIGNATURE
OLD, EARLY, BOUND = Reason.TOKEN_EXPIRED, Reason.NOT_YET_VALID, Reason.SENDER_CONSTRAINED
ISSUER, KID, TWO = Reason.UNKNOWN_ISSUER, Reason.UNKNOWN_KID, Reason.AMBIGUOUS_KEY
SYNTAX = Reason.MALFORMED_AUTHORIZATION

# The rows of the matrix in its order; None: accepted.
MATRIX = [
    pytest.param(claimed(), None, id="RS-74 valid at+jwt"),
    pytest.param(typed("JWT"), None, id="RS-74 typ JWT"),
    pytest.param(typed(None), None, id="RS-74 typ missing"),
    pytest.param(typed("AT+JWT"), None, id="RS-74 typ AT+JWT"),
    pytest.param(typed("application/at+jwt"), None, id="RS-74 typ application/at+jwt"),
    pytest.param(typed("application/jwt"), None, id="RS-74 D7 typ application/jwt"),
    pytest.param(typed("text/jwt"), TYP, id="RS-74 D7 typ text/jwt"),
    pytest.param(id_token("c1"), KIND, id="RS-84 ID token, aud the client"),
    pytest.param(id_token(R), KIND, id="RS-84 ID token, aud the resource"),
    pytest.param(claimed(nonce="n", scope=...), KIND, id="RS-84 ID token by its nonce alone"),
    pytest.param(claimed(nonce="n"), None, id="RS-84 nonce beside a scope"),
    pytest.param(typed("dpop+jwt"), TYP, id="RS-84 typ dpop+jwt"),
    pytest.param(typed("logout+jwt", events={"x": {}}), TYP, id="RS-84 typ logout+jwt (events)"),
    pytest.param(claimed(events={"x": {}}), KIND, id="RS-84 events under typ at+jwt"),
    pytest.param(typed("oauth-id-jag+jwt"), TYP, id="RS-90 ID-JAG"),
    pytest.param(typed("txntoken+jwt"), TYP, id="RS-90 transaction token"),
    pytest.param(kind_claimed("Refresh"), KIND, id="RS-90 refresh token"),
    pytest.param(kind_claimed("ID"), KIND, id="RS-84 typ claim ID"),
    pytest.param(kind_claimed("Bearer"), None, id="RS-84 typ claim Bearer"),
    pytest.param(headed(typ=5), M, id="RS-74 typ int"),
    pytest.param(claimed(exp=...), X, id="RS-81 no exp"),
    pytest.param(claimed(exp="123"), C, id="RS-81 exp str"),
    pytest.param(timed(exp=299.5), None, id="RS-81 exp float"),
    pytest.param(spliced(exp="1e400"), M, id="RS-81 exp 1e400"),
    pytest.param(spliced(exp="Infinity"), M, id="RS-81 exp Infinity"),
    pytest.param(timed(exp=-10), None, id="RS-81 exp -10s, within the leeway"),
    pytest.param(timed(exp=-30), OLD, id="RS-81 exp -30s"),
    pytest.param(timed(exp=-31), OLD, id="RS-81 exp -31s"),
    pytest.param(claimed(exp=None), X, id="RS-81 exp null"),
    pytest.param(timed(nbf=3600), EARLY, id="RS-82 nbf +1h"),
    pytest.param(claimed(nbf="soon"), C, id="RS-82 nbf str"),
    pytest.param(claimed(nbf=None), None, id="RS-82 D3 nbf null"),
    pytest.param(timed(exp=-5, nbf=25), C, id="D2 exp before nbf, by the leeway"),
    pytest.param(timed(exp=-5, iat=25), C, id="D2 exp before iat, by the leeway"),
    pytest.param(timed(exp=5, nbf=25), None, id="D2 exp before nbf, within the leeway"),
    pytest.param(timed(iat=3600), EARLY, id="RS-82 iat +1h"),
    pytest.param(claimed(iat=...), None, id="RS-83 iat missing"),
    pytest.param(claimed(iat="now"), C, id="RS-82 iat str"),
    pytest.param(claimed(aud=None), X, id="RS-80 aud missing"),
    pytest.param(claimed(aud="https://other"), AUD, id="RS-80 aud other"),
    pytest.param(claimed(aud=R + "/"), AUD, id="RS-101 aud trailing slash"),
    pytest.param(claimed(aud={R: 1}), C, id="RS-80 aud dict"),
    pytest.param(claimed(aud=f"x{R}x"), AUD, id="RS-80 aud substring-superset str"),
    pytest.param(claimed(aud=["https://other", R]), None, id="RS-80 aud among others"),
    pytest.param(claimed(iss="https://other.example.com"), ISSUER, id="RS-73 iss other"),
    pytest.param(claimed(sub=...), X, id="RS-83 sub missing"),
    pytest.param(claimed(sub=5), C, id="RS-83 sub int"),
    pytest.param(claimed(sub=""), C, id="RS-83 sub empty"),
    pytest.param(claimed(client_id=...), None, id="RS-83 client_id missing"),
    pytest.param(claimed(client_id=5), C, id="RS-83 client_id int"),
    pytest.param(claimed(client_id=None, azp="c1"), None, id="RS-87 D3 client_id null, azp good"),
    pytest.param(claimed(azp=None), None, id="RS-87 D3 azp null"),
    pytest.param(claimed(azp=""), C, id="RS-87 D3 azp empty"),
    pytest.param(claimed(jti=5), C, id="A23 jti int"),
    pytest.param(claimed(sid=5), C, id="A23 sid int"),
    pytest.param(claimed(jti=None, sid=None), None, id="D3 jti and sid null"),
    pytest.param(claimed(scope=["mcp:read"]), None, id="RS-86 scope list"),
    pytest.param(claimed(scope=["mcp:read", 5]), C, id="RS-86 scope list nonstr"),
    pytest.param(claimed(scope=5), C, id="RS-86 scope int"),
    pytest.param(without_kid, None, id="RS-76 no kid, one compatible key"),
    pytest.param(without_kid_of_two, TWO, id="RS-76 no kid, two RSA keys"),
    pytest.param(by_unknown_key(-120), KID, id="RS-77 unknown kid"),
    pytest.param(NEWER, KID, id="RS-77 unknown kid, issued after the fetch"),
    pytest.param(by_attacker(), SIG, id="RS-78 known kid wrong key"),
    pytest.param(flipped_payload, SIG, id="RS-78 one payload byte changed"),
    pytest.param(es256(lambda raw: raw), None, id="RS-78 ES256 untouched"),
    pytest.param(es256(lambda raw: bytes(64)), SIG, id="RS-78 ES256 r=s=0"),
    pytest.param(es256(der), SIG, id="RS-78 ES256 in DER"),
    pytest.param(headed(crit=["exp2"]), HEAD, id="RS-72 crit unknown"),
    pytest.param(headed(crit=["b64"], b64=False), HEAD, id="RS-72 crit b64=false"),
    pytest.param(headed(crit=[]), HEAD, id="RS-72 crit empty"),
    pytest.param(headed(crit="exp2"), HEAD, id="RS-72 crit str"),
    pytest.param(
        headed(jku=CANARY, x5u=CANARY, jwk={"kty": "oct", "k": "AA"}, x5c=["AA"]), None, id="RS-72 jku/x5u/jwk header"
    ),
    pytest.param(by_unknown_key(-120, jku=CANARY, x5u=CANARY), KID, id="RS-72 jku/x5u of an attacker"),
    pytest.param(by_attacker(jku=CANARY, x5u=CANARY), SIG, id="RS-72 jku/x5u of an attacker, known kid"),
    pytest.param(header_only('{"alg":"none","typ":"at+jwt"}'), ALG, id="RS-71 alg none"),
    pytest.param(header_only('{"alg":"noNE","typ":"at+jwt"}'), ALG, id="RS-71 alg noNE"),
    pytest.param(parts(lambda p: f"{NONE}.{p[1]}."), M, id="RS-71 alg none without a signature"),
    pytest.param(hmac_with_pem, ALG, id="RS-71 HS256 w/ PEM"),
    pytest.param(headed(alg=5), M, id="RS-71 alg int"),
    pytest.param(claimed(cnf={"jkt": "x"}), BOUND, id="RS-85 cnf.jkt presented as Bearer"),
    pytest.param(claimed(cnf={"x5t#S256": "x"}), BOUND, id="RS-85 cnf.x5t#S256 as Bearer"),
    pytest.param(claimed(cnf={"x": "y"}), BOUND, id="RS-85 cnf of an unknown method"),
    pytest.param(headed(kid=5), M, id="RS-75 kid int"),
    pytest.param(headed(kid=["k1"]), M, id="RS-75 kid list"),
    pytest.param(headed(kid=None), M, id="RS-75 kid null"),
    pytest.param(headed(kid="k" * 100_000), SYNTAX, id="RS-16 kid 100KB"),
    pytest.param(by_unknown_key(-120, kid="k" * 10_000), KID, id="RS-77 kid 10KB"),
    pytest.param(
        header_only('{"alg":"RS256","x":' + "[" * 1493 + "]" * 1493 + "}"), M, id="RS-70 deep header (unsigned, 4 KB)"
    ),
    pytest.param(spliced(x="[" * 2000 + "]" * 2000), M, id="RS-70 deep payload (signed)"),
    pytest.param(claimed(x=[{}] * 200), M, id="A31 200 objects (signed)"),
    pytest.param(
        header_only('{"alg":"RS256","x":[' + "{}," * 1000 + "0]}"), M, id="A31 hdr of 1,000 objects (unsigned)"
    ),
    pytest.param(raw_header("[1]"), M, id="RS-70 hdr array"),
    pytest.param(raw_header('"x"'), M, id="RS-70 hdr str"),
    pytest.param(raw_header("null"), M, id="RS-70 hdr null"),
    pytest.param(raw_header('{"alg":"RS256","alg":"RS256"}'), M, id="RS-70 hdr with two alg"),
    pytest.param(raw_payload("[1]"), M, id="RS-70 payload array"),
    pytest.param(raw_payload("null"), M, id="RS-70 payload null"),
    pytest.param(raw_payload('"x"'), M, id="RS-70 payload str"),
    pytest.param(raw_payload("hello"), M, id="RS-70 payload not json"),
    pytest.param(spliced(sub='"alice","sub":"bob"'), M, id="RS-70 payload with two sub"),
    pytest.param(header_only('{"alg":"RS256","kid":"\\ud800"}'), M, id="RS-70 surrogate in kid"),
    pytest.param(spliced(sub='"\\ud800"'), M, id="RS-70 surrogate in sub"),
    pytest.param(standard_alphabet, M, id="RS-70 sig with std-base64 chars"),
    pytest.param(parts(lambda p: ".".join(p) + "="), M, id="RS-70 sig with padding"),
    pytest.param(parts(lambda p: f"{p[0]}.{p[1][:8]} {p[1][8:]}.{p[2]}"), SYNTAX, id="RS-11 space in payload b64"),
    pytest.param(parts(lambda p: f"{p[0]}.{p[1][:8]}\n{p[1][8:]}.{p[2]}"), SYNTAX, id="RS-11 newline in payload b64"),
]

# What all six rejected.
REJECTED_BY_ALL = [
    pytest.param(claimed(exp=True), C, id="RS-81 exp true"),
    pytest.param(timed(exp=-90), OLD, id="RS-81 exp -90s"),
    pytest.param(claimed(iss=ISS + "/"), ISSUER, id="RS-73 iss trailing slash"),
    pytest.param(claimed(iss=...), ISSUER, id="RS-79 iss missing"),
    pytest.param(claimed(iss=[ISS]), ISSUER, id="RS-79 iss list"),
    pytest.param(
        self_signed(by_attacker),
        SIG,
        id="RS-72 self-signed w/ jwk hdr, known kid",
    ),
    pytest.param(
        self_signed(functools.partial(by_unknown_key, -120)),
        KID,
        id="RS-72 self-signed w/ jwk hdr",
    ),
    pytest.param(headed(alg="rs256"), ALG, id="RS-71 alg lower rs256"),
    pytest.param(raw_header('{"typ":"at+jwt"}'), M, id="RS-71 alg missing"),
    pytest.param(raw_header('{"alg":"RS256","x":' + "9" * 5000 + "}"), M, id="RS-70 bigint 5000 digits hdr"),
    pytest.param(raw_header(b'{"alg":"RS256","kid":"\xff"}'), M, id="RS-70 invalid utf8 hdr"),
    pytest.param(with_nonascii, SYNTAX, id="RS-11 nonascii token"),
    pytest.param(literal("abc"), M, id="RS-17 abc"),
    pytest.param(literal(".."), M, id="RS-70 two dots"),
    pytest.param(parts(lambda p: ".".join([*p, "AAAA", "AAAA"])), M, id="RS-70 5 parts"),
    pytest.param(literal(""), SYNTAX, id="RS-11 empty"),
    pytest.param(parts(lambda p: ".".join(p)[:20] + "\n" + ".".join(p)[20:]), SYNTAX, id="RS-11 newline in token"),
]

# Decided by the token alone: no keys are fetched for these reasons (RS-73).
WITHOUT_KEYS: Final = {M, HEAD, ALG, TYP, ISSUER, SYNTAX}


@pytest.mark.parametrize("observed", [pytest.param(True, id="observed"), pytest.param(False, id="unobserved")])
@pytest.mark.parametrize(("build", "reason"), [*MATRIX, *REJECTED_BY_ALL])
async def test_every_token_has_its_verdict(
    issuer: Issuer, clock: Clock, build: Build, reason: Reason | None, observed: bool
) -> None:
    """The verdict on every row is the same with and without an observer."""
    app = RecordingApp()
    decisions: list[Decision] = []
    protected = protect(issuer, app, on_decision=[decisions.append] if observed else [])
    credential = build(issuer, clock.now)
    for _ in range(2):  # the second time from the cache, where there is one
        answer = await call(protected, headers=bearer(credential))
        if reason is None:
            assert (answer.status, answer.challenge) == (200, None)
        elif reason is SYNTAX:
            assert (answer.status, answer.challenge) == (400, chr_(MALFORMED))
            assert answer.json() == {"error": "invalid_request", "error_description": MALFORMED}
        else:
            description = EXPIRED if reason is OLD else INVALID
            assert (answer.status, answer.challenge) == (401, cht(description))
            assert answer.json() == {"error": "invalid_token", "error_description": description}
    if observed:
        assert [decision.reason for decision in decisions] == [reason, reason]
    assert app.calls == (2 if reason is None else 0)
    fetches = 2 if build is NEWER else 1  # a key may have been published since the first fetch
    assert dict(issuer.requests) == ({} if reason in WITHOUT_KEYS else {METADATA: 1, "/jwks": fetches})


async def test_the_app_receives_the_claims_of_an_accepted_token(issuer: Issuer, clock: Clock) -> None:
    """The accepted rows are not accepted by accident: the app receives the claims of the token."""
    app = RecordingApp()
    answer = await call(protect(issuer, app), headers=bearer(token(issuer, jti="j1")))
    assert answer.json() == good_claims(issuer, jti="j1")


@pytest.mark.requirement("RS-104")
async def test_only_the_resource_that_owns_the_path_counts(issuer: Issuer) -> None:
    """A token for `/a/mcp` is rejected on `/b/mcp`, cached or not, and the challenge names `/b/mcp`."""
    app = RecordingApp()
    a, b = "https://mcp.example.com/a/mcp", "https://mcp.example.com/b/mcp"
    auth = MCPAuth(
        [
            ResourceServerConfig(metadata=ResourceServerMetadata(resource=resource, authorization_servers=[ISS]))
            for resource in (a, b)
        ],
        http_client=issuer.http_client,
        clock=issuer.clock,
    )
    protected = auth.wrap(app)
    for_a = bearer(issuer.mint(a))
    challenge = (
        'Bearer error="invalid_token", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/b/mcp", '
        f'error_description="{INVALID}"'
    )
    for _ in range(2):
        assert (await call(protected, path="/a/mcp", headers=for_a)).status == 200
        refused = await call(protected, path="/b/mcp", headers=for_a)
        assert (refused.status, refused.challenge) == (401, challenge)
    assert app.calls == 2


@pytest.mark.requirement("RS-89")
async def test_a_cached_token_expires_at_its_time(issuer: Issuer, clock: Clock) -> None:
    """The cache never outlives `exp` (with the leeway), and a clock set back ends it too."""
    app = RecordingApp()
    protected = protect(issuer, app, clock=clock)
    start, headers = clock.now, bearer(token(issuer))
    verdicts: list[tuple[float, int, str | None]] = []
    for offset in (0, 299, 329, 330, 329, -31, 0):
        clock.now = start + offset
        answer = await call(protected, headers=headers)
        verdicts.append((offset, answer.status, answer.challenge))
    assert verdicts == [
        (0, 200, None),
        (299, 200, None),
        (329, 200, None),
        (330, 401, cht(EXPIRED)),
        (329, 200, None),
        (-31, 401, cht(INVALID)),
        (0, 200, None),
    ]


@pytest.mark.requirement("RS-75")
async def test_two_issuers_with_the_same_kid_keep_their_keys_apart(issuer: Issuer) -> None:
    """A kid identifies a key only within the key set of its issuer."""
    app = RecordingApp()
    other = Issuer("https://other.example.com", algorithms=(), clock=issuer.clock)
    kid = issuer.keys[0].kid
    other.keys = [attacker()]
    other_jwks = {"keys": [attacker().jwk | {"kid": kid}]}
    servers = [
        AuthServerConfig(issuer=issuer.url, jwks=issuer.jwks()),
        AuthServerConfig(issuer=other.url, jwks=other_jwks),
    ]
    protected = protect(issuer, app, authorization_servers=servers)
    verdicts = [
        (await call(protected, headers=bearer(token(signer, iss=named, header={"kid": kid})))).status
        for signer in (issuer, other)
        for named in (issuer.url, other.url)
    ]
    assert verdicts == [200, 401, 401, 200]
