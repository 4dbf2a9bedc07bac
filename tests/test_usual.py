"""The short way of usual requests decides nothing that the steps do not decide."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from harness import PRM_PATH, Clock, R, RecordingApp, call, http_scope, protect, send_scope, token
from hypothesis import event, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import (
    MCPAuth,
    MemoryStore,
    Reason,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    ScopeRule,
)
from asgi_mcp_auth._asgi.usual import UsualRequests
from asgi_mcp_auth._oauth.jwk_set import VerificationKey
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

POLICY = ScopePolicy(default=["mcp:read"], paths={"POST /mcp/admin": ["admin"], "DELETE /mcp": ["mcp:end"]})


def guard(issuer: Issuer, policy: ScopePolicy = POLICY, **options: Any) -> tuple[Any, RecordingApp]:
    app = RecordingApp(headers=[(b"content-type", b"application/json")])
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    config = ResourceServerConfig(metadata=metadata, policy=policy)
    settings: dict[str, Any] = {"http_client": issuer.http_client, "clock": issuer.clock} | options
    return MCPAuth(config, **settings).wrap(app), app


def is_usual(protected: Any) -> bool:
    return any(endpoint.needed is not None for endpoint in protected._usual._endpoints.values())


def observe(_: Any) -> None:
    raise NotImplementedError


async def allow(*_: Any) -> Any:
    raise NotImplementedError


# --- The property ---

ISSUER = Issuer(algorithms=("RS256", "ES256"), clock=Clock())
STRANGER = Issuer("https://stranger.example", clock=ISSUER.clock)
GOOD = token(ISSUER)
TOKENS = [
    GOOD,
    token(ISSUER, key=ISSUER.keys[1]),
    token(ISSUER, scope="mcp:read mcp:end admin"),
    token(ISSUER, scope="other"),
    token(ISSUER, scope=...),
    token(ISSUER, exp=1),
    token(ISSUER, aud="https://other.example"),
    token(ISSUER, header={"kid": "nobody"}, iat=1),
    token(ISSUER, header={"kid": "nobody"}),
    token(ISSUER, header={"kid": ISSUER.keys[1].kid}),  # another algorithm's key
    token(STRANGER),
    GOOD[:-2] + ("AA" if GOOD[-2:] != "AA" else "BB"),
    GOOD[:-1],
    GOOD + "=",
    token(ISSUER, note="x" * 13_000),  # longer than any that is read
    "opaque",
    "no token68!",
    "",
]
SCHEMES = ["Bearer ", "bearer ", "Bearer  ", "Bearer", "DPoP ", "Basic ", " Bearer ", "Bearer\t"]
LINES: st.SearchStrategy[bytes] = st.one_of(
    st.tuples(st.sampled_from(SCHEMES), st.sampled_from(TOKENS), st.sampled_from(["", "", "", " ", "\t", ","])).map(
        lambda parts: "".join(parts).encode()
    ),
    st.binary(max_size=40),
)
TWICE = st.lists(st.sampled_from([b"", f"Bearer {GOOD}".encode(), b"Bearer"]), min_size=2, max_size=3)
FIELDS: st.SearchStrategy[tuple[str, bytes]] = st.one_of(
    st.tuples(st.just("authorization"), LINES),
    st.tuples(
        st.just("origin"), st.sampled_from([b"https://mcp.example.com", b"https://evil.example", b"null", b"\xff"])
    ),
    st.tuples(st.just("dpop"), st.just(b"proof")),
    st.tuples(st.just("host"), st.sampled_from([b"mcp.example.com", b"evil.example"])),
    st.tuples(st.just("cookie"), st.binary(max_size=8)),
    st.tuples(st.just("content-type"), st.just(b"application/json")),
    st.tuples(st.just("access-control-request-method"), st.just(b"POST")),
)


def tools_call(name: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}}).encode()


def one_line(line: bytes) -> list[tuple[str, bytes]]:
    return [("authorization", line)]


PATHS = st.sampled_from(["/mcp", "/mcp", "/mcp", "/mcp/", "/mcp/admin", "/", "//mcp", PRM_PATH, "/.well-known/x", "*"])
REQUESTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["POST", "POST", "GET", "DELETE", "OPTIONS", "HEAD", "post"]),
        "path": PATHS,
        "headers": st.one_of(
            LINES.map(one_line),
            TWICE.map(lambda lines: [("authorization", line) for line in lines]),
            st.lists(FIELDS, max_size=4),
        ),
        "body": st.sampled_from(
            [b"", *map(tools_call, ("end", "add")), b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}']
        ),
    },
    optional={
        "raw_path": PATHS.map(str.encode),
        "root_path": st.sampled_from(["", None, "/mcp", "/api"]),
        "host": st.sampled_from([None, "mcp.example.com", "mcp.example.com:443", "internal:8000", "evil.example"]),
        "http_version": st.sampled_from(["1.1", "2"]),
    },
)


PUBLIC = ScopePolicy(default=["mcp:read"], public_methods=["tools/list"])
WITH_OPERATIONS = ScopePolicy(default=["mcp:read"], tools={"end": ["mcp:end"]}, non_mcp_paths=["GET /mcp"])
POLICIES = st.sampled_from([POLICY, WITH_OPERATIONS, PUBLIC, ScopePolicy()])


HOSTS = st.sampled_from([{}, {}, {"allowed_hosts": ["mcp.example.com", "internal"]}])


@settings(max_examples=200, deadline=None)
@given(POLICIES, HOSTS, st.lists(REQUESTS, min_size=1, max_size=4))
def test_the_short_way_and_the_steps_never_differ(
    policy: ScopePolicy, hosts: dict[str, Any], requests: list[dict[str, Any]]
) -> None:
    """RS-3: the same answers, and the app finds the same, whatever is asked in whatever order."""

    async def use() -> None:
        (short, short_app), (long, long_app) = guard(ISSUER, policy, **hosts), guard(ISSUER, policy, **hosts)
        assert short._usual._endpoints
        long._usual = UsualRequests({}, long.auth.site.hosts)
        for request in requests:
            ours, theirs = await call(short, **request), await call(long, **request)
            assert (ours.status, ours.headers, ours.body) == (theirs.status, theirs.headers, theirs.body)
            assert short_app.calls == long_app.calls
            if short_app.calls:
                assert seen(short_app) == seen(long_app)
        ours_told, theirs_told = (
            [one.refusals for one in (*protected.auth.status().issuers, *protected.auth.status().resources)]
            for protected in (short, long)
        )
        assert ours_told == theirs_told

    anyio.run(use)


def seen(app: RecordingApp) -> Any:
    scope = app.scopes[-1]
    state = scope.get("state", {})
    auth = scope.get("auth")
    return (
        list(scope["headers"]),
        {name: value for name, value in state.items() if name != "mcp_auth"},
        state.get("mcp_auth"),
        None if auth is None else auth.scopes,
        {name: scope[name] for name in scope if name not in ("headers", "state", "auth", "user")},
    )


# --- The same, where operation rules read the body ---

TOOLS: dict[str, Any] = {"end": ["mcp:end"], "adm*": ScopeRule(scopes=["admin"], max_age=60), "add": ["mcp:read"]}
RULED = ScopePolicy(default=["mcp:read"], tools=TOOLS, resources={"file:///secret/*": ["admin"]})
MESSAGE_POLICIES = st.sampled_from(
    [
        RULED,
        replace(RULED, unlisted="deny"),
        replace(RULED, filter_lists=True),
        replace(RULED, allow_batches=True, scope_strategy="cumulative"),
        replace(RULED, headers_only=True),
        replace(RULED, paths={"POST /mcp": ScopeRule(scopes=["mcp:end"], max_age=60)}),
        replace(RULED, public_methods=["tools/list"]),
    ]
)
CALLED = [
    *(("tools/call", "name", name) for name in ("add", "end", "admin", "other", "\u00e9", "")),
    *(("resources/read", "uri", f"file:///{name}") for name in ("open", "secret/x", "open/../secret/x")),
    *(("tools/list", "cursor", "x"), ("notifications/x", "name", "end"), ("prompts/get", "name", "add")),
]
ODD_FIELDS = [
    *((b"content-encoding", b"gzip"), (b"content-length", b"7"), (b"content-type", b"text/plain"), (b"x", b"1")),
    *((b"origin", b"https://mcp.example.com"), (b"mcp-name", b" end\t"), (b"mcp-session-id", b"s")),
]
NO_FIELDS: list[tuple[bytes, bytes]] = []
NOTHING_ODD: dict[str, Any] = {}
NEW, OLD = "2026-07-28", "2025-11-25"
KNOWN = [(b"authorization", f"Bearer {one}".encode()) for one in TOKENS[:6]]


@st.composite
def messages(draw: Any) -> dict[str, Any]:
    """A POST of a message, in pieces, with the fields that describe it; one thing or another may be odd."""
    method, member, name = draw(st.sampled_from(CALLED * 3 + CALLED[:1] * 9))
    version = draw(st.sampled_from([NEW, OLD]))
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": NEW}} if version == NEW else {}
    request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {member: name, **meta}}
    body = json.dumps(draw(st.sampled_from([request] * 9 + [[request], [request, request], {"id": 1}]))).encode()
    body = draw(st.sampled_from([body] * 9 + [body[:-1], body.replace(b"jsonrpc", b"method"), b"", b"\xff"]))
    described = [(b"mcp-method", method.encode()), (b"mcp-name", name.encode())] if version == NEW else []
    fields = [(b"content-type", b"application/json"), (b"mcp-protocol-version", version.encode()), *described]
    fields += [(b"content-length", str(len(body)).encode())] if draw(st.booleans()) else []
    fields = draw(st.sampled_from([fields] * 9 + [fields[1:], [*fields, fields[0]], [*fields[:-1]], fields * 2]))
    fields += draw(st.sampled_from([NO_FIELDS] * 9 + [[one] for one in ODD_FIELDS]))
    credential = draw(st.sampled_from(KNOWN * 3 + [KNOWN[0]] * 9 + [(b"authorization", b"Basic x"), (b"x", b"y")]))
    cut = draw(st.integers(0, len(body)))
    pieces = draw(st.sampled_from([[body]] * 5 + [[body[:cut], body[cut:]], [b"", body, b""], [body[:cut], None]]))
    sent: dict[str, Any] = {"fields": draw(st.permutations([credential, *fields])), "pieces": pieces}
    sent |= draw(st.sampled_from([NOTHING_ODD] * 5 + [{"http_version": "2"}, {"path": "/mcp/x"}, {"method": "PUT"}]))
    return sent


class Reader:
    """An app that reads its request to the end, and lists tools; what it was given is kept."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.given.append({name: value for name, value in scope.items() if name not in ("state", "user", "auth")})
        self.given.append([scope["state"]["mcp_auth"], scope["auth"].scopes] if "auth" in scope else None)
        while (message := await receive())["type"] == "http.request":
            self.given.append(message)
        listed = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": name} for name in ("add", "end", "other")]}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(listed).encode()})


class Log(logging.Handler):
    """What was logged, and why."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append((record.getMessage(), record.__dict__["reason"]))


async def exchange(protected: Any, request: dict[str, Any]) -> list[Any]:
    """What is sent for it, and what is left of it."""
    scope = http_scope(request.get("method", "POST"), request.get("path", "/mcp"))
    scope |= {"headers": list(request["fields"]), "http_version": request.get("http_version", "1.1")}
    queue = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in request["pieces"] if piece is not None
    ]
    if None not in request["pieces"]:
        queue[-1]["more_body"] = False
    sent: list[Any] = []

    async def receive() -> Any:
        return queue.pop(0) if queue else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await protected(scope, receive, send)
    return [sent, queue]


@settings(max_examples=400, deadline=None)
@given(MESSAGE_POLICIES, st.lists(messages(), min_size=1, max_size=4))
def test_messages_are_judged_on_the_short_way_as_by_the_steps(policy: ScopePolicy, requests: list[Any]) -> None:
    """RS-3: the same answers, the same log, and the app finds and receives the same."""

    async def use() -> None:
        log = Log()
        apps = Reader(), Reader()
        config = ResourceServerConfig(
            metadata=ResourceServerMetadata(resource=R, authorization_servers=[ISSUER.url]), policy=policy
        )
        ways: list[Any] = [
            MCPAuth(config, http_client=ISSUER.http_client, clock=ISSUER.clock).wrap(app) for app in apps
        ]
        short, long = ways
        assert any(one.before_message is not None for one in short._usual._endpoints.values())
        long._usual = UsualRequests({}, long.auth.site.hosts)
        logger = logging.getLogger("asgi_mcp_auth.decisions")
        logger.addHandler(log)
        try:
            for request in requests:
                log.told.clear()
                ours, ours_told = await exchange(short, request), [*log.told]
                log.told.clear()
                theirs, theirs_told = await exchange(long, request), [*log.told]
                event(f"status {ours[0][0]['status']}")
                assert (ours, ours_told) == (theirs, theirs_told)
                assert apps[0].given == apps[1].given
        finally:
            logger.removeHandler(log)

    anyio.run(use)


@pytest.mark.parametrize(
    ("options", "policy", "expected"),
    [
        pytest.param({}, RULED, True, id="rules for tools"),
        pytest.param({}, replace(RULED, filter_lists=True), True, id="lists are filtered"),
        pytest.param({"authorize": allow}, RULED, False, id="the authorize hook is asked every time"),
        pytest.param({"session_store": MemoryStore()}, RULED, False, id="sessions are looked up"),
        pytest.param({"on_decision": [observe]}, RULED, False, id="RS-241 observers are told of every request"),
        pytest.param({}, replace(RULED, non_mcp_paths=["/mcp"]), False, id="not MCP"),
        pytest.param({}, POLICY, False, id="no rules for what a body says"),
    ],
)
def test_where_messages_have_a_short_way(
    issuer: Issuer, options: dict[str, Any], policy: ScopePolicy, expected: bool
) -> None:
    endpoints = guard(issuer, policy, **options)[0]._usual._endpoints
    ruled = {method for (method, *_), endpoint in endpoints.items() if endpoint.before_message is not None}
    assert ruled == ({"POST"} if expected else set())


@pytest.mark.parametrize("first", [b"", b"Bearer", b"Basic x"])
async def test_two_credentials_are_two(issuer: Issuer, first: bytes) -> None:
    """RS-12: an empty line is a line."""
    protected, app = guard(issuer)
    good = f"Bearer {token(issuer)}".encode()
    for lines in ((first, good), (good, first)):
        answer = await call(protected, headers=[("authorization", line) for line in lines])
        assert answer.status == 400
    assert app.calls == 0


@pytest.mark.parametrize("kind", [list, tuple, iter])
async def test_header_fields_are_any_iterable(issuer: Issuer, kind: Any) -> None:
    """RS-220: one that can be read only once hides nothing from the steps, nor from the app."""
    protected, app = guard(issuer)
    good = (b"authorization", f"Bearer {token(issuer)}".encode())
    for fields, expected in (
        ([good, (b"x-one", b"1")], 200),
        ([good, (b"origin", b"https://evil.example"), (b"x-one", b"1")], 403),
        ([(b"authorization", b"Bearer x"), (b"origin", b"https://evil.example"), good], 403),
        ([good, (b"origin", b"https://mcp.example.com"), (b"x-one", b"1")], 200),
        ([(b"authorization", b"Basic x"), good], 400),
    ):
        answer = await send_scope(protected, http_scope() | {"headers": kind(fields)})
        assert answer.status == expected
    assert app.calls == 2
    assert all((b"x-one", b"1") in scope["headers"] for scope in app.scopes)


# --- Where there is no short way ---


class Opaque:
    async def verify(self, credential: Any, request: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, True, id="the usual"),
        pytest.param({"expose_token": True}, True, id="a token that the app sees"),
        pytest.param({"token_cache_size": 0}, True, id="nothing remembered"),
        pytest.param({"on_decision": [observe]}, False, id="RS-241 observers are told of every request"),
        pytest.param({"verifier": Opaque()}, False, id="RS-88 a verifier of the user's is asked every time"),
        pytest.param({"is_revoked": allow}, False, id="RS-88 the revocation hook is asked every time"),
        pytest.param({"authorize": allow}, False, id="the authorize hook is asked every time"),
        pytest.param({"session_store": MemoryStore()}, False, id="sessions are looked up"),
        pytest.param({"allowed_hosts": ["mcp.example.com"]}, True, id="RS-223 the Host is checked"),
        pytest.param({"reject_query_token": True}, False, id="RS-14 the query is read"),
        pytest.param({"policy": ScopePolicy(tools={"x": ["y"]})}, False, id="operation rules read the body"),
        pytest.param({"public_paths": ["/healthz"]}, True, id="public paths elsewhere"),
    ],
)
def test_where_there_is_a_short_way(issuer: Issuer, options: dict[str, Any], expected: bool) -> None:
    assert is_usual(guard(issuer, **options)[0]) is expected


async def test_an_unforeseen_error_is_no_pass_and_no_500(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """RS-6: on the short way too."""
    protected, app = guard(issuer)
    assert (await call(protected, headers=[("authorization", f"Bearer {token(issuer)}")])).status == 200

    def fail(*_: Any) -> bool:
        message = "unforeseen"
        raise RuntimeError(message)

    monkeypatch.setattr(VerificationKey, "verify", fail)
    answer = await call(protected, headers=[("authorization", f"Bearer {token(issuer, sub='bob')}")])
    assert (answer.status, answer.json()) == (503, {"error": "temporarily_unavailable"})
    assert app.calls == 1


async def test_refusals_are_logged(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    protected, _ = guard(issuer)
    await call(protected, headers=[("authorization", f"Bearer {token(issuer)}")])  # fetches the keys
    caplog.clear()
    raw = token(issuer, exp=1)
    answer = await call(protected, headers=[("authorization", f"Bearer {raw}")])
    assert answer.status == 401
    (record,) = [one for one in caplog.records if one.name == "asgi_mcp_auth.decisions"]
    assert record.__dict__["reason"] == Reason.TOKEN_EXPIRED.value
    assert raw.rpartition(".")[2] not in caplog.text


def test_a_root_path_that_the_app_sets_itself(issuer: Issuer) -> None:
    """RS-2: what FastAPI cuts off the path is judged, always."""
    for root_path, expected in (("", True), ("/api", False)):
        metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
        auth = MCPAuth(ResourceServerConfig(metadata=metadata), http_client=issuer.http_client)
        app = FastAPI()
        app.root_path = root_path
        assert is_usual(auth.wrap(app)) is expected


def test_one_resource_or_several(issuer: Issuer) -> None:
    """Each endpoint is its own resource's."""
    resources = ["https://mcp.example.com/a/mcp", "https://mcp.example.com/b/mcp"]
    auth = MCPAuth(
        [
            ResourceServerConfig(metadata=ResourceServerMetadata(resource=one, authorization_servers=[issuer.url]))
            for one in resources
        ],
        http_client=issuer.http_client,
        clock=issuer.clock,
    )
    protected: Any = auth.wrap(RecordingApp())
    endpoints = protected._usual._endpoints
    assert {(place[1], endpoint.resource.identifier) for place, endpoint in endpoints.items()} == {
        ("/a/mcp", resources[0]),
        ("/b/mcp", resources[1]),
    }
    assert protect(issuer, RecordingApp()).auth.site.paths.endpoints.keys() == {
        (method, "/mcp") for method in ("GET", "POST", "DELETE")
    }
