"""Servers behind a real nginx with the configuration from the README: nginx ends TLS and cuts /api off the path.

What `test_stacks` asks a server is asked through the proxy: websockets, unbuffered streams and disconnects included.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import AsgiServer, free_port
from proxies import certificates, nginx, readme_block, require_program
from test_stacks import (
    PROBES,
    SERVERS,
    Stack,
    claims,
    disconnect,
    insufficient,
    metadata,
    serving,
    streaming,
    unauthenticated,
    websocket_accepted,
    websocket_refused,
)

from asgi_mcp_auth.testing import Issuer

PUBLIC = "https://www.example.com/api"
APPS = ("starlette-native", "raw-wrap")
DOCUMENTS = "location /.well-known/oauth-protected-resource/api/ {"
LIES = {
    "host": "evil.example",
    "x-forwarded-host": "evil.example",
    "x-forwarded-server": "evil.example",
    "x-forwarded-proto": "http",
    "x-forwarded-prefix": "/evil",
    "x-forwarded-for": "192.0.2.1",
    "x-original-url": "/evil",
    "forwarded": "for=192.0.2.1;host=evil.example;proto=http",
}
ROOT_PATH_OPTIONS = {
    "uvicorn": "--root-path",
    "hypercorn": "--root-path",
    "hypercorn-trio": "--root-path",
    "granian": "--url-path-prefix",
    "daphne": "--root-path",
    "gunicorn": "--root-path",
}


def configured(directory: Path, port: int, upstream: AsgiServer) -> str:
    """Return the configuration from the README with the ports and files of the test."""
    config = readme_block("nginx", "server_name").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    for name in ("server.pem", "server.key"):
        config, replaced = re.subn(rf"/etc/ssl/\S+{Path(name).suffix};", f"{directory / name};", config)
        assert replaced == 1
    return config.replace("127.0.0.1:8000", f"127.0.0.1:{upstream.port}")


class Proxied:
    """The servers behind nginx; each is started on first use."""

    def __init__(self, directory: Path, issuer: Issuer) -> None:
        self.directory = directory
        self.issuer = issuer
        self.tls = certificates(directory)
        self._stack = contextlib.ExitStack()
        self._started: dict[tuple[str, bool], tuple[str, AsgiServer]] = {}

    def __call__(self, server: str, app: str, *, knows_root_path: bool = True) -> Stack:
        if (server, knows_root_path) not in self._started:
            more = [ROOT_PATH_OPTIONS[server], "/api"] if knows_root_path else []
            upstream = self._stack.enter_context(serving(server, APPS, self.issuer, more, PUBLIC))
            port = free_port()
            own = self.directory / f"{server}-{knows_root_path}"
            own.mkdir()
            self._stack.enter_context(nginx(configured(self.directory, port, upstream), port, own))
            self._started[server, knows_root_path] = (f"https://127.0.0.1:{port}/api", upstream)
        url, _ = self._started[server, knows_root_path]
        return Stack(url, SERVERS[server], app, self.issuer, PUBLIC, self.tls)

    def upstream(self, server: str) -> AsgiServer:
        """Return the server behind nginx that has a root path option."""
        return self._started[server, True][1]

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://auth.example.com")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[Proxied]:
    require_program("nginx", "nginx-light")
    made = Proxied(tmp_path_factory.mktemp("nginx"), issuer)
    yield made
    made.close()


@contextlib.contextmanager
def asking(stack: Stack) -> Generator[Stack]:
    with stack.client:
        yield stack


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.__name__)
@pytest.mark.parametrize(
    ("server", "app"),
    [
        pytest.param(
            server,
            app,
            id=f"RS-31 RS-53 {app}-on-{server}",
            marks=[] if (server, app) == ("uvicorn", "starlette-native") else [pytest.mark.full],
        )
        for server in ROOT_PATH_OPTIONS
        for app in (APPS if server == "uvicorn" else APPS[:1])
    ],
)
def test_a_server_behind_nginx_passes_every_probe(
    server: str, app: str, probe: Callable[[Stack], None], proxied: Proxied
) -> None:
    with asking(proxied(server, app)) as stack:
        probe(stack)


@pytest.mark.parametrize(
    "probe",
    [metadata, unauthenticated, claims, websocket_refused, websocket_accepted, streaming, disconnect],
    ids=lambda probe: probe.__name__,
)
def test_a_server_without_a_root_path_option_serves_the_resource(
    probe: Callable[[Stack], None], proxied: Proxied
) -> None:
    """Without `--root-path` the metadata document, the challenge and the app are served."""
    with asking(proxied("uvicorn", "raw-wrap", knows_root_path=False)) as stack:
        probe(stack)


@pytest.mark.requirement("RS-2")
def test_a_rule_does_not_fail_open_if_the_server_has_no_root_path_option(proxied: Proxied) -> None:
    with asking(proxied("uvicorn", "raw-wrap", knows_root_path=False)) as stack:
        assert stack.get("admin").status_code == 400
        assert stack.get("whoami").status_code == 200
    with asking(proxied("uvicorn", "raw-wrap")) as stack:
        insufficient(stack)


@pytest.mark.full
@pytest.mark.parametrize("claimed", ["/evil", "/api/raw-wrap"], ids="RS-2 {}".format)
def test_a_root_path_that_a_client_sends_does_not_reach_daphne(claimed: str, proxied: Proxied) -> None:
    with asking(proxied("daphne", "raw-wrap")) as stack:
        lie = {"daphne-root-path": claimed}
        assert [stack.get(path, **lie).status_code for path in ("whoami", "admin")] == [200, 403]
        direct = f"http://127.0.0.1:{proxied.upstream('daphne').port}/raw-wrap/admin"
        assert httpx.get(direct, headers=stack.bearer() | lie, trust_env=False).status_code in (400, 403)


@pytest.mark.parametrize("lies", [*({name: value} for name, value in LIES.items()), LIES], ids=" ".join)
@pytest.mark.parametrize("app", APPS)
def test_forged_forwarding_fields_do_not_change_published_urls(
    app: str, lies: dict[str, str], proxied: Proxied
) -> None:
    with asking(proxied("uvicorn", app)) as stack:
        document = stack.get_document(**lies)
        refused = stack.client.get(f"{stack.url}/whoami", headers=lies)
        forbidden = stack.get("admin", **lies)
        assert (document.status_code, refused.status_code, forbidden.status_code) == (200, 401, 403)
        assert document.json()["resource"] == f"{PUBLIC}/{app}"
        for answer in (refused, forbidden):
            url = f"https://www.example.com/.well-known/oauth-protected-resource/api/{app}"
            assert f'resource_metadata="{url}"' in answer.headers["www-authenticate"]
        for answer in (document, refused, forbidden):
            sent = answer.text + str(answer.headers)
            assert "evil" not in sent
            assert "http://" not in sent
        assert stack.get("whoami", **lies).json()["sub"] == "alice"


@pytest.mark.requirement("RS-53")
def test_the_log_names_the_path_that_the_proxy_must_route(proxied: Proxied, tmp_path: Path) -> None:
    """Without its second location nginx does not serve the metadata document; the log names the path to route."""
    with asking(proxied("uvicorn", "raw-wrap")) as stack:
        unauthenticated(stack)
        path = "/.well-known/oauth-protected-resource/api/raw-wrap"
        assert (
            f"Mounted below '/api': {path} of the host root has to be routed"
            in proxied.upstream("uvicorn").process.output
        )
        port = free_port()
        config = configured(proxied.directory, port, proxied.upstream("uvicorn"))
        assert config.count(DOCUMENTS) == 1
        with nginx(config.replace(DOCUMENTS, "location /elsewhere/ {"), port, tmp_path):
            missing = httpx.get(f"https://127.0.0.1:{port}{path}", verify=proxied.tls, trust_env=False)
        assert missing.status_code == 404


@pytest.mark.requirement("RS-16")
def test_a_long_token_passes(proxied: Proxied) -> None:
    """The default limit of header fields in nginx and in gunicorn is 8 KB."""
    with asking(proxied("uvicorn", "raw-wrap")) as stack:
        claim: dict[str, Any] = {"groups": ["x" * 100] * 85}
        raw = stack.issuer.mint(stack.resource, scope="mcp:read", **claim)
        assert 11_000 < len(raw) < 16_384
        assert stack.get("whoami", authorization=f"Bearer {raw}").json()["sub"] == "alice"
