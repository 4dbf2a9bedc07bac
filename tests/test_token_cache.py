"""The token cache: bounded, never used for another token, resource, key or time, and never changed by an app."""

from __future__ import annotations

import base64
import json
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from harness import CH0, EXPIRED, INVALID, Answer, Clock, R, RecordingApp, bearer, call, chs, cht, protect, token
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_mcp_auth import AuthInfo, MCPAuth, ResourceServerConfig, ResourceServerMetadata, ScopePolicy
from asgi_mcp_auth._oauth.strict_json import load_object
from asgi_mcp_auth._verify.token_cache import Entry, TokenCache, estimate_size
from asgi_mcp_auth._verify.verifier import Verified
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

INFO = AuthInfo(issuer="i", subject="s")


async def ask(app: Any, raw: str, path: str = "/mcp") -> Answer:
    return await call(app, path=path, headers=bearer(raw))


def cache_of(protected: Any) -> Any:
    (resource,) = protected.auth.status().resources
    return resource.token_cache


# --- Bounded ---


@pytest.mark.requirement("RS-89")
async def test_a_flood_of_distinct_tokens_keeps_the_cache_within_its_size(issuer: Issuer) -> None:
    protected = protect(issuer, RecordingApp(), token_cache_size=50)
    mine = token(issuer, sub="mine")
    quick = issuer.keys[1]  # ES256, which signs faster
    for number in range(300):
        assert (await ask(protected, token(issuer, sub=f"u{number}", key=quick))).status == 200
        assert (await ask(protected, mine)).status == 200
    status = cache_of(protected)
    assert (status.entries, status.size, status.evictions) == (50, 50, 251)
    assert (status.hits, status.misses) == (299, 301)  # what is in use stays


@pytest.mark.requirement("RS-89")
async def test_large_tokens_are_evicted_at_the_memory_limit(issuer: Issuer) -> None:
    protected = protect(issuer, RecordingApp(), token_cache_bytes=100_000)
    for number in range(40):
        raw = token(issuer, sub=f"u{number}", key=issuer.keys[1], roles=[f"role-{n}" for n in range(200)])
        assert (await ask(protected, raw)).status == 200
        assert cache_of(protected).bytes <= 100_000
    status = cache_of(protected)
    assert 0 < status.entries < 5
    assert status.evictions == 40 - status.entries


@pytest.mark.requirement("RS-89")
async def test_a_token_larger_than_the_memory_limit_is_not_cached(issuer: Issuer) -> None:
    protected = protect(issuer, RecordingApp(), token_cache_bytes=2_000)
    for _ in range(3):
        assert (await ask(protected, token(issuer, note="x" * 2_000))).status == 200
    assert (cache_of(protected).entries, cache_of(protected).bytes) == (0, 0)


@pytest.mark.parametrize(
    ("size", "max_bytes"),
    [
        pytest.param(1_000, 1_000_000, id="RS-89 room for all"),
        pytest.param(20, 1_000_000, id="RS-89 bounded in number"),
        pytest.param(1_000, 3_000, id="RS-89 bounded in bytes"),
        pytest.param(1_000, 120, id="RS-89 room for hardly any"),
    ],
)
def test_the_counts_stay_correct_with_event_loops_in_several_threads(size: int, max_bytes: int) -> None:
    """The counts match the entries even if threads evict entries at the same time."""

    def still(generation: object, now: float) -> bool:
        return True

    keys: Any = SimpleNamespace(document=SimpleNamespace(value=None, state=None), usable=still)
    cache = TokenCache(size, max_bytes, lambda: 0.5)

    def use(_: int) -> None:
        for turn in range(250):
            for number in range(50):
                digest = bytes([number]) * 32
                cache.put(digest, Entry(Verified(INFO), 0.0, 1.0, keys, None, 100 + number))
                if turn % 3 == 0:
                    cache.get(digest)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(use, range(4)))
    finally:
        sys.setswitchinterval(interval)
    held: Any = cache
    assert cache.status() is not None
    assert held._bytes == sum(entry.weight for entry in held._entries.values()) <= max_bytes
    assert len(held._entries) <= size


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=10), inner, max_size=10),
    max_leaves=60,
)


def taken_by(payload: bytes) -> tuple[int, int]:
    """Return the bytes that a cached identity takes, and the estimate. Other threads can only add to a measurement."""
    return min(measure(payload) for _ in range(3))


def measure(payload: bytes) -> tuple[int, int]:
    """Return the bytes that Python has allocated for an identity, in blocks of 16 bytes, and the estimate."""
    tracemalloc.start()
    try:
        claims = load_object(payload)
        scopes = tuple(str(claims.get("scope", "")).split(" "))
        info = AuthInfo(
            issuer="i",
            subject="s",
            client_id=None,
            scopes=scopes,
            audience="a",
            resource="r",
            expires_at=1.5,
            claims=claims,
        )
        estimate = estimate_size(payload, claims, info)
        del claims  # the identity has its own
        kept: dict[bytes, object] = {b"x" * 32: (info, 1.0, 2.0, None, None, 1)}
        blocks = tracemalloc.take_snapshot().traces if kept else ()
    finally:
        tracemalloc.stop()
    return sum((block.size + 15) & ~15 for block in blocks), estimate


@pytest.mark.requirement("RS-89")
@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(max_size=10), JSON, max_size=12), st.booleans(), st.lists(st.just("a"), max_size=80))
def test_the_estimate_is_never_too_low(claims: dict[str, Any], ascii_only: bool, scopes: list[str]) -> None:
    """The memory bound holds for every content of a token."""
    text = json.dumps({**claims, "scope": " ".join(scopes)}, ensure_ascii=ascii_only, separators=(",", ":"))
    payload = text.encode("utf-8", "surrogatepass")
    try:
        load_object(payload)
    except ValueError:
        return
    taken, estimate = taken_by(payload)
    assert taken <= estimate


@pytest.mark.requirement("RS-89")
@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b'{"a":[' + b",".join([b"[]"] * 3000) + b"]}", id="empty lists"),
        pytest.param(b'{"a":[' + b",".join([b"{}"] * 3000) + b"]}", id="empty objects"),
        pytest.param(b'{"a":[' + b",".join([b'"\xc3\xa9x"'] * 3000) + b"]}", id="short texts"),
        pytest.param(b'{"a":[' + b",".join([b"1e9"] * 3000) + b"]}", id="floats"),
        pytest.param(b'{"a":[' + b",".join(b"%d" % n for n in range(3000)) + b"]}", id="integers"),
        pytest.param(b"{" + b",".join(b'"%x":0' % n for n in range(3000)) + b"}", id="members"),
        pytest.param(b'{"a":"' + "\U0001f512".encode() + b"x" * 9000 + b'"}', id="a wide text"),
        pytest.param(b'{"a":"\\ud83d\\udd12' + b"x" * 9000 + b'"}', id="a wide text in escapes"),
        pytest.param(b'{"scope":"' + b"ab " * 3000 + b'"}', id="scopes"),
        pytest.param(b'{"scope":"' + b"a" * 6000 + b" " + b"b" * 6000 + b'"}', id="long scopes"),
        pytest.param(b'{"scope":"' + b"a" * 6000 + b' b \xf0\x9f\x94\x92"}', id="a wide scope"),
        pytest.param(b"{" + b",".join(b'"%02x":"%02x"' % (n, n) for n in range(256)) + b"}", id="short members"),
        pytest.param(b'{"a":[' + b",".join(b'{"%x":"%x"}' % (n, n) for n in range(999)) + b"]}", id="objects"),
        pytest.param(b'{"a":[' + b",".join(b'["%x"]' % n for n in range(999)) + b"]}", id="lists"),
        pytest.param(b'{"a":' + b"[" * 25 + b"1" + b"]" * 25 + b"}", id="depth"),
        pytest.param(b'{"a":[' + b",".join([b'{"a":' * 29 + b"1" + b"}" * 29] * 50) + b"]}", id="depth of objects"),
    ],
)
def test_the_estimate_is_never_too_low_for_hostile_claims(payload: bytes) -> None:
    """The largest memory per byte of each kind of JSON value."""
    taken, estimate = taken_by(payload)
    assert taken <= estimate <= 180 * len(payload)


def test_the_estimate_of_an_ordinary_token_is_not_far_off() -> None:
    payload = json.dumps(Issuer().claims(R, scope="mcp:read"), separators=(",", ":")).encode()
    taken, estimate = taken_by(payload)
    assert taken <= estimate <= 3 * taken


@pytest.mark.requirement("RS-89")
async def test_the_estimate_covers_a_token_that_the_app_sees(issuer: Issuer) -> None:
    raw = token(issuer, note="x" * 2_000)
    weights: list[int] = []
    for expose_token in (False, True):
        protected = protect(issuer, RecordingApp(), expose_token=expose_token)
        assert (await ask(protected, raw)).status == 200
        weights.append(cache_of(protected).bytes)
    assert weights[1] - weights[0] >= len(raw)


# --- Never another token ---


@pytest.mark.requirement("RS-86", "RS-89")
async def test_a_token_that_differs_from_a_cached_token_is_verified(issuer: Issuer) -> None:
    protected = protect(issuer, RecordingApp())
    raw = token(issuer).encode()
    assert (await ask(protected, raw.decode())).status == 200
    for place in range(0, len(raw), 7):
        for bit in (0, 1, 5):
            near = bytearray(raw)
            near[place] ^= 1 << bit
            answer = await call(protected, headers=[("authorization", b"Bearer " + bytes(near))])
            assert answer.status in (400, 401, 503), (place, bit)
    for spelled in (raw + b"=", raw[:-1], raw + b"A", raw.swapcase(), raw + b".", raw.replace(b".", b"..", 1)):
        assert (await call(protected, headers=[("authorization", b"Bearer " + spelled)])).status in (400, 401, 503)
    assert (await ask(protected, raw.decode())).status == 200


@pytest.mark.requirement("RS-89")
async def test_another_signature_over_the_same_claims_is_verified(issuer: Issuer) -> None:
    """The ECDSA signature (r, -s) is valid too: it makes another token, which is verified separately."""
    protected = protect(issuer, RecordingApp())
    raw = token(issuer, key=issuer.keys[1])
    assert (await ask(protected, raw)).status == 200
    signing_input, _, encoded = raw.rpartition(".")
    signature = base64.urlsafe_b64decode(encoded + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = signature[:32] + (order - int.from_bytes(signature[32:])).to_bytes(32)
    spelled = f"{signing_input}.{base64.urlsafe_b64encode(twin).rstrip(b'=').decode()}"
    before = cache_of(protected).misses
    assert (await ask(protected, spelled)).status == 200
    assert cache_of(protected).misses == before + 1


@pytest.mark.requirement("RS-77", "RS-89")
async def test_cached_tokens_of_a_removed_key_are_rejected(issuer: Issuer, clock: Clock) -> None:
    protected = protect(issuer, RecordingApp())
    kept = [token(issuer, sub=f"u{n}", exp=int(clock.now) + 7200) for n in range(3)]
    for raw in kept:
        assert (await ask(protected, raw)).status == 200
    issuer.keys = [SigningKey("ES256")]
    clock.now += 90  # 30 s past the lifetime of the key set: the next request refreshes it in the background
    assert (await ask(protected, kept[0])).status == 200
    assert await protected.auth.warm_up() == ()
    for raw in kept:
        assert (await ask(protected, raw)).status == 401
    assert cache_of(protected).entries == 0


@pytest.mark.requirement("RS-104")
async def test_two_resources_have_separate_caches(issuer: Issuer) -> None:
    resources = ["https://mcp.example.com/a/mcp", "https://mcp.example.com/b/mcp"]
    auth = MCPAuth(
        [
            ResourceServerConfig(metadata=ResourceServerMetadata(resource=one, authorization_servers=[issuer.url]))
            for one in resources
        ],
        http_client=issuer.http_client,
        clock=issuer.clock,
    )
    protected = auth.wrap(RecordingApp())
    for_a, for_both = issuer.mint(resources[0]), issuer.mint(resources)
    for _ in range(2):
        found = [(await ask(protected, raw, path)).status for raw in (for_a, for_both) for path in ("/a/mcp", "/b/mcp")]
        assert found == [200, 401, 200, 200]
    assert [one.token_cache and one.token_cache.entries for one in auth.status().resources] == [2, 1]


@pytest.mark.parametrize(
    ("offset", "changes", "expected"),
    [
        pytest.param(0, {}, (200, None), id="RS-89 at once"),
        pytest.param(329, {}, (200, None), id="RS-81 RS-89 the leeway"),
        pytest.param(330, {}, (401, cht(EXPIRED)), id="RS-81 RS-89 past it"),
        pytest.param(-31, {}, (401, cht(INVALID)), id="RS-82 RS-89 before iat"),
        pytest.param(-31, {"iat": ..., "nbf": 1_800_000_000}, (401, cht(INVALID)), id="RS-82 RS-89 before nbf"),
        pytest.param(-1_000_000, {"iat": ...}, (200, None), id="RS-89 neither"),
    ],
)
async def test_the_clock_is_read_for_every_request(
    issuer: Issuer, clock: Clock, offset: float, changes: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    protected = protect(issuer, RecordingApp(), clock=clock, authorization_servers=[_with_static_keys(issuer)])
    raw = token(issuer, **changes)
    assert (await ask(protected, raw)).status == 200
    clock.now += offset
    answer = await ask(protected, raw)
    assert (answer.status, answer.challenge) == expected
    clock.now -= offset
    assert (await ask(protected, raw)).status == 200


def _with_static_keys(issuer: Issuer) -> Any:
    from asgi_mcp_auth import AuthServerConfig

    return AuthServerConfig(issuer=issuer.url, jwks=issuer.jwks())


# --- What is not cached ---


@pytest.mark.requirement("RS-110")
async def test_required_scopes_are_checked_for_cached_tokens(issuer: Issuer) -> None:
    metadata = ResourceServerMetadata(resource=R, authorization_servers=[issuer.url])
    policy = ScopePolicy(default=["mcp:read"], paths={"/mcp/admin": ["admin"]})
    auth = MCPAuth(
        ResourceServerConfig(metadata=metadata, policy=policy), http_client=issuer.http_client, clock=issuer.clock
    )
    protected = auth.wrap(RecordingApp())
    raw = token(issuer)
    for _ in range(2):
        assert (await ask(protected, raw)).status == 200
        refused = await ask(protected, raw, "/mcp/admin")
        assert (refused.status, refused.challenge) == (403, chs("mcp:read admin"))
    assert (await call(protected)).challenge == CH0


@pytest.mark.requirement("RS-88")
async def test_the_revocation_hook_is_called_for_cached_tokens(issuer: Issuer) -> None:
    asked: list[str] = []

    def is_revoked(info: Any) -> bool:
        asked.append(info.subject)
        return len(asked) > 2

    protected = protect(issuer, RecordingApp(), is_revoked=is_revoked)
    raw = token(issuer)
    assert [(await ask(protected, raw)).status for _ in range(4)] == [200, 200, 401, 401]
    assert asked == ["alice"] * 4


# --- What is handed out ---


def vandalise(scope: Any) -> list[str]:
    """Try to change every value of the caller that a handler can reach; return what could be changed."""
    done: list[str] = []
    scope["auth"].scopes.append("admin")
    info = scope["state"]["mcp_auth"]
    for target, name in [
        *((info, name) for name in ("issuer", "subject", "client_id", "scopes", "resource", "expires_at", "token")),
        *((info.principal, name) for name in ("issuer", "subject", "client_id")),
        *((scope["auth"], name) for name in ("scopes", "_granted")),
        *((scope["user"], name) for name in ("auth_info", "display_name")),
    ]:
        try:
            setattr(target, name, "mallory")
        except AttributeError:
            continue
        done.append(name)
    handed = [scope["state"]["claims"], info.claims]
    access_token = getattr(scope["user"], "access_token", None)  # the SDK's own, which can be changed
    if access_token is not None:
        handed.append(access_token.claims)
        access_token.subject = access_token.client_id = "mallory"
        access_token.scopes.append("admin")
    for claims in handed:
        deep = claims["deep"]
        deep["list"].append("mallory")
        deep["object"]["sub"] = "mallory"
        claims["sub"] = claims["scope"] = "mallory"
        claims.pop("aud", None)
    scope["headers"].append((b"x-evil", b"1"))
    scope["state"].clear()
    scope["user"] = scope["auth"] = None
    return done


@pytest.mark.requirement("RS-89", "RS-215")
async def test_nothing_that_a_handler_changes_is_seen_by_another_request(issuer: Issuer) -> None:
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        info, user = scope["state"]["mcp_auth"], scope["user"]
        found.append(
            (
                json.dumps(scope["state"]["claims"], sort_keys=True),
                json.dumps(info.claims, sort_keys=True),
                (info.issuer, info.subject, info.client_id, info.scopes, info.audience, info.resource, info.expires_at),
                (info.principal.key, user.display_name, user.identity, user.auth_info.subject),
                scope["auth"].scopes,
                scope["headers"],
            )
        )
        found[-1] = json.loads(json.dumps(found[-1], default=repr))
        vandalise(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    protected = protect(issuer, app)
    raw = token(issuer, deep={"list": [1, [2]], "object": {"sub": "x"}})
    for _ in range(4):
        assert (await ask(protected, raw)).status == 200
    assert found == [found[0]] * 4
    assert "mallory" not in json.dumps(found)
    assert cache_of(protected).hits == 3
