"""Calls of upstream APIs for the caller: `auth.exchange` and `auth.exchange_auth` in process."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import anyio
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fastmcp import FastMCP
from harness import ISS, Answer, Clock, R, bearer, call, cht, protect, token, websocket
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.responses import JSONResponse, RedirectResponse

import asgi_mcp_auth
from asgi_mcp_auth import (
    ApiKeys,
    AuthInfo,
    AuthServerConfig,
    Caller,
    Choose,
    ConfigurationError,
    ExchangeError,
    ExchangeReason,
    Introspection,
    MCPAuth,
    MCPAuthMiddleware,
    MemoryStore,
    TokenExchange,
    current_auth,
)
from asgi_mcp_auth._keys.background import spawn
from asgi_mcp_auth._oauth.token_exchange import ACCESS_TOKEN
from asgi_mcp_auth._policy.api_key_file import ApiKeyRecord, digest_of
from asgi_mcp_auth.auth import protection_of
from asgi_mcp_auth.context import revocation_key
from asgi_mcp_auth.providers import PROVIDERS
from asgi_mcp_auth.testing import Issuer, UpstreamAPI, call_tool, running, without_network

pytestmark = pytest.mark.anyio

API = "https://api.example.com"
SECRET = "s3cr%t:+/"
TOKEN = "/token"
SETTINGS = TokenExchange(client_id="mcp-server", client_secret=SECRET)

Handler = Callable[[MCPAuth], Awaitable[Any]]


class Host:
    """A protected app whose handler is the test's; it answers 200 with the JSON of what the handler returns."""

    def __init__(self, issuer: Issuer, settings: Any = (SETTINGS,), **options: Any) -> None:
        self.issuer = issuer
        self.handler: Handler = exchange_orders
        self.scopes: list[Any] = []
        self.guarded = protect(issuer, self, token_exchange=settings, **options)
        self.auth: MCPAuth = self.guarded.auth

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            text = json.dumps(await self.handler(self.auth))
            await send({"type": "websocket.send", "text": text})
            return
        answer = await self.handler(self.auth)
        await JSONResponse(answer)(scope, receive, send)

    async def get(self, raw: str | None = None, handler: Handler | None = None) -> Answer:
        self.handler = handler or self.handler
        return await call(self.guarded, headers=bearer(token(self.issuer) if raw is None else raw))

    async def reason(self, handler: Handler, raw: str | None = None) -> str:
        """Return the reason of the `ExchangeError` that the handler meets."""
        answer = await self.get(raw, lambda auth: reason_of(handler(auth)))
        assert answer.status == 200
        return str(answer.json())

    @property
    def calls(self) -> int:
        return self.issuer.requests[TOKEN]

    @property
    def held(self) -> int:
        exchanger = protection_of(self.auth).exchanger
        assert exchanger is not None
        return len(exchanger._running)


async def exchange_orders(auth: MCPAuth) -> str:
    return (await auth.exchange(audience=API, scopes=["orders:read"])).access_token


async def reason_of(awaitable: Awaitable[Any]) -> str:
    try:
        await awaitable
    except ExchangeError as error:
        return error.reason.value
    return "none"


@pytest.fixture
def host(issuer: Issuer) -> Host:
    return Host(issuer)


# --- the exchange ---------------------------------------------------------------------------------------------------


@pytest.mark.requirement("TX-1", "TX-2", "TX-4")
@pytest.mark.every_loop
async def test_the_callers_token_is_exchanged_at_its_issuer(host: Host, issuer: Issuer) -> None:
    raw = token(issuer)
    exchanged = (await host.get(raw)).json()
    claims = issuer._claims_of(exchanged)
    assert claims is not None
    assert (claims["sub"], claims["aud"], claims["scope"]) == ("alice", API, "orders:read")
    assert claims["act"] == {"sub": "mcp-server"}
    assert issuer.exchanges[0]["subject_token"] == [raw]
    assert "client_secret" not in issuer.exchanges[0]
    assert raw != exchanged


@pytest.mark.requirement("TX-2")
@pytest.mark.parametrize(
    ("settings", "where"),
    [
        pytest.param({"auth_method": "client_secret_post"}, "form", id="post"),
        pytest.param({"auth_method": "client_secret_basic"}, "basic", id="basic"),
    ],
)
async def test_the_server_authenticates_by_the_configured_method(issuer: Issuer, settings: Any, where: str) -> None:
    host = Host(issuer, [TokenExchange(client_id="mcp-server", client_secret=SECRET, **settings)])
    await host.get()
    assert ("client_secret" in issuer.exchanges[0]) is (where == "form")


@pytest.mark.requirement("TX-2")
@pytest.mark.parametrize(
    ("settings", "audience"),
    [
        pytest.param({}, ISS, id="the issuer"),
        pytest.param({"assertion_audience": "issuer"}, ISS, id="the issuer, as configured"),
        pytest.param({"assertion_audience": "endpoint"}, ISS + TOKEN, id="the token endpoint of the metadata"),
        pytest.param(
            {"assertion_audience": "endpoint", "endpoint": f"{ISS}/other"}, f"{ISS}/other", id="a configured endpoint"
        ),
        *(
            pytest.param(dict(row.exchange), ISS + TOKEN, id=f"{row.name}, as its row has it")
            for row in PROVIDERS
            if row.exchange
        ),
    ],
)
async def test_the_audience_of_an_assertion_is_the_issuer_or_the_endpoint(
    issuer: Issuer, settings: Any, audience: str
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")
    credentials: dict[str, Any] = {"client_id": "mcp-server", "private_key": pem, "key_id": "k1", "algorithm": "PS256"}
    forms: list[dict[str, list[str]]] = []

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] in (TOKEN, "/other"):
            forms.append(parse_qs((await receive())["body"].decode("ascii")))
            answer = {"access_token": "x", "issued_token_type": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}
            await JSONResponse(answer)(scope, receive, send)
            return
        await issuer(scope, receive, send)

    host = Host(
        issuer,
        [TokenExchange(**credentials, **settings)],
        http_client=lambda: httpx.AsyncClient(transport=httpx.ASGITransport(app=spy)),
    )
    scopes = ["api://orders/.default"]
    answer = await host.get(handler=lambda auth: reason_of(auth.exchange(scopes=scopes)))
    assert answer.json() == "none"
    [form] = forms
    [assertion] = form["client_assertion"]
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    claims = jwt.decode(assertion, key.public_key(), algorithms=["PS256"], options=options)
    assert claims["aud"] == audience
    assert (claims["iss"], claims["sub"]) == ("mcp-server", "mcp-server")
    assert jwt.get_unverified_header(assertion) == {"alg": "PS256", "typ": "JWT", "kid": "k1"}
    assert pem not in repr(host.auth.configs)


@pytest.mark.requirement("TX-1")
async def test_bad_arguments_are_a_value_error(host: Host) -> None:
    async def handler(auth: MCPAuth) -> Any:
        with pytest.raises(ValueError, match="Nothing is asked for"):
            await auth.exchange()
        return None

    assert (await host.get(handler=handler)).status == 200
    assert host.calls == 0


@pytest.mark.requirement("TX-8")
async def test_on_behalf_of_is_a_variant(issuer: Issuer) -> None:
    """The exchange as Microsoft Entra ID documents it; the answer has no issued_token_type."""
    host = Host(issuer, [TokenExchange(client_id="mcp-server", client_secret=SECRET, grant="on_behalf_of")])
    seen: list[dict[str, list[str]]] = []

    async def record(auth: MCPAuth) -> Any:
        seen.append({})
        return (await auth.exchange(scopes=["api://orders/.default"])).access_token

    issuer.answer(TOKEN, {"token_type": "Bearer", "scope": "x", "expires_in": 3269, "access_token": "obo"})
    assert (await host.get(handler=record)).json() == "obo"

    async def named(auth: MCPAuth) -> Any:
        with pytest.raises(ValueError, match="scopes only"):
            await auth.exchange(audience=API)
        return None

    assert (await host.get(handler=named)).status == 200


@pytest.mark.requirement("TX-3", "TX-8")
async def test_a_token_that_is_no_bearer_token_is_returned_only_if_it_was_asked_for(host: Host, issuer: Issuer) -> None:
    jag = "urn:ietf:params:oauth:token-type:id-jag"
    issuer.answer(TOKEN, {"access_token": "jag", "issued_token_type": jag, "token_type": "N_A", "expires_in": 300})

    async def asked(auth: MCPAuth) -> Any:
        found = await auth.exchange(audience="https://as.chat.example", requested_token_type=jag)
        return [found.access_token, found.is_bearer]

    assert (await host.get(handler=asked)).json() == ["jag", False]
    assert await host.reason(exchange_orders) == "invalid_answer"


# --- who may exchange -----------------------------------------------------------------------------------------------


@pytest.mark.requirement("TX-4")
async def test_without_a_caller_nothing_is_exchanged(host: Host) -> None:
    assert await reason_of(exchange_orders(host.auth)) == "no_caller"
    with pytest.raises(ExchangeError):
        host.auth.caller()
    assert host.calls == 0


@pytest.mark.requirement("TX-4")
async def test_an_anonymous_caller_of_a_public_path_raises(issuer: Issuer) -> None:
    host = Host(issuer, public_paths=["/open"])
    host.handler = lambda auth: reason_of(exchange_orders(auth))
    answer = await call(host.guarded, "GET", "/open")
    assert (answer.status, answer.json()) == (200, "no_caller")


@pytest.mark.requirement("TX-4")
async def test_an_anonymous_call_inside_of_another_request_raises(issuer: Issuer) -> None:
    """The inner app is public; the outer caller is not its caller."""
    host = Host(issuer, public_paths=["/open"])
    inner: list[str] = []

    async def outer(auth: MCPAuth) -> Any:
        host.handler = lambda auth: reason_of(exchange_orders(auth))
        inner.append((await call(host.guarded, "GET", "/open")).json())
        return None

    await host.get(handler=outer)
    assert inner == ["no_caller"]


@pytest.mark.requirement("TX-4")
@pytest.mark.usefixtures("blocking_calls")  # the file is read at construction
async def test_an_api_key_is_never_sent_to_a_token_endpoint(issuer: Issuer, tmp_path: Any) -> None:
    key, file = "pat_abcdefghijklmnopqrstuvwxyz0123456789", tmp_path / "keys"
    stored = ApiKeyRecord(id="k1", subject="alice", scopes=("mcp:read",), sha256=digest_of(key.encode(), None))
    file.write_text(stored.line() + "\n", "utf-8")
    host = Host(issuer, verifier=Choose(keys=ApiKeys(file=str(file))))
    assert await host.reason(exchange_orders, key) == "not_exchangeable"
    assert host.calls == 0


@pytest.mark.requirement("TX-4")
async def test_an_opaque_token_is_exchanged_at_the_issuer_that_was_asked_about_it(issuer: Issuer) -> None:
    choice = Choose(opaque=Introspection(client_id="rs", client_secret=SECRET))
    host = Host(issuer, verifier=choice)
    raw = issuer.mint_opaque(R, scope="mcp:read")
    claims = issuer._claims_of((await host.get(raw)).json())
    assert claims is not None
    assert claims["sub"] == "alice"
    assert issuer.exchanges[0]["subject_token"] == [raw]


@pytest.mark.requirement("TX-4")
async def test_a_token_that_is_bound_to_a_key_is_exchanged_for_a_bearer_token(issuer: Issuer) -> None:
    host = Host(issuer, dpop="allowed")
    raw = token(issuer, cnf={"jkt": issuer.proof_key.thumbprint})
    fields = [("authorization", f"DPoP {raw}"), ("dpop", issuer.prove("POST", R, raw))]
    assert (await call(host.guarded, headers=fields)).status == 200
    assert issuer.exchanges[0]["subject_token"] == [raw]


@pytest.mark.requirement("TX-4")
async def test_each_issuers_tokens_go_to_its_own_token_endpoint(issuer: Issuer) -> None:
    other = Issuer("https://other.example", clock=issuer.clock)
    host = Host(
        issuer,
        [
            TokenExchange(issuer=ISS, client_id="a", client_secret=SECRET),
        ],
        authorization_servers=[ISS, AuthServerConfig(issuer=other.url, jwks=other.jwks())],
    )
    assert await host.reason(exchange_orders, other.mint(R, scope="mcp:read")) == "not_exchangeable"
    assert host.calls == 0
    assert (await host.get(handler=exchange_orders)).status == 200
    assert host.calls == 1


@pytest.mark.requirement("TX-4")
async def test_the_token_ends_with_the_request(host: Host, issuer: Issuer) -> None:
    callers: list[Caller] = []

    async def keep(auth: MCPAuth) -> Any:
        callers.append(auth.caller())
        assert host.held == 1
        return None

    raw = token(issuer)
    await host.get(raw, keep)
    assert host.held == 0
    assert await reason_of(host.auth.exchange(audience=API, caller=callers[0])) == "request_ended"
    assert host.calls == 0

    async def fail(auth: MCPAuth) -> Any:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await host.get(raw, fail)
    assert host.held == 0


@pytest.mark.requirement("TX-4")
@pytest.mark.every_loop
async def test_a_background_task_needs_the_caller(host: Host) -> None:
    """A task with a context of its own has no caller. With `caller=`, cached tokens outlive the request."""
    found: list[str] = []
    done = anyio.Event()

    async def start(auth: MCPAuth) -> Any:
        caller = auth.caller()

        async def work() -> None:
            try:
                found.append(await reason_of(exchange_orders(auth)))
                found.append((await auth.exchange(audience=API, caller=caller)).access_token)
            finally:
                done.set()

        spawn(work)
        with anyio.fail_after(5):
            await done.wait()
        found.append(await exchange_orders_for(auth, caller))
        return None

    await host.get(handler=start)
    assert found[0] == "no_caller"
    assert host.calls == 2
    assert len(set(found)) == 3


async def exchange_orders_for(auth: MCPAuth, caller: Caller) -> str:
    return (await auth.exchange(audience=API, scopes=["orders:read"], caller=caller)).access_token


@pytest.mark.requirement("TX-4")
async def test_after_the_request_only_cached_tokens_are_available(host: Host) -> None:
    callers: list[Caller] = []
    contexts: list[str] = []

    async def start(auth: MCPAuth) -> Any:
        callers.append(auth.caller())
        return await exchange_orders(auth)

    first = (await host.get(handler=start)).json()
    assert await exchange_orders_for(host.auth, callers[0]) == first
    assert await reason_of(host.auth.exchange(audience="https://other", caller=callers[0])) == "request_ended"
    assert host.calls == 1
    assert contexts == []


@pytest.mark.requirement("TX-4")
async def test_a_task_that_inherits_the_context_cannot_exchange_after_the_request(host: Host) -> None:
    reasons: list[str] = []
    async with anyio.create_task_group() as tasks:
        ended = anyio.Event()

        async def later(auth: MCPAuth) -> None:
            await ended.wait()
            reasons.append(await reason_of(exchange_orders(auth)))

        async def start(auth: MCPAuth) -> Any:
            tasks.start_soon(later, auth)
            return await exchange_orders(auth)

        await host.get(handler=start)
        ended.set()
    assert reasons == ["request_ended"]


@pytest.mark.requirement("TX-4")
async def test_a_websocket_may_exchange_while_it_is_open(host: Host, issuer: Issuer) -> None:
    done = await websocket(host.guarded, headers=bearer(token(issuer)))
    sent = [message["text"] for message in done.sent if message["type"] == "websocket.send"]
    assert len(sent) == 1
    assert host.calls == 1
    assert host.held == 0


# --- nothing shows the token ----------------------------------------------------------------------------------------


def items_of(value: Any) -> list[Any]:
    """What a container contains: names and values of a dict."""
    return [*value.keys(), *value.values()] if isinstance(value, dict) else list(value)


def strings(value: Any, depth: int = 8) -> set[str]:
    """Every text that an app can reach from a value by public names, by items and by repr."""
    found = {repr(value)}
    if depth and isinstance(value, (dict, list, tuple, set)):
        for item in items_of(value):
            found |= strings(item, depth - 1)
    elif depth and not callable(value) and type(value).__module__.startswith("asgi_mcp_auth"):
        for name in dir(value):
            if not name.startswith("__"):
                found |= strings(getattr(value, name, None), depth - 1)
    return found


@pytest.mark.requirement("TX-4")
async def test_the_app_cannot_see_the_callers_token(
    host: Host, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    raw = token(issuer)
    seen: set[str] = set()

    async def look(auth: MCPAuth) -> Any:
        caller = auth.caller()
        await exchange_orders(auth)
        seen.update(strings(host.scopes[-1]), strings(current_auth()), strings(caller))
        for make in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="one request"):
                make(caller)
        return None

    assert (await host.get(raw, look)).status == 200
    signature = raw.rsplit(".", 1)[1]
    assert not [text for text in seen if signature in text]
    assert signature not in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(SETTINGS)


@pytest.mark.requirement("TX-4", "TX-7")
async def test_no_frame_of_an_error_has_the_token(host: Host, issuer: Issuer) -> None:
    """Error trackers send the local variables of each frame."""
    raw = token(issuer)
    issuer.answer(TOKEN, {"error": "invalid_target"}, status=400)
    frames: list[str] = []

    async def look(auth: MCPAuth) -> Any:
        try:
            await exchange_orders(auth)
        except ExchangeError as error:
            trace = error.__traceback__
            while trace is not None:
                frames.append(repr(dict(trace.tb_frame.f_locals)))
                trace = trace.tb_next
            frames.append(repr(error.__context__))
        return None

    assert (await host.get(raw, look)).status == 200
    assert len(frames) > 2
    assert not [frame for frame in frames if raw in frame]


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("TX-6")
@pytest.mark.every_loop
async def test_fifty_parallel_exchanges_of_one_caller_are_one_call(host: Host) -> None:
    async def fifty(auth: MCPAuth) -> Any:
        found: list[str] = []

        async def one() -> None:
            found.append(await exchange_orders(auth))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(one)
        return found

    found = (await host.get(handler=fifty)).json()
    assert (len(found), len(set(found)), host.calls) == (50, 1, 1)


@pytest.mark.requirement("TX-6")
async def test_two_callers_never_share_a_token(host: Host, issuer: Issuer) -> None:
    alice, bob = token(issuer), token(issuer, sub="bob")
    found = [(await host.get(raw)).json() for raw in (alice, bob, alice, bob)]
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert [issuer._claims_of(one)["sub"] for one in found[:2]] == ["alice", "bob"]  # type: ignore[index]
    assert host.calls == 2


@pytest.mark.requirement("TX-6")
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"audience": "https://other.example"}, id="audience"),
        pytest.param({"audience": (), "resource": API}, id="resource"),
        pytest.param({"scopes": ["orders:write"]}, id="scopes"),
        pytest.param({"scopes": []}, id="no scope"),
        pytest.param({"actor_token": "actor"}, id="actor"),
    ],
)
async def test_another_target_is_another_token(host: Host, issuer: Issuer, changes: Any) -> None:
    arguments: dict[str, Any] = {"audience": API, "scopes": ["orders:read"]}

    async def twice(auth: MCPAuth) -> Any:
        first = await auth.exchange(**arguments)
        second = await auth.exchange(**(arguments | changes))
        return first.access_token != second.access_token

    assert (await host.get(handler=twice)).json() is True
    assert host.calls == 2


@pytest.mark.requirement("TX-6")
async def test_the_first_callers_disconnect_does_not_end_the_exchange(host: Host, issuer: Issuer) -> None:
    raw = token(issuer)
    issuer.stall(TOKEN)
    found: list[str] = []
    async with anyio.create_task_group() as tasks:
        first = anyio.CancelScope()
        tasks.start_soon(cancelled_with, first, host, raw)
        await wait_until(lambda: host.calls == 1)

        async def second() -> None:
            found.append((await host.get(raw)).json())

        tasks.start_soon(second)
        await wait_until(lambda: host.held == 2)
        first.cancel()
        await wait_until(lambda: host.held == 1)
        issuer.heal()
    assert (len(found), host.calls, host.held) == (1, 1, 0)


async def cancelled_with(scope: anyio.CancelScope, host: Host, raw: str) -> None:
    with scope:
        await host.get(raw)


async def wait_until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - the condition belongs to other objects
            await anyio.sleep(0.001)


@pytest.mark.requirement("TX-6")
@pytest.mark.parametrize(
    ("later", "calls"),
    [
        pytest.param(100, 1, id="both tokens are valid"),
        pytest.param(271, 2, id="the end of the exchanged token is near"),
        pytest.param(-1, 2, id="the clock was set back"),
    ],
)
async def test_a_token_is_cached_until_shortly_before_its_end(
    issuer: Issuer, clock: Clock, later: float, calls: int
) -> None:
    host = Host(issuer)
    raw = token(issuer, exp=int(clock.now) + 900)
    await host.get(raw)
    clock.now += later
    assert (await host.get(raw)).status == 200
    assert host.calls == calls


@pytest.mark.requirement("TX-6")
async def test_a_token_is_not_used_past_the_end_of_the_callers(issuer: Issuer, clock: Clock) -> None:
    """The stream of a POST may outlive the token; the exchanged token ends with it, whatever its own `exp`."""
    host = Host(issuer)
    issuer.answer(
        TOKEN,
        {
            "access_token": "long",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 86_400,
        },
    )

    async def outlive(auth: MCPAuth) -> Any:
        await exchange_orders(auth)
        clock.now += 275
        await exchange_orders(auth)
        clock.now += 100
        return await reason_of(exchange_orders(auth))

    assert (await host.get(handler=outlive)).json() == "subject_refused"
    assert host.calls == 2


@pytest.mark.requirement("TX-6")
async def test_the_cache_is_bounded_and_can_be_off(issuer: Issuer) -> None:
    for size, calls in ((1, 3), (0, 4)):
        host = Host(issuer, [TokenExchange(client_id="c", client_secret=SECRET, cache_size=size)])
        before = host.calls
        alice, bob = token(issuer), token(issuer, sub="bob")
        for raw in (alice, alice, bob, alice):
            await host.get(raw)
        assert host.calls - before == calls


@pytest.mark.requirement("TX-6")
async def test_a_token_is_dropped_when_its_caller_is_revoked(issuer: Issuer) -> None:
    revoked: list[str] = []

    def is_revoked(info: AuthInfo) -> bool:
        return info.subject in revoked

    host = Host(issuer, is_revoked=is_revoked)

    async def both(auth: MCPAuth) -> Any:
        await exchange_orders(auth)
        revoked.append("alice")
        first = await reason_of(exchange_orders(auth))
        revoked.clear()
        return [first, len(await exchange_orders(auth)) > 0]

    assert (await host.get(handler=both)).json() == ["revoked", True]
    assert host.calls == 2


@pytest.mark.requirement("TX-6")
async def test_a_token_is_dropped_when_its_caller_is_revoked_by_a_watermark(issuer: Issuer, clock: Clock) -> None:
    host = Host(issuer, store=MemoryStore(), revocation=True)
    callers: list[Caller] = []

    async def revoke(auth: MCPAuth) -> Any:
        callers.append(auth.caller())
        await exchange_orders(auth)
        clock.now += 2
        await auth.revoke(issuer=ISS, subject="alice")
        return await reason_of(exchange_orders(auth))

    assert (await host.get(handler=revoke)).json() == "revoked"
    assert await reason_of(exchange_orders_for(host.auth, callers[0])) == "revoked"
    assert (await host.get(token(issuer, sub="bob"), exchange_orders)).status == 200
    assert host.calls == 2


@pytest.mark.requirement("TX-6")
async def test_a_token_that_arrives_after_the_revocation_is_not_cached(host: Host, issuer: Issuer) -> None:
    exchanger = protection_of(host.auth).exchanger
    assert exchanger is not None
    raw = token(issuer)
    issuer.stall(TOKEN, times=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.get, raw)
        await wait_until(lambda: host.calls == 1)
        exchanger.remove_subject(revocation_key("sub", ISS, "alice"))
        issuer.heal()
    await host.get(raw)
    assert host.calls == 2


@pytest.mark.requirement("TX-7")
async def test_a_revoked_caller_keeps_no_token_of_others_out_of_the_cache(host: Host, issuer: Issuer) -> None:
    exchanger, raw = protection_of(host.auth).exchanger, token(issuer, sub="bob")
    assert exchanger is not None
    issuer.stall(TOKEN, times=1)
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(host.get, raw)
            await wait_until(lambda: host.calls == 1)
            exchanger.remove_subject(revocation_key("sub", ISS, "alice"))
        await anyio.wait_all_tasks_blocked()
        issuer.heal()
    await host.get(raw)
    assert host.calls == 1


@pytest.mark.requirement("TX-7")
async def test_an_exchange_from_before_a_change_of_the_subject_is_not_joined_after_it(
    host: Host, issuer: Issuer
) -> None:
    exchanger, raw = protection_of(host.auth).exchanger, token(issuer)
    assert exchanger is not None
    issuer.stall(TOKEN, times=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(host.get, raw)
        await wait_until(lambda: host.calls == 1)
        exchanger.remove_subject(revocation_key("sub", ISS, "alice"))
        with anyio.fail_after(5):
            assert (await host.get(raw)).status == 200
        issuer.heal()
    assert (await host.get(raw)).status == 200
    assert host.calls == 2


@pytest.mark.requirement("TX-7")
async def test_a_revocation_hook_that_fails_is_an_outage(issuer: Issuer) -> None:
    fails: list[bool] = []

    def is_revoked(_: Any) -> bool:
        if fails:
            raise RuntimeError
        return False

    host = Host(issuer, is_revoked=is_revoked)

    async def break_down(auth: MCPAuth) -> Any:
        fails.append(True)
        return await exchange_orders(auth)

    answer = await host.get(handler=break_down)
    assert (answer.status, host.calls) == (503, 0)


# --- failures -------------------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, int, dict[str, Any], int, str | None]] = [
    ("the subject token is refused", 400, {"error": "invalid_grant"}, 401, cht()),
    ("outage", 503, {"error": "x"}, 503, None),
    ("our credentials are refused", 401, {"error": "invalid_client"}, 503, None),
    ("no issued_token_type", 200, {"access_token": "a", "token_type": "Bearer"}, 503, None),
]


@pytest.mark.requirement("TX-7")
@pytest.mark.parametrize(
    ("status", "content", "expected", "challenge"), [pytest.param(*row[1:], id=row[0]) for row in ANSWERS]
)
async def test_a_failure_that_passes_the_app_is_answered(  # noqa: PLR0917 - a row of the table
    host: Host, issuer: Issuer, status: int, content: Any, expected: int, challenge: str | None
) -> None:
    issuer.answer(TOKEN, content, status=status)
    answer = await host.get()
    assert (answer.status, answer.challenge) == (expected, challenge)
    assert (answer.header("retry-after") is not None) is (expected == 503)


@pytest.mark.requirement("TX-7")
async def test_what_only_the_app_can_decide_passes_through(host: Host, issuer: Issuer) -> None:
    issuer.answer(TOKEN, {"error": "invalid_target"}, status=400)
    with pytest.raises(ExchangeError) as caught:
        await host.get()
    assert caught.value.reason is ExchangeReason.INVALID_TARGET


@pytest.mark.requirement("TX-7")
async def test_after_the_start_of_the_response_the_exception_passes_through(host: Host, issuer: Issuer) -> None:
    issuer.fail(TOKEN)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await exchange_orders(host.auth)

    guarded = MCPAuthMiddleware(late, auth=host.auth)
    with pytest.raises(ExchangeError):
        await call(guarded, headers=bearer(token(issuer)))


@pytest.mark.requirement("TX-7")
@pytest.mark.parametrize(
    ("received", "denial", "sent"),
    [
        pytest.param(["connect"], True, ["http.response.start", "http.response.body"], id="after its connect message"),
        pytest.param([], True, ["http.response.start", "http.response.body"], id="before its connect message"),
        pytest.param(["connect"], False, ["close"], id="a server that can only close"),
        pytest.param(["connect", "disconnect"], True, [], id="the client has left"),
    ],
)
async def test_a_failure_in_a_handshake_is_answered(
    host: Host, issuer: Issuer, received: list[str], denial: bool, sent: list[str]
) -> None:
    issuer.answer(TOKEN, {"error": "invalid_grant"}, status=400)

    async def connect(_: Any, receive: Any, __: Any) -> None:
        for name in received:
            assert (await receive())["type"] == f"websocket.{name}"
        await exchange_orders(host.auth)

    guarded = MCPAuthMiddleware(connect, auth=host.auth)
    handshake = await websocket(guarded, headers=bearer(token(issuer)), denial=denial)
    assert [message["type"] for message in handshake.sent] == [f"websocket.{name}" for name in sent]
    assert handshake.denial is None or (handshake.denial.status, handshake.denial.challenge) == (401, cht())


@pytest.mark.requirement("TX-7")
async def test_a_demand_for_consent_carries_its_data(host: Host, issuer: Issuer) -> None:
    claims = '{"access_token":{"acrs":{"essential":true,"value":"c1"}}}'
    content = {"error": "interaction_required", "suberror": "basic_action", "claims": claims}
    issuer.answer(TOKEN, content, status=400)

    async def look(auth: MCPAuth) -> Any:
        with pytest.raises(ExchangeError) as caught:
            await exchange_orders(auth)
        error = caught.value
        return [error.reason.value, error.error, error.suberror, error.claims]

    expected = ["interaction_required", "interaction_required", "basic_action", claims]
    assert (await host.get(handler=look)).json() == expected


@pytest.mark.requirement("TX-7")
async def test_an_outage_opens_the_circuit_breaker_and_is_logged_once(
    host: Host, issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.exchange")
    issuer.fail(TOKEN)
    assert [(await host.get()).status for _ in range(5)] == [503] * 5
    assert host.calls == 3
    issuer.heal()
    clock.now += 60
    assert (await host.get()).status == 200
    events = [(record.levelname, vars(record)["event"]) for record in caplog.records]
    assert events == [("ERROR", "exchange_unavailable"), ("INFO", "exchange_recovered")]


@pytest.mark.requirement("TX-2", "TX-7")
async def test_refused_credentials_are_logged_with_the_fix_once_a_minute(
    host: Host, issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.answer(TOKEN, {"error": "invalid_client"}, status=401)
    assert [(await host.get()).status for _ in range(2)] == [503] * 2
    records = [record for record in caplog.records if vars(record).get("event") == "exchange_unauthorized"]
    assert len(records) == 1
    assert "Fix client_id and the secret of TokenExchange(...)" in records[0].getMessage()
    assert SECRET not in caplog.text


@pytest.mark.requirement("TX-7")
async def test_the_refusal_of_one_users_token_stops_no_one_else(host: Host, issuer: Issuer) -> None:
    issuer.answer(TOKEN, {"error": "access_denied"}, status=403, times=5)
    for _ in range(5):
        assert await host.reason(exchange_orders) == "denied"
    assert (await host.get(handler=exchange_orders)).status == 200


@pytest.mark.requirement("TX-7")
async def test_a_slow_token_endpoint_is_an_outage(issuer: Issuer) -> None:
    host = Host(issuer, [TokenExchange(client_id="c", client_secret=SECRET, timeout=0.1)])
    issuer.stall(TOKEN)
    started = time.perf_counter()
    assert (await host.get()).status == 503
    assert time.perf_counter() - started < 3
    issuer.heal()


@pytest.mark.requirement("TX-7")
async def test_the_number_of_waiting_exchanges_is_bounded(issuer: Issuer) -> None:
    settings = TokenExchange(client_id="c", client_secret=SECRET, max_concurrency=1, max_queue=1)
    host = Host(issuer, [settings])
    issuer.stall(TOKEN)
    statuses: list[int] = []

    async def one(subject: str) -> None:
        statuses.append((await host.get(token(issuer, sub=subject))).status)

    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(one, f"u{number}")
        await wait_until(lambda: len(statuses) == 2)
        issuer.heal()
    assert statuses == [503, 503, 200, 200]


@pytest.mark.requirement("TX-6", "TX-7")
async def test_the_status_counts_exchanges_by_their_outcome(issuer: Issuer, clock: Clock) -> None:
    host = Host(issuer)
    alice, bob = token(issuer), token(issuer, sub="bob")

    def counts() -> Any:
        [status] = host.auth.status().exchanges
        return status.exchanged, status.cached, status.refused, status.failed, status.entries

    assert counts() == (0, 0, {}, 0, 0)
    for raw in (alice, alice, bob, alice):
        await host.get(raw)
    assert counts() == (2, 2, {}, 0, 2)
    clock.now += 280  # the end of the cached tokens is near
    for error, status in (("invalid_target", 400), ("access_denied", 403), ("invalid_target", 400)):
        issuer.answer(TOKEN, {"error": error}, status=status)
        await host.reason(exchange_orders, alice)
    assert counts() == (2, 2, {"invalid_target": 2, "denied": 1}, 0, 2)
    issuer.answer(TOKEN, b"<html>", content_type="text/html")
    await host.reason(exchange_orders, alice)
    assert host.auth.status().exchanges[0].last_error is None
    issuer.fail(TOKEN, status=503)
    await host.reason(exchange_orders, alice)
    assert counts() == (2, 2, {"invalid_target": 2, "denied": 1}, 2, 2)
    answer = await call(host.auth.status_app(), "GET", "/", [("accept", "application/json")])
    [shown] = answer.json()["exchanges"]
    assert shown == {
        "issuer": ISS,
        "entries": 2,
        "exchanged": 2,
        "cached": 2,
        "refused": {"invalid_target": 2, "denied": 1},
        "failed": 2,
        "under_way": 0,
        "failures": 1,
        "retry_in": 0.0,
        "last_error": "The token endpoint answered 503",
    }
    page = (await call(host.auth.status_app(), "GET", "/")).body.decode()
    for part in ("Token exchange", "2 invalid_target, 1 denied", "The token endpoint answered 503"):
        assert part in page
    assert alice not in page


async def test_without_token_exchange_the_status_has_none(issuer: Issuer) -> None:
    auth = protect(issuer, JSONResponse("")).auth
    assert auth.status().exchanges == ()
    assert b"Token exchange" not in (await call(auth.status_app(), "GET", "/")).body


# --- httpx ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("TX-1", "TX-3")
@pytest.mark.every_loop
async def test_one_client_serves_many_callers(host: Host, issuer: Issuer) -> None:
    api = UpstreamAPI(API, issuer, required_scopes=["orders:read"])
    raw = {name: token(issuer, sub=name) for name in ("alice", "bob")}
    async with api.client(host.auth.exchange_auth(audience=API, scopes=["orders:read"], allow=[API])) as client:

        async def call_api(auth: MCPAuth) -> Any:
            return (await client.get(f"{API}/orders")).json()["sub"]

        for name in ("alice", "bob", "alice"):
            assert (await host.get(raw[name], call_api)).json() == name
    assert [caller["sub"] for caller in api.callers] == ["alice", "bob", "alice"]
    sent = {fields["authorization"] for fields in api.requests}
    assert not sent & {f"Bearer {one}" for one in raw.values()}
    assert host.calls == 2


@pytest.mark.requirement("TX-5")
@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://evil.example/orders", id="another host"),
        pytest.param("http://api.example.com/orders", id="http"),
        pytest.param("https://api.example.com:8443/orders", id="another port"),
        pytest.param("https://api.example.com@evil.example/", id="user information"),
        pytest.param("https://api.example.com.evil.example/", id="a longer name"),
    ],
)
async def test_a_request_to_another_origin_is_not_sent(host: Host, issuer: Issuer, url: str) -> None:
    api = UpstreamAPI(API, issuer)
    apps: dict[str, Any] = dict.fromkeys(
        ("https://evil.example", "http://api.example.com", "https://api.example.com:8443"), api
    )
    async with api.client(host.auth.exchange_auth(audience=API, allow=[API]), apps) as client:
        assert await host.reason(lambda _: client.get(url)) == "destination"
    assert (api.requests, host.calls) == ([], 0)


@pytest.mark.requirement("TX-5")
@pytest.mark.parametrize(
    ("method", "location", "follow", "reason", "arrived"),
    [
        pytest.param("GET", "https://evil.example/x", True, "destination", 1, id="followed: an error"),
        pytest.param("POST", "https://evil.example/x", True, "destination", 1, id="a POST"),
        pytest.param("GET", "https://evil.example/back", True, "destination", 1, id="there and back again"),
        pytest.param("GET", "http://api.example.com/x", True, "destination", 1, id="to http"),
        pytest.param("GET", "https://evil.example/x", False, "none", 0, id="not followed"),
        pytest.param("GET", "https://api.example.com/y", True, "none", 0, id="within the origin"),
    ],
)
async def test_redirects(  # noqa: PLR0917 - a row of the table
    host: Host, issuer: Issuer, method: str, location: str, follow: bool, reason: str, arrived: int
) -> None:
    """httpx follows redirects inside of the auth flow; the token never arrives at another origin."""
    elsewhere: list[dict[bytes, bytes]] = []

    async def evil(scope: Any, receive: Any, send: Any) -> None:
        elsewhere.append(dict(scope["headers"]))
        back = scope["path"] == "/back"
        answer = RedirectResponse(f"{API}/y") if back else JSONResponse("stolen")
        await answer(scope, receive, send)

    visited: list[str] = []

    async def api(scope: Any, receive: Any, send: Any) -> None:
        visited.append(scope["path"])
        answer = RedirectResponse(location) if scope["path"] == "/orders" else JSONResponse("fine")
        await answer(scope, receive, send)

    apps = {API: api, "https://evil.example": evil, "http://api.example.com": evil}
    auth = host.auth.exchange_auth(audience=API, allow=[API])
    async with UpstreamAPI(API, issuer).client(auth, apps) as client:

        async def call_it(_: MCPAuth) -> Any:
            return await client.request(method, f"{API}/orders", follow_redirects=follow)

        assert await host.reason(call_it) == reason
    assert len(elsewhere) == arrived
    assert not [fields for fields in elsewhere if b"authorization" in fields]
    assert visited[0] == "/orders"


class RevokingAPI:
    """An API that answers 401 to the tokens in `revoked`, or to every token, and counts requests."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.refuses_all = False
        self.seen: list[tuple[str, bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        sent = dict(scope["headers"])[b"authorization"].decode("ascii").removeprefix("Bearer ")
        self.seen.append((sent, body))
        status = 401 if self.refuses_all or sent in self.revoked else 200
        location = {"location": f"{API}/there"} if scope["path"] == "/redirect" else {}
        await JSONResponse("", 307 if location else status, location)(scope, receive, send)


async def chunks() -> AsyncIterator[bytes]:
    for chunk in (b"one", b"two"):
        yield chunk


@pytest.mark.requirement("TX-6")
@pytest.mark.parametrize(
    ("age", "method", "path", "sends", "statuses", "exchanges", "sent"),
    [
        pytest.param(60, "GET", "/", {}, [200, 200], 2, 3, id="repeated with a new token"),
        pytest.param(60, "POST", "/", {"json": [1]}, [200, 200], 2, 3, id="with a body"),
        pytest.param(60, "POST", "/", {"content": chunks}, [401, 200], 2, 2, id="a stream is not repeated"),
        pytest.param(60, "GET", "/redirect", {}, [401, 200], 2, 4, id="a redirected request is not repeated"),
        pytest.param(9, "GET", "/", {}, [401, 401], 1, 2, id="a token of 9 seconds is kept"),
        pytest.param(-60, "GET", "/", {}, [200, 200], 2, 2, id="the clock was set back: not used in the first place"),
    ],
)
async def test_a_token_that_the_api_refuses_is_exchanged_anew(  # noqa: PLR0917 - a row of the table
    host: Host,
    issuer: Issuer,
    clock: Clock,
    age: float,
    method: str,
    path: str,
    sends: Any,
    statuses: Any,
    exchanges: int,
    sent: int,
) -> None:
    api, raw = RevokingAPI(), token(issuer, exp=int(clock.now) + 900)
    auth = host.auth.exchange_auth(audience=API, scopes=["orders:read"], allow=[API])
    async with UpstreamAPI(API, issuer).client(auth, {API: api}) as client:

        async def call_api(_: MCPAuth) -> Any:
            api.revoked.add(await exchange_orders(host.auth))
            clock.now += age
            found: list[int] = []
            for _n in range(2):
                options = {name: value() if callable(value) else value for name, value in sends.items()}
                response = await client.request(method, f"{API}{path}", follow_redirects=True, **options)
                found.append(response.status_code)
            return found

        assert (await host.get(raw, call_api)).json() == statuses
    assert (host.calls, len(api.seen)) == (exchanges, sent)
    assert len({body for _, body in api.seen}) == 1


@pytest.mark.requirement("TX-6")
async def test_a_token_that_no_api_has_seen_is_not_exchanged_anew(host: Host, issuer: Issuer, clock: Clock) -> None:
    """httpx removes the token from a request that is redirected to another origin, here an allowed one."""
    other, raw = "https://other.example.com", token(issuer, exp=int(clock.now) + 900)
    apps = {API: RedirectResponse(other), other: JSONResponse("", 401)}
    auth = host.auth.exchange_auth(audience=API, allow=[API, other])
    async with UpstreamAPI(API, issuer).client(auth, apps) as client:

        async def call_api(_: MCPAuth) -> Any:
            for _n in range(3):
                assert (await client.get(API, follow_redirects=True)).status_code == 401
                clock.now += 20

        await host.get(raw, call_api)
    assert host.calls == 1


@pytest.mark.requirement("TX-6")
async def test_an_api_that_refuses_every_token_causes_no_flood_of_exchanges(
    host: Host, issuer: Issuer, clock: Clock
) -> None:
    api, raw = RevokingAPI(), token(issuer, exp=int(clock.now) + 900)
    api.refuses_all = True
    auth = host.auth.exchange_auth(audience=API, allow=[API])
    async with UpstreamAPI(API, issuer).client(auth, {API: api}) as client:

        async def call_api(_: MCPAuth) -> Any:
            for _n in range(60):  # a minute
                assert (await client.get(API)).status_code == 401
                clock.now += 1
            async with anyio.create_task_group() as tasks:
                for _n in range(50):
                    tasks.start_soon(client.get, API)
            return host.calls

        assert (await host.get(raw, call_api)).json() == 7
    assert 110 <= len(api.seen) <= 110 + 6 + 50


@pytest.mark.requirement("TX-6")
@pytest.mark.parametrize("exchanged", [0, 1], ids=["the first token", "after a cached token, which has ended"])
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"expires_in": None}, id="without expires_in"),
        pytest.param({"expires_in": 20}, id="with an end that is too near"),
    ],
)
async def test_a_token_that_is_not_cached_is_not_exchanged_twice(
    host: Host, issuer: Issuer, clock: Clock, answer: Any, exchanged: int
) -> None:
    raw = token(issuer, exp=int(clock.now) + 900)
    for _ in range(exchanged):
        await host.reason(lambda auth: auth.exchange(audience=API), raw)
        clock.now += 300
    good = {
        "access_token": "short",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
    }
    issuer.answer(TOKEN, {name: value for name, value in (good | answer).items() if value is not None})
    api = RevokingAPI()
    api.refuses_all = True
    auth = host.auth.exchange_auth(audience=API, allow=[API])
    async with UpstreamAPI(API, issuer).client(auth, {API: api}) as client:
        status = await host.get(raw, lambda _: status_of(client.get(API)))
    assert (status.json(), len(api.seen), host.calls) == (401, 1, 1 + exchanged)


async def status_of(response: Awaitable[httpx.Response]) -> int:
    return (await response).status_code


@pytest.mark.requirement("TX-6", "TX-7")
async def test_a_refused_token_of_a_caller_whose_token_is_refused_too_is_an_error(
    host: Host, issuer: Issuer, clock: Clock
) -> None:
    api, raw = RevokingAPI(), token(issuer, exp=int(clock.now) + 900)
    auth = host.auth.exchange_auth(audience=API, scopes=["orders:read"], allow=[API])
    async with UpstreamAPI(API, issuer).client(auth, {API: api}) as client:

        async def call_api(_: MCPAuth) -> Any:
            api.revoked.add(await exchange_orders(host.auth))
            clock.now += 60
            issuer.answer(TOKEN, {"error": "invalid_grant"}, status=400)
            return await client.get(API)

        assert await host.reason(call_api, raw) == "subject_refused"
    assert len(api.seen) == 1


@pytest.mark.requirement("TX-6")
async def test_an_app_reports_a_refused_token_itself(host: Host, issuer: Issuer, clock: Clock) -> None:
    raw, callers = token(issuer, exp=int(clock.now) + 900), list[Caller]()

    async def renew(auth: MCPAuth) -> Any:
        callers.append(auth.caller())
        first = await auth.exchange(audience=API)
        young = await auth.exchange(audience=API, refused=first)
        clock.now += 10
        other = await auth.exchange(audience=API, scopes=["orders:read"], refused=first)
        second = await auth.exchange(audience=API, refused=first)
        late = await auth.exchange(audience=API, refused=first)  # renewed in the meantime
        found = [first, young, other, second, late]
        return [len({one.access_token for one in found[:number]}) for number in range(1, 6)]

    assert (await host.get(raw, renew)).json() == [1, 1, 2, 3, 3]
    assert host.calls == 3
    clock.now += 10
    cached = await host.auth.exchange(audience=API, caller=callers[0])
    with pytest.raises(ExchangeError) as ended:  # after the request no token can be exchanged
        await host.auth.exchange(audience=API, caller=callers[0], refused=cached)
    assert ended.value.reason == "request_ended"


@pytest.mark.requirement("TX-5")
async def test_the_allow_list_is_checked_at_construction(host: Host) -> None:
    with pytest.raises(ConfigurationError, match="neither an origin nor a domain suffix"):
        host.auth.exchange_auth(audience=API, allow=["api.example.com"])


async def test_a_synchronous_client_is_refused(host: Host) -> None:
    with (
        httpx.Client(auth=host.auth.exchange_auth(audience=API, allow=API)) as client,
        pytest.raises(RuntimeError, match=r"httpx\.AsyncClient"),
    ):
        client.get(API)  # noqa: ASYNC212 - refused


# --- configuration --------------------------------------------------------------------------------------------------

PROBLEMS: list[tuple[str, Any, list[str]]] = [
    ("no credentials", TokenExchange(), ["token_exchange[0]"]),
    ("no client id", TokenExchange(client_secret="x"), ["token_exchange[0].client_id"]),
    ("two secrets", TokenExchange(client_id="c", client_secret="x", private_key="y"), ["token_exchange[0]"]),
    (
        "an unknown issuer",
        TokenExchange(issuer="https://x.example", client_id="c", client_secret="x"),
        ["token_exchange[0].issuer"],
    ),
    (
        "an http endpoint",
        TokenExchange(client_id="c", client_secret="x", endpoint="http://a.example/t"),
        ["token_exchange[0].endpoint"],
    ),
    (
        "an audience that is none",
        TokenExchange(client_id="c", client_secret="x", assertion_audience="token_endpoint"),  # type: ignore[arg-type]
        ["token_exchange[0].assertion_audience"],
    ),
    ("a key that is none", TokenExchange(client_id="c", private_key="secret-pem"), ["token_exchange[0].private_key"]),
    (
        "several at once",
        TokenExchange(client_id="c", client_secret="x", grant="x", margin=-1, timeout=99, cache_size=-1),  # type: ignore[arg-type]
        [
            "token_exchange[0].cache_size",
            "token_exchange[0].grant",
            "token_exchange[0].margin",
            "token_exchange[0].timeout",
        ],
    ),
    ("a dict", {"client_id": "c"}, ["token_exchange[0]"]),
]


@pytest.mark.requirement("TX-2")
@pytest.mark.parametrize(("settings", "where"), [pytest.param(*row[1:], id=row[0]) for row in PROBLEMS])
def test_all_problems_are_reported_at_construction(issuer: Issuer, settings: Any, where: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Host(issuer, [settings])
    assert sorted(problem.where for problem in caught.value.problems) == where
    assert "secret-pem" not in str(caught.value)


@pytest.mark.requirement("TX-4")
def test_an_issuer_has_one_setting(issuer: Issuer) -> None:
    with pytest.raises(ConfigurationError, match="two settings"):
        Host(issuer, [SETTINGS, SETTINGS])


def test_without_the_option_exchange_is_a_configuration_error(issuer: Issuer) -> None:
    auth = Host(issuer, ()).auth
    with pytest.raises(ConfigurationError, match="Set token_exchange"):
        auth.exchange_auth(audience=API, allow=[API])


@pytest.mark.requirement("TX-2")
def test_the_settings_can_be_written_in_a_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXCHANGE_SECRET", SECRET)
    (tmp_path / "auth.toml").write_text(
        f"""
        resource = "{R}"
        authorization_servers = ["{ISS}"]
        [[token_exchange]]
        client_id = "mcp-server"
        client_secret = {{from_env = "EXCHANGE_SECRET"}}
        grant = "on_behalf_of"
        """,
        "utf-8",
    )
    auth = MCPAuth.from_toml(tmp_path / "auth.toml")
    assert protection_of(auth).config.exchanges[0].authentication.secret == SECRET
    assert SECRET not in repr(protection_of(auth).config.exchanges)


# --- inside the tools of MCP servers --------------------------------------------------------------------------------


def sdk_app(tool: Any, **options: Any) -> Any:
    server = MCPServer("orders")
    server.add_tool(tool)
    security = TransportSecuritySettings(allowed_hosts=["mcp.example.com"])
    return server.streamable_http_app(transport_security=security, **options)


def fastmcp_app(tool: Any, **options: Any) -> Any:
    server: Any = FastMCP("orders")
    server.tool(tool)
    return server.http_app(**options)


@pytest.mark.requirement("TX-1", "TX-4")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="sessions and event streams"),
        pytest.param({"stateless_http": True, "json_response": True}, id="no sessions, JSON"),
    ],
)
@pytest.mark.parametrize("make", [pytest.param(sdk_app, id="MCP SDK"), pytest.param(fastmcp_app, id="fastmcp")])
async def test_a_tool_calls_an_api_for_its_caller(issuer: Issuer, make: Any, options: dict[str, Any]) -> None:
    """Two callers on one server: each call of the API has the caller's subject."""
    api = UpstreamAPI(API, issuer, required_scopes=["orders:read"])

    async def orders() -> str:
        sending = guarded.auth.exchange_auth(audience=API, scopes=["orders:read"], allow=[API])
        async with api.client(sending) as client:
            return str((await client.get(f"{API}/orders")).json()["sub"])

    guarded = protect(issuer, make(orders, **options), token_exchange=[SETTINGS])
    async with running(guarded) as started:
        for subject in ("alice", "bob"):
            raw = token(issuer, sub=subject)
            assert (await call_tool(started, R, "orders", token=raw)).text == subject
    assert [fields["authorization"].startswith("Bearer ey") for fields in api.requests] == [True, True]
    exchanger = protection_of(guarded.auth).exchanger
    assert exchanger is not None
    assert not exchanger._running


@pytest.mark.requirement("TX-4")
@pytest.mark.parametrize("make", [pytest.param(sdk_app, id="MCP SDK"), pytest.param(fastmcp_app, id="fastmcp")])
async def test_an_anonymous_call_of_a_public_tool_cannot_exchange(issuer: Issuer, make: Any) -> None:
    async def orders() -> str:
        return await reason_of(exchange_orders(guarded.auth))

    guarded = protect(issuer, make(orders), token_exchange=[SETTINGS], public_tools=["orders"])
    async with running(guarded) as started:
        assert (await call_tool(started, R, "orders")).text == "no_caller"
    assert issuer.requests[TOKEN] == 0


@pytest.mark.requirement("TX-1", "TX-7")
async def test_the_recipe_calls_the_api_and_turns_a_demand_for_consent_into_an_elicitation(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CLIENT_SECRET": SECRET, "ISSUER": ISS, "API": API}.items():
        monkeypatch.setenv(name, value)
    path = Path(asgi_mcp_auth.__file__).parent / "recipes" / "upstream_api.py"
    recipe: dict[str, Any] = {}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), recipe)
    guarded: MCPAuthMiddleware = recipe["app"]
    resource, seen = "http://127.0.0.1:8000/mcp", list[str]()

    async def api(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"authorization"].decode())
        await JSONResponse({"orders": ["milk"]})(scope, receive, send)

    recipe["orders"] = UpstreamAPI(API, issuer).client(recipe["orders"].auth, {API: api})
    monkeypatch.setattr(issuer, "clock", time.time)  # of the recipe
    with without_network(guarded.auth, issuer):
        async with running(guarded) as started:
            raw = issuer.mint(resource, scope="notes:read")
            assert (await call_tool(started, resource, "list_orders", token=raw)).text == "milk"
            assert seen
            assert raw not in seen[0]
            issuer.answer(TOKEN, {"error": "consent_required"}, status=400)
            another = issuer.mint(resource, scope="notes:read")
            message = (await call_tool(started, resource, "list_orders", token=another)).message
    assert message is not None
    assert message["error"]["code"] == -32042
    assert message["error"]["data"]["elicitations"][0]["url"] == "https://mcp.example.com/consent"
