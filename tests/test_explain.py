"""`explain`: the decision is the middleware's, and the steps are in the verifier's order."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    ClientCertificates,
    MCPAuth,
    Reason,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth._telemetry.reporting import Reporter
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.auth import protection_of
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.doctor import Explanation, explain
from asgi_mcp_auth.doctor._hints import PROVIDER_HINTS, SETTINGS
from asgi_mcp_auth.doctor._steps import STEPS
from asgi_mcp_auth.errors import ConfigurationError, InvalidToken
from asgi_mcp_auth.middleware import ProtectedApp
from asgi_mcp_auth.providers import PROVIDERS, Provider
from asgi_mcp_auth.testing import ClientCertificate, Issuer, SigningKey

pytestmark = pytest.mark.anyio

UNKNOWN_KEY = SigningKey("RS256", "unknown")
SHORT = SigningKey("ES384", "es384")


def is_revoked(info: AuthInfo) -> bool:
    return info.claims.get("jti") == "revoked"


def configured(issuer: Issuer, clock: Clock, **options: Any) -> MCPAuth:
    server = AuthServerConfig(issuer=ISS, algorithms=["RS256", "ES256"], allowed_clients=["c1"])
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[server])
    arguments: dict[str, Any] = {"http_client": issuer.http_client, "clock": clock, "is_revoked": is_revoked, **options}
    return MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])), **arguments)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault of a token, and the step that rejects the token."""

    step: str
    reason: Reason
    header: dict[str, Any] = field(default_factory=dict[str, Any])
    claims: dict[str, Any] = field(default_factory=dict[str, Any])
    key: SigningKey | None = None

    def excludes(self, other: Fault) -> bool:
        return bool({*self.claims} & {*other.claims}) or bool({*self.header} & {*other.header})


FUTURE = 1_900_000_000

# in the verifier's order
FAULTS = [
    Fault(step="compact JWS", reason=Reason.UNSUPPORTED_HEADER, header={"crit": ["x"]}),
    Fault(step="issuer", reason=Reason.UNKNOWN_ISSUER, claims={"iss": f"{ISS}/"}),
    Fault(step="algorithm", reason=Reason.ALGORITHM_NOT_ALLOWED, header={"alg": "ES384"}),
    Fault(step="type", reason=Reason.TYP_NOT_ACCEPTED, header={"typ": "dpop+jwt"}),
    Fault(step="key", reason=Reason.UNKNOWN_KID, header={"kid": "x"}, claims={"iat": 1_000_000_000}),
    Fault(step="signature", reason=Reason.BAD_SIGNATURE, key=UNKNOWN_KEY),
    Fault(step="expiry", reason=Reason.TOKEN_EXPIRED, claims={"exp": 1_700_000_000}),
    Fault(step="expiry", reason=Reason.MISSING_CLAIM, claims={"exp": ...}),
    Fault(step="not before", reason=Reason.NOT_YET_VALID, claims={"nbf": FUTURE}),
    Fault(step="not before", reason=Reason.MALFORMED_CLAIM, claims={"nbf": "soon"}),
    Fault(step="kind", reason=Reason.WRONG_TOKEN_KIND, claims={"at_hash": "x"}),
    Fault(step="binding", reason=Reason.SENDER_CONSTRAINED, claims={"cnf": {"jkt": "x"}}),
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


async def refused_by_middleware(auth: MCPAuth, text: str) -> Reason | None:
    """Return the reason with which the middleware refuses the token, or None."""
    decisions: list[Decision] = []
    protection = protection_of(auth)
    reporter = Reporter([decisions.append], protection.refusal_log, None, protection.hooks, protection.clock)
    protection = replace(protection, reporter=reporter)
    await call(ProtectedApp(RecordingApp(), protection), headers=bearer(text))
    return decisions[-1].reason


def outcomes(explanation: Explanation) -> dict[str, str]:
    return {step.name: step.outcome for step in explanation.steps}


def assert_valid(explanation: Explanation, text: str) -> None:
    """Assert the guarantees of every explanation."""
    shown = json.dumps(explanation.to_dict()) + repr(explanation)
    parts = text.split(".")
    assert text not in shown
    assert len(parts[-1]) < 16 or parts[-1] not in shown
    names = [step.name for step in explanation.steps]
    assert names == [step.name for step in STEPS if step.name in names]
    results = [step.outcome for step in explanation.steps]
    passed = results.index("fail") if "fail" in results else len(results)
    after = len(results) - passed - 1
    assert results == ["pass"] * passed + ["fail"] * (after >= 0) + ["not reached"] * after
    assert explanation.accepted is ("fail" not in results)
    assert (explanation.reason is None) is explanation.accepted


async def test_a_good_token(issuer: Issuer, clock: Clock) -> None:
    text = token(issuer)
    explanation = await explain(configured(issuer, clock), text)
    assert_valid(explanation, text)
    assert explanation.accepted
    assert (explanation.status, explanation.reason, explanation.hint) == (200, None, "")
    assert explanation.claims is not None
    assert explanation.claims["sub"] == "alice"
    assert explanation.header == {"alg": "RS256", "kid": issuer.keys[0].kid, "typ": "at+jwt"}
    steps = {step.name: step for step in explanation.steps}
    assert set(steps) == {step.name for step in STEPS} - {"tenant", "certificate", "proof"}
    assert (steps["audience"].expected, steps["audience"].found) == (R, R)
    assert steps["expiry"].found == "exp 300 s from now"
    assert steps["issuer"].expected == ISS


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, id=f"{fault.step}: {fault.reason} {' '.join(fault.claims)}") for fault in FAULTS]
)
async def test_one_fault(issuer: Issuer, clock: Clock, fault: Fault) -> None:
    text = token(issuer, fault)
    explanation = await explain(configured(issuer, clock), text)
    assert_valid(explanation, text)
    assert outcomes(explanation)[fault.step] == "fail"
    assert explanation.reason == fault.reason
    assert explanation.reason == await refused_by_middleware(configured(issuer, clock), text)
    assert explanation.hint


PAIRS = [
    (first, second)
    for first, second in itertools.combinations(FAULTS, 2)
    if not first.excludes(second) and first.step != second.step
]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_of_two_faults_the_earlier_step_fails(issuer: Issuer, clock: Clock, anyio_backend: str) -> None:
    """The order of the steps is the verifier's: every pair of faults that one token can have."""
    auth = configured(issuer, clock)
    assert len(PAIRS) > 150
    for first, second in PAIRS:
        text = token(issuer, first, second)
        explanation = await explain(auth, text)
        assert_valid(explanation, text)
        result = (explanation.reason, outcomes(explanation)[first.step])
        assert result == (first.reason, "fail"), f"{first.step} before {second.step}"


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
async def test_a_text_that_is_no_jwt(issuer: Issuer, clock: Clock, text: str, looks_like: str, reason: Reason) -> None:
    explanation = await explain(configured(issuer, clock), text)
    assert (explanation.looks_like, explanation.reason) == (looks_like, reason)
    assert explanation.header is None
    assert explanation.claims is None
    assert len(text) < 4 or text not in json.dumps(explanation.to_dict())


async def test_an_outage_is_a_503(issuer: Issuer, clock: Clock) -> None:
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
    assert_valid(explanation, text)
    assert explanation.reason == reason
    failed = [name for name, outcome in outcomes(explanation).items() if outcome == "fail"]
    assert failed == ([] if step is None else [step])


class OpaqueVerifier:
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
async def test_a_custom_verifier(issuer: Issuer, clock: Clock, text: str, expected: list[str]) -> None:
    auth = configured(issuer, clock, verifier=OpaqueVerifier(), is_revoked=None)
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
        with pytest.raises(ConfigurationError, match="has 2 resources"):
            await explain(auth, text, named)
    with pytest.raises(ConfigurationError, match="is not one"):
        await explain(auth, issuer.mint(R), "https://x.example")


# issuer, header typ, changed claims, reason, part of the hint
HINTS = [
    pytest.param("https://login.microsoftonline.com/t/v2.0", "JWT", {"aud": "guid"}, Reason.WRONG_AUDIENCE, "extra_audiences", id="Entra"),
    pytest.param("https://dev-1.okta.com/oauth2/aus1", None, {"aud": "api"}, Reason.WRONG_AUDIENCE, "audience to the resource", id="Okta"),
    pytest.param("https://tenant.eu.auth0.com/", "JWT", {"aud": "x"}, Reason.WRONG_AUDIENCE, "Compatibility Profile", id="Auth0"),
    pytest.param("https://cognito-idp.eu.amazonaws.com/p", None, {"aud": ...}, Reason.MISSING_CLAIM, "resource binding", id="Cognito"),
    pytest.param("https://id.example.com/realms/r", "JWT", {"aud": "account"}, Reason.WRONG_AUDIENCE, "audience mapper", id="D4 Keycloak aud"),
    pytest.param("https://id.example.com/realms/r", "JWT", {"sub": ...}, Reason.MISSING_CLAIM, "client scope `basic`", id="D4 Keycloak sub"),
    pytest.param("https://id.example.com/realms/r", "JWT", {"scope": ""}, Reason.INSUFFICIENT_SCOPE, "Create a client scope", id="D4 Keycloak scope"),
    pytest.param("https://r.supabase.co/auth/v1", "JWT", {"scope": ...}, Reason.INSUFFICIENT_SCOPE, "access token hook", id="D4 Supabase scope"),
    pytest.param("https://auth.example.org", "JWT", {"aud": "x"}, Reason.WRONG_AUDIENCE, "for another audience", id="unknown provider"),
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
    auth = MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"])), clock=clock)
    members: dict[str, Any] = {"scope": "mcp:read", **claims}
    explanation = await explain(auth, issuer.mint(R, typ=typ, **members))
    assert explanation.reason == reason
    assert said in explanation.hint
    assert ("audience mapper" in explanation.hint) is (said == "audience mapper")


AGENTIC = "https://api.descope.com/v1/apps/agentic/P2abcdefghijklmnopqrstuvwxyz/MS1"
PROJECT = "https://api.descope.com/v1/apps/P2abcdefghijklmnopqrstuvwxyz"

# iss of the token, trusted issuer, part of the hint
UNKNOWN = [
    pytest.param(f"{ISS}/", ISS, "differs only by the trailing slash", id="a slash"),
    pytest.param("https://other.example.com", ISS, "add it to the authorization servers", id="another issuer"),
    pytest.param(PROJECT, AGENTIC, f'AuthServerConfig(issuer="{PROJECT}", extra_audiences=["{PROJECT.rpartition("/")[2]}"])', id="D4 Descope project"),
    pytest.param(PROJECT.rpartition("/")[2], AGENTIC, "clients sign in at the configured issuer.", id="D4 Descope project id"),
    pytest.param("https://api.workos.com/user_management/client_1", "https://a.authkit.app", "session token", id="WorkOS session"),
    pytest.param("http://adfs.example.com/adfs/services/trust", ISS, "list the value of `iss` in token_issuers", id="ADFS"),
    pytest.param("accounts", ISS, "is not an issuer URL", id="no URL"),
    pytest.param("https://other.example.com/?a=b", ISS, "is not an issuer URL", id="a query"),
    pytest.param("https://accounts.google.com", ISS, "Use another authorization server.", id="Google"),
    pytest.param(1, ISS, "is not an issuer URL", id="a number"),
]  # fmt: skip


@pytest.mark.parametrize(("iss", "trusted", "said"), UNKNOWN)
async def test_the_hint_for_an_unknown_issuer_names_only_issuers_that_can_be_configured(
    clock: Clock, iss: Any, trusted: str, said: str
) -> None:
    issuer = Issuer(trusted, clock=clock)
    server = AuthServerConfig(issuer=trusted, jwks=issuer.jwks())
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[server])
    auth = MCPAuth(ResourceServerConfig(metadata=metadata), clock=clock)
    explanation = await explain(auth, issuer.mint(R, iss=iss))
    assert explanation.reason == Reason.UNKNOWN_ISSUER
    assert said in explanation.hint
    if "add it" in explanation.hint or "AuthServerConfig(" in explanation.hint:
        added = AuthServerConfig(issuer=iss)
        MCPAuth(ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[added])))


# option of the issuer, header, claims, reason, part of the hint, part that must be absent
ONLY_ACCEPTED: list[Any] = [
    pytest.param({"algorithms": ["ES256"]}, {"alg": "RS256"}, {}, "Add the algorithm to `algorithms`", "sign with", id="RS256"),
    pytest.param({}, {"alg": "HS256"}, {}, "Have the provider sign with one of", "Add the", id="HS256"),
    pytest.param({"profile": "at+jwt"}, {"typ": "JWT"}, {}, 'profile="jwt"', "no profile", id="typ JWT"),
    pytest.param({"profile": "at+jwt"}, {"typ": "dpop+jwt"}, {}, "no profile accepts this typ", 'profile="jwt"', id="typ of a proof"),
    pytest.param({}, {"typ": "dpop+jwt"}, {}, "no profile accepts this typ", 'profile="jwt"', id="typ of a proof, profile jwt"),
    pytest.param({}, {}, {"nbf": 100}, "set `leeway`", "never", id="clocks 100 s apart"),
    pytest.param({}, {}, {"nbf": 400}, "Compare the clocks", "leeway", id="clocks 400 s apart"),
    pytest.param({"require_single_audience": True}, {}, {"aud": [R, "x"]}, "`require_single_audience` is set", "extra_audiences", id="two audiences"),
    pytest.param({"allowed_clients": ["c1"]}, {}, {"client_id": "c2"}, "add its id to `allowed_clients`", "remove", id="another client"),
    pytest.param({"profile": "no-aud", "allowed_clients": ["c1"]}, {}, {"client_id": ...}, "names no client", "remove", id="no client, profile no-aud"),
    pytest.param({"allowed_clients": ["c1"]}, {}, {"client_id": ...}, "names no client", "add its id", id="no client"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "header", "claims", "said", "unsaid"), ONLY_ACCEPTED)
async def test_a_hint_advises_no_setting_that_the_configuration_rejects(  # noqa: PLR0917 - a row of the table
    issuer: Issuer,
    clock: Clock,
    options: dict[str, Any],
    header: dict[str, Any],
    claims: dict[str, Any],
    said: str,
    unsaid: str,
) -> None:
    server = AuthServerConfig(issuer=ISS, **options)
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[server])
    policy = ScopePolicy(default=[f"{R}/read"] if options.get("profile") == "no-aud" else [])
    config = ResourceServerConfig(metadata=metadata, policy=policy)
    auth = MCPAuth(config, http_client=issuer.http_client, clock=clock)
    changed = {name: value + int(clock.now) if name == "nbf" else value for name, value in claims.items()}
    if "nbf" in changed:
        changed["exp"] = int(clock.now) + 1000
    explanation = await explain(
        auth, token(issuer, Fault(step="", reason=Reason.REVOKED, header=header, claims=changed))
    )
    assert said in explanation.hint
    assert unsaid not in explanation.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(st.sampled_from(("alg", "typ", "kid", "crit", "x")), JSON, max_size=3)
CLAIMS = st.dictionaries(
    st.sampled_from(
        ("iss", "aud", "exp", "nbf", "iat", "sub", "client_id", "azp", "scope", "scp", "cnf", "typ", "jti")
    ),
    JSON,
    max_size=4,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HEADERS, CLAIMS)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_every_token_gets_an_explanation(
    issuer: Issuer, clock: Clock, anyio_backend: str, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    text = token(issuer, Fault(step="", reason=Reason.REVOKED, header=header, claims=claims))
    explanation = await explain(configured(issuer, clock), text)
    assert_valid(explanation, text)
    assert explanation.accepted or explanation.hint


@pytest.mark.parametrize("row", [pytest.param(row, id=row.slug) for row in PROVIDERS if row.usable])
def test_the_settings_of_every_provider_are_accepted(row: Provider) -> None:
    def filled(settings: Mapping[str, Any]) -> dict[str, Any]:
        text = json.dumps(dict(settings)).replace("<resource>", R)
        plain: dict[str, Any] = json.loads(re.sub(r"<[\w ]+>", "x", text))
        return plain

    issuer = re.sub(r"\{\w+\}", "x", row.issuers[0])
    if "://" not in issuer:  # tokens name a value that is no URL, see `token_issuers`
        issuer = "https://auth.example.com"
    metadata = ResourceServerMetadata(
        resource=R, authorization_servers=[AuthServerConfig(issuer=issuer, **filled(row.config))]
    )
    MCPAuth(ResourceServerConfig(metadata=metadata, policy=ScopePolicy(**filled(row.policy))))


def test_the_tables_of_hints_name_settings_and_providers_that_exist() -> None:
    existing = {field.name for cls in (AuthServerConfig, ScopePolicy) for field in dataclasses.fields(cls)}
    for names in SETTINGS.values():
        assert names <= existing
    used = {name for row in PROVIDERS for name in (*row.config, *row.policy)}
    assert used <= {name for names in SETTINGS.values() for name in names}
    assert {entry.slug for entry in PROVIDER_HINTS} <= {row.slug for row in PROVIDERS}


async def test_an_explanation_is_escaped_and_bounded(issuer: Issuer, clock: Clock) -> None:
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


@pytest.mark.requirement("RS-131", "RS-135", "DP-7")
@pytest.mark.parametrize(
    ("cnf", "proof", "step", "reason"),
    [
        pytest.param(True, {}, None, None, id="a proof"),
        pytest.param(True, None, "proof", Reason.INVALID_DPOP_PROOF, id="no proof"),
        pytest.param(True, {"htm": "GET"}, "proof", Reason.INVALID_DPOP_PROOF, id="a proof for another method"),
        pytest.param(False, {}, "proof", Reason.DPOP_KEY_MISMATCH, id="a proof with an unbound token"),
        pytest.param(False, None, None, None, id="an unbound token"),
    ],
)
async def test_a_token_that_is_bound_to_a_key(
    cnf: bool, proof: dict[str, Any] | None, step: str | None, reason: Reason | None
) -> None:
    clock = Clock()
    issuer = Issuer(ISS, algorithms=("ES256",), clock=clock)
    bound: dict[str, Any] = {"cnf": {"jkt": issuer.proof_key.thumbprint}} if cnf else {}
    token = issuer.mint(R, scope="mcp:read", **bound)
    sent = None if proof is None else issuer.prove("POST", R, token, **proof)
    explanation = await explain(configured(issuer, clock, dpop="allowed"), token, proof=sent)
    assert (explanation.reason, explanation.accepted) == (reason, reason is None)
    failed = [result.name for result in explanation.steps if result.outcome == "fail"]
    assert failed == ([] if step is None else [step])
    assert ("proof" in [result.name for result in explanation.steps]) is (cnf or proof is not None)
    off = await explain(configured(issuer, clock), token)
    assert off.reason == (Reason.SENDER_CONSTRAINED if cnf else None)


@pytest.mark.requirement("RS-150", "RS-151")
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(ClientCertificates(), id="the TLS extension"),
        pytest.param(ClientCertificates(header="Client-Cert", proxies=["10.0.0.1"]), id="Client-Cert"),
        pytest.param(ClientCertificates(header="X-Forwarded-Client-Cert", proxies=["10.0.0.1"]), id="Envoy"),
        pytest.param(ClientCertificates(header="X-Cert", format="escaped-pem", proxies=["10.0.0.1"]), id="nginx"),
    ],
)
async def test_a_token_that_is_bound_to_a_certificate(source: ClientCertificates) -> None:
    clock, own = Clock(), ClientCertificate()
    issuer = Issuer(ISS, algorithms=("ES256",), clock=clock)
    token = issuer.mint(R, scope="mcp:read", cnf={"x5t#S256": own.thumbprint})
    auth = configured(issuer, clock, client_certificates=source)
    for certificate, reason in (
        (own.pem, None),
        (ClientCertificate().pem, Reason.CLIENT_CERTIFICATE_MISMATCH),
        (None, Reason.CLIENT_CERTIFICATE_MISSING),
    ):
        explanation = await explain(auth, token, certificate=certificate)
        assert explanation.reason == reason
        failed = [result.name for result in explanation.steps if result.outcome == "fail"]
        assert failed == ([] if reason is None else ["certificate"])
        assert own.thumbprint not in explanation.hint
    unbound = await explain(auth, issuer.mint(R, scope="mcp:read"), certificate=own.pem)
    assert unbound.accepted
    assert "certificate" not in [result.name for result in unbound.steps]


def test_a_certificate_is_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ClientCertificate()
    issuer, file, pem = Issuer(ISS, algorithms=("ES256",)), tmp_path / "auth.toml", tmp_path / "client.pem"
    file.write_text(
        f'resource = "{R}"\n[[authorization_servers]]\nissuer = "{ISS}"\njwks = {{ keys = [{{ '
        + ", ".join(f'{name} = "{value}"' for name, value in issuer.keys[0].jwk.items())
        + ' }] }\n[client_certificates]\nheader = "Client-Cert"\nproxies = ["10.0.0.1"]\n'
    )
    pem.write_text(own.pem)
    token = issuer.mint(R, cnf={"x5t#S256": own.thumbprint})
    for more, status in (([], 1), (["--certificate", str(pem)], 0)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(token.encode())))
        assert main(["explain", "--config", str(file), *more]) == status
