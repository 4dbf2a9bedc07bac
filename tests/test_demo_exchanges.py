"""What the demo records of an exchange, what it shows of it, and what it never shows."""

from __future__ import annotations

import io
import json
import threading
from typing import Any

import pytest
from harness import Headers, http_scope, send_scope
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from asgi_mcp_auth.cli.demo._display import Display
from asgi_mcp_auth.cli.demo._exchanges import HTTPExchange, record_exchanges
from asgi_mcp_auth.cli.demo._explain import meaning_of
from asgi_mcp_auth.cli.demo._meaning import (
    AUTHORIZATION_SERVER,
    CLIENT,
    MCP_SERVER,
    OTHER,
    Deployment,
    Meaning,
    abbreviate,
    claims_of,
    differences,
)
from asgi_mcp_auth.cli.demo._scenario import first_missing
from asgi_mcp_auth.testing import Issuer

RESOURCE = "http://127.0.0.1:8000/mcp"
METADATA = "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"
ISSUER = "http://127.0.0.1:9000"
DEPLOYMENT = Deployment(resource=RESOURCE, metadata_url=METADATA, issuer=ISSUER, baseline="notes:read")
PRM = f'resource_metadata="{METADATA}"'


def exchange(
    server: str = AUTHORIZATION_SERVER,
    method: str = "GET",
    path: str = "/",
    status: int = 200,
    *,
    query: dict[str, str] | None = None,
    sent: dict[str, str] | None = None,
    got: dict[str, str] | None = None,
    body: bytes = b"",
    answer: object = None,
) -> HTTPExchange:
    return HTTPExchange(
        server=server,
        method=method,
        path=path,
        query=query or {},
        status=status,
        request_fields=sent or {},
        response_fields=got or {},
        request_body=body,
        response_body=b"" if answer is None else json.dumps(answer).encode(),
    )


def challenged(status: int, header: str) -> HTTPExchange:
    return exchange(MCP_SERVER, "POST", "/mcp", status, got={"www-authenticate": header})


FORM = {"content-type": "application/x-www-form-urlencoded"}
TOKEN = Issuer(ISSUER).mint(RESOURCE, scope="notes:read", iat=1_800_000_000, exp=1_800_000_600)
OTHER_TOKEN = Issuer(ISSUER).mint("https://other.example.com/mcp", scope="notes:read")


def token_answer(token: str, grant: str = "authorization_code") -> HTTPExchange:
    answer = {"access_token": token, "refresh_token": "rt_0123456789abcdef"}
    return exchange(
        method="POST",
        path="/token",
        sent=FORM,
        body=f"grant_type={grant}&code=ac_0123456789abcdef".encode(),
        answer=answer,
    )


def authorized(**query: str) -> HTTPExchange:
    location = "http://127.0.0.1:1/callback?" + "&".join(f"{name}={value}" for name, value in query.items())
    return exchange(path="/authorize", status=302, query={"scope": "notes:read"}, got={"location": location})


CASES = [
    ("a first 401", challenged(401, f'Bearer scope="notes:read", {PRM}'), "no token", None),
    ("one without a scope", challenged(401, f"Bearer {PRM}"), "no token", "scope is '', not 'notes:read'"),
    (
        "a 403 in place of it",
        challenged(403, f'Bearer scope="notes:read", {PRM}'),
        "no token",
        "status is 403, not 401",
    ),
    (
        "other metadata",
        challenged(401, 'Bearer scope="notes:read", resource_metadata="x"'),
        "no token",
        "resource_meta",
    ),
    ("two challenges", challenged(401, f'Bearer scope="notes:read", {PRM}, Basic realm="x"'), "no token", "number"),
    ("nothing readable", challenged(401, "="), "no token", "number of challenges is 0"),
    ("step-up", challenged(403, f'Bearer error="insufficient_scope", scope="notes:read x", {PRM}'), "step-up", None),
    (
        "one that loses",
        challenged(403, f'Bearer error="insufficient_scope", scope="x", {PRM}'),
        "step-up",
        "missing is",
    ),
    ("an invalid token", challenged(401, f'Bearer error="invalid_token", {PRM}'), "invalid_token", None),
    (
        "an expired token",
        challenged(401, f'Bearer error="invalid_token", {PRM}, error_description="The access token expired"'),
        "expired",
        None,
    ),
    (
        "an answer of the app",
        exchange(MCP_SERVER, "POST", "/mcp", body=b'{"method": "tools/list"}'),
        "tools/list",
        None,
    ),
    ("a failure of the app", exchange(MCP_SERVER, "POST", "/mcp", 500), "POST", "the status is 500"),
    ("a stream", exchange(MCP_SERVER, "GET", "/mcp"), "GET", None),
    (
        "resource metadata",
        exchange(
            MCP_SERVER,
            path="/.well-known/oauth-protected-resource/mcp",
            answer={"resource": RESOURCE, "authorization_servers": [ISSUER]},
        ),
        "resource metadata",
        None,
    ),
    (
        "that of another",
        exchange(MCP_SERVER, path="/.well-known/oauth-protected-resource/mcp", answer={"resource": "x"}),
        "resource metadata",
        f"resource is 'x', not {RESOURCE!r}; authorization_servers is None",
    ),
    (
        "metadata for a client",
        exchange(
            path="/.well-known/oauth-authorization-server",
            sent={"mcp-protocol-version": "2025-11-25"},
            answer={"issuer": ISSUER, "code_challenge_methods_supported": ["S256"]},
        ),
        "server metadata",
        None,
    ),
    (
        "metadata for the middleware",
        exchange(
            path="/.well-known/oauth-authorization-server",
            answer={"issuer": ISSUER, "code_challenge_methods_supported": ["S256"]},
        ),
        "server metadata for the MCP server",
        None,
    ),
    (
        "metadata of another",
        exchange(path="/.well-known/openid-configuration", answer={"issuer": "x"}),
        "server metadata for the MCP server",
        "issuer is 'x'",
    ),
    ("no metadata", exchange(path="/.well-known/x", status=404), "no server metadata", None),
    ("keys", exchange(path="/jwks", answer={"keys": [{"alg": "RS256", "kid": "k"}]}), "keys", None),
    ("no keys", exchange(path="/jwks", status=503), "keys", "status is 503"),
    (
        "registration",
        exchange(method="POST", path="/register", status=201, answer={"client_id": "c"}),
        "registration",
        None,
    ),
    ("no registration", exchange(method="POST", path="/register", status=400), "registration", "status is 400"),
    ("a consent page", exchange(path="/authorize"), "consent page", None),
    ("an error page", exchange(path="/authorize", status=400), "authorization refused", "the status is 400"),
    ("a code", authorized(code="ac_0123456789abcdef", iss=ISSUER), "authorization", None),
    ("a code without iss", authorized(code="ac_0123456789abcdef"), "authorization", "iss is None"),
    ("a no", authorized(error="access_denied", iss=ISSUER), "denied", None),
    ("a token", token_answer(TOKEN), "authorization_code", None),
    ("a token for another", token_answer(OTHER_TOKEN), "authorization_code", "aud is 'https://other"),
    ("a refresh", token_answer(TOKEN, "refresh_token"), "refresh_token", None),
    ("a grant of another kind", token_answer(TOKEN, "x"), "x", None),
    (
        "no token",
        exchange(
            method="POST", path="/token", status=400, sent=FORM, body=b"grant_type=x", answer={"error": "invalid_grant"}
        ),
        "invalid_grant",
        None,
    ),
    (
        "a callback",
        exchange(CLIENT, path="/callback", query={"state": "s", "code": "c", "iss": ISSUER}),
        "callback",
        None,
    ),
    (
        "one of another issuer",
        exchange(CLIENT, path="/callback", query={"state": "s", "error": "e", "iss": "x"}),
        "callback",
        "iss is 'x'",
    ),
    ("an icon", exchange(CLIENT, path="/favicon.ico", status=404), "other", None),
    ("something else", exchange(path="/favicon.ico", status=404), "other", None),
]


@pytest.mark.parametrize(
    ("found", "kind", "problem"),
    [pytest.param(*case, id=description) for description, *case in CASES],
)
def test_what_an_exchange_means(found: HTTPExchange, kind: str, problem: str | None) -> None:
    meaning = meaning_of(found, DEPLOYMENT)
    assert meaning.kind == kind
    assert (meaning is OTHER) == (kind == "other")
    if problem is None:
        assert meaning.problem is None
    else:
        assert problem in str(meaning.problem)


SECRETS = ("ac_0123456789abcdef", "rt_0123456789abcdef", TOKEN, OTHER_TOKEN)


@pytest.mark.parametrize(("found"), [pytest.param(case[1], id=case[0]) for case in CASES])
def test_no_meaning_has_a_secret(found: HTTPExchange) -> None:
    meaning = meaning_of(found, DEPLOYMENT)
    shown = " ".join([repr(meaning), *meaning.details, repr(found)])
    assert [secret for secret in SECRETS if secret in shown or secret[12:] in shown] == []


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(exchange(path="/\x1b[2J/token", answer={"error": "no"}), id="in a path"),
        pytest.param(
            exchange(
                method="POST", path="/register", status=201, body=b'{"client_name": "\\u001b]0;x\\u0007\\u202ea"}'
            ),
            id="in a client's name",
        ),
        pytest.param(
            exchange(MCP_SERVER, "POST", "/mcp", sent={"mcp-method": "tools/call", "mcp-name": "\x9b2J"}),
            id="in a tool's name",
        ),
    ],
)
def test_nothing_shown_controls_a_terminal(found: HTTPExchange) -> None:
    shown = io.StringIO()
    Display(Console(file=shown, highlight=False, soft_wrap=True, markup=False, emoji=False)).show_exchange(
        found, DEPLOYMENT
    )
    assert shown.getvalue().count("\n") > 1
    assert "\ufffd" in shown.getvalue()
    assert all(line.isprintable() for line in shown.getvalue().split("\n"))


def test_a_token_is_shown_by_its_first_characters() -> None:
    assert abbreviate("ac_0123456789abcdef") == "ac_0123456…"


@pytest.mark.parametrize("token", ["", "a", "a.b", "a.!!.c", "a.e30.c", "a.MQ.c", "é.é.é", "\ud800.e30.c"])
def test_a_malformed_token_has_no_claims(token: str) -> None:
    assert claims_of(token) == {}


def test_all_differences_are_reported_together() -> None:
    assert differences(a=(1, 1)) is None
    assert differences(a=(1, 2), b=("x", None)) == "a is 1, not 2; b is 'x', not None"


@pytest.mark.parametrize(
    ("expected", "found", "first"),
    [
        pytest.param([], ["a"], None, id="nothing expected"),
        pytest.param(["a", "c"], ["a", "b", "c"], None, id="others between"),
        pytest.param(["c", "a"], ["a", "b", "c"], "a", id="in another order"),
        pytest.param(["a", "a"], ["a"], "a", id="once in place of twice"),
        pytest.param(["a"], [], "a", id="nothing found"),
    ],
)
def test_first_missing(expected: list[str], found: list[str], first: str | None) -> None:
    assert first_missing(expected, found) == first


BODIES = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"[]", b"1", b'{"keys": 1}', b'{"method": 1, "params": []}'])
)
FIELDS = st.dictionaries(
    st.sampled_from(["www-authenticate", "location", "content-type", "mcp-method", "mcp-protocol-version", "host"]),
    st.text(st.characters(max_codepoint=255), max_size=30),
)


@given(
    server=st.sampled_from([MCP_SERVER, AUTHORIZATION_SERVER, CLIENT]),
    path=st.sampled_from(
        ["/mcp", "/token", "/register", "/authorize", "/jwks", "/.well-known/x", METADATA[21:], "/\ud800"]
    ),
    status=st.integers(100, 599),
    fields=st.tuples(FIELDS, FIELDS),
    bodies=st.tuples(BODIES, BODIES),
)
def test_every_exchange_has_a_meaning(
    server: str,
    path: str,
    status: int,
    fields: tuple[dict[str, str], dict[str, str]],
    bodies: tuple[bytes, bytes],
) -> None:
    """Any client or server may send anything."""
    found = HTTPExchange(
        server=server,
        method="POST",
        path=path,
        query={},
        status=status,
        request_fields=fields[0],
        response_fields=fields[1],
        request_body=bodies[0],
        response_body=bodies[1],
    )
    assert isinstance(meaning_of(found, DEPLOYMENT), Meaning)


# Recording


async def recorded(app: Any, headers: Headers = (), body: bytes = b"", **scope: Any) -> tuple[HTTPExchange, Any]:
    exchanges: list[HTTPExchange] = []
    whole = http_scope("POST", "/mcp", headers, **scope)
    answer = await send_scope(record_exchanges(app, "a server", exchanges.append), whole, body)
    (only,) = exchanges
    return only, answer


def answering(*pieces: bytes, content_type: bytes = b"application/json") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Type", content_type)]})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


@pytest.mark.anyio
async def test_an_exchange_is_reported_with_its_whole_bodies() -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    found, answer = await recorded(answering(b'{"a"', b": 1}"), headers, b"grant_type=x", query=b"q=1&q=2")
    assert answer.body == b'{"a": 1}'
    assert (found.server, found.method, found.path, found.status) == ("a server", "POST", "/mcp", 200)
    assert dict(found.form) == {"grant_type": "x"}
    assert dict(found.response_object) == {"a": 1}
    assert dict(found.query) == {"q": "2"}
    assert found.response_fields["content-type"] == "application/json"


@pytest.mark.anyio
async def test_a_stream_is_reported_when_it_starts() -> None:
    found, _ = await recorded(answering(b"data: secret\n\n", content_type=b"text/event-stream; charset=utf-8"))
    assert found.response_body == b""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content_type", "order"),
    [
        pytest.param(b"text/html", ["reported", "start", "body"], id="a response without a body"),
        pytest.param(b"text/event-stream", ["reported", "start", "body"], id="a stream"),
    ],
)
async def test_an_exchange_is_reported_before_a_client_can_act_on_it(content_type: bytes, order: list[str]) -> None:
    happened: list[str] = []

    async def send(message: Any) -> None:
        happened.append(message["type"].rpartition(".")[2])

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    app = record_exchanges(
        answering(content_type=content_type), "a server", lambda exchange: happened.append("reported")
    )
    await app(http_scope(), receive, send)
    assert happened == order


@pytest.mark.anyio
async def test_the_start_of_a_long_answer_does_not_wait_for_its_end() -> None:
    happened: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        happened.append("more")
        await send({"type": "http.response.body", "body": b"b"})

    async def send(message: Any) -> None:
        happened.append(message["type"].rpartition(".")[2])

    recorded_app = record_exchanges(app, "a server", lambda exchange: happened.append(exchange.response_body.decode()))
    await recorded_app(http_scope(), None, send)
    assert happened == ["start", "body", "more", "ab", "body"]


@pytest.mark.anyio
async def test_bodies_are_kept_to_a_bound() -> None:
    found, answer = await recorded(answering(b"a" * 70_000, b"b" * 70_000), body=b"c" * 70_000)
    assert len(answer.body) == 140_000
    assert (len(found.request_body), len(found.response_body)) == (65_536, 65_536)


@pytest.mark.anyio
async def test_an_app_that_raises_is_reported_and_raises() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError("broken")

    exchanges: list[HTTPExchange] = []
    with pytest.raises(ValueError, match="broken"):
        await send_scope(record_exchanges(broken, "a server", exchanges.append), http_scope())
    assert [found.status for found in exchanges] == [500]


@pytest.mark.anyio
async def test_other_scopes_than_http_pass() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    await record_exchanges(app, "a server", lambda exchange: seen.append("reported"))({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("body", "fields", "operation"),
    [
        pytest.param(b'{"method": "initialize"}', {}, "initialize", id="of the body"),
        pytest.param(b'{"method": "tools/call", "params": {"name": "a"}}', {}, "tools/call a", id="with the tool"),
        pytest.param(b'{"method": "tools/call", "params": 1}', {}, "tools/call None", id="a tool without a name"),
        pytest.param(b"", {"mcp-method": "tools/call", "mcp-name": "a"}, "tools/call a", id="of the fields"),
        pytest.param(b"", {}, None, id="none"),
        pytest.param(b'{"a":' * 10_000, {}, None, id="none in what is nested too deep"),
    ],
)
def test_operation(body: bytes, fields: dict[str, str], operation: str | None) -> None:
    assert exchange(MCP_SERVER, "POST", "/mcp", body=body, sent=fields).operation == operation


def test_a_step_does_not_begin_within_an_exchange() -> None:
    """The threads of the servers print exchanges, the thread of the client prints steps."""

    class Terminal(io.StringIO):
        """A terminal on which a step begins, in another thread, after the first line of an exchange."""

        def write(self, text: str) -> int:
            written = super().write(text)
            if "[1]" in text:
                client.start()
                client.join(0.05)  # the step waits for the end of the exchange
            return written

    terminal = Terminal()
    display = Display(Console(file=terminal, width=200))
    client = threading.Thread(target=display.begin_step, args=("Later",))
    display.show_exchange(exchange(path="/jwks", answer={"keys": []}), DEPLOYMENT)
    client.join()
    lines = [line.strip() for line in terminal.getvalue().splitlines() if line.strip()]
    assert (lines[0][:3], lines[-1]) == ("[1]", "1. Later")
