"""The clients of the official SDKs in the whole flow, with the development authorization server and the middleware.

401, metadata, registration, authorization with consent, token, tool, 403, step-up, tool, expiry, refresh. The numbers
of the scripts in the test ids are those of the requirements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from clients import REDIRECT_URI, ClientError, deny, sdk_client
from flows import Documents, World, scopes_of, world

READ, WRITE = {"mcp:read"}, {"mcp:read", "mcp:write"}

PYTHON = [
    pytest.param("python", {"mode": "auto"}, "2026-07-28", id="Python SDK, 2026-07-28"),
    pytest.param("python", {"mode": "legacy"}, "2025-11-25", id="Python SDK, 2025-11-25"),
]
TYPESCRIPT_2 = pytest.param("v2", {"mode": "auto"}, "2026-07-28", id="TypeScript SDK 2, 2026-07-28")
TYPESCRIPT = [
    TYPESCRIPT_2,
    pytest.param("v2", {}, "2025-11-25", id="TypeScript SDK 2, 2025-11-25", marks=pytest.mark.full),
    pytest.param("v1", {}, "2025-11-25", id="TypeScript SDK 1, 2025-11-25", marks=pytest.mark.full),
]


def under_full(client: Any) -> Any:
    """The client, for a test that runs it with `--full` only."""
    return pytest.param(*client.values, id=client.id, marks=pytest.mark.full)


@pytest.mark.requirement("AS-40", "RS-30", "RS-40")
@pytest.mark.parametrize(("sdk", "options", "revision"), [*PYTHON, *TYPESCRIPT])
def test_from_401_to_a_tool_with_registration(here: World, sdk: str, options: dict[str, Any], revision: str) -> None:
    """The client knows only the URL."""
    with sdk_client(sdk, here.resource, **options) as client:
        assert client.do("connect") == revision
        assert client.do("list") == ["read", "write"]
        assert client.call("read") == "read"
        client_id = client.do("registered")

    refused = here.exchanges("resource")[0]
    assert refused["status"] == 401
    assert refused["challenge"] == f'Bearer scope="mcp:read", resource_metadata="{here.metadata_url}"'
    assert here.exchanges("resource")[1]["path"] == urlsplit(here.metadata_url).path
    (registration,) = here.exchanges("authority", "/register")
    assert registration["status"] == 201
    assert registration["answer"]["client_id"] == client_id
    assert registration["answer"]["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in registration["answer"]
    (asked,) = here.asked()
    assert scopes_of(asked["scope"]) == READ
    assert asked["resource"] == here.resource
    assert asked["code_challenge_method"] == "S256"
    (token,) = here.tokens()
    assert token["status"] == 200
    assert token["form"]["resource"] == here.resource
    assert scopes_of(token["answer"]["scope"]) == READ
    assert [e["status"] for e in here.exchanges("resource")].count(401) == 1
    assert here.statuses("tools/call read") == [200]


@pytest.mark.requirement("RS-42", "RS-113")
@pytest.mark.parametrize(
    ("sdk", "options"),
    [
        pytest.param("python", {"mode": "auto"}, id="Python SDK, 2026-07-28"),
        pytest.param("python", {"mode": "legacy"}, id="Python SDK, 2025-11-25", marks=pytest.mark.full),
        pytest.param("v2", {"mode": "auto"}, id="TypeScript SDK 2, 2026-07-28", marks=pytest.mark.full),
        pytest.param("v2", {}, id="TypeScript SDK 2, 2025-11-25", marks=pytest.mark.full),
        pytest.param(
            "v1",
            {"grants": ["authorization_code"]},
            id="TypeScript SDK 1, without refresh tokens",
            marks=pytest.mark.full,
        ),
    ],
)
def test_403_then_more_scopes_then_the_tool(here: World, sdk: str, options: dict[str, Any]) -> None:
    """The challenge names every scope, so the client keeps the scopes that were granted before."""
    with sdk_client(sdk, here.resource, **options) as client:
        client.do("connect")
        assert client.call("read") == "read"
        assert client.call("write") == "written"
        assert client.call("read") == "read"

    assert here.statuses("tools/call write") == [403, 200]
    assert here.statuses("tools/call read") == [200, 200]
    (challenge,) = [e["challenge"] for e in here.exchanges("resource") if e["status"] == 403]
    assert 'error="insufficient_scope", scope="mcp:read mcp:write"' in challenge
    assert [scopes_of(asked["scope"]) for asked in here.asked()] == [READ, WRITE]
    assert scopes_of(here.tokens()[-1]["answer"]["scope"]) == WRITE
    assert here.requests()["POST", "/register"] == 1


@pytest.mark.full
def test_typescript_1_does_not_step_up_while_it_has_a_refresh_token(here: World) -> None:
    """The client refreshes instead of asking its user, and gives up, as the README describes."""
    with sdk_client("v1", here.resource) as client:
        client.do("connect")
        assert client.call("read") == "read"
        with pytest.raises(ClientError, match="403 after trying upscoping"):
            client.call("write")
        assert client.call("read") == "read"
    assert here.tokens()[-1]["form"]["grant_type"] == "refresh_token"


@pytest.mark.requirement("RS-116")
@pytest.mark.full
def test_typescript_1_needs_no_step_up_if_the_first_challenge_names_all_scopes(tmp_path: Path) -> None:
    """`challenge_scopes`."""
    with world(tmp_path, CHALLENGE="mcp:read mcp:write") as here, sdk_client("v1", here.resource) as client:
        client.do("connect")
        assert client.call("write") == "written"
        assert here.statuses("tools/call write") == [200]


@pytest.mark.requirement("AS-35", "RS-85")
@pytest.mark.parametrize(
    ("sdk", "options"),
    [
        pytest.param("python", {"mode": "auto"}, id="Python SDK, 2026-07-28"),
        pytest.param("python", {"mode": "legacy"}, id="Python SDK, 2025-11-25", marks=pytest.mark.full),
        pytest.param("v2", {"mode": "auto"}, id="TypeScript SDK 2, 2026-07-28", marks=pytest.mark.full),
        pytest.param("v2", {}, id="TypeScript SDK 2, 2025-11-25", marks=pytest.mark.full),
        pytest.param("v1", {}, id="TypeScript SDK 1, 2025-11-25", marks=pytest.mark.full),
        pytest.param("2025-06", {}, id="TypeScript SDK 1, 2025-06-18", marks=pytest.mark.full),
    ],
)
def test_an_expired_token_is_refreshed_by_rotation(here: World, sdk: str, options: dict[str, Any]) -> None:
    """The second refresh shows that the first refresh rotated the refresh token."""
    with sdk_client(sdk, here.resource, **options) as client:
        client.do("connect")
        for _ in range(2):
            assert client.call("read") == "read"
            here.later(3600)
            if sdk == "python":  # which looks at the clock, and does not wait for the 401
                client.do("later", seconds=3600)
        assert client.call("read") == "read"
        assert len(client.asked) == 1

    first, second, third = here.tokens()
    assert [e["form"]["grant_type"] for e in (first, second, third)] == ["authorization_code", *["refresh_token"] * 2]
    assert [e["status"] for e in (second, third)] == [200, 200]
    assert second["form"]["refresh_token"] == first["answer"]["refresh_token"]
    assert third["form"]["refresh_token"] == second["answer"]["refresh_token"] != second["form"]["refresh_token"]
    assert len({e["answer"]["access_token"] for e in (first, second, third)}) == 3
    expired = [e["challenge"] for e in here.exchanges("resource") if e["status"] == 401 and e["token"]]
    assert all('error="invalid_token"' in challenge for challenge in expired)
    assert len(expired) == (0 if sdk == "python" else 2)


@pytest.mark.requirement("AS-38")
@pytest.mark.full
@pytest.mark.parametrize(
    ("sdk", "options"),
    [
        pytest.param("v2", {"mode": "auto"}, id="TypeScript SDK 2, 2026-07-28"),
        pytest.param("v1", {}, id="TypeScript SDK 1, 2025-11-25"),
    ],
)
def test_a_client_registers_again_after_a_restart_of_the_authorization_server(
    tmp_path: Path, sdk: str, options: dict[str, Any]
) -> None:
    """The restarted server answers invalid_client, and the client registers again without its user."""
    with world(tmp_path) as here, sdk_client(sdk, here.resource, **options) as client:
        client.do("connect")
        assert client.call("read") == "read"
        before = client.do("registered")
        here.stop("authority")
        here.start("authority")
        here.later(3600)  # the token has expired, and so has what the middleware knew of the issuer
        if sdk == "v1":  # the MCP server's session was that of the client as it was registered before
            with pytest.raises(ClientError, match="Session not found"):
                client.call("read")
            client.do("connect")
        assert client.call("read") == "read"
        assert client.do("registered") != before

        refused = [e for e in here.tokens() if e["status"] != 200]
        assert [(e["status"], e["answer"]["error"]) for e in refused] == [(401, "invalid_client")]
        assert here.requests()["POST", "/register"] == 2
        assert len(client.asked) == 2


@pytest.mark.requirement("AS-22", "RS-59")
@pytest.mark.full
def test_a_client_of_2025_03_26_finds_the_republished_server_metadata(tmp_path: Path) -> None:
    """The client uses neither protected resource metadata nor a resource parameter."""
    with world(tmp_path, REPUBLISH="1") as here, sdk_client("2025-03", here.resource) as client:
        client.do("connect")
        assert client.call("read") == "read"

        paths = [e["path"] for e in here.exchanges("resource")]
        assert "/.well-known/oauth-authorization-server" in paths
        assert not any("oauth-protected-resource" in path for path in paths)
        (asked,) = here.asked()
        assert "resource" not in asked
        (token,) = here.tokens()
        assert "resource" not in token["form"]
        assert here.statuses("tools/call read") == [200]


@pytest.mark.requirement("AS-21", "RS-100")
@pytest.mark.parametrize(
    ("sdk", "slash"),
    [
        pytest.param("python", "", id="Python SDK", marks=pytest.mark.full),
        pytest.param("v2", "", id="TypeScript SDK 2", marks=pytest.mark.full),
        pytest.param("v1", "", id="TypeScript SDK 1", marks=pytest.mark.full),
        pytest.param("2025-06", "/", id="TypeScript SDK 1.17, which adds a slash", marks=pytest.mark.full),
    ],
)
def test_a_resource_at_the_root_works_with_and_without_a_slash(tmp_path: Path, sdk: str, slash: str) -> None:
    """Older clients add a slash to an origin; the token is for the configured identifier."""
    with world(tmp_path, path="") as here, sdk_client(sdk, here.resource) as client:
        client.do("connect")
        assert client.call("read") == "read"
        (asked,) = here.asked()
        assert asked["resource"] == f"{here.resource}{slash}"
        assert here.statuses("tools/call read") == [200]


@pytest.mark.requirement("AS-13", "AS-17")
def test_a_client_gives_up_if_its_user_denies_access(here: World) -> None:
    """The client receives access_denied and gives up; no token is issued."""
    with sdk_client("python", here.resource, user=deny) as client:
        with pytest.raises(ClientError, match="refused: access_denied"):
            client.do("connect")
        assert len(client.asked) == 1
    assert here.tokens() == []
    (where, back) = next(e["sent_to"] for e in here.exchanges("authority") if e["sent_to"])
    assert where == REDIRECT_URI
    assert back["iss"] == here.issuer
    assert "code" not in back


@pytest.mark.requirement("AS-11", "AS-45", "AS-48")
@pytest.mark.parametrize(
    ("sdk", "options"),
    [
        pytest.param("python", {"mode": "auto"}, id="Python SDK, 2026-07-28"),
        pytest.param("python", {"mode": "legacy"}, id="Python SDK, 2025-11-25", marks=pytest.mark.full),
        pytest.param("v2", {"mode": "auto"}, id="TypeScript SDK 2, 2026-07-28", marks=pytest.mark.full),
        pytest.param("v2", {}, id="TypeScript SDK 2, 2025-11-25", marks=pytest.mark.full),
        pytest.param("v1", {}, id="TypeScript SDK 1, 2025-11-25", marks=pytest.mark.full),
    ],
)
def test_a_client_with_a_client_id_metadata_document_does_not_register(
    here: World, documents: Documents, sdk: str, options: dict[str, Any]
) -> None:
    """The document is fetched once, and its redirect URI has no port."""
    before = documents.asked
    with sdk_client(sdk, here.resource, clientMetadataUrl=documents.client_id, **options) as client:
        client.do("connect")
        assert client.call("read") == "read"
        if sdk != "v1":
            assert client.call("write") == "written"
        assert client.do("registered") == documents.client_id
    assert here.requests()["POST", "/register"] == 0
    assert {asked["client_id"] for asked in here.asked()} == {documents.client_id}
    assert parse_qs(urlsplit(client.asked[0]).query)["redirect_uri"] == [REDIRECT_URI]
    assert documents.asked - before <= 1  # it was kept from the test before, or fetched now
    assert documents.asked >= 1


@pytest.mark.requirement("MX-1", "MX-2", "MX-5", "MX-10")
@pytest.mark.parametrize(("sdk", "options", "revision"), [PYTHON[0], *map(under_full, [PYTHON[1], *TYPESCRIPT[:2]])])
def test_a_client_signs_in_when_it_calls_a_protected_tool(
    tmp_path: Path, sdk: str, options: dict[str, Any], revision: str
) -> None:
    """The client stays in its session; the public tool asks a signed-in caller for one more scope."""
    with world(tmp_path, PUBLIC="1") as here, sdk_client(sdk, here.resource, **options) as client:
        assert client.do("connect") == revision
        assert client.do("list") == ["read", "write"]
        assert client.call("read") == "read"
        assert client.asked == []
        assert client.call("write") == "written"
        assert len(client.asked) == 1
        assert client.call("read") == "read"
        assert len(client.asked) == 2

    assert here.statuses("tools/call write") == [401, 200]
    assert here.statuses("tools/call read") == [200, 403, 200]
    refused = next(e for e in here.exchanges("resource") if e["status"] == 401)
    assert refused["challenge"] == f'Bearer scope="mcp:write", resource_metadata="{here.metadata_url}"'
    assert [scopes_of(asked["scope"]) for asked in here.asked()] == [{"mcp:write"}, WRITE]
    started = [e for e in here.exchanges("resource") if e["operation"] == "initialize" and e["status"] == 200]
    assert len(started) == (0 if revision == "2026-07-28" else 1)
