"""Explaining tokens: the verdict is the middleware's, and the steps are in the verifier's order."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    MCPAuth,
    Reason,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.doctor import Explanation, explain
from asgi_mcp_auth.doctor.steps import STEPS
from asgi_mcp_auth.errors import ConfigurationError, InvalidToken
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

STRANGER = SigningKey("RS256", "stranger")
SHORT = SigningKey("ES384", "es384")


def is_revoked(info: AuthInfo) -> bool:
    return info.claims.get("jti") == "revoked"


def configured(issuer: Issuer, clock: Clock, **options: Any) -> MCPAuth:
    server = AuthServerConfig(issuer=ISS, algorithms=["RS256", "ES256"], allowed_clients=["c1"])
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[server])
    settings: dict[str, Any] = {"http_client": issuer.http_client, "clock": clock, "is_revoked": is_revoked, **options}
    return MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])), **settings)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing wrong with a token, and the step that says so."""

    step: str
    reason: Reason
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    key: SigningKey | None = None

    def excludes(self, other: Fault) -> bool:
        return bool({*self.claims} & {*other.claims}) or bool({*self.header} & {*other.header})


FUTURE = 1_900_000_000

# In the verifier's order.
FAULTS = [
    Fault(step="compact JWS", reason=Reason.UNSUPPORTED_HEADER, header={"crit": ["x"]}),
    Fault(step="issuer", reason=Reason.UNKNOWN_ISSUER, claims={"iss": f"{ISS}/"}),
    Fault(step="algorithm", reason=Reason.ALGORITHM_NOT_ALLOWED, header={"alg": "ES384"}),
    Fault(step="type", reason=Reason.TYP_NOT_ACCEPTED, header={"typ": "dpop+jwt"}),
    Fault(step="key", reason=Reason.UNKNOWN_KID, header={"kid": "x"}, claims={"iat": 1_000_000_000}),
    Fault(step="signature", reason=Reason.BAD_SIGNATURE, key=STRANGER),
    Fault(step="expiry", reason=Reason.TOKEN_EXPIRED, claims={"exp": 1_700_000_000}),
    Fault(step="expiry", reason=Reason.MISSING_CLAIM, claims={"exp": ...}),
    Fault(step="not before", reason=Reason.NOT_YET_VALID, claims={"nbf": FUTURE}),
    Fault(step="not before", reason=Reason.MALFORMED_CLAIM, claims={"nbf": "soon"}),
    Fault(step="kind", reason=Reason.WRONG_TOKEN_KIND, claims={"at_hash": "x"}),
    Fault(step="bearer", reason=Reason.SENDER_CONSTRAINED, claims={"cnf": {"jkt": "x"}}),
    Fault(step="subject", reason=Reason.MISSING_CLAIM, claims={"sub": ...}),
    Fault(step="client id", reason=Reason.MALFORMED_CLAIM, claims={"client_id": 1}),
    Fault(step="scope claims", reason=Reason.MALFORMED_CLAIM, claims={"scope": 1}),
    Fault(step="scope claims", reason=Reason.MALFORMED_CLAIM, claims={"scp": {}}),
    Fault(step="audience", reason=Reason.WRONG_AUDIENCE, claims={"aud": f"{R}/"}),
    Fault(step="audience", reason=Reason.MISSING_CLAIM, claims={"aud": ...}),
    Fault(step="audience", reason=Reason.MALFORMED_CLAIM, claims={"aud": [1]}),
    Fault(step="allowed clients", reason=Reason.CLIENT_NOT_ALLOWED, claims={"client_id": "c2"}),
    Fault(step="revocation", reason=Reason.REVOKED, claims={"jti": "revoked"}),
    Fault(step="baseline scopes", reason=Reason.INSUFFICIENT_SCOPE, claims={"scope": "mcp:write"}),
]


def token(issuer: Issuer, *faults: Fault) -> str:
    header: dict[str, Any] = {"alg": "RS256", "kid": issuer.keys[0].kid, "typ": "at+jwt"}
    claims: dict[str, Any] = {"scope": "mcp:read"}
    key = issuer.keys[0]
    for fault in faults:
        header, claims = header | fault.header, claims | fault.claims
        key = fault.key or key
    audience = claims.pop("aud", R)
    return issuer.sign(header, issuer.claims(None, **{"aud": audience, **claims}), key=key)


async def verdict(auth: MCPAuth, text: str) -> Reason | None:
    """The middleware's."""
    decisions: list[Decision] = []
    auth.observers = (decisions.append,)
    await call(auth.wrap(RecordingApp()), headers=bearer(text))
    return decisions[-1].reason


def outcomes(explanation: Explanation) -> dict[str, str]:
    return {step.name: step.outcome for step in explanation.steps}


def hold(explanation: Explanation, text: str) -> None:
    """What is promised of every explanation."""
    shown = json.dumps(explanation.to_dict()) + repr(explanation)
    parts = text.split(".")
    assert text not in shown
    assert len(parts[-1]) < 16 or parts[-1] not in shown
    names = [step.name for step in explanation.steps]
    assert names == [step.name for step in STEPS if step.name in names]
    told = [step.outcome for step in explanation.steps]
    reached = told.index("fail") if "fail" in told else len(told)
    assert told == ["pass"] * reached + ["fail"] * (reached < len(told)) + ["not reached"] * (len(told) - reached - 1)
    assert explanation.accepted is ("fail" not in told)
    assert (explanation.reason is None) is explanation.accepted


async def test_a_good_token(issuer: Issuer, clock: Clock) -> None:
    text = token(issuer)
    explanation = await explain(configured(issuer, clock), text)
    hold(explanation, text)
    assert explanation.accepted
    assert (explanation.status, explanation.reason, explanation.hint) == (200, None, "")
    assert explanation.claims is not None
    assert explanation.claims["sub"] == "alice"
    assert explanation.header == {"alg": "RS256", "kid": issuer.keys[0].kid, "typ": "at+jwt"}
    steps = {step.name: step for step in explanation.steps}
    assert set(steps) == {step.name for step in STEPS} - {"tenant"}
    assert (steps["audience"].expected, steps["audience"].found) == (R, R)
    assert steps["expiry"].found == "exp 300 s from now"
    assert steps["issuer"].expected == ISS


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=f"{fault.step}: {fault.reason} {' '.join(fault.claims)}") for fault in FAULTS]
)
async def test_one_fault(issuer: Issuer, clock: Clock, fault: Fault) -> None:
    text = token(issuer, fault)
    explanation = await explain(configured(issuer, clock), text)
    hold(explanation, text)
    assert outcomes(explanation)[fault.step] == "fail"
    assert explanation.reason == fault.reason
    assert explanation.reason == await verdict(configured(issuer, clock), text)
    assert explanation.hint


PAIRS = [
    (first, second)
    for first, second in itertools.combinations(FAULTS, 2)
    if not first.excludes(second) and first.step != second.step
]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_of_two_faults_the_earlier_step_speaks(issuer: Issuer, clock: Clock, anyio_backend: str) -> None:
    """So the order of the steps is the verifier's own: each pair of faults that one token can have."""
    auth = configured(issuer, clock)
    assert len(PAIRS) > 150
    for first, second in PAIRS:
        text = token(issuer, first, second)
        explanation = await explain(auth, text)
        hold(explanation, text)
        told = (explanation.reason, outcomes(explanation)[first.step])
        assert told == (first.reason, "fail"), f"{first.step} before {second.step}"


# description, token, what it looks like
NO_TOKENS = [
    pytest.param("oat_2xTbAbC", "an opaque token of 11 characters", Reason.MALFORMED_TOKEN, id="opaque"),
    pytest.param("eyJhbGciOiJkaXIifQ.a.b.c.d", "an encrypted JWT (JWE) of 26 characters", Reason.MALFORMED_TOKEN, id="JWE"),
    pytest.param("a.b", "3 characters in 2 parts, which cannot be read as a signed JWT", Reason.MALFORMED_TOKEN, id="two parts"),
    pytest.param("a b", "an opaque token of 3 characters", Reason.MALFORMED_AUTHORIZATION, id="with a space"),
    pytest.param("\u00e9\ud800", "an opaque token of 2 characters", Reason.MALFORMED_AUTHORIZATION, id="no ASCII"),
    pytest.param("x" * 20_000, "an opaque token of 20000 characters", Reason.MALFORMED_AUTHORIZATION, id="RS-16 too long"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "looks_like", "reason"), NO_TOKENS)
async def test_what_is_no_token(issuer: Issuer, clock: Clock, text: str, looks_like: str, reason: Reason) -> None:
    explanation = await explain(configured(issuer, clock), text)
    assert (explanation.looks_like, explanation.reason) == (looks_like, reason)
    assert explanation.header is None
    assert explanation.claims is None
    assert len(text) < 4 or text not in json.dumps(explanation.to_dict())


async def test_an_outage_is_no_verdict(issuer: Issuer, clock: Clock) -> None:
    issuer.fail(status=500)
    explanation = await explain(configured(issuer, clock), token(issuer))
    assert (explanation.status, explanation.reason) == (503, Reason.KEYS_UNAVAILABLE)
    assert outcomes(explanation)["key"] == "fail"
    assert "doctor" in explanation.hint


async def test_a_hook_that_fails(issuer: Issuer, clock: Clock) -> None:
    def fail(info: AuthInfo) -> bool:
        raise RuntimeError(info.token)

    explanation = await explain(configured(issuer, clock, is_revoked=fail), token(issuer))
    assert (explanation.status, explanation.reason) == (503, Reason.HOOK_FAILED)
    assert outcomes(explanation)["revocation"] == "fail"


@pytest.mark.parametrize(
    ("claims", "members", "step", "reason"),
    [
        pytest.param({}, {}, None, None, id="DC-15 good"),
        pytest.param({"tid": "t2"}, {}, "tenant", Reason.UNKNOWN_ISSUER, id="DC-15 another tenant"),
        pytest.param({"iss": "https://id.example.com/t3"}, {}, "issuer", Reason.UNKNOWN_ISSUER, id="DC-15 unlisted"),
        pytest.param({}, {"issuer": "https://id.example.com/t2"}, "tenant", Reason.KEY_MISMATCH, id="DC-15 another's key"),
    ],
)  # fmt: skip
async def test_tenants(clock: Clock, claims: Any, members: Any, step: str | None, reason: Reason | None) -> None:
    key = SigningKey("ES256")
    server = AuthServerConfig(
        issuer="https://id.example.com/{tenant}", tenants=["t1", "t2"], jwks={"keys": [key.jwk | members]}
    )
    auth = MCPAuth(
        ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[server])), clock=clock
    )
    issuer = Issuer("https://id.example.com/t1", algorithms=(), clock=clock)
    text = issuer.sign({"alg": "ES256", "kid": key.kid}, issuer.claims(R, **{"tid": "t1", **claims}), key=key)
    explanation = await explain(auth, text)
    hold(explanation, text)
    assert explanation.reason == reason
    failed = [name for name, outcome in outcomes(explanation).items() if outcome == "fail"]
    assert failed == ([] if step is None else [step])


class OfTheUser:
    """A verifier that accepts one opaque token."""

    async def verify(self, credential: Any, request: Any) -> Any:
        if credential.token == b"opaque":
            info = AuthInfo(issuer=ISS, subject="alice", client_id="c1", scopes=("mcp:read",), audience=R, claims={})
            return Verified(info)
        return InvalidToken(Reason.WRONG_AUDIENCE, expected=R, found="another")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("opaque", ["pass", "pass", "pass"], id="accepted"),
        pytest.param("other", ["pass", "fail", "not reached"], id="refused"),
        pytest.param("a b", ["fail", "not reached", "not reached"], id="no token"),
    ],
)
async def test_a_verifier_of_the_users(issuer: Issuer, clock: Clock, text: str, expected: list[str]) -> None:
    auth = configured(issuer, clock, verifier=OfTheUser(), is_revoked=None)
    explanation = await explain(auth, text)
    assert outcomes(explanation) == dict(zip(("credential", "your verifier", "baseline scopes"), expected, strict=True))


async def test_which_resource(issuer: Issuer, clock: Clock) -> None:
    other = "https://mcp.example.com/other"
    configs = [
        ResourceServerConfig(metadata=ResourceServerMetadata(resource=url, authorization_servers=[ISS]))
        for url in (R, other)
    ]
    auth = MCPAuth(configs, http_client=issuer.http_client, clock=clock)
    assert (await explain(auth, issuer.mint(other))).resource == other
    assert (await explain(auth, issuer.mint(other), R)).reason == Reason.WRONG_AUDIENCE
    for text, named in ((issuer.mint("https://x.example"), None), ("opaque", None), (issuer.mint([R, other]), None)):
        with pytest.raises(ConfigurationError, match="There are 2 resources"):
            await explain(auth, text, named)
    with pytest.raises(ConfigurationError, match="is none of them"):
        await explain(auth, issuer.mint(R), "https://x.example")


# issuer, header typ, changed claims, reason, what the hint has to say
HINTS = [
    pytest.param("https://login.microsoftonline.com/t/v2.0", "JWT", {"aud": "guid"}, Reason.WRONG_AUDIENCE, "extra_audiences", id="E Entra"),
    pytest.param("https://dev-1.okta.com/oauth2/aus1", None, {"aud": "api"}, Reason.WRONG_AUDIENCE, "audience to the resource", id="E Okta"),
    pytest.param("https://tenant.eu.auth0.com/", "JWT", {"aud": "x"}, Reason.WRONG_AUDIENCE, "Compatibility Profile", id="E Auth0"),
    pytest.param("https://cognito-idp.eu.amazonaws.com/p", None, {"aud": ...}, Reason.MISSING_CLAIM, "resource binding", id="E Cognito"),
    pytest.param("https://auth.example.org", "JWT", {"aud": "x"}, Reason.WRONG_AUDIENCE, "somebody else", id="nobody we know"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "typ", "claims", "reason", "said"), HINTS)
async def test_the_hint_knows_the_provider(  # noqa: PLR0917 - a row of the table
    clock: Clock, url: str, typ: str | None, claims: dict[str, Any], reason: Reason, said: str
) -> None:
    issuer = Issuer(url, algorithms=(), clock=clock)
    issuer.keys = [SHORT]
    metadata = ResourceServerMetadata(
        resource=R, authorization_servers=[AuthServerConfig(issuer=url, jwks=issuer.jwks())]
    )
    auth = MCPAuth(ResourceServerConfig(metadata=metadata), clock=clock)
    explanation = await explain(auth, issuer.mint(R, typ=typ, **claims))
    assert explanation.reason == reason
    assert said in explanation.hint


async def test_a_slash_is_told(issuer: Issuer, clock: Clock) -> None:
    explanation = await explain(configured(issuer, clock), token(issuer, FAULTS[1]))
    assert "Only the slash at the end differs." in explanation.hint


async def test_what_it_says_is_escaped_and_bounded(issuer: Issuer, clock: Clock) -> None:
    text = token(issuer, Fault(step="", reason=Reason.REVOKED, claims={"aud": "\x1b[2J" + "x" * 5000}))
    explanation = await explain(configured(issuer, clock), text)
    (failed,) = [step for step in explanation.steps if step.outcome == "fail"]
    assert failed.found is not None
    assert failed.found.isprintable()
    assert len(failed.found) <= 300


async def test_an_explanation_cannot_be_changed(issuer: Issuer, clock: Clock) -> None:
    explanation: Any = await explain(configured(issuer, clock), token(issuer))
    with pytest.raises(AttributeError):
        explanation.accepted = False
