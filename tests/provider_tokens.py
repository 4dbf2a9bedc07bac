"""Access tokens in the shapes of common providers, as data: claims, header, keys, and the documented configuration.

The shapes are from the providers' documents, source code and dated issues (named below a token), not from live
services. `tests/test_providers.py` verifies each of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest
from harness import Clock, R

from asgi_mcp_auth import AuthServerConfig, AuthServerType
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.testing import Issuer, SigningKey

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
class ProviderToken:
    """One token of a provider, its key set, and the documented configuration.

    Attributes:
        slug: The row of `asgi_mcp_auth.providers`; "" if the provider has none.
        issuer: The issuer of the configuration and of the metadata document.
        config: The settings of `AuthServerConfig` besides `issuer`.
        claims: The claims besides `iat` and `exp`. `iss` is here only if it differs from `issuer`.
        found_at: The URL of the metadata document.
        required: The scopes that the resource needs.
        client_id, scopes, subject, is_client: What `AuthInfo` says; the subject is `sub` by default.
        strict: The reason that profile `at+jwt` gives; None if the token conforms to RFC 9068.
    """

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
    subject: str | None = None
    is_client: bool = False
    strict: Reason | None = Reason.TYP_NOT_ACCEPTED

    @property
    def server(self) -> AuthServerConfig:
        return AuthServerConfig(issuer=self.issuer, **self.config)

    def jwks(self) -> dict[str, Any]:
        members = {**signing_key(self.alg).jwk, **self.key_members}
        return {"keys": [*self.more_keys, {k: v for k, v in members.items() if k not in self.key_without}]}

    def token(self, clock: Clock, **changes: Any) -> str:
        """Return a signed token with exactly these claims and the times; REMOVED removes a claim."""
        now = int(clock.now)
        claims = {"iss": self.issuer, "iat": now, "exp": now + 300, **self.claims, **changes}
        header = {"alg": self.alg, "kid": signing_key(self.alg).kid, **self.header}
        if self.typ is not None:
            header["typ"] = self.typ
        whole = {name: value for name, value in claims.items() if value is not REMOVED}
        return Issuer(self.issuer, algorithms=()).sign(header, whole, key=signing_key(self.alg))


ENTRA_V2: Final = ProviderToken(
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

ENTRA_V1: Final = ProviderToken(
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

AUTH0: Final = ProviderToken(
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

OKTA: Final = ProviderToken(
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
COGNITO: Final = ProviderToken(
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

KEYCLOAK: Final = ProviderToken(
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

WORKOS: Final = ProviderToken(
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

DESCOPE: Final = ProviderToken(
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

LOGTO: Final = ProviderToken(
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

CLERK: Final = ProviderToken(
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

SUPABASE: Final = ProviderToken(
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

ADFS: Final = ProviderToken(
    slug="adfs",
    issuer="https://adfs.example.com/adfs",
    config={"token_issuers": ["http://adfs.example.com/adfs/services/trust"]},
    typ="JWT",
    header={"x5t": "x5t-value"},
    claims={
        "iss": "http://adfs.example.com/adfs/services/trust",
        "aud": R,
        "sub": "kWE5Jk9q0pGtFOyL1rTnZtU=",
        "apptype": "Public",
        "appid": CLIENT,
        "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
        "auth_time": "2027-01-15T07:59:00.000Z",
        "ver": "1.0",
        "scp": "openid mcp:read",
    },
    key_members={"x5c": ["MIIC"], "x5t": "x5t-value"},
    jwks_uri="https://adfs.example.com/adfs/discovery/keys",
    found_at=f"https://adfs.example.com/adfs{OIDC}",
    client_id=CLIENT,
    scopes=("openid", "mcp:read"),
)
"""`iss` is an http URL that is not the metadata issuer (aspnet/Security #1852)."""

FUSIONAUTH: Final = ProviderToken(
    slug="fusionauth",
    issuer="https://login.example.com",
    config={
        "jwks_uri": "https://login.example.com/.well-known/jwks.json",
        "token_issuers": ["acme.com"],
        "extra_audiences": [API],
    },
    typ="JWT",
    claims={
        "iss": "acme.com",
        "aud": API,
        "sub": "f8b1a1de-0b0d-4b0d-8a84-0000000a11ce",
        "jti": "8b7b1a7e-9d8c-4d0c-9f1e-000000000001",
        "authenticationType": "PASSWORD",
        "applicationId": API,
        "tid": TENANT,
        "roles": ["reader"],
        "scope": "openid mcp:read",
        "auth_time": 1_799_999_000,
    },
    jwks_uri="https://login.example.com/.well-known/jwks.json",
    found_at=f"https://login.example.com{OIDC}",
    client_id=None,
    scopes=("openid", "mcp:read"),
)
"""`iss` is a StringOrURI that is not a URL (FusionAuth/fusionauth-issues #3497)."""

IDENTITY_SERVER_M2M: Final = ProviderToken(
    slug="",
    issuer="https://identity.example.com",
    config={"subject_claims": ["sub", "client_id"]},
    typ="at+jwt",
    claims={"aud": R, "client_id": "c1", "jti": "57B2C4D0F3A1", "nbf": 1_799_999_990, "scope": ["mcp:read"]},
    jwks_uri=f"https://identity.example.com{OIDC}/jwks",
    found_at=f"https://identity.example.com{OIDC}",
    subject="c1",
    is_client=True,
    strict=Reason.MISSING_CLAIM,
)
"""A client's own token has no `sub` (DuendeArchive/IdentityServer4 #5126)."""

KEYCLOAK_M2M: Final = replace(
    KEYCLOAK,
    config={"subject_claims": ["sub", "azp"]},
    claims={name: value for name, value in KEYCLOAK.claims.items() if name not in ("sub", "sid", "email_verified")}
    | {"clientHost": "192.0.2.1", "clientAddress": "192.0.2.1", "scope": "mcp:read"},
    scopes=("mcp:read",),
    subject="c1",
    is_client=True,
)
"""A client without the client scope `basic` gets tokens without `sub` since Keycloak 25 (keycloak/keycloak #34306)."""

KEYCLOAK_ROLES: Final = replace(
    KEYCLOAK,
    config={"scope_claims": ["realm_access.roles"]},
    claims={
        **KEYCLOAK.claims,
        "realm_access": {"roles": ["offline_access", "mcp:read"]},
        "scope": "openid email",
    },
    scopes=("offline_access", "mcp:read"),
)
"""Roles are in a nested claim."""

AUTHENTIK: Final = ProviderToken(
    slug="authentik",
    issuer="https://id.example.com/application/o/notes/",
    config={"accept_nonce": True, "extra_audiences": ["c1"]},
    typ="JWT",
    claims={
        "sub": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        "aud": "c1",
        "auth_time": 1_799_999_000,
        "acr": "goauthentik.io/providers/oauth2/default",
        "amr": ["pwd"],
        "nonce": "0394852-3190485-2490358",
        "sid": "5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9",
        "groups": ["mcp:read"],
        "azp": "c1",
        "uid": "zQp5t0cV4W3eXnO5pWfQmQ",
    },
    jwks_uri="https://id.example.com/application/o/notes/jwks/",
    found_at="https://id.example.com/application/o/notes/.well-known/openid-configuration",
    required=(),
    scopes=(),
)
"""An access token has the claims of the ID token, `nonce` included (authentik/providers/oauth2/id_token.py)."""

AUTHENTIK_GROUPS: Final = replace(
    AUTHENTIK,
    config={"accept_nonce": True, "extra_audiences": ["c1"], "scope_claims": ["groups"]},
    required=("mcp:read",),
    scopes=("mcp:read",),
)
"""Groups are no standard scope claim, so a `nonce` needs `accept_nonce`."""

ZITADEL_ROLES: Final = "urn:zitadel:iam:org:project:roles"
ZITADEL: Final = ProviderToken(
    slug="zitadel",
    issuer="https://notes-ab12cd.zitadel.cloud",
    config={"extra_audiences": ["252855702316398078"], "scope_claims": ["scope", ZITADEL_ROLES]},
    typ="JWT",
    claims={
        "sub": "201926742074524083",
        "aud": ["252856053933356542@notes", "252855702316398078"],
        "client_id": "252856053933356542@notes",
        "nbf": 1_799_999_990,
        "jti": "252862212748621310",
        ZITADEL_ROLES: {"mcp:read": {"252855756087375358": "notes.example.com"}, "editor": {"1": "a.example.com"}},
    },
    jwks_uri="https://notes-ab12cd.zitadel.cloud/oauth/v2/keys",
    found_at=f"https://notes-ab12cd.zitadel.cloud{OIDC}",
    client_id="252856053933356542@notes",
    scopes=("mcp:read", "editor"),
)
"""Roles are the keys of an object."""

AUTH0_NAMESPACED: Final = replace(
    AUTH0,
    config={"scope_claims": ["scope", "https://notes.example.com/roles"]},
    claims={**AUTH0.claims, "https://notes.example.com/roles": ["editor"]},
    required=("mcp:read", "editor"),
    scopes=("openid", "profile", "mcp:read", "editor"),
)
"""A claim name that contains dots is a name, not a path."""

PROVIDERS = [
    pytest.param(ENTRA_V2, id="Entra v2"),
    pytest.param(ENTRA_V2_APP, id="Entra v2 app-only"),
    pytest.param(ENTRA_V1, id="Entra v1"),
    pytest.param(AUTH0, id="Auth0"),
    pytest.param(AUTH0_RBAC, id="Auth0 RBAC"),
    pytest.param(AUTH0_RFC9068, id="Auth0 RFC 9068 dialect"),
    pytest.param(OKTA, id="Okta custom AS"),
    pytest.param(COGNITO, id="Cognito with resource binding"),
    pytest.param(COGNITO_NO_AUD, id="RS-91 Cognito without resource binding"),
    pytest.param(KEYCLOAK, id="DC-11 Keycloak"),
    pytest.param(WORKOS, id="WorkOS AuthKit"),
    pytest.param(DESCOPE, id="DC-13 Descope agentic"),
    pytest.param(DESCOPE_PROJECT, id="RS-102 Descope project"),
    pytest.param(LOGTO, id="Logto"),
    pytest.param(CLERK, id="Clerk"),
    pytest.param(CLERK_OLD_GRANT, id="RS-91 Clerk, older grant"),
    pytest.param(SUPABASE, id="Supabase"),
    pytest.param(SUPABASE_HOOK, id="Supabase with a token hook"),
    pytest.param(AUTH0_NAMESPACED, id="CK-7 Auth0, a namespaced claim with dots"),
    pytest.param(ADFS, id="CK-7 AD FS, an http iss"),
    pytest.param(FUSIONAUTH, id="CK-7 FusionAuth, an iss that is no URL"),
    pytest.param(IDENTITY_SERVER_M2M, id="CK-7 IdentityServer, a client's token without sub"),
    pytest.param(KEYCLOAK_M2M, id="CK-7 Keycloak, a client's token without sub"),
    pytest.param(KEYCLOAK_ROLES, id="CK-7 Keycloak, roles in a nested claim"),
    pytest.param(AUTHENTIK, id="CK-7 authentik, an access token with nonce"),
    pytest.param(AUTHENTIK_GROUPS, id="CK-7 authentik, groups as scopes"),
    pytest.param(ZITADEL, id="CK-7 ZITADEL, roles as the keys of an object"),
]
"""Each token with its documented configuration."""


OKTA_ORG: Final = replace(
    OKTA,
    slug="okta-org",
    issuer="https://dev-1.okta.com",
    config={"extra_audiences": ["https://dev-1.okta.com"]},
    typ="application/okta-internal-at+jwt",
    claims={**OKTA.claims, "aud": "https://dev-1.okta.com"},
)

GOOGLE_ID_TOKEN: Final = ProviderToken(
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
