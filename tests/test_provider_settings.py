"""Settings of one issuer for what providers do, through the whole middleware and in every notation."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from harness import ISS, PRM_PATH, Clock, R, RecordingApp, bearer, call, protect, token
from jsonschema import Draft202012Validator

from asgi_mcp_auth import AuthServerConfig, ConfigurationError, MCPAuth, current_auth
from asgi_mcp_auth._options import Settings
from asgi_mcp_auth._settings.loader import settings_of
from asgi_mcp_auth._settings.schema import config_schema
from asgi_mcp_auth._settings.shorthand import SHORTHAND
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

ADFS: Final = "http://fs.example.com/adfs/services/trust"
METADATA: Final = "/.well-known/oauth-authorization-server"


class Caller(RecordingApp):
    """Records who called."""

    subject: str | None = None
    issuer: str | None = None
    is_client: bool | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        caller = current_auth()
        assert caller is not None
        self.subject, self.issuer, self.is_client = caller.subject, caller.issuer, caller.principal.is_client
        await super().__call__(scope, receive, send)


async def status(issuer: Issuer, settings: dict[str, Any], app: Any | None = None, **claims: Any) -> int:
    """The status for a token with `claims`, where the issuer has `settings`."""
    server = AuthServerConfig(issuer=ISS, **settings)
    protected = protect(issuer, app or RecordingApp(), authorization_servers=[server])
    return (await call(protected, headers=bearer(token(issuer, **claims)))).status


MACHINE: Final[dict[str, Any]] = {"subject_claims": ["sub", "client_id"]}
ROLES: Final = "urn:zitadel:iam:org:project:roles"

# One token per shape: the settings, the claims; without the settings the token is refused.
SHAPES = [
    pytest.param({"token_issuers": [ADFS]}, {"iss": ADFS}, id="CK-7 ADFS, an http issuer"),
    pytest.param({"token_issuers": ["acme"]}, {"iss": "acme"}, id="CK-7 an iss that is no URL"),
    pytest.param({"token_issuers": ["a", ISS + "/"]}, {"iss": ISS + "/"}, id="CK-7 one of several"),
    pytest.param(MACHINE, {"sub": ...}, id="CK-7 a machine client without sub"),
    pytest.param({"accept_nonce": True}, {"nonce": "n", "scope": ..., "scp": None}, id="CK-7 authentik's nonce"),
    pytest.param(
        {"scope_claims": ["realm_access.roles"]},
        {"scope": ..., "realm_access": {"roles": ["mcp:read"]}},
        id="CK-7 Keycloak's realm roles",
    ),
    pytest.param({"scope_claims": [ROLES]}, {"scope": ..., ROLES: {"mcp:read": {"1": "a.example"}}}, id="CK-7 ZITADEL"),
]


@pytest.mark.parametrize(("settings", "claims"), SHAPES)
async def test_a_setting_admits_the_tokens_it_is_for(
    settings: dict[str, Any], claims: dict[str, Any], issuer: Issuer
) -> None:
    allowed = (200, 403) if settings == {"accept_nonce": True} else (200,)  # it has no scope to read
    assert await status(issuer, settings, **claims) in allowed
    assert await status(issuer, {}, **claims) in (401, 403)
    assert await status(issuer, {}) == 200


@pytest.mark.requirement("CK-7")
async def test_the_issuer_of_the_metadata_is_no_iss_when_token_issuers_are_given(issuer: Issuer) -> None:
    """Only the listed values are accepted, exactly."""
    for iss in (ISS, ADFS + "/", ADFS.upper(), "https://fs.example.com/adfs/services/trust"):
        assert await status(issuer, {"token_issuers": [ADFS]}, iss=iss) == 401


@pytest.mark.requirement("CK-7")
async def test_keys_come_from_the_issuer_and_nothing_is_fetched_from_a_token_issuer(issuer: Issuer) -> None:
    """Metadata and keys are found once, whatever the number of values."""
    app = Caller()
    server = AuthServerConfig(issuer=ISS, token_issuers=[ADFS, "acme"])
    protected = protect(issuer, app, authorization_servers=[server])
    for iss in (ADFS, "acme"):
        assert (await call(protected, headers=bearer(token(issuer, iss=iss)))).status == 200
        assert app.issuer == iss
    assert dict(issuer.requests) == {METADATA: 1, "/jwks": 1}
    published = (await call(protected, "GET", path=PRM_PATH)).json()
    assert published["authorization_servers"] == [ISS]


@pytest.mark.requirement("CK-7", "RS-87")
async def test_a_subject_from_the_client_id_is_a_client(issuer: Issuer) -> None:
    app = Caller()
    assert await status(issuer, MACHINE, app, sub=...) == 200
    assert (app.subject, app.is_client) == ("c1", True)
    assert await status(issuer, MACHINE, app) == 200
    assert (app.subject, app.is_client) == ("alice", False)


@pytest.mark.requirement("CK-7", "RS-58")
async def test_an_unpublished_issuer_is_trusted_and_not_named(issuer: Issuer, clock: Clock) -> None:
    other = Issuer("https://other.example.com", algorithms=("RS256",), clock=clock)
    servers = [ISS, AuthServerConfig(issuer=other.url, jwks=other.jwks(), publish=False)]
    protected = protect(issuer, RecordingApp(), authorization_servers=servers)
    published = (await call(protected, "GET", path=PRM_PATH)).json()
    assert published["authorization_servers"] == [ISS]
    assert (await call(protected, headers=bearer(token(other)))).status == 200


WRONG_TYPE: Final[Any] = "yes"
PROBLEMS = [
    pytest.param([AuthServerConfig(issuer=ISS, publish=False)], "no issuer to publish", id="RS-58 none is published"),
    pytest.param(
        [ISS, AuthServerConfig(issuer="https://b.example.com", token_issuers=[ISS])],
        "listed more than once",
        id="CK-7 an iss that is the issuer of another",
    ),
    pytest.param(
        [
            AuthServerConfig(issuer=ISS, token_issuers=["x", ADFS]),
            AuthServerConfig(issuer="https://b.example.com", token_issuers=[ADFS]),
        ],
        "listed more than once",
        id="CK-7 an iss of two configurations",
    ),
    pytest.param([AuthServerConfig(issuer=ISS, token_issuers="x")], "not a list", id="CK-7 token_issuers, a string"),
    pytest.param([AuthServerConfig(issuer=ISS, token_issuers=[""])], "non-empty", id="CK-7 token_issuers, empty"),
    pytest.param(
        [AuthServerConfig(issuer=ISS, token_issuers=["x" * 513])], "longer than 512", id="CK-7 token_issuers, too long"
    ),
    pytest.param(
        [ISS, AuthServerConfig(issuer_pattern="https://*.id.example.com", token_issuers=["x"])],
        "cannot be combined",
        id="CK-7 token_issuers of a pattern",
    ),
    pytest.param(
        [
            AuthServerConfig(
                issuer="https://login.example.com/{tenant}", tenants=["t"], jwks_uri=ISS + "/k", token_issuers=["x"]
            )
        ],
        "cannot be combined",
        id="CK-7 token_issuers of a template",
    ),
    pytest.param([AuthServerConfig(issuer=ISS, subject_claims=[])], "is empty", id="CK-7 no subject claim"),
    pytest.param(
        [AuthServerConfig(issuer=ISS, subject_claims="sub")], "not a list", id="CK-7 subject_claims, a string"
    ),
    pytest.param(
        [AuthServerConfig(issuer=ISS, profile="at+jwt", subject_claims=["sub", "client_id"])],
        "reads the subject from sub only",
        id="CK-7 subject_claims under at+jwt",
    ),
    pytest.param([AuthServerConfig(issuer=ISS, scope_claims=["a..b"])], "empty member name", id="CK-7 an empty member"),
    *(
        pytest.param(
            [replace(AuthServerConfig(issuer=ISS), **{name: WRONG_TYPE})], "is not a bool", id=f"CK-7 {name}, a string"
        )
        for name in ("publish", "accept_nonce", "require_single_audience")
    ),
]


@pytest.mark.parametrize(("servers", "said"), PROBLEMS)
def test_settings_that_cannot_be_meant_are_refused(servers: list[Any], said: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match=said):
        protect(issuer, RecordingApp(), authorization_servers=servers)


@pytest.mark.requirement("CK-7")
async def test_a_resolver_answers_for_a_token_issuer(issuer: Issuer) -> None:
    """The configuration has to list the `iss` that it was asked about."""

    def resolver(iss: str) -> AuthServerConfig:
        return AuthServerConfig(issuer=issuer.url, token_issuers=[ADFS], jwks=issuer.jwks())

    other = AuthServerConfig(issuer="https://other.example.com", jwks=issuer.jwks())
    protected = protect(issuer, RecordingApp(), authorization_servers=[other, resolver])
    assert (await call(protected, headers=bearer(token(issuer, iss=ADFS)))).status == 200
    assert (await call(protected, headers=bearer(token(issuer, iss="http://fs.example.com/other")))).status == 503


SETTINGS: Final[dict[str, Any]] = {
    "issuer": ISS,
    "token_issuers": [ADFS, "acme"],
    "publish": False,
    "subject_claims": ["sub", "client_id"],
    "scope_claims": ["realm_access.roles", ROLES],
    "accept_nonce": True,
}
WHOLE: Final[dict[str, Any]] = {"resource": R, "authorization_servers": ["https://b.example.com", SETTINGS]}
TOML: Final = f"""
resource = "{R}"

[[authorization_servers]]
issuer = "https://b.example.com"

[[authorization_servers]]
issuer = "{ISS}"
token_issuers = ["{ADFS}", "acme"]
publish = false
subject_claims = ["sub", "client_id"]
scope_claims = ["realm_access.roles", "{ROLES}"]
accept_nonce = true
"""


def from_file(folder: Path) -> MCPAuth:
    file = folder / "mcp-auth.toml"
    file.write_text(TOML, "utf-8")
    return MCPAuth.from_toml(file)


def from_mapping(_: Path) -> MCPAuth:
    return MCPAuth.from_mapping(WHOLE)


def from_environment(_: Path) -> MCPAuth:
    servers = json.dumps(WHOLE["authorization_servers"])
    return MCPAuth.from_env({"MCP_AUTH_RESOURCE": R, "MCP_AUTH_AUTHORIZATION_SERVERS": servers})


@pytest.mark.requirement("CK-7")
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(from_file, id="TOML"),
        pytest.param(from_mapping, id="a mapping"),
        pytest.param(from_environment, id="the environment"),
    ],
)
def test_every_notation_has_the_settings_of_python(read: Callable[[Path], MCPAuth], tmp_path: Path) -> None:
    servers = read(tmp_path).configs[0].metadata.authorization_servers
    assert servers[1] == AuthServerConfig(**SETTINGS)


@pytest.mark.requirement("CK-7")
def test_the_schema_has_the_settings() -> None:
    schema: Any = Draft202012Validator(config_schema(settings_of(Settings), SHORTHAND))
    for good in (WHOLE, tomllib.loads(TOML)):
        schema.validate(good)
    for name in ("token_issuers", "publish", "subject_claims", "accept_nonce"):
        assert not schema.is_valid(WHOLE | {"authorization_servers": [SETTINGS | {name: 5}]})
