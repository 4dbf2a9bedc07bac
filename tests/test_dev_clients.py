"""Clients of the development authorization server: registered, configured, or with a document."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import httpx
import pytest
from dev import CALLBACK, INSPECTOR, M2M, VERIFIER, Session, answer_of, dev_server, error_of
from harness import Clock, call

from asgi_mcp_auth.dev._client_documents import MAX_CACHED, MAX_FETCHES, client_url_error
from asgi_mcp_auth.dev._client_registry import MAX_REGISTRATION

pytestmark = pytest.mark.anyio

# Redirect URIs of real clients.
REAL = [
    *("http://localhost:6274/oauth/callback", "http://127.0.0.1:6276/oauth/callback"),
    *("https://claude.ai/api/mcp/auth_callback", "https://claude.com/api/mcp/auth_callback"),
    *("http://localhost:58135/callback", "http://127.0.0.1:33418/", "https://vscode.dev/redirect"),
    *("https://insiders.vscode.dev/redirect", "http://localhost:8787/callback"),
    *("cursor://anysphere.cursor-mcp/oauth/callback", "https://chatgpt.com/connector/oauth/abc"),
    *("https://chatgpt.com/connector_platform_oauth_redirect", "http://localhost:7777/oauth/callback"),
]


# --- registration -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-40", "AS-43", "AS-44")
async def test_registration_echoes_what_was_registered() -> None:
    async with Session(dev_server()) as session:
        response = await session.post("/register", json=INSPECTOR)
    content = response.json()
    assert (response.status_code, response.headers["cache-control"]) == (201, "no-store")
    assert {name: content[name] for name in INSPECTOR} == INSPECTOR
    assert set(content) == set(INSPECTOR) | {"client_id", "client_id_issued_at"}
    assert re.fullmatch(r"dcr_[A-Za-z0-9_-]{22,}", content["client_id"])
    assert type(content["client_id_issued_at"]) is int


@pytest.mark.parametrize("uri", [pytest.param(uri, id=f"AS-12 AS-40 {uri}") for uri in REAL])
async def test_redirect_uris_of_real_clients_can_be_registered(uri: str) -> None:
    async with Session(dev_server()) as session:
        assert (await session.register(redirect_uris=[uri]))["redirect_uris"] == [uri]


@pytest.mark.requirement("AS-31")
@pytest.mark.parametrize(
    ("sent", "registered"),
    [
        pytest.param(
            {"redirect_uris": [CALLBACK]},
            {
                "redirect_uris": [CALLBACK],
                "grant_types": ["authorization_code"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "client_secret_basic",
            },
            id="AS-41 defaults",
        ),
        pytest.param(
            {"redirect_uris": [CALLBACK], "client_name": None, "client_uri": "", "scope": None, "contacts": None},
            {
                "redirect_uris": [CALLBACK],
                "grant_types": ["authorization_code"],
                "response_types": ["code"],
                "token_endpoint_auth_method": "client_secret_basic",
            },
            id="AS-40 neither null nor empty comes back",
        ),
        pytest.param(
            INSPECTOR
            | {"grant_types": ["authorization_code", "implicit", "client_credentials"], "jwks_uri": "https://x/y", "x": 1},
            INSPECTOR | {"grant_types": ["authorization_code"]},
            id="AS-40 what is not known is left out",
        ),
        pytest.param(
            INSPECTOR
            | {"scope": "a b", "contacts": ["a@example.com"], "software_id": "x", "logo_uri": "https://x.example/l"},
            INSPECTOR
            | {"scope": "a b", "contacts": ["a@example.com"], "software_id": "x", "logo_uri": "https://x.example/l"},
            id="AS-40 all of it",
        ),
    ],
)  # fmt: skip
async def test_registration_applies_defaults_and_drops_unknown_values(
    sent: dict[str, Any], registered: dict[str, Any]
) -> None:
    async with Session(dev_server()) as session:
        content = (await session.post("/register", json=sent)).json()
    fresh = {"client_id", "client_id_issued_at", "client_secret", "client_secret_expires_at"}
    assert {name: value for name, value in content.items() if name not in fresh} == registered
    assert not any(value in (None, "") for value in content.values())
    if registered["token_endpoint_auth_method"] == "none":
        assert "client_secret" not in content
    else:
        assert content["client_secret_expires_at"] == 0
        assert re.fullmatch(r"[A-Za-z0-9_-]{22,}", content["client_secret"]), "alike in every encoding"


@pytest.mark.requirement("AS-41")
async def test_the_default_method_can_be_none() -> None:
    async with Session(dev_server(default_auth_method="none")) as session:
        content = await session.register(token_endpoint_auth_method=...)
    assert (content["token_endpoint_auth_method"], "client_secret" in content) == ("none", False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        pytest.param({"redirect_uris": ...}, "invalid_redirect_uri", id="AS-42 none"),
        pytest.param({"redirect_uris": []}, "invalid_redirect_uri", id="AS-42 an empty list"),
        pytest.param({"redirect_uris": CALLBACK}, "invalid_redirect_uri", id="AS-42 no list"),
        pytest.param({"redirect_uris": [1]}, "invalid_redirect_uri", id="AS-42 a number"),
        pytest.param({"redirect_uris": ["http://evil.example/cb"]}, "invalid_redirect_uri", id="AS-12 http elsewhere"),
        pytest.param({"redirect_uris": [CALLBACK, "javascript:1"]}, "invalid_redirect_uri", id="AS-12 one of two"),
        pytest.param({"redirect_uris": [f"{CALLBACK}{n}" for n in range(33)]}, "invalid_redirect_uri", id="AS-42 too many"),
        pytest.param({"response_types": ["token"]}, "invalid_client_metadata", id="AS-42 response type token"),
        pytest.param({"response_types": []}, "invalid_client_metadata", id="AS-42 no response type"),
        pytest.param({"grant_types": ["implicit"]}, "invalid_client_metadata", id="AS-42 grant type implicit"),
        pytest.param({"grant_types": ["client_credentials"]}, "invalid_client_metadata", id="AS-62 only for those configured"),
        pytest.param({"grant_types": "authorization_code"}, "invalid_client_metadata", id="AS-42 grant types no list"),
        pytest.param({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata", id="AS-41 private_key_jwt"),
        pytest.param({"token_endpoint_auth_method": 1}, "invalid_client_metadata", id="AS-42 a method that is a number"),
        pytest.param({"application_type": "desktop"}, "invalid_client_metadata", id="AS-43 another type"),
        pytest.param({"application_type": ["web"]}, "invalid_client_metadata", id="AS-43 a list"),
        pytest.param({"client_name": {"en": "x"}}, "invalid_client_metadata", id="AS-42 a name that is no string"),
        pytest.param({"client_name": "x" * 201}, "invalid_client_metadata", id="AS-42 a name without end"),
        pytest.param({"contacts": [1]}, "invalid_client_metadata", id="AS-42 contacts"),
    ],
)  # fmt: skip
async def test_registration_refuses_invalid_metadata(changes: dict[str, Any], error: str) -> None:
    metadata = {name: value for name, value in (INSPECTOR | changes).items() if value is not ...}
    async with Session(dev_server()) as session:
        assert error_of(await session.post("/register", json=metadata)) == (400, error)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        pytest.param(b"{", "application/json", id="AS-42 no JSON"),
        pytest.param(b"[]", "application/json", id="AS-42 a list"),
        pytest.param(b'{"redirect_uris":[],"redirect_uris":[]}', "application/json", id="AS-42 a name twice"),
        pytest.param(b'{"client_name":"\\ud800"}', "application/json", id="AS-42 a lone surrogate"),
        pytest.param(b"[" * 100_000, "application/json", id="AS-42 too deep and too long"),
        pytest.param(b'{"x":"' + b"x" * MAX_REGISTRATION + b'"}', "application/json", id="AS-42 too long"),
        pytest.param(json.dumps(INSPECTOR).encode(), "text/plain", id="AS-40 another type"),
    ],
)
async def test_registration_refuses_bodies_that_are_not_a_json_object(content: bytes, media_type: str) -> None:
    server = dev_server()
    headers = {"content-type": media_type}
    answer = await call(server, "POST", "/register", headers, body=content, host="localhost:9000")
    assert answer.status in (400, 413)
    assert answer.json()["error"] in ("invalid_client_metadata", "invalid_request")


@pytest.mark.parametrize(
    ("kind", "uri", "status"),
    [
        pytest.param("web", CALLBACK, 400, id="AS-43 web and loopback"),
        pytest.param(..., CALLBACK, 400, id="AS-43 web by default"),
        pytest.param("native", CALLBACK, 201, id="AS-43 native and loopback"),
        pytest.param("web", "https://app.example/cb", 201, id="AS-43 web"),
    ],
)
async def test_strict_application_type_refuses_loopback_to_web_clients(kind: Any, uri: str, status: int) -> None:
    metadata = INSPECTOR | {"application_type": kind, "redirect_uris": [uri]}
    sent = {name: value for name, value in metadata.items() if value is not ...}
    async with Session(dev_server(strict_application_type=True)) as session:
        response = await session.post("/register", json=sent)
        assert response.status_code == status
        if status == 400:
            assert error_of(response) == (400, "invalid_redirect_uri")


async def test_registered_clients_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth.dev._server.MAX_CLIENTS", 2)
    async with Session(dev_server()) as session:
        ids = [(await session.register())["client_id"] for _ in range(3)]
        assert (await session.get("/authorize", params=session.request(ids[0]))).status_code == 400
        assert (await session.get("/authorize", params=session.request(ids[2]))).status_code == 302


@pytest.mark.requirement("AS-50")
async def test_a_configured_client_works_without_registration_and_documents() -> None:
    """Static id works with CIMD and DCR disabled."""
    static = {"client_id": "static", "redirect_uris": ["http://localhost/oauth/callback"]}
    async with Session(dev_server(clients=[static], registration=False, client_documents=False)) as session:
        assert (await session.login("static"))["scope"] == "mcp:read"
        refused = await session.post("/register", json=INSPECTOR)
        assert error_of(refused) == (403, "access_denied")
        unknown = await session.get("/authorize", params=session.request("https://app.example/client.json"))
        assert unknown.status_code == 400


async def test_no_repr_shows_a_secret() -> None:
    async with Session(dev_server()) as session:
        content = await session.register(token_endpoint_auth_method="client_secret_post")
        core = vars(session.server)["_core"]
        client = await core.clients.find(content["client_id"])
        code = (await session.authorize(client.client_id))["code"]
        shown = repr((client, session.server.options, core.grants.code(code), core))
    assert content["client_secret"] not in shown
    assert code not in shown
    assert M2M["client_secret"] not in shown


# --- client id metadata documents -------------------------------------------------------------------------------------

CLIENT_URL = "https://app.example/client.json"


@pytest.mark.parametrize(
    ("url", "insecure", "accepted"),
    [
        pytest.param(CLIENT_URL, False, True, id="AS-45 https with a path"),
        pytest.param("https://app.example:8443/c", False, True, id="AS-45 a port"),
        pytest.param("https://app.example/c?v=1", False, True, id="AS-45 a query, though discouraged"),
        pytest.param("https://app.example", False, False, id="AS-45 no path"),
        pytest.param("https://app.example/", False, False, id="AS-45 only a slash"),
        pytest.param("http://app.example/c", False, False, id="AS-45 http"),
        pytest.param("http://app.example/c", True, False, id="AS-45 http elsewhere, insecure"),
        pytest.param("http://localhost:1/c", False, False, id="AS-45 http on loopback"),
        pytest.param("http://localhost:1/c", True, True, id="AS-45 AS-46 http on loopback, insecure"),
        pytest.param("https://u:p@app.example/c", False, False, id="AS-45 user information"),
        pytest.param("https://app.example/c#f", False, False, id="AS-45 a fragment"),
        pytest.param("https://app.example/a/../x", False, False, id="AS-45 a dot segment"),
        pytest.param("https://app.example/./x", False, False, id="AS-45 a single dot"),
        pytest.param("https://app.example/%2E%2e/x", False, False, id="AS-45 dots in disguise"),
        pytest.param("ftp://app.example/c", False, False, id="AS-45 no http"),
        pytest.param("https://app.example/" + "x" * 2048, False, False, id="AS-45 without end"),
    ],
)
async def test_a_client_id_url_is_https_with_a_path(url: str, insecure: bool, accepted: bool) -> None:
    assert (client_url_error(url, insecure=insecure) is None) is accepted
    web = Web()
    async with Session(dev_server(document_client=web.client, insecure_client_documents=insecure)) as session:
        web.documents[url] = document(url)
        response = await session.get("/authorize", params=session.request(url))
    assert response.status_code == (302 if accepted else 400)
    assert web.requested == ([url] if accepted else [])
    if not accepted:
        assert "invalid_client" in response.text
        assert response.headers["content-type"].startswith("text/html")


def document(url: str = CLIENT_URL, **changes: Any) -> dict[str, Any]:
    members = {
        "client_id": url,
        "client_name": "Claude Code",
        "redirect_uris": ["http://localhost/oauth/callback", "http://127.0.0.1/oauth/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    } | changes
    return {name: value for name, value in members.items() if value is not ...}


@dataclass
class Web:
    """Documents by URL, and the URLs that were requested."""

    documents: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    status: int = 200
    requested: list[str] = field(default_factory=list[str])
    wait: anyio.Event | None = None

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requested.append(str(request.url))
        assert request.method == "GET"
        assert "authorization" not in request.headers
        if self.wait is not None:
            await self.wait.wait()
        found = self.documents.get(str(request.url))
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        status = self.status if found is not None else 404
        return httpx.Response(status, headers=dict(self.headers), stream=httpx.ByteStream(body))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer))


@pytest.mark.requirement("AS-17", "AS-45", "AS-49")
async def test_a_metadata_document_describes_a_client() -> None:
    """With the port-less loopback URI of Claude Code; the host is shown."""
    web = Web({CLIENT_URL: document()})
    async with Session(dev_server(document_client=web.client, auto_approve=False)) as session:
        page = await session.get("/authorize", params=session.request(CLIENT_URL))
    assert "described at <strong>app.example</strong>" in page.text
    assert "Claude Code" in page.text
    async with Session(dev_server(document_client=web.client)) as session:
        tokens = await session.login(CLIENT_URL)
        refreshed = await session.refresh(CLIENT_URL, tokens["refresh_token"])
        assert refreshed.status_code == 200
        assert await session.is_active(refreshed.json()["access_token"], CLIENT_URL)


@pytest.mark.requirement("AS-38")
@pytest.mark.parametrize(
    "web",
    [
        pytest.param(Web({CLIENT_URL: document()}, status=201), id="AS-46 201"),
        pytest.param(Web({CLIENT_URL: document()}, {"location": "https://app.example/x"}, 302), id="AS-46 302"),
        pytest.param(Web({CLIENT_URL: document()}, status=500), id="AS-46 500"),
        pytest.param(Web(), id="AS-46 404"),
        pytest.param(Web({CLIENT_URL: document(x="x" * 6144)}), id="AS-46 6 KiB"),
        pytest.param(Web({CLIENT_URL: document()}, {"content-type": "text/html"}), id="AS-46 text/html"),
        pytest.param(Web({CLIENT_URL: document()}, {}), id="AS-46 no type"),
        pytest.param(Web({CLIENT_URL: document()}, {"content-type": "application/jsonp"}), id="AS-46 almost JSON"),
        pytest.param(Web({CLIENT_URL: b"{"}), id="AS-47 no JSON"),
        pytest.param(Web({CLIENT_URL: []}), id="AS-47 a list"),
        pytest.param(Web({CLIENT_URL: document(client_id=CLIENT_URL + "/")}), id="AS-47 a slash more"),
        pytest.param(Web({CLIENT_URL: document(client_id=...)}), id="AS-47 no client_id"),
        pytest.param(Web({CLIENT_URL: document(client_name=...)}), id="AS-47 no name"),
        pytest.param(Web({CLIENT_URL: document(client_name=1)}), id="AS-47 a number for a name"),
        pytest.param(Web({CLIENT_URL: document(redirect_uris=[])}), id="AS-47 no redirect URIs"),
        pytest.param(Web({CLIENT_URL: document(redirect_uris=...)}), id="AS-47 redirect URIs absent"),
        pytest.param(Web({CLIENT_URL: document(redirect_uris=["http://evil.example/"])}), id="AS-47 AS-12 http elsewhere"),
        pytest.param(Web({CLIENT_URL: document(grant_types=["refresh_token"], redirect_uris=...)}), id="AS-47 nothing to do"),
        pytest.param(Web({CLIENT_URL: document(token_endpoint_auth_method="client_secret_basic")}), id="AS-47 a secret method"),
        pytest.param(Web({CLIENT_URL: document(token_endpoint_auth_method="private_key_jwt")}), id="AS-47 a method that is not here"),
        pytest.param(Web({CLIENT_URL: document(client_secret="x")}), id="AS-47 a secret"),
        pytest.param(Web({CLIENT_URL: document(client_secret_expires_at=0)}), id="AS-47 the end of a secret"),
    ],
)  # fmt: skip
async def test_invalid_documents_are_refused(web: Web) -> None:
    web = replace(web, requested=[])
    async with Session(dev_server(document_client=web.client)) as session:
        page = await session.get("/authorize", params=session.request(CLIENT_URL))
        assert (page.status_code, "location" in page.headers) == (400, False)
        assert "invalid_client" in page.text
        assert web.requested == [CLIENT_URL], "no redirect is followed"
        response = await session.exchange(CLIENT_URL, "ac_x")
        assert error_of(response) == (401, "invalid_client")


@pytest.mark.requirement("AS-47")
async def test_the_default_authentication_method_of_a_document_is_none() -> None:
    web = Web({CLIENT_URL: document(token_endpoint_auth_method=...)}, {"content-type": "application/cimd+json; x=y"})
    async with Session(dev_server(document_client=web.client)) as session:
        assert (await session.login(CLIENT_URL))["token_type"] == "Bearer"


@pytest.mark.requirement("AS-48")
@pytest.mark.parametrize(
    ("cache_control", "fresh", "stale"),
    [
        pytest.param(None, 299, 300, id="AS-48 five minutes by default"),
        pytest.param("no-store", 299, 300, id="AS-48 five minutes at least"),
        pytest.param("max-age=1000", 999, 1000, id="AS-48 as it says"),
        pytest.param("max-age=9999999", 86_399, 86_400, id="AS-48 a day at most"),
    ],
)
async def test_documents_are_cached_between_five_minutes_and_a_day(
    clock: Clock, cache_control: str | None, fresh: int, stale: int
) -> None:
    """Two flows in 5 min → one fetch."""
    headers = {"content-type": "application/json"} | ({"cache-control": cache_control} if cache_control else {})
    web, start = Web({CLIENT_URL: document()}, headers), clock.now
    async with Session(dev_server(document_client=web.client, clock=clock)) as session:
        for seconds, fetches in ((0, 1), (fresh, 1), (stale, 2)):
            clock.now = start + seconds
            await session.login(CLIENT_URL)
            assert len(web.requested) == fetches


@pytest.mark.requirement("AS-48")
async def test_errors_are_not_cached() -> None:
    """Failed fetch then fixed → works immediately."""
    web = Web()
    async with Session(dev_server(document_client=web.client)) as session:
        assert (await session.get("/authorize", params=session.request(CLIENT_URL))).status_code == 400
        web.documents[CLIENT_URL] = document()
        assert (await session.login(CLIENT_URL))["scope"] == "mcp:read"
        web.documents.clear()
        session.server.forget()
        assert (await session.get("/authorize", params=session.request(CLIENT_URL))).status_code == 400


async def test_cached_documents_and_concurrent_fetches_are_bounded() -> None:
    urls = [f"https://app.example/{n}" for n in range(MAX_CACHED + 1)]
    web = Web({url: document(url) for url in urls})
    async with Session(dev_server(document_client=web.client)) as session:
        for url in urls:
            await session.authorize(url)
        await session.authorize(urls[-1])
        assert len(web.requested) == len(urls)
        await session.authorize(urls[0])
        assert len(web.requested) == len(urls) + 1, "the oldest was forgotten"
        session.server.forget()
        web.wait = anyio.Event()
        statuses: list[int] = []

        async def ask(url: str) -> None:
            statuses.append((await session.get("/authorize", params=session.request(url))).status_code)

        async with anyio.create_task_group() as group:
            for url in urls[: MAX_FETCHES + 1]:
                group.start_soon(ask, url)
            with anyio.fail_after(5):
                while len(statuses) < 1:
                    await anyio.wait_all_tasks_blocked()
            assert statuses == [503]
            web.wait.set()
    assert sorted(statuses) == [302] * MAX_FETCHES + [503]


@pytest.mark.requirement("AS-46")
@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/c", "https://169.254.169.254/latest/meta-data", "https://[fe80::1]/c"]
)
async def test_documents_are_not_fetched_from_private_addresses(url: str) -> None:
    """special-use addresses blocked."""
    async with Session(dev_server()) as session:
        page = await session.get("/authorize", params=session.request(url))
    assert page.status_code == 400
    assert "which is not public." in page.text, "and no word of the settings of a protected server"


async def test_codes_are_bound_to_the_client_with_the_document() -> None:
    web = Web({CLIENT_URL: document(), f"{CLIENT_URL}2": document(f"{CLIENT_URL}2")})
    async with Session(dev_server(document_client=web.client)) as session:
        answer = answer_of(await session.get("/authorize", params=session.request(CLIENT_URL)))
        stolen = await session.exchange(f"{CLIENT_URL}2", answer["code"], code_verifier=VERIFIER)
        assert error_of(stolen) == (400, "invalid_grant")
