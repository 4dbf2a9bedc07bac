"""Dialects: each token passes with its documented configuration.

Profile `at+jwt` refuses tokens that deviate from RFC 9068. The tokens are issued through the whole flow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jwt
import pytest
from dev import M2M, MCP, Session, claims_of, dev_server, header_of
from harness import Clock, RecordingApp, bearer, call

from asgi_mcp_auth import AuthServerConfig, MCPAuthMiddleware
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.dev import DIALECTS, DevServer
from asgi_mcp_auth.dev._dialects import entra_api
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.providers import PROVIDERS, Provider

pytestmark = pytest.mark.anyio

API = entra_api(MCP)


class Shape(NamedTuple):
    """The expected token of a dialect, and its configuration; None if the token cannot be accepted."""

    typ: str | None
    has: dict[str, Any]
    lacks: tuple[str, ...]
    config: Mapping[str, Any] | None = MappingProxyType({})
    strict: Reason | None = Reason.TYP_NOT_ACCEPTED
    refused: Reason | None = None
    scopes: tuple[str, ...] = ("mcp:read",)
    required: tuple[str, ...] = ()


CLIENT = "<the client>"
SHAPES = {
    "entra-v2": Shape(
        "JWT",
        {"aud": API, "azp": CLIENT, "scp": "mcp:read", "ver": "2.0"},
        ("client_id", "scope", "jti"),
        {"extra_audiences": [API]},
    ),
    "entra-v1": Shape(
        "JWT",
        {"aud": f"api://{API}", "appid": CLIENT, "scp": "mcp:read", "ver": "1.0"},
        ("client_id", "azp", "scope"),
        {"extra_audiences": [f"api://{API}"]},
    ),
    "auth0": Shape("JWT", {"azp": CLIENT, "scope": "mcp:read", "permissions": ["mcp:read"]}, ("client_id",)),
    "auth0-rfc9068": Shape("at+jwt", {"client_id": CLIENT, "permissions": ["mcp:read"]}, ("azp",), strict=None),
    "okta": Shape(None, {"cid": CLIENT, "scp": ["mcp:read"], "ver": 1}, ("client_id", "scope")),
    "okta-org": Shape(
        "application/okta-internal-at+jwt",
        {"aud": "http://localhost:9000", "cid": CLIENT},
        ("client_id",),
        None,
        refused=Reason.TYP_NOT_ACCEPTED,
    ),
    "cognito": Shape(None, {"client_id": CLIENT, "token_use": "access", "username": "alice"}, ("scp",)),
    "keycloak": Shape("JWT", {"aud": [MCP, "account"], "azp": CLIENT, "typ": "Bearer", "acr": "1"}, ("client_id",)),
    "cognito-no-aud": Shape(
        None,
        {"client_id": CLIENT, "token_use": "access", "scope": f"{MCP}/read"},
        ("aud",),
        {"profile": "no-aud", "allowed_clients": [CLIENT]},
        scopes=(f"{MCP}/read",),
        required=(f"{MCP}/read",),
    ),
    "workos": Shape(None, {"client_id": CLIENT, "permissions": ["mcp:read"]}, ("azp",)),
    "descope": Shape("JWT", {"azp": CLIENT, "amr": ["email"]}, ("client_id", "jti")),
    "descope-project": Shape("JWT", {"azp": CLIENT, "aud": "P2dev"}, ("client_id",), {"extra_audiences": ["P2dev"]}),
    "logto": Shape("at+jwt", {"client_id": CLIENT}, ("auth_time",), strict=None),
    "clerk": Shape("at+jwt", {"client_id": CLIENT}, ("azp",), strict=None),
    "supabase": Shape(
        "JWT",
        {"aud": "authenticated", "role": "authenticated", "client_id": CLIENT},
        ("scope",),
        {"extra_audiences": ["authenticated"]},
        scopes=(),
    ),
}
SLUGS = [pytest.param(slug, id=f"AS-34 {slug}") for slug in SHAPES]


def test_every_dialect_is_tested() -> None:
    assert {*SHAPES, "google"} == set(DIALECTS)


@pytest.mark.parametrize(
    "provider", [pytest.param(provider, id=f"{provider.slug}") for provider in PROVIDERS if provider.dialect]
)
def test_dialects_agree_with_the_table_of_providers(provider: Provider) -> None:
    """Tokens of a dialect have the format in the provider's row and need the options in the row."""
    dialect, shape = DIALECTS[provider.slug], SHAPES.get(provider.slug)
    assert dialect.opaque or dialect.typ in provider.typ
    if shape is not None:
        assert (shape.config is not None) is provider.usable
        assert set(shape.config or {}) - {"profile"} <= set(provider.config)
        assert CLIENT not in shape.has.values() or shape.has.get(str(provider.client_id_claim)) is CLIENT
        scope = provider.scope_claim
        assert scope is None or scope not in shape.has or isinstance(shape.has[scope], list) is provider.scope_list


def test_every_provider_has_a_dialect() -> None:
    assert {provider.slug for provider in PROVIDERS if provider.dialect} == set(DIALECTS)


def decide(server: DevServer, required: tuple[str, ...], **config: Any) -> tuple[MCPAuthMiddleware, list[Decision]]:
    decisions: list[Decision] = []
    app = MCPAuthMiddleware(
        RecordingApp(),
        resource=MCP,
        authorization_servers=[AuthServerConfig(issuer=server.url, **config)],
        required_scopes=required,
        http_client=server.http_client,
        clock=server.clock,
        on_decision=[decisions.append],
    )
    return app, decisions


async def reason(server: DevServer, token: str, required: tuple[str, ...] = (), **config: Any) -> Decision:
    app, decisions = decide(server, required, **config)
    await call(app, headers=bearer(token), host="localhost:8000")
    return decisions[-1]


@pytest.mark.requirement("AS-60")
@pytest.mark.parametrize("slug", SLUGS)
async def test_a_dialect_s_token_passes_with_the_documented_configuration(slug: str, clock: Clock) -> None:
    shape = SHAPES[slug]
    server = dev_server(dialect=slug, clock=clock, scopes=shape.required or ["mcp:read"])
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id, scope=...)
        token = tokens["access_token"]
        assert await session.is_active(token, client_id), "introspection knows it in any shape"
    header, claims = header_of(token), claims_of(token)
    assert header.get("typ") == shape.typ
    assert header["alg"] == ("ES384" if slug == "logto" else "ES256")
    assert {name: claims[name] for name in shape.has} == {
        name: client_id if value is CLIENT else value for name, value in shape.has.items()
    }
    assert not set(shape.lacks) & set(claims)
    assert (claims["sub"], claims["iss"]) == ("alice", server.url)

    config = dict(shape.config or {})
    if "allowed_clients" in config:
        config["allowed_clients"] = [client_id]
    strictly: dict[str, Any] = config | {"profile": "at+jwt"}
    strict = await reason(server, token, **strictly)
    assert strict.reason == shape.strict
    if shape.config is None:
        assert (await reason(server, token)).reason is shape.refused
        return
    decision = await reason(server, token, shape.required, **config)
    assert decision.reason is None
    assert decision.auth_info is not None
    assert decision.auth_info.client_id == client_id
    assert decision.auth_info.scopes == shape.scopes
    if "extra_audiences" in config:
        assert (await reason(server, token)).reason is Reason.WRONG_AUDIENCE


@pytest.mark.requirement("AS-34")
async def test_google_s_tokens_are_opaque(clock: Clock) -> None:
    server = dev_server(dialect="google", clock=clock)
    async with Session(server) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id, scope="openid mcp:read"))["access_token"]
        with pytest.raises(jwt.InvalidTokenError):
            header_of(token)
        assert (await reason(server, token)).reason is Reason.MALFORMED_TOKEN, "google"
        assert await session.is_active(token, client_id)


@pytest.mark.parametrize(
    ("slug", "changes", "expected"),
    [
        pytest.param("auth0", {"scope": "openid mcp:read"}, {"aud": [MCP, "http://localhost:9000/userinfo"]}, id="auth0 with openid"),
        pytest.param("keycloak", {"acr_values": "urn:mfa"}, {"acr": "urn:mfa"}, id="AS-19 keycloak with acr"),
        pytest.param("entra-v2", {"scope": "api://x/mcp.read", "resource": MCP}, {"scp": "mcp.read"}, id="entra-v2 short names"),
    ],
)  # fmt: skip
async def test_claims_depend_on_the_request(slug: str, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    async with Session(dev_server(dialect=slug, scopes=["mcp:read", "api://x/mcp.read"])) as session:
        client_id = (await session.register())["client_id"]
        claims = claims_of((await session.login(client_id, **changes))["access_token"])
    assert {name: claims[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("slug", "expected", "lacks"),
    [
        pytest.param("entra-v2", {"roles": ["mcp:read"], "idtyp": "app", "azp": "m2m"}, ("scp",), id="entra-v2 app-only"),
        pytest.param("cognito", {"client_id": "m2m", "token_use": "access"}, ("username",), id="cognito m2m"),
        pytest.param("okta", {"cid": "m2m"}, ("uid",), id="okta m2m"),
    ],
)  # fmt: skip
async def test_client_credentials_tokens_in_dialects(
    slug: str, expected: dict[str, Any], lacks: tuple[str, ...]
) -> None:
    async with Session(dev_server(dialect=slug)) as session:
        auth = (M2M["client_id"], M2M["client_secret"])
        claims = claims_of((await session.token("client_credentials", auth=auth)).json()["access_token"])
    assert {name: claims[name] for name in expected} == expected
    assert not set(lacks) & set(claims)
