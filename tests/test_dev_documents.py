"""Client id metadata documents fetched by the guarded client, over real HTTP on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dev import Session, dev_server
from upstream import Upstream

from asgi_mcp_auth._keys.http import UntrustedLimits
from asgi_mcp_auth.dev import _client_documents as documents

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def _host() -> Iterator[Upstream]:
    upstream = Upstream()
    upstream.start()
    yield upstream
    upstream.stop()


@pytest.fixture
def host(_host: Upstream) -> Iterator[Upstream]:
    """A server whose /client.json is a good document."""
    _host.issuer.answer("/client.json", document(f"{_host.url}/client.json"))
    yield _host
    _host.issuer.heal()
    _host.issuer.requests.clear()


def document(url: str, **changes: Any) -> dict[str, Any]:
    return {"client_id": url, "client_name": "Local", "redirect_uris": ["http://localhost/oauth/callback"]} | changes


@pytest.mark.requirement("AS-45", "AS-46")
async def test_a_loopback_http_document_needs_the_option(host: Upstream) -> None:
    """Plain http on loopback only with `insecure_client_documents`; other private addresses stay closed."""
    url = f"{host.url}/client.json"
    async with Session(dev_server(insecure_client_documents=True)) as session:
        assert (await session.login(url))["scope"] == "mcp:read"
        assert host.issuer.requests["/client.json"] == 1
    async with Session(dev_server()) as session:
        assert (await session.get("/authorize", params=session.request(url))).status_code == 400
    assert host.issuer.requests["/client.json"] == 1, "nothing was fetched"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param({"status": 302, "headers": {"location": "/other.json"}}, "answered 302", id="AS-46 302"),
        pytest.param({"status": 201}, "answered 201", id="AS-46 201"),
        pytest.param({"content_type": "text/html"}, "not application/json", id="AS-46 text/html"),
        pytest.param({"body": b" " * 6144}, "more than 5120 bytes", id="AS-46 6 KiB"),
        pytest.param({"headers": {"content-encoding": "gzip"}}, "content coding gzip", id="AS-46 unasked coding"),
        pytest.param({"body": b"[]"}, "not a JSON object", id="AS-47 a list"),
    ],
)
async def test_invalid_responses_for_a_document_are_refused(host: Upstream, answer: dict[str, Any], said: str) -> None:
    url = f"{host.url}/client.json"
    given: dict[str, Any] = {"body": document(url)} | answer
    host.issuer.answer("/client.json", **given)
    host.issuer.answer("/other.json", document(url))
    async with Session(dev_server(insecure_client_documents=True)) as session:
        page = await session.get("/authorize", params=session.request(url))
    assert page.status_code == 400
    assert said in page.text
    assert host.issuer.requests["/other.json"] == 0


@pytest.mark.requirement("AS-46", "AS-48")
async def test_a_slow_document_is_refused_and_not_cached(host: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    assert UntrustedLimits(max_bytes=5120, seconds=5.0) == documents.BOUNDS
    monkeypatch.setattr(documents, "BOUNDS", documents.BOUNDS._replace(seconds=0.2))
    host.issuer.stall("/client.json")
    url = f"{host.url}/client.json"
    async with Session(dev_server(insecure_client_documents=True)) as session:
        page = await session.get("/authorize", params=session.request(url))
        assert page.status_code == 400
        assert "could not be fetched" in page.text
        host.issuer.heal()
        host.issuer.answer("/client.json", document(url))
        assert (await session.login(url))["scope"] == "mcp:read"


@pytest.mark.requirement("AS-46")
@pytest.mark.parametrize("name", ["127.0.0.1.nip.example", "localhost.example"])
async def test_unresolvable_host_names_are_refused(name: str) -> None:
    async with Session(dev_server()) as session:
        page = await session.get("/authorize", params=session.request(f"https://{name}/c"))
    assert page.status_code == 400


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param(
            {"dangerously_allow_remote": True}, "which is not public.", id="AS-46 not fetched for other machines"
        ),
        pytest.param({}, "could not be fetched", id="fetched for this machine, with TLS"),
        pytest.param(
            {"dangerously_allow_remote": True, "insecure_client_documents": True},
            "could not be fetched",
            id="fetched for other machines with the option",
        ),
    ],
)
async def test_loopback_documents_are_not_fetched_for_other_machines(
    host: Upstream, options: dict[str, Any], said: str
) -> None:
    url = f"{host.url.replace('http:', 'https:')}/client.json"
    async with Session(dev_server(**options)) as session:
        page = await session.get("/authorize", params=session.request(url))
    assert page.status_code == 400
    assert said in page.text
