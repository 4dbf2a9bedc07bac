"""The provider guides: their settings accept tokens of the provider's shape, and two providers are walked through."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Clock, R
from jwt.algorithms import RSAAlgorithm
from processes import authorization_server, free_port, importing_from, require_authorization_server, running
from provider_tokens import (
    AUTH0,
    AUTHENTIK_GROUPS,
    CLERK,
    COGNITO_NO_AUD,
    DESCOPE,
    ENTRA_V2,
    GOOGLE_ID_TOKEN,
    KEYCLOAK,
    LOGTO,
    OKTA,
    SUPABASE_HOOK,
    WORKOS,
    ZITADEL,
    ProviderToken,
)
from proxies import require_program

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata, providers
from asgi_mcp_auth.doctor import explain
from asgi_mcp_auth.errors import Reason
from asgi_mcp_auth.testing import SigningKey

GUIDES = (Path(str(providers.__file__)).parent / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent
SHAPES = {
    "Keycloak": KEYCLOAK,
    "Entra ID": ENTRA_V2,
    "Auth0": AUTH0,
    "Okta": OKTA,
    "Amazon Cognito": COGNITO_NO_AUD,
    "WorkOS": WORKOS,
    "Logto": LOGTO,
    "Clerk": CLERK,
    "Descope": DESCOPE,
    "ZITADEL": ZITADEL,
    "authentik": AUTHENTIK_GROUPS,
    "Supabase": SUPABASE_HOOK,
}
WALKED = {"oidc-provider", "glewlwyd"}

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def guide(name: str) -> str:
    """The text of one guide."""
    return re.split(rf"^### {name}$", GUIDES, flags=re.MULTILINE)[1].split("\n### ")[0].split("\n## ")[0]


def block(name: str, language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", guide(name), flags=re.MULTILINE | re.DOTALL)
    return str(found)


def with_keys(shape: ProviderToken, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a guide, with the keys of the shape in place of discovery."""
    [entry] = settings["authorization_servers"]
    server = {"issuer": entry} if isinstance(entry, str) else dict(entry)
    return {**settings, "authorization_servers": [server | {"jwks": shape.jwks()}]}


@pytest.mark.parametrize(
    ("name", "shape"),
    [pytest.param(*each, id=each[0]) for each in SHAPES.items()],
)
async def test_the_settings_of_a_guide_accept_a_token_of_the_provider(
    name: str, shape: ProviderToken, clock: Clock
) -> None:
    settings = tomllib.loads(block(name, "toml"))
    assert settings["resource"] == R
    auth = MCPAuth.from_mapping(with_keys(shape, settings), clock=clock)
    explanation = await explain(auth, shape.token(clock))
    assert explanation.accepted, str(explanation)


async def test_an_id_token_of_google_is_rejected(clock: Clock) -> None:
    google = AuthServerConfig(issuer=GOOGLE_ID_TOKEN.issuer, jwks=GOOGLE_ID_TOKEN.jwks())
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[google])
    auth = MCPAuth(ResourceServerConfig(metadata=metadata), clock=clock)
    explanation = await explain(auth, GOOGLE_ID_TOKEN.token(clock))
    assert (explanation.accepted, explanation.reason) == (False, Reason.WRONG_TOKEN_KIND)


def test_every_guide_states_what_was_verified_and_names_real_reasons() -> None:
    text = GUIDES.partition("\n## Guides\n")[2]
    names = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    assert set(names) == {*SHAPES, *WALKED, "Google"}
    reasons = {reason.value for reason in Reason}
    for name in names:
        assert guide(name).strip().startswith("Verified: "), name
        assert set(re.findall(r"^\| `(\w+)`", guide(name), flags=re.MULTILINE)) <= reasons


# --- walked through -------------------------------------------------------------------------------------------------


def walk(name: str, issuer: str, directory: Path) -> None:
    """Run the commands of a guide at another URL: a token by curl, the doctor, and explain with the token."""
    [here] = set(re.findall(r"http://127\.0\.0\.1:\d+\S*?(?= --scope|\n)", block(name, "sh"))) - {""}
    curl, doctor, explained = block(name, "sh").replace(here, issuer).splitlines()
    env = os.environ | importing_from(directory, {"PATH": f"{BIN}:{os.environ['PATH']}", "NO_PROXY": "*"})

    def sh(command: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], env=env, cwd=directory, input=given, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    answer = sh(curl)
    token = json.loads(answer.stdout)["access_token"]
    examined = sh(doctor)
    assert "keys_usable" in examined.stdout, examined.stdout + examined.stderr
    done = sh(explained, token)
    assert done.returncode == 0, done.stdout + done.stderr


def test_oidc_provider_is_walked_through(tmp_path: Path) -> None:
    require_authorization_server()
    with authorization_server() as server:
        walk("oidc-provider", server.issuer, tmp_path)


GLEWLWYD = """\
port={port}
bind_address="127.0.0.1"
external_url="{url}/"
login_url="login.html"
api_prefix="api"
log_mode="console"
log_level="WARNING"
cookie_secure=0
session_key="session"
session_expiration=3600
admin_scope="g_admin"
profile_scope="g_profile"
admin_session_authentication="cookie"
profile_session_authentication="cookie"
user_module_path="/usr/lib/glewlwyd/user"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database = {{ type = "sqlite3"; path = "{directory}/glewlwyd.db"; }};
"""


@contextlib.contextmanager
def glewlwyd(directory: Path) -> Generator[str]:
    """Run glewlwyd, configured by its administration API as the guide says; yield the issuer."""
    program = require_program("glewlwyd", "glewlwyd")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    tables = Path("/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3").read_text("utf-8")
    with contextlib.closing(sqlite3.connect(directory / "glewlwyd.db")) as database:
        database.executescript(tables)
    (directory / "glewlwyd.conf").write_text(GLEWLWYD.format(port=port, url=url, directory=directory))
    key: dict[str, Any] = RSAAlgorithm.to_jwk(SigningKey("RS256").private, as_dict=True)
    jwk = {name: value for name, value in key.items() if name != "key_ops"} | {"kid": "k1", "alg": "RS256"}
    with (
        running([program, f"--config-file={directory}/glewlwyd.conf"], ready_port=port, cwd=directory),
        httpx.Client(base_url=url, trust_env=False) as admin,
    ):

        def add(path: str, **members: Any) -> None:
            admin.post(f"/api/{path}", json=members).raise_for_status()

        add("auth", username="admin", password="password")
        add("scope", name="mcp:read", display_name="Read", password_required=False)
        settings = {
            "iss": f"{url}/api/oidc",
            "jwt-type": "rsa",
            "jwt-key-size": "256",
            "jwks-private": json.dumps({"keys": [jwk]}),
            "default-kid": "k1",
            "jwks-show": True,
            "access-token-duration": 3600,
            "refresh-token-duration": 3600,
            "code-duration": 600,
            "auth-type-client-enabled": True,
            "allow-non-oidc": True,
            "subject-type": "public",
            "resource-allowed": True,
            "resource-scope": {"mcp:read": [R]},
            "resource-client-property": "resource",
            "resource-scope-and-client-property": False,
        }
        add("mod/plugin", module="oidc", name="oidc", display_name="OIDC", parameters=settings)
        add(
            "client",
            client_id="m2m",
            confidential=True,
            client_secret="m2m-secret",
            password="m2m-secret",
            enabled=True,
            authorization_type=["client_credentials"],
            scope=["mcp:read"],
            token_endpoint_auth_method=["client_secret_basic"],
            redirect_uri=[],
        )
        yield f"{url}/api/oidc"


@pytest.mark.full
def test_glewlwyd_is_walked_through(tmp_path: Path) -> None:
    with glewlwyd(tmp_path) as issuer:
        walk("glewlwyd", issuer, tmp_path)
