"""Every recipe is run as a process: servers, clients, tests, and the configurations of other programs."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastmcp import Client
from processes import Process, free_port, importing_from, running
from prometheus_client.parser import text_string_to_metric_families
from proxies import TEMPORARY, certificates, require_program
from redis_servers import redis

import asgi_mcp_auth
from asgi_mcp_auth import ConfigurationError, MCPAuth
from asgi_mcp_auth._oauth.token_exchange import EXCHANGE_GRANT
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.cli._recipes import recipe_names
from asgi_mcp_auth.errors import Reason

yaml: Any = importlib.import_module("yaml")
pytestmark = pytest.mark.full  # a process for each recipe

RECIPES = Path(str(asgi_mcp_auth.__file__)).parent / "recipes"
BIN = Path(sys.executable).parent
SECRET = "recipe-secret"
BROWSER = """\
import sys
import httpx
from clients import allow
httpx.get(allow(sys.argv[1]), trust_env=False).raise_for_status()
"""


def browser(directory: Path) -> dict[str, str]:
    """The environment of a program whose browser is a script that allows whatever a consent page asks."""
    (directory / "browser.py").write_text(BROWSER)
    command = shlex.join([sys.executable, str(directory / "browser.py")])
    return importing_from(Path(__file__).parent, {"BROWSER": f"{command} %s &"})


class Issuer:
    """The development authorization server as a process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def token(self, resource: str, scope: str = "notes:read") -> str:
        data = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        answer = httpx.post(f"{self.url}/token", data=data, auth=("curl", SECRET), trust_env=False)
        return str(answer.raise_for_status().json()["access_token"])


@contextlib.contextmanager
def dev_server(*options: str) -> Generator[Issuer]:
    port = free_port()
    argv = [str(BIN / "asgi-mcp-auth"), "dev-server", f"--port={port}", f"--curl-secret={SECRET}", *options]
    with running(argv, ready_port=port):
        yield Issuer(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with dev_server() as started:
        yield started


@contextlib.contextmanager
def served(
    directory: Path, recipe: str, issuer: str, *, resource: str | None = None, command: str = "uvicorn {module}:app"
) -> Generator[tuple[str, Process]]:
    """Copy a Python recipe and run it as its docstring says; yield its origin and the process."""
    shutil.copy(RECIPES / recipe, directory)
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    program, *arguments = shlex.split(command.format(module=Path(recipe).stem))
    assert command.format(module=Path(recipe).stem) in (RECIPES / recipe).read_text("utf-8")
    env = {"RESOURCE": resource or f"{origin}/mcp", "ORIGIN": origin, "ISSUER": issuer}
    argv = [str(BIN / program), *arguments, f"--port={port}"]
    with running(argv, ready_port=port, cwd=directory, env=importing_from(directory, env)) as process:
        yield origin, process


def tool(url: str, token: str | None, name: str, arguments: Mapping[str, Any] | None = None) -> Any:
    async def run() -> Any:
        async with Client(url, auth=token) as client:
            return ((await client.call_tool(name, dict(arguments or {}))).structured_content or {})["result"]

    return anyio.run(run)


def refused(url: str, token: str | None, name: str) -> httpx.Response:
    """The response to a call of a tool that the token may not use."""
    message: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": name, "arguments": {}},
    }
    fields = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.post(url, json=message, headers=fields, trust_env=False)


def get(url: str, token: str | None = None, **fields: str) -> httpx.Response:
    headers = fields if token is None else fields | {"authorization": f"Bearer {token}"}
    return httpx.get(url, headers=headers, trust_env=False, timeout=20.0)


def test_fastmcp_scopes_and_the_client(issuer: Issuer, tmp_path: Path) -> None:
    with served(tmp_path, "fastmcp_scopes.py", issuer.url) as (origin, _):
        url = f"{origin}/mcp"
        low, writer = issuer.token(url), issuer.token(url, "notes:read notes:write")
        assert tool(url, writer, "create_note", {"text": "milk"}) == "milk"
        assert tool(url, writer, "list_notes") == ["milk"]
        challenge = refused(url, low, "purge")
        assert challenge.status_code == 403
        assert 'scope="notes:read notes:admin"' in challenge.headers["www-authenticate"]
        command = [sys.executable, str(RECIPES / "client.py"), url]
        for arguments, printed in ((["create_note", '{"text": "eggs"}'], "eggs\n"), (["purge"], "2\n")):
            done = subprocess.run(
                [*command, *arguments], env=os.environ | browser(tmp_path), capture_output=True, text=True, timeout=60,
                check=False,
            )  # fmt: skip
            assert (done.stdout[-len(printed) :], done.returncode) == (printed, 0), done.stderr


def test_dpop(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED_SECRET", "s" * 32)
    with served(tmp_path, "dpop_server.py", issuer.url) as (origin, _):
        url = f"{origin}/mcp"
        plain = httpx.post(url, headers={"authorization": f"Bearer {issuer.token(url)}"}, trust_env=False)
        assert (plain.status_code, plain.headers["www-authenticate"][:4]) == (401, "DPoP")
        argv = [sys.executable, str(RECIPES / "dpop_client.py"), url, issuer.url]
        env = {**os.environ, "CLIENT_SECRET": SECRET}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout.splitlines() == ["curl", "A thief without the key gets 401."]


def test_mixed_auth(issuer: Issuer, tmp_path: Path) -> None:
    with served(tmp_path, "mixed_auth.py", issuer.url) as (origin, _):
        url = f"{origin}/mcp"
        writer = issuer.token(url, "notes:read notes:write")
        assert tool(url, None, "search", {"text": "library"}) == ["The library opens at nine."]
        assert tool(url, None, "greet") == "Hello!"
        assert tool(url, writer, "greet") == "Hello curl!"
        assert tool(url, writer, "create_note", {"text": "milk"}) == "milk"
        challenge = refused(url, None, "create_note")
        assert challenge.status_code == 401
        assert 'scope="notes:read notes:write"' in challenge.headers["www-authenticate"]
        assert refused(url, "x", "greet").status_code == 401


def test_opaque_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    with dev_server("--dialect=google") as server, served(tmp_path, "opaque_tokens.py", server.url) as (origin, _):
        token = server.token(f"{origin}/mcp")
        assert token.count(".") != 2
        assert tool(f"{origin}/mcp", token, "whoami") == "curl"
        assert refused(f"{origin}/mcp", "unknown", "whoami").status_code == 401
        assert refused(f"{origin}/mcp", server.token(f"{origin}/other"), "whoami").status_code == 401


ORDERS = """
from asgi_mcp_auth import MCPAuthMiddleware, current_auth
from starlette.responses import JSONResponse
import os

async def orders(scope, receive, send):
    info = current_auth()
    actors = [actor.subject for actor in info.actors.actors]
    await JSONResponse({"orders": [info.subject, *actors]})(scope, receive, send)

app = MCPAuthMiddleware(
    orders, resource=os.environ["API"], authorization_servers=[os.environ["ISSUER"]], required_scopes=["orders:read"]
)
"""


def test_upstream_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool, the API and the authorization server are processes; the API sees the caller, and who acts for it."""
    client = {"client_id": "mcp-server", "client_secret": SECRET, "grant_types": [EXCHANGE_GRANT]}
    (tmp_path / "clients.json").write_text(json.dumps([client]), "utf-8")
    (tmp_path / "orders_api.py").write_text(ORDERS, "utf-8")
    port = free_port()
    api = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("CLIENT_SECRET", SECRET)
    monkeypatch.setenv("API", api)
    with dev_server(f"--clients={tmp_path / 'clients.json'}") as server:
        env = importing_from(tmp_path, {"API": api, "ISSUER": server.url})
        argv = [str(BIN / "uvicorn"), "orders_api:app", f"--port={port}"]
        with (
            running(argv, ready_port=port, cwd=tmp_path, env=env),
            served(tmp_path, "upstream_api.py", server.url) as (origin, _),
        ):
            token = server.token(f"{origin}/mcp")
            assert tool(f"{origin}/mcp", token, "list_orders") == ["curl", "mcp-server"]
            assert get(f"{api}/orders", token).status_code == 401


def test_api_keys(issuer: Issuer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = "api-key new --subject nightly-job --scope notes:read --file"
    assert command in (RECIPES / "api_keys.py").read_text("utf-8")
    assert main([*command.split(), str(tmp_path / "api-keys")]) == 0
    [key] = re.findall(r"pat_[\w-]{40,}", capsys.readouterr().out)
    with served(tmp_path, "api_keys.py", issuer.url) as (origin, _):
        assert tool(f"{origin}/mcp", key, "whoami") == "nightly-job of urn:asgi-mcp-auth:api-key"
        assert tool(f"{origin}/mcp", issuer.token(f"{origin}/mcp"), "whoami") == f"curl of {issuer.url}"
        challenge = refused(f"{origin}/mcp", f"{key}x", "whoami")
        assert (challenge.status_code, "oauth-protected-resource" in challenge.headers["www-authenticate"]) == (
            401,
            True,
        )


def test_mcp_sdk(issuer: Issuer, tmp_path: Path) -> None:
    with served(tmp_path, "mcp_sdk.py", issuer.url) as (origin, _):
        url = f"{origin}/mcp"
        token = issuer.token(url)
        assert get(url).status_code == 401
        assert tool(url, token, "whoami") == f"curl of {issuer.url}"
        assert tool(url, token, "scopes") == ["notes:read"]


def test_fastapi(issuer: Issuer, tmp_path: Path) -> None:
    with served(tmp_path, "fastapi_app.py", issuer.url) as (origin, _):
        assert get(f"{origin}/healthz").json() == "ok"
        assert get(f"{origin}/api/me").status_code == 401
        api = issuer.token(f"{origin}/api")
        assert get(f"{origin}/api/me", api).json() == {"subject": "curl"}
        assert get(f"{origin}/api/me", issuer.token(f"{origin}/mcp")).status_code == 401
        post = f"{origin}/api/notes?text=milk"
        assert httpx.post(post, headers={"authorization": f"Bearer {api}"}, trust_env=False).status_code == 403
        writer = issuer.token(f"{origin}/api", "notes:read notes:write")
        httpx.post(post, headers={"authorization": f"Bearer {writer}"}, trust_env=False).raise_for_status()
        assert tool(f"{origin}/mcp", issuer.token(f"{origin}/mcp"), "list_notes") == ["milk"]


def test_toml_and_gunicorn(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("server.py", "mcp-auth.toml", "gunicorn.conf.py"):
        shutil.copy(RECIPES / name, tmp_path)
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    env = {"RESOURCE": resource, "ISSUER": issuer.url}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main(["check-config", str(tmp_path / "mcp-auth.toml")]) == 0
    argv = [str(BIN / "gunicorn"), f"--bind=127.0.0.1:{port}", "--no-control-socket"]
    with running(argv, ready_port=port, cwd=tmp_path, env=importing_from(tmp_path, env)):
        assert get(resource).status_code == 401
        assert tool(resource, issuer.token(resource), "whoami") == "curl"


def test_workers_that_share_state_in_redis(issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("server.py", "fleet.toml", "fleet.conf.py"):
        shutil.copy(RECIPES / name, tmp_path)
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    with redis(tmp_path) as server:
        env = {"RESOURCE": resource, "ISSUER": issuer.url, "REDIS_URL": server.url, "SHARED_SECRET": "s" * 64}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        assert main(["check-config", str(tmp_path / "fleet.toml")]) == 0
        argv = [str(BIN / "gunicorn"), "-c", "fleet.conf.py", f"--bind=127.0.0.1:{port}", "--no-control-socket"]
        with running(argv, ready_port=port, cwd=tmp_path, env=importing_from(tmp_path, env)):
            assert get(resource).status_code == 401
            assert tool(resource, issuer.token(resource), "whoami") == "curl"
            assert b"asgi-mcp-auth:keys:" in server.ask("KEYS", "*")


def test_compose_with_an_internal_and_a_public_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each service is run by its command, with loopback in place of the network of the containers."""
    for name in ("server.py", "compose-auth.toml"):
        shutil.copy(RECIPES / name, tmp_path)
    services = yaml.safe_load((RECIPES / "compose.yaml").read_text("utf-8"))["services"]
    monkeypatch.setenv("JWKS_URI", services["notes"]["environment"]["JWKS_URI"])
    assert MCPAuth.from_toml(tmp_path / "compose-auth.toml").warnings == ()
    text = (tmp_path / "compose-auth.toml").read_text("utf-8")
    (tmp_path / "closed.toml").write_text(text.replace("dangerously_allow_http", "# "))
    with pytest.raises(ConfigurationError, match="jwks_uri"):
        MCPAuth.from_toml(tmp_path / "closed.toml")
    auth, app = free_port(), free_port()

    def argv(service: str) -> list[str]:
        words = " \0".join(services[service]["command"])
        for public, here in (("0.0.0.0", "127.0.0.1"), ("9000", str(auth)), ("8000", str(app))):
            words = words.replace(public, here)
        program, *arguments = words.split(" \0")
        return [str(BIN / program), *arguments]

    jwks_uri = f"http://127.0.0.1:{auth}/jwks"
    env = importing_from(tmp_path, {"JWKS_URI": jwks_uri})
    with (
        running([*argv("auth"), f"--curl-secret={SECRET}"], ready_port=auth),
        running([*argv("notes"), "--no-control-socket"], ready_port=app, cwd=tmp_path, env=env),
    ):
        document = get(f"http://127.0.0.1:{app}/.well-known/oauth-protected-resource/mcp").json()
        assert document["authorization_servers"] == ["https://auth.example.com"]
        token = Issuer(f"http://127.0.0.1:{auth}").token("https://api.example.com/mcp")
        assert tool(f"http://127.0.0.1:{app}/mcp", token, "whoami") == "curl"


@pytest.mark.parametrize("up", [pytest.param(True, id="issuer up"), pytest.param(False, id="issuer down")])
def test_kubernetes_probes(up: bool, issuer: Issuer, tmp_path: Path) -> None:
    """The container's command, and probes as kubelet sends them: by address."""
    (document,) = yaml.safe_load_all((RECIPES / "kubernetes.yaml").read_text("utf-8"))
    (container,) = document["spec"]["template"]["spec"]["containers"]
    command = shlex.join(container["command"])
    port = free_port()
    assert command == "uvicorn probes:app --host 0.0.0.0 --port 8000"
    assert {entry["name"] for entry in container["env"]} == {"RESOURCE", "ISSUER"}
    shutil.copy(RECIPES / "probes.py", tmp_path)
    url = issuer.url if up else f"http://127.0.0.1:{free_port()}"
    env = importing_from(tmp_path, {"RESOURCE": "https://api.example.com/mcp", "ISSUER": url})
    program, *arguments = shlex.split(command.replace("8000", str(port)).replace("0.0.0.0", "127.0.0.1"))
    with running([str(BIN / program), *arguments], ready_port=port, cwd=tmp_path, env=env):
        found: dict[str, int] = {}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            how = container[probe]["httpGet"]
            assert how["port"] == 8000
            expected = 200 if up or probe != "readinessProbe" else 503
            for _ in range(100):  # keys are fetched in the background of the start, and a probe is repeated
                found[probe] = get(f"http://127.0.0.1:{port}{how['path']}", host="10.0.0.7:8000").status_code
                if found[probe] == expected:
                    break
                time.sleep(0.1)
        assert found == {"startupProbe": 200, "livenessProbe": 200, "readinessProbe": 200 if up else 503}
        assert get(f"http://127.0.0.1:{port}/mcp").status_code == 401


def nginx_command(directory: Path, port: int, upstream: int) -> list[str]:
    text = (RECIPES / "nginx.conf").read_text("utf-8").replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text, replaced = re.subn(r"/etc/ssl/\S+\.(pem|key);", rf"{directory}/server.\1;", text)
    assert replaced == 2
    temporary = " ".join(f"{name}_temp_path {directory}/{name};" for name in TEMPORARY)
    text = text.replace("http {", f"http {{ {temporary} access_log off;").replace(
        "127.0.0.1:8000", f"127.0.0.1:{upstream}"
    )
    (directory / "nginx.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    program = require_program("nginx", "nginx-light")
    rest = f"daemon off; pid {directory}/pid; {user}"
    return [program, "-e", "stderr", "-p", str(directory), "-c", str(directory / "nginx.conf"), "-g", rest]


def caddy_command(directory: Path, port: int, upstream: int) -> list[str]:
    text = (RECIPES / "Caddyfile").read_text("utf-8")
    site, brace, rest = text.partition("www.example.com {")
    assert brace
    head = f"{{\n\tadmin off\n}}\n{site}https://www.example.com:{port} {{\n\ttls {directory}/server.pem {directory}/server.key"
    (directory / "Caddyfile").write_text(head + rest.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}"))
    program = require_program("caddy", "caddy")
    return [program, "run", "--config", str(directory / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.parametrize(
    "command", [pytest.param(nginx_command, id="nginx.conf"), pytest.param(caddy_command, id="Caddyfile")]
)
def test_proxies(command: Callable[[Path, int, int], list[str]], tmp_path: Path) -> None:
    certificates(tmp_path)
    port = free_port()
    resource = "https://www.example.com/mcp"
    with (
        dev_server(f"--resource={resource}") as issuer,
        served(tmp_path, "fastmcp_scopes.py", issuer.url, resource=resource) as (origin, _),
    ):
        argv = command(tmp_path, port, int(origin.rpartition(":")[2]))
        env = {"XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        with running(argv, ready_port=port, cwd=tmp_path, env=env), httpx.Client(verify=False, trust_env=False) as http:

            def ask(method: str, path: str, **options: Any) -> httpx.Response:
                headers = {"host": "www.example.com", **options.pop("headers", {})}
                sni = {"sni_hostname": "www.example.com"}
                return http.request(
                    method, f"https://127.0.0.1:{port}{path}", headers=headers, extensions=sni, **options
                )

            challenge = ask("GET", "/mcp")
            document = "/.well-known/oauth-protected-resource/mcp"
            assert challenge.status_code == 401
            assert f'resource_metadata="https://www.example.com{document}"' in challenge.headers["www-authenticate"]
            assert ask("GET", document).json()["resource"] == resource
            fields = {
                "authorization": f"Bearer {issuer.token(resource)}",
                "accept": "application/json, text/event-stream",
            }
            version = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": version}
            started = ask("POST", "/mcp", json=message, headers=fields)
            assert (started.status_code, started.headers["content-type"]) == (200, "text/event-stream")
            assert '"serverInfo"' in started.text


def test_traefik_routes_the_endpoint_and_its_metadata() -> None:
    dynamic = yaml.safe_load((RECIPES / "traefik.yaml").read_text("utf-8"))["http"]
    (router,) = dynamic["routers"].values()
    assert "PathPrefix(`/mcp`)" in router["rule"]
    assert "PathPrefix(`/.well-known/oauth-protected-resource`)" in router["rule"]
    assert router["service"] in dynamic["services"]


def test_json_logs(tmp_path: Path) -> None:
    down = f"http://127.0.0.1:{free_port()}"
    command = "uvicorn {module}:app --no-access-log"
    with served(tmp_path, "json_logs.py", down, command=command) as (origin, process):
        assert get(f"{origin}/mcp", "not-a-token").status_code == 401
        lines = [json.loads(line) for line in process.output.splitlines() if line.startswith("{")]
    assert {"malformed_token"} <= {line.get("reason") for line in lines}
    assert {"keys_unavailable"} <= {line.get("event") for line in lines}
    assert all(line["logger"].startswith("asgi_mcp_auth") for line in lines)


SELECTOR = re.compile(r"\b(asgi_mcp_auth_\w+)(?:\{([^}]*)\})?")


@pytest.mark.requirement("AU-4")
def test_prometheus_has_every_series_that_the_dashboard_asks_for(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query of `grafana.json` selects series that `prometheus.py` has after real requests, with the labels used."""
    port = free_port()
    monkeypatch.setenv("METRICS_PORT", str(port))
    with served(tmp_path, "prometheus.py", issuer.url) as (origin, _):
        url = f"{origin}/mcp"
        good = issuer.token(url)
        for token, status in ((good, 400), (good, 400), ("not-a-token", 401), (issuer.token(url, "notes:write"), 403)):
            assert get(url, token).status_code == status
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    dashboard = json.loads((RECIPES / "grafana.json").read_text("utf-8"))
    asked: set[str] = set()
    for panel in dashboard["panels"]:
        [target] = panel["targets"]
        [(name, matchers)] = SELECTOR.findall(target["expr"])
        asked.add(name)
        series = [one.labels for one in samples if one.name == name]
        assert series, target["expr"]
        grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
        for labels in series:
            assert {one.strip() for group in grouped for one in group.split(",")} <= labels.keys(), target["expr"]
        for label, operator, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
            known = {labels[label] for labels in series}
            assert value in known if operator == "=" else {*value.split("|")} <= {*Reason}, target["expr"]
    ours = {one.name for one in samples if one.name.startswith("asgi_mcp_auth_")}
    assert {name.removesuffix("_total").removesuffix("_bucket") for name in asked} == {
        re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in ours
    }
    counts = {
        (one.labels["outcome"], one.labels["reason"]): one.value
        for one in samples
        if one.name == "asgi_mcp_auth_decisions_total"
    }
    assert counts == {("allowed", ""): 2, ("refused", "malformed_token"): 1, ("refused", "insufficient_scope"): 1}


def test_audit_file(tmp_path: Path) -> None:
    down = f"http://127.0.0.1:{free_port()}"
    with served(tmp_path, "audit_file.py", down, command="uvicorn {module}:app") as (origin, _):
        assert get(f"{origin}/mcp", "not-a-token").status_code == 401
    [line] = (tmp_path / "audit.jsonl").read_text("ascii").splitlines()
    assert json.loads(line)["reason"] == "malformed_token"


def test_tests_in_process(tmp_path: Path) -> None:
    for name in ("fastmcp_scopes.py", "test_tools.py"):
        shutil.copy(RECIPES / name, tmp_path)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tools.py"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=os.environ | importing_from(tmp_path, {}), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_every_recipe_is_run_and_listed() -> None:
    names = set(recipe_names())
    tests = Path(__file__).read_text("utf-8")
    assert {name for name in names if name not in tests} == set()
    listed = re.findall(r"^\| \[`([\w.-]+)`\]", (RECIPES / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    assert sorted(listed, key=str.lower) == recipe_names()


def test_the_command_lists_and_prints_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].strip()} == set(recipe_names())
    for name in recipe_names():
        assert main(["recipe", name]) == 0
        assert capsys.readouterr().out == (RECIPES / name).read_text("utf-8")
    assert main(["recipe", "fastmcp.py"]) == 2
    assert "Did you mean fastmcp_scopes.py?" in " ".join(capsys.readouterr().err.split())
