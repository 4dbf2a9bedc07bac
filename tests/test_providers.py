"""Tokens as the common providers issue them (requirements part E): each passes with its documented configuration, and
fails under the strict profile where it deviates from RFC 9068. Nothing here talks to a provider."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import pytest
from harness import PRM, PRM_PATH, Clock, R, RecordingApp, bearer, call, cht, protect

from asgi_mcp_auth import (
    AuthServerConfig,
    AuthServerType,
    MCPAuth,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
)
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.providers import PROVIDERS as TABLE
from asgi_mcp_auth.providers import by_slug, recognise
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

OAUTH: Final = "/.well-known/oauth-authorization-server"
OIDC: Final = "/.well-known/openid-configuration"

TENANT: Final = "6babcaad-604b-40ac-a9d7-9fd97c0b779f"
API: Final = "2f8f2f4e-4b0f-4e0c-9c75-0d1f3a1b2c3d"
CLIENT: Final = "d3590ed6-52b3-4102-aeff-aad2292ab01c"

REMOVED: Final[Any] = ...


@functools.cache
def signing_key(alg: str) -> SigningKey:
    return SigningKey(alg, f"{alg}-key")


@functools.cache
def encryption_key() -> SigningKey:
    return SigningKey("RS256", "enc-key")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One row of part E: the token, the key set, and the configuration that is documented for it."""

    slug: str
    issuer: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    typ: str | None
    header: Mapping[str, Any] = field(default_factory=dict[str, Any])
    claims: Mapping[str, Any]
    alg: str = "RS256"
    key_without: Sequence[str] = ()
    key_members: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more_keys: Sequence[Mapping[str, Any]] = ()
    jwks_uri: str
    found_at: str
    required: Sequence[str] = ("mcp:read",)
    client_id: str | None = "c1"
    scopes: tuple[str, ...] = ("mcp:read",)
    strict: Reason | None = Reason.TYP_NOT_ACCEPTED
    """What profile `at+jwt` says; None where the provider conforms to RFC 9068."""

    @property
    def server(self) -> AuthServerConfig:
        return AuthServerConfig(issuer=self.issuer, **self.config)

    def jwks(self) -> dict[str, Any]:
        members = {**signing_key(self.alg).jwk, **self.key_members}
        return {"keys": [*self.more_keys, {k: v for k, v in members.items() if k not in self.key_without}]}

    def token(self, clock: Clock, **changes: Any) -> str:
        """A token of this provider: its own claims and the times, nothing of ours."""
        now = int(clock.now)
        claims = {"iss": self.issuer, "iat": now, "exp": now + 300, **self.claims, **changes}
        header = {"alg": self.alg, "kid": signing_key(self.alg).kid, **self.header}
        if self.typ is not None:
            header["typ"] = self.typ
        whole = {name: value for name, value in claims.items() if value is not REMOVED}
        return Issuer(self.issuer, algorithms=()).sign(header, whole, key=signing_key(self.alg))


ENTRA_V2: Final = Provider(
    slug="entra-v2",
    issuer=f"https://login.microsoftonline.com/{TENANT}/v2.0",
    config={"extra_audiences": [API]},
    typ="JWT",
    claims={
        "aud": API,
        "azp": CLIENT,
        "azpacr": "0",
        "name": "Alice",
        "oid": "00000000-0000-0000-66f3-3332eca7ea81",
        "scp": "mcp.read",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "tid": TENANT,
        "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "2.0",
    },
    key_without=("alg",),
    key_members={"x5c": ["MIIC"], "x5t": "x5t-value", "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"},
    jwks_uri=f"https://login.microsoftonline.com/{TENANT}/discovery/v2.0/keys",
    found_at=f"https://login.microsoftonline.com/{TENANT}/v2.0{OIDC}",
    required=("mcp.read",),
    client_id=CLIENT,
    scopes=("mcp.read",),
)

ENTRA_V2_APP: Final = replace(
    ENTRA_V2,
    config={"extra_audiences": [API], "scope_claims": ["scp", "roles"]},
    claims={name: value for name, value in ENTRA_V2.claims.items() if name != "scp"}
    | {"roles": ["Mcp.Read.All"], "idtyp": "app"},
    required=("Mcp.Read.All",),
    scopes=("Mcp.Read.All",),
)

ENTRA_V1: Final = Provider(
    slug="entra-v1",
    issuer=f"https://sts.windows.net/{TENANT}/",
    config={
        "extra_audiences": [f"api://{API}"],
        "metadata_url": f"https://login.microsoftonline.com/{TENANT}{OIDC}",
    },
    typ="JWT",
    header={"x5t": "x5t-value"},
    claims={
        "aud": f"api://{API}",
        "appid": CLIENT,
        "appidacr": "0",
        "scp": "mcp.read",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "tid": TENANT,
        "unique_name": "alice@example.com",
        "ver": "1.0",
    },
    key_without=("alg",),
    key_members={"x5c": ["MIIC"], "x5t": "x5t-value"},
    jwks_uri="https://login.microsoftonline.com/common/discovery/keys",
    found_at=f"https://login.microsoftonline.com/{TENANT}{OIDC}",
    required=("mcp.read",),
    client_id=CLIENT,
    scopes=("mcp.read",),
)

AUTH0: Final = Provider(
    slug="auth0",
    issuer="https://tenant.eu.auth0.com/",
    typ="JWT",
    claims={
        "sub": "auth0|alice",
        "aud": [R, "https://tenant.eu.auth0.com/userinfo"],
        "scope": "openid profile mcp:read",
        "azp": "c1",
        "permissions": ["notes:write"],
    },
    key_members={"x5c": ["MIIC"], "x5t": "x5t-value"},
    jwks_uri="https://tenant.eu.auth0.com/.well-known/jwks.json",
    found_at=f"https://tenant.eu.auth0.com{OAUTH}",
    scopes=("openid", "profile", "mcp:read"),
)

AUTH0_RBAC: Final = replace(
    AUTH0,
    config={"scope_claims": ["scope", "permissions"]},
    required=("mcp:read", "notes:write"),
    scopes=("openid", "profile", "mcp:read", "notes:write"),
)

AUTH0_RFC9068: Final = replace(
    AUTH0,
    slug="auth0-rfc9068",
    config={"profile": "at+jwt"},
    typ="at+jwt",
    claims={
        "sub": "auth0|alice",
        "aud": [R, "https://tenant.eu.auth0.com/userinfo"],
        "scope": "openid profile mcp:read",
        "client_id": "c1",
        "jti": "UgIsrkaBhdVmAH6obcbxCg",
    },
    strict=None,
)

OKTA: Final = Provider(
    slug="okta",
    issuer="https://dev-1.okta.com/oauth2/aus1",
    config={"type": AuthServerType.OIDC},
    typ=None,
    claims={
        "ver": 1,
        "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
        "aud": R,
        "sub": "alice@example.com",
        "cid": "c1",
        "uid": "00uid4BxXw6I6TV4m0g3",
        "scp": ["openid", "mcp:read"],
    },
    jwks_uri="https://dev-1.okta.com/oauth2/aus1/v1/keys",
    found_at=f"https://dev-1.okta.com/oauth2/aus1{OIDC}",
    scopes=("openid", "mcp:read"),
)

COGNITO_POOL: Final = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc123"
COGNITO: Final = Provider(
    slug="cognito",
    issuer=COGNITO_POOL,
    typ=None,
    claims={
        "sub": "aaaaaaaa-bbbb-cccc-dddd-example",
        "aud": R,
        "client_id": "c1",
        "token_use": "access",
        "scope": "openid notes/read",
        "auth_time": 1_799_999_000,
        "jti": "aaaaaaaa-bbbb-cccc-dddd-example",
        "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-example",
        "username": "alice",
        "version": 2,
    },
    jwks_uri=f"{COGNITO_POOL}/.well-known/jwks.json",
    found_at=f"{COGNITO_POOL}{OIDC}",
    required=("notes/read",),
    scopes=("openid", "notes/read"),
)

COGNITO_NO_AUD: Final = replace(
    COGNITO,
    slug="cognito-no-aud",
    config={"profile": "no-aud", "allowed_clients": ["c1"]},
    claims={name: value for name, value in COGNITO.claims.items() if name != "aud"} | {"scope": f"openid {R}/read"},
    required=(f"{R}/read",),
    scopes=("openid", f"{R}/read"),
)

KEYCLOAK: Final = Provider(
    slug="keycloak",
    issuer="https://id.example.com/realms/main",
    typ="JWT",
    claims={
        "jti": "onrtac:4b2a7d5e",
        "aud": [R, "account"],
        "sub": "f8b1a1de-0b0d-4b0d-8a84-alice",
        "typ": "Bearer",
        "azp": "c1",
        "sid": "3b0d",
        "acr": "1",
        "realm_access": {"roles": ["offline_access"]},
        "resource_access": {"account": {"roles": ["view-profile"]}},
        "scope": "openid email mcp:read",
        "email_verified": False,
    },
    more_keys=[encryption_key().jwk | {"use": "enc", "alg": "RSA-OAEP"}],
    jwks_uri="https://id.example.com/realms/main/protocol/openid-connect/certs",
    found_at=f"https://id.example.com/realms/main{OIDC}",
    scopes=("openid", "email", "mcp:read"),
)

WORKOS: Final = Provider(
    slug="workos",
    issuer="https://calm-star-12.authkit.app",
    typ=None,
    claims={
        "sub": "user_01H",
        "aud": R,
        "client_id": "c1",
        "sid": "session_01H",
        "jti": "01H",
        "scope": "openid mcp:read",
        "permissions": ["x"],
    },
    jwks_uri="https://calm-star-12.authkit.app/oauth2/jwks",
    found_at=f"https://calm-star-12.authkit.app{OAUTH}",
    scopes=("openid", "mcp:read"),
)

DESCOPE: Final = Provider(
    slug="descope",
    issuer="https://api.descope.com/v1/apps/agentic/P2abc/MS3def",
    typ="JWT",
    claims={"sub": "U2alice", "aud": R, "azp": "c1", "scope": "mcp:read", "amr": ["email"]},
    jwks_uri="https://api.descope.com/P2abc/.well-known/jwks.json",
    found_at=f"https://api.descope.com/v1/apps/agentic/P2abc/MS3def{OIDC}",
)

DESCOPE_PROJECT: Final = replace(
    DESCOPE,
    slug="descope-project",
    issuer="https://api.descope.com/v1/apps/P2abc",
    config={"extra_audiences": ["P2abc"]},
    claims={**DESCOPE.claims, "aud": "P2abc"},
    found_at=f"https://api.descope.com/v1/apps/P2abc{OIDC}",
)

LOGTO: Final = Provider(
    slug="logto",
    issuer="https://tenant.logto.app/oidc",
    config={"profile": "at+jwt"},
    typ="at+jwt",
    alg="ES384",
    claims={"jti": "m2xT0", "sub": "alice", "aud": R, "client_id": "c1", "scope": "mcp:read"},
    jwks_uri="https://tenant.logto.app/oidc/jwks",
    found_at=f"https://tenant.logto.app/oidc{OIDC}",
    strict=None,
)

CLERK: Final = Provider(
    slug="clerk",
    issuer="https://clerk.example.com",
    config={"profile": "at+jwt"},
    typ="at+jwt",
    claims={
        "jti": "oat_2xTb",
        "sub": "user_2alice",
        "aud": R,
        "client_id": "c1",
        "scope": "openid mcp:read",
        "nbf": 1_799_999_990,
    },
    jwks_uri="https://clerk.example.com/.well-known/jwks.json",
    found_at=f"https://clerk.example.com{OAUTH}",
    scopes=("openid", "mcp:read"),
    strict=None,
)

CLERK_OLD_GRANT: Final = replace(
    CLERK,
    config={"profile": "no-aud", "allowed_clients": ["c1"]},
    claims={name: value for name, value in CLERK.claims.items() if name != "aud"} | {"scope": f"openid {R}/read"},
    required=(f"{R}/read",),
    scopes=("openid", f"{R}/read"),
    strict=Reason.MISSING_CLAIM,
)

SUPABASE: Final = Provider(
    slug="supabase",
    issuer="https://abcdefghij.supabase.co/auth/v1",
    config={"type": AuthServerType.OAUTH, "extra_audiences": ["authenticated"], "allowed_clients": ["c1"]},
    typ="JWT",
    alg="ES256",
    claims={
        "sub": "alice",
        "aud": "authenticated",
        "role": "authenticated",
        "client_id": "c1",
        "email": "alice@example.com",
        "aal": "aal1",
        "amr": [{"method": "password", "timestamp": 1_799_999_000}],
        "session_id": "s1",
    },
    key_members={"key_ops": ["verify"], "ext": True},
    jwks_uri="https://abcdefghij.supabase.co/auth/v1/.well-known/jwks.json",
    found_at=f"https://abcdefghij.supabase.co{OAUTH}/auth/v1",
    required=(),
    scopes=(),
)

SUPABASE_HOOK: Final = replace(
    SUPABASE, config={"type": AuthServerType.OAUTH}, claims={**SUPABASE.claims, "aud": R, "scope": "mcp:read"},
    required=("mcp:read",), scopes=("mcp:read",),
)  # fmt: skip

PROVIDERS = [
    pytest.param(ENTRA_V2, id="E Entra v2"),
    pytest.param(ENTRA_V2_APP, id="E Entra v2 app-only"),
    pytest.param(ENTRA_V1, id="E Entra v1"),
    pytest.param(AUTH0, id="E Auth0"),
    pytest.param(AUTH0_RBAC, id="E Auth0 RBAC"),
    pytest.param(AUTH0_RFC9068, id="E Auth0 RFC 9068 dialect"),
    pytest.param(OKTA, id="E Okta custom AS"),
    pytest.param(COGNITO, id="E Cognito with resource binding"),
    pytest.param(COGNITO_NO_AUD, id="E RS-91 Cognito without resource binding"),
    pytest.param(KEYCLOAK, id="E DC-11 Keycloak"),
    pytest.param(WORKOS, id="E WorkOS AuthKit"),
    pytest.param(DESCOPE, id="E DC-13 Descope agentic"),
    pytest.param(DESCOPE_PROJECT, id="E RS-102 Descope project"),
    pytest.param(LOGTO, id="E Logto"),
    pytest.param(CLERK, id="E Clerk"),
    pytest.param(CLERK_OLD_GRANT, id="E RS-91 Clerk, older grant"),
    pytest.param(SUPABASE, id="E Supabase"),
    pytest.param(SUPABASE_HOOK, id="E Supabase with a token hook"),
]


ROWS = [
    pytest.param(param.values[0], id=str(param.id))
    for param in PROVIDERS
    if param.values[0] not in (ENTRA_V2_APP, AUTH0_RBAC, CLERK_OLD_GRANT, SUPABASE_HOOK)
]


@pytest.mark.parametrize("provider", ROWS)
def test_the_table_of_providers_says_what_the_tokens_here_look_like(provider: Provider) -> None:
    row = by_slug(provider.slug)
    assert row is not None
    assert row in recognise(provider.issuer)
    assert row.usable
    assert provider.typ in row.typ
    assert provider.alg == row.algorithm
    assert ("alg" not in provider.key_without) is row.key_alg
    assert row.client_id_claim in provider.claims
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
        places = {"oauth-inserted": inserted, "oidc-appended": appended}
        assert provider.found_at in [places[place] for place in row.discovery]
    AuthServerConfig(**row.config)
    ScopePolicy(**row.policy)


def test_every_row_has_a_token_here_or_is_of_no_use() -> None:
    tested: list[Any] = [param.values[0] for param in ROWS]
    assert {row.slug for row in TABLE if row.usable} == {provider.slug for provider in tested}
    assert len({row.slug for row in TABLE}) == len(TABLE)


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
    """The part of the web that a provider publishes: these documents, 404 elsewhere; remembers what was asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        document = documents.get(str(request.url))
        body = httpx.ByteStream(json.dumps(document).encode())  # unread, as from a network
        return httpx.Response(404 if document is None else 200, stream=body)

    return lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer))


@dataclass
class Trial:
    """A protected app, what its middleware decided, and what it fetched."""

    provider: Provider
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


def static(provider: Provider, clock: Clock, **changes: Any) -> Trial:
    """With the provider's keys in the configuration."""
    return Trial(provider, clock, replace(provider.server, metadata_url=None, jwks=provider.jwks(), **changes))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_token_passes_with_the_documented_configuration(provider: Provider, clock: Clock) -> None:
    trial = static(provider, clock)
    assert await trial.status(provider.token(clock)) == 200
    (decision,) = trial.decisions
    info = decision.auth_info
    assert info is not None
    assert (info.issuer, info.subject, info.client_id, info.scopes, info.resource) == (
        provider.issuer,
        provider.claims["sub"],
        provider.client_id,
        provider.scopes,
        R,
    )
    assert trial.asked == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_strict_profile_refuses_what_deviates_from_rfc_9068(provider: Provider, clock: Clock) -> None:
    assert await static(provider, clock, profile="at+jwt").reason(provider.token(clock)) is provider.strict


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_keys_are_found_where_the_provider_publishes_them(provider: Provider, clock: Clock) -> None:
    """DC-1, DC-13: the probe that succeeds, in MCP's order, then the documented key set URL."""
    trial = Trial(provider, clock, provider.server)
    assert await trial.status(provider.token(clock)) == 200
    issuer = parse_url(provider.issuer)
    assert issuer is not None
    places = [*discovery_urls(issuer, provider.config.get("type"))]
    probes = [provider.found_at] if "metadata_url" in provider.config else places[: places.index(provider.found_at) + 1]
    assert trial.asked == [*probes, provider.jwks_uri]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_token_for_somebody_else_is_refused(provider: Provider, clock: Clock) -> None:
    token = provider.token(clock, aud="https://other.example.com/mcp")
    assert await static(provider, clock).reason(token) is Reason.WRONG_AUDIENCE


# provider, changed claims, changed configuration, verdict
CHANGED = [
    pytest.param(ENTRA_V2, {}, {"extra_audiences": []}, Reason.WRONG_AUDIENCE, id="E Entra v2 without extra_audiences"),
    pytest.param(
        ENTRA_V2,
        {"iss": f"https://sts.windows.net/{TENANT}/"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="E Entra v1 token where v2 is configured",
    ),
    pytest.param(
        ENTRA_V2,
        {"iss": "https://login.microsoftonline.com/another-tenant/v2.0"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="E Entra, another tenant",
    ),
    pytest.param(ENTRA_V2, {"scp": "mcp.write"}, {}, Reason.INSUFFICIENT_SCOPE, id="E Entra v2, another scope"),
    pytest.param(ENTRA_V2_APP, {}, {"scope_claims": ["scp"]}, Reason.INSUFFICIENT_SCOPE, id="E Entra, roles not read"),
    pytest.param(
        AUTH0, {"iss": "https://tenant.eu.auth0.com"}, {}, Reason.UNKNOWN_ISSUER, id="E Auth0 without its slash"
    ),
    pytest.param(
        AUTH0, {}, {"require_single_audience": True}, Reason.WRONG_AUDIENCE, id="RS-103 E Auth0 with userinfo"
    ),
    pytest.param(AUTH0_RBAC, {}, {"scope_claims": ["scope"]}, Reason.INSUFFICIENT_SCOPE, id="E Auth0, RBAC not read"),
    pytest.param(COGNITO, {"token_use": "id"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Cognito ID token"),
    pytest.param(
        COGNITO_NO_AUD, {"token_use": "id"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Cognito ID token, no-aud"
    ),
    pytest.param(COGNITO_NO_AUD, {"client_id": "c2"}, {}, Reason.WRONG_AUDIENCE, id="RS-91 E Cognito, another client"),
    pytest.param(COGNITO_NO_AUD, {"scope": "openid"}, {}, Reason.WRONG_AUDIENCE, id="RS-91 E Cognito, no own scope"),
    pytest.param(COGNITO_NO_AUD, {}, {"profile": "jwt"}, Reason.MISSING_CLAIM, id="E Cognito, no-aud not configured"),
    pytest.param(COGNITO_NO_AUD, {"aud": R}, {}, None, id="RS-91 E Cognito, resource binding switched on"),
    pytest.param(KEYCLOAK, {"aud": "account"}, {}, Reason.WRONG_AUDIENCE, id="E Keycloak without an audience mapper"),
    pytest.param(KEYCLOAK, {"aud": REMOVED}, {}, Reason.MISSING_CLAIM, id="E Keycloak without any aud"),
    pytest.param(KEYCLOAK, {"typ": "ID"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Keycloak ID token"),
    pytest.param(KEYCLOAK, {"typ": "Refresh"}, {}, Reason.WRONG_TOKEN_KIND, id="RS-90 E Keycloak refresh token"),
    pytest.param(KEYCLOAK, {"typ": "DPoP"}, {}, None, id="E Keycloak, a typ claim we do not know"),
    pytest.param(
        WORKOS,
        {"iss": "https://api.workos.com/user_management/client_01H"},
        {},
        Reason.UNKNOWN_ISSUER,
        id="E WorkOS session token",
    ),
    pytest.param(DESCOPE, {"aud": "P2abc"}, {}, Reason.WRONG_AUDIENCE, id="E Descope project audience"),
    pytest.param(CLERK, {"aud": REMOVED}, {}, Reason.MISSING_CLAIM, id="E Clerk without Include Audience"),
    pytest.param(SUPABASE, {"client_id": "c2"}, {}, Reason.CLIENT_NOT_ALLOWED, id="E Supabase, another client"),
    pytest.param(SUPABASE, {"client_id": REMOVED}, {}, Reason.CLIENT_NOT_ALLOWED, id="E Supabase session token"),
    pytest.param(SUPABASE_HOOK, {"aud": "authenticated"}, {}, Reason.WRONG_AUDIENCE, id="E Supabase, hook configured"),
    pytest.param(
        LOGTO, {}, {"algorithms": ["RS256"]}, Reason.ALGORITHM_NOT_ALLOWED, id="RS-71 E Logto, ES384 not listed"
    ),
]


@pytest.mark.parametrize(("provider", "claims", "config", "expected"), CHANGED)
async def test_a_step_beside_the_documented_row(
    provider: Provider, claims: dict[str, Any], config: dict[str, Any], expected: Reason | None, clock: Clock
) -> None:
    assert await static(provider, clock, **config).reason(provider.token(clock, **claims)) is expected


OKTA_ORG: Final = replace(
    OKTA,
    slug="okta-org",
    issuer="https://dev-1.okta.com",
    config={"extra_audiences": ["https://dev-1.okta.com"]},
    typ="application/okta-internal-at+jwt",
    claims={**OKTA.claims, "aud": "https://dev-1.okta.com"},
)

GOOGLE_ID_TOKEN: Final = Provider(
    slug="google",
    issuer="https://accounts.google.com",
    typ="JWT",
    claims={
        "azp": "1234.apps.googleusercontent.com",
        "aud": "1234.apps.googleusercontent.com",
        "sub": "110169484474386276334",
        "email": "alice@example.com",
        "email_verified": True,
        "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q",
        "nonce": "0394852-3190485-2490358",
    },
    jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
    found_at=f"https://accounts.google.com{OIDC}",
)
GOOGLE_BEFRIENDED: Final = replace(GOOGLE_ID_TOKEN, config={"extra_audiences": ["1234.apps.googleusercontent.com"]})

NEVER = [
    pytest.param(OKTA_ORG, {}, Reason.TYP_NOT_ACCEPTED, id="E Okta org AS"),
    pytest.param(GOOGLE_ID_TOKEN, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Google ID token"),
    pytest.param(GOOGLE_BEFRIENDED, {}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Google ID token, its client id accepted"),
    pytest.param(
        GOOGLE_BEFRIENDED, {"at_hash": REMOVED}, Reason.WRONG_TOKEN_KIND, id="RS-84 E Google ID token without at_hash"
    ),
    pytest.param(
        GOOGLE_ID_TOKEN,
        {"at_hash": REMOVED, "nonce": REMOVED},
        Reason.WRONG_AUDIENCE,
        id="E Google ID token without at_hash and nonce",
    ),
    pytest.param(
        GOOGLE_BEFRIENDED,
        {"at_hash": REMOVED, "nonce": REMOVED},
        Reason.INSUFFICIENT_SCOPE,
        id="E Google ID token without any mark has no scope",
    ),
    pytest.param(
        replace(CLERK, config={}, typ="JWT"),
        {"aud": REMOVED, "client_id": REMOVED, "scope": REMOVED, "azp": "https://app.example.com", "sid": "sess_1"},
        Reason.MISSING_CLAIM,
        id="E Clerk session JWT",
    ),
    pytest.param(
        replace(CLERK, config={}, typ="JWT"),
        {"scope": REMOVED, "nonce": "n", "at_hash": "x"},
        Reason.WRONG_TOKEN_KIND,
        id="RS-84 E Clerk ID token",
    ),
]


@pytest.mark.parametrize(("provider", "changes", "expected"), NEVER)
async def test_what_is_no_access_token_for_us_is_refused(
    provider: Provider, changes: dict[str, Any], expected: Reason, clock: Clock
) -> None:
    trial = static(provider, clock)
    assert await trial.reason(provider.token(clock, **changes)) is expected
    assert trial.app.calls == 0


async def test_opaque_tokens_and_shared_secrets_are_refused(clock: Clock) -> None:
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
    """E: the token version is the API registration's, so both issuers are configured."""
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
    """E: clients must request `api://…/x`; the token they are given says `x`."""
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
