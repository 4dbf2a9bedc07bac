"""What the operator sees: `status()`, log events, readiness, and the warm-up that may be required."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from harness import ISS, Answer, Clock, R, RecordingApp, bearer, call, protect, token, websocket
from internet import Internet

from asgi_mcp_auth import (
    AuthInfo,
    AuthServerConfig,
    ConfigurationError,
    MCPAuth,
    MCPAuthMiddleware,
    ResourceServerConfig,
    ResourceServerMetadata,
    Verified,
)
from asgi_mcp_auth._policy.trusted_issuer import WEEK
from asgi_mcp_auth.config import JWKSCacheSettings
from asgi_mcp_auth.status import (
    DocumentStatus,
    Event,
    IssuerStatus,
    KeyStatus,
    PoolStatus,
    SkippedKey,
    TokenCacheStatus,
)
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

README = (Path(__file__).parent.parent / "asgi_mcp_auth" / "README.md").read_text("utf-8")
DAY = 86_400.0


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.cached_document.random.random", lambda: 0.0)


@pytest.fixture
def internet(issuer: Issuer) -> Internet:
    return Internet(issuer)


def guard(internet: Internet, *servers: Any, **options: Any) -> MCPAuthMiddleware:
    settings: dict[str, Any] = {"authorization_servers": [ISS, *servers], "http_client": internet.client}
    return protect(internet.hosts["auth.example.com"], RecordingApp(), **(settings | options))


async def ask(guarded: Any, raw: str) -> Answer:
    return await call(guarded, headers=bearer(raw))


def dump(guarded: MCPAuthMiddleware) -> str:
    """The status as JSON, which holds no NaN and no infinity."""
    status = guarded.auth.status().to_dict()
    text = json.dumps(status, allow_nan=False)
    assert json.loads(text) == status
    return text


def only(guarded: MCPAuthMiddleware) -> IssuerStatus:
    (status,) = guarded.auth.status().issuers
    return status


# --- Log events ---


@dataclasses.dataclass
class Stage:
    """What a scenario plays on. `guarded` is made by the scenario; records before `curtain()` do not count."""

    issuer: Issuer
    internet: Internet
    clock: Clock
    caplog: pytest.LogCaptureFixture
    guarded: MCPAuthMiddleware | None = None

    def open(self, *servers: Any, **options: Any) -> MCPAuthMiddleware:
        self.guarded = guard(self.internet, *servers, **options)
        return self.guarded

    async def warm(self, *servers: Any, **options: Any) -> MCPAuthMiddleware:
        guarded = self.open(*servers, **options)
        assert await guarded.auth.warm_up() == ()
        self.caplog.clear()
        return guarded

    async def use(self) -> int:
        """A request, and whatever it has begun in the background."""
        assert self.guarded is not None
        status = (await ask(self.guarded, token(self.issuer, key=self.issuer.keys[-1]))).status
        await anyio.wait_all_tasks_blocked()
        return status


async def first_fetch(stage: Stage) -> None:
    await stage.open().auth.warm_up()


async def rotation(stage: Stage) -> None:
    await stage.warm()
    stage.clock.now += 31
    stage.issuer.keys = [SigningKey("Ed25519")]
    assert await stage.use() == 200


async def unusable_entries(stage: Stage) -> None:
    stage.internet.documents[f"{ISS}/jwks"] = {"keys": [*stage.issuer.jwks()["keys"], {"kty": "oct"}, 5]}
    await stage.open().auth.warm_up()


async def down_from_the_start(stage: Stage) -> None:
    stage.internet.down = True
    stage.open()
    assert await stage.use() == 503


async def down_for_a_while(stage: Stage) -> None:
    await stage.warm()
    stage.internet.down = True
    for seconds in (55, 10, 10):  # one record for all attempts of an outage
        stage.clock.now += seconds
        assert await stage.use() == 200
    stage.internet.down = False
    stage.clock.now += 10
    assert await stage.use() == 200


async def no_request_for_a_while(stage: Stage) -> None:
    await stage.warm()
    stage.clock.now += 100
    assert await stage.use() == 200
    stage.clock.now += 1
    assert await stage.use() == 200


async def down_for_too_long(stage: Stage) -> None:
    await stage.warm()
    stage.internet.down = True
    stage.clock.now += 60 + DAY
    assert await stage.use() == 503


async def a_wrong_document(stage: Stage) -> None:
    await stage.warm()
    stage.internet.documents[f"{ISS}/jwks"] = {"keys": []}
    stage.clock.now += 55
    assert await stage.use() == 200


async def metadata_that_is_republished(stage: Stage) -> None:
    stage.open(republish_server_metadata=True)
    assert stage.guarded is not None
    place = "/.well-known/oauth-authorization-server"
    assert (await call(stage.guarded, "GET", place)).status == 200
    stage.caplog.clear()
    stage.internet.down = True
    for seconds in (290, 20, 20, 86_400):
        stage.clock.now += seconds
        assert (await call(stage.guarded, "GET", place)).status == (503 if seconds == DAY else 200)
        await anyio.wait_all_tasks_blocked()
    stage.internet.down = False
    stage.clock.now += 40
    assert (await call(stage.guarded, "GET", place)).status == 200
    stage.clock.now += 310
    assert (await call(stage.guarded, "GET", place)).status == 200
    await anyio.wait_all_tasks_blocked()


async def unfit_metadata(stage: Stage) -> None:
    stage.issuer.metadata["protected_resources"] = []
    await stage.open().auth.warm_up()


async def a_small_pool(stage: Stage) -> None:
    pattern = AuthServerConfig(issuer_pattern="https://*.id.example.com")
    guarded = stage.open(pattern, issuer_pool_size=1)
    for name in "ab":
        other = stage.internet.add(f"https://{name}.id.example.com", stage.issuer)
        assert (await ask(guarded, token(other))).status == 200


async def a_resolver_that_changes_its_mind(stage: Stage) -> None:
    trusted = ["https://acme.example"]
    other = stage.internet.add(trusted[0], stage.issuer)

    def resolve(issuer: str) -> AuthServerConfig | None:
        return AuthServerConfig(issuer=issuer) if issuer in trusted else None

    guarded = stage.open(resolve)
    assert (await ask(guarded, token(other))).status == 200
    trusted.clear()
    stage.clock.now += 300
    assert (await ask(guarded, token(other))).status == 401


FETCHED = ["INFO metadata_fetched", "INFO keys_fetched"]
SCENARIOS: list[tuple[Callable[[Stage], Awaitable[None]], list[str]]] = [
    (first_fetch, FETCHED),
    (rotation, ["INFO unknown_kid", "INFO keys_changed"]),
    (unusable_entries, ["INFO metadata_fetched", "INFO key_skipped", "INFO key_skipped", "INFO keys_fetched"]),
    (down_from_the_start, ["ERROR keys_unavailable"]),
    (down_for_a_while, ["WARNING keys_refresh_failed", "INFO keys_recovered"]),
    (no_request_for_a_while, ["INFO keys_stale"]),
    (down_for_too_long, ["ERROR keys_unavailable"]),
    (a_wrong_document, ["WARNING keys_refresh_failed"]),
    (
        metadata_that_is_republished,
        [
            *("WARNING metadata_refresh_failed", "WARNING metadata_unavailable", "INFO metadata_recovered"),
            "INFO metadata_stale",
        ],
    ),
    (unfit_metadata, ["WARNING metadata_unfit", *FETCHED]),
    (a_small_pool, [*FETCHED, "INFO issuer_admitted", *FETCHED, "INFO issuer_admitted", "INFO issuer_evicted"]),
    (a_resolver_that_changes_its_mind, ["INFO issuer_admitted", *FETCHED, "INFO issuer_withdrawn"]),
]


@pytest.mark.requirement("AU-7")
@pytest.mark.parametrize(
    ("play", "expected"), [pytest.param(*scenario, id=scenario[0].__name__) for scenario in SCENARIOS]
)
async def test_every_change_is_logged(
    play: Callable[[Stage], Awaitable[None]],
    expected: list[str],
    issuer: Issuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    stage = Stage(issuer, Internet(issuer), clock, caplog)
    await play(stage)
    told = [vars(record) for record in caplog.records if hasattr(record, "event")]
    assert [f"{record['levelname']} {record['event']}" for record in told] == expected
    assert {record["name"] for record in told} <= {"asgi_mcp_auth.keys", "asgi_mcp_auth.issuers"}
    assert all(record["issuer"].startswith("https://") for record in told)
    assert stage.guarded is not None
    dump(stage.guarded)


def test_the_scenarios_cover_every_event_and_the_readme_names_the_levels() -> None:
    logged = {line.split()[1]: line.split()[0] for _, expected in SCENARIOS for line in expected}
    # tests/test_introspection.py, tests/test_exchange.py and tests/test_key_cache.py show the others.
    elsewhere = ("introspection_", "exchange_", "keys_loaded", "keys_cache_")
    assert set(logged) == {event for event in Event if not event.startswith(elsewhere)}
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:INFO|WARNING|ERROR) \| .*)$", README, flags=re.MULTILINE))
    for line in (line for _, expected in SCENARIOS for line in expected):
        level, event = line.split()
        assert level in rows[event], line
    assert set(rows) == set(Event)


# --- The picture ---


async def test_a_status_is_frozen(internet: Internet) -> None:
    guarded = guard(internet)
    await guarded.auth.warm_up()
    status = guarded.auth.status()
    issuer, resource = status.issuers[0], status.resources[0]
    parts: list[Any] = [status, issuer, issuer.key_set, issuer.keys[0], resource, resource.token_cache]
    for part in parts:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, None)


@pytest.mark.parametrize(
    ("elapsed", "down", "expected"),
    [
        pytest.param(None, False, DocumentStatus(state="empty", next_refresh=0.0), id="before anything"),
        pytest.param(
            0,
            False,
            DocumentStatus(state="fresh", age=0.0, next_refresh=54.0, usable_for=60 + DAY, fetches=1),
            id="fetched",
        ),
        pytest.param(
            50,
            False,
            DocumentStatus(state="fresh", age=50.0, next_refresh=4.0, usable_for=10 + DAY, fetches=1),
            id="fresh",
        ),
        pytest.param(
            54,
            False,
            DocumentStatus(state="due", age=54.0, next_refresh=0.0, usable_for=6 + DAY, fetches=1),
            id="due",
        ),
        pytest.param(
            60, False, DocumentStatus(state="stale", age=60.0, next_refresh=0.0, usable_for=DAY, fetches=1), id="stale"
        ),
        pytest.param(
            60 + DAY,
            False,
            DocumentStatus(state="unusable", age=60 + DAY, next_refresh=0.0, usable_for=0.0, fetches=1),
            id="unusable",
        ),
        pytest.param(
            -5,
            False,
            DocumentStatus(state="stale", age=-5.0, next_refresh=59.0, usable_for=65 + DAY, fetches=1),
            id="a clock that was set back",
        ),
        pytest.param(
            60,
            True,
            DocumentStatus(
                state="stale",
                age=60.0,
                next_refresh=1.0,
                usable_for=DAY,
                fetches=2,
                failures=1,
                last_error=f"{ISS}/jwks could not be fetched: ConnectError refused.",
            ),
            id="stale, and the issuer is down",
        ),
    ],
)
async def test_the_state_of_a_key_set(
    elapsed: float | None, down: bool, expected: DocumentStatus, internet: Internet, clock: Clock
) -> None:
    guarded = guard(internet)
    if elapsed is not None:
        assert await guarded.auth.warm_up() == ()
        clock.now += elapsed
    if down:
        internet.down = True
        assert await guarded.auth.warm_up() == ()
    assert only(guarded).key_set == expected
    assert guarded.auth.status().at == clock.now
    assert guarded.auth.status().ready is (expected.state not in ("empty", "unusable"))
    dump(guarded)


async def test_the_state_where_nothing_was_ever_had(internet: Internet) -> None:
    guarded = guard(internet)
    internet.down = True
    assert await guarded.auth.warm_up() == (ISS,)
    status = only(guarded)
    assert status.key_set.state == "empty"
    assert (status.key_set.fetches, status.key_set.failures, status.key_set.next_refresh) == (1, 1, 1.0)
    assert status.metadata is not None
    assert (status.metadata.state, status.metadata.failures) == ("empty", 1)
    assert "ConnectError refused" in str(status.key_set.last_error)
    assert (status.keys, status.skipped) == ((), ())
    dump(guarded)


@pytest.mark.parametrize(
    ("kind", "key_set", "metadata"),
    [
        pytest.param("discovered", "fresh", "fresh", id="discovered"),
        pytest.param("jwks_uri", "fresh", None, id="a jwks_uri"),
        pytest.param("jwks", "given", None, id="keys given"),
    ],
)
async def test_what_is_known_by_kind_of_configuration(
    kind: str, key_set: str, metadata: str | None, issuer: Issuer, internet: Internet
) -> None:
    config = {
        "discovered": AuthServerConfig(issuer=ISS),
        "jwks_uri": AuthServerConfig(issuer=ISS, jwks_uri=f"{ISS}/jwks"),
        "jwks": AuthServerConfig(issuer=ISS, jwks=issuer.jwks()),
    }[kind]
    guarded = guard(internet, authorization_servers=[config])
    assert await guarded.auth.warm_up() == ()
    status = only(guarded)
    assert status.key_set.state == key_set
    assert (None if status.metadata is None else status.metadata.state) == metadata
    assert guarded.auth.status().ready
    dump(guarded)


async def test_the_keys_and_what_was_skipped(issuer: Issuer, internet: Internet) -> None:
    rsa, ec, okp = (key.jwk for key in issuer.keys)
    entries: list[Any] = [
        *(rsa, {"kty": "oct", "kid": "s", "k": "AA"}, "no object", ec | {"use": "enc", "kid": "e\n\u2028"}),
        *(SigningKey("RS256", kid="w", bits=1024).jwk, rsa, okp | {"d": "secret", "kid": "p"}, {"kty": "X"}),
        okp | {"kid": 'q"\u00e4'},
    ]
    internet.documents[f"{ISS}/jwks"] = {"keys": entries}
    guarded = guard(internet)
    assert await guarded.auth.warm_up() == ()
    status = only(guarded)
    assert status.keys == (
        KeyStatus(kid=rsa["kid"], algorithms=("RS256",)),
        KeyStatus(kid='q"\u00e4', algorithms=("Ed25519", "EdDSA")),
    )
    assert status.skipped == (
        SkippedKey(position=1, kid="s", reason="symmetric"),
        SkippedKey(position=2, kid=None, reason="not_an_object"),
        SkippedKey(position=3, kid="e\\n\\u2028", reason="not_for_signatures"),
        SkippedKey(position=4, kid="w", reason="weak"),
        SkippedKey(position=5, kid=rsa["kid"], reason="duplicate"),
        SkippedKey(position=6, kid="p", reason="private"),
        SkippedKey(position=7, kid=None, reason="unsupported_type"),
    )
    dump(guarded)


async def test_counts_of_hits_and_refusals(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    guarded = guard(internet, token_cache_size=1)
    good, other = token(issuer), token(issuer, sub="bob")
    expected = [200, 200, 200, 200, 401, 401, 401, 401, 401]
    asked = [
        *(good, good, other, good),
        *(token(issuer, exp=1), token(issuer, aud="https://other.example"), token(issuer, exp=1, sub="x")),
        *(token(issuer, iss="https://unknown.example"), "opaque"),
    ]
    assert [(await ask(guarded, raw)).status for raw in asked] == expected
    assert (await ask(guarded, token(issuer, header={"kid": "unpublished"}, iat=1))).status == 401
    clock.now += 31
    assert (await ask(guarded, token(issuer, header={"kid": "unpublished"}, iat=1))).status == 401
    status = guarded.auth.status()
    assert only(guarded).hits == 6
    assert only(guarded).unknown_kids == 1
    assert only(guarded).refusals == {"token_expired": 2, "wrong_audience": 1, "unknown_kid": 2}
    (resource,) = status.resources
    assert resource.resource == R
    assert resource.refusals == {"unknown_issuer": 1, "malformed_token": 1}
    cache = resource.token_cache
    assert cache is not None
    assert cache == TokenCacheStatus(
        entries=1, size=1, bytes=cache.bytes, max_bytes=67_108_864, hits=1, misses=6, evictions=2
    )
    assert 1000 < cache.bytes < 10_000
    assert resource.pool is None


async def test_a_picture_does_not_change_afterwards(issuer: Issuer, internet: Internet) -> None:
    guarded = guard(internet)
    before = guarded.auth.status()
    text = json.dumps(before.to_dict())
    for raw in (token(issuer), token(issuer, exp=1), "opaque"):
        await ask(guarded, raw)
    assert json.dumps(before.to_dict()) == text
    assert guarded.auth.status() != before


async def test_nothing_in_it_is_secret(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    guarded = guard(internet, expose_token=True)
    tokens = [token(issuer), token(issuer, exp=1), token(issuer, header={"kid": "unpublished"}), "opaque-secret"]
    for raw in tokens:
        await ask(guarded, raw)
    for text in (dump(guarded), repr(guarded.auth.status())):
        for raw in tokens:
            assert not [part for part in raw.split(".") if part in text]
        assert not [key for key in issuer.keys if str(key.jwk.get("n", key.jwk.get("x"))) in text]
        assert "alice" not in text


async def test_without_a_token_cache_and_with_a_pool(internet: Internet) -> None:
    pattern = AuthServerConfig(issuer_pattern="https://*.id.example.com")
    guarded = guard(internet, pattern, token_cache_size=0, issuer_pool_size=7)
    (resource,) = guarded.auth.status().resources
    assert resource.token_cache is None
    assert resource.pool == PoolStatus(entries=0, size=7, evictions=0)
    dump(guarded)


async def test_with_a_verifier_of_the_users_own(internet: Internet) -> None:
    class Anybody:
        async def verify(self, credential: Any, request: Any) -> Verified:
            return Verified(AuthInfo(issuer="https://keys.example", subject="a", scopes=["mcp:read"]))

    guarded = guard(internet, verifier=Anybody())
    assert (await ask(guarded, "opaque")).status == 200
    assert guarded.auth.status().resources == ()
    dump(guarded)


async def test_issuers_come_in_order(internet: Internet) -> None:
    guarded = guard(internet, "https://b.example", "https://a.example")
    assert [status.issuer for status in guarded.auth.status().issuers] == [
        "https://a.example",
        ISS,
        "https://b.example",
    ]


# --- Readiness ---


async def test_asking_makes_ready(issuer: Issuer, internet: Internet) -> None:
    guarded = guard(internet)
    ready = guarded.auth.readiness_app()
    assert internet.asked == []
    first = await call(ready, "GET", "/readyz")
    assert (first.status, first.json()) == (503, {"ready": False, "unavailable": [ISS]})
    assert first.header("retry-after") == "1"
    await anyio.wait_all_tasks_blocked()
    for method in ("GET", "POST", "DELETE"):
        answer = await call(ready, method, "/readyz")
        assert (answer.status, answer.json()) == (200, {"ready": True})
    head = await call(ready, "HEAD", "/readyz")
    assert (head.status, head.body) == (200, b"")
    assert len(internet.asked) == 2


async def test_asking_keeps_to_the_brakes(internet: Internet, clock: Clock) -> None:
    guarded = guard(internet)
    ready = guarded.auth.readiness_app()
    internet.down = True
    probes = 2  # of the metadata of an issuer without a path
    for seconds, attempts in ((0, 1), (0.5, 1), (0.5, 2), (1.9, 2), (0.1, 3)):
        clock.now += seconds
        for _ in range(20):
            assert (await call(ready, "GET", "/")).status == 503
            await anyio.wait_all_tasks_blocked()
        assert len(internet.asked) == attempts * probes
    internet.down = False
    clock.now += 4
    assert (await call(ready, "GET", "/")).status == 503
    await anyio.wait_all_tasks_blocked()
    assert (await call(ready, "GET", "/")).status == 200


async def test_stale_keys_are_ready_until_they_are_too_old(internet: Internet, clock: Clock) -> None:
    guarded = guard(internet)
    ready = guarded.auth.readiness_app()
    await guarded.auth.warm_up()
    internet.down = True
    clock.now += 60 + DAY - 1
    assert (await call(ready, "GET", "/")).status == 200
    await anyio.wait_all_tasks_blocked()
    assert only(guarded).key_set.failures == 1, "asking had it refreshed"
    clock.now += 1
    assert (await call(ready, "GET", "/")).status == 503


async def test_only_those_that_are_missing_are_named(internet: Internet) -> None:
    guarded = guard(internet, "https://down.example", AuthServerConfig(issuer_pattern="https://*.id.example.com"))
    assert await guarded.auth.warm_up() == ("https://down.example",)
    answer = await call(guarded.auth.readiness_app(), "GET", "/")
    assert answer.json() == {"ready": False, "unavailable": ["https://down.example"]}
    assert guarded.auth.status().ready is False


async def test_a_websocket_is_refused(internet: Internet) -> None:
    guarded = guard(internet)
    ready = guarded.auth.readiness_app()
    shaken = await websocket(ready, "/readyz", denial=False)
    assert (shaken.accepted, shaken.closed) == (False, 1008)
    denied = await websocket(ready, "/readyz")
    assert not denied.accepted
    await anyio.wait_all_tasks_blocked()


@pytest.mark.every_loop
async def test_as_a_whole_app_it_has_a_lifespan(internet: Internet) -> None:
    assert await lifespan(guard(internet).auth.readiness_app()) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


# --- Warm-up that is required ---


async def lifespan(app: Any) -> list[dict[str, Any]]:
    """Run an app's lifespan as a server does: start-up, and shutdown unless the start failed."""
    sent: list[dict[str, Any]] = []
    queue = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return queue.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    return sent


class Started(RecordingApp):
    """An app that remembers whether its lifespan was begun."""

    begun = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun = self.begun or scope["type"] == "lifespan"
        await super().__call__(scope, receive, send)


COMPLETE = [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


FAILED_START = [{"type": "lifespan.startup.failed", "message": f"asgi_mcp_auth: no keys of {ISS}"}]
REQUIRED: dict[str, Any] = {"require_warm_up": True, "warm_up_timeout": 1}
EXIT: dict[str, Any] = REQUIRED | {"dangerously_exit_when_cold": True}


@pytest.mark.every_loop
@pytest.mark.parametrize(
    ("options", "down", "expected", "begun"),
    [
        pytest.param({}, False, COMPLETE, True, id="DC-9 not required"),
        pytest.param({}, True, COMPLETE, True, id="DC-9 not required, and down"),
        pytest.param(REQUIRED, False, COMPLETE, True, id="required"),
        pytest.param(REQUIRED, True, COMPLETE, True, id="required, and down: starts unready"),
        pytest.param(EXIT, False, COMPLETE, True, id="exit when cold"),
        pytest.param(EXIT, True, FAILED_START, False, id="exit when cold, and down"),
    ],
)
async def test_start_up(options: dict[str, Any], down: bool, expected: list[Any], begun: bool, issuer: Issuer) -> None:
    internet, app = Internet(issuer), Started()
    internet.down = down
    guarded = protect(issuer, app, http_client=internet.client, **options)
    with anyio.fail_after(5):
        assert await lifespan(guarded) == expected
    assert app.begun is begun
    await anyio.wait_all_tasks_blocked()
    assert internet.asked != []
    assert guarded.auth.status().ready is not down
    assert (await call(guarded.auth.readiness_app(), "GET", "/")).status == (503 if down else 200)


@pytest.mark.requirement("AU-7")
@pytest.mark.every_loop
async def test_warm_up_tries_again_until_the_keys_are_there(
    issuer: Issuer, internet: Internet, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    internet.down = True
    guarded = guard(internet, require_warm_up=True, warm_up_timeout=20)

    async def repair() -> None:
        for _ in range(3):
            await anyio.sleep(0.2)
            clock.now += 4
        internet.down = False

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(repair)
            assert await lifespan(guarded) == COMPLETE
    assert guarded.auth.status().ready
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [vars(record)["event"] for record in told] == ["keys_unavailable"], "one record per outage"


async def test_start_up_names_only_issuers_whose_keys_are_missing(internet: Internet) -> None:
    guarded = guard(internet, "https://down.example", **EXIT)
    (sent,) = await lifespan(guarded)
    assert sent["message"] == "asgi_mcp_auth: no keys of https://down.example"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"warm_up_timeout": 0}, "warm_up_timeout", id="no time"),
        pytest.param({"warm_up_timeout": 3601}, "warm_up_timeout", id="more than an hour"),
        pytest.param({"warm_up_timeout": True}, "warm_up_timeout", id="a bool"),
        pytest.param({"warm_up_timeout": float("nan")}, "warm_up_timeout", id="not a number"),
        pytest.param({"dangerously_exit_when_cold": 1}, "dangerously_exit_when_cold", id="not a bool"),
        pytest.param({"dangerously_exit_when_cold": True}, "dangerously_exit_when_cold", id="without warm-up"),
    ],
)
def test_warm_up_options_that_are_refused(options: dict[str, Any], where: str, internet: Internet) -> None:
    with pytest.raises(ConfigurationError) as caught:
        guard(internet, **options)
    assert [problem.where for problem in caught.value.problems] == [where]


@pytest.mark.every_loop
async def test_an_app_without_a_lifespan(issuer: Issuer, internet: Internet) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(scope["type"])
        await RecordingApp()(scope, receive, send)

    guarded = protect(issuer, app, http_client=internet.client, require_warm_up=True)
    with pytest.raises(NotImplementedError, match="lifespan"):  # by which servers know it
        await lifespan(guarded)
    assert (await ask(guarded, token(issuer))).status == 200
    internet.down = True
    cold = protect(issuer, app, http_client=internet.client, **EXIT)
    assert [message["type"] for message in await lifespan(cold)] == ["lifespan.startup.failed"]


# --- Clocks ---


def configure(clocks: Any) -> MCPAuth:
    server = AuthServerConfig(issuer=ISS, jwks_cache=clocks)
    return MCPAuth(ResourceServerConfig(metadata=ResourceServerMetadata(resource=R, authorization_servers=[server])))


def places(clocks: Any) -> set[str]:
    with pytest.raises(ConfigurationError) as caught:
        configure(clocks)
    return {problem.where.partition("jwks_cache")[2].lstrip(".") for problem in caught.value.problems}


@pytest.mark.parametrize("wrong", [True, "60", None, float("nan"), float("inf"), -1, WEEK + 1, [60], 10**400])
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(JWKSCacheSettings)])
def test_every_clock_is_bounded(name: str, wrong: Any) -> None:
    assert places(JWKSCacheSettings(**{name: wrong})) == {name}


def test_all_problems_at_once() -> None:
    names = [field.name for field in dataclasses.fields(JWKSCacheSettings)]
    assert places(JWKSCacheSettings(**dict.fromkeys(names, -1))) == set(names)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"lifetime": 30}, id="lifetime below the shortest"),
        pytest.param({"lifetime": DAY + 1}, id="lifetime above the longest"),
        pytest.param({"min_lifetime": 700, "max_lifetime": 650}, id="crossed"),
    ],
)
def test_clocks_in_disorder(changes: dict[str, float]) -> None:
    assert places(JWKSCacheSettings(**changes)) == {""}


@pytest.mark.parametrize("clocks", [{"lifetime": 60}, None, JWKSCacheSettings, 60])
def test_what_is_no_clocks(clocks: Any) -> None:
    assert places(clocks) == {""}


@pytest.mark.parametrize(
    "clocks",
    [
        pytest.param(JWKSCacheSettings(lifetime=10, min_lifetime=10, max_lifetime=10), id="the least life"),
        pytest.param(JWKSCacheSettings(stale_if_error=0, max_backoff=1), id="the least of the rest"),
        pytest.param(JWKSCacheSettings(*(), lifetime=WEEK, max_lifetime=WEEK, stale_if_error=WEEK), id="a week"),
    ],
)
def test_the_bounds_themselves(clocks: JWKSCacheSettings) -> None:
    assert configure(clocks).configs[0].metadata.resource == R
