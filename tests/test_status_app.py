"""The status page: what it shows, that everything on it is escaped, and that no path serves it by default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from anyio import to_thread
from browsers import page, require_chromium
from harness import ISS, R, RecordingApp, bearer, call, protect, token

from asgi_mcp_auth._asgi.status_app import STYLE, status_page
from asgi_mcp_auth.auth import MCPAuthMiddleware
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio


async def used(issuer: Issuer) -> MCPAuthMiddleware:
    app = protect(issuer, RecordingApp())
    for credential in (token(issuer), token(issuer, aud="https://other"), "garbage"):
        await call(app, headers=bearer(credential))
    return app


async def test_the_page_shows_issuers_keys_refusals_and_caches(issuer: Issuer) -> None:
    app = await used(issuer)
    answer = await call(app.auth.status_app(), "GET", "/status")
    text = answer.body.decode()
    assert answer.status == 200
    headers = dict(answer.headers)
    assert headers[b"cache-control"] == b"no-store"
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    for shown in (ISS, R, issuer.keys[0].kid or "", "wrong_audience", "malformed_token", "is ready", "fresh"):
        assert shown in text


async def test_a_client_that_accepts_json_gets_the_snapshot(issuer: Issuer) -> None:
    app = await used(issuer)
    answer = await call(app.auth.status_app(), "GET", "/status", [("accept", "application/json")])
    assert answer.json()["issuers"][0]["issuer"] == ISS


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_the_page_is_only_read(method: str, issuer: Issuer) -> None:
    assert (await call((await used(issuer)).auth.status_app(), method, "/status")).status == 405


async def test_what_the_network_sent_is_escaped(issuer: Issuer) -> None:
    status = (await used(issuer)).auth.status()
    evil = "<script>alert(1)</script>"
    [one] = status.issuers
    keys = tuple(replace(key, kid=evil) for key in one.keys)
    key_set = replace(one.key_set, failures=1, last_error=evil)
    text = status_page(replace(status, issuers=(replace(one, issuer=evil, keys=keys, key_set=key_set),)))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


async def test_no_path_serves_the_page_by_default(issuer: Issuer) -> None:
    app = protect(issuer, RecordingApp())
    for path in ("/status", "/mcp/status", "/"):
        assert (await call(app, "GET", path)).status in {401, 404}


def test_the_template_is_short() -> None:
    assert len(STYLE.splitlines()) <= 80


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.full
async def test_the_page_in_a_browser(scheme: str, issuer: Issuer, tmp_path: Path) -> None:
    require_chromium()
    text = status_page((await used(issuer)).auth.status())
    file = tmp_path / "status.html"
    file.write_text(text, "utf-8")

    def look() -> tuple[str, str, int]:
        with page(color_scheme=scheme) as opened:
            opened.goto(file.as_uri())
            opened.screenshot(path=str(tmp_path / f"{scheme}.png"), full_page=True)
            return (
                opened.title(),
                opened.evaluate("getComputedStyle(document.body).backgroundColor"),
                opened.locator("table").count(),
            )

    background = "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 24, 28)"
    assert await to_thread.run_sync(look) == ("asgi_mcp_auth: status", background, 3)
