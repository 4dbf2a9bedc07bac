"""The commands of the README that start a server; each runs unchanged, except for the port."""

from __future__ import annotations

import json
import re
import shlex
import ssl
import sys
from pathlib import Path

import httpx
import pytest
from processes import free_port, importing_from, running
from proxies import README, certificates
from test_gunicorn import APP

from asgi_mcp_auth.testing import Issuer

RESOURCE = "https://api.example.com/mcp"
DOCUMENT = "/.well-known/oauth-protected-resource/mcp"
SETTINGS = f"""\
resource = "{RESOURCE}"
authorization_servers = [{{issuer = "https://auth.example.com", jwks = {{from_file = "keys.json"}}}}]
required_scopes = ["notes:read"]
"""


def section(heading: str) -> str:
    """Return the text below a heading of the README, up to the next heading."""
    return re.split(rf"^### {heading}$", README, flags=re.MULTILINE)[1].split("\n### ")[0]


COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", section("Servers"), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
BY_DEFAULT = ("uvicorn shop.asgi:app --port 8000", "gunicorn --bind 127.0.0.1:8000")


def write_shop(directory: Path, issuer: Issuer) -> ssl.SSLContext:
    """Write the files of the README's example; return a context that trusts its certificate."""
    (directory / "shop").mkdir()
    (directory / "shop" / "main.py").write_text(APP)
    (directory / "keys.json").write_text(json.dumps(issuer.jwks()))
    (directory / "mcp-auth.toml").write_text(SETTINGS)
    files = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", section("Servers"), re.MULTILINE | re.DOTALL))
    assert set(files) == {"shop/asgi.py", "shop/worker.py", "gunicorn.conf.py"}
    for name, text in files.items():
        (directory / name).write_text(text)
    return certificates(directory)


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer("https://auth.example.com", algorithms=("ES256",))


def test_every_server_has_a_command() -> None:
    assert set(BY_DEFAULT) <= set(COMMANDS)
    programs = {line.split()[0] for line in COMMANDS}
    assert programs == {"uvicorn", "hypercorn", "granian", "daphne", "gunicorn"}


@pytest.mark.parametrize(
    "command",
    [pytest.param(line, id=line, marks=[] if line in BY_DEFAULT else [pytest.mark.full]) for line in COMMANDS],
)
def test_a_command_starts_a_protected_app(command: str, tmp_path: Path, issuer: Issuer) -> None:
    trusted = write_shop(tmp_path, issuer)
    port = free_port()
    line, replaced = re.subn(r"\b8(000|443)\b", str(port), command)
    assert replaced == 1
    program, *arguments = shlex.split(line)
    argv = [str(Path(sys.executable).parent / program), *arguments]
    tls, http2 = "8443" in command, "8443" in command or "http2" in command
    url = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    token = issuer.mint(RESOURCE, scope="notes:read")
    below = "/api" if "BelowApi" in command else ""
    with (
        running(argv, ready_port=port, env=importing_from(tmp_path, {"HOME": str(tmp_path)}), cwd=tmp_path),
        httpx.Client(http1=not http2, http2=http2, verify=trusted if tls else True, trust_env=False) as client,
    ):
        document = client.get(url + DOCUMENT)
        assert (document.status_code, document.json()["resource"]) == (200, RESOURCE)
        assert document.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        refused = client.get(f"{url}/mcp")
        assert refused.status_code == 401
        assert f'resource_metadata="https://api.example.com{DOCUMENT}"' in refused.headers["www-authenticate"]
        answer = client.get(f"{url}/mcp", headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["sub"], answer.json()["root_path"]) == (200, "alice", below)
        if "limit-request-field_size" in command:
            long = issuer.mint(RESOURCE, scope="notes:read", pad="x" * 11_000)
            assert len(long) > 14_000
            assert client.get(f"{url}/mcp", headers={"authorization": f"Bearer {long}"}).status_code == 200
