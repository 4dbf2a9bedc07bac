"""The rows, as data: gathered from the providers' documents and dated reports, not from their live services."""

from __future__ import annotations

from typing import Final

from asgi_mcp_auth.providers.provider import Discovery, Provider, frozen

__all__ = ("PROVIDERS",)

APPENDED: Final[tuple[Discovery, ...]] = ("oidc-appended",)
AT_THE_ROOT: Final[tuple[Discovery, ...]] = ("oauth-inserted", "oidc-appended")

PROVIDERS: Final = (
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
        resource="no",
        config=frozen({"extra_audiences": ["<api client id>"], "scope_claims": ["scp", "roles"]}),
        policy=frozen({"wire_names": {"x": "api://<api client id>/x"}}),
        advice="Set requestedAccessTokenVersion to 2. Clients must ask for `api://…/x`, tokens say `x`; a `resource` "
        "with a trailing slash is refused (AADSTS9010010). Its metadata shows no PKCE methods, so MCP clients that "
        "hold to the specification refuse it: put an authorization server of your own before it.",
    ),
    Provider(
        slug="entra-v1",
        name="Entra ID, v1 tokens",
        issuers=("https://sts.windows.net/{tenant}/",),
        discovery=(),
        typ=("JWT",),
        audience="the App ID URI or the GUID, as asked for",
        scope_claim="scp",
        client_id_claim="appid",
        key_alg=False,
        resource="no",
        config=frozen(
            {
                "metadata_url": "https://login.microsoftonline.com/<tenant>/.well-known/openid-configuration",
                "extra_audiences": ["api://<api client id>"],
            }
        ),
        advice="The API registration has token version 1 or null: set requestedAccessTokenVersion to 2, or configure "
        "this issuer beside the v2 one.",
    ),
    Provider(
        slug="auth0",
        name="Auth0",
        issuers=("https://{tenant}.auth0.com/",),
        discovery=AT_THE_ROOT,
        typ=("JWT",),
        audience="the API's identifier, beside the userinfo endpoint when `openid` was asked for",
        client_id_claim="azp",
        resource="setting",
        advice="The issuer ends with a slash. Create the API with the resource as its identifier, and switch on the "
        "Resource Parameter Compatibility Profile: without an audience its tokens are opaque. With RBAC, add "
        "`permissions` to `scope_claims`.",
    ),
    Provider(
        slug="auth0-rfc9068",
        name="Auth0, RFC 9068 profile",
        issuers=("https://{tenant}.auth0.com/",),
        discovery=AT_THE_ROOT,
        typ=("at+jwt",),
        audience="as Auth0",
        resource="setting",
        config=frozen({"profile": "at+jwt"}),
        advice="The API's token profile is RFC 9068; everything else as Auth0.",
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
        audience="the one that the authorization server is configured with",
        scope_claim="scp",
        scope_list=True,
        client_id_claim="cid",
        resource="no",
        advice="Set the authorization server's audience to the resource; one for each resource. Dynamic registration "
        "needs an administrator's token: register clients by hand.",
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
        resource="no",
        usable=False,
        advice="Its access tokens are for Okta's own APIs. Use a custom authorization server (`/oauth2/…`).",
        confidence="told",
    ),
    Provider(
        slug="cognito",
        name="Amazon Cognito with resource binding",
        issuers=("https://cognito-idp.{region}.amazonaws.com/{pool}",),
        discovery=APPENDED,
        typ=(None,),
        audience="the `resource` that was asked for",
        resource="setting",
        advice="Resource binding needs the Essentials or Plus plan and managed login. Its metadata may show no PKCE "
        "methods.",
    ),
    Provider(
        slug="cognito-no-aud",
        name="Amazon Cognito without it",
        issuers=("https://cognito-idp.{region}.amazonaws.com/{pool}",),
        discovery=APPENDED,
        typ=(None,),
        audience="none",
        resource="no",
        config=frozen({"profile": "no-aud", "allowed_clients": ["<client id>"]}),
        policy=frozen({"default": ["<resource>/read"]}),
        advice="Name the resource server in Cognito like the resource, so that a required scope begins with it.",
    ),
    Provider(
        slug="keycloak",
        name="Keycloak",
        issuers=("https://{host}/realms/{realm}", "http://{host}/realms/{realm}"),
        discovery=("oauth-inserted", "oidc-appended"),
        typ=("JWT", "at+jwt"),
        audience="what an audience mapper adds, else nothing or `account`",
        client_id_claim="azp",
        resource="no",
        advice="Add an audience mapper with the resource to a client scope that every client gets. The first place "
        "works in recent versions only. Its key set has an encryption key too, which is skipped.",
    ),
    Provider(
        slug="google",
        name="Google",
        issuers=("https://accounts.google.com",),
        discovery=APPENDED,
        typ=(),
        audience="none: its access tokens are opaque",
        resource="no",
        usable=False,
        advice="Its access tokens cannot be bound to a resource, and its ID tokens are not for APIs. Put an "
        "authorization server of your own before it.",
    ),
    Provider(
        slug="workos",
        name="WorkOS AuthKit",
        issuers=("https://{sub}.authkit.app",),
        discovery=("oauth-inserted",),
        typ=(None, "JWT"),
        audience="the resource, once it is listed",
        resource="setting",
        advice="List the resource under MCP resource indicators, and switch on client id metadata documents or dynamic "
        "registration. Session tokens are of another issuer (`https://api.workos.com/user_management/…`).",
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
        advice="Create an agentic MCP server with the resource as its URL. Its keys are not below the issuer.",
    ),
    Provider(
        slug="descope-project",
        name="Descope, project",
        issuers=("https://api.descope.com/v1/apps/{project}",),
        discovery=APPENDED,
        typ=("JWT",),
        audience="the project id",
        client_id_claim="azp",
        resource="no",
        config=frozen({"extra_audiences": ["<project id>"]}),
        advice="The audience names the whole project: prefer an agentic MCP server.",
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
        advice="Register an API resource with the resource as its indicator. Without `resource` the token is opaque.",
        confidence="told",
    ),
    Provider(
        slug="clerk",
        name="Clerk, registered MCP server",
        issuers=("https://{slug}.clerk.accounts.dev", "https://clerk.{domain}"),
        discovery=AT_THE_ROOT,
        typ=("at+jwt",),
        audience="the resource, once it is registered",
        resource="setting",
        config=frozen({"profile": "at+jwt"}),
        advice="Register the MCP server and switch on JWT access tokens. Grants from before that stay without `aud`: "
        "let people log in again.",
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
        resource="no",
        config=frozen({"extra_audiences": ["authenticated"], "allowed_clients": ["<client id>"]}),
        advice="`aud` does not name the resource: better set it with an access token hook, and leave `extra_audiences` "
        "out. Migrate projects with an HS256 secret to asymmetric keys.",
    ),
)
"""One row for each kind of token; rows of one provider stand together."""
