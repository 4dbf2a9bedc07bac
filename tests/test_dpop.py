"""Tokens bound to a key (DPoP, RFC 9449) through the whole pipeline: schemes, challenges, nonces, replay, downgrade."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from harness import (
    APP,
    CH0,
    CORS,
    EXPIRED,
    INVALID,
    ISS,
    PRM,
    PRM_PATH,
    Answer,
    Clock,
    R,
    RecordingApp,
    bearer,
    call,
    chr_,
    cht,
    lines,
    protect,
    token,
    websocket,
)

from asgi_mcp_auth import (
    ApiKeys,
    AuthInfo,
    Choose,
    ConfigurationError,
    Credential,
    DPoPSettings,
    Introspection,
    MCPAuth,
    MCPAuthMiddleware,
    Reason,
    RequestInfo,
    ResourceServerConfig,
    ResourceServerMetadata,
    Verified,
)
from asgi_mcp_auth._oauth.dpop_proof import NONCE_SECONDS
from asgi_mcp_auth._verify.dpop import KeyLimits
from asgi_mcp_auth.stores import MemoryStore
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

SECRET = "a secret that all workers share, long enough"
SCOPE = 'scope="mcp:read", '
DPOP = f'DPoP {SCOPE}algs="ES256", resource_metadata="{PRM}"'
BINDING = "Invalid DPoP key binding"
PROOF = "Invalid DPoP proof"
NONCE = "Resource server requires nonce in DPoP proof"


def dpop(error: str, description: str, scope: str = "mcp:read") -> str:
    return (
        f'DPoP error="{error}", scope="{scope}", algs="ES256", resource_metadata="{PRM}", '
        f'error_description="{description}"'
    )


@pytest.fixture
def issuer() -> Issuer:
    return Issuer(clock=Clock(), algorithms=("ES256",))


@pytest.fixture
def app() -> RecordingApp:
    return RecordingApp()


def bound(issuer: Issuer, key: SigningKey | None = None, **changes: Any) -> str:
    return token(issuer, **({"cnf": {"jkt": (key or issuer.proof_key).thumbprint}} | changes))


Fields = list[tuple[str, str | bytes]]


def sent(access_token: str, *proofs: str, scheme: str = "DPoP") -> Fields:
    return lines([("authorization", f"{scheme} {access_token}")], [("dpop", proof) for proof in proofs])


def proven(issuer: Issuer, access_token: str, method: str = "POST", url: str = R, **changes: Any) -> Fields:
    return sent(access_token, issuer.prove(method, url, access_token, **changes))


def challenges(answer: Answer) -> list[str]:
    return answer.lines("www-authenticate")


@pytest.mark.requirement("RS-130", "RS-135", "DP-8")
@pytest.mark.parametrize("mode", ["allowed", "required"])
async def test_a_bound_token_with_its_proof_passes_each_time(issuer: Issuer, app: RecordingApp, mode: str) -> None:
    protected, access = protect(issuer, app, dpop=mode), bound(issuer)
    for _ in range(3):  # the second and the third time from the token cache
        assert (await call(protected, headers=proven(issuer, access))).status == 200
    assert app.calls == 3
    assert {name for name, _ in app.scopes[0]["headers"]}.isdisjoint({b"authorization", b"dpop"})


@pytest.mark.requirement("DP-8", "RS-135")
async def test_a_cached_token_needs_its_proof_too(issuer: Issuer, app: RecordingApp) -> None:
    protected, access, other = protect(issuer, app, dpop="allowed"), bound(issuer), bound(issuer)
    for warm in (access, other):
        assert (await call(protected, headers=proven(issuer, warm))).status == 200
    swapped = sent(access, issuer.prove("POST", R, other))
    answers = [await call(protected, headers=fields) for fields in (sent(access), swapped)]
    key = proven(issuer, access, key=SigningKey("ES256"))
    assert [challenges(answer)[1] for answer in answers] == [dpop("invalid_dpop_proof", PROOF)] * 2
    assert challenges(await call(protected, headers=key)) == [CH0, dpop("invalid_token", BINDING)]
    assert app.calls == 2


def enabled(issuer: Issuer, app: Any, **options: Any) -> MCPAuthMiddleware:
    settings: dict[str, Any] = {"dpop": "allowed", **options}
    return protect(issuer, app, **settings)


def case(fields: Callable[[Issuer], Fields], status: int, expected: list[str], *, id: str) -> Any:  # noqa: A002
    return pytest.param(fields, status, expected, id=id)


@pytest.mark.requirement("RS-131", "RS-139", "RS-141", "RS-38", "DP-2")
@pytest.mark.parametrize(
    ("fields", "status", "expected"),
    [
        case(lambda _: [], 401, [CH0, DPOP], id="1 no credential"),
        case(lambda _: [("authorization", "")], 401, [CH0, DPOP], id="1 empty"),
        case(lambda _: [("authorization", "Basic x")], 401, [CH0, DPOP], id="1 another scheme"),
        case(lambda _: [("authorization", "Bearer")], 400, [chr_(), DPOP], id="2 nothing after Bearer"),
        case(lambda _: [("authorization", "Bearer a b")], 400, [chr_(), DPOP], id="3 malformed"),
        case(
            lambda _: [("authorization", "DPoP a b")],
            400,
            [CH0, dpop("invalid_request", "Malformed Authorization header")],
            id="3 malformed under DPoP",
        ),
        case(
            lambda i: lines(bearer(token(i)), proven(i, bound(i))),
            400,
            [chr_("Multiple Authorization headers"), dpop("invalid_request", "Multiple Authorization headers")],
            id="4 DP-2 two field lines",
        ),
        case(lambda _: lines(bearer("x.y")), 401, [cht(), DPOP], id="5 garbage"),
        case(lambda i: lines(bearer(token(i, exp=1))), 401, [cht(EXPIRED), DPOP], id="7 expired"),
        case(lambda i: lines(bearer(bound(i))), 401, [cht(), DPOP], id="8 RS-131 downgrade to Bearer"),
        case(lambda i: lines(bearer(bound(i)), proven(i, bound(i))[1:]), 401, [cht(), DPOP], id="8 with a proof"),
        case(lambda i: proven(i, token(i)), 401, [CH0, dpop("invalid_token", BINDING)], id="RS-131 an unbound token"),
        case(lambda i: sent(bound(i)), 401, [CH0, dpop("invalid_dpop_proof", PROOF)], id="9 RS-130 no proof"),
        case(lambda i: proven(i, bound(i, exp=1)), 401, [CH0, dpop("invalid_token", EXPIRED)], id="DP-2 expired"),
        case(
            lambda i: proven(i, bound(i, aud="https://x.example")),
            401,
            [CH0, dpop("invalid_token", INVALID)],
            id="RS-140 DP-2 another audience",
        ),
        case(
            lambda i: proven(i, bound(i, iss="https://x.example")),
            401,
            [CH0, dpop("invalid_token", INVALID)],
            id="RS-140 another issuer",
        ),
        case(
            lambda i: proven(i, bound(i, scope="other")),
            403,
            [CH0, dpop("insufficient_scope", "Additional scope required")],
            id="RS-140 DP-2 a missing scope",
        ),
        case(
            lambda i: proven(i, token(i, cnf={"x5t#S256": i.proof_key.thumbprint})),
            401,
            [CH0, dpop("invalid_token", INVALID)],
            id="RS-85 bound to a certificate",
        ),
        case(
            lambda i: proven(i, token(i, cnf={"jkt": [i.proof_key.thumbprint]})),
            401,
            [CH0, dpop("invalid_token", INVALID)],
            id="RS-85 cnf.jkt an array",
        ),
        case(lambda i: proven(i, "abc"), 401, [CH0, dpop("invalid_token", INVALID)], id="DP-2 no JWT at all"),
    ],
)
async def test_refusals_with_both_schemes(
    issuer: Issuer, app: RecordingApp, fields: Any, status: int, expected: list[str]
) -> None:
    answer = await call(enabled(issuer, app), headers=fields(issuer))
    assert (answer.status, challenges(answer)) == (status, expected)
    assert app.calls == 0


@pytest.mark.requirement("RS-10", "RS-85")
@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "DPOP", "DPoP "])
async def test_schemes_have_no_case(issuer: Issuer, app: RecordingApp, scheme: str) -> None:
    access = bound(issuer, cnf={"jkt": issuer.proof_key.thumbprint, "unknown": {}})
    fields = sent(access, issuer.prove("POST", R, access), scheme=scheme)
    assert (await call(enabled(issuer, app), headers=fields)).status == 200
    assert (
        await call(enabled(issuer, app), headers=[("authorization", f" {scheme} {access}"), fields[1]])
    ).status == 200


async def test_bearer_tokens_pass_where_dpop_is_allowed(issuer: Issuer, app: RecordingApp) -> None:
    protected = enabled(issuer, app)
    assert (await call(protected, headers=bearer(token(issuer)))).status == 200
    # A proof that belongs to no token says nothing about a bearer token.
    assert (await call(protected, headers=lines(bearer(token(issuer)), [("dpop", "x")]))).status == 200


@pytest.mark.requirement("RS-139", "RS-141")
async def test_bearer_is_no_scheme_where_dpop_is_required(issuer: Issuer, app: RecordingApp) -> None:
    protected = enabled(issuer, app, dpop="required")
    for fields in ([], bearer(token(issuer)), bearer(bound(issuer)), bearer("x.y")):
        answer = await call(protected, headers=fields)
        assert (answer.status, challenges(answer)) == (401, [DPOP])
    assert app.calls == 0


@pytest.mark.requirement("RS-131", "RS-13")
async def test_dpop_is_no_scheme_where_it_is_off(issuer: Issuer, app: RecordingApp) -> None:
    protected = protect(issuer, app)
    assert challenges(await call(protected, headers=proven(issuer, bound(issuer)))) == [CH0]
    assert challenges(await call(protected, headers=bearer(bound(issuer)))) == [cht()]


@pytest.mark.requirement("RS-139")
@pytest.mark.parametrize(
    ("mode", "algorithms", "members"),
    [
        ("off", ["ES256"], {}),
        ("allowed", ["ES256", "EdDSA"], {"dpop_signing_alg_values_supported": ["ES256", "EdDSA"]}),
        (
            "required",
            ["ES256"],
            {"dpop_signing_alg_values_supported": ["ES256"], "dpop_bound_access_tokens_required": True},
        ),
    ],
)
async def test_metadata_and_challenge_announce_dpop(
    issuer: Issuer, app: RecordingApp, mode: str, algorithms: list[str], members: dict[str, Any]
) -> None:
    protected = enabled(issuer, app, dpop=mode, dpop_settings=DPoPSettings(algorithms=algorithms))
    document = (await call(protected, "GET", PRM_PATH)).json()
    assert {name: value for name, value in document.items() if name.startswith("dpop")} == members
    found = [line for line in challenges(await call(protected)) if line.startswith("DPoP")]
    assert found == ([] if mode == "off" else [DPOP.replace("ES256", " ".join(algorithms))])


@pytest.mark.requirement("RS-142", "RS-226")
async def test_browsers_see_challenge_and_nonce(issuer: Issuer, app: RecordingApp) -> None:
    protected = enabled(issuer, app, allowed_origins=[APP], **NONCES)
    access = bound(issuer)
    answer = await call(protected, headers=lines([("origin", APP)], proven(issuer, access)))
    assert answer.header("dpop-nonce")
    assert set(CORS) <= set(answer.headers)
    asked = [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization, dpop")]
    preflight = await call(protected, "OPTIONS", headers=lines([("origin", APP)], asked))
    assert "dpop" in (preflight.header("access-control-allow-headers") or "").split(", ")


@pytest.mark.requirement("DP-9", "RS-133", "RS-134")
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_the_proof_is_for_the_method_and_the_url(issuer: Issuer, app: RecordingApp, method: str) -> None:
    protected, access = enabled(issuer, app), bound(issuer)
    for proof_method, url, path, status in (
        (method, R, "/mcp", 200),
        ("PUT", R, "/mcp", 401),
        (method, R + "/x", "/mcp", 401),
        (method, R, "/mcp/x", 401),
        (method, R + "/x", "/mcp/x", 200),
    ):
        answer = await call(protected, method, path, proven(issuer, access, proof_method, url))
        assert answer.status == status, (proof_method, url, path)


@pytest.mark.requirement("RS-134", "RS-8")
async def test_the_url_is_the_configured_one(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app), bound(issuer)
    behind: Any = {"host": "10.0.0.1:8000", "scheme": "http", "server": ("10.0.0.1", 8000), "query": b"a=b"}
    assert (await call(protected, headers=proven(issuer, access), **behind)).status == 200
    inner = proven(issuer, access, url="http://10.0.0.1:8000/mcp")
    assert (await call(protected, headers=inner, **behind)).status == 401


@pytest.mark.requirement("DP-9")
async def test_a_websocket_handshake_is_a_get_of_the_https_url(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app), bound(issuer)
    assert (await websocket(protected, headers=proven(issuer, access, "GET"))).accepted
    for fields in (
        proven(issuer, access, "POST"),
        proven(issuer, access, "GET", R.replace("https", "wss")),
        sent(access),
        bearer(access),
    ):
        denied = await websocket(protected, headers=fields)
        assert denied.denial is not None
        assert (denied.accepted, denied.denial.status) == (False, 401)


@pytest.mark.requirement("RS-137", "DP-4")
async def test_a_proof_is_used_once(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app), bound(issuer)
    fields = proven(issuer, access)
    assert (await call(protected, headers=fields)).status == 200
    again = await call(protected, headers=fields)
    assert challenges(again) == [CH0, dpop("invalid_dpop_proof", PROOF)]
    respelled = await call(protected, raw_path=b"/%6dcp", headers=fields)  # the same URL
    assert challenges(respelled) == [CH0, dpop("invalid_dpop_proof", PROOF)]
    assert (await call(protected, raw_path=b"/%6dcp", headers=proven(issuer, access))).status == 200
    other_url = proven(issuer, access, url=R + "/x", jti="same")
    assert (await call(protected, path="/mcp/x", headers=other_url)).status == 200
    assert (await call(protected, headers=proven(issuer, access, jti="same"))).status == 200
    key = SigningKey("ES256")
    others = bound(issuer, key)
    assert (await call(protected, headers=proven(issuer, others, key=key, jti="same"))).status == 200
    assert app.calls == 5


@pytest.mark.every_loop
@pytest.mark.requirement("DP-4", "RS-137")
async def test_two_workers_with_one_store_accept_a_proof_once(issuer: Issuer) -> None:
    store, apps = MemoryStore(), [RecordingApp(), RecordingApp()]
    workers = [enabled(issuer, app, store=store) for app in apps]
    access = bound(issuer)
    statuses: list[int] = []

    async def send(worker: Any, fields: Fields) -> None:
        statuses.append((await call(worker, headers=fields)).status)

    for number in range(10):
        fields = proven(issuer, access, jti=f"j{number}")
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(send, worker, fields)
    assert sorted(statuses) == [200] * 10 + [401] * 10
    assert sum(app.calls for app in apps) == 10


@pytest.mark.requirement("DP-4")
async def test_a_bad_proof_uses_up_no_identifier(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app), bound(issuer)
    bad: list[dict[str, Any]] = [{"iat": 0}, {"htm": "GET"}, {"ath": "x"}, {"key": SigningKey("ES256")}]
    for wrong in bad:
        assert (await call(protected, headers=proven(issuer, access, **({"jti": "j"} | wrong)))).status == 401
    forged = issuer.prove("POST", R, access, jti="j")
    forged = forged[:-6] + ("AAAAAA" if not forged.endswith("AAAAAA") else "BBBBBB")
    assert (await call(protected, headers=sent(access, forged))).status == 401
    assert (await call(protected, headers=proven(issuer, access, jti="j"))).status == 200


class TTLStore(MemoryStore):
    """A store that keeps the keys and times of what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[tuple[str, float]] = []

    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        self.added.append((key, ttl))
        return await super().add(key, value, ttl)


@pytest.mark.requirement("DP-4", "FS-3")
async def test_a_proof_is_remembered_as_long_as_it_would_be_accepted(issuer: Issuer, app: RecordingApp) -> None:
    store, access, now = TTLStore(), bound(issuer), int(issuer.clock())
    protected = enabled(issuer, app, store=store)
    for issued_at in (now - 300, now, now + 300):
        assert (await call(protected, headers=proven(issuer, access, iat=issued_at))).status == 200
    assert [ttl for _, ttl in store.added] == [10, 310, 610]
    assert all(key.startswith("replay:") and len(key) == len("replay:") + 64 for key, _ in store.added)


class BrokenStore(MemoryStore):
    async def add(self, key: str, value: bytes, ttl: float) -> bytes | None:
        msg = "the store is down"
        raise OSError(msg)


@pytest.mark.requirement("DP-5", "RS-137")
async def test_a_store_that_fails_is_a_503_or_ignored_where_configured(issuer: Issuer, app: RecordingApp) -> None:
    access = bound(issuer)
    for store in (BrokenStore(), MemoryStore(max_entries=1)):
        protected = enabled(issuer, app, store=store)
        await call(protected, headers=proven(issuer, access))
        answer = await call(protected, headers=proven(issuer, access))
        assert (answer.status, challenges(answer), answer.header("retry-after")) == (503, [], "1")
    accepting = enabled(issuer, app, store=BrokenStore(), dpop_settings=DPoPSettings(on_store_failure="accept"))
    assert (await call(accepting, headers=proven(issuer, access))).status == 200
    assert (await call(accepting, headers=sent(access))).status == 401


@pytest.mark.parametrize(
    ("room", "per_minute"),
    [
        pytest.param(1_000_000, 22_388, id="without a store, and with a store of unknown room"),
        pytest.param(100_000, 2_238, id="MemoryStore()"),
        pytest.param(1_000, 22, id="a small store"),
        pytest.param(1, 10, id="a store without room for anything: a client of ordinary speed is not limited"),
    ],
)
def test_the_limit_of_a_key_follows_from_the_room_for_records(room: int, per_minute: int) -> None:
    limits = KeyLimits(room)
    assert limits.per_minute == per_minute
    taken = sum(limits.of("a").take(0.0) == 0 for _ in range(per_minute + 3))
    assert (taken, limits.of("b").take(0.0)) == (per_minute, 0)


@pytest.mark.requirement("DP-5", "RS-137")
async def test_one_key_cannot_fill_the_store_for_others(issuer: Issuer, app: RecordingApp) -> None:
    clock, other, accepting = issuer.clock, SigningKey("ES256"), DPoPSettings(on_store_failure="accept")
    assert isinstance(clock, Clock)
    store = MemoryStore(max_entries=1000, clock=clock)
    protected, access = enabled(issuer, app, store=store, dpop_settings=accepting), bound(issuer, exp=clock() + 9000)
    others = bound(issuer, other, exp=clock() + 9000)
    recorded: list[float] = []
    while clock() < 1_800_000_000 + 700:  # longer than a record lasts
        answer = await call(protected, headers=proven(issuer, access, iat=int(clock()) + 300))
        if answer.status == 200:
            recorded.append(clock())
            continue
        assert (answer.status, challenges(answer)) == (503, [])
        assert answer.json() == {"error": "temporarily_unavailable"}
        assert 1 <= int(answer.header("retry-after") or 0) <= 3
        assert (await call(protected, headers=proven(issuer, others, key=other))).status == 200
        clock.now += 20
    most = max(sum(end - 610 < time <= end for time in recorded) for end in recorded)
    assert 200 <= most <= 250  # a quarter of the room
    clock.now += 3
    assert (await call(protected, headers=proven(issuer, access))).status == 200  # after Retry-After


@pytest.mark.requirement("DP-4")
async def test_the_limit_of_a_key_is_the_same_for_all_resources(issuer: Issuer, app: RecordingApp) -> None:
    options: dict[str, Any] = {"store": MemoryStore(max_entries=100), "http_client": issuer.http_client}
    protected = MCPAuth(resources(issuer, ["allowed", "required"]), clock=issuer.clock, **options).wrap(app)
    statuses: list[int] = []
    for number in range(12):
        url = f"https://mcp.example.com/{number % 2}"
        fields = proven(issuer, bound(issuer, aud=url), url=url)
        statuses.append((await call(protected, path=f"/{number % 2}", headers=fields)).status)
    assert statuses == [200] * 10 + [503] * 2


@pytest.mark.requirement("DP-4")
async def test_a_repeated_proof_does_not_use_up_the_limit_of_its_key(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app, store=MemoryStore(max_entries=100)), bound(issuer)
    fields = proven(issuer, access)
    assert (await call(protected, headers=fields)).status == 200
    for _ in range(30):  # a thief who has a copy of the request
        assert (await call(protected, headers=fields)).status == 401
    statuses = [(await call(protected, headers=proven(issuer, access))).status for _ in range(10)]
    assert statuses == [200] * 9 + [503]


NONCES: dict[str, Any] = {"dpop_settings": DPoPSettings(require_nonce=True), "shared_secret": SECRET}


@pytest.mark.requirement("RS-138", "DP-6", "RS-40")
async def test_the_literal_exchange_with_a_nonce(issuer: Issuer, app: RecordingApp) -> None:
    """Exchange 3 of the requirements."""
    protected, access = enabled(issuer, app, **NONCES), bound(issuer)
    answer = await call(protected, headers=proven(issuer, access))
    assert answer.status == 401
    assert challenges(answer) == [
        f'Bearer scope="mcp:read", resource_metadata="{PRM}"',
        (
            f'DPoP error="use_dpop_nonce", scope="mcp:read", algs="ES256", resource_metadata="{PRM}", '
            f'error_description="{NONCE}"'
        ),
    ]
    assert answer.json() == {"error": "use_dpop_nonce", "error_description": NONCE}
    nonce = answer.header("dpop-nonce")
    accepted = await call(protected, headers=proven(issuer, access, nonce=nonce))
    assert (accepted.status, accepted.header("dpop-nonce")) == (200, None)


@pytest.mark.requirement("DP-6", "RS-138")
async def test_nonces_of_all_workers_with_the_secret_are_accepted_for_two_slots(issuer: Issuer) -> None:
    clock: Any = issuer.clock
    clock.now = NONCE_SECONDS * 15_000_000
    here, there = (enabled(issuer, RecordingApp(), **NONCES) for _ in range(2))
    access = bound(issuer, exp=int(clock.now) + 3600)
    nonce = (await call(here, headers=proven(issuer, access))).header("dpop-nonce")
    assert (await call(there, headers=proven(issuer, access, nonce=nonce))).status == 200
    clock.now += NONCE_SECONDS - 1  # the end of its slot
    assert (await call(there, headers=proven(issuer, access, nonce=nonce))).header("dpop-nonce") is None
    clock.now += 1  # the next slot: accepted, with a fresh one for the next request
    answer = await call(there, headers=proven(issuer, access, nonce=nonce))
    fresh = answer.header("dpop-nonce")
    assert (answer.status, fresh != nonce) == (200, True)
    assert (await call(here, headers=proven(issuer, access, nonce=fresh))).status == 200
    clock.now += NONCE_SECONDS * 2
    refused = await call(there, headers=proven(issuer, access, nonce=nonce))
    assert (refused.status, challenges(refused)[1]) == (401, dpop("use_dpop_nonce", NONCE))
    assert refused.header("dpop-nonce") not in (nonce, fresh, None)


@pytest.mark.requirement("DP-6", "DP-9")
@pytest.mark.parametrize(
    ("answer", "type_"),
    [
        pytest.param([{"type": "websocket.accept"}], "websocket.accept", id="an accepted handshake"),
        pytest.param([{"type": "websocket.accept", "headers": None}], "websocket.accept", id="header fields of None"),
        pytest.param(
            [{"type": "websocket.accept", "subprotocol": "mcp", "headers": [(b"x-app", b"1")]}],
            "websocket.accept",
            id="with header fields of the app",
        ),
        pytest.param(
            [
                {"type": "websocket.http.response.start", "status": 404, "headers": [(b"x-app", b"1")]},
                {"type": "websocket.http.response.body", "body": b""},
            ],
            "websocket.http.response.start",
            id="a handshake that the app refuses",
        ),
    ],
)
async def test_the_answer_to_a_handshake_brings_the_next_nonce(
    issuer: Issuer, answer: list[dict[str, Any]], type_: str
) -> None:
    async def answering(_: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in answer:
            await send(message)

    clock: Any = issuer.clock
    clock.now = NONCE_SECONDS * 15_000_000
    protected = enabled(issuer, answering, **NONCES)
    access = bound(issuer, exp=int(clock.now) + 3600)
    refused = await websocket(protected, headers=proven(issuer, access, "GET"))
    assert refused.denial is not None
    nonce = refused.denial.header("dpop-nonce")
    for fresh in (False, True):
        handshake = await websocket(protected, headers=proven(issuer, access, "GET", nonce=nonce))
        first = next(message for message in handshake.sent if message["type"] == type_)
        names = [name for name, _ in first.get("headers") or ()]
        of_app = [name for name, _ in answer[0].get("headers") or ()]
        assert names == [*of_app, *([b"dpop-nonce"] if fresh else [])]
        assert {**first, "headers": None} == {**answer[0], "headers": None}
        clock.now += NONCE_SECONDS


@pytest.mark.requirement("DP-6")
@pytest.mark.parametrize("nonce", ["", "x", "\N{SNOWMAN}", "a" * 1000])
async def test_nonces_of_others_are_not_accepted(issuer: Issuer, app: RecordingApp, nonce: str) -> None:
    protected, access = enabled(issuer, app, **NONCES), bound(issuer)
    other = enabled(issuer, app, **(NONCES | {"shared_secret": SECRET[::-1]}))
    foreign = (await call(other, headers=proven(issuer, access))).header("dpop-nonce")
    elsewhere = enabled(issuer, app, resource="https://mcp.example.com/other", **NONCES)
    theirs = bound(issuer, aud="https://mcp.example.com/other")
    url = "https://mcp.example.com/other"
    neighbour = (await call(elsewhere, path="/other", headers=proven(issuer, theirs, url=url))).header("dpop-nonce")
    assert len({foreign, neighbour, None}) == 3
    for given in (nonce, foreign, neighbour):
        answer = await call(protected, headers=proven(issuer, access, nonce=given))
        error = ("invalid_dpop_proof", PROOF) if given == "" else ("use_dpop_nonce", NONCE)
        assert challenges(answer)[1] == dpop(*error)


@pytest.mark.requirement("DP-7")
@pytest.mark.parametrize("wrong", [{"iat": 0}, {"htm": "GET"}, {"ath": "x"}, {"jti": ...}, {"header": {"typ": "JWT"}}])
async def test_defects_are_reported_before_a_nonce_is_asked_for(
    issuer: Issuer, app: RecordingApp, wrong: dict[str, Any]
) -> None:
    protected, access = enabled(issuer, app, **NONCES), bound(issuer)
    answer = await call(protected, headers=proven(issuer, access, **wrong))
    assert (challenges(answer)[1], answer.header("dpop-nonce")) == (dpop("invalid_dpop_proof", PROOF), None)


@pytest.mark.requirement("DP-7", "DP-4")
async def test_a_proof_without_a_nonce_uses_up_no_identifier(issuer: Issuer, app: RecordingApp) -> None:
    protected, access = enabled(issuer, app, **NONCES), bound(issuer)
    nonce = (await call(protected, headers=proven(issuer, access, jti="j"))).header("dpop-nonce")
    assert (await call(protected, headers=proven(issuer, access, jti="j", nonce=nonce))).status == 200


@pytest.mark.requirement("DP-10")
async def test_a_proof_of_a_megabyte_is_refused(issuer: Issuer, app: RecordingApp) -> None:
    access = bound(issuer)
    answer = await call(enabled(issuer, app), headers=proven(issuer, access, filler="x" * 1_000_000))
    assert challenges(answer)[1] == dpop("invalid_dpop_proof", PROOF)


async def test_a_refusal_is_logged_with_its_reason_and_without_the_proof(
    issuer: Issuer, app: RecordingApp, caplog: pytest.LogCaptureFixture
) -> None:
    access = bound(issuer)
    fields = proven(issuer, access, htm="GET")
    with caplog.at_level("INFO"):
        await call(enabled(issuer, app), headers=fields)
    assert Reason.INVALID_DPOP_PROOF in caplog.text
    assert "htm GET" in caplog.text
    assert str(fields[1][1]) not in caplog.text


@pytest.mark.requirement("DP-2")
async def test_keys_that_are_unavailable_are_a_503(app: RecordingApp) -> None:
    issuer = Issuer(clock=Clock(), algorithms=("ES256",))
    issuer.cut()
    answer = await call(enabled(issuer, app), headers=proven(issuer, bound(issuer)))
    assert (answer.status, challenges(answer)) == (503, [])


@pytest.mark.requirement("IN-2")
@pytest.mark.parametrize("members", [{}, {"token_type": "DPoP"}, {"token_type": "dpop"}])
async def test_cnf_of_an_introspection_answer_is_honoured(
    issuer: Issuer, app: RecordingApp, members: dict[str, Any]
) -> None:
    opaque = Choose(opaque=Introspection(client_id="rs", client_secret="s" * 32))
    protected = enabled(issuer, app, verifier=opaque)
    cnf = {"jkt": issuer.proof_key.thumbprint}
    access = issuer.mint_opaque(R, scope="mcp:read", cnf=cnf, **members)
    assert (await call(protected, headers=bearer(access))).status == 401
    for _ in range(2):  # the second time from the cache
        assert (await call(protected, headers=proven(issuer, access))).status == 200
        assert (await call(protected, headers=sent(access))).status == 401
    free = issuer.mint_opaque(R, scope="mcp:read")
    assert challenges(await call(protected, headers=proven(issuer, free)))[1] == dpop("invalid_token", BINDING)
    loose = issuer.mint_opaque(R, scope="mcp:read", token_type="DPoP")
    assert (await call(protected, headers=bearer(loose))).status == 401
    assert (await call(protected, headers=proven(issuer, loose))).status == 401


@pytest.mark.requirement("IN-2")
async def test_cnf_of_an_answer_that_confirms_a_jwt_is_honoured(issuer: Issuer, app: RecordingApp) -> None:
    issuer.answer("/introspect", {"active": True, "cnf": {"jkt": issuer.proof_key.thumbprint}})
    always = Choose(opaque=Introspection(client_id="rs", client_secret="s" * 32, always=True))
    free, other = token(issuer), bound(issuer, SigningKey("ES256"))
    protected = enabled(issuer, app, verifier=always)
    for _ in range(2):  # the second time from the cache
        assert (await call(protected, headers=bearer(free))).status == 401
        assert (await call(protected, headers=proven(issuer, free))).status == 200
        assert (await call(protected, headers=proven(issuer, bound(issuer)))).status == 200
        assert (await call(protected, headers=proven(issuer, other))).status == 401
    without = protect(issuer, app, verifier=always)
    assert (await call(without, headers=bearer(free))).status == 401


async def test_the_hint_about_bearer_names_the_scheme_that_is_required(
    issuer: Issuer, app: RecordingApp, caplog: pytest.LogCaptureFixture
) -> None:
    await call(enabled(issuer, app, dpop="required"), headers=bearer(bound(issuer)))
    assert "the client must send 'Authorization: DPoP <token>' and a proof" in caplog.text
    assert "Authorization: Bearer" not in caplog.text


def resources(issuer: Issuer, modes: Iterable[str | None]) -> list[ResourceServerConfig]:
    return [
        ResourceServerConfig(
            metadata=ResourceServerMetadata(
                resource=f"https://mcp.example.com/{index}", authorization_servers=[issuer.url]
            ),
            dpop=mode,  # type: ignore[arg-type]
        )
        for index, mode in enumerate(modes)
    ]


@pytest.mark.requirement("RS-139")
async def test_each_resource_has_its_own_mode(issuer: Issuer, app: RecordingApp) -> None:
    configs = resources(issuer, [None, "off", "allowed"])
    auth = MCPAuth(configs, dpop="required", store=MemoryStore(), http_client=issuer.http_client, clock=issuer.clock)
    found = [
        [line.partition(" ")[0] for line in challenges(await call(auth.wrap(app), path=f"/{index}"))]
        for index in range(3)
    ]
    assert found == [["DPoP"], ["Bearer"], ["Bearer", "DPoP"]]


@pytest.mark.requirement("RS-136", "DP-1", "DP-6")
@pytest.mark.parametrize(
    ("options", "modes", "wrong"),
    [
        ({"dpop": "on"}, [None], ["dpop"]),
        ({}, ["on", None], ["protected_resources[0].dpop"]),
        ({"dpop": "allowed", "dpop_settings": {}}, [None], ["dpop_settings"]),
        ({"dpop_settings": DPoPSettings(algorithms=["HS256"])}, [None], ["dpop_settings.algorithms"]),
        ({"dpop_settings": DPoPSettings(algorithms=["none"])}, [None], ["dpop_settings.algorithms"]),
        ({"dpop_settings": DPoPSettings(algorithms=[])}, [None], ["dpop_settings.algorithms"]),
        ({"dpop_settings": DPoPSettings(window=301)}, [None], ["dpop_settings.window"]),
        ({"dpop_settings": DPoPSettings(window=0)}, [None], ["dpop_settings.window"]),
        ({"dpop_settings": DPoPSettings(require_nonce=True)}, ["allowed"], ["dpop_settings.require_nonce"]),
        ({"dpop_settings": DPoPSettings(on_store_failure="x")}, [None], ["dpop_settings.on_store_failure"]),  # type: ignore[arg-type]
        ({"shared_secret": "short"}, [None], ["shared_secret"]),
        ({"store": MemoryStore()}, [None, "off"], ["store"]),
    ],
)
def test_settings_that_cannot_be_used_are_reported(
    issuer: Issuer, options: dict[str, Any], modes: Sequence[str | None], wrong: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        MCPAuth(resources(issuer, modes), **options)
    assert [problem.where for problem in refused.value.problems] == wrong
    assert json.dumps(options.get("shared_secret", "-")) not in str(refused.value)


class OwnVerifier:
    """A verifier of opaque tokens, whose claims say what they are bound to."""

    def __init__(self, **claims: Any) -> None:
        self._claims = claims

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified:
        del credential, request
        return Verified(AuthInfo(issuer=ISS, subject="alice", scopes=["mcp:read"], claims=self._claims))


@pytest.mark.requirement("RS-85", "RS-131")
async def test_the_claim_cnf_of_a_verifier_of_the_users_own_decides(issuer: Issuer, app: RecordingApp) -> None:
    for cnf, under_bearer, under_dpop in (
        ({"jkt": issuer.proof_key.thumbprint}, 401, 200),
        ({"jkt": "x"}, 401, 401),
        ({"other": "x"}, 401, 401),
        (None, 200, 401),
    ):
        protected = enabled(issuer, app, verifier=OwnVerifier(cnf=cnf))
        assert (await call(protected, headers=bearer("opaque"))).status == under_bearer
        assert (await call(protected, headers=proven(issuer, "opaque"))).status == under_dpop


async def test_a_configuration_from_plain_values(issuer: Issuer, app: RecordingApp) -> None:
    settings = {
        "resource": R,
        "authorization_servers": [issuer.url],
        "dpop": "required",
        "dpop_settings": {"algorithms": ["ES256", "EdDSA"], "window": 60, "require_nonce": True},
        "shared_secret": SECRET,
    }
    auth = MCPAuth.from_mapping(settings, http_client=issuer.http_client, clock=issuer.clock)
    (challenge,) = challenges(await call(auth.wrap(app)))
    assert challenge == f'DPoP algs="ES256 EdDSA", resource_metadata="{PRM}"'


async def test_a_token_verifier_refuses_bound_tokens(issuer: Issuer, app: RecordingApp) -> None:
    verifier = enabled(issuer, app).auth.token_verifier()
    assert await verifier.verify_token(bound(issuer)) is None


@pytest.mark.requirement("RS-9", "RS-241")
async def test_a_fault_of_the_verification_is_a_503_and_is_logged_without_the_token(
    issuer: Issuer, app: RecordingApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    access = bound(issuer)

    def broken(*_: object) -> None:
        msg = f"no room for {access}"
        raise MemoryError(msg)

    monkeypatch.setattr("asgi_mcp_auth._verify.dpop.check_proof", broken)
    answer = await call(enabled(issuer, app), headers=proven(issuer, access))
    assert (answer.status, app.calls) == (503, 0)
    assert "The DPoP verification failed" in caplog.text
    assert access not in caplog.text


@pytest.mark.parametrize(
    ("mode", "prefix", "warned"), [("required", "pat_", True), ("required", None, False), ("allowed", "pat_", False)]
)
def test_keys_that_are_bearer_credentials_cannot_be_used_where_dpop_is_required(
    issuer: Issuer, tmp_path: Path, mode: str, prefix: str | None, warned: bool
) -> None:
    (tmp_path / "keys").touch(mode=0o600)
    keys = Choose(keys=ApiKeys(file=str(tmp_path / "keys"), prefix=prefix))
    protected = protect(issuer, RecordingApp(), dpop=mode, verifier=keys)
    assert any("bearer credentials" in warning for warning in protected.auth.warnings) is warned
