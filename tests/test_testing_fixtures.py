"""`asgi_mcp_auth.testing.fixtures`, `without_network` and `base_url`: an existing app, tested unchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call, token

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata
from asgi_mcp_auth.metadata import AuthorizationServerMetadata
from asgi_mcp_auth.testing import Issuer, without_network

pytest_plugins = ["pytester", "asgi_mcp_auth.testing.fixtures"]

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
ROOT = str(Path(__file__).parent.parent)

OAUTH = "/.well-known/oauth-authorization-server"


def configured(*servers: str | AuthServerConfig, clock: Callable[[], float]) -> MCPAuth:
    """Return the MCPAuth of an app in production: its issuers cannot be reached from the tests."""
    remote = Issuer(ISS, algorithms=())
    remote.cut()
    metadata = ResourceServerMetadata(resource=R, authorization_servers=list(servers or (ISS,)))
    return MCPAuth(ResourceServerConfig(metadata=metadata), http_client=remote.http_client, clock=clock)


# --- without_network ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_tokens_are_accepted_within_the_block_only(issuer: Issuer) -> None:
    auth = configured(clock=issuer.clock)
    app = auth.wrap(RecordingApp())
    good = bearer(token(issuer))
    with without_network(auth, issuer):
        assert [(await call(app, headers=good)).status for _ in range(2)] == [200, 200]
        assert issuer.requests == {OAUTH: 1, "/jwks": 1}
        assert auth.status().ready
    assert not auth.status().ready
    assert (await call(app, headers=good)).status == 503


@pytest.mark.anyio
async def test_each_block_starts_with_empty_caches(issuer: Issuer, clock: Clock) -> None:
    """Keys, verified tokens, unknown kids and pauses after failures do not outlive a block."""
    auth = configured(clock=clock)
    app = auth.wrap(RecordingApp())
    other = Issuer(ISS, algorithms=("ES256",), clock=clock)
    of_issuer, of_other = bearer(token(issuer)), bearer(token(other))
    with without_network(auth, issuer):
        assert (await call(app, headers=of_issuer)).status == 200
        assert (await call(app, headers=of_other)).status == 503
    with without_network(auth, other):
        assert (await call(app, headers=of_other)).status == 200
        assert (await call(app, headers=of_issuer)).status != 200
    issuer.fail()
    with without_network(auth, issuer):
        assert (await call(app, headers=of_issuer)).status == 503
    issuer.heal()
    with without_network(auth, issuer):
        assert (await call(app, headers=of_issuer)).status == 200


@pytest.mark.anyio
async def test_an_exception_ends_the_block(issuer: Issuer) -> None:
    auth = configured(clock=issuer.clock)
    app = auth.wrap(RecordingApp())

    async def use() -> None:
        with without_network(auth, issuer):
            assert (await call(app, headers=bearer(token(issuer)))).status == 200
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()
    assert (await call(app, headers=bearer(token(issuer)))).status == 503


TENANT = "https://login.example.com/t1/v2.0"


@pytest.mark.parametrize(
    ("config", "issuer_url"),
    [
        pytest.param(ISS, ISS, id="DC-1 an issuer"),
        pytest.param(f"{ISS}/", f"{ISS}/", id="DC-2 an issuer with a slash"),
        pytest.param(f"{ISS}/t", f"{ISS}/t", id="DC-1 an issuer with a path"),
        pytest.param(AuthServerConfig(issuer=ISS, jwks_uri="https://keys.example.net/all"), ISS, id="DC-13 its keys elsewhere"),
        pytest.param(AuthServerConfig(issuer=ISS, metadata_url=f"{ISS}/meta.json"), ISS, id="its metadata elsewhere"),
        pytest.param(AuthServerConfig(metadata=AuthorizationServerMetadata(issuer=ISS)), ISS, id="metadata by hand"),
        pytest.param(AuthServerConfig(metadata=AuthorizationServerMetadata(issuer=ISS, jwks_uri=f"{ISS}/k")), ISS, id="metadata by hand, with keys"),
        pytest.param(AuthServerConfig(issuer_pattern="https://*.example.com"), ISS, id="DC-15 an issuer by pattern"),
    ],
)  # fmt: skip
@pytest.mark.anyio
async def test_all_configured_urls_reach_the_issuer_of_the_test(clock: Clock, config: str | AuthServerConfig, issuer_url: str) -> None:
    issuer = Issuer(issuer_url, algorithms=("ES256",), clock=clock)
    auth = configured(
        config,
        *(() if isinstance(config, str) or config.issuer_pattern is None else ["https://x.example"]),
        clock=clock,
    )
    app = auth.wrap(RecordingApp())
    with without_network(auth, issuer):
        assert (await call(app, headers=bearer(token(issuer)))).status == 200


@pytest.mark.anyio
async def test_other_hosts_cannot_be_reached(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    auth = configured(ISS, "https://other.example.com", clock=issuer.clock)
    app = auth.wrap(RecordingApp())
    other = Issuer("https://other.example.com", algorithms=("ES256",), clock=issuer.clock)
    with without_network(auth, issuer):
        assert (await call(app, headers=bearer(token(other)))).status == 503
    assert "nothing in this test serves https://other.example.com" in caplog.text


@pytest.mark.anyio
async def test_static_keys_are_not_replaced(issuer: Issuer) -> None:
    auth = configured(AuthServerConfig(issuer=ISS, jwks=issuer.jwks()), clock=issuer.clock)
    app = auth.wrap(RecordingApp())
    forger = Issuer(ISS, algorithms=("ES256",), clock=issuer.clock)
    with without_network(auth, forger):
        assert (await call(app, headers=bearer(token(issuer)))).status == 200
        assert (await call(app, headers=bearer(token(forger)))).status == 401
    assert (await call(app, headers=bearer(token(issuer)))).status == 200


# --- the fixtures ---------------------------------------------------------------------------------------------------

CLOCK = Clock()
CONFIGURATIONS = {
    "an issuer": configured(ISS, "https://other.example.com", clock=CLOCK),
    "one algorithm": configured(AuthServerConfig(issuer=ISS, algorithms=["ES384"]), clock=CLOCK),
    "tenants": configured(
        AuthServerConfig(
            issuer="https://login.example.com/{tenantid}/v2.0",
            tenants=["t1"],
            metadata_url="https://login.example.com/common/v2.0/.well-known/openid-configuration",
        ),
        clock=CLOCK,
    ),
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def mcp_auth(request: pytest.FixtureRequest) -> MCPAuth:
    return CONFIGURATIONS[str(request.param)]


Bearer = Callable[..., dict[str, str]]


@pytest.mark.anyio
async def test_tokens_are_minted_for_the_first_resource(mcp_auth: MCPAuth, mcp_bearer: Bearer, mcp_issuer: Issuer) -> None:
    app = RecordingApp()
    answer = await call(mcp_auth.wrap(app), headers=mcp_bearer("a b", sub="bob", tid="t1"))
    claims = answer.json()
    assert (answer.status, claims["sub"], claims["scope"], claims["aud"]) == (200, "bob", "a b", R)
    assert (claims["iss"], claims["iat"]) == (mcp_issuer.url, int(CLOCK.now))


@pytest.mark.anyio
@pytest.mark.parametrize("claims", [{"exp": 0}, {"aud": "https://else.example.com"}, {"sub": ...}])
async def test_changed_tokens_are_rejected(mcp_auth: MCPAuth, mcp_bearer: Bearer, claims: dict[str, Any]) -> None:
    answer = await call(mcp_auth.wrap(RecordingApp()), headers=mcp_bearer("a", tid="t1", **claims))
    assert answer.status == 401


@pytest.mark.anyio
@pytest.mark.parametrize("first", [True, False])
async def test_each_test_has_a_healthy_issuer(
    mcp_auth: MCPAuth, mcp_token: Callable[..., str], mcp_issuer: Issuer, first: bool
) -> None:
    """Faults, keys and counts of one test do not reach the next one."""
    assert not mcp_issuer.requests
    app = mcp_auth.wrap(RecordingApp())
    assert (await call(app, headers=bearer(mcp_token(tid="t1")))).status == 200
    mcp_issuer.rotate(keep=False)
    CLOCK.now += 3600
    assert (await call(app, headers=bearer(mcp_token(tid="t1")))).status == 200
    mcp_issuer.fail()
    CLOCK.now += 100_000
    assert (await call(app, headers=bearer(mcp_token(tid="t1")))).status == 503


# --- in the test suite of a user ---------------------------------------------------------------------------------------------


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a pytest process this package and none of the installed plugins."""
    monkeypatch.setenv("PYTHONPATH", ROOT, prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_no_pytest_plugin_is_registered() -> None:
    assert [entry.value for entry in entry_points(group="pytest11") if "asgi_mcp_auth" in entry.value] == []


def test_a_missing_mcp_auth_fixture_is_a_usage_error(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    pytester.makepyfile("from asgi_mcp_auth.testing.fixtures import *\n\ndef test_it(mcp_token): mcp_token()")
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*define a fixture mcp_auth that returns the MCPAuth of your app*"])


def snippets() -> dict[str, str]:
    """The README's Python, by the file that the first line names, or by what it defines."""
    found = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    named = {match[1]: text for text in found if (match := re.match(r"# (\w+\.py)\n", text))}
    (auth,) = (text for text in found if text.startswith("from asgi_mcp_auth import (\n    AuthServerConfig,\n    AuthServerType,\n    MCPAuth,"))  # fmt: skip
    (api,) = (text for text in found if "api = FastAPI()" in text)
    return named | {"notes.py": f"async def app(scope, receive, send): ...\n{auth}\n{api}"}


def test_the_readmes_test_suite_of_a_fastapi_app(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    alone(monkeypatch)
    files = snippets()
    for name in ("notes.py", "conftest.py", "test_notes.py"):
        (pytester.path / name).write_text(files[name], "utf-8")
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-p", "anyio", "-s", "-k", "not trio")
    done.assert_outcomes(passed=files["test_notes.py"].count("def test_"), deselected=1)
    (report,) = re.findall(r"```text\n(1\. GET .*?)```", README, flags=re.DOTALL)
    assert report in done.stdout.str()
    assert len(files["conftest.py"].split("\n")) < 14
