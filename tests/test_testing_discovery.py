"""`asgi_mcp_auth.testing.walk_discovery`: the steps of a strict client, and each response that must stop it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from harness import CH0, ISS, PRM, PRM_PATH, R, RecordingApp, protect
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

from asgi_mcp_auth import MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy, current_auth
from asgi_mcp_auth.testing import Issuer, Walk, WalkError, walk_discovery

pytestmark = pytest.mark.anyio

OAUTH = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"


def with_steps(issuer: Issuer, app: Any = None, **policy: Any) -> Any:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=["mcp:read"], **policy))
    return MCPAuth(config, http_client=issuer.http_client, clock=issuer.clock).wrap(app or RecordingApp())


def subject() -> str:
    info = current_auth()
    assert info is not None
    return info.subject


async def test_the_walk_has_one_step_per_exchange(issuer: Issuer) -> None:
    app = RecordingApp()
    walk = await walk_discovery(protect(issuer, app), R, issuer)
    assert [str(step) for step in walk.steps] == [
        f"GET {R} → 401: {CH0}",
        f"GET {PRM} → 200: the metadata of {R}",
        f"GET {ISS}{OAUTH} → 200: the metadata of {ISS}",
        f"POST {ISS}/token → 200: a Bearer token with the scopes mcp:read",
        f"GET {R} → 200: with the token",
    ]
    assert str(walk).splitlines()[-1] == f"5. GET {R} → 200: with the token"
    assert walk.challenge.params == {"scope": "mcp:read", "resource_metadata": PRM}
    assert walk.resource_metadata["authorization_servers"] == [ISS]
    assert walk.server_metadata.token_endpoint == f"{ISS}/token"
    claims = app.scopes[0]["state"]["claims"]
    assert (walk.response.status_code, walk.response.json()) == (200, claims)
    assert (claims["aud"], claims["scope"], claims["client_id"]) == (R, "mcp:read", "walk")
    assert walk.token not in str(walk) + repr(walk)


async def test_message_headers_and_client_id_are_sent(issuer: Issuer) -> None:
    app = RecordingApp()
    walk = await walk_discovery(
        protect(issuer, app),
        R,
        issuer,
        message={"jsonrpc": "2.0", "id": 1, "method": "ping"},
        headers={"mcp-protocol-version": "2025-11-25"},
        token_request={"client_id": "me", "scope": "mcp:read more"},
    )
    headers = dict(app.scopes[0]["headers"])
    assert [step.request for step in walk.steps if step.request.startswith("POST")] == [
        f"POST {R}",
        f"POST {ISS}/token",
        f"POST {R}",
    ]
    assert headers[b"accept"] == b"application/json, text/event-stream"
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"mcp-protocol-version"] == b"2025-11-25"
    assert app.scopes[0]["state"]["claims"]["client_id"] == "me"
    assert app.scopes[0]["state"]["claims"]["scope"] == "mcp:read more"


async def test_a_403_for_missing_scopes_is_followed_once(issuer: Issuer) -> None:
    walk = await walk_discovery(with_steps(issuer, paths={"/mcp": ["mcp:write"]}), R, issuer)
    found = [step.found for step in walk.steps if step.request.startswith("POST") or step.status == 403]
    assert found[0] == "a Bearer token with the scopes mcp:read"
    assert found[1].startswith('with the token: Bearer error="insufficient_scope", scope="mcp:read mcp:write"')
    assert found[2] == "a Bearer token with the scopes mcp:read mcp:write"
    assert walk.response.status_code == 200


async def test_scopes_supported_are_requested_if_the_challenge_names_none(issuer: Issuer) -> None:
    app = RecordingApp()
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[ISS], scopes_supported=["a", "b"])
    auth = MCPAuth(ResourceServerConfig(metadata=metadata), http_client=issuer.http_client, clock=issuer.clock)
    walk = await walk_discovery(auth.wrap(app), R, issuer)
    assert "scope" not in walk.challenge.params
    assert app.scopes[0]["state"]["claims"]["scope"] == "a b"


def put(fault: Callable[[Issuer], None], *, id: str) -> Any:  # noqa: A002
    return pytest.param(fault, id=id)


@pytest.mark.parametrize(
    "fault",
    [
        put(lambda i: i.fail(OAUTH, status=404), id="DC-1 not there"),
        put(lambda i: i.fail(OAUTH), id="DC-3 an error"),
        put(lambda i: i.answer(OAUTH, b"<p>", content_type="text/html"), id="DC-3 HTML"),
        put(lambda i: i.answer(OAUTH, b"[1]"), id="DC-3 no object"),
        put(lambda i: i.answer(OAUTH, {"issuer": f"{ISS}/"}), id="DC-2 another issuer, by a slash"),
    ],
)
async def test_unusable_server_metadata_is_looked_for_at_the_next_url(
    issuer: Issuer, fault: Callable[[Issuer], None]
) -> None:
    fault(issuer)
    walk = await walk_discovery(protect(issuer, RecordingApp()), R, issuer)
    assert [step.request for step in walk.steps[2:4]] == [f"GET {ISS}{OAUTH}", f"GET {ISS}{OPENID}"]
    assert walk.response.status_code == 200


def answers(path: str, status: int, body: bytes, **headers: str) -> Callable[[Any], Any]:
    """An app in front of another one that answers one path itself."""

    def around(app: Any) -> Any:
        async def front(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] != path:
                await app(scope, receive, send)
                return
            lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": status, "headers": lines})
            await send({"type": "http.response.body", "body": body})

        return front

    return around


def unchanged(app: Any) -> Any:
    return app


def healthy(_: Issuer) -> None:
    return None


def document(body: bytes, kind: str = "application/json") -> Callable[[Any], Any]:
    return answers(PRM_PATH, 200, body, content_type=kind)


def stop(
    front: Callable[[Any], Any], put: Callable[[Issuer], None], steps: int, reason: str, *, id: str  # noqa: A002
) -> Any:  # fmt: skip
    return pytest.param(front, put, steps, reason, id=id)


@pytest.mark.parametrize(
    ("front", "put", "steps", "reason"),
    [
        stop(answers("/mcp", 200, b""), healthy, 1, "has to be 401", id="RS-1 served without a token"),
        stop(answers("/mcp", 403, b"", www_authenticate=CH0), healthy, 1, "has to be 401", id="RS-30 403 without a token"),
        stop(answers("/mcp", 401, b""), healthy, 1, "exactly one Bearer challenge", id="RS-30 no challenge"),
        stop(answers("/mcp", 401, b"", www_authenticate="Basic realm=x"), healthy, 1, "exactly one Bearer challenge", id="RS-30 another challenge"),
        stop(answers("/mcp", 401, b"", www_authenticate="Bearer, Bearer"), healthy, 1, "exactly one Bearer challenge", id="RS-30 two challenges"),
        stop(answers("/mcp", 401, b"", www_authenticate="Bearer"), healthy, 1, "has no resource_metadata", id="RS-31 no metadata named"),
        stop(answers("/mcp", 401, b"", www_authenticate='Bearer resource_metadata="/x"'), healthy, 1, "/x is not an absolute URL", id="RS-31 a relative URL"),
        stop(answers("/mcp", 401, b"", www_authenticate='Bearer resource_metadata="http://mcp.example.com/x"'), healthy, 1, "is not https", id="RS-31 http"),
        stop(answers("/mcp", 401, b"", www_authenticate='Bearer resource_metadata="https://else.example.com/x"'), healthy, 2, "there was no response", id="RS-31 metadata elsewhere"),
        stop(answers(PRM_PATH, 404, b"{}", content_type="application/json"), healthy, 2, "no protected resource metadata", id="RS-50 not there"),
        stop(document(b"<p>", "text/html"), healthy, 2, "no protected resource metadata", id="RS-56 HTML"),
        stop(document(b'{"resource": "' + R.encode() + b'"}', "text/plain"), healthy, 2, "no protected resource metadata", id="RS-56 another type"),
        stop(document(b'{"resource": 1, "resource": 2}'), healthy, 2, "no protected resource metadata", id="RS-56 a member twice"),
        stop(document(b'{"resource": "' + R.encode() + b'/"}'), healthy, 2, "RFC 9728 section 3.3", id="RS-57 another resource, by a slash"),
        stop(document(b'{"resource": "https://mcp.example.com"}'), healthy, 2, "RFC 9728 section 3.3", id="RS-57 the parent"),
        stop(document(b"{}"), healthy, 2, "RFC 9728 section 3.3", id="RS-57 no resource"),
        stop(document(b'{"resource": "' + R.encode() + b'"}'), healthy, 2, "lists []", id="RS-58 no issuer"),
        stop(document(b'{"resource": "' + R.encode() + b'", "authorization_servers": ["https://auth.example.com/"]}'), healthy, 2, "and no issuer of this test", id="RS-58 another issuer, by a slash"),
        stop(document(b'{"resource": "' + R.encode() + b'", "authorization_servers": "https://auth.example.com"}'), healthy, 2, "lists []", id="RS-58 no list"),
        stop(unchanged, lambda i: i.fail("*/.well-known/*", status=404), 4, "RFC 8414 section 3.3", id="DC-1 no server metadata"),
        stop(unchanged, lambda i: i.metadata.update(issuer="https://evil.example.com"), 4, "RFC 8414 section 3.3", id="DC-2 another issuer everywhere"),
        stop(unchanged, lambda i: i.cut("*/.well-known/*"), 3, "there was no response", id="DC-3 cut off"),
        stop(unchanged, lambda i: i.metadata.pop("token_endpoint"), 3, "the token_endpoint is None", id="no token endpoint"),
        stop(unchanged, lambda i: i.metadata.update(token_endpoint="http://auth.example.com/token"), 3, "has to be an https URL", id="a token endpoint over http"),
        stop(unchanged, lambda i: i.fail("/token", status=400), 4, "no token was granted", id="a token request refused"),
        stop(unchanged, lambda i: i.answer("/token", b"token", content_type="text/plain"), 4, "no token was granted", id="a token as text"),
        stop(unchanged, lambda i: i.answer("/token", {"token_type": "Bearer"}), 4, "has no access_token", id="no token in the answer"),
        stop(unchanged, lambda i: i.answer("/token", {"access_token": "x", "token_type": "DPoP"}), 4, "of the type Bearer", id="a token of another type"),
        stop(unchanged, lambda i: i.answer("/token", {"access_token": "x", "token_type": "bearer"}), 5, "the token was rejected", id="a token that is none"),
    ],
)  # fmt: skip
async def test_a_strict_client_stops(
    issuer: Issuer, front: Callable[[Any], Any], put: Callable[[Issuer], None], steps: int, reason: str
) -> None:
    app = front(protect(issuer, RecordingApp(), authorization_servers=[ISS]))
    put(issuer)
    with pytest.raises(WalkError) as raised:
        await walk_discovery(app, R, issuer)
    error = raised.value
    assert isinstance(error, AssertionError)
    assert reason in error.reason
    assert len(error.steps) == steps
    assert str(error).splitlines() == [error.reason, *(f"{n}. {step}" for n, step in enumerate(error.steps, 1))]
    assert "eyJ" not in str(error)


INSUFFICIENT = 'Bearer error="insufficient_scope", scope="{}"'


@pytest.mark.parametrize(
    ("scopes", "reason", "calls"),
    [
        pytest.param(["mcp:read"], "but the token was requested with them", 1, id="RS-42 those that were asked for"),
        pytest.param([""], "but the token was requested with them", 1, id="RS-42 none"),
        pytest.param(
            ["mcp:read a", "mcp:read a b"], "the second 403 asks for 'mcp:read a b'", 2, id="RS-42 more each time"
        ),
    ],
)
async def test_a_403_that_asks_for_granted_scopes_stops_the_walk(
    issuer: Issuer, scopes: list[str], reason: str, calls: int
) -> None:
    seen = iter(scopes)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        line = (b"www-authenticate", INSUFFICIENT.format(next(seen)).encode())
        await send({"type": "http.response.start", "status": 403, "headers": [line]})
        await send({"type": "http.response.body", "body": b""})

    with pytest.raises(WalkError) as raised:
        await walk_discovery(protect(issuer, app), R, issuer)
    assert reason in raised.value.reason
    assert [step.status for step in raised.value.steps].count(403) == calls


@pytest.mark.parametrize("status", [200, 204, 403, 404, 500, 503])
async def test_any_other_status_of_the_app_is_returned(issuer: Issuer, status: int) -> None:
    walk: Walk = await walk_discovery(protect(issuer, RecordingApp(status=status)), R, issuer)
    assert walk.response.status_code == status


async def test_a_url_below_the_resource_needs_the_resource_argument(issuer: Issuer) -> None:
    app = protect(issuer, RecordingApp())
    with pytest.raises(WalkError, match=r"RFC 9728 section 3\.3"):
        await walk_discovery(app, f"{R}/below", issuer)
    walk = await walk_discovery(app, f"{R}/below?a=b", issuer, resource=R)
    assert walk.response.status_code == 200


async def test_the_first_listed_issuer_of_the_test_is_used(issuer: Issuer) -> None:
    """Issuers that share a host have their paths appended to the well-known metadata URL."""
    host, tenant, other = (Issuer(f"{ISS}{path}", algorithms=(), clock=issuer.clock) for path in ("", "/t", "/t2"))
    for each in (host, tenant, other):
        each.keys = issuer.keys
    app = protect(tenant, RecordingApp(), authorization_servers=[other.url, tenant.url, "https://else.example.com"])
    walk = await walk_discovery(app, R, host, tenant, lifespan=False)  # the warm-up fetches too
    assert walk.server_metadata.issuer == tenant.url
    assert tenant.requests == {f"{OAUTH}/t": 2, "/t/token": 1, "/t/jwks": 1}
    assert not host.requests


async def test_the_lifespan_of_the_app_runs_around_the_walk(issuer: Issuer) -> None:
    """The lifespan of the app starts the session manager of the SDK's server; the tool needs one more scope."""
    server = MCPServer("notes")
    server.add_tool(subject)
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    inner = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security)
    params: dict[str, Any] = {"name": "subject", "arguments": {}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    app = with_steps(issuer, inner, tools={"subject": ["mcp:write"]})
    walk = await walk_discovery(app, R, issuer, message=message)
    assert walk.response.json()["result"]["content"] == [{"type": "text", "text": "walk"}]
    assert [step.status for step in walk.steps] == [401, 200, 200, 200, 403, 200, 200]


async def test_an_exception_of_the_app_reaches_the_test(issuer: Issuer) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await walk_discovery(protect(issuer, app), R, issuer)


@pytest.mark.parametrize(
    ("url", "resource", "message"),
    [
        pytest.param("/mcp", None, "'/mcp' is not an absolute URL", id="a path"),
        pytest.param(R, f"{R}/below", "is not below the resource", id="a child for the resource"),
        pytest.param(f"{R}x", R, "is not below the resource", id="a sibling for the resource"),
        pytest.param(R, "https://else.example.com", "is not below the resource", id="another host for the resource"),
    ],
)
async def test_relative_urls_and_foreign_resources_are_a_value_error(
    issuer: Issuer, url: str, resource: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        await walk_discovery(RecordingApp(), url, issuer, resource=resource)
