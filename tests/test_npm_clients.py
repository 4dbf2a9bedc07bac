"""Third-party programs as clients: mcp-remote, and the MCP Inspector on the command line and in a browser.

Also the scenarios of the conformance suite for authorization servers. The README lists what does not work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browsers
import processes
import pytest
from clients import CLIENTS, require_npm_clients
from flows import Documents, World, scopes_of, world
from npm_clients import User, inspector, mcp_remote, no_browser, watched

pytestmark = pytest.mark.timeout(120)

if TYPE_CHECKING:
    from playwright.sync_api import Page

READ, WRITE = {"mcp:read"}, {"mcp:read", "mcp:write"}
LAUNCHER = (
    CLIENTS / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"
)
CONFORMANCE = CLIENTS / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"


@pytest.mark.full
def test_mcp_remote_completes_the_whole_flow(here: World, tmp_path: Path) -> None:
    """Registration, consent, a tool call, step-up, expiry and refresh, as an MCP server on stdio."""
    user = User()
    with mcp_remote(here.resource, tmp_path, user) as remote:
        assert remote.initialize() == "notes"
        assert remote.call("read") == "read"
        assert remote.call("write") == "written"
        here.later(3600)
        assert remote.call("read") == "read"
    assert [scopes_of(asked["scope"]) for asked in here.asked()] == [READ, WRITE]
    assert here.statuses("tools/call write") == [403, 200]
    grants = [e["form"]["grant_type"] for e in here.tokens() if e["status"] == 200]
    assert grants == ["authorization_code", "authorization_code", "refresh_token"]


@pytest.mark.full
def test_inspector_on_the_command_line(here: World, tmp_path: Path) -> None:
    """The callback is http://127.0.0.1:6276/oauth/callback; the next run of the program uses the stored tokens."""
    user = User()
    first = inspector(here.resource, "read", tmp_path, user)
    assert first == (0, "read")
    assert user.returned[0].startswith("http://127.0.0.1:6276/oauth/callback?")
    (registration,) = here.exchanges("authority", "/register")
    assert registration["status"] == 201
    assert registration["message"]["redirect_uris"] == ["http://127.0.0.1:6276/oauth/callback"]

    again = User()
    assert inspector(here.resource, "read", tmp_path, again) == (0, "read")
    assert again.asked == []
    here.later(3600)
    assert inspector(here.resource, "read", tmp_path, again) == (0, "read")
    assert [e["form"]["grant_type"] for e in here.tokens()] == ["authorization_code", "refresh_token"]


@pytest.mark.full
def test_the_inspector_on_the_command_line_does_not_step_up(here: World, tmp_path: Path) -> None:
    """The Inspector refreshes instead of asking its user, and reports that, as the README describes."""
    inspector(here.resource, "read", tmp_path, User())
    status, said = inspector(here.resource, "write", tmp_path, User())
    assert status != 0
    assert "AUTHORIZED without authorization code" in said
    assert 403 in here.statuses("tools/call write")


@pytest.mark.requirement("AS-45")
@pytest.mark.full
def test_programs_with_a_client_id_metadata_document(here: World, documents: Documents, tmp_path: Path) -> None:
    """mcp-remote and the Inspector with a client id metadata document, and no registration."""
    option = ("--client-metadata-url", documents.client_id)
    with mcp_remote(here.resource, tmp_path, User(), *option) as remote:
        assert remote.initialize() == "notes"
        assert remote.call("read") == "read"
    assert inspector(here.resource, "read", tmp_path, User(), *option) == (0, "read")
    assert [asked["client_id"] for asked in here.asked()] == [documents.client_id] * 2
    assert here.requests()["POST", "/register"] == 0


def wait_for(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until a condition of the page is true."""
    for _ in range(150):
        if holds():
            return
        page.wait_for_timeout(100)
    pytest.fail(page.inner_text("body"))


@pytest.mark.full
def test_inspector_in_the_browser(here: World, tmp_path: Path) -> None:
    """The same person in one browser: connects, allows, calls a tool, is asked for more, allows, calls the other.

    And an hour later the first one again.
    """
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"notes": {"type": "streamable-http", "url": here.resource}}}))
    env = no_browser(tmp_path) | {"MCP_AUTO_OPEN_ENABLED": "false", "MCP_INSPECTOR_SECRET_STORE": "file"}
    argv = [require_npm_clients(), str(LAUNCHER), "--web", "--config", str(config)]
    with processes.running(argv, env=env, ready_line="Auth token:") as running, browsers.page() as page:
        found = re.search(r"http://\S+TOKEN=\w+", running.output)
        assert found is not None, running.output
        page.goto(found[0])
        page.get_by_role("switch", name="Connect or disconnect").dispatch_event("click")
        page.get_by_role("button", name="Allow").click()
        page.get_by_text("Tools", exact=True).first.click()

        def run(tool: str) -> None:
            page.get_by_text(tool, exact=True).first.click()
            page.get_by_role("button", name="Execute Tool").click()

        run("read")
        wait_for(page, lambda: here.statuses("tools/call read") == [200])
        run("write")
        page.get_by_role("button", name="Authorize").click()
        page.get_by_role("button", name="Allow").click()
        page.get_by_text("Tools", exact=True).first.click()
        run("write")
        page.get_by_text("written").first.wait_for()
        here.later(3600)
        run("read")
        wait_for(page, lambda: here.statuses("tools/call read") == [200, 200])
    asked = here.asked()
    assert [a["redirect_uri"] for a in asked] == ["http://127.0.0.1:6274/oauth/callback"] * 2
    assert [scopes_of(a["scope"]) for a in asked] == [READ, WRITE]
    assert here.statuses("tools/call write")[0] == 403
    assert here.statuses("tools/call write")[-1] == 200
    assert here.tokens()[-1]["form"]["grant_type"] == "refresh_token"


def checks(directory: Path) -> dict[str, str]:
    """Return the statuses of the suite's checks by id."""
    found: dict[str, str] = {}
    for file in directory.rglob("checks.json"):
        for check in json.loads(file.read_text(encoding="utf-8")):
            found[check["id"]] = check["status"]
    return found


@pytest.mark.full
def test_the_conformance_suite(tmp_path: Path) -> None:
    """authorization-server-metadata-endpoint and authorization-code-grant."""
    node = require_npm_clients()
    port = processes.free_port()
    client: dict[str, Any] = {"client_id": "suite", "redirect_uris": [f"http://127.0.0.1:{port}/callback"]}
    with world(tmp_path, AUTO_APPROVE="1", CLIENTS=json.dumps([client])) as here:
        options = ["--url", here.issuer, "--client-id", "suite", "--port", str(port), "--resource", here.resource]
        argv = [node, str(CONFORMANCE), "authorization", *options, "--output-dir", str(tmp_path / "results")]
        env = {**os.environ, **no_browser(tmp_path)}
        status, said = watched(argv, env, User())
    assert status == 0, said
    expected = ("authorization-server-metadata", "authorization-server-metadata-cimd", "authorization-code-grant")
    assert checks(tmp_path / "results") == dict.fromkeys(expected, "SUCCESS")


def test_the_readme_names_the_versions_that_are_tested() -> None:
    readme = (Path(__file__).parent.parent / "asgi_mcp_auth" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("\n## Clients\n")[2].partition("\n## ")[0]
    pins: dict[str, str] = json.loads((CLIENTS / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert [version for pin in pins.values() if (version := pin.rpartition("@")[2]) not in section] == []
