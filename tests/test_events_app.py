"""`auth.events_app()`: Shared Signals push and OIDC back-channel logout against a protected app in process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx
import pytest
from harness import ISS, Answer, Clock, R, RecordingApp, bearer, call, protect, token
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_mcp_auth import (
    Choose,
    ConfigurationError,
    EventTransmitter,
    Introspection,
    MCPAuthMiddleware,
    MemoryStore,
    SecurityEvent,
    TokenExchange,
)
from asgi_mcp_auth._asgi import events_app as events_app_module
from asgi_mcp_auth._oauth.strict_json import JSONRefused
from asgi_mcp_auth._signals import poller as poller_module
from asgi_mcp_auth._signals import receiver as receiver_module
from asgi_mcp_auth.config import AuthServerConfig
from asgi_mcp_auth.errors import DiscoveryError
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = [pytest.mark.anyio]

US = "https://mcp.example.com/events"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
REVOKED = f"{CAEP}session-revoked"
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"
ALICE = {"format": "iss_sub", "iss": ISS, "sub": "alice"}
MALLORY = "https://transmitter.example"


def made(make: Callable[[Issuer], str]) -> Callable[[Issuer], str]:
    return make


class Failing(MemoryStore):
    """Fails on demand."""

    fails = False

    async def append(self, log: str, value: bytes, ttl: float) -> str:
        if self.fails:
            raise ConnectionError("away")
        return await super().append(log, value, ttl)


def guarded(issuer: Issuer, store: Any = None, *, app: Any = None, **options: Any) -> MCPAuthMiddleware:
    known = [
        EventTransmitter(issuer=ISS, audiences=[US], client_ids=["client"], email_claim="email", jwks=issuer.jwks())
    ]
    settings: dict[str, Any] = {"store": store or MemoryStore(), "revocation": True, "event_transmitters": known}
    return protect(issuer, app or RecordingApp(), **(settings | options))


async def push(app: Any, event: str | bytes, *fields: tuple[str, str], content_type: str | None = None) -> Answer:
    content = event if isinstance(event, bytes) else event.encode()
    headers = [("content-type", content_type or "application/secevent+jwt"), *fields]
    return await call(app.auth.events_app(), "POST", "/events", headers, body=content)


async def log_out(app: Any, **form: str) -> Answer:
    headers = [("content-type", "application/x-www-form-urlencoded")]
    return await call(app.auth.events_app(), "POST", "/events", headers, body=urlencode(form).encode())


async def status_of(app: Any, raw: str) -> int:
    return (await call(app, headers=bearer(raw))).status


@pytest.mark.requirement("RV-4", "RV-5")
@pytest.mark.parametrize(
    ("event_type", "subject", "refused"),
    [
        pytest.param(REVOKED, ALICE, ["t1", "t2"], id="a user"),
        pytest.param(REVOKED, {"format": "opaque", "id": "bob"}, ["t3"], id="an opaque user"),
        pytest.param(REVOKED, {"format": "email", "email": "bob@example.com"}, ["t3"], id="an email address"),
        pytest.param(REVOKED, {"format": "jwt_id", "iss": ISS, "jti": "t2"}, ["t2"], id="a token"),
        pytest.param(
            REVOKED,
            {"format": "complex", "user": ALICE, "session": {"format": "opaque", "id": "s1"}},
            ["t1"],
            id="a session",
        ),
        pytest.param(REVOKED, {"format": "uri", "uri": "urn:x"}, [], id="a subject that cannot be used"),
        pytest.param(f"{CAEP}assurance-level-change", ALICE, [], id="an event without effect"),
        pytest.param(f"{CAEP}token-claims-change", ALICE, [], id="changed claims"),
        pytest.param(VERIFICATION, {"format": "opaque", "id": "stream"}, [], id="verification"),
    ],
)
async def test_events_revoke_what_they_are_about(
    event_type: str, subject: Mapping[str, Any], refused: list[str], issuer: Issuer, clock: Clock
) -> None:
    seen: list[SecurityEvent] = []
    app = guarded(issuer, on_security_event=seen.append)
    tokens = {
        "t1": token(issuer, jti="t1", sid="s1"),
        "t2": token(issuer, jti="t2"),
        "t3": token(issuer, jti="t3", sub="bob", email="Bob@example.com"),
    }
    assert [await status_of(app, raw) for raw in tokens.values()] == [200] * 3
    answer = await push(app, issuer.event(US, event_type, subject))
    assert (answer.status, answer.body) == (202, b"")
    assert [name for name, raw in tokens.items() if await status_of(app, raw) == 401] == refused
    assert [event.event_type for event in seen] == [event_type]
    clock.now += 2
    assert await status_of(app, token(issuer)) == 200  # signed in again


@pytest.mark.requirement("RV-5")
async def test_changed_claims_drop_the_cached_tokens_of_the_subject_in_every_process(issuer: Issuer) -> None:
    store = MemoryStore()
    one, other = guarded(issuer, store), guarded(issuer, store)
    raw, bobs = token(issuer), token(issuer, sub="bob")
    assert [await status_of(app, each) for app in (one, other) for each in (raw, bobs)] == [200] * 4
    assert (await push(one, issuer.event(US, f"{CAEP}token-claims-change", ALICE))).status == 202
    caches = [app.auth._protection.authenticators[0].jwt for app in (one, other)]
    with anyio.fail_after(1):
        while [len(jwt.cache) for jwt in caches if jwt is not None] != [1, 1]:  # noqa: ASYNC110 - caches of two apps
            await anyio.sleep(0.01)
    assert [await status_of(app, each) for app in (one, other) for each in (raw, bobs)] == [200] * 4


async def apply_change(app: Any, other: Any, issuer: Issuer) -> None:
    """Push the event to one process, and wait until another one has read it from the store."""
    learned: list[bytes] = []
    other.auth._protection.revocations.on_changed.append(learned.append)
    assert (await push(app, issuer.event(US, f"{CAEP}token-claims-change", ALICE))).status == 202
    with anyio.fail_after(5):
        while not learned:  # noqa: ASYNC110 - filled by the follower of the log
            await anyio.sleep(0.01)


@pytest.mark.requirement("RV-5", "IN-9")
async def test_changed_claims_end_the_use_of_shared_answers_in_every_process(issuer: Issuer, clock: Clock) -> None:
    opaque = Choose(opaque=Introspection(client_id="rs", client_secret="s" * 32, shared_cache=True, ttl=300))
    store, settings = MemoryStore(clock=clock), {"verifier": opaque, "shared_secret": "s" * 32}
    one, other, late, later = (guarded(issuer, store, **settings) for _ in range(4))
    raw, bobs = (issuer.mint_opaque(R, scope="mcp:read", sub=name) for name in ("alice", "bob"))

    async def answers(app: Any, *, first: bool = False) -> list[int]:
        """Return the statuses of Alice and of Bob, and how many calls the server has answered for them."""
        if not first:
            await app.auth._protection.revocations.catch_up()  # as the start of the lifespan does
        before, found = issuer.requests["/introspect"], [await status_of(app, each) for each in (raw, bobs)]
        await anyio.wait_all_tasks_blocked()
        return [*found, issuer.requests["/introspect"] - before]

    assert await answers(one) == [200, 200, 2]
    assert await answers(other) == [200, 200, 0]
    clock.now += 60
    await apply_change(one, other, issuer)
    members = {"iss": ISS, "aud": R, "sub": "alice", "token_type": "Bearer", "scope": "reduced"}
    times = {"iat": int(clock.now), "exp": int(clock.now) + 900}
    issuer.answer("/introspect", {"active": True, "client_id": "c1", **members, **times})
    for app in (one, other, late):
        assert await answers(app) == [403, 200, 1]  # Bob's answer is still shared
    assert await answers(later, first=True) == [403, 200, 1]  # it has not read the log before its first request


@pytest.mark.requirement("RV-5", "TX-6")
async def test_changed_claims_drop_the_exchanged_tokens_of_the_subject_in_every_process(issuer: Issuer) -> None:
    class Exchanging:
        def __init__(self, store: MemoryStore) -> None:
            settings = [TokenExchange(client_id="mcp-server", client_secret="s" * 32)]
            self.app = guarded(issuer, store, app=self, token_exchange=settings)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            exchanged = await self.app.auth.exchange(audience="https://api.example.com")
            await JSONResponse(exchanged.access_token)(scope, receive, send)

    store = MemoryStore()
    one, other = (Exchanging(store).app for _ in range(2))
    raw, bobs = token(issuer), token(issuer, sub="bob")

    async def found() -> list[Any]:
        return [(await call(app, headers=bearer(each))).json() for each in (raw, bobs) for app in (one, other)]

    before = await found()
    assert before == await found()
    assert issuer.requests["/token"] == 4
    await apply_change(one, other, issuer)
    after = await found()
    assert issuer.requests["/token"] == 6
    assert [first == second for first, second in zip(before, after, strict=True)] == [False, False, True, True]


@pytest.mark.requirement("RV-4", "RV-6")
@pytest.mark.parametrize(
    ("make", "code"),
    [
        pytest.param(
            made(lambda i: i.event("https://other.example", REVOKED, ALICE)), "invalid_audience", id="foreign"
        ),
        pytest.param(made(lambda i: i.event(US, REVOKED, ALICE, iss=MALLORY)), "invalid_issuer", id="another issuer"),
        pytest.param(
            made(lambda i: i.event(US, REVOKED, ALICE, iss=5)), "invalid_issuer", id="an issuer of a wrong type"
        ),
        pytest.param(
            made(lambda i: i.event(US, REVOKED, ALICE, key=SigningKey("RS256", kid=i.keys[0].kid))),
            "authentication_failed",
            id="forged",
        ),
        pytest.param(
            made(lambda i: i.event(US, REVOKED, ALICE, key=SigningKey("RS256"))), "invalid_key", id="an unknown key"
        ),
        pytest.param(
            made(lambda i: i.sign({"alg": "none", "typ": "secevent+jwt"}, i.claims(US))),
            "invalid_key",
            id="no algorithm",
        ),
        pytest.param(made(lambda i: i.mint(US)), "invalid_request", id="an access token"),
        pytest.param(made(lambda i: "not a token"), "invalid_request", id="no token"),
        pytest.param(made(lambda i: ""), "invalid_request", id="an empty body"),
        pytest.param(made(lambda i: i.event(US, REVOKED, ALICE, exp=2_000_000_000)), "invalid_request", id="an exp"),
        pytest.param(
            made(lambda i: i.event(US, REVOKED, {**ALICE, "iss": "https://other.example"})),
            "access_denied",
            id="RV-6 not its own",
        ),
        pytest.param(made(lambda i: "x" * 65_537), "invalid_request", id="a body that is too large"),
    ],
)
async def test_events_that_are_refused(make: Any, code: str, issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    app = guarded(issuer)
    answer = await push(app, make(issuer))
    assert (answer.status, answer.json()["err"]) == (400, code)
    assert answer.header("content-type") == "application/json"
    assert await status_of(app, token(issuer)) == 200
    errors = [
        record for record in caplog.records if record.levelno == logging.ERROR and record.name == "asgi_mcp_auth.events"
    ]
    assert len(errors) == (code == "access_denied")


@pytest.mark.requirement("RV-6")
async def test_an_event_is_no_access_token(issuer: Issuer) -> None:
    app = guarded(issuer)
    event = issuer.event(R, REVOKED, ALICE, sub="alice", scope="mcp:read", exp=int(issuer.clock()) + 60)
    assert await status_of(app, event) == 401
    assert await status_of(app, issuer.event(R, REVOKED, ALICE, typ="at+jwt", sub="alice", exp=2_000_000_000)) == 401


@pytest.mark.requirement("RV-6")
async def test_a_transmitter_speaks_for_the_issuers_that_are_configured(issuer: Issuer) -> None:
    other = Issuer(MALLORY, clock=issuer.clock)
    known = [EventTransmitter(issuer=MALLORY, audiences=[US], token_issuers=[ISS], jwks=other.jwks())]
    app = guarded(issuer, event_transmitters=known)
    raw = token(issuer)
    assert (await push(app, other.event(US, REVOKED, {**ALICE, "iss": MALLORY}))).json()["err"] == "access_denied"
    assert await status_of(app, raw) == 200
    assert (await push(app, other.event(US, REVOKED, ALICE))).status == 202
    assert await status_of(app, raw) == 401


@pytest.mark.requirement("RV-4")
async def test_a_repeated_event_is_acknowledged_and_handled_once(issuer: Issuer) -> None:
    seen: list[SecurityEvent] = []
    app = guarded(issuer, on_security_event=seen.append)
    event = issuer.event(US, REVOKED, ALICE)
    assert [(await push(app, event)).status for _ in range(3)] == [202] * 3
    assert len(seen) == 1


@pytest.mark.requirement("RV-4")
async def test_an_event_that_cannot_be_stored_is_not_acknowledged(issuer: Issuer) -> None:
    store, seen = Failing(), list[SecurityEvent]()
    app = guarded(issuer, store, on_security_event=seen.append)
    event, raw = issuer.event(US, REVOKED, ALICE), token(issuer)
    store.fails = True
    answer = await push(app, event)
    assert (answer.status, answer.header("retry-after"), seen) == (503, "1", [])
    store.fails = False
    assert (await push(app, event)).status == 202
    assert (await status_of(app, raw), len(seen)) == (401, 1)


@pytest.mark.requirement("RV-4")
async def test_an_event_whose_hook_fails_is_delivered_again(issuer: Issuer) -> None:
    fails = [True, False]

    async def on_event(event: SecurityEvent) -> None:
        if fails.pop(0):
            raise KeyError(event.token_id)

    app = guarded(issuer, on_security_event=on_event)
    event = issuer.event(US, REVOKED, ALICE)
    assert [(await push(app, event)).status for _ in range(3)] == [503, 202, 202]


@pytest.mark.requirement("RV-4")
@pytest.mark.parametrize(("field", "status"), [("Bearer secret", 202), ("Bearer other", 400), (None, 400)])
async def test_a_transmitter_may_have_to_authenticate(field: str | None, status: int, issuer: Issuer) -> None:
    known = [EventTransmitter(issuer=ISS, audiences=[US], jwks=issuer.jwks(), authorization="Bearer secret")]
    app = guarded(issuer, event_transmitters=known)
    fields = () if field is None else (("authorization", field),)
    answer = await push(app, issuer.event(US, REVOKED, ALICE), *fields)
    assert answer.status == status
    assert status == 202 or answer.json()["err"] == "authentication_failed"
    assert "secret" not in repr(known[0])


@pytest.mark.requirement("RV-5")
@pytest.mark.parametrize(("state", "status"), [("s3cret", 202), ("other", 400), (None, 400), (5, 400)])
async def test_the_state_of_a_verification_is_compared(state: object, status: int, issuer: Issuer) -> None:
    known = [EventTransmitter(issuer=ISS, audiences=[US], jwks=issuer.jwks(), verification_state="s3cret")]
    app = guarded(issuer, event_transmitters=known)
    payload = {} if state is None else {"state": state}
    event = issuer.event(US, VERIFICATION, {"format": "opaque", "id": "stream"}, payload=payload)
    assert (await push(app, event)).status == status


@pytest.mark.requirement("RV-7")
@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        pytest.param({"sub": "alice"}, ["t1", "t2"], id="sub"),
        pytest.param({"sub": "alice", "sid": "s1"}, ["t1", "t2"], id="sub and sid"),
        pytest.param({"sid": "s1"}, ["t1"], id="sid alone"),
        pytest.param({"sub": "alice", "nonce": "n"}, None, id="an ID token"),
        pytest.param({}, None, id="neither"),
        pytest.param({"sub": "alice", "aud": "other"}, None, id="another client"),
        pytest.param({"sub": "alice", "iss": MALLORY}, None, id="another issuer"),
    ],
)
async def test_back_channel_logout(claims: dict[str, Any], refused: list[str] | None, issuer: Issuer) -> None:
    app = guarded(issuer)
    tokens = {"t1": token(issuer, sid="s1"), "t2": token(issuer, sid="s2"), "t3": token(issuer, sub="bob", sid="s3")}
    assert [await status_of(app, raw) for raw in tokens.values()] == [200] * 3
    answer = await log_out(app, logout_token=issuer.logout_token("client", **claims))
    assert (answer.status, answer.header("cache-control")) == (400 if refused is None else 200, "no-store")
    assert [name for name, raw in tokens.items() if await status_of(app, raw) == 401] == (refused or [])


@pytest.mark.requirement("RV-7")
async def test_a_form_has_exactly_one_logout_token(issuer: Issuer) -> None:
    app, raw = guarded(issuer), issuer.logout_token("client", sub="alice")
    assert (await log_out(app)).status == 400
    assert (await log_out(app, other=raw)).status == 400
    headers = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")]
    for body in (urlencode([("logout_token", raw)] * 2), "&".join(f"a{n}=1" for n in range(50)), "\xff"):
        answer = await call(app.auth.events_app(), "POST", "/events", headers, body=body.encode("latin-1"))
        assert answer.status == 400
    assert (await log_out(app, logout_token=raw)).status == 200


@pytest.mark.requirement("RV-4")
async def test_other_methods_and_content_types(issuer: Issuer) -> None:
    app = guarded(issuer)
    assert (await call(app.auth.events_app(), "GET", "/events")).status == 405
    event = issuer.event(US, REVOKED, ALICE)
    for content_type in ("application/json", "application/jwt", "text/plain"):
        assert (await push(app, event, content_type=content_type)).status == 400
    assert (await push(app, event, content_type="Application/SecEvent+JWT; x=y")).status == 202


@pytest.mark.requirement("RV-4")
async def test_requests_are_bounded(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receiver_module, "EVENTS_PER_MINUTE", 2)
    app = guarded(issuer)
    answers = [await push(app, issuer.event(US, REVOKED, ALICE)) for _ in range(3)]
    assert [answer.status for answer in answers] == [202, 202, 503]
    assert f"Too many events of {ISS}" in caplog.text
    monkeypatch.setattr(events_app_module, "MAX_CONCURRENT", 0)
    assert (await push(app, issuer.event(US, REVOKED, ALICE))).status == 503


@pytest.mark.requirement("RV-4")
async def test_a_slow_body_ends(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_app_module, "MAX_SECONDS", 0.01)
    sent: list[Any] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/events",
        "headers": [(b"content-type", b"application/secevent+jwt")],
    }
    await guarded(issuer).auth.events_app()(scope, receive, send)
    assert sent[0]["status"] == 400


@pytest.mark.requirement("RV-4")
async def test_the_app_is_served_on_a_public_path(issuer: Issuer) -> None:
    app = guarded(issuer, public_paths=["/events"])
    inner = Starlette(routes=[Route("/events", app.auth.events_app(), methods=["POST"]), Mount("/mcp", RecordingApp())])
    site = app.auth.wrap(inner)
    headers = [("content-type", "application/secevent+jwt")]
    answer = await call(site, "POST", "/events", headers, body=issuer.event(US, REVOKED, ALICE).encode())
    assert answer.status == 202
    assert await status_of(site, token(issuer)) == 401


class Polled:
    """A transmitter in process that is asked for events (RFC 8936)."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.events: dict[str, object] = {}
        self.asked: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.answer: httpx.Response | None = None

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.respond))

    def respond(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(json.loads(request.content))
        self.authorization.append(request.headers.get("authorization"))
        if self.answer is not None:
            return self.answer
        for token_id in [*self.asked[-1].get("ack", ()), *self.asked[-1].get("setErrs", ())]:
            self.events.pop(token_id)
        return httpx.Response(200, json={"sets": self.events, "moreAvailable": False})


def polling(polled: Polled, store: MemoryStore, **options: Any) -> MCPAuthMiddleware:
    issuer = polled.issuer
    known = EventTransmitter(
        issuer=ISS,
        audiences=[US],
        jwks=issuer.jwks(),
        poll_endpoint="https://auth.example.com/poll",
        poll_token="secret",
    )
    servers = [AuthServerConfig(issuer=ISS, jwks=issuer.jwks())]
    changes: dict[str, Any] = {"authorization_servers": servers, "http_client": polled.client}
    return guarded(issuer, store, event_transmitters=[known], **(changes | options))


@pytest.mark.every_loop
@pytest.mark.requirement("RV-8")
async def test_events_are_fetched_in_the_background_by_one_process(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "POLL_SECONDS", 0.02)
    store, polled = MemoryStore(), Polled(issuer)
    apps = [polling(polled, store), polling(polled, store)]
    raw = token(issuer)
    assert [await status_of(app, raw) for app in apps] == [200, 200]
    polled.events = {
        "good": issuer.event(US, REVOKED, ALICE),
        "foreign": issuer.event("https://other.example", REVOKED, ALICE),
        "garbage": 5,
    }
    for app in apps:
        poller = app.auth._protection.poller
        assert poller is not None
        poller.start()
        poller.start()
    with anyio.fail_after(2):
        while polled.events or [await status_of(app, raw) for app in apps] != [401, 401]:  # noqa: ASYNC110 - two apps
            await anyio.sleep(0.01)
    [answered] = [asked for asked in polled.asked if asked.get("ack")]
    assert answered["ack"] == ["good"]
    assert {name: error["err"] for name, error in answered["setErrs"].items()} == {
        "foreign": "invalid_audience",
        "garbage": "invalid_request",
    }
    assert set(polled.authorization) == {"Bearer secret"}
    assert len(polled.asked) <= 10


@pytest.mark.requirement("RV-8")
@pytest.mark.parametrize("required", [False, True], ids=["in the background", "warm-up required"])
async def test_events_are_fetched_from_the_start_of_the_app(
    required: bool, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "POLL_SECONDS", 0.02)
    polled = Polled(issuer)
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        if len(messages) == 1:  # the app runs until it has asked
            with anyio.fail_after(2):
                while not polled.asked:  # noqa: ASYNC110 - the transmitter is asked in the background
                    await anyio.sleep(0.01)
        return messages.pop(0)

    async def send(_: Any) -> None:
        pass

    app = polling(polled, MemoryStore(), require_warm_up=required)
    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert polled.asked


@pytest.mark.requirement("RV-8")
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(httpx.Response(500), id="an error"),
        pytest.param(httpx.Response(200, content=b"[]"), id="no object"),
        pytest.param(httpx.Response(200, content=b"x" * 2_000_001), id="too large"),
    ],
)
async def test_answers_that_are_no_events_are_errors(answer: httpx.Response, issuer: Issuer) -> None:
    polled = Polled(issuer)
    polled.answer = answer
    poller = polling(polled, MemoryStore()).auth._protection.poller
    assert poller is not None
    [source] = poller._receiver.polled
    with pytest.raises((DiscoveryError, JSONRefused)):
        await poller.poll_once(source, {})


@pytest.mark.requirement("RV-8")
async def test_an_event_that_cannot_be_stored_gets_no_answer(issuer: Issuer) -> None:
    store, polled = Failing(), Polled(issuer)
    poller = polling(polled, store).auth._protection.poller
    assert poller is not None
    [source] = poller._receiver.polled
    polled.events = {"e1": issuer.event(US, REVOKED, ALICE)}
    store.fails = True
    assert await poller.poll_once(source, {}) == ({"ack": [], "setErrs": {}}, False)
    store.fails = False
    assert await poller.poll_once(source, {}) == ({"ack": ["e1"], "setErrs": {}}, False)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"event_transmitters": [EventTransmitter(issuer=ISS)]}, "event_transmitters[0]", id="no audience"),
        pytest.param(
            {"event_transmitters": [EventTransmitter(issuer=MALLORY, audiences=[US])]},
            "event_transmitters[0].token_issuers",
            id="an issuer that no resource trusts",
        ),
        pytest.param({"event_transmitters": ["x"]}, "event_transmitters[0]", id="a string"),
        pytest.param({"event_transmitters": 5}, "event_transmitters", id="no list"),
        pytest.param(
            {"event_transmitters": [EventTransmitter(issuer=ISS, audiences=[US])] * 2},
            "event_transmitters[1]",
            id="twice",
        ),
        pytest.param(
            {"event_transmitters": [EventTransmitter(issuer=ISS, audiences=[US], email_claim="")]},
            "event_transmitters[0].email_claim",
            id="an empty claim",
        ),
        pytest.param(
            {"event_transmitters": [EventTransmitter(issuer=ISS, audiences=[US], poll_endpoint="http://a.example/")]},
            "event_transmitters[0].poll_endpoint",
            id="plain http",
        ),
        pytest.param(
            {"event_transmitters": [EventTransmitter(issuer=ISS, audiences=[US], poll_token="x")]},
            "event_transmitters[0].poll_token",
            id="a token without endpoint",
        ),
        pytest.param({"on_security_event": 5}, "on_security_event", id="a hook that cannot be called"),
        pytest.param({"revocation": False, "session_binding": True}, "event_transmitters", id="without revocation"),
        pytest.param(
            {"event_transmitters": [], "on_security_event": print}, "on_security_event", id="without transmitters"
        ),
    ],
)
def test_configuration(options: dict[str, Any], where: str, issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError) as raised:
        guarded(issuer, **options)
    assert [problem.where for problem in raised.value.problems] == [where]


def test_without_transmitters_there_is_no_app(issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="no transmitter"):
        guarded(issuer, event_transmitters=[]).auth.events_app()
