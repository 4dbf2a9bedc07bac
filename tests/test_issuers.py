"""Which issuers are trusted beside those that are named: patterns, tenants, resolvers; and that they share nothing."""

from __future__ import annotations

import base64
import gc
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.lowlevel
import httpx
import pytest
from harness import ISS, PRM_PATH, Answer, Clock, R, RecordingApp, bearer, call, protect, token
from hypothesis import given
from hypothesis import strategies as st
from internet import Internet

from asgi_mcp_auth import (
    AuthorizationServerMetadata,
    AuthServerConfig,
    ConfigurationError,
    Decision,
    MCPAuthMiddleware,
)
from asgi_mcp_auth._keys import registry as issuers_module
from asgi_mcp_auth._oauth.http_cache import TokenBucket
from asgi_mcp_auth._policy.issuers import compile_pattern, may_be_issuer
from asgi_mcp_auth._policy.problems import Problems
from asgi_mcp_auth.testing import Issuer, SigningKey

ACME = "https://acme.id.example.com"
PATTERN = "https://*.id.example.com"
TEMPLATE = "https://login.example.com/{tenantid}/v2.0"
META = "https://login.example.com/common/meta.json"
KEYS = "https://login.example.com/common/keys"


@pytest.fixture
def internet(issuer: Issuer) -> Internet:
    return Internet(issuer)


class Seen(list[Decision]):
    """Every decision; the last one's outcome in short."""

    @property
    def last(self) -> tuple[int | None, str | None]:
        return self[-1].status, self[-1].reason


def guard(internet: Internet, *servers: Any, **options: Any) -> tuple[MCPAuthMiddleware, Seen]:
    """The middleware with the issuer ISS and others."""
    seen = Seen()
    issuer = internet.hosts["auth.example.com"]
    settings: dict[str, Any] = {
        "authorization_servers": [ISS, *servers],
        "http_client": internet.client,
        "on_decision": [seen.append],
    }
    return protect(issuer, RecordingApp(), **(settings | options)), seen


async def ask(guarded: Any, raw: str) -> Answer:
    return await call(guarded, headers=bearer(raw))


async def outcome(guarded: Any, seen: Seen, raw: str) -> tuple[int, str | None]:
    status = (await ask(guarded, raw)).status
    return status, None if status == 200 else seen[-1].reason


# --- Patterns ---

PATH_PATTERN = "https://id.example.com/*/oauth"


def compiled(pattern: Any) -> tuple[Any, list[str]]:
    problems = Problems()
    return compile_pattern(pattern, "here", problems), [problem.where for problem in problems.found]


@pytest.mark.parametrize(
    ("pattern", "issuer", "matches"),
    [
        pytest.param(PATTERN, ACME, True, id="one label"),
        pytest.param(PATTERN, "https://a-1.id.example.com", True, id="a hyphen and a digit"),
        pytest.param(PATTERN, "https://xn--bcher-kva.id.example.com", True, id="punycode"),
        pytest.param(PATTERN, f"https://{'a' * 63}.id.example.com", True, id="63 characters"),
        pytest.param(PATTERN, f"https://{'a' * 64}.id.example.com", False, id="64 characters"),
        pytest.param(PATTERN, "https://a.b.id.example.com", False, id="two labels"),
        pytest.param(PATTERN, "https://.id.example.com", False, id="an empty label"),
        pytest.param(PATTERN, "https://id.example.com", False, id="no label"),
        pytest.param(PATTERN, "https://*.id.example.com", False, id="the star itself"),
        pytest.param(PATTERN, "https://-a.id.example.com", False, id="a hyphen in front"),
        pytest.param(PATTERN, "https://a-.id.example.com", False, id="a hyphen at the end"),
        pytest.param(PATTERN, "https://a_b.id.example.com", False, id="an underscore"),
        pytest.param(PATTERN, "https://acme.id.example.com.evil.example", False, id="a longer host"),
        pytest.param(PATTERN, "https://acme.id.example.com.", False, id="a dot at the end"),
        pytest.param(PATTERN, "https://acme.idxexample.com", False, id="another character for a dot"),
        pytest.param(PATTERN, "https://evil.example/.id.example.com", False, id="in the path"),
        pytest.param(PATTERN, "https://evil.example/acme.id.example.com", False, id="whole in the path"),
        pytest.param(PATTERN, "https://evil.example?.id.example.com", False, id="in the query"),
        pytest.param(PATTERN, "https://evil.example#.id.example.com", False, id="in the fragment"),
        pytest.param(PATTERN, "https://evil.example\\.id.example.com", False, id="a backslash"),
        pytest.param(PATTERN, "https://acme@id.example.com", False, id="user information"),
        pytest.param(PATTERN, "https://evil@acme.id.example.com", False, id="user information in front"),
        pytest.param(PATTERN, "https://acme.id.example.com@evil.example", False, id="as user information"),
        pytest.param(PATTERN, "https://acme.id.example.com:8443", False, id="another port"),
        pytest.param(PATTERN, "https://acme.id.example.com:443", False, id="the default port, written"),
        pytest.param(PATTERN, "https://ACME.id.example.com", False, id="upper case in the label"),
        pytest.param(PATTERN, "https://acme.ID.example.com", False, id="upper case elsewhere"),
        pytest.param(PATTERN, "HTTPS://acme.id.example.com", False, id="upper case in the scheme"),
        pytest.param(PATTERN, "http://acme.id.example.com", False, id="http"),
        pytest.param(PATTERN, "https://acme.id.example.com/", False, id="a slash at the end"),
        pytest.param(PATTERN, "https://acme.id.example.com/x", False, id="a path"),
        pytest.param(PATTERN, "https://%61cme.id.example.com", False, id="percent-encoded"),
        pytest.param(PATTERN, "https://acme.id.example.com\n", False, id="a newline at the end"),
        pytest.param(PATTERN, "https://evil.example\n.id.example.com", False, id="a newline within"),
        pytest.param(PATTERN, " https://acme.id.example.com", False, id="a space in front"),
        pytest.param(PATTERN, "https://\u00e4cme.id.example.com", False, id="not ASCII"),
        pytest.param(PATTERN, "https://acme\u3002id.example.com", False, id="another dot of Unicode"),
        pytest.param(PATTERN, "https://\uff41cme.id.example.com", False, id="a full-width letter"),
        pytest.param(PATTERN, "https://\u0661.id.example.com", False, id="a digit of another script"),
        pytest.param("https://*.*.example.com", "https://a.b.example.com", True, id="two stars"),
        pytest.param("https://*.*.example.com", "https://a.example.com", False, id="two stars, one label"),
        pytest.param(f"{PATTERN}:8443", "https://acme.id.example.com:8443", True, id="a port in the pattern"),
        pytest.param(f"{PATTERN}:8443", ACME, False, id="a port in the pattern only"),
        pytest.param(f"{PATTERN}/", f"{ACME}/", True, id="a slash at the end of both"),
        pytest.param(PATH_PATTERN, "https://id.example.com/acme/oauth", True, id="one segment"),
        pytest.param(PATH_PATTERN, "https://id.example.com/A.c_m~e-1/oauth", True, id="every unreserved character"),
        pytest.param(PATH_PATTERN, "https://id.example.com/a/b/oauth", False, id="two segments"),
        pytest.param(PATH_PATTERN, "https://id.example.com//oauth", False, id="an empty segment"),
        pytest.param(PATH_PATTERN, "https://id.example.com/../oauth", False, id="dot dot"),
        pytest.param(PATH_PATTERN, "https://id.example.com/./oauth", False, id="dot"),
        pytest.param(PATH_PATTERN, "https://id.example.com/.well-known/oauth", False, id="well-known"),
        pytest.param(PATH_PATTERN, "https://id.example.com/%2e%2e/oauth", False, id="dot dot, encoded"),
        pytest.param(PATH_PATTERN, "https://id.example.com/a%2Fb/oauth", False, id="a slash, encoded"),
        pytest.param(PATH_PATTERN, "https://id.example.com/a;b/oauth", False, id="a parameter"),
        pytest.param(PATH_PATTERN, "https://id.example.com/acme/oauth/", False, id="a longer path"),
        pytest.param(PATH_PATTERN, "https://id.example.com/acme/OAUTH", False, id="another case in the path"),
        pytest.param(PATH_PATTERN, f"https://id.example.com/{'a' * 129}/oauth", False, id="a long segment"),
        pytest.param(PATH_PATTERN, "https://evil.example/acme/oauth", False, id="another host"),
    ],
)
def test_what_a_pattern_matches(pattern: str, issuer: str, matches: bool) -> None:
    guarded = MCPAuthMiddleware(
        RecordingApp(), resource=R, authorization_servers=[ISS, AuthServerConfig(issuer_pattern=pattern)]
    )
    others = guarded.auth._protection.config.resources[0].trust.others
    assert others is not None
    found = others.match(issuer)
    assert (None if found is None else found.rules.issuer) == (issuer if matches else None)
    assert not matches or may_be_issuer(issuer)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        pytest.param("https://id.example.com", "is no pattern", id="without a star"),
        pytest.param("", "is no pattern", id="empty"),
        pytest.param(5, "is no pattern", id="a number"),
        pytest.param(["https://*.example.com"], "is no pattern", id="a list"),
        pytest.param("http://*.id.example.com", "not an https URL", id="http"),
        pytest.param("*.id.example.com", "not an https URL", id="no scheme"),
        pytest.param("*://id.example.com", "not an https URL", id="the scheme"),
        pytest.param("https://*.id.example.com?x", "not an https URL", id="a query"),
        pytest.param("https://id.example.com/*#x", "not an https URL", id="a fragment"),
        pytest.param("https://id.example.com:*/x", "not an https URL", id="the port"),
        pytest.param("https://me@*.example.com", "not an https URL", id="user information"),
        pytest.param("https://a*.example.com", "only part", id="a part of a label"),
        pytest.param("https://**.example.com", "only part", id="two stars for a label"),
        pytest.param("https://id.example.com/a-*", "only part", id="a part of a segment"),
        pytest.param("https://*", "everyone who can register", id="any host"),
        pytest.param("https://*.com", "everyone who can register", id="any domain of a top level"),
        pytest.param("https://*.*.com", "everyone who can register", id="any host of a top level"),
        pytest.param("https://id.*.com", "everyone who can register", id="a star for the domain"),
        pytest.param("https://example.*", "everyone who can register", id="a star for the top level"),
    ],
)
def test_patterns_that_are_refused(pattern: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        MCPAuthMiddleware(
            RecordingApp(), resource=R, authorization_servers=[ISS, AuthServerConfig(issuer_pattern=pattern)]
        )
    assert [problem.where.endswith("[1].issuer_pattern") for problem in caught.value.problems] == [True]


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param({"issuer": ACME}, id="an issuer"),
        pytest.param({"jwks_uri": f"{ACME}/jwks"}, id="a jwks_uri"),
        pytest.param({"jwks": {"keys": []}}, id="keys"),
        pytest.param({"metadata_url": f"{ACME}/meta.json"}, id="a metadata_url"),
        pytest.param({"metadata": AuthorizationServerMetadata(issuer=ACME)}, id="metadata"),
        pytest.param({"tenants": ["a"]}, id="tenants"),
    ],
)
def test_a_pattern_stands_alone(beside: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="is set together with") as caught:
        MCPAuthMiddleware(
            RecordingApp(),
            resource=R,
            authorization_servers=[ISS, AuthServerConfig(issuer_pattern=PATTERN, **beside)],
        )
    assert next(iter(beside)) in str(caught.value)


def test_everything_else_of_a_pattern_is_checked_as_an_issuers() -> None:
    wrong = AuthServerConfig(issuer_pattern=PATTERN, leeway=900, algorithms=["HS256"])
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[ISS, wrong])
    assert sorted(problem.where.rsplit(".", 1)[1] for problem in caught.value.problems) == ["algorithms", "leeway"]


CHUNKS = (*"aZ09.-_~:/@#?%\\\n *[];", "id.example.com", "https://", "evil.example", "..", "%2e", "\u3002", "\u00e4")
soup = st.lists(st.sampled_from(CHUNKS), max_size=12).map("".join)


@given(st.one_of(soup, st.text(), st.none(), st.integers(), st.lists(st.text())))
def test_no_pattern_breaks_the_compiler(pattern: Any) -> None:
    expression, problems = compiled(pattern)
    assert (expression is None) is bool(problems)


@given(soup, soup)
def test_a_match_never_leaves_the_domain(before: str, after: str) -> None:
    for pattern in (PATTERN, "https://*.*.example.com", PATH_PATTERN):
        expression, _ = compiled(pattern)
        for issuer in (f"https://{before}.id.example.com{after}", f"https://id.example.com{before}/oauth", before):
            if expression.fullmatch(issuer) is not None:
                parts = urlsplit(issuer)
                assert (parts.hostname or "").endswith("example.com")
                assert (parts.scheme, parts.username, parts.port) == ("https", None, None)
                assert len((parts.hostname or "").split(".")) == len(urlsplit(pattern).netloc.split("."))
                assert may_be_issuer(issuer)


@given(st.one_of(soup, st.text(), st.none(), st.integers(), st.lists(st.text()), st.dictionaries(st.text(), st.text())))
def test_anything_may_be_claimed(claimed: Any) -> None:
    if may_be_issuer(claimed):
        assert isinstance(claimed, str)
        assert len(claimed) <= 512
        assert not set(claimed) & set("?#@ \n\\")


# --- Patterns, end to end ---

pytestmark = pytest.mark.anyio


async def test_issuers_that_match_are_trusted(
    issuer: Issuer, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    acme, other = internet.add(ACME, issuer), internet.add("https://other.id.example.com", issuer)
    stranger = internet.add("https://id.example.net", issuer)
    guarded, seen = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))
    assert await outcome(guarded, seen, token(acme)) == (200, None)
    assert await outcome(guarded, seen, token(other)) == (200, None)
    assert await outcome(guarded, seen, token(issuer)) == (200, None)
    assert await outcome(guarded, seen, token(stranger)) == (401, "unknown_issuer")
    # The key of one issuer verifies no token of another, after any number of fetches.
    assert await outcome(guarded, seen, token(other, iss=ACME)) == (401, "unknown_kid")
    forged = token(other, iss=ACME, header={"kid": acme.keys[0].kid})
    assert await outcome(guarded, seen, forged) == (401, "bad_signature")
    assert "id.example.net" not in internet.hosts_asked()
    admitted = [
        vars(record)["issuer"] for record in caplog.records if getattr(record, "event", "") == "issuer_admitted"
    ]
    assert admitted == [ACME, "https://other.id.example.com"]


async def test_the_first_pattern_that_matches_gives_the_rules(issuer: Issuer, internet: Internet) -> None:
    acme = internet.add(ACME, issuer)
    other = internet.add("https://other.id.example.com", issuer)
    guarded, seen = guard(
        internet,
        AuthServerConfig(issuer_pattern=PATTERN, allowed_clients=["c2"]),
        AuthServerConfig(issuer_pattern="https://*.*.example.com"),
        AuthServerConfig(issuer=other.url),
    )
    assert await outcome(guarded, seen, token(acme)) == (401, "client_not_allowed")
    assert await outcome(guarded, seen, token(acme, client_id="c2")) == (200, None)
    assert await outcome(guarded, seen, token(other)) == (200, None), "a named issuer has its own rules"


def unsigned(issuer: Issuer, iss: str) -> str:
    """A token that names any issuer, with a signature of zeros: cheap to make, as for an attacker."""
    parts = ({"alg": "Ed25519", "typ": "at+jwt", "kid": "k"}, issuer.claims(R, scope="mcp:read") | {"iss": iss})
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    return ".".join([*encoded, "A" * 86])


async def run_other_tasks() -> None:
    """Let fetches end: refused requests never wait, and `wait_all_tasks_blocked` takes 0.1 s on asyncio."""
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


class Crowd:
    """Tokens of issuers that match the pattern and do not exist, a new issuer each time."""

    def __init__(self, issuer: Issuer) -> None:
        header, payload, self._signature = unsigned(issuer, "https://0000000000.id.example.com").split(".")
        self._header, self._claims = header, base64.urlsafe_b64decode(payload + "==")
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        claims = self._claims.replace(b"//0000000000.", b"//%010d." % self._count)
        return f"{self._header}.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.{self._signature}"


async def test_new_issuers_share_a_budget_of_fetches(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    several = [internet.add(f"https://c{n}.id.example.com", issuer) for n in range(5)]
    # An issuer without a path takes up to three fetches: two discovery URLs, and its keys.
    guarded, seen = guard(internet, AuthServerConfig(issuer_pattern=PATTERN), unproven_fetches_per_minute=6)
    tokens = [token(one, exp=int(clock.now) + 3600) for one in several]
    assert [(await ask(guarded, raw)).status for raw in tokens] == [200, 200, 503, 503, 503]
    assert seen.last == (503, "keys_unavailable")
    assert (await ask(guarded, tokens[2])).header("retry-after") == "30"
    assert internet.hosts_asked() == {"c0.id.example.com", "c1.id.example.com"}
    assert (await ask(guarded, token(several[0]))).status == 200, "a proven issuer needs no budget"
    clock.now += 29
    assert (await ask(guarded, tokens[2])).header("retry-after") == "1"
    for served in (3, 4, 5):
        clock.now += 30
        statuses = Counter([(await ask(guarded, raw)).status for raw in (*tokens, *tokens)])
        assert set(statuses) <= {200, 503}
        assert len(internet.hosts_asked()) == served
    assert [(await ask(guarded, raw)).status for raw in tokens] == [200] * 5


async def test_no_more_than_a_minutes_budget_is_saved(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN), unproven_fetches_per_minute=6)
    clock.now += 3600
    several = [internet.add(f"https://c{n}.id.example.com", issuer) for n in range(3)]
    assert [(await ask(guarded, token(one))).status for one in several] == [200, 200, 503]


@pytest.mark.every_loop
async def test_an_issuer_enters_the_pool_once_its_keys_were_fetched(
    issuer: Issuer, internet: Internet, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    guarded, seen = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))
    raw = unsigned(issuer, ACME)
    assert await outcome(guarded, seen, raw) == (503, "keys_unavailable")
    assert "no such host" in seen[-1].refusal.found  # type: ignore[union-attr, operator]
    pool = guarded.auth.status().resources[0].pool
    assert pool is not None
    assert pool.entries == 0
    assert [status.issuer for status in guarded.auth.status().issuers] == [ISS]
    assert not [record for record in caplog.records if hasattr(record, "event")]
    acme = internet.add(ACME, issuer)
    clock.now += 2
    assert await outcome(guarded, seen, token(acme)) == (200, None)
    pool = guarded.auth.status().resources[0].pool
    assert pool is not None
    assert pool.entries == 1
    assert [status.issuer for status in guarded.auth.status().issuers] == [ACME, ISS]


async def test_a_failed_issuer_is_tried_again_after_its_back_off(
    issuer: Issuer, internet: Internet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._keys.probation.random.random", lambda: 0.0)
    guarded, seen = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))
    raw = unsigned(issuer, ACME)
    start = clock.now
    for step in range(4 * 90):
        clock.now = start + step / 4
        before = len(internet.asked)
        assert await outcome(guarded, seen, raw) == (503, "keys_unavailable")
        tried = len(internet.asked) - before
        assert tried == (2 if step / 4 in (0, 1, 3, 7, 15, 31, 61) else 0), step / 4
        assert int((await ask(guarded, raw)).header("retry-after") or 0) in range(1, 31)


@pytest.mark.every_loop
async def test_concurrent_first_requests_of_an_issuer_share_one_fetch(issuer: Issuer, internet: Internet) -> None:
    acme = internet.add(ACME, issuer)
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))
    statuses: list[int] = []

    async def one(n: int) -> None:
        statuses.append((await ask(guarded, token(acme, sub=f"u{n}"))).status)

    async with anyio.create_task_group() as group:
        for n in range(100):
            group.start_soon(one, n)
    assert statuses == [200] * 100
    assert internet.asked == [f"{ACME}/.well-known/oauth-authorization-server", f"{ACME}/jwks"]


@pytest.mark.full
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_junk_issuers_take_nothing_from_issuers_that_were_served(
    issuer: Issuer, internet: Internet, clock: Clock
) -> None:
    tenants = [internet.add(f"https://c{n}.id.example.com", issuer) for n in range(15)]
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN), token_cache_size=0)
    tokens = [token(one, exp=int(clock.now) + 3600) for one in tenants]
    assert [(await ask(guarded, raw)).status for raw in tokens] == [200] * 15
    internet.asked.clear()
    crowd, tenant_statuses, junk_statuses = Crowd(issuer), Counter[int](), Counter[int]()
    for second in range(600):
        clock.now += 1
        for _ in range(50):
            junk_statuses[(await ask(guarded, crowd())).status] += 1
        tenant_statuses[(await ask(guarded, tokens[second % 15])).status] += 1
        await run_other_tasks()
    assert tenant_statuses == {200: 600}
    assert junk_statuses == {503: 30_000}
    junk_fetches = [url for url in internet.asked if "//00" in url]
    assert 300 <= len(junk_fetches) <= 60 * 10
    probation = guarded.auth._protection.key_sets._probation  # pyright: ignore[reportPrivateUsage]
    assert len(probation._waiting) <= 64  # pyright: ignore[reportPrivateUsage]
    assert len(probation._failed) <= 1000  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_new_issuer_is_picked_at_random_among_junk(
    issuer: Issuer, internet: Internet, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = random.Random(5)
    monkeypatch.setattr("asgi_mcp_auth._keys.probation.secrets.choice", dice.choice)
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))
    acme, crowd = internet.add(ACME, issuer), Crowd(issuer)
    raw = token(acme, exp=int(clock.now) + 7200)
    for _ in range(100):  # uses up the budget
        await ask(guarded, crowd())
    for _ in range(1800):
        clock.now += 1
        await run_other_tasks()
        for _ in range(5):
            assert (await ask(guarded, crowd())).status == 503
        answer = await ask(guarded, raw)
        if answer.status == 200:
            break
        assert (answer.status, int(answer.header("retry-after") or 0) > 0) == (503, True)
    else:
        pytest.fail("never picked")


class Crowded(Internet):
    """Hosts that answer after a moment, with a count of the requests that are under way."""

    def __init__(self, *issuers: Issuer) -> None:
        super().__init__(*issuers)
        self.under_way: Counter[bool] = Counter()
        self.most: Counter[bool] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        junk = "junk" in request.url.host
        self.under_way[junk] += 1
        self.most[junk] = max(self.most[junk], self.under_way[junk])
        self.most[True] = max(self.most[True], self.under_way[True])
        try:
            await anyio.sleep(0.02)
            return await super().handle_async_request(request)
        finally:
            self.under_way[junk] -= 1


@pytest.mark.every_loop
async def test_sixteen_fetches_run_at_the_same_time(issuer: Issuer) -> None:
    internet = Crowded(issuer)
    several = [internet.add(f"https://c{n}.example.net", issuer) for n in range(40)]
    guarded, _ = guard(internet, *[one.url for one in several])
    statuses: list[int] = []

    async def one(raw: str) -> None:
        statuses.append((await ask(guarded, raw)).status)

    async with anyio.create_task_group() as group:
        for each in several:
            group.start_soon(one, token(each))
    assert statuses == [200] * 40
    assert internet.most[False] == 16


@pytest.mark.every_loop
async def test_new_issuers_take_half_of_the_concurrent_fetches(issuer: Issuer) -> None:
    internet = Crowded(issuer)
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN))

    async def one(raw: str) -> None:
        await ask(guarded, raw)

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(one, unsigned(issuer, f"https://junk{n}.id.example.com"))
    assert internet.most[True] == 8


async def test_an_issuer_that_left_the_pool_returns_on_a_budget_of_its_own(
    issuer: Issuer, internet: Internet, clock: Clock
) -> None:
    a, b = (internet.add(f"https://{name}.id.example.com", issuer) for name in "ab")
    guarded, _ = guard(internet, AuthServerConfig(issuer_pattern=PATTERN), issuer_pool_size=1, token_cache_size=0)
    assert [(await ask(guarded, token(one))).status for one in (a, b)] == [200, 200]  # a has left
    crowd = Crowd(issuer)
    assert [(await ask(guarded, crowd())).status for _ in range(100)] == [503] * 100
    gc.collect()
    assert [(await ask(guarded, token(one))).status for one in (a, b, a)] == [200] * 3


async def test_preloaded_issuers_are_fetched_at_start_and_need_no_budget(issuer: Issuer, internet: Internet) -> None:
    acme = internet.add(ACME, issuer)
    late = internet.add("https://late.id.example.com", issuer)
    config = AuthServerConfig(issuer_pattern=PATTERN, preload=[ACME, "https://down.id.example.com"])
    guarded, seen = guard(internet, config)
    assert await guarded.auth.warm_up() == ()
    assert f"{ACME}/jwks" in internet.asked
    assert guarded.auth.status().ready, "a tenant that is down makes no server unready"
    assert (await call(guarded, "GET", PRM_PATH)).json()["authorization_servers"] == [ISS]
    crowd = Crowd(issuer)
    assert [(await ask(guarded, crowd())).status for _ in range(100)] == [503] * 100
    assert await outcome(guarded, seen, token(late)) == (503, "keys_unavailable")
    assert await outcome(guarded, seen, token(acme)) == (200, None)
    assert await outcome(guarded, seen, unsigned(issuer, "https://down.id.example.com")) == (503, "keys_unavailable")


@pytest.mark.parametrize(
    ("server", "said"),
    [
        pytest.param(
            AuthServerConfig(issuer_pattern=PATTERN, preload=["https://id.example.net"]), "does not match", id="foreign"
        ),
        pytest.param(AuthServerConfig(issuer_pattern=PATTERN, preload=ACME), "preload", id="a string"),
        pytest.param(AuthServerConfig(issuer_pattern=PATTERN, preload=[5]), "preload", id="a number"),  # type: ignore[list-item]
        pytest.param(AuthServerConfig(issuer=ACME, preload=[ACME]), "without issuer_pattern", id="no pattern"),
        pytest.param(
            AuthServerConfig(issuer_pattern=PATTERN, preload=[f"https://c{n}.id.example.com" for n in range(1001)]),
            "the limit is 1000",
            id="1,001 issuers",
        ),
    ],
)
def test_preloaded_issuers_that_are_refused(server: AuthServerConfig, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[ISS, server])


@pytest.mark.parametrize(
    ("per_minute", "times", "expected"),
    [
        pytest.param(1, [0, 0, 30, 60, 61], [0, 60, 30, 0, 59], id="one"),
        pytest.param(60, [0.0] * 61 + [1.0], [0.0] * 60 + [1.0, 0.0], id="sixty"),
        pytest.param(1, [100, 50, 110, 111], [0, 60, 0, 59], id="a clock that is set back earns nothing twice"),
    ],
)
def test_a_token_bucket(per_minute: int, times: list[float], expected: list[float]) -> None:
    bucket = TokenBucket(per_minute)
    assert [round(bucket.take(now), 6) for now in times] == expected


# --- Resolvers ---


class Resolver:
    """An asynchronous resolver whose answers are set by hand, and that counts."""

    def __init__(self, answer: Any = Ellipsis) -> None:
        self.answer = answer
        self.gate: anyio.Event | None = None
        self.asked: list[str] = []

    async def __call__(self, issuer: str) -> Any:
        self.asked.append(issuer)
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return AuthServerConfig(issuer=issuer) if self.answer is Ellipsis else self.answer


@pytest.mark.every_loop
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_resolver_is_asked_once(kind: str, issuer: Issuer, internet: Internet) -> None:
    acme, asked = internet.add(ACME, issuer), Resolver()

    def plain(name: str) -> AuthServerConfig:
        asked.asked.append(name)
        return AuthServerConfig(issuer=name)

    guarded, seen = guard(internet, asked if kind == "async" else plain)
    assert await outcome(guarded, seen, token(issuer)) == (200, None)
    assert asked.asked == [], "the resolver is not called for a named issuer"
    for _ in range(3):
        assert await outcome(guarded, seen, token(acme)) == (200, None)
    assert asked.asked == [ACME]


async def test_patterns_go_before_the_resolver(issuer: Issuer, internet: Internet) -> None:
    acme, resolver = internet.add(ACME, issuer), Resolver()
    guarded, seen = guard(internet, resolver, AuthServerConfig(issuer_pattern=PATTERN))
    assert await outcome(guarded, seen, token(acme)) == (200, None)
    assert resolver.asked == []


@pytest.mark.every_loop
async def test_concurrent_requests_ask_once(issuer: Issuer, internet: Internet) -> None:
    acme, resolver = internet.add(ACME, issuer), Resolver()
    resolver.gate = anyio.Event()
    guarded, _ = guard(internet, resolver)
    statuses: list[int] = []
    cut = anyio.CancelScope()

    async def one(n: int) -> None:
        statuses.append((await ask(guarded, token(acme, sub=f"u{n}"))).status)

    async def impatient() -> None:
        with cut:
            await one(99)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(impatient)  # it asks first, and its going away stops nothing
            await anyio.wait_all_tasks_blocked()
            for n in range(30):
                group.start_soon(one, n)
            await anyio.wait_all_tasks_blocked()
            cut.cancel()
            await anyio.wait_all_tasks_blocked()
            assert (resolver.asked, statuses) == ([ACME], [])
            resolver.gate.set()
    assert (resolver.asked, statuses) == ([ACME], [200] * 30)


@pytest.mark.every_loop
async def test_only_so_many_questions_at_once(issuer: Issuer, internet: Internet) -> None:
    resolver = Resolver(None)
    resolver.gate = anyio.Event()
    guarded, seen = guard(internet, resolver)
    tokens = [token(issuer, iss=f"https://c{n}.example.net") for n in range(65)]
    statuses: list[int] = []

    async def one(raw: str) -> None:
        statuses.append((await ask(guarded, raw)).status)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for raw in tokens[:64]:
                group.start_soon(one, raw)
            await anyio.wait_all_tasks_blocked()
            assert await outcome(guarded, seen, tokens[64]) == (503, "keys_unavailable")
            resolver.gate.set()
    assert statuses == [401] * 64
    assert await outcome(guarded, seen, tokens[64]) == (401, "unknown_issuer")
    assert len(resolver.asked) == 65


async def test_nobody_is_remembered_for_a_while(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    resolver = Resolver(None)
    guarded, seen = guard(internet, resolver)
    raw = token(issuer, iss=ACME)
    for seconds, questions in ((0, 1), (29, 1), (1, 2)):
        clock.now += seconds
        assert await outcome(guarded, seen, raw) == (401, "unknown_issuer")
        assert len(resolver.asked) == questions
    assert internet.asked == []


async def test_what_is_remembered_of_nobodies_is_bounded(
    issuer: Issuer, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers_module, "MAX_DENIED", 3)
    resolver = Resolver(None)
    guarded, seen = guard(internet, resolver)
    tokens = [token(issuer, iss=f"https://c{n}.example.net") for n in range(4)]
    for raw in (*tokens, *tokens[1:], tokens[0]):
        assert await outcome(guarded, seen, raw) == (401, "unknown_issuer")
    assert [name[9:10] for name in resolver.asked] == ["0", "1", "2", "3", "0"], "the oldest was forgotten"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(RuntimeError("database down"), id="an exception"),
        pytest.param(False, id="False"),
        pytest.param(0, id="zero"),
        pytest.param(ACME, id="a string"),
        pytest.param({"issuer": ACME}, id="a dict"),
        pytest.param([AuthServerConfig(issuer=ACME)], id="a list"),
        pytest.param(AuthServerConfig, id="the class"),
        pytest.param(AuthServerConfig(issuer="https://evil.example"), id="an answer for another issuer"),
        pytest.param(AuthServerConfig(issuer=f"{ACME}/"), id="an answer for nearly the same issuer"),
        pytest.param(AuthServerConfig(), id="no issuer"),
        pytest.param(AuthServerConfig(issuer_pattern=PATTERN), id="a pattern"),
        pytest.param(AuthServerConfig(issuer=ACME, issuer_pattern=PATTERN), id="a pattern beside"),
        pytest.param(AuthServerConfig(issuer=ACME, tenants=["a"]), id="tenants"),
        pytest.param(AuthServerConfig(issuer=ACME, leeway=-1), id="a wrong leeway"),
        pytest.param(AuthServerConfig(issuer=ACME, algorithms=["none"]), id="a wrong algorithm"),
        pytest.param(AuthServerConfig(issuer=ACME, jwks_uri="http://acme.example/jwks"), id="http"),
        pytest.param(AuthServerConfig(issuer=ACME, jwks={"keys": []}), id="no keys"),
        pytest.param(AuthServerConfig(issuer=ACME, metadata="x"), id="wrong metadata"),  # type: ignore[arg-type]
    ],
)
async def test_a_wrong_answer_is_our_failure(
    answer: Any, issuer: Issuer, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    acme, resolver = internet.add(ACME, issuer), Resolver(answer)
    guarded, seen = guard(internet, resolver)
    answered = await ask(guarded, token(acme))
    assert (answered.status, answered.header("retry-after")) == (503, "1")
    assert seen.last == (503, "hook_failed")
    assert [record.levelname for record in caplog.records if record.name == "asgi_mcp_auth.issuers"] == ["ERROR"]
    assert internet.asked == []
    resolver.answer = Ellipsis  # repaired: the next request passes
    assert await outcome(guarded, seen, token(acme)) == (200, None)


@pytest.mark.every_loop
async def test_a_slow_resolver_is_cut_off(issuer: Issuer, internet: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers_module, "RESOLVER_SECONDS", 0.05)
    acme, resolver = internet.add(ACME, issuer), Resolver()
    resolver.gate = anyio.Event()
    guarded, seen = guard(internet, resolver)
    with anyio.fail_after(5):
        assert await outcome(guarded, seen, token(acme)) == (503, "hook_failed")
    resolver.gate.set()
    assert await outcome(guarded, seen, token(acme)) == (200, None)


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param(..., id="none"),
        pytest.param("", id="empty"),
        pytest.param(5, id="a number"),
        pytest.param(["https://acme.example"], id="a list"),
        pytest.param({"iss": ACME}, id="an object"),
        pytest.param("acme", id="no URL"),
        pytest.param("https://acme.example?x", id="a query"),
        pytest.param("https://acme.example#x", id="a fragment"),
        pytest.param("https://me@acme.example", id="user information"),
        pytest.param("https://acme.example/\n", id="a newline"),
        pytest.param("https://ä.example", id="not ASCII"),
        pytest.param("https://acme.example/" + "a" * 512, id="long"),
    ],
)
async def test_junk_is_nobodys_question(claimed: Any, issuer: Issuer, internet: Internet) -> None:
    resolver = Resolver()
    guarded, seen = guard(internet, resolver, AuthServerConfig(issuer_pattern=PATTERN))
    assert await outcome(guarded, seen, token(issuer, iss=claimed)) == (401, "unknown_issuer")
    assert (resolver.asked, internet.asked) == ([], [])


async def test_an_answer_is_asked_for_again(
    issuer: Issuer, internet: Internet, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    acme, resolver = internet.add(ACME, issuer), Resolver()
    guarded, seen = guard(internet, resolver)
    raw = token(acme, exp=int(clock.now) + 3600)
    for seconds, questions in ((0, 1), (299, 1), (1, 2)):
        clock.now += seconds
        assert await outcome(guarded, seen, raw) == (200, None)
        assert len(resolver.asked) == questions
    resolver.answer = None
    clock.now += 299
    assert await outcome(guarded, seen, raw) == (200, None)
    clock.now += 1
    assert await outcome(guarded, seen, raw) == (401, "unknown_issuer")
    events = [vars(record)["event"] for record in caplog.records if record.name == "asgi_mcp_auth.issuers"]
    assert events == ["issuer_admitted", "issuer_withdrawn"]
    pool = guarded.auth.status().resources[0].pool
    assert pool is not None
    assert pool.entries == 0


async def test_a_changed_answer_takes_effect(issuer: Issuer, internet: Internet, clock: Clock) -> None:
    acme, resolver = internet.add(ACME, issuer), Resolver()
    guarded, seen = guard(internet, resolver)
    raw = token(acme, exp=int(clock.now) + 3600)
    assert await outcome(guarded, seen, raw) == (200, None)
    resolver.answer = AuthServerConfig(issuer=ACME, allowed_clients=["c2"])
    clock.now += 300
    assert await outcome(guarded, seen, raw) == (401, "client_not_allowed")


async def test_a_resolver_that_fails_later_stops_the_issuer_until_it_answers(
    issuer: Issuer, internet: Internet, clock: Clock
) -> None:
    acme, resolver = internet.add(ACME, issuer), Resolver()
    guarded, seen = guard(internet, resolver)
    raw = token(acme, exp=int(clock.now) + 3600)
    assert await outcome(guarded, seen, raw) == (200, None)
    resolver.answer = RuntimeError("database down")
    clock.now += 300
    assert await outcome(guarded, seen, raw) == (503, "hook_failed")
    resolver.answer = Ellipsis
    assert await outcome(guarded, seen, raw) == (200, None)


async def test_static_keys_that_a_resolver_changes_in_place_take_effect(
    issuer: Issuer, internet: Internet, clock: Clock
) -> None:
    acme = internet.add(ACME, issuer)
    gone = acme.keys[0]
    acme.keys.append(SigningKey("Ed25519"))
    keys: dict[str, Any] = acme.jwks()
    guarded, seen = guard(internet, Resolver(AuthServerConfig(issuer=ACME, jwks=keys)))
    raw = token(acme, key=gone, exp=int(clock.now) + 7200)
    other = token(acme, key=acme.keys[1], exp=int(clock.now) + 7200)
    assert await outcome(guarded, seen, raw) == (200, None)
    del keys["keys"][0]
    clock.now += 300
    assert await outcome(guarded, seen, raw) == (401, "unknown_kid")
    assert await outcome(guarded, seen, other) == (200, None)


async def test_a_resolver_may_give_keys_and_metadata(issuer: Issuer, internet: Internet) -> None:
    metadata = AuthorizationServerMetadata(issuer=ACME, jwks_uri=f"{ACME}/jwks")
    acme = internet.add(ACME, issuer)
    for config in (
        AuthServerConfig(issuer=ACME, jwks=acme.jwks()),
        AuthServerConfig(issuer=ACME, jwks_uri=f"{ACME}/jwks"),
        AuthServerConfig(metadata=metadata),
    ):
        guarded, seen = guard(internet, Resolver(config))
        assert await outcome(guarded, seen, token(acme)) == (200, None)
    assert internet.asked == [f"{ACME}/jwks"] * 2


# --- The pool ---


async def test_the_least_recently_used_leaves_and_may_come_back(
    issuer: Issuer, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    a, b, c = (internet.add(f"https://{name}.id.example.com", issuer) for name in "abc")
    guarded, seen = guard(internet, AuthServerConfig(issuer_pattern=PATTERN), issuer_pool_size=2, token_cache_size=0)
    for one in (a, b, a, c):  # b leaves
        assert await outcome(guarded, seen, token(one)) == (200, None)
    gc.collect()
    status = guarded.auth.status()
    assert {one.issuer for one in status.issuers} == {ISS, a.url, c.url}
    pool = status.resources[0].pool
    assert pool is not None
    assert (pool.entries, pool.size, pool.evictions) == (2, 2, 1)
    before = len(internet.asked)
    assert await outcome(guarded, seen, token(b)) == (200, None)
    assert internet.asked[before:] == [f"{b.url}/.well-known/oauth-authorization-server", f"{b.url}/jwks"]
    evicted = [vars(record)["issuer"] for record in caplog.records if getattr(record, "event", "") == "issuer_evicted"]
    assert evicted == [b.url, a.url]


async def test_many_issuers_fit_in_the_pool(issuer: Issuer, internet: Internet) -> None:
    key = SigningKey("Ed25519")
    guarded, seen = guard(
        internet,
        AuthServerConfig(issuer_pattern=PATTERN),
        issuer_pool_size=50,
        token_cache_size=20,
        unproven_fetches_per_minute=1000,
    )
    for n in range(300):
        one = internet.add(f"https://c{n}.id.example.com", issuer)
        one.keys = [key]
        assert await outcome(guarded, seen, token(one)) == (200, None)
    gc.collect()
    status = guarded.auth.status()
    pool, cache = status.resources[0].pool, status.resources[0].token_cache
    assert pool is not None
    assert cache is not None
    assert (pool.entries, pool.evictions, cache.entries) == (50, 250, 20)
    assert len(status.issuers) == 51


# --- Tenants ---


def tenant(name: str) -> str:
    return TEMPLATE.replace("{tenantid}", name)


def tenants(**changes: Any) -> AuthServerConfig:
    settings: dict[str, Any] = {"issuer": TEMPLATE, "metadata_url": META, "tenants": ["t1", "t2"]}
    return AuthServerConfig(**(settings | changes))


def directory(internet: Internet, keys: Any, **metadata: Any) -> None:
    """A directory of many tenants: one metadata document, one key set."""
    internet.documents[META] = {"issuer": TEMPLATE, "jwks_uri": KEYS} | metadata
    internet.documents[KEYS] = {"keys": keys}


@pytest.mark.requirement("DC-15")
async def test_tenants_share_one_key_set(issuer: Issuer, internet: Internet) -> None:
    directory(internet, issuer.jwks()["keys"])
    guarded, seen = guard(internet, tenants())
    for name in ("t1", "t2", "t1"):
        assert await outcome(guarded, seen, token(issuer, iss=tenant(name), tid=name)) == (200, None)
    assert internet.asked == [META, KEYS]
    published = (await call(guarded, "GET", PRM_PATH)).json()["authorization_servers"]
    assert published == [ISS, tenant("t1"), tenant("t2")]


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"iss": tenant("t1"), "tid": "t2"}, "unknown_issuer", id="DC-15 another tid"),
        pytest.param({"iss": tenant("t1")}, "unknown_issuer", id="DC-15 no tid"),
        pytest.param({"iss": tenant("t1"), "tid": ["t1"]}, "unknown_issuer", id="DC-15 a list"),
        pytest.param({"iss": tenant("t3"), "tid": "t3"}, "unknown_issuer", id="DC-15 an unlisted tenant"),
        pytest.param({"iss": TEMPLATE, "tid": "t1"}, "unknown_issuer", id="DC-15 the template itself"),
        pytest.param({"iss": tenant("T1"), "tid": "T1"}, "unknown_issuer", id="DC-15 another case"),
        pytest.param({"iss": tenant("t1/../t1"), "tid": "t1"}, "unknown_issuer", id="DC-15 a path"),
        pytest.param({"iss": tenant("{tenantid}"), "tid": "{tenantid}"}, "unknown_issuer", id="DC-15 the placeholder"),
    ],
)
async def test_tenants_that_are_refused(
    claims: dict[str, Any], reason: str, issuer: Issuer, internet: Internet
) -> None:
    directory(internet, issuer.jwks()["keys"])
    guarded, seen = guard(internet, tenants())
    assert await outcome(guarded, seen, token(issuer, **claims)) == (401, reason)


@pytest.mark.parametrize(
    ("of_key", "t1", "t2"),
    [
        pytest.param(TEMPLATE, (200, None), (200, None), id="DC-15 a key for every tenant"),
        pytest.param(tenant("t1"), (200, None), (401, "key_mismatch"), id="DC-15 a key of one tenant"),
        pytest.param(
            "https://evil.example", (401, "key_mismatch"), (401, "key_mismatch"), id="DC-15 another issuer's key"
        ),
        pytest.param([tenant("t1")], (401, "key_mismatch"), (401, "key_mismatch"), id="DC-15 a list"),
        pytest.param("", (401, "key_mismatch"), (401, "key_mismatch"), id="DC-15 empty"),
    ],
)
async def test_whose_key_it_is(of_key: Any, t1: Any, t2: Any, issuer: Issuer, internet: Internet) -> None:
    directory(internet, [issuer.keys[0].jwk | {"issuer": of_key}])
    guarded, seen = guard(internet, tenants())
    for name, expected in (("t1", t1), ("t2", t2), ("t1", t1)):
        assert await outcome(guarded, seen, token(issuer, iss=tenant(name), tid=name)) == expected


async def test_a_key_that_becomes_another_tenants_stops_cached_tokens(
    issuer: Issuer, internet: Internet, clock: Clock
) -> None:
    directory(internet, [issuer.keys[0].jwk])
    guarded, seen = guard(internet, tenants())
    raw = token(issuer, iss=tenant("t1"), tid="t1", exp=int(clock.now) + 7200)
    assert await outcome(guarded, seen, raw) == (200, None)
    directory(internet, [issuer.keys[0].jwk | {"issuer": tenant("t2")}])
    clock.now += 3000
    await guarded.auth.warm_up()
    assert await outcome(guarded, seen, raw) == (401, "key_mismatch")


async def test_another_claim_may_name_the_tenant(issuer: Issuer, internet: Internet) -> None:
    directory(internet, issuer.jwks()["keys"])
    guarded, seen = guard(internet, tenants(tenant_claim="org"))
    assert await outcome(guarded, seen, token(issuer, iss=tenant("t1"), org="t1")) == (200, None)
    assert await outcome(guarded, seen, token(issuer, iss=tenant("t1"), tid="t1")) == (401, "unknown_issuer")


async def test_the_document_has_to_name_the_template(issuer: Issuer, internet: Internet) -> None:
    directory(internet, issuer.jwks()["keys"], issuer=tenant("t1"))
    guarded, seen = guard(internet, tenants())
    assert await outcome(guarded, seen, token(issuer, iss=tenant("t1"), tid="t1")) == (503, "keys_unavailable")


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        pytest.param({"tenants": ()}, ".tenants", id="no tenants"),
        pytest.param({"tenants": "t1"}, ".tenants", id="a string"),
        pytest.param({"tenants": ["a/b"]}, ".tenants", id="a slash"),
        pytest.param({"tenants": [".."]}, ".tenants", id="dots"),
        pytest.param({"tenants": ["*"]}, ".tenants", id="a star"),
        pytest.param({"tenants": ["a\n"]}, ".tenants", id="a newline"),
        pytest.param({"issuer": "https://login.example.com/v2.0"}, ".issuer", id="no placeholder"),
        pytest.param({"issuer": "https://{a}.example.com/{b}"}, ".issuer", id="two placeholders"),
        pytest.param({"issuer": "https://login.example.com/{a}{"}, ".issuer", id="a loose brace"),
        pytest.param({"issuer": "https://login.example.com/{}"}, ".issuer", id="an empty placeholder"),
        pytest.param({"metadata_url": None}, "", id="no place for the keys"),
        pytest.param({"tenant_claim": ""}, ".tenant_claim", id="no claim"),
        pytest.param({"tenant_claim": None}, ".tenant_claim", id="None for a claim"),
        pytest.param({"issuer": "http://login.example.com/{a}"}, "", id="http"),
    ],
)
def test_wrong_templates(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[tenants(**changes), ISS])
    assert {problem.where for problem in caught.value.problems} == {f"authorization_servers[0]{where}"}


# --- Publication ---


def test_only_the_first_hundred_are_published(caplog: pytest.LogCaptureFixture) -> None:
    names = [f"t{n}" for n in range(150)]
    guarded = MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[tenants(tenants=names)])
    assert [warning for warning in guarded.auth.warnings if "first 100 of 150" in warning] != []
    assert len(guarded.auth._protection.config.documents) > 0
    document = anyio.run(call, guarded, "GET", PRM_PATH).json()
    assert document["authorization_servers"] == [tenant(name) for name in names[:100]]


async def test_patterns_and_resolvers_are_not_published(internet: Internet) -> None:
    guarded, _ = guard(internet, Resolver(), AuthServerConfig(issuer_pattern=PATTERN))
    assert (await call(guarded, "GET", PRM_PATH)).json()["authorization_servers"] == [ISS]


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        pytest.param([AuthServerConfig(issuer_pattern=PATTERN)], "no issuer to publish", id="a pattern alone"),
        pytest.param([Resolver()], "no issuer to publish", id="a resolver alone"),
        pytest.param([ISS, Resolver(), Resolver()], "more than one resolver", id="two resolvers"),
        pytest.param([ISS, Resolver], "is not an issuer", id="a class for a resolver"),
        pytest.param([tenants(), tenant("t1")], "listed more than once", id="a tenant twice"),
    ],
)
def test_wrong_lists(servers: list[Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=servers)
    assert len(caught.value.problems) == 1


# --- Isolation ---


async def test_two_issuers_with_the_same_kid(issuer: Issuer, internet: Internet) -> None:
    one, two = internet.add("https://one.example", issuer), internet.add("https://two.example", issuer)
    one.keys, two.keys = [SigningKey("Ed25519", kid="k")], [SigningKey("Ed25519", kid="k")]
    guarded, seen = guard(internet, one.url, two.url)
    for a, b in ((one, two), (two, one)):
        assert await outcome(guarded, seen, token(a)) == (200, None)
        assert await outcome(guarded, seen, token(b, iss=a.url)) == (401, "bad_signature")


async def test_two_issuers_with_the_same_key_set(issuer: Issuer, internet: Internet) -> None:
    shared = "https://keys.example/jwks"
    internet.documents[shared] = issuer.jwks()
    one = AuthServerConfig(issuer="https://one.example", jwks_uri=shared, allowed_clients=["c1"])
    two = AuthServerConfig(issuer="https://two.example", jwks_uri=shared, algorithms=["ES256"])
    guarded, seen = guard(internet, one, two)
    assert await outcome(guarded, seen, token(issuer, iss=one.issuer)) == (200, None)
    assert internet.asked == [shared]
    assert await outcome(guarded, seen, token(issuer, iss=two.issuer)) == (401, "algorithm_not_allowed")
    assert await outcome(guarded, seen, token(issuer, iss=two.issuer, key=issuer.keys[1])) == (200, None)
    assert internet.asked == [shared, shared]
    by_issuer = {status.issuer: status for status in guarded.auth.status().issuers}
    assert by_issuer["https://one.example"].refusals == {}
    assert by_issuer["https://two.example"].refusals == {"algorithm_not_allowed": 1}


async def test_an_issuers_failure_is_its_own(issuer: Issuer, internet: Internet) -> None:
    guarded, seen = guard(internet, "https://down.example")
    assert await outcome(guarded, seen, token(issuer, iss="https://down.example")) == (503, "keys_unavailable")
    assert await outcome(guarded, seen, token(issuer)) == (200, None)


# --- What clients will make of the metadata ---

LOGIN = {
    "authorization_endpoint": f"{ISS}/authorize",
    "response_types_supported": ["code"],
    "grant_types_supported": ["authorization_code"],
    "code_challenge_methods_supported": ["S256"],
    "registration_endpoint": f"{ISS}/register",
}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        pytest.param({}, [], id="DC-16 a server for machines"),
        pytest.param(LOGIN, [], id="DC-16 nothing to say"),
        pytest.param(
            {**LOGIN, "registration_endpoint": None, "client_id_metadata_document_supported": True},
            [],
            id="DC-16 client id metadata documents instead of registration",
        ),
        pytest.param(
            {**LOGIN, "code_challenge_methods_supported": None},
            ["no code_challenge_methods_supported"],
            id="DC-16 no PKCE",
        ),
        pytest.param(
            {**LOGIN, "code_challenge_methods_supported": ["plain"]}, ['PKCE method "S256"'], id="DC-16 PKCE plain"
        ),
        pytest.param(
            {**LOGIN, "registration_endpoint": None}, ["clients by hand"], id="DC-16 no way to become a client"
        ),
        pytest.param({"protected_resources": [R]}, [], id="DC-14 listed"),
        pytest.param({"protected_resources": ["https://other.example"]}, [f"does not list {R}"], id="DC-14 not listed"),
        pytest.param({"protected_resources": []}, [f"does not list {R}"], id="DC-14 an empty list"),
        pytest.param(
            {**LOGIN, "response_types_supported": ["token"], "protected_resources": []},
            [f"does not list {R}", 'response type "code"'],
            id="DC-14 DC-16 two things",
        ),
    ],
)
async def test_metadata_that_will_make_clients_fail(
    metadata: dict[str, Any],
    said: list[str],
    issuer: Issuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    internet = Internet(issuer)
    issuer.metadata |= metadata
    issuer.metadata = {name: value for name, value in issuer.metadata.items() if value is not None}
    guarded, seen = guard(internet)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "metadata_unfit"]

    assert await outcome(guarded, seen, token(issuer)) == (200, None), "its tokens are good"
    assert [part in message for part, message in zip(said, told(), strict=True)] == [True] * len(said)
    clock.now += 7200
    assert await guarded.auth.warm_up() == ()
    assert sum("oauth-authorization-server" in url for url in internet.asked) == 2, "it was fetched again"
    assert len(told()) == len(said), "each is reported once"


async def test_metadata_that_clients_will_not_find(
    issuer: Issuer, internet: Internet, caplog: pytest.LogCaptureFixture
) -> None:
    internet.documents[f"{ISS}/meta.json"] = issuer.metadata | LOGIN
    guarded, seen = guard(
        internet, authorization_servers=[AuthServerConfig(issuer=ISS, metadata_url=f"{ISS}/meta.json")]
    )
    assert await outcome(guarded, seen, token(issuer)) == (200, None)
    told = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "metadata_unfit"]
    assert [("clients do not find the metadata" in message, ISS in message) for message in told] == [(True, True)]


@pytest.mark.parametrize(
    "signed",
    [pytest.param("garbage", id="DC-17 garbage"), pytest.param("e30.eyJpc3MiOiJ4In0.", id="DC-17 of another issuer")],
)
async def test_signed_metadata_is_ignored(signed: str, issuer: Issuer, internet: Internet) -> None:
    issuer.metadata["signed_metadata"] = signed
    guarded, seen = guard(internet)
    assert await outcome(guarded, seen, token(issuer)) == (200, None)


def test_callables_are_resolvers() -> None:
    plain: Callable[[str], None] = lambda _: None  # noqa: E731 - that it is one is the point
    guarded = MCPAuthMiddleware(RecordingApp(), resource=R, authorization_servers=[ISS, plain])
    assert guarded.auth._protection.config.resources[0].trust.others is not None
