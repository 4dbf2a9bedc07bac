"""The whole pipeline in process: from an ASGI scope to the answer, or to the app."""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from harness import (
    APP,
    CH0,
    CORS,
    EXPIRED,
    INVALID,
    MALFORMED,
    PRM,
    PRM_PATH,
    Answer,
    Headers,
    Lines,
    R,
    RecordingApp,
    bearer,
    call,
    chr_,
    chs,
    cht,
    http_scope,
    lines,
    protect,
    token,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import (
    AuthInfo,
    ConfigurationError,
    Decision,
    DiscoveryError,
    MCPAuth,
    MCPAuthMiddleware,
    Reason,
    Refusal,
    ResourceServerConfig,
    ResourceServerMetadata,
    ScopePolicy,
    Verified,
    current_auth,
)
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth.errors import Forbidden, InvalidToken, Unavailable
from asgi_mcp_auth.testing import Issuer

pytestmark = pytest.mark.anyio

Maker = Callable[[Issuer], Lines]

DETAIL = b'{"detail":"Authentication required"}'
DOCUMENT = {
    "resource": R,
    "authorization_servers": ["https://auth.example.com"],
    "scopes_supported": ["mcp:read"],
    "bearer_methods_supported": ["header"],
}
NOT_FOUND = b'{"detail":"Not found"}'
ANY_ORIGIN = (b"access-control-allow-origin", b"*")


def given_by(make: Callable[[str], Lines]) -> Callable[[str], Lines]:
    """Return `make` unchanged, typed as a maker of header fields from a raw token."""
    return make


def placed(make: Callable[[bytes], Place]) -> Callable[[bytes], Place]:
    """Return `make` unchanged, typed as a maker of requests with a token outside the Authorization field."""
    return make


def always(*fields: tuple[str, str | bytes]) -> Maker:
    return lambda _: fields


class Place(NamedTuple):
    headers: Headers = ()
    query: bytes = b""


def refused(status: int, body: bytes, challenge: str | None = None, *more: tuple[bytes, bytes]) -> Answer:
    """Return a complete response of the middleware."""
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.encode()))
    return Answer(status, [*headers, *more], body)


def malformed(description: str = MALFORMED) -> Answer:
    body = json.dumps({"error": "invalid_request", "error_description": description}, separators=(",", ":"))
    return refused(400, body.encode(), chr_(description))


def invalid(description: str = INVALID) -> Answer:
    body = json.dumps({"error": "invalid_token", "error_description": description}, separators=(",", ":"))
    return refused(401, body.encode(), cht(description))


def insufficient(scope: str) -> Answer:
    body = b'{"error":"insufficient_scope","error_description":"Additional scope required"}'
    return refused(403, body, chs(scope))


def unavailable(seconds: int = 1) -> Answer:
    body = b'{"error":"temporarily_unavailable"}'
    return refused(503, body, None, (b"retry-after", str(seconds).encode()))


NO_CREDENTIAL = refused(401, DETAIL, CH0)
BAD_ORIGIN = refused(403, b'{"jsonrpc":"2.0","error":{"code":-32600,"message":"Origin not allowed"}}')
MISDIRECTED = refused(421, b'{"detail":"Host not allowed"}')
AMBIGUOUS = refused(400, b'{"error":"invalid_request","error_description":"Ambiguous request path"}')
ELSEWHERE = refused(404, NOT_FOUND, None, ANY_ORIGIN)


def resource(
    url: str, *, scopes: tuple[str, ...] = ("mcp:read",), issuer: str = "https://auth.example.com", **policy: Any
) -> ResourceServerConfig:
    metadata = ResourceServerMetadata(resource=url, authorization_servers=[issuer])
    return ResourceServerConfig(metadata=metadata, policy=ScopePolicy(default=scopes, **policy))


def several(issuer: Issuer, app: Any, *configs: ResourceServerConfig, **options: Any) -> MCPAuthMiddleware:
    return MCPAuth(configs, http_client=issuer.http_client, clock=issuer.clock, **options).wrap(app)


class Unreachable(httpx.AsyncBaseTransport):
    """A network in which the authorization server cannot be reached."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)


def no_network() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=Unreachable())


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.random.random", lambda: 0.0)


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(b"Bearer %s", id="Bearer"),
        pytest.param(b"bEaReR %s", id="RS-10 scheme without regard to case"),
        pytest.param(b"Bearer  %s", id="RS-11 two spaces"),
        pytest.param(b" \tBearer %s \t", id="RS-11 outer whitespace"),
    ],
)
async def test_good_credentials_pass(authorization: bytes, issuer: Issuer) -> None:
    app = RecordingApp(headers=[(b"x-app", b"1")])
    answer = await call(protect(issuer, app), headers=[("authorization", authorization % token(issuer).encode())])
    assert (answer.status, answer.headers, answer.json()["sub"]) == (200, [(b"x-app", b"1")], "alice")
    assert app.calls == 1


@pytest.mark.requirement("RS-14")
async def test_a_valid_header_with_a_token_in_the_query_passes_by_the_header_alone(issuer: Issuer) -> None:
    app = RecordingApp()
    query = b"access_token=" + token(issuer, sub="mallory").encode()
    answer = await call(protect(issuer, app), headers=bearer(token(issuer)), query=query)
    assert (answer.status, answer.json()["sub"]) == (200, "alice")


def line(value: str | bytes) -> Maker:
    return lambda _: [("authorization", value)]


def minted(**changes: Any) -> Maker:
    return lambda issuer: bearer(token(issuer, **changes))


def twice(issuer: Issuer) -> Lines:
    return bearer(good := token(issuer)) + bearer(good)


def with_basic(issuer: Issuer) -> Lines:
    return lines(bearer(token(issuer)), [("authorization", "Basic dTpw")])


def with_dpop(issuer: Issuer) -> Lines:
    return [("authorization", f"DPoP {token(issuer)}")]


def expired(issuer: Issuer) -> Lines:
    return bearer(token(issuer, iat=issuer.clock() - 7200, exp=issuer.clock() - 3600))


def with_bad_signature(issuer: Issuer) -> Lines:
    head, _, signature = token(issuer).rpartition(".")
    return bearer(f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(always(), NO_CREDENTIAL, id="RS-13 absent"),
        pytest.param(line(""), NO_CREDENTIAL, id="RS-13 empty value"),
        pytest.param(line("Basic dTpw"), NO_CREDENTIAL, id="RS-13 Basic"),
        pytest.param(line("Digest x"), NO_CREDENTIAL, id="RS-13 Digest"),
        pytest.param(line("Token x"), NO_CREDENTIAL, id="RS-13 Token"),
        pytest.param(line('"Bearer x"'), NO_CREDENTIAL, id="RS-13 no scheme at all"),
        pytest.param(line("BearerX x"), NO_CREDENTIAL, id="RS-13 another scheme that begins like ours"),
        pytest.param(line("Bearer"), malformed(), id="nothing after the scheme"),
        pytest.param(line("Bearer  "), malformed(), id="only spaces after the scheme"),
        pytest.param(line("Bearer\ttok"), malformed(), id="RS-11 tab"),
        pytest.param(line("Bearer \ttok"), malformed(), id="RS-11 space and tab"),
        pytest.param(line("Bearer a b"), malformed(), id="RS-11 RS-17 two words"),
        pytest.param(line("Bearer a,b"), malformed(), id="RS-11 comma"),
        pytest.param(line("Bearer a, Bearer b"), malformed(), id="RS-11 two credentials on one line"),
        pytest.param(line("Bearer a=b"), malformed(), id="RS-11 = inside"),
        pytest.param(line("Bearer ="), malformed(), id="RS-11 only ="),
        pytest.param(line("Bearer=abc"), malformed(), id="RS-11 no space"),
        pytest.param(line("Bearer é"), malformed(), id="RS-11 not ASCII"),
        pytest.param(line(b"Bearer a\x00b"), malformed(), id="RS-11 NUL"),
        pytest.param(line('Bearer "tok"'), malformed(), id="RS-11 quoted"),
        pytest.param(line("Bearer " + "a" * 20 * 1024), malformed(), id="RS-16 20 KiB"),
        pytest.param(twice, malformed("Multiple Authorization headers"), id="RS-12 two identical lines"),
        pytest.param(
            with_basic,
            malformed("Multiple Authorization headers"),
            id="RS-12 two schemes",
        ),
        pytest.param(line("Bearer abc"), invalid(), id="RS-17 token68 that is no JWT"),
        pytest.param(line("Bearer x.y"), invalid(), id="two parts"),
        pytest.param(line("Bearer a.b."), invalid(), id="RS-33 empty signature"),
        pytest.param(expired, invalid(EXPIRED), id="RS-33 RS-40 expired"),
        pytest.param(minted(cnf={"jkt": "x"}), invalid(), id="RS-85 sender-constrained"),
        pytest.param(with_dpop, NO_CREDENTIAL, id="DPoP"),
        pytest.param(minted(scope="other"), insufficient("mcp:read"), id="RS-115 without the baseline"),
        pytest.param(minted(scope=...), insufficient("mcp:read"), id="RS-115 without any scope"),
        pytest.param(minted(aud="https://other.example"), invalid(), id="RS-33 RS-39 wrong audience"),
        pytest.param(minted(iss="https://other.example"), invalid(), id="RS-33 RS-39 wrong issuer"),
        pytest.param(with_bad_signature, invalid(), id="RS-33 RS-39 bad signature"),
        pytest.param(minted(exp=...), invalid(), id="RS-33 no exp"),
        pytest.param(minted(scope=["mcp:read", 5]), invalid(), id="RS-33 malformed scope"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE", "HEAD"])
async def test_decision_table(headers: Maker, expected: Answer, method: str, issuer: Issuer) -> None:
    app = RecordingApp()
    answer = await call(protect(issuer, app), method, headers=headers(issuer))
    assert answer == (Answer(expected.status, expected.headers, b"") if method == "HEAD" else expected)
    assert app.calls == 0


@pytest.mark.requirement("RS-6")
async def test_keys_unavailable(issuer: Issuer) -> None:
    app = RecordingApp()
    assert await call(protect(issuer, app, http_client=no_network), headers=bearer(token(issuer))) == unavailable()
    assert app.calls == 0


@pytest.mark.requirement("RS-73")
async def test_a_token_of_another_issuer_is_refused_without_fetching_keys(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), http_client=no_network)
    assert await call(guarded, headers=bearer(token(issuer, iss="https://auth.example.com/"))) == invalid()


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(placed(lambda t: Place(query=b"access_token=" + t)), id="RS-14 query"),
        pytest.param(placed(lambda t: Place(query=b"a=1&access_token=" + t)), id="RS-14 later in the query"),
        pytest.param(placed(lambda t: Place([("cookie", b"access_token=" + t)])), id="RS-15 cookie"),
        pytest.param(placed(lambda t: Place([("x-api-key", t)])), id="RS-15 X-API-Key"),
        pytest.param(
            placed(lambda t: Place([("proxy-authorization", b"Bearer " + t)])), id="RS-15 Proxy-Authorization"
        ),
        pytest.param(
            placed(lambda t: Place([("sec-websocket-protocol", b"bearer, " + t)])), id="RS-15 Sec-WebSocket-Protocol"
        ),
        pytest.param(
            placed(lambda t: Place([("content-type", b"application/x-www-form-urlencoded")])), id="RS-15 form body"
        ),
    ],
)
async def test_no_token_is_read_outside_the_authorization_field(
    place: Callable[[bytes], Place], issuer: Issuer
) -> None:
    app = RecordingApp()
    headers, query = place(token(issuer).encode())
    scope = http_scope(headers=headers, query=query)
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("RS-15: the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    await protect(issuer, app)(scope, receive, send)
    assert Answer(sent[0]["status"], list(sent[0]["headers"]), sent[1]["body"]) == NO_CREDENTIAL
    assert (len(sent), app.calls) == (2, 0)


@pytest.mark.parametrize(
    ("query", "with_header", "expected"),
    [
        pytest.param(b"access_token=abc", False, malformed("Token in URI"), id="RS-14 alone"),
        pytest.param(b"access_token=abc", True, malformed("Token in URI"), id="RS-14 beside a good header"),
        pytest.param(b"a=b&access_token=", True, malformed("Token in URI"), id="RS-14 empty, not first"),
        pytest.param(b"x_access_token=abc", False, NO_CREDENTIAL, id="another parameter"),
    ],
)
async def test_reject_query_token(query: bytes, with_header: bool, expected: Answer, issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app, reject_query_token=True)
    answer = await call(guarded, headers=bearer(token(issuer)) if with_header else (), query=query)
    assert answer == expected
    assert app.calls == 0


@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        ("/mcp", b"/mcp"),
        ("/mcp/", b"/mcp/"),
        ("//mcp", b"//mcp"),
        ("/mcp", b"/%6dcp"),
        ("/%6dcp", b"/%256dcp"),
        ("/mcp/../mcp", b"/mcp/../mcp"),
        ("/mcp/../mcp", b"/mcp/%2e%2e/mcp"),
        ("/x/../mcp", b"/x/../mcp"),
        ("/mcp\\x", b"/mcp%5Cx"),
        ("/unknown", b"/unknown"),
        ("/", b"/"),
        ("/é", b"/%C3%A9"),
        ("/x;healthz", b"/x;healthz"),
        ("/healthz2", b"/healthz2"),
    ],
    ids=lambda value: f"RS-2 {value}",
)
async def test_every_path_needs_a_token(path: str, raw_path: bytes, issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app, public_paths=["/healthz"])
    assert await call(guarded, path=path, raw_path=raw_path) == NO_CREDENTIAL
    assert app.calls == 0


PUBLIC = ["/healthz", "/static/*"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("/healthz", None, id="RS-2 public"),
        pytest.param("/static", None, id="RS-2 the subtree's root"),
        pytest.param("/static/a/b.js", None, id="RS-2 the subtree"),
        pytest.param("/static/.well-known/x", None, id="RS-2 below the subtree"),
        pytest.param("/static//a.js", None, id="RS-2 both spellings public"),
        pytest.param("/healthz/x", NO_CREDENTIAL, id="RS-2 exact means exact"),
        pytest.param("/staticx", NO_CREDENTIAL, id="RS-2 whole segments"),
        pytest.param("/Healthz", NO_CREDENTIAL, id="RS-2 case matters"),
        pytest.param("/healthz/", AMBIGUOUS, id="RS-2 trailing slash of a public path"),
        pytest.param("//healthz", AMBIGUOUS, id="RS-2 doubled slash before a public path"),
        pytest.param("/static/../mcp", AMBIGUOUS, id="RS-2 out of a public subtree"),
        pytest.param("/static/%2e%2e/mcp", AMBIGUOUS, id="RS-2 out of a public subtree, encoded again"),
        pytest.param("/static/..\\mcp", AMBIGUOUS, id="RS-2 out of a public subtree, backslash"),
        pytest.param("/mcp/../healthz", AMBIGUOUS, id="RS-2 into a public path"),
        pytest.param("*", AMBIGUOUS, id="RS-2 asterisk form"),
        pytest.param("", AMBIGUOUS, id="RS-2 empty"),
        pytest.param("http://mcp.example.com/mcp", AMBIGUOUS, id="RS-2 absolute form"),
        pytest.param("/%" + "25" * 9 + "41", AMBIGUOUS, id="RS-2 encoded too often"),
    ],
)
async def test_public_paths(path: str, expected: Answer | None, issuer: Issuer) -> None:
    app = RecordingApp()
    answer = await call(protect(issuer, app, public_paths=PUBLIC), path=path, headers=[("origin", "https://x.example")])
    if expected is None:
        assert (answer.status, app.calls) == (200, 1)
    else:
        wanted = expected if expected is AMBIGUOUS else BAD_ORIGIN
        assert (answer, app.calls) == (wanted, 0)
        bare = await call(protect(issuer, app, public_paths=PUBLIC), path=path)
        assert (bare, app.calls) == (expected, 0)


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        pytest.param("GET", PRM_PATH, {"host": "evil.example"}, MISDIRECTED, id="RS-1 Host before metadata"),
        pytest.param("GET", PRM_PATH, {"origin": "https://evil.example"}, 200, id="RS-1 metadata before Origin"),
        pytest.param("GET", "/public", {"origin": "https://evil.example"}, 200, id="RS-1 public before Origin"),
        pytest.param("GET", "/public/", {"origin": "https://evil.example"}, AMBIGUOUS, id="RS-1 path before Origin"),
        pytest.param("GET", "/other", {"origin": "https://evil.example"}, ELSEWHERE, id="RS-1 owner before Origin"),
        pytest.param("POST", "/mcp", {"origin": "https://evil.example"}, BAD_ORIGIN, id="RS-1 Origin before token"),
        pytest.param(
            "POST",
            "/mcp",
            {"origin": "https://evil.example", "authorization": "Bearer a b"},
            BAD_ORIGIN,
            id="RS-1 Origin before credential",
        ),
        pytest.param(
            "OPTIONS",
            "/mcp",
            {"origin": "https://mcp.example.com", "access-control-request-method": "POST", "authorization": "Bearer ="},
            204,
            id="RS-1 preflight before credential",
        ),
    ],
)
async def test_checks_run_in_the_documented_order(
    method: str, path: str, headers: dict[str, str], expected: Answer | int, issuer: Issuer
) -> None:
    guarded = several(
        issuer,
        RecordingApp(),
        resource(R),
        resource("https://mcp.example.com/mcp2"),
        public_paths=["/public"],
        allowed_hosts=["mcp.example.com"],
    )
    host = headers.get("host", "mcp.example.com")
    answer = await call(guarded, method, path, [(k, v) for k, v in headers.items() if k != "host"], host=host)
    assert (answer.status if isinstance(expected, int) else answer) == expected


@pytest.mark.requirement("RS-1")
async def test_an_expired_and_underscoped_token_is_401(issuer: Issuer) -> None:
    headers = bearer(token(issuer, scope="x", exp=issuer.clock() - 60))
    assert await call(protect(issuer, RecordingApp()), headers=headers) == invalid(EXPIRED)


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"], ids=lambda method: f"RS-3 {method}")
async def test_a_session_id_is_not_a_credential(method: str, issuer: Issuer) -> None:
    app = RecordingApp(headers=[(b"mcp-session-id", b"s1")])
    guarded = protect(issuer, app)
    assert (await call(guarded, headers=bearer(token(issuer)))).header("mcp-session-id") == "s1"
    assert await call(guarded, method, headers={"mcp-session-id": "s1"}) == NO_CREDENTIAL
    assert app.calls == 1


@pytest.mark.requirement("RS-5")
@pytest.mark.every_loop
async def test_lifespan_passes_through(issuer: Issuer) -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent: list[Any] = []
    given: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    inner = RecordingApp()

    async def app(*arguments: Any) -> None:
        given.extend(arguments)
        await inner(*arguments)

    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    await protect(issuer, app)(scope, receive, send)
    assert given[0] is scope
    assert given[1:] == [receive, send]
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
    assert scope == {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}


@pytest.mark.requirement("RS-5")
@pytest.mark.every_loop
async def test_an_app_may_refuse_the_lifespan_scope(issuer: Issuer) -> None:

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError("no lifespan here")

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(NotImplementedError, match="no lifespan here"):
        await protect(issuer, app)({"type": "lifespan"}, nothing, nothing)


@pytest.mark.requirement("DC-9")
@pytest.mark.every_loop
async def test_keys_are_fetched_in_the_background_of_the_start_up(issuer: Issuer) -> None:
    completed = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        completed.set()
        with anyio.fail_after(5):
            while not issuer.requests["/jwks"]:  # noqa: ASYNC110 - the other side is the package's
                await anyio.sleep(0.001)

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    guarded = protect(issuer, app)
    await guarded({"type": "lifespan"}, nothing, nothing)
    assert completed.is_set()
    assert issuer.requests == {"/.well-known/oauth-authorization-server": 1, "/jwks": 1}


@pytest.mark.parametrize("kind", ["webtransport", "", "HTTP"])
async def test_an_unknown_connection_type_is_refused(kind: str, issuer: Issuer) -> None:
    app = RecordingApp()

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(NotImplementedError, match=f"cannot protect an ASGI connection of type {kind!r}"):
        await protect(issuer, app)({"type": kind, "headers": [], "path": "/"}, nothing, nothing)
    assert app.calls == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-host": "evil.example", "x-forwarded-proto": "http"},
        {"forwarded": "host=evil.example;proto=http"},
        {"host": "evil.example"},
    ],
    ids=lambda headers: f"RS-8 {next(iter(headers))}",
)
async def test_published_urls_come_from_the_configuration_and_not_from_the_request(
    headers: dict[str, str], issuer: Issuer
) -> None:
    guarded = protect(issuer, RecordingApp())
    host = headers.get("host", "mcp.example.com")
    others = {name: value for name, value in headers.items() if name != "host"}
    assert (await call(guarded, "GET", PRM_PATH, others, host=host)).json() == DOCUMENT
    assert await call(guarded, headers=others, host=host) == NO_CREDENTIAL
    evil = lines(others.items(), bearer(token(issuer, aud="https://evil.example/mcp")))
    assert await call(guarded, headers=evil, host=host) == invalid()


async def challenges(issuer: Issuer) -> list[Answer]:
    """Return one response of every kind that has a challenge."""
    makers: list[Maker] = [always(), line("Bearer a b"), twice, line("Bearer abc"), expired, minted(scope="x")]
    guarded = protect(issuer, RecordingApp())
    return [await call(guarded, headers=maker(issuer)) for maker in makers]


@pytest.mark.requirement("RS-30", "RS-31", "RS-32", "RS-34", "RS-37", "RS-44")
async def test_every_challenge_is_well_formed(issuer: Issuer) -> None:
    answers = await challenges(issuer)
    assert [answer.status for answer in answers] == [401, 400, 400, 401, 401, 403]
    value = r'"[\x20\x21\x23-\x5B\x5D-\x7E]+"'
    form = re.compile(
        rf"Bearer (error={value}, )?scope={value}, resource_metadata={value}(, error_description={value})?"
    )
    # How the SDKs read a challenge: the first match, unanchored.
    sdk = {name: re.compile(rf'{name}=(?:"([^"]+)"|([^\s,]+))') for name in ("error", "scope", "resource_metadata")}
    errors: list[str | None] = []
    for answer in answers:
        challenge = answer.challenge
        assert challenge is not None
        assert form.fullmatch(challenge)
        read = {name: pattern.search(challenge) for name, pattern in sdk.items()}
        assert read["scope"] is not None
        assert read["scope"][1] == "mcp:read"
        assert read["resource_metadata"] is not None
        assert read["resource_metadata"][1] == PRM
        errors.append(None if read["error"] is None else read["error"][1])
    assert errors == [
        None,
        "invalid_request",
        "invalid_request",
        "invalid_token",
        "invalid_token",
        "insufficient_scope",
    ]


@pytest.mark.requirement("RS-36")
async def test_a_challenge_without_scopes_has_no_scope_parameter(issuer: Issuer) -> None:
    answer = await call(protect(issuer, RecordingApp(), required_scopes=[]))
    assert answer == refused(401, DETAIL, f'Bearer resource_metadata="{PRM}"')


@pytest.mark.parametrize(
    ("policy", "scope"),
    [
        pytest.param({"default": ["mcp:read"], "paths": {"/mcp/x": ["more"]}}, "mcp:read", id="RS-116 the baseline"),
        pytest.param({"default": ["mcp:read"], "challenge_scopes": ["a", "b"]}, "a b", id="RS-116 widened"),
        pytest.param({"default": ["r"], "request_scope_names": {"r": "api://x/r"}}, "api://x/r", id="RS-32 wire names"),
    ],
)
async def test_initial_challenge(policy: dict[str, Any], scope: str, issuer: Issuer) -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    guarded = several(issuer, RecordingApp(), ResourceServerConfig(metadata=metadata, policy=ScopePolicy(**policy)))
    assert await call(guarded) == refused(401, DETAIL, f'Bearer scope="{scope}", resource_metadata="{PRM}"')


@pytest.mark.requirement("RS-41")
async def test_no_redirect_for_a_browser(issuer: Issuer) -> None:
    headers = {"accept": "text/html", "user-agent": "Mozilla/5.0", "cookie": "a=b"}
    assert await call(protect(issuer, RecordingApp()), "GET", headers=headers) == NO_CREDENTIAL


@pytest.mark.parametrize("scope", ['a"b', "a b", "a\\b", "é", ""], ids=lambda scope: f"RS-35 RS-117 {scope!r}")
def test_a_scope_that_cannot_be_written_is_a_configuration_error(scope: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="is not a scope"):
        protect(issuer, RecordingApp(), required_scopes=[scope])


class FixedVerifier:
    """A verifier that returns or raises a fixed value."""

    def __init__(self, verdict: Verified | Refusal | Exception) -> None:
        self.verdict = verdict

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        if isinstance(self.verdict, Exception) and not isinstance(self.verdict, Refusal):
            raise self.verdict
        return self.verdict


def with_verdict(
    issuer: Issuer, app: Any, verdict: Verified | Refusal | Exception, **options: Any
) -> MCPAuthMiddleware:
    verifier = FixedVerifier(verdict)
    auth = MCPAuth(resource(R), http_client=issuer.http_client, clock=issuer.clock, verifier=verifier, **options)
    return auth.wrap(app)


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        pytest.param(RuntimeError("boom"), unavailable(), id="RS-9 an exception is a denial"),
        pytest.param(KeyError("boom"), unavailable(), id="RS-9 any exception"),
        pytest.param(Forbidden(Reason.REJECTED_BY_VERIFIER), refused(403, b'{"error":"access_denied"}'), id="RS-43"),
        pytest.param(
            InvalidToken(Reason.REJECTED_BY_VERIFIER, description='bad "tok" \\ é = x'),
            refused(
                401,
                '{"error":"invalid_token","error_description":"bad \\"tok\\" \\\\ é = x"}'.encode(),
                cht("bad tok    x"),
            ),
            id="RS-35 RS-37 a description is cleaned",
        ),
        pytest.param(
            Unavailable(Reason.HOOK_FAILED, retry_after=6.2), unavailable(7), id="RS-6 Retry-After is rounded up"
        ),
        pytest.param(
            InvalidToken(Reason.REVOKED, response_headers=((b"dpop-nonce", b"n"),)),
            Answer(401, [*invalid().headers, (b"dpop-nonce", b"n")], invalid().body),
            id="a verifier's own response header",
        ),
    ],
)
async def test_the_outcome_of_a_verifier_is_the_answer(verdict: Exception, expected: Answer, issuer: Issuer) -> None:
    app = RecordingApp()
    assert await call(with_verdict(issuer, app, verdict), headers=bearer("abc")) == expected
    assert app.calls == 0


@pytest.mark.requirement("RS-9", "RS-39")
async def test_the_traceback_is_in_the_log_and_not_in_the_body(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await call(with_verdict(issuer, RecordingApp(), RuntimeError("boom")), headers=bearer("abc"))
    assert answer == unavailable()
    assert "RuntimeError: boom" in caplog.text
    [record] = [record for record in caplog.records if record.name == "asgi_mcp_auth.decisions"]
    assert (record.levelname, vars(record)["reason"]) == ("ERROR", "hook_failed")


METADATA_HEADERS = [b"content-type", b"content-length", b"cache-control", b"etag", b"access-control-allow-origin"]


@pytest.mark.requirement("RS-61")
@pytest.mark.parametrize(
    ("path", "raw_path", "headers"),
    [
        pytest.param(PRM_PATH, None, {}, id="RS-50 RS-56 RS-65"),
        pytest.param(PRM_PATH, None, {"accept": "text/html"}, id="RS-56 whatever Accept says"),
        pytest.param(PRM_PATH, None, {"authorization": "Bearer a b"}, id="RS-56 without authentication"),
        pytest.param(PRM_PATH, None, {"origin": "https://evil.example"}, id="RS-62 any origin"),
        pytest.param(PRM_PATH + "/", None, {}, id="RS-51 with a slash"),
        pytest.param("/.well-known/oauth-protected-resource", None, {}, id="RS-52 root place"),
        pytest.param("/.well-known/oauth-protected-resource/", None, {}, id="RS-52 root place with a slash"),
    ],
)
async def test_metadata(path: str, raw_path: bytes | None, headers: dict[str, str], issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = protect(issuer, app)
    answer = await call(guarded, "GET", path, headers, raw_path=raw_path)
    assert (answer.status, answer.json()) == (200, DOCUMENT)
    assert [name for name, _ in answer.headers] == METADATA_HEADERS
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("cache-control") == "public, max-age=3600"
    assert answer.header("access-control-allow-origin") == "*"
    head = await call(guarded, "HEAD", path, headers, raw_path=raw_path)
    assert head == Answer(200, answer.headers, b"")
    again = await call(guarded, "GET", path, {**headers, "if-none-match": answer.header("etag") or ""})
    kept = (b"cache-control", b"etag", b"access-control-allow-origin")
    assert again == Answer(304, [pair for pair in answer.headers if pair[0] in kept], b"")
    assert app.calls == 0


@pytest.mark.requirement("RS-50")
@pytest.mark.parametrize(
    ("path", "raw_path"),
    [
        pytest.param(
            "/.well-known/oauth-protected-resource/mcp", b"/.well-known/oauth-protected-resource/%6dcp", id="%6d"
        ),
        pytest.param(
            "/.well-known/oauth-protected-resource/a/b", b"/.well-known/oauth-protected-resource/a/b", id="a/b"
        ),
    ],
)
async def test_metadata_is_matched_on_the_raw_path(path: str, raw_path: bytes, issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), resource="https://mcp.example.com/a%2Fb")
    exact = b"/.well-known/oauth-protected-resource/a%2Fb"
    answer = await call(guarded, "GET", "/.well-known/oauth-protected-resource/a/b", raw_path=exact)
    assert (answer.status, answer.json()["resource"]) == (200, "https://mcp.example.com/a%2Fb")
    assert await call(guarded, "GET", path, raw_path=raw_path) == ELSEWHERE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "get"], ids=lambda method: f"RS-61 {method}")
async def test_other_methods_on_metadata(method: str, issuer: Issuer) -> None:
    body = b'{"error":"invalid_request","error_description":"Method not allowed"}'
    expected = refused(405, body, None, (b"allow", b"GET, HEAD, OPTIONS"), ANY_ORIGIN)
    assert await call(protect(issuer, RecordingApp()), method, PRM_PATH) == expected


@pytest.mark.requirement("RS-62")
async def test_metadata_preflight(issuer: Issuer) -> None:
    headers = {
        "origin": "https://inspector.example",
        "access-control-request-method": "GET",
        "access-control-request-headers": "mcp-protocol-version, authorization",
    }
    answer = await call(protect(issuer, RecordingApp()), "OPTIONS", PRM_PATH, headers)
    assert answer == Answer(
        204,
        [
            ANY_ORIGIN,
            (b"access-control-allow-methods", b"GET, HEAD, OPTIONS"),
            (b"access-control-allow-headers", b"mcp-protocol-version, authorization"),
            (b"access-control-max-age", b"86400"),
            (b"allow", b"GET, HEAD, OPTIONS"),
        ],
        b"",
    )


@pytest.mark.requirement("RS-65")
async def test_a_changed_configuration_changes_the_etag(issuer: Issuer) -> None:
    first, second = [
        await call(protect(issuer, RecordingApp(), authorization_servers=servers), "GET", PRM_PATH)
        for servers in (["https://auth.example.com"], ["https://auth2.example.com"])
    ]
    assert second.json() == {**DOCUMENT, "authorization_servers": ["https://auth2.example.com"]}
    assert first.header("etag") != second.header("etag")


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/mcp",
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-protected-resource/mcp/x",
        "/.well-known/",
    ],
    ids=lambda path: f"RS-54 RS-55 {path}",
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_unknown_well_known_paths_are_404(path: str, method: str, issuer: Issuer) -> None:
    app = RecordingApp()
    assert await call(protect(issuer, app), method, path, bearer(token(issuer))) == ELSEWHERE
    assert app.calls == 0


@pytest.mark.requirement("RS-55")
async def test_republished_server_metadata(issuer: Issuer) -> None:
    issuer.metadata["x_unknown"] = {"kept": [1, 2]}
    guarded = protect(issuer, RecordingApp(), republish_server_metadata=True)
    answer = await call(guarded, "GET", "/.well-known/oauth-authorization-server")
    assert (answer.status, answer.json()) == (200, issuer.metadata)
    assert answer.header("access-control-allow-origin") == "*"


@pytest.mark.requirement("RS-55")
async def test_republished_server_metadata_that_cannot_be_fetched_is_503(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), republish_server_metadata=True, http_client=no_network)
    answer = await call(guarded, "GET", "/.well-known/oauth-authorization-server")
    assert answer == Answer(503, [*unavailable().headers, ANY_ORIGIN], unavailable().body)


@pytest.mark.requirement("RS-53")
async def test_the_metadata_app_works_without_the_middleware(issuer: Issuer) -> None:
    app = MCPAuth(resource(R), http_client=issuer.http_client).metadata_app()
    assert (await call(app, "GET", PRM_PATH)).json() == DOCUMENT
    assert await call(app, "GET", "/other") == refused(404, NOT_FOUND)


@pytest.mark.requirement("RS-53")
@pytest.mark.parametrize(
    ("path", "root_path", "raw_path", "status"),
    [
        pytest.param(PRM_PATH, "/api", None, 200, id="as hypercorn and granian give it"),
        pytest.param("/api" + PRM_PATH, "/api", None, 200, id="as uvicorn gives it"),
        pytest.param("/api" + PRM_PATH, "/api/", None, 200, id="a root path with a slash"),
        pytest.param("/é" + PRM_PATH, "/é", None, 200, id="a root path in raw UTF-8"),
        pytest.param("/é" + PRM_PATH, "/é", b"/%C3%A9" + PRM_PATH.encode(), 200, id="an encoded root path"),
        pytest.param("/api/.well-known/other", "/api", None, 404, id="an unknown well-known path"),
        pytest.param("/x/api" + PRM_PATH, "/api", None, 400, id="the root path further inside"),
        pytest.param("/apix" + PRM_PATH, "/api", None, 400, id="another first segment"),
        pytest.param("/api" + PRM_PATH, "", None, 401, id="without a root path it belongs to the app"),
    ],
)
async def test_the_document_below_a_root_path(
    issuer: Issuer, path: str, root_path: str, raw_path: bytes | None, status: int
) -> None:
    guarded = protect(issuer, RecordingApp())
    assert (await call(guarded, "GET", path, root_path=root_path, raw_path=raw_path)).status == status
    alone = await call(guarded.auth.metadata_app(), "GET", path, root_path=root_path, raw_path=raw_path)
    assert alone.status == (200 if status == 200 else 404)


A, B = "https://mcp.example.com/a/mcp", "https://mcp.example.com/b/mcp"


def metadata_of(url: str) -> str:
    return url.replace(".com/", ".com/.well-known/oauth-protected-resource/")


@pytest.mark.parametrize(
    ("path", "audience", "expected"),
    [
        pytest.param("/a/mcp", A, 200, id="RS-104 its own token"),
        pytest.param("/a/mcp/deep", A, 200, id="RS-104 below"),
        pytest.param("/b/mcp", B, 200, id="RS-104 the other's own token"),
        pytest.param("/b/mcp", A, (401, B), id="RS-104 a token for the other"),
        pytest.param("/a/mcp", B, (401, A), id="RS-104 the other way round"),
        pytest.param("/a/mcp/special", A, (401, A + "/special"), id="RS-104 the longest prefix owns"),
        pytest.param("/a/mcp/special", A + "/special", 200, id="RS-104 the longest prefix"),
        pytest.param("/a/mcp2", A, ELSEWHERE, id="RS-104 whole segments"),
        pytest.param("/a", A, ELSEWHERE, id="no resource owns it"),
        pytest.param("/", A, ELSEWHERE, id="no resource owns the root"),
        pytest.param("/a/mcp/../../b/mcp", A, AMBIGUOUS, id="RS-2 two owners by spelling"),
        pytest.param("/a/mcp/%73pecial", A, AMBIGUOUS, id="RS-2 two owners by encoding"),
    ],
)
async def test_several_resources(
    path: str, audience: str, expected: int | tuple[int, str] | Answer, issuer: Issuer
) -> None:
    app = RecordingApp()
    guarded = several(issuer, app, resource(A), resource(B), resource(A + "/special"))
    answer = await call(guarded, path=path, headers=bearer(token(issuer, aud=audience)))
    if isinstance(expected, int):
        assert (answer.status, app.calls) == (expected, 1)
        assert app.scopes[0]["state"]["mcp_auth"].resource == audience
        return
    if isinstance(expected, tuple):
        expected = Answer(
            401,
            [(k, v.replace(PRM.encode(), metadata_of(expected[1]).encode())) for k, v in invalid().headers],
            invalid().body,
        )
    assert (answer, app.calls) == (expected, 0)


@pytest.mark.requirement("RS-52")
async def test_several_resources_have_a_document_each(issuer: Issuer) -> None:
    guarded = several(issuer, RecordingApp(), resource(A), resource(B))
    for url in (A, B):
        path = metadata_of(url).removeprefix("https://mcp.example.com")
        assert (await call(guarded, "GET", path)).json() == {**DOCUMENT, "resource": url}
    assert await call(guarded, "GET", "/.well-known/oauth-protected-resource") == ELSEWHERE


RULES = {
    "/mcp/export": ["export"],
    "/mcp/admin/*": ["admin"],
    "POST /mcp/admin/*": ["admin", "write"],
    "/mcp/admin/open": [],
}


@pytest.mark.parametrize(
    ("method", "path", "granted", "expected"),
    [
        pytest.param("GET", "/mcp", "mcp:read", 200, id="RS-42 no rule"),
        pytest.param("GET", "/mcp/export", "mcp:read", insufficient("mcp:read export"), id="RS-42 RS-111 rule"),
        pytest.param("GET", "/mcp/export", "export", insufficient("mcp:read export"), id="RS-42 the baseline too"),
        pytest.param("GET", "/mcp/export", "x", insufficient("mcp:read export"), id="RS-42 neither"),
        pytest.param("GET", "/mcp/export", "export mcp:read", 200, id="RS-42 both"),
        pytest.param("GET", "/mcp/export/x", "mcp:read", 200, id="exact means exact"),
        pytest.param("GET", "/mcp/admin/x", "mcp:read", insufficient("mcp:read admin"), id="subtree"),
        pytest.param("POST", "/mcp/admin/x", "mcp:read", insufficient("mcp:read admin write"), id="method"),
        pytest.param("post", "/mcp/admin/x", "mcp:read admin", insufficient("mcp:read admin write"), id="lower case"),
        pytest.param("HEAD", "/mcp/admin", "mcp:read", 403, id="HEAD is held to what GET needs"),
        pytest.param("POST", "/mcp/admin/open", "mcp:read", 200, id="exact before subtree"),
        pytest.param("GET", "/mcp/admin/", "mcp:read", insufficient("mcp:read admin"), id="slash"),
        pytest.param("GET", "/mcp//export", "mcp:read", AMBIGUOUS, id="RS-2 a rule cannot be evaded by //"),
        pytest.param("GET", "/mcp/export/", "mcp:read", AMBIGUOUS, id="RS-2 a rule cannot be evaded by a slash"),
        pytest.param("GET", "/mcp/%65xport", "mcp:read", AMBIGUOUS, id="RS-2 a rule cannot be evaded by encoding"),
        pytest.param("GET", "/mcp/export", "root", 200, id="RS-110 hierarchy"),
        pytest.param("GET", "/mcp/admin", "admin", 200, id="RS-110 one implies the baseline"),
    ],
)
async def test_path_rules(method: str, path: str, granted: str, expected: int | Answer, issuer: Issuer) -> None:
    app = RecordingApp()
    implies = {"root": ["admin", "export"], "admin": ["mcp:read"]}
    guarded = several(issuer, app, resource(R, paths=RULES, implies=implies))
    answer = await call(guarded, method, path, bearer(token(issuer, scope=granted)))
    assert (answer.status if isinstance(expected, int) else answer) == expected
    assert app.calls == (1 if expected == 200 else 0)


@pytest.mark.requirement("RS-110", "RS-112")
async def test_the_granted_scopes_are_those_of_the_token(issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = several(issuer, app, resource(R, implies={"admin": ["mcp:read"]}))
    await call(guarded, headers=bearer(token(issuer, scope="admin")))
    assert app.scopes[0]["state"]["mcp_auth"].scopes == ("admin",)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        pytest.param("127.0.0.1:8000", NO_CREDENTIAL, id="RS-223 its own"),
        pytest.param("localhost:8000", NO_CREDENTIAL, id="RS-223 localhost"),
        pytest.param("localhost:5", NO_CREDENTIAL, id="RS-223 any port"),
        pytest.param("[::1]:8000", NO_CREDENTIAL, id="RS-223 IPv6"),
        pytest.param("LOCALHOST", NO_CREDENTIAL, id="RS-223 without a port, upper case"),
        pytest.param("evil.example.com", MISDIRECTED, id="RS-223 foreign"),
        pytest.param("localhost.evil.com", MISDIRECTED, id="RS-223 RS-224 prefix"),
        pytest.param("evil.localhost:8000", MISDIRECTED, id="RS-223 RS-224 suffix"),
        pytest.param("127.0.0.1.nip.io", MISDIRECTED, id="RS-223 RS-224 nip.io"),
        pytest.param("u@localhost", MISDIRECTED, id="RS-223 userinfo"),
        pytest.param("localhost:99999", MISDIRECTED, id="RS-223 no port number"),
        pytest.param("", MISDIRECTED, id="RS-223 empty"),
        pytest.param(None, MISDIRECTED, id="RS-223 missing"),
        pytest.param("127.0.0.1:8000, localhost", MISDIRECTED, id="RS-223 a list"),
    ],
)
async def test_host_on_loopback(host: str | None, expected: Answer, issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), resource="http://127.0.0.1:8000/mcp")
    answer = await call(guarded, host=host)
    own = b"http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp"
    local = Answer(expected.status, [(k, v.replace(PRM.encode(), own)) for k, v in expected.headers], expected.body)
    assert answer == local


@pytest.mark.requirement("RS-223")
async def test_two_host_fields_are_refused(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), resource="http://127.0.0.1:8000/mcp")
    assert await call(guarded, headers=[("host", "localhost")], host="localhost") == MISDIRECTED


@pytest.mark.requirement("RS-223")
async def test_dns_rebinding(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), resource="http://127.0.0.1:8000/mcp")
    headers = lines([("origin", "http://evil.example.com")], bearer(token(issuer, aud="http://127.0.0.1:8000/mcp")))
    assert await call(guarded, headers=headers, host="evil.example.com") == MISDIRECTED
    assert await call(guarded, headers=headers, host="localhost") == BAD_ORIGIN


@pytest.mark.parametrize(
    ("host", "status"),
    [
        pytest.param("mcp.example.com", 401, id="RS-223 the resource's own"),
        pytest.param("mcp.example.com:443", 401, id="RS-223 with the default port"),
        pytest.param("proxy.internal", 401, id="RS-223 listed, no port"),
        pytest.param("proxy.internal:9", 401, id="RS-223 listed without a port matches any"),
        pytest.param("other.internal:81", 401, id="RS-223 listed with its port"),
        pytest.param("other.internal:82", 421, id="RS-223 another port"),
        pytest.param("other.internal", 421, id="RS-223 no port"),
        pytest.param("evil.example", 421, id="RS-223 not listed"),
        pytest.param("localhost", 421, id="RS-223 loopback is nothing special here"),
    ],
)
async def test_allowed_hosts(host: str, status: int, issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), allowed_hosts=["proxy.internal", "other.internal:81"])
    assert (await call(guarded, host=host)).status == status


@pytest.mark.parametrize(
    ("origins", "expected"),
    [
        pytest.param([], 200, id="RS-222 none"),
        pytest.param(["https://mcp.example.com"], 200, id="RS-220 the resource's own"),
        pytest.param([APP], 200, id="RS-221 listed"),
        pytest.param(["https://APP.example:443"], 200, id="RS-221 case and default port"),
        pytest.param(["https://evil.example"], 403, id="RS-220 foreign, with a valid token"),
        pytest.param(["https://app.example.evil.com"], 403, id="RS-221 RS-224 prefix"),
        pytest.param(["https://xapp.example"], 403, id="RS-224 suffix"),
        pytest.param(["http://app.example"], 403, id="RS-221 scheme"),
        pytest.param(["https://app.example:8443"], 403, id="RS-221 port"),
        pytest.param(["null"], 403, id="RS-221 null"),
        pytest.param([""], 403, id="RS-221 empty"),
        pytest.param(["https://app.example/"], 403, id="RS-221 unparsable"),
        pytest.param(["https://app.example https://app.example"], 403, id="RS-221 a list"),
        pytest.param([APP, APP], 403, id="RS-221 two lines"),
        pytest.param(["http://localhost"], 403, id="RS-220 loopback is nothing special here"),
        pytest.param([b"https://\xff.example"], 403, id="RS-221 not ASCII"),
    ],
)
async def test_origin(origins: list[str | bytes], expected: int, issuer: Issuer) -> None:
    app = RecordingApp()
    headers: list[tuple[str, str | bytes]] = [("origin", origin) for origin in origins]
    answer = await call(protect(issuer, app, allowed_origins=[APP]), headers=lines(headers, bearer(token(issuer))))
    if expected == 403:
        assert (answer, app.calls) == (BAD_ORIGIN, 0)
    else:
        assert (answer.status, app.calls) == (200, 1)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("http://localhost:3000", 401, id="RS-220 localhost"),
        pytest.param("http://127.0.0.1:1", 401, id="RS-220 127.0.0.1"),
        pytest.param("https://[::1]", 401, id="RS-220 IPv6"),
        pytest.param("http://localhost.evil.com", 403, id="RS-224 localhost.evil.com"),
        pytest.param("http://127.0.0.1.nip.io", 403, id="RS-224 nip.io"),
        pytest.param("file://localhost", 403, id="RS-220 not a web origin"),
    ],
)
async def test_origin_on_loopback(origin: str, status: int, issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), resource="http://localhost:8000/mcp")
    assert (await call(guarded, headers={"origin": origin}, host="localhost:8000")).status == status


PREFLIGHT_HEADERS = (
    b"authorization, content-type, accept, mcp-protocol-version, mcp-method, mcp-name, "
    b"mcp-session-id, last-event-id, dpop, traceparent, tracestate, baggage, x-request-id"
)


@pytest.mark.parametrize(
    ("asked", "allowed"),
    [
        pytest.param("", PREFLIGHT_HEADERS, id="RS-225 nothing"),
        pytest.param("authorization, x-evil", PREFLIGHT_HEADERS, id="RS-225 unknown ones are not echoed"),
        pytest.param(
            "Mcp-Param-Id, x, mcp-param-b", PREFLIGHT_HEADERS + b", mcp-param-id, mcp-param-b", id="RS-225 mcp-param-*"
        ),
    ],
)
async def test_preflight(asked: str, allowed: bytes, issuer: Issuer) -> None:
    app = RecordingApp()
    headers = {"origin": APP, "access-control-request-method": "POST", "access-control-request-headers": asked}
    answer = await call(protect(issuer, app, allowed_origins=[APP]), "OPTIONS", headers=headers)
    assert answer == Answer(
        204,
        [
            *CORS[:2],
            (b"access-control-allow-methods", b"GET, POST, DELETE"),
            (b"access-control-allow-headers", allowed),
            (b"access-control-max-age", b"600"),
        ],
        b"",
    )
    assert app.calls == 0


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {"origin": "https://evil.example", "access-control-request-method": "POST"}, BAD_ORIGIN, id="RS-225 foreign"
        ),
        pytest.param({}, NO_CREDENTIAL, id="RS-225 a bare OPTIONS is an ordinary request"),
        pytest.param({"access-control-request-method": "POST"}, NO_CREDENTIAL, id="RS-225 without an Origin"),
        pytest.param(
            {"origin": APP},
            Answer(401, NO_CREDENTIAL.headers + CORS, NO_CREDENTIAL.body),
            id="RS-225 without a requested method",
        ),
    ],
)
async def test_a_request_that_is_not_a_preflight_is_not_answered_as_one(
    headers: dict[str, str], expected: Answer, issuer: Issuer
) -> None:
    answer = await call(protect(issuer, RecordingApp(), allowed_origins=[APP]), "OPTIONS", headers=headers)
    assert answer == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(always(), NO_CREDENTIAL, id="RS-226 401"),
        pytest.param(line("Bearer a b"), malformed(), id="RS-226 400"),
        pytest.param(line("Bearer abc"), invalid(), id="RS-226 401 invalid_token"),
        pytest.param(minted(scope="x"), insufficient("mcp:read"), id="RS-226 403"),
    ],
)
async def test_cors_on_refusals(headers: Maker, expected: Answer, issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), allowed_origins=[APP])
    answer = await call(guarded, headers=lines([("origin", APP)], headers(issuer)))
    assert answer == Answer(expected.status, expected.headers + CORS, expected.body)


@pytest.mark.requirement("RS-226")
async def test_any_origin(issuer: Issuer) -> None:
    guarded = protect(issuer, RecordingApp(), allowed_origins=["*"])
    for origin in ("https://any.example", "null", "vscode-webview://x"):
        answer = await call(guarded, headers={"origin": origin})
        assert answer == Answer(401, [*NO_CREDENTIAL.headers, ANY_ORIGIN, CORS[2]], NO_CREDENTIAL.body)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param([], CORS, id="RS-226 none of its own"),
        pytest.param(
            [(b"x", b"y"), (b"vary", b"Accept")], [(b"x", b"y"), (b"vary", b"Accept"), *CORS], id="Vary stays"
        ),
        pytest.param(
            [(b"Access-Control-Allow-Origin", b"https://app.example")],
            [(b"Access-Control-Allow-Origin", b"https://app.example")],
            id="the app does CORS itself",
        ),
        pytest.param(
            [(b"access-control-expose-headers", b"X-App")],
            [(b"access-control-expose-headers", b"X-App"), *CORS[:2]],
            id="the app exposes its own headers",
        ),
    ],
)
async def test_cors_on_the_apps_responses(
    own: list[tuple[bytes, bytes]], expected: list[tuple[bytes, bytes]], issuer: Issuer
) -> None:
    app = RecordingApp(headers=own)
    guarded = protect(issuer, app, allowed_origins=[APP])
    answer = await call(guarded, headers=lines([("origin", APP)], bearer(token(issuer))))
    assert (answer.status, answer.headers) == (200, expected)
    without = await call(guarded, headers=bearer(token(issuer)))
    assert without.headers == own
    assert app.headers == own


@pytest.mark.parametrize(
    "error",
    [
        KeyError("own"),
        InvalidToken(Reason.REVOKED),
        DiscoveryError("own", transient=True),
        ConfigurationError([]),
        Unavailable(Reason.HOOK_FAILED),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_exceptions_of_the_app_pass_through(error: Exception, issuer: Issuer) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert current_auth() is scope["state"]["mcp_auth"]
        raise error

    with pytest.raises(type(error)) as caught:
        await call(protect(issuer, app), headers=bearer(token(issuer)))
    assert caught.value is error
    assert current_auth() is None


async def test_current_auth_is_reset(issuer: Issuer) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_auth())
        await RecordingApp()(scope, receive, send)

    guarded = protect(issuer, app)
    await call(guarded, headers=bearer(token(issuer)))
    assert current_auth() is None
    await call(guarded)
    assert [info.subject for info in seen] == ["alice"]


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        pytest.param({}, 401, 1, id="once"),
        pytest.param({}, 403, 0, id="another status"),
        pytest.param({"expose_token": True}, 401, 0, id="it has the token"),
    ],
)
async def test_an_app_that_answers_401_is_warned_about_once(
    options: dict[str, Any], status: int, expected: int, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = protect(issuer, RecordingApp(status=status), **options)
    for _ in range(3):
        assert (await call(guarded, headers=bearer(token(issuer)))).status == status
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    expected_warning = (
        "The app answered 401 to an authenticated request. The app may look for the Authorization header, which is "
        "hidden. Set expose_token=True to pass it on, or remove the app's own authentication."
    )
    assert warnings == [expected_warning] * expected


@pytest.mark.parametrize("origin", [[], [("origin", APP)]], ids=["", "CORS"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # asgiref knows no other
async def test_an_app_on_threads(origin: Any, issuer: Issuer) -> None:
    """asgiref's WSGI bridge and the sync consumers of Channels warn if `send` is not marked as a coroutine function."""

    def wsgi(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"from a thread"]

    bridge: Any = WsgiToAsgi
    guarded = protect(issuer, bridge(wsgi), allowed_origins=[APP])
    answer = await call(guarded, headers=[*bearer(token(issuer)), *origin])
    assert (answer.status, answer.body) == (200, b"from a thread")


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        pytest.param("POST", "/mcp", minted(), ("allowed", R, None, None, "alice"), id="allowed"),
        pytest.param("POST", "/mcp", always(), ("refused", R, 401, "no_credential", None), id="no credential"),
        pytest.param(
            "POST", "/mcp", line("Basic x"), ("refused", R, 401, "unsupported_scheme", None), id="another scheme"
        ),
        pytest.param("GET", "/mcp", line("Bearer ="), ("refused", R, 400, "malformed_authorization", None), id="400"),
        pytest.param("GET", "/mcp", twice, ("refused", R, 400, "multiple_authorization", None), id="twice"),
        pytest.param("GET", "/mcp", expired, ("refused", R, 401, "token_expired", None), id="expired"),
        pytest.param(
            "GET", "/mcp", minted(aud="https://x"), ("refused", R, 401, "wrong_audience", None), id="audience"
        ),
        pytest.param("GET", "/mcp", minted(iss="https://x"), ("refused", R, 401, "unknown_issuer", None), id="issuer"),
        pytest.param("GET", "/mcp", minted(scope="x"), ("refused", R, 403, "insufficient_scope", "alice"), id="scope"),
        pytest.param(
            "GET",
            "/mcp",
            always(("origin", "https://x.example")),
            ("refused", R, 403, "origin_not_allowed", None),
            id="origin",
        ),
        pytest.param("GET", "/public", always(), ("public", None, None, None, None), id="public"),
        pytest.param("GET", "/public/", always(), ("refused", None, 400, "ambiguous_path", None), id="ambiguous"),
        pytest.param("GET", PRM_PATH, always(), ("metadata", None, 200, None, None), id="metadata"),
        pytest.param("POST", PRM_PATH, always(), ("metadata", None, 405, None, None), id="metadata 405"),
        pytest.param(
            "GET", "/.well-known/x", always(), ("refused", None, 404, "no_such_resource", None), id="not found"
        ),
        pytest.param(
            "OPTIONS",
            "/mcp",
            always(("origin", "https://mcp.example.com"), ("access-control-request-method", "POST")),
            ("preflight", R, 204, None, None),
            id="preflight",
        ),
    ],
)
async def test_observers(method: str, path: str, headers: Maker, expected: tuple[Any, ...], issuer: Issuer) -> None:
    seen: list[Decision] = []
    guarded = protect(issuer, RecordingApp(), public_paths=["/public"], on_decision=[seen.append])
    query = b"secret=1"
    await call(guarded, method, path, headers(issuer), query=query)
    [decision] = seen
    subject = decision.auth_info.subject if decision.auth_info is not None else None
    assert (decision.outcome, decision.resource, decision.status, decision.reason, subject) == expected
    assert (decision.method, decision.path) == (method, path)


async def test_an_observer_that_raises_does_not_matter(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Decision] = []

    def broken(decision: Decision) -> None:
        raise RuntimeError("observer")

    guarded = protect(issuer, RecordingApp(), on_decision=[broken, seen.append])
    assert (await call(guarded, headers=bearer(token(issuer)))).status == 200
    assert await call(guarded) == NO_CREDENTIAL
    assert [decision.outcome for decision in seen] == ["allowed", "refused"]
    failures = [text for text in caplog.messages if text.startswith("An on_decision observer failed:\nTraceback")]
    assert ["RuntimeError: observer" in text for text in failures] == [True, True]


SECRET = "s3cr3t-opaque-tokenvalue-0123456789"


def everything_logged(records: list[logging.LogRecord]) -> str:
    formatter = logging.Formatter()
    texts: list[str] = []
    for record in records:
        texts += [formatter.format(record), repr(vars(record))]
    return "\n".join(texts)


def fingerprints(secret: str) -> list[str]:
    """Return lower-case pieces of a token; a log that contains a piece contains the token or a part of it."""
    return [secret[at : at + 12].lower() for at in range(0, len(secret) - 11, 4)]


def revoking_hook(info: AuthInfo) -> bool:
    return True


async def raising_hook(info: AuthInfo) -> bool:
    raise RuntimeError(f"cannot ask about {info.token}")


class QuotingVerifier:
    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        message = f"introspection of {credential.token.decode()} failed"
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("headers", "query", "options"),
    [
        pytest.param(bearer, b"", {}, id="RS-241 allowed or invalid"),
        pytest.param(given_by(lambda t: bearer(t + " x")), b"", {}, id="RS-241 malformed"),
        pytest.param(given_by(lambda t: bearer(t) + bearer(t)), b"", {}, id="RS-241 twice"),
        pytest.param(given_by(lambda t: [("authorization", t)]), b"", {}, id="RS-241 without a scheme"),
        pytest.param(given_by(lambda t: [("authorization", f"Token {t}")]), b"", {}, id="RS-241 another scheme"),
        pytest.param(given_by(lambda t: [("authorization", f"DPoP {t}")]), b"", {}, id="RS-241 DPoP"),
        pytest.param(given_by(lambda t: [("authorization", f"Bearer,{t}")]), b"", {}, id="RS-241 a comma"),
        pytest.param(given_by(lambda t: [("authorization", f'"{t}"')]), b"", {}, id="RS-241 quoted"),
        pytest.param(given_by(lambda _: ()), b"access_token=%s", {}, id="RS-241 query"),
        pytest.param(
            given_by(lambda _: ()), b"access_token=%s", {"reject_query_token": True}, id="RS-241 rejected query"
        ),
        pytest.param(bearer, b"", {"http_client": no_network}, id="RS-241 keys unavailable"),
        pytest.param(bearer, b"", {"required_scopes": ["other"]}, id="RS-241 insufficient scope"),
        pytest.param(bearer, b"", {"is_revoked": revoking_hook}, id="RS-241 revoked"),
        pytest.param(bearer, b"", {"is_revoked": raising_hook, "expose_token": True}, id="RS-241 a hook quotes it"),
        pytest.param(
            given_by(lambda t: lines([("host", "elsewhere.example")], bearer(t))),
            b"",
            {"allowed_hosts": ["x"]},
            id="RS-241 wrong host",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["jwt", "expired", "forged", "opaque"])
async def test_no_token_and_no_query_is_ever_logged(
    *,
    headers: Callable[[str], Lines],
    query: bytes,
    options: dict[str, Any],
    kind: str,
    issuer: Issuer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = {
        "jwt": token(issuer),
        "expired": token(issuer, exp=issuer.clock() - 3600),
        "forged": token(issuer, header={"kid": "unknown"}),
        "opaque": SECRET,
    }[kind]
    seen: list[Decision] = []
    host = None if options.get("allowed_hosts") else "mcp.example.com"
    guarded = protect(issuer, RecordingApp(status=401), on_decision=[seen.append], **options)
    query = query % raw.encode() if query else b"state=" + SECRET.encode()
    await call(guarded, headers=headers(raw), query=query, host=host)
    assert len(seen) == 1
    refusal = seen[0].refusal
    logged = everything_logged(caplog.records) + repr(seen[0]) + (repr(vars(refusal)) if refusal else "")
    leaked = [piece for secret in (raw, SECRET) for piece in fingerprints(secret) if piece in logged.lower()]
    assert leaked == []


@pytest.mark.requirement("RS-9", "RS-241")
async def test_a_verifier_that_quotes_the_token_does_not_get_it_logged(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    verifier = QuotingVerifier()
    auth = MCPAuth(resource(R), http_client=issuer.http_client, clock=issuer.clock, verifier=verifier)
    assert await call(auth.wrap(RecordingApp()), headers=bearer(SECRET)) == unavailable()
    assert "RuntimeError" in caplog.text
    assert SECRET not in everything_logged(caplog.records)


WHATEVER = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "Ed25519", "EdDSA", "none", "HS256", "PS256"]) | WHATEVER,
        "kid": st.sampled_from(["known", "unknown"]) | WHATEVER,
        "typ": st.sampled_from(["at+jwt", "JWT", "dpop+jwt"]) | WHATEVER,
        "crit": WHATEVER,
        "jwk": WHATEVER,
    },
)
CLAIM_NAMES = ["aud", "exp", "nbf", "iat", "sub", "client_id", "azp", "scope", "scp", "jti", "cnf", "nonce", "typ"]
CLAIMS = st.fixed_dictionaries({}, optional=dict.fromkeys(CLAIM_NAMES, WHATEVER))
AUTHORIZATION = st.binary(max_size=80) | st.builds(
    bytes.__add__,
    st.sampled_from([b"Bearer ", b"bearer", b"Bearer\t", b"DPoP ", b"Basic "]),
    st.binary(max_size=60),
)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_request(guarded: Any, headers: Headers) -> Answer:
    async def main() -> Answer:
        return await call(guarded, headers=headers)

    return anyio.run(main)


@QUICK
@given(value=AUTHORIZATION)
def test_any_authorization_value(value: bytes, issuer: Issuer) -> None:
    app = RecordingApp()
    answer = one_request(protect(issuer, app), [("authorization", value)])
    assert answer.status in (400, 401)
    assert (answer.challenge or "").startswith("Bearer ")
    assert app.calls == 0


@QUICK
@given(value=st.text("abc._-=AZ019", max_size=40), parts=st.lists(st.binary(max_size=40), max_size=4))
def test_any_token68(value: str, parts: list[bytes], issuer: Issuer) -> None:
    encoded = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    for raw in (value.encode(), encoded):
        answer = one_request(protect(issuer, RecordingApp()), bearer(raw))
        assert answer.status in (400, 401)


@QUICK
@given(header=HEADERS | WHATEVER, payload=CLAIMS | WHATEVER)
def test_any_json(header: Any, payload: Any, issuer: Issuer) -> None:
    """An unsigned token with any JSON, well-formed or not, is rejected and causes no server error."""
    raw = issuer.sign(json.dumps(header).encode(), json.dumps(payload).encode(), key=issuer.keys[2])
    app = RecordingApp()
    assert one_request(protect(issuer, app), bearer(raw)).status in (401, 503)
    assert app.calls == 0


@QUICK
@given(claims=CLAIMS, header=HEADERS)
def test_any_claims_well_signed(claims: dict[str, Any], header: dict[str, Any], issuer: Issuer) -> None:
    """Any claims signed with the issuer's key are accepted or rejected, and cause no server error."""
    key = issuer.keys[2]
    members = {"alg": "Ed25519", "kid": key.kid, "typ": "at+jwt"} | header
    whole = issuer.claims(R, scope="mcp:read") | claims
    raw = issuer.sign(json.dumps(members).encode(), json.dumps(whole).encode(), key=key)
    status = one_request(protect(issuer, RecordingApp()), bearer(raw)).status
    assert status in (200, 401, 403, 503)
    if not header and not claims:
        assert status == 200


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        pytest.param(b"[" * 3000 + b"]" * 3000, b"{}", id="W2 deep header"),
        pytest.param(b'{"alg":' + b"[" * 1500 + b"]" * 1500 + b"}", b"{}", id="W2 deep header member"),
        pytest.param(b'{"alg":"RS256"}', b'{"iss":' * 1500 + b"1" + b"}" * 1500, id="W2 deep payload"),
        pytest.param(b'{"kid":5,"alg":"RS256"}', None, id="W3 kid int"),
        pytest.param(b'{"kid":["k1"],"alg":"RS256"}', None, id="W3 kid list"),
        pytest.param(b'{"crit":["foo"],"alg":"RS256"}', None, id="W3 crit"),
        pytest.param(b'{"crit":[],"alg":"RS256"}', None, id="W3 crit empty"),
        pytest.param(b"[1]", None, id="W4 header list"),
        pytest.param(b"null", None, id="W4 header null"),
        pytest.param(b'"x"', None, id="W4 header string"),
        pytest.param(b'{"alg":5}', None, id="W4 alg int"),
        pytest.param(b'{"alg":"RS256"}', b"[1]", id="W4 payload list"),
        pytest.param(b'{"alg":"RS256","kid":"' + b"k" * 10000 + b'"}', None, id="kid of 10 kB"),
        pytest.param(b'{"alg":"RS256","kid":"\\ud800"}', None, id="surrogate in kid"),
        pytest.param(b'{"alg":"RS256"}', b'{"exp":' + b"9" * 5000 + b"}", id="an integer of 5000 digits"),
        pytest.param(b'{"alg":"RS256"}', b'{"exp":1e400}', id="W8 infinity"),
        pytest.param(b'{"alg":"RS256"}', b'{"exp":NaN}', id="NaN"),
        pytest.param(b'{"alg":"RS256","alg":"RS256"}', None, id="RS-70 alg twice"),
        pytest.param(b"\xff\xfe", None, id="not UTF-8"),
    ],
)
async def test_tokens_that_broke_other_libraries_are_rejected(
    header: bytes, payload: bytes | None, issuer: Issuer
) -> None:
    app = RecordingApp()
    good = json.dumps(issuer.claims(R, scope="mcp:read", iat=issuer.clock() - 3600)).encode()
    raw = issuer.sign(header, good if payload is None else payload)
    assert await call(protect(issuer, app), headers=bearer(raw)) == invalid()
    assert app.calls == 0
