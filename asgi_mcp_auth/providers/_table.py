"""The rows of the provider table, and how to find them."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.providers._provider import Discovery, Provider, frozen

__all__ = ("PROVIDERS", "by_slug", "recognise")

APPENDED: Final[tuple[Discovery, ...]] = ("oidc-appended",)
AT_THE_ROOT: Final[tuple[Discovery, ...]] = ("oauth-inserted", "oidc-appended")

PROVIDERS: Final[tuple[Provider, ...]] = (
    Provider(
        slug="entra-v2",
        name="Entra ID, v2 tokens",
        issuers=("https://login.microsoftonline.com/{tenant}/v2.0",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the API's client id, a GUID",
        scope_claim="scp",
        client_id_claim="azp",
        key_alg=False,
        config=frozen({"extra_audiences": ["<api client id>"], "scope_claims": ["scp", "roles"]}),
        policy=frozen({"request_scope_names": {"x": "api://<api client id>/x"}}),
        exchange=frozen({"grant": "on_behalf_of", "assertion_audience": "endpoint"}),
        advice="Set requestedAccessTokenVersion to 2. Clients must request `api://…/x`; tokens have the scope `x`. "
        "Entra rejects a `resource` with a trailing slash (AADSTS9010010). Its metadata lists no PKCE methods, so "
        "strict MCP clients reject it: put your own authorization server in front of it.",
    ),
    Provider(
        slug="entra-v1",
        name="Entra ID, v1 tokens",
        issuers=("https://sts.windows.net/{tenant}/",),
        discovery=(),
        typ=("JWT",),
        audience="the App ID URI or the GUID, as requested",
        scope_claim="scp",
        client_id_claim="appid",
        key_alg=False,
        config=frozen(
            {
                "metadata_url": "https://login.microsoftonline.com/<tenant>/.well-known/openid-configuration",
                "extra_audiences": ["api://<api client id>"],
            }
        ),
        advice="The API registration has token version 1 or null: set requestedAccessTokenVersion to 2, or configure "
        "both issuers.",
    ),
    Provider(
        slug="auth0",
        name="Auth0",
        issuers=("https://{tenant}.auth0.com/",),
        discovery=AT_THE_ROOT,
        typ=("JWT",),
        audience="the API's identifier, and the userinfo endpoint if `openid` was requested",
        client_id_claim="azp",
        resource="setting",
        advice="The issuer ends with a slash. Create the API with the resource as its identifier, and enable the "
        "Resource Parameter Compatibility Profile: tokens without an audience are opaque. With RBAC, add "
        "`permissions` to `scope_claims`.",
    ),
    Provider(
        slug="auth0-rfc9068",
        name="Auth0, RFC 9068 profile",
        issuers=("https://{tenant}.auth0.com/",),
        discovery=AT_THE_ROOT,
        typ=("at+jwt",),
        audience="the same as for Auth0",
        resource="setting",
        config=frozen({"profile": "at+jwt"}),
        advice="Set the API's token profile to RFC 9068. Everything else is the same as for Auth0.",
    ),
    Provider(
        slug="okta",
        name="Okta, custom authorization server",
        issuers=(
            "https://{org}.okta.com/oauth2/{server}",
            "https://{org}.oktapreview.com/oauth2/{server}",
            "https://{org}.okta-emea.com/oauth2/{server}",
        ),
        discovery=APPENDED,
        typ=(None,),
        audience="the configured audience of the authorization server",
        scope_claim="scp",
        scope_list=True,
        client_id_claim="cid",
        advice="Create one authorization server per resource and set its audience to the resource. Dynamic "
        "registration needs an administrator's token: register clients manually.",
    ),
    Provider(
        slug="okta-org",
        name="Okta, org authorization server",
        issuers=("https://{org}.okta.com", "https://{org}.oktapreview.com", "https://{org}.okta-emea.com"),
        discovery=AT_THE_ROOT,
        typ=("application/okta-internal-at+jwt",),
        audience="the organisation",
        scope_claim="scp",
        scope_list=True,
        client_id_claim="cid",
        usable=False,
        advice="Its access tokens are for Okta's own APIs. Use a custom authorization server (`/oauth2/…`).",
        confidence="reported",
    ),
    Provider(
        slug="cognito",
        name="Amazon Cognito with resource binding",
        issuers=("https://cognito-idp.{region}.amazonaws.com/{pool}",),
        discovery=APPENDED,
        typ=(None,),
        audience="the requested `resource`",
        resource="setting",
        advice="Resource binding needs the Essentials or Plus plan and managed login. Its metadata may list no PKCE "
        "methods.",
    ),
    Provider(
        slug="cognito-no-aud",
        name="Amazon Cognito without resource binding",
        issuers=("https://cognito-idp.{region}.amazonaws.com/{pool}",),
        discovery=APPENDED,
        typ=(None,),
        audience="none",
        config=frozen({"profile": "no-aud", "allowed_clients": ["<client id>"]}),
        policy=frozen({"default": ["<resource>/read"]}),
        advice="Set the identifier of the resource server in Cognito to the resource: required scopes begin with it.",
    ),
    Provider(
        slug="keycloak",
        name="Keycloak",
        issuers=("https://{host}/realms/{realm}", "http://{host}/realms/{realm}"),
        discovery=("oauth-inserted", "oidc-appended"),
        typ=("JWT", "at+jwt"),
        audience="the value of an audience mapper, else none or `account`",
        client_id_claim="azp",
        advice="Add an audience mapper with the resource to a default client scope. If `sub` is missing, add the "
        "client scope `basic` (Keycloak 25 and later). For realm roles, add `realm_access.roles` to `scope_claims`.",
    ),
    Provider(
        slug="google",
        name="Google",
        issuers=("https://accounts.google.com",),
        discovery=APPENDED,
        typ=(),
        audience="none: its access tokens are opaque",
        usable=False,
        advice="Its access tokens cannot be bound to a resource, and its ID tokens are not for APIs. Put your own "
        "authorization server in front of it.",
    ),
    Provider(
        slug="workos",
        name="WorkOS AuthKit",
        issuers=("https://{sub}.authkit.app",),
        discovery=("oauth-inserted",),
        typ=(None, "JWT"),
        audience="the resource, if it is listed",
        resource="setting",
        advice="List the resource under MCP resource indicators, and enable client id metadata documents or dynamic "
        "registration. Session tokens have another issuer (`https://api.workos.com/user_management/…`).",
    ),
    Provider(
        slug="descope",
        name="Descope, MCP server",
        issuers=("https://api.descope.com/v1/apps/agentic/{project}/{server}",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the resource",
        client_id_claim="azp",
        resource="yes",
        advice="Create an agentic MCP server with the resource as its URL. Its key set URL is not below the issuer.",
    ),
    Provider(
        slug="descope-project",
        name="Descope, project",
        issuers=("https://api.descope.com/v1/apps/{project}",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the project id",
        client_id_claim="azp",
        config=frozen({"extra_audiences": ["<project id>"]}),
        advice="The audience is the whole project: use an agentic MCP server if you can.",
    ),
    Provider(
        slug="logto",
        name="Logto",
        issuers=("https://{tenant}.logto.app/oidc",),
        discovery=APPENDED,
        typ=("at+jwt",),
        audience="the resource indicator of the API",
        algorithm="ES384",
        resource="yes",
        config=frozen({"profile": "at+jwt"}),
        advice="Register an API resource with the resource as its indicator. Tokens without `resource` are opaque.",
        confidence="reported",
    ),
    Provider(
        slug="clerk",
        name="Clerk, registered MCP server",
        issuers=("https://{slug}.clerk.accounts.dev", "https://clerk.{domain}"),
        discovery=AT_THE_ROOT,
        typ=("at+jwt",),
        audience="the resource, if it is registered",
        resource="setting",
        config=frozen({"profile": "at+jwt"}),
        advice="Register the MCP server and enable JWT access tokens. Older grants get tokens without `aud`: have "
        "users sign in again.",
    ),
    Provider(
        slug="supabase",
        name="Supabase",
        issuers=("https://{ref}.supabase.co/auth/v1",),
        discovery=("oauth-inserted",),
        typ=("JWT",),
        audience="`authenticated`, always",
        scope_claim=None,
        algorithm="ES256",
        config=frozen({"extra_audiences": ["authenticated"], "allowed_clients": ["<client id>"]}),
        advice="`aud` does not name the resource. An access token hook can set `aud` to the resource: then remove "
        "`extra_audiences`. Migrate projects with an HS256 secret to asymmetric keys.",
    ),
    Provider(
        slug="adfs",
        name="AD FS",
        issuers=("https://{host}/adfs", "http://{host}/adfs/services/trust"),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the identifier of the Web API",
        scope_claim="scp",
        client_id_claim="appid",
        resource="setting",
        dialect=False,
        config=frozen({"token_issuers": ["http://<host>/adfs/services/trust"]}),
        advice="Set `issuer` to `https://<host>/adfs`. Tokens name the federation service instead "
        "(`access_token_issuer` in its metadata). Create the Web API with the resource as its identifier.",
        confidence="reported",
    ),
    Provider(
        slug="authentik",
        name="authentik",
        issuers=("https://{host}/application/o/{application}/",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the client id",
        scope_claim=None,
        client_id_claim="azp",
        dialect=False,
        config=frozen({"accept_nonce": True, "extra_audiences": ["<client id>"]}),
        advice="The issuer ends with a slash. Access tokens have no scopes, and the `nonce` of the sign-in. Add the "
        "claim `scope` with a scope mapping and remove `accept_nonce`, or add `groups` to `scope_claims`.",
    ),
    Provider(
        slug="zitadel",
        name="ZITADEL",
        issuers=("https://{instance}.zitadel.cloud",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the client ids of the project, and the project id if requested",
        scope_claim="urn:zitadel:iam:org:project:roles",
        dialect=False,
        config=frozen(
            {"extra_audiences": ["<project id>"], "scope_claims": ["scope", "urn:zitadel:iam:org:project:roles"]}
        ),
        advice="Set the token type of the application to JWT. Clients must request "
        "`urn:zitadel:iam:org:project:id:<project id>:aud` for the audience and `urn:zitadel:iam:org:projects:roles` "
        "for the roles.",
        confidence="reported",
    ),
    Provider(
        slug="fusionauth",
        name="FusionAuth, default issuer",
        issuers=("acme.com",),
        discovery=(),
        typ=("JWT",),
        audience="the application id",
        client_id_claim=None,
        dialect=False,
        config=frozen(
            {
                "jwks_uri": "https://<host>/.well-known/jwks.json",
                "token_issuers": ["acme.com"],
                "extra_audiences": ["<application id>"],
            }
        ),
        advice="The default issuer of a tenant is not a URL. If you can, set it to `https://<host>` at the provider, "
        "and remove `token_issuers` and `jwks_uri`.",
        confidence="reported",
    ),
)
"""One row per kind of token; the rows of one provider are adjacent."""


def recognise(issuer: str) -> tuple[Provider, ...]:
    """Return the rows whose patterns match an issuer. Custom domains match no row."""
    return tuple(provider for provider in PROVIDERS if provider.matches(issuer))


def by_slug(slug: str) -> Provider | None:
    """Return the row with this slug, if any."""
    return next((provider for provider in PROVIDERS if provider.slug == slug), None)
