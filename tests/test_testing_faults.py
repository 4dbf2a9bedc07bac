"""The faults of `asgi_mcp_auth.testing.Issuer`, in process; tests/test_upstream.py runs them over sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


async def get(issuer: Issuer, path: str = "/jwks") -> httpx.Response:
    async with issuer.http_client() as client:
        response: httpx.Response = await client.get(f"https://auth.example.com{path}")
        return response


def fault(put: Callable[[Issuer], None], status: int, kind: str, body: bytes, *, id: str) -> Any:  # noqa: A002 - as pytest.param
    return pytest.param(put, status, kind, body, id=id)


@pytest.mark.parametrize(
    ("put", "status", "kind", "body"),
    [
        fault(lambda i: i.fail("/jwks"), 500, "application/json", b'{"error": "fault"}', id="fail"),
        fault(lambda i: i.fail(status=404), 404, "application/json", b'{"error": "fault"}', id="fail, all paths"),
        fault(lambda i: i.answer("/jwks", {"keys": []}), 200, "application/json", b'{"keys": []}', id="answer JSON"),
        fault(lambda i: i.answer("/jwks", b"\xff"), 200, "application/json", b"\xff", id="answer bytes"),
        fault(
            lambda i: i.answer("/jwks", b"<p>", content_type="text/html", status=203), 203, "text/html", b"<p>", id="answer HTML"
        ),
        fault(lambda i: i.answer("/j*", b""), 200, "application/json", b"", id="a pattern, no body"),
    ],
)  # fmt: skip
async def test_a_fault_replaces_the_response_until_it_is_healed(
    issuer: Issuer, put: Callable[[Issuer], None], status: int, kind: str, body: bytes
) -> None:
    put(issuer)
    response = await get(issuer)
    assert (response.status_code, response.headers["content-type"], response.content) == (status, kind, body)
    issuer.heal()
    healthy = await get(issuer)
    assert (healthy.status_code, healthy.json()) == (200, issuer.jwks())
    assert issuer.requests == {"/jwks": 2}


async def test_answer_takes_header_fields(issuer: Issuer) -> None:
    issuer.answer("/jwks", b"", status=302, headers={"Location": "/elsewhere"})
    response = await get(issuer)
    assert (response.status_code, response.headers["location"]) == (302, "/elsewhere")


@pytest.mark.parametrize(
    ("pattern", "failing"),
    [
        pytest.param("*", {OAUTH, OPENID, "/jwks"}, id="everything"),
        pytest.param("*/.well-known/*", {OAUTH, OPENID}, id="metadata"),
        pytest.param("/jwks", {"/jwks"}, id="one path"),
        pytest.param("/JWKS", set[str](), id="paths are compared as they are"),
        pytest.param("/jwk", set[str](), id="not by their beginning"),
    ],
)
async def test_a_fault_applies_to_matching_paths(issuer: Issuer, pattern: str, failing: set[str]) -> None:
    issuer.fail(pattern)
    assert {path for path in (OAUTH, OPENID, "/jwks") if (await get(issuer, path)).is_server_error} == failing


async def test_a_fault_with_times_ends_after_so_many_requests(issuer: Issuer) -> None:
    issuer.fail("/jwks", times=2)
    assert [(await get(issuer)).status_code for _ in range(3)] == [500, 500, 200]


async def test_the_newest_matching_fault_applies(issuer: Issuer) -> None:
    issuer.fail(status=500)
    issuer.fail("/jwks", status=503, times=1)
    assert [(await get(issuer)).status_code for _ in range(2)] == [503, 500]


async def test_heal_ends_the_faults_of_matching_paths(issuer: Issuer) -> None:
    issuer.fail("/jwks")
    issuer.fail(OAUTH)
    issuer.heal("/jwks")
    assert [(await get(issuer, path)).status_code for path in ("/jwks", OAUTH)] == [200, 500]
    issuer.heal("*/.well-known/*")
    assert (await get(issuer, OAUTH)).status_code == 200


async def test_cut_is_a_connect_error(issuer: Issuer) -> None:
    issuer.cut("/jwks", times=1)
    with pytest.raises(httpx.ConnectError):
        await get(issuer)
    assert (await get(issuer, OAUTH)).status_code == 200
    assert (await get(issuer)).status_code == 200
    assert issuer.requests == {"/jwks": 2, OAUTH: 1}


async def test_a_stall_ends_after_its_seconds(issuer: Issuer) -> None:
    issuer.stall("/jwks", seconds=0.05)
    begun = anyio.current_time()
    assert (await get(issuer)).json() == issuer.jwks()
    assert 0.05 <= anyio.current_time() - begun < 5


async def test_a_stall_with_times_ends_after_so_many_requests(issuer: Issuer) -> None:
    issuer.stall("/jwks", times=1)
    with anyio.move_on_after(0.02) as hasty:
        await get(issuer)
    assert hasty.cancelled_caught
    with anyio.fail_after(5):
        assert (await get(issuer)).status_code == 200


@pytest.mark.parametrize("times", [None, 3], ids=["for good", "used up"])
async def test_heal_releases_stalled_requests_also_from_another_thread(issuer: Issuer, times: int | None) -> None:
    answers: list[int] = []
    issuer.stall("/jwks", times=times)

    async def one() -> None:
        answers.append((await get(issuer)).status_code)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
            while issuer.requests["/jwks"] < 3:  # noqa: ASYNC110 - a counter has nothing to wait for
                await anyio.sleep(0.01)
            assert answers == []
            await anyio.to_thread.run_sync(issuer.heal, "/jwks")
    assert answers == [200, 200, 200]


async def test_a_stalled_post_keeps_its_body(issuer: Issuer) -> None:
    issuer.stall("/token", seconds=0.01)
    async with issuer.http_client() as client:
        form = {"grant_type": "client_credentials", "resource": "https://api.example.com/mcp"}
        response = await client.post("https://auth.example.com/token", data=form)
    assert response.status_code == 200
    assert response.json()["token_type"] == "Bearer"


async def test_a_trickle_is_the_normal_response_byte_by_byte(issuer: Issuer) -> None:
    issuer.trickle("/none", seconds=0.001)
    sent: list[bytes] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            sent.append(message["body"])

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/none",
        "headers": [],
        "query_string": b"",
        "scheme": "http",
    }
    begun = anyio.current_time()
    await issuer(scope, receive, send)
    assert anyio.current_time() - begun >= 0.001 * (len(sent) - 1)
    assert {len(piece) for piece in sent} == {1, 0}
    assert b"".join(sent) == (await get(issuer, "/none")).content


@pytest.mark.parametrize(
    ("value", "seen"), [("public, max-age=600", "public, max-age=600"), ("no-store", "no-store"), (None, None)]
)
async def test_cache_control_is_sent_as_set(issuer: Issuer, value: str | None, seen: str | None) -> None:
    issuer.cache_control = value
    for path in ("/jwks", OAUTH):
        assert (await get(issuer, path)).headers.get("cache-control") == seen


async def test_responses_are_not_stored_by_default() -> None:
    assert (await get(Issuer(algorithms=("Ed25519",)))).headers["cache-control"] == "no-store"
