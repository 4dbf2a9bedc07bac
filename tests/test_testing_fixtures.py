"""`asgi_mcp_auth.testing.fixtures`, `without_network` and `base_url`: an existing app, tested unchanged."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness import ISS, Clock, R, RecordingApp, bearer, call, token
from starlette.testclient import TestClient

from asgi_mcp_auth import AuthServerConfig, MCPAuth, ResourceServerConfig, ResourceServerMetadata, testing
from asgi_mcp_auth.config import AuthorizationServerMetadata
from asgi_mcp_auth.testing import Issuer, base_url, without_network

pytest_plugins = ["pytester", "asgi_mcp_auth.testing.fixtures"]

README = (Path(testing.__file__).parent / "README.md").read_text("utf-8")
ROOT = str(Path(__file__).parent.parent)

OAUTH = "/.well-known/oauth-authorization-server"


def configured(*servers: str | AuthServerConfig, resource: str = R, clock: Callable[[], float]) -> MCPAuth:
    """Return the MCPAuth of an app in production: its issuers cannot be reached from the tests."""
    remote = Issuer(ISS, algorithms=())
    remote.cut()
    metadata = ResourceServerMetadata(resource=resource, authorization_servers=list(servers or (ISS,)))
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
        assert (await call(app, headers=of_other)).status == 401
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
async def test_all_configured_urls_reach_the_issuer_of_the_test(
    clock: Clock, config: str | AuthServerConfig, issuer_url: str
) -> None:
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


# --- base_url -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "origin"),
    [
        pytest.param(R, "https://mcp.example.com", id="https"),
        pytest.param("http://127.0.0.1:8000/mcp", "http://127.0.0.1:8000", id="RS-223 loopback"),
        pytest.param("http://localhost/mcp/", "http://localhost", id="RS-223 loopback without a port"),
        pytest.param("http://[::1]:8000/mcp", "http://[::1]:8000", id="RS-223 loopback, IPv6"),
    ],
)
def test_a_test_client_with_the_base_url_passes_the_host_check(issuer: Issuer, resource: str, origin: str) -> None:
    auth = configured(resource=resource, clock=issuer.clock)
    assert base_url(auth) == origin
    client = TestClient(auth.wrap(RecordingApp()), base_url=base_url(auth))
    path = urlsplit(resource).path
    with without_network(auth, issuer):
        assert client.get(path).status_code == 401
        token = issuer.mint(resource)
        assert client.get(path, headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.requirement("RS-223")
def test_the_log_names_the_fix_for_the_default_host_of_test_clients(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The check itself makes no exception for tests."""
    client = TestClient(configured(resource="http://127.0.0.1:8000/mcp", clock=clock).wrap(RecordingApp()))
    assert client.get("/mcp").status_code == 421
    assert "pass base_url=asgi_mcp_auth.testing.base_url(auth) to the test client" in caplog.text
    assert client.get("/mcp", headers={"host": "evil.example"}).status_code == 421
    assert 'expected="the host of a resource, or a host in allowed_hosts" found=evil.example' in caplog.text


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
async def test_tokens_are_minted_for_the_first_resource(
    mcp_auth: MCPAuth, mcp_bearer: Bearer, mcp_issuer: Issuer
) -> None:
    app = RecordingApp()
    answer = await call(mcp_auth.wrap(app), headers=mcp_bearer("a b", sub="bob", tid="t1"))
    claims = answer.json()
    assert (answer.status, claims["sub"], claims["scope"], claims["aud"]) == (200, "bob", "a b", R)
    assert (claims["iss"], claims["iat"]) == (mcp_issuer.url, int(CLOCK.now))


def test_urls_of_the_first_resource(mcp_url: str, mcp_base_url: str) -> None:
    assert (mcp_url, mcp_base_url) == (R, "https://mcp.example.com")


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


def test_a_missing_mcp_auth_fixture_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone(monkeypatch)
    pytester.makepyfile("from asgi_mcp_auth.testing.fixtures import *\n\ndef test_it(mcp_token): mcp_token()")
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*define a fixture mcp_auth that returns the MCPAuth of your app*"])


def test_the_examples_of_the_readme_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of the kit's README are the files of one test suite: the first line of each names its file."""
    alone(monkeypatch)
    blocks = re.findall(r"```python\n(# (\w+\.py)\n.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == README.count("```python")
    for text, name in blocks:
        (pytester.path / name).write_text(text, "utf-8")
    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-p", "anyio", "-s", "-k", "not trio")
    outcomes = done.parseoutcomes()
    assert set(outcomes) == {"passed", "deselected"}
    assert outcomes["passed"] >= README.count("def test_")
    (report,) = re.findall(r"```text\n(1\. GET .*?)```", README, flags=re.DOTALL)
    assert report in done.stdout.str()


def test_the_readme_lists_the_fixtures_and_the_names_of_the_kit() -> None:
    from asgi_mcp_auth.testing import fixtures  # pytest rewrites its assertions when it loads the plugin

    listed = set(re.findall(r"^\| `(\w+)", README, flags=re.MULTILINE))
    results = {"Challenge", "SigningKey", "Step", "ToolCall", "Walk", "WalkError", "parse_challenges"}
    assert listed >= set(testing.__all__) - results
    assert listed >= set(fixtures.__all__)
