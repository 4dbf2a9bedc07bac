"""Tokens of common providers: each passes with its documented configuration.

Under the strict profile, tokens that deviate from RFC 9068 fail. No test connects to a provider.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import PRM, PRM_PATH, Clock, R, RecordingApp, bearer, call, cht, protect
from provider_tokens import (
    ADFS,
    API,
    AUTH0,
    AUTH0_NAMESPACED,
    AUTH0_RBAC,
    AUTHENTIK,
    AUTHENTIK_GROUPS,
    CLERK,
    CLERK_OLD_GRANT,
    COGNITO,
    COGNITO_NO_AUD,
    DESCOPE,
    ENTRA_V1,
    ENTRA_V2,
    ENTRA_V2_APP,
    FUSIONAUTH,
    GOOGLE_BEFRIENDED,
    GOOGLE_ID_TOKEN,
    IDENTITY_SERVER_M2M,
    KEYCLOAK,
    KEYCLOAK_M2M,
    KEYCLOAK_ROLES,
    LOGTO,
    OKTA_ORG,
    PROVIDERS,
    REMOVED,
    SUPABASE,
    SUPABASE_HOOK,
    TENANT,
    WORKOS,
    ZITADEL,
    ZITADEL_ROLES,
    ProviderToken,
)

from asgi_mcp_auth import (
    AuthServerConfig,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    TokenExchange,
    providers,
)
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.config import DEFAULT_SUBJECT_CLAIMS
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.providers import PROVIDERS as TABLE
from asgi_mcp_auth.providers import Provider, by_slug, recognise
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

VARIANTS = (
    *(ENTRA_V2_APP, AUTH0_RBAC, AUTH0_NAMESPACED, CLERK_OLD_GRANT, SUPABASE_HOOK),
    *(KEYCLOAK_M2M, KEYCLOAK_ROLES, IDENTITY_SERVER_M2M, AUTHENTIK_GROUPS),
)
"""Tokens that differ from the row of their provider, or have none."""
ROWS = [pytest.param(param.values[0], id=str(param.id)) for param in PROVIDERS if param.values[0] not in VARIANTS]


@pytest.mark.parametrize("provider", ROWS)
def test_the_table_describes_the_tokens(provider: ProviderToken) -> None:
    row = by_slug(provider.slug)
    assert row is not None
    assert row in recognise(provider.issuer if row.matches(provider.issuer) else provider.claims["iss"])
    assert row in recognise(provider.claims.get("iss", provider.issuer))
    assert row.usable
    assert provider.typ in row.typ
    assert provider.alg == row.algorithm
    assert ("alg" not in provider.key_without) is row.key_alg
    assert row.client_id_claim is None or row.client_id_claim in provider.claims
    scopes = provider.claims.get(row.scope_claim or "")
    assert isinstance(scopes, list) is row.scope_list
    assert (scopes is None) is (row.scope_claim is None)
    needed = {name: value for name, value in provider.config.items() if name != "type"}
    assert {name for name in needed if name != "scope_claims"} == set(row.config) - {"scope_claims"}
    assert needed.get("profile") == row.config.get("profile")
    if row.discovery:
        issuer = parse_url(provider.issuer)
        assert issuer is not None
        inserted, *_, appended = discovery_urls(issuer, None)
        urls = {"oauth-inserted": inserted, "oidc-appended": appended}
        assert provider.found_at in [urls[location] for location in row.discovery]


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.slug) for row in TABLE],
)
def test_the_configuration_has_the_settings_of_each_row(row: Provider) -> None:
    AuthServerConfig(**row.config)
    ScopePolicy(**row.policy)
    TokenExchange(**row.exchange)


def test_each_usable_row_has_a_token() -> None:
    tested: list[Any] = [param.values[0] for param in ROWS]
    assert {row.slug for row in TABLE if row.usable} == {provider.slug for provider in tested}
    assert len({row.slug for row in TABLE}) == len(TABLE)


def row_of_the_readme(row: Provider) -> str:
    settings = [f"`{name}={json.dumps(value, ensure_ascii=False)}`" for name, value in row.config.items()]
    settings += [f"`{name}={json.dumps(value)}` (policy)" for name, value in row.policy.items()]
    settings += [f"`{name}={json.dumps(value)}` (exchange)" for name, value in row.exchange.items()]
    listed = "<br>".join(settings) or "none"
    issuers = "<br>".join(f"`{issuer}`" for issuer in row.issuers)
    return f"| {row.name} | {issuers} | {listed if row.usable else 'cannot be used'} | {row.advice} |"


def test_the_readme_has_the_table() -> None:
    readme = (Path(providers.__file__).parent / "README.md").read_text("utf-8")
    table = "\n".join(
        ["| provider | issuer | settings | advice |", "|---|---|---|---|", *map(row_of_the_readme, TABLE)]
    )
    assert table in readme, f"write this into the README:\n{table}"


def test_the_data_imports_nothing_of_the_package() -> None:
    """So that any module may import the data without a circle."""
    sources = "".join(path.read_text("utf-8") for path in Path(providers.__file__).parent.glob("*.py"))
    assert set(re.findall(r"(?:from|import) (asgi_mcp_auth[.\w]*)", sources)) == {
        "asgi_mcp_auth.providers._provider",
        "asgi_mcp_auth.providers._table",
    }


@pytest.mark.parametrize(
    ("issuer", "slugs"),
    [
        ("https://login.microsoftonline.com/6babcaad/v2.0", ["entra-v2"]),
        ("https://login.microsoftonline.com/6babcaad/v2.0/", []),
        ("https://login.microsoftonline.com/a/b/v2.0", []),
        ("https://sts.windows.net/6babcaad/", ["entra-v1"]),
        ("https://tenant.eu.auth0.com/", ["auth0", "auth0-rfc9068"]),
        ("https://tenant.eu.auth0.com", []),
        ("https://dev-1.okta.com/oauth2/aus1", ["okta"]),
        ("https://dev-1.okta.com", ["okta-org"]),
        ("https://accounts.google.com", ["google"]),
        ("https://clerk.example.com", ["clerk"]),
        ("https://id.example.com:8443/realms/main", ["keycloak"]),
        ("https://adfs.example.com/adfs", ["adfs"]),
        ("http://adfs.example.com/adfs/services/trust", ["adfs"]),
        ("https://id.example.com/application/o/notes/", ["authentik"]),
        ("https://notes.eu1.zitadel.cloud", ["zitadel"]),
        ("acme.com", ["fusionauth"]),
        ("https://auth.example.com", []),
        ("", []),
    ],
)
def test_an_issuer_is_recognised_by_its_shape(issuer: str, slugs: list[str]) -> None:
    assert [row.slug for row in recognise(issuer)] == slugs


def test_the_table_cannot_be_changed() -> None:
    row: Any = TABLE[0]
    with pytest.raises(AttributeError):
        row.slug = "mine"
    with pytest.raises(TypeError):
        row.config["profile"] = "no-aud"


def web(documents: Mapping[str, Any], asked: list[str]) -> Callable[[], httpx.AsyncClient]:
    """Return a client factory for these documents and 404 elsewhere; the requested URLs are appended to `asked`."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        document = documents.get(str(request.url))
        body = httpx.ByteStream(json.dumps(document).encode())  # unread, as from a network
        return httpx.Response(404 if document is None else 200, stream=body)

    return lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer))


@dataclass
class Trial:
    """A protected app with the decisions and fetches of its middleware."""

    provider: ProviderToken
    clock: Clock
    server: AuthServerConfig
    app: RecordingApp = field(default_factory=RecordingApp)
    decisions: list[Decision] = field(default_factory=list[Decision])
    asked: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        provider = self.provider
        metadata = {"issuer": provider.issuer, "jwks_uri": provider.jwks_uri}
        self.protected = protect(
            Issuer(provider.issuer, algorithms=()),
            self.app,
            clock=self.clock,
            authorization_servers=[self.server],
            required_scopes=provider.required,
            http_client=web({provider.found_at: metadata, provider.jwks_uri: provider.jwks()}, self.asked),
            on_decision=[self.decisions.append],
        )

    async def status(self, token: str) -> int:
        return (await call(self.protected, headers=bearer(token))).status

    async def reason(self, token: str) -> Reason | None:
        await self.status(token)
        return self.decisions[-1].reason


def static(provider: ProviderToken, clock: Clock, **changes: Any) -> Trial:
    """Return a trial with the provider's keys in the configuration."""
    return Trial(provider, clock, replace(provider.server, metadata_url=None, jwks=provider.jwks(), **changes))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_token_passes_with_the_documented_configuration(provider: ProviderToken, clock: Clock) -> None:
    trial = static(provider, clock)
    assert await trial.status(provider.token(clock)) == 200
    (decision,) = trial.decisions
    info = decision.auth_info
    assert info is not None
    assert (info.issuer, info.subject, info.client_id, info.scopes, info.resource) == (
        provider.claims.get("iss", provider.issuer),
        provider.subject or provider.claims["sub"],
        provider.client_id,
        provider.scopes,
        R,
    )
    assert getattr(info.principal, "is_client", False) is provider.is_client
    assert trial.asked == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_strict_profile_rejects_deviations_from_rfc_9068(provider: ProviderToken, clock: Clock) -> None:
    assert (
        await static(provider, clock, profile="at+jwt", subject_claims=DEFAULT_SUBJECT_CLAIMS).reason(
            provider.token(clock)
        )
        is provider.strict
    )


@pytest.mark.requirement("DC-1", "DC-13")
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_keys_are_found_where_the_provider_publishes_them(provider: ProviderToken, clock: Clock) -> None:
    """Metadata is probed for in MCP's order, then keys are fetched from its key set URL."""
    trial = Trial(provider, clock, provider.server)
    assert await trial.status(provider.token(clock)) == 200
    issuer = parse_url(provider.issuer)
    assert issuer is not None
    urls = [*discovery_urls(issuer, provider.config.get("type"))]
    probes = [provider.found_at] if "metadata_url" in provider.config else urls[: urls.index(provider.found_at) + 1]
    probes = [] if "jwks_uri" in provider.config else probes
    assert trial.asked == [*probes, provider.jwks_uri]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_token_for_another_audience_is_rejected(provider: ProviderToken, clock: Clock) -> None:
    token = provider.token(clock, aud="https://other.example.com/mcp")
    assert await static(provider, clock).reason(token) is Reason.WRONG_AUDIENCE


def plain(provider: ProviderToken) -> ProviderToken:
    """Return the token with a configuration of the issuer alone."""
    return replace(provider, config={})


# provider, changed claims, changed configuration, reason
CHANGED = [
    pytest.param(ENTRA_V2, {}, {"extra_audiences": []}, Reason.WRONG_AUDIENCE, id="Entra v2 without extra_audiences"),
    pytest.param(
        ENTRA_V2,
        {"iss": f"https://sts.windows.net/{TENANT}/"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="Entra v1 token where v2 is configured",
    ),
    pytest.param(
        ENTRA_V2,
        {"iss": "https://login.microsoftonline.com/another-tenant/v2.0"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="Entra, another tenant",
    ),
    pytest.param(ENTRA_V2, {"scp": "mcp.write"}, {}, Reason.INSUFFICIENT_SCOPE, id="Entra v2, another scope"),
    pytest.param(ENTRA_V2_APP, {}, {"scope_claims": ["scp"]}, Reason.INSUFFICIENT_SCOPE, id="Entra, roles not read"),
    pytest.param(
        AUTH0, {"iss": "https://tenant.eu.auth0.com"}, {}, Reason.UNKNOWN_ISSUER, id="Auth0 without its slash"
    ),
    pytest.param(
        AUTH0, {}, {"require_single_audience": True}, Reason.WRONG_AUDIENCE, id="RS-103 Auth0 with userinfo"
    ),
    pytest.param(AUTH0_RBAC, {}, {"scope_claims": ["scope"]}, Reason.INSUFFICIENT_SCOPE, id="Auth0, RBAC not read"),
    pytest.param(COGNITO, {"token_use": "id"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 Cognito ID token"),
    pytest.param(
        COGNITO_NO_AUD, {"token_use": "id"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 Cognito ID token, no-aud"
    ),
    pytest.param(COGNITO_NO_AUD, {"client_id": "c2"}, {}, Reason.WRONG_AUDIENCE, id="RS-91 Cognito, another client"),
    pytest.param(COGNITO_NO_AUD, {"scope": "openid"}, {}, Reason.WRONG_AUDIENCE, id="RS-91 Cognito, no own scope"),
    pytest.param(COGNITO_NO_AUD, {}, {"profile": "jwt"}, Reason.MISSING_CLAIM, id="Cognito, no-aud not configured"),
    pytest.param(COGNITO_NO_AUD, {"aud": R}, {}, None, id="RS-91 Cognito, resource binding switched on"),
    pytest.param(KEYCLOAK, {"aud": "account"}, {}, Reason.WRONG_AUDIENCE, id="Keycloak without an audience mapper"),
    pytest.param(KEYCLOAK, {"aud": REMOVED}, {}, Reason.MISSING_CLAIM, id="Keycloak without any aud"),
    pytest.param(KEYCLOAK, {"typ": "ID"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 Keycloak ID token"),
    pytest.param(KEYCLOAK, {"typ": "Refresh"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-90 Keycloak refresh token"),
    pytest.param(KEYCLOAK, {"typ": "DPoP"}, {}, None, id="Keycloak, an unknown typ claim"),
    pytest.param(
        WORKOS,
        {"iss": "https://api.workos.com/user_management/client_01H"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="WorkOS session token",
    ),
    pytest.param(DESCOPE, {"aud": "P2abc"}, {}, Reason.WRONG_AUDIENCE, id="Descope project audience"),
    pytest.param(CLERK, {"aud": REMOVED}, {}, Reason.MISSING_CLAIM, id="Clerk without Include Audience"),
    pytest.param(SUPABASE, {"client_id": "c2"}, {}, Reason.CLIENT_NOT_ALLOWED, id="Supabase, another client"),
    pytest.param(SUPABASE, {"client_id": REMOVED}, {}, Reason.CLIENT_NOT_ALLOWED, id="Supabase session token"),
    pytest.param(SUPABASE_HOOK, {"aud": "authenticated"}, {}, Reason.WRONG_AUDIENCE, id="Supabase, hook configured"),
    pytest.param(
        LOGTO, {}, {"algorithms": ["RS256"]}, Reason.ALGORITHM_NOT_ALLOWED, id="RS-71 Logto, ES384 not listed"
    ),
    pytest.param(plain(ADFS), {}, {}, Reason.UNKNOWN_ISSUER, id="CK-7 AD FS without token_issuers"),
    pytest.param(ADFS, {"iss": ADFS.claims["iss"] + "/"}, {}, Reason.UNKNOWN_ISSUER, id="CK-7 AD FS, a slash more"),
    pytest.param(ADFS, {"iss": "https://adfs.example.com/adfs/services/trust"}, {}, Reason.UNKNOWN_ISSUER, id="CK-7 AD FS, https"),
    pytest.param(plain(FUSIONAUTH), {}, {}, Reason.UNKNOWN_ISSUER, id="CK-7 FusionAuth without token_issuers"),
    pytest.param(FUSIONAUTH, {"iss": "ACME.com"}, {}, Reason.UNKNOWN_ISSUER, id="CK-7 FusionAuth, another case"),
    pytest.param(plain(IDENTITY_SERVER_M2M), {}, {}, Reason.MISSING_CLAIM, id="CK-7 IdentityServer without subject_claims"),
    pytest.param(IDENTITY_SERVER_M2M, {"client_id": REMOVED}, {}, Reason.MISSING_CLAIM, id="CK-7 IdentityServer, no subject claim at all"),
    pytest.param(plain(KEYCLOAK_M2M), {}, {}, Reason.MISSING_CLAIM, id="CK-7 Keycloak without subject_claims"),
    pytest.param(plain(KEYCLOAK_ROLES), {}, {}, Reason.INSUFFICIENT_SCOPE, id="CK-7 Keycloak, nested roles not read"),
    pytest.param(KEYCLOAK_ROLES, {"realm_access": ["mcp:read"]}, {}, Reason.INSUFFICIENT_SCOPE, id="CK-7 Keycloak, no object at the path"),
    pytest.param(plain(AUTHENTIK), {"aud": R}, {}, Reason.WRONG_TOKEN_KIND, id="CK-7 authentik without accept_nonce"),
    pytest.param(AUTHENTIK, {"at_hash": "x"}, {}, Reason.WRONG_TOKEN_KIND, id="CK-7 authentik ID token"),
    pytest.param(ZITADEL, {ZITADEL_ROLES: {}}, {}, Reason.INSUFFICIENT_SCOPE, id="CK-7 ZITADEL, no roles"),
    pytest.param(ZITADEL, {}, {"scope_claims": ["scope"]}, Reason.INSUFFICIENT_SCOPE, id="CK-7 ZITADEL, roles not read"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "claims", "config", "expected"), CHANGED)
async def test_changed_tokens_and_configurations_are_rejected_for_the_right_reason(
    provider: ProviderToken, claims: dict[str, Any], config: dict[str, Any], expected: Reason | None, clock: Clock
) -> None:
    assert await static(provider, clock, **config).reason(provider.token(clock, **claims)) is expected


NEVER = [
    pytest.param(OKTA_ORG, {}, Reason.TYP_NOT_ACCEPTED, id="Okta org AS"),
    pytest.param(GOOGLE_ID_TOKEN, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 Google ID token"),
    pytest.param(GOOGLE_BEFRIENDED, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 Google ID token, its client id accepted"),
    pytest.param(
        GOOGLE_BEFRIENDED, {"at_hash": REMOVED}, Reason.WRONG_TOKEN_KIND, id="RS-84 Google ID token without at_hash"
    ),
    pytest.param(
        GOOGLE_ID_TOKEN,
        {"at_hash": REMOVED, "nonce": REMOVED},
        Reason.WRONG_AUDIENCE,
        id="Google ID token without at_hash and nonce",
    ),
    pytest.param(
        GOOGLE_BEFRIENDED,
        {"at_hash": REMOVED, "nonce": REMOVED},
        Reason.INSUFFICIENT_SCOPE,
        id="Google ID token without any mark has no scope",
    ),
    pytest.param(
        replace(CLERK, config={}, typ="JWT"),
        {"aud": REMOVED, "client_id": REMOVED, "scope": REMOVED, "azp": "https://app.example.com", "sid": "sess_1"},
        Reason.MISSING_CLAIM,
        id="Clerk session JWT",
    ),
    pytest.param(
        replace(CLERK, config={}, typ="JWT"),
        {"scope": REMOVED, "nonce": "n", "at_hash": "x"},
        Reason.WRONG_TOKEN_KIND,
        id="RS-84 Clerk ID token",
    ),
]


@pytest.mark.parametrize(("provider", "changes", "expected"), NEVER)
async def test_other_kinds_of_tokens_are_rejected(
    provider: ProviderToken, changes: dict[str, Any], expected: Reason, clock: Clock
) -> None:
    trial = static(provider, clock)
    assert await trial.reason(provider.token(clock, **changes)) is expected
    assert trial.app.calls == 0


async def test_opaque_tokens_and_shared_secrets_are_rejected(clock: Clock) -> None:
    """Auth0 and Logto without an audience, Clerk with the JWT switch off, Google access tokens, Supabase legacy."""
    trial = static(SUPABASE_HOOK, clock)
    legacy = replace(SUPABASE_HOOK, header={"alg": "HS256"}).token(clock)
    opaque = ["oat_2xTbAbC", "ya29.a0AfH6SMBx", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..eA.eA.eA", "vlWx_-9"]
    for credential in [*opaque, legacy]:
        answer = await call(trial.protected, headers=bearer(credential))
        assert (answer.status, answer.challenge) == (401, cht())
    assert [decision.reason for decision in trial.decisions] == [Reason.MALFORMED_TOKEN] * 4 + [
        Reason.ALGORITHM_NOT_ALLOWED
    ]


async def test_entra_with_both_token_versions(clock: Clock) -> None:
    """E: the API registration sets the token version, so both issuers are configured."""
    app = RecordingApp()
    servers = [replace(provider.server, metadata_url=None, jwks=provider.jwks()) for provider in (ENTRA_V2, ENTRA_V1)]
    protected = protect(
        Issuer(ENTRA_V2.issuer, algorithms=()),
        app,
        clock=clock,
        authorization_servers=servers,
        required_scopes=["mcp.read"],
    )
    for provider in (ENTRA_V2, ENTRA_V1):
        assert (await call(protected, headers=bearer(provider.token(clock)))).status == 200
    assert app.calls == 2


async def test_the_entra_round_trip(clock: Clock) -> None:
    """E: clients must request `api://…/x`; their tokens have the scope `x`."""
    app = RecordingApp()
    wire = f"api://{API}"
    auth = MCPAuth(
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=R, authorization_servers=[replace(ENTRA_V2.server, jwks=ENTRA_V2.jwks())]
            ),
            policy=ScopePolicy(
                default=["mcp.read"],
                paths={"/mcp/export": ["mcp.export"]},
                request_scope_names={"mcp.read": f"{wire}/mcp.read", "mcp.export": f"{wire}/mcp.export"},
            ),
        ),
        clock=clock,
    )
    protected = auth.wrap(app)

    first = await call(protected)
    assert (first.status, first.challenge) == (401, f'Bearer scope="{wire}/mcp.read", resource_metadata="{PRM}"')

    metadata = await call(protected, "GET", PRM_PATH)
    assert metadata.json() == {
        "resource": R,
        "authorization_servers": [ENTRA_V2.issuer],
        "scopes_supported": [f"{wire}/mcp.read"],
        "bearer_methods_supported": ["header"],
    }

    assert (await call(protected, headers=bearer(ENTRA_V2.token(clock)))).status == 200
    assert app.scopes[-1]["state"]["mcp_auth"].scopes == ("mcp.read",)

    both = ENTRA_V2.token(clock, scp="mcp.read mcp.export")
    assert (await call(protected, path="/mcp/export", headers=bearer(both))).status == 200

    challenge = (
        f'Bearer error="insufficient_scope", scope="{wire}/mcp.read {wire}/mcp.export", resource_metadata="{PRM}", '
        'error_description="Additional scope required"'
    )
    step_up = await call(protected, path="/mcp/export", headers=bearer(ENTRA_V2.token(clock)))
    assert (step_up.status, step_up.challenge) == (
        403,
        challenge,
    )

    # The wire name is a name to request, not a scope to carry.
    wired = ENTRA_V2.token(clock, scp=f"{wire}/mcp.read")
    assert (await call(protected, headers=bearer(wired))).status == 403
    assert app.calls == 2
