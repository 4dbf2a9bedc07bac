"""Sending the middleware's own responses: over HTTP/2 a refused request's body is read."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from harness import RecordingApp, http_scope, protect

from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("http_version", "body", "left"),
    [
        pytest.param("2", [b"a", b"b", b""], 0, id="over HTTP/2 it is read"),
        pytest.param("2", [b"a", None], 0, id="until the client leaves"),
        pytest.param("2", [b"a"], 0, id="but not for ever"),
        pytest.param("1.1", [b"a", b""], 2, id="over HTTP/1.1 the server sees to it"),
    ],
)
async def test_the_body_of_a_refused_request_is_drained_within_limits(
    issuer: Issuer, http_version: str, body: list[bytes | None], left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._asgi.response.MAX_WAIT", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        if not body:
            await anyio.sleep_forever()
        part = body.pop(0)
        if part is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": part != b""}

    async def send(message: Any) -> None:
        sent.append((message["type"], len(body)))

    await protect(issuer, RecordingApp())(http_scope(http_version=http_version), receive, send)
    assert sent == [("http.response.start", left), ("http.response.body", left)]
