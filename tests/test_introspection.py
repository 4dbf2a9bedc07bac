"""Opaque tokens: the choice of a verifier by shape, and introspection (RFC 7662, RFC 9701) in process."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any
from urllib.parse import parse_qs

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from harness import INVALID, ISS, Answer, Clock, R, RecordingApp, bearer, call, cht, protect, token

from asgi_mcp_auth import (
    AuthServerConfig,
    Choose,
    ConfigurationError,
    Introspection,
    MCPAuth,
    MCPAuthMiddleware,
    MemoryStore,
    Reason,
    ResourceServerConfig,
    ResourceServerMetadata,
    Verified,
)
from asgi_mcp_auth._oauth.http_cache import CircuitBreaker
from asgi_mcp_auth._verify.introspection_verifier import IntrospectionVerifier
from asgi_mcp_auth.auth import protection_of
from asgi_mcp_auth.cli import main
from asgi_mcp_auth.context import revocation_key
from asgi_mcp_auth.doctor import explain
from asgi_mcp_auth.stores._contract import Use
from asgi_mcp_auth.stores._shared import SharedStore, StoreUse
from asgi_mcp_auth.testing import Issuer, SigningKey

pytestmark = pytest.mark.anyio

PATH = "/introspect"
SECRET = "s3cr%t:+/"
REFUSED = (401, cht(INVALID))


def ask_server(**changes: Any) -> Choose:
    """Return a choice that introspects opaque tokens."""
    settings: dict[str, Any] = {"client_id": "rs", "client_secret": SECRET}
    return Choose(opaque=Introspection(**(settings | changes)))


def guard(issuer: Issuer, *, app: Any = None, clock: Any = None, **changes: Any) -> MCPAuthMiddleware:
    options = {name: changes.pop(name) for name in ("authorization_servers", "expose_token") if name in changes}
    return protect(issuer, app or RecordingApp(), clock=clock, verifier=ask_server(**changes), **options)


def opaque(issuer: Issuer, audience: Any = R, **claims: Any) -> str:
    return issuer.mint_opaque(audience, **({"scope": "mcp:read"} | claims))


async def outcome(guarded: Any, raw: str, **more: Any) -> tuple[int, str | None]:
    answer = await call(guarded, headers=bearer(raw), **more)
    return answer.status, answer.challenge or answer.header("retry-after")


def introspection(guarded: MCPAuthMiddleware) -> Any:
    return guarded.auth.status().resources[0].introspection


# --- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("CK-1", "RS-167")
async def test_a_jwt_is_verified_locally_and_a_tampered_one_causes_no_call(issuer: Issuer) -> None:
    guarded = guard(issuer)
    good = token(issuer)
    assert await outcome(guarded, good) == (200, None)
    assert await outcome(guarded, good[:-4] + "AAAA") == REFUSED
    assert await outcome(guarded, "a.b.c") == REFUSED
    assert issuer.requests[PATH] == 0


@pytest.mark.requirement("CK-1", "RS-160")
async def test_an_opaque_token_is_introspected_once(issuer: Issuer) -> None:
    app = RecordingApp()
    guarded = guard(issuer, app=app)
    raw = opaque(issuer)
    assert await outcome(guarded, raw) == (200, None)
    assert await outcome(guarded, raw) == (200, None)
    assert (issuer.requests[PATH], app.calls) == (1, 2)
    assert app.scopes[0]["state"]["claims"]["sub"] == "alice"
    assert "active" not in app.scopes[0]["state"]["claims"]


@pytest.mark.requirement("CK-1")
async def test_an_opaque_token_without_introspection_is_refused_and_the_log_names_the_setting(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = protect(issuer, RecordingApp())
    assert await outcome(guarded, opaque(issuer)) == REFUSED
    assert "verifier=Choose(opaque=Introspection(...))" in caplog.text
    assert issuer.requests[PATH] == 0


@pytest.mark.requirement("CK-5")
async def test_the_challenge_stays_the_oauth_one(issuer: Issuer) -> None:
    without, plain = guard(issuer), protect(issuer, RecordingApp())
    assert (await call(without)).challenge == (await call(plain)).challenge
    assert await outcome(without, "unknown") == REFUSED


class Recorder:
    """A verifier of the user's own that calls another one."""

    def __init__(self, inner: Any = None) -> None:
        self.inner = inner
        self.asked: list[bytes] = []

    async def verify(self, credential: Any, request: Any) -> Any:
        self.asked.append(credential.token)
        return await self.inner.verify(credential, request)


@pytest.mark.requirement("CK-2")
async def test_the_jwt_verifier_is_a_value_that_a_verifier_of_the_user_wraps(issuer: Issuer) -> None:
    inner = protect(issuer, RecordingApp()).auth.jwt_verifier()
    recorder, other = Recorder(inner), Recorder(inner)
    guarded = protect(issuer, RecordingApp(), verifier=Choose(jwt=recorder, opaque=other))
    assert await outcome(guarded, token(issuer)) == (200, None)
    assert await outcome(guarded, "opaque") == REFUSED
    assert (len(recorder.asked), other.asked) == (1, [b"opaque"])


@pytest.mark.requirement("CK-2", "IN-1")
async def test_each_resource_has_its_verifier_and_its_cache(issuer: Issuer) -> None:
    """The same token: `aud` is `R`, so it passes there and is refused on another resource."""
    second = "https://mcp.example.com/other"
    configs = [
        ResourceServerConfig(
            metadata=ResourceServerMetadata(resource=resource, authorization_servers=[ISS]),
            verifier=ask_server(),
        )
        for resource in (R, second)
    ]
    third = ResourceServerMetadata(resource="https://mcp.example.com/jwt", authorization_servers=[ISS])
    auth = MCPAuth([*configs, ResourceServerConfig(metadata=third)], http_client=issuer.http_client, clock=issuer.clock)
    app, raw = auth.wrap(RecordingApp()), opaque(issuer)
    for _ in range(2):
        statuses = [(await outcome(app, raw, path=path))[0] for path in ("/mcp", "/other", "/jwt")]
        assert statuses == [200, 401, 401]
    assert issuer.requests[PATH] == 2


async def test_without_jwt_a_jws_counts_as_opaque(issuer: Issuer) -> None:
    verifier = Choose(jwt=False, opaque=ask_server().opaque)
    guarded = protect(issuer, RecordingApp(), verifier=verifier)
    assert await outcome(guarded, token(issuer)) == REFUSED
    assert await outcome(guarded, opaque(issuer)) == (200, None)
    assert (issuer.requests[PATH], issuer.requests["/jwks"]) == (2, 0)
    assert guarded.auth.status().ready


PEM = (
    rsa.generate_private_key(65537, 2048)
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)


@pytest.mark.parametrize(
    ("choice", "where"),
    [
        pytest.param(Choose(opaque=Introspection()), "verifier.opaque", id="no credentials"),
        pytest.param(
            Choose(opaque=Introspection(client_id="rs", client_secret="s", bearer_token="t")),
            "verifier.opaque",
            id="two credentials",
        ),
        pytest.param(Choose(opaque=Introspection(client_secret="s")), "verifier.opaque.client_id", id="no client id"),
        pytest.param(ask_server(auth_method="bearer"), "verifier.opaque.auth_method", id="method of another secret"),
        pytest.param(ask_server(issuer="https://x.example"), "verifier.opaque.issuer", id="unknown issuer"),
        pytest.param(ask_server(endpoint="http://auth.example.com/i"), "verifier.opaque.endpoint", id="plain http"),
        pytest.param(ask_server(ttl=301), "verifier.opaque.ttl", id="ttl"),
        pytest.param(ask_server(max_concurrency=0), "verifier.opaque.max_concurrency", id="concurrency"),
        pytest.param(ask_server(signed="yes"), "verifier.opaque.signed", id="a text for a bool"),
        pytest.param(
            Choose(opaque=Introspection(client_id="rs", private_key="no PEM")), "verifier.opaque.private_key", id="key"
        ),
        pytest.param(
            Choose(opaque=Introspection(client_id="rs", private_key=PEM, algorithm="ES256")),
            "verifier.opaque.private_key",
            id="key of another algorithm",
        ),
        pytest.param(Choose(opaque=1), "verifier.opaque", id="no verifier"),
        pytest.param(Choose(jwt=None), "verifier.jwt", id="no JWT verifier"),
        pytest.param(Choose(jwt=False), "verifier", id="nothing"),
        pytest.param(
            Choose(jwt=False, opaque=ask_server(always=True).opaque), "verifier.opaque.always", id="always alone"
        ),
    ],
)
@pytest.mark.requirement("CK-2", "IN-6")
def test_a_choice_that_cannot_work_is_a_problem_without_secrets(issuer: Issuer, choice: Choose, where: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        protect(issuer, RecordingApp(), verifier=choice)
    assert [problem.where for problem in caught.value.problems] == [where]
    for secret in (SECRET, "no PEM", "PRIVATE KEY"):
        assert secret not in str(caught.value)
        assert secret not in repr(choice)


@pytest.mark.requirement("IN-6")
async def test_the_settings_come_from_a_file_with_the_secret_from_the_environment(
    issuer: Issuer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, blocking_calls: None
) -> None:
    monkeypatch.setenv("RS_SECRET", SECRET)
    file = tmp_path / "auth.toml"
    file.write_text(
        f'resource = "{R}"\nauthorization_servers = ["{ISS}"]\n'
        '[verifier.opaque]\nclient_id = "rs"\nclient_secret = {from_env = "RS_SECRET"}\nttl = 30\n'
    )
    auth = MCPAuth.from_toml(file, http_client=issuer.http_client, clock=issuer.clock)
    assert await outcome(auth.wrap(RecordingApp()), opaque(issuer)) == (200, None)
    assert SECRET not in repr(auth.configs)
    variables = {
        "MCP_AUTH_RESOURCE": R,
        "MCP_AUTH_AUTHORIZATION_SERVERS": ISS,
        "MCP_AUTH_VERIFIER": '{"opaque": {"client_id": "rs", "client_secret": {"from_env": "RS_SECRET"}}}',
    }
    auth = MCPAuth.from_env(variables, http_client=issuer.http_client, clock=issuer.clock)
    assert await outcome(auth.wrap(RecordingApp()), opaque(issuer)) == (200, None)


# --- the request ----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("RS-160", "IN-6")
@pytest.mark.parametrize(
    ("changes", "supported", "expected"),
    [
        pytest.param({}, None, "Basic cnM6czNjciUyNXQlM0ElMkIlMkY=", id="client_secret_basic, form-encoded"),
        pytest.param({}, ["client_secret_post"], "rs s3cr%25t%3A%2B%2F", id="client_secret_post, from the metadata"),
        pytest.param({"auth_method": "client_secret_post"}, None, "rs s3cr%25t%3A%2B%2F", id="client_secret_post"),
        pytest.param({"client_secret": None, "bearer_token": "tok"}, None, "Bearer tok", id="bearer"),
        pytest.param(
            {"client_secret": None, "private_key": PEM, "key_id": "k1"}, None, f"for {ISS}", id="private_key_jwt"
        ),
        pytest.param(
            {"client_secret": None, "private_key": PEM, "assertion_audience": "endpoint"},
            None,
            f"for {ISS}{PATH}",
            id="private_key_jwt for the endpoint",
        ),
    ],
)
async def test_the_resource_authenticates(
    issuer: Issuer, changes: dict[str, Any], supported: list[str] | None, expected: str
) -> None:
    if supported is not None:
        issuer.metadata["introspection_endpoint_auth_methods_supported"] = supported
    seen: list[Any] = []

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        if scope["path"] == PATH:
            seen.append((dict(scope["headers"]), message["body"].decode()))

        async def again() -> Any:
            return message

        await issuer(scope, again, send)

    import httpx

    guarded = protect(
        issuer,
        RecordingApp(),
        verifier=ask_server(**changes),
        http_client=lambda: httpx.AsyncClient(transport=httpx.ASGITransport(app=spy)),
    )
    raw = opaque(issuer)
    assert await outcome(guarded, raw) == (200, None)
    headers, form = seen[0]
    assert headers[b"content-type"] == b"application/x-www-form-urlencoded"
    assert headers[b"accept"] == b"application/json"
    assert form.startswith(f"token={raw}&token_type_hint=access_token")
    if expected.startswith("for "):
        [assertion] = parse_qs(form)["client_assertion"]
        claims = jwt.decode(assertion, options={"verify_signature": False})
        assert claims["aud"] == expected.removeprefix("for ")
        assert "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer" in form
        assert "client_id=rs" in form
    elif " " in expected and not expected.startswith("rs"):
        assert headers[b"authorization"].decode() == expected
    else:
        client_id, secret = expected.split(" ")
        assert form.endswith(f"&client_id={client_id}&client_secret={secret}")
    assert SECRET not in repr(guarded.auth.status())


async def test_the_endpoint_can_be_configured(issuer: Issuer) -> None:
    del issuer.metadata["introspection_endpoint"]
    assert (await outcome(guard(issuer), opaque(issuer)))[0] == 503
    assert await outcome(guard(issuer, endpoint=ISS + PATH), opaque(issuer)) == (200, None)


# --- the answer -----------------------------------------------------------------------------------------------------


@pytest.mark.requirement("RS-161", "RS-162", "IN-2")
@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({"aud": "https://other.example"}, Reason.WRONG_AUDIENCE, id="another audience"),
        pytest.param({"aud": None}, Reason.MISSING_CLAIM, id="no audience"),
        pytest.param({"iss": "https://other.example"}, Reason.UNKNOWN_ISSUER, id="another issuer"),
        pytest.param({"sub": ...}, Reason.MISSING_CLAIM, id="no subject"),
        pytest.param({"nbf": 2_000_000_000_000}, Reason.MALFORMED_CLAIM, id="nbf in milliseconds"),
        pytest.param({"cnf": {"jkt": "x"}}, Reason.SENDER_CONSTRAINED, id="bound by DPoP, under Bearer"),
        pytest.param({"token_type": "DPoP"}, Reason.SENDER_CONSTRAINED, id="a DPoP token under Bearer"),
        pytest.param({"token_type": "N_A"}, Reason.WRONG_TOKEN_KIND, id="no access token"),
        pytest.param({"typ": "Refresh"}, Reason.WRONG_TOKEN_KIND, id="a refresh token"),
        pytest.param({"active": False}, Reason.INACTIVE_TOKEN, id="inactive"),
    ],
)
async def test_the_members_of_an_answer_are_checked_like_claims(
    issuer: Issuer, claims: dict[str, Any], reason: Reason
) -> None:
    guarded = guard(issuer)
    audience = claims.pop("aud", R)
    raw = opaque(issuer, audience, **claims)
    for _ in range(2):
        assert await outcome(guarded, raw) == REFUSED
    status = introspection(guarded)
    assert (status.calls, status.inactive, status.refusals) == (1, 1, {reason.value: 2})


async def test_an_answer_without_audience_passes_if_the_issuer_checks_it_and_names_a_token_type(issuer: Issuer) -> None:
    guarded = guard(issuer, issuer_checks_audience=True)
    assert await outcome(guarded, opaque(issuer, None)) == (200, None)
    assert (await outcome(guarded, opaque(issuer, None, token_type=...)))[0] == 401


async def test_an_answer_without_issuer_and_expiry_passes(issuer: Issuer) -> None:
    app = RecordingApp()
    assert await outcome(guard(issuer, app=app), opaque(issuer, iss=..., exp=...)) == (200, None)
    assert app.scopes[0]["state"]["mcp_auth"].expires_at is None


UNUSABLE = [
    pytest.param({"body": b'{"active": true, "active": false}'}, id="a duplicate member"),
    pytest.param({"body": {"active": "true"}}, id="a text for a boolean"),
    pytest.param({"body": {"active": 1}}, id="a number for a boolean"),
    pytest.param({"body": b"[]"}, id="no object"),
    pytest.param({"body": b'{"active": true, "x": "' + b"x" * 65_536 + b'"}'}, id="more than 64 KiB"),
    pytest.param({"body": {"active": True}, "content_type": "text/html"}, id="another media type"),
    pytest.param({"body": {}, "status": 302, "headers": {"location": "https://evil.example/"}}, id="a redirect"),
    pytest.param({"body": {"error": "invalid_request"}, "status": 400}, id="400"),
    pytest.param(
        {"body": b"a.b.c", "content_type": "application/token-introspection+jwt"}, id="signed where plain is expected"
    ),
]


@pytest.mark.requirement("IN-8", "RS-161", "RS-163")
@pytest.mark.parametrize("fault", UNUSABLE)
async def test_an_answer_that_cannot_be_used_is_a_503_and_not_cached(issuer: Issuer, fault: dict[str, Any]) -> None:
    guarded, raw = guard(issuer), opaque(issuer)
    issuer.answer(PATH, **fault)
    assert await outcome(guarded, raw) == (503, "1")
    issuer.heal()
    assert await outcome(guarded, raw) == (200, None)


@pytest.mark.requirement("IN-7", "RS-165")
async def test_signed_answers_are_verified(issuer: Issuer) -> None:
    guarded = guard(issuer, signed=True)
    assert await outcome(guarded, opaque(issuer)) == (200, None)
    assert await outcome(guarded, "unknown") == REFUSED
    assert issuer.requests["/jwks"] == 1


def signed(issuer: Issuer, *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> bytes:
    signer = key or issuer.keys[0]
    members: dict[str, Any] = {"alg": signer.alg, "kid": issuer.keys[0].kid, "typ": "token-introspection+jwt"}
    body: dict[str, Any] = {
        "iss": ISS,
        "aud": "rs",
        "iat": issuer.clock(),
        "token_introspection": {"active": True, **issuer.claims(R, scope="mcp:read")},
    }
    claims = {name: value for name, value in (body | claims).items() if value is not ...}
    return issuer.sign(members | (header or {}), claims, key=signer).encode()


def signed_an_hour_ago(issuer: Issuer) -> bytes:
    """Return an answer that may be an old one, played again."""
    return signed(issuer, iat=issuer.clock() - 3600)


def no_jwt(_: Issuer) -> bytes:
    """Return an answer that is no JWT."""
    return b"no JWT"


@pytest.mark.requirement("IN-7", "RS-165")
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(signed, 200, id="as RFC 9701 has it"),
        pytest.param(partial(signed, aud=["x", R]), 200, id="aud is the resource"),
        pytest.param(partial(signed, header={"typ": "at+jwt"}), 503, id="another typ"),
        pytest.param(partial(signed, header={"typ": "JWT"}), 503, id="typ JWT"),
        pytest.param(partial(signed, iss="https://other.example"), 503, id="another iss"),
        pytest.param(partial(signed, aud="other"), 503, id="another aud"),
        pytest.param(signed_an_hour_ago, 503, id="an old iat"),
        pytest.param(partial(signed, iat=...), 503, id="no iat"),
        pytest.param(partial(signed, key=SigningKey("RS256")), 503, id="a wrong signature"),
        pytest.param(partial(signed, header={"kid": "other"}), 503, id="an unknown key"),
        pytest.param(partial(signed, token_introspection=..., active=True), 503, id="claims outside the member"),
        pytest.param(partial(signed, token_introspection={"active": "true"}), 503, id="a text for a boolean"),
        pytest.param(no_jwt, 503, id="no JWT"),
    ],
)
async def test_a_signed_answer_that_cannot_be_verified_is_a_503(
    issuer: Issuer, make: Callable[[Issuer], bytes], expected: int
) -> None:
    guarded = guard(issuer, signed=True)
    issuer.answer(PATH, make(issuer), content_type="application/token-introspection+jwt")
    assert (await outcome(guarded, "opaque"))[0] == expected


@pytest.mark.requirement("IN-7")
async def test_a_plain_answer_where_a_signed_one_is_required_is_a_503(issuer: Issuer) -> None:
    guarded = guard(issuer, signed=True)
    issuer.answer(PATH, {"active": True, **issuer.claims(R, scope="mcp:read")})
    assert (await outcome(guarded, "opaque"))[0] == 503


# --- caching --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("IN-3", "RS-164")
async def test_answers_expire(issuer: Issuer, clock: Clock) -> None:
    issuer.clock = clock
    guarded = guard(issuer, clock=clock)
    raw = opaque(issuer, exp=clock.now + 100)
    assert await outcome(guarded, raw) == (200, None)
    clock.now += 59
    issuer.revoke(raw)
    assert await outcome(guarded, raw) == (200, None)  # cached for a minute
    clock.now += 1
    assert await outcome(guarded, raw) == REFUSED
    clock.now += 11
    assert await outcome(guarded, raw) == REFUSED
    assert issuer.requests[PATH] == 3  # inactive answers are cached for ten seconds


@pytest.mark.requirement("IN-3", "RS-164")
async def test_no_answer_is_used_past_exp(issuer: Issuer, clock: Clock) -> None:
    issuer.clock = clock
    guarded = guard(issuer, clock=clock)
    raw = opaque(issuer, exp=clock.now + 5)
    assert await outcome(guarded, raw) == (200, None)
    clock.now += 5
    assert await outcome(guarded, raw) == REFUSED
    assert issuer.requests[PATH] == 2


@pytest.mark.requirement("IN-3")
async def test_inactive_answers_are_bounded_and_evict_no_active_one(issuer: Issuer) -> None:
    guarded, raw = guard(issuer, cache_size=5), opaque(issuer)
    await outcome(guarded, raw)
    for number in range(20):
        assert await outcome(guarded, f"unknown{number}") == REFUSED
    calls = issuer.requests[PATH]
    assert await outcome(guarded, raw) == (200, None)
    assert issuer.requests[PATH] == calls == 21
    assert (introspection(guarded).active, introspection(guarded).inactive) == (1, 5)


@pytest.mark.every_loop
@pytest.mark.requirement("IN-5")
async def test_a_hundred_callers_with_one_token_cause_one_call_and_the_first_may_leave(issuer: Issuer) -> None:
    guarded, raw = guard(issuer), opaque(issuer)
    issuer.stall(PATH, seconds=0.3)
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await call(guarded, headers=bearer(raw)))

    async with anyio.create_task_group() as group:
        first = anyio.CancelScope()

        async def leave() -> None:
            with first:
                await one()

        group.start_soon(leave)
        await anyio.sleep(0.05)
        for _ in range(99):
            group.start_soon(one)
        await anyio.sleep(0.05)
        first.cancel()
    assert [answer.status for answer in answers] == [200] * 99
    assert issuer.requests[PATH] == 1


@pytest.mark.every_loop
@pytest.mark.requirement("IN-8", "RS-166")
async def test_calls_at_once_and_waiting_tokens_are_bounded(issuer: Issuer) -> None:
    guarded = guard(issuer, max_concurrency=2, max_queue=3)
    issuer.stall(PATH, seconds=0.3)
    statuses: list[int] = []

    async def one(raw: str) -> None:
        statuses.append((await outcome(guarded, raw))[0])

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(one, f"unknown{number}")
        await anyio.sleep(0.15)
        assert issuer.requests[PATH] == 2
        assert statuses == [503] * 15
    assert sorted(statuses) == [401] * 5 + [503] * 15
    assert issuer.requests[PATH] == 5


@pytest.mark.requirement("RS-166")
@pytest.mark.parametrize("raw", [pytest.param("a b", id="two words"), pytest.param("x" * 16_385, id="too long")])
async def test_what_is_no_token_is_never_introspected(issuer: Issuer, raw: str) -> None:
    assert (await outcome(guard(issuer), raw))[0] == 400
    assert issuer.requests[PATH] == 0


# --- outages --------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("IN-4", "RS-163")
async def test_an_outage_is_a_503_and_the_circuit_breaker_spares_the_server(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_mcp_auth.introspection")
    issuer.clock = clock
    guarded, known, new = guard(issuer, clock=clock), opaque(issuer), opaque(issuer)
    await outcome(guarded, known)
    issuer.fail(PATH, status=500)
    for _ in range(3):
        assert await outcome(guarded, new) == (503, "1")
    assert await outcome(guarded, known) == (200, None)  # cached
    calls = issuer.requests[PATH]
    for _ in range(5):
        assert await outcome(guarded, new) == (503, "1")
    assert issuer.requests[PATH] == calls == 4
    assert not guarded.auth.status().ready
    answer = await call(guarded.auth.readiness_app())
    assert answer.status == 503
    issuer.heal()
    clock.now += 1
    assert await outcome(guarded, new) == (200, None)
    assert guarded.auth.status().ready
    events = [(record.levelname, vars(record)["event"]) for record in caplog.records if hasattr(record, "event")]
    assert events == [("ERROR", "introspection_unavailable"), ("INFO", "introspection_recovered")]


@pytest.mark.requirement("IN-4", "RS-163")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(401, {}, id="401"),
        pytest.param(403, {}, id="403"),
        pytest.param(400, {"error": "invalid_client"}, id="400 invalid_client"),
    ],
)
async def test_refused_credentials_of_ours_are_a_503_and_one_error_a_minute(
    issuer: Issuer, clock: Clock, caplog: pytest.LogCaptureFixture, status: int, body: dict[str, Any]
) -> None:
    issuer.clock = clock
    guarded, raw = guard(issuer, clock=clock), opaque(issuer)
    issuer.answer(PATH, body, status=status)
    for _ in range(30):
        assert (await outcome(guarded, raw))[0] == 503
        clock.now += 1.5
    events = [vars(record)["event"] for record in caplog.records if vars(record).get("event")]
    assert events.count("introspection_unauthorized") == 1
    clock.now += 60
    await outcome(guarded, raw)
    events = [vars(record)["event"] for record in caplog.records if vars(record).get("event")]
    assert events.count("introspection_unauthorized") == 2
    assert SECRET not in caplog.text


@pytest.mark.every_loop
@pytest.mark.requirement("IN-4")
@pytest.mark.parametrize(
    "break_down",
    [
        pytest.param(methodcaller("cut", PATH), id="connection refused"),
        pytest.param(methodcaller("stall", PATH, seconds=30), id="no answer in time"),
        pytest.param(methodcaller("fail", PATH, status=429), id="429"),
        pytest.param(methodcaller("fail", "*", status=503), id="no metadata"),
    ],
)
async def test_every_kind_of_outage_is_a_503(issuer: Issuer, break_down: Callable[[Issuer], None]) -> None:
    guarded = guard(issuer, timeout=0.2)
    break_down(issuer)
    assert (await outcome(guarded, opaque(issuer)))[0] == 503
    issuer.heal()


@pytest.mark.requirement("IN-9")
async def test_always_asks_about_jwts_too_and_rejects_revoked_ones(issuer: Issuer, clock: Clock) -> None:
    issuer.clock = clock
    guarded, raw = guard(issuer, always=True, clock=clock), token(issuer)
    issuer.answer(PATH, {"active": True, "sub": "alice"})
    for _ in range(2):
        assert await outcome(guarded, raw) == (200, None)
    assert issuer.requests[PATH] == 1
    assert await outcome(guarded, raw[:-4] + "AAAA") == REFUSED
    assert issuer.requests[PATH] == 1
    issuer.heal()
    clock.now += 61
    assert await outcome(guarded, raw) == REFUSED
    issuer.answer(PATH, {"active": True, "sub": "bob"})
    assert await outcome(guarded, token(issuer)) == REFUSED
    issuer.fail(PATH)
    assert (await outcome(guarded, token(issuer)))[0] == 503


def test_a_circuit_breaker_opens_probes_and_closes() -> None:
    breaker = CircuitBreaker()
    for _ in range(3):
        assert breaker.seconds_until_allowed(100.0) == 0
        breaker.failed(100.0)
    assert breaker.seconds_until_allowed(100.0) == 1.0
    breaker.failed(100.5)  # a call that had started before
    assert (breaker.seconds_until_allowed(100.5), breaker.failures) == (0.5, 3)
    breaker.start(101.0, 5.0)
    assert breaker.seconds_until_allowed(101.0) == 5.0
    breaker.failed(102.0)
    assert breaker.seconds_until_allowed(102.0) == 2.0
    assert breaker.seconds_until_allowed(50.0) == 0
    breaker.succeeded()
    assert breaker.seconds_until_allowed(102.0) == 0


async def test_a_cached_answer_costs_little_more_than_a_known_jwt(issuer: Issuer) -> None:
    guarded, raw, jwt = guard(issuer), opaque(issuer), token(issuer)
    check = protection_of(guarded.auth).authenticators[0].check

    async def cost(credential: str) -> float:
        from asgi_mcp_auth._request import RequestInfo

        await call(guarded, headers=bearer(credential))
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/mcp",
            "headers": [(b"authorization", b"Bearer " + credential.encode())],
        }
        best = float("inf")
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(200):
                assert isinstance(check(RequestInfo(scope)), Verified)
            best = min(best, time.perf_counter() - start)
        return best

    assert await cost(raw) <= 1.5 * await cost(jwt)


def test_configuration_values_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Choose().jwt = False  # type: ignore[misc]


async def test_several_issuers_need_a_name(issuer: Issuer) -> None:
    servers = [ISS, AuthServerConfig(issuer="https://second.example.com", jwks={"keys": [issuer.keys[0].jwk]})]
    with pytest.raises(ConfigurationError, match=r"verifier\.opaque\.issuer"):
        guard(issuer, authorization_servers=servers)
    guarded = protect(issuer, RecordingApp(), authorization_servers=servers, verifier=ask_server(issuer=ISS))
    assert await outcome(guarded, opaque(issuer)) == (200, None)


async def test_explain_shows_the_decision_about_an_opaque_token(issuer: Issuer) -> None:
    auth = guard(issuer).auth
    good, bad = await explain(auth, opaque(issuer)), await explain(auth, "unknown")
    assert [step.outcome for step in good.steps] == ["pass", "pass", "pass"]
    assert (bad.reason, "authorization server" in bad.hint) == ("inactive_token", True)
    assert len((await explain(auth, token(issuer))).steps) > 10


def test_check_config_shows_what_is_accepted_without_secrets(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RS_SECRET", SECRET)
    monkeypatch.setenv("COLUMNS", "200")
    keys = tmp_path / "keys"
    keys.write_text("")
    file = tmp_path / "auth.toml"
    file.write_text(
        f'resource = "{R}"\nauthorization_servers = ["{ISS}"]\n'
        '[verifier.opaque]\nclient_id = "rs"\nclient_secret = {from_env = "RS_SECRET"}\n'
        f'[verifier.keys]\nfile = "{keys}"\n'
    )
    assert main(["check-config", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "opaque tokens are introspected at introspection_endpoint of the metadata (client_secret, ttl 60 s)" in shown
    assert f"API keys of {keys}, sent as bearer pat_… or x-api-key" in shown
    assert SECRET not in shown


# --- answers that a fleet shares --------------------------------------------------------------------------------------

FLEET_SECRET = "the secret of a fleet, at least 32 long"


def worker(issuer: Issuer, store: Any, *, clock: Any = None, secret: str = FLEET_SECRET, **changes: Any) -> Any:
    verifier = ask_server(shared_cache=True, **changes)
    return protect(issuer, RecordingApp(), clock=clock, verifier=verifier, store=store, shared_secret=secret)


async def kept(store: MemoryStore, raw: str) -> tuple[str, bytes | None]:
    """Return the key of the shared answer about a token, and its value, as soon as the background task has put it."""
    use = StoreUse(SharedStore(store, None), Use.INTROSPECTION)
    key = use.key(ISS, "rs", R, raw.encode())
    await anyio.wait_all_tasks_blocked()
    return key, await use.get(key)


@pytest.mark.requirement("IN-9")
async def test_workers_with_a_shared_cache_ask_once_about_a_token(issuer: Issuer) -> None:
    store, raw = MemoryStore(), opaque(issuer)
    for _ in range(3):
        assert await outcome(worker(issuer, store), raw) == (200, None)
        await anyio.wait_all_tasks_blocked()
    assert issuer.requests[PATH] == 1
    key, value = await kept(store, raw)
    assert value is not None
    assert not any(text in key.encode() + value for text in (raw.encode(), b"alice", b"mcp:read"))


@pytest.mark.requirement("IN-9", "IN-3")
async def test_a_shared_answer_lives_for_ttl_in_all_workers_together(issuer: Issuer) -> None:
    clock = Clock()
    store, raw = MemoryStore(clock=clock), opaque(issuer, exp=clock.now + 3600)
    first, second = (worker(issuer, store, clock=clock, ttl=60) for _ in range(2))
    assert await outcome(first, raw) == (200, None)
    await anyio.wait_all_tasks_blocked()
    clock.now += 50
    assert await outcome(second, raw) == (200, None)
    assert issuer.requests[PATH] == 1
    clock.now += 10
    assert await outcome(second, raw) == (200, None)
    assert issuer.requests[PATH] == 2


def verifiers(*apps: Any) -> list[IntrospectionVerifier]:
    found = [protection_of(app.auth).authenticators[0].introspection for app in apps]
    return [one for one in found if one is not None]


@pytest.mark.requirement("IN-9", "RV-5")
async def test_an_answer_that_was_on_its_way_during_a_change_is_not_kept(issuer: Issuer) -> None:
    store, raw, bobs = MemoryStore(), opaque(issuer), opaque(issuer, sub="bob")
    app = worker(issuer, store)
    found: list[Any] = []

    async def ask(of: str) -> None:
        found.append(await outcome(app, of))

    issuer.stall(PATH)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, raw)
        tasks.start_soon(ask, bobs)
        with anyio.fail_after(5):
            while issuer.requests[PATH] < 2:  # noqa: ASYNC110 - the issuer counts
                await anyio.sleep(0.001)
        verifiers(app)[0].remove_subject(revocation_key("sub", ISS, "alice"))
        issuer.heal()
    assert found == [(200, None)] * 2
    assert (await kept(store, raw))[1] is None
    assert (await kept(store, bobs))[1] is not None
    for of in (raw, bobs, raw, bobs):
        assert await outcome(app, of) == (200, None)
    assert issuer.requests[PATH] == 3


@pytest.mark.requirement("IN-9", "RV-5")
async def test_a_call_from_before_a_change_does_not_answer_requests_after_it(issuer: Issuer) -> None:
    raw, app = opaque(issuer), worker(issuer, MemoryStore())
    issuer.stall(PATH, times=1)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome, app, raw)
        with anyio.fail_after(5):
            while not issuer.requests[PATH]:  # noqa: ASYNC110 - the issuer counts
                await anyio.sleep(0.001)
            verifiers(app)[0].remove_subject(revocation_key("sub", ISS, "alice"))
            assert await outcome(app, raw) == (200, None)
        issuer.heal()
    assert issuer.requests[PATH] == 2


@pytest.mark.requirement("IN-9", "RV-5")
async def test_after_too_many_changes_no_older_shared_answer_is_used(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._signals.changes.MAX_CHANGES", 3)
    clock = Clock()
    store, raw = MemoryStore(clock=clock), opaque(issuer, exp=clock.now + 3600)
    first, second, third = (worker(issuer, store, clock=clock, ttl=300) for _ in range(3))
    assert await outcome(first, raw) == (200, None)
    await anyio.wait_all_tasks_blocked()
    clock.now += 60
    for number in range(4):
        [changing] = verifiers(third)
        changing.remove_subject(b"%d" % number)
        assert len(changing._changes._by_subject) <= 3
        if number < 3:
            verifiers(second)[0].remove_subject(b"%d" % number)
    assert await outcome(second, raw) == (200, None)
    assert issuer.requests[PATH] == 1
    assert await outcome(third, raw) == (200, None)
    assert issuer.requests[PATH] == 2


@pytest.mark.requirement("IN-9")
async def test_an_inactive_answer_is_not_shared(issuer: Issuer) -> None:
    store = MemoryStore()
    for _ in range(2):
        assert await outcome(worker(issuer, store), "unknown") == REFUSED
    assert issuer.requests[PATH] == 2
    assert (await kept(store, "unknown"))[1] is None


def flip_last(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def emptied(_: bytes) -> bytes:
    return b""


def in_the_clear(_: bytes) -> bytes:
    return b'{"active": true, "sub": "root"}'


def cut(value: bytes) -> bytes:
    return value[:5]


@pytest.mark.requirement("IN-9")
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(flip_last, id="changed"),
        pytest.param(cut, id="cut"),
        pytest.param(emptied, id="empty"),
        pytest.param(in_the_clear, id="not encrypted"),
    ],
)
async def test_a_changed_shared_answer_is_ignored(
    issuer: Issuer, change: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    store, raw = MemoryStore(), opaque(issuer)
    assert await outcome(worker(issuer, store), raw) == (200, None)
    key, value = await kept(store, raw)
    assert value is not None
    await store.put(key, change(value), 60)
    assert await outcome(worker(issuer, store), raw) == (200, None)
    assert issuer.requests[PATH] == 2
    assert "An entry of shared_cache is ignored" in caplog.text


@pytest.mark.requirement("IN-9", "IN-1")
async def test_a_shared_answer_about_another_token_or_of_another_fleet_is_ignored(issuer: Issuer) -> None:
    store, raw, other = MemoryStore(), opaque(issuer), opaque(issuer, sub="mallory")
    assert await outcome(worker(issuer, store), raw) == (200, None)
    _, value = await kept(store, raw)
    key, _ = await kept(store, other)
    assert value is not None
    await store.put(key, value, 60)
    app = worker(issuer, store)
    assert await outcome(app, other) == (200, None)
    assert app.app.scopes[0]["state"]["claims"]["sub"] == "mallory"
    assert await outcome(worker(issuer, store, secret="another secret" * 3), raw) == (200, None)
    assert issuer.requests[PATH] == 3


@pytest.mark.requirement("IN-9", "FS-4")
async def test_without_the_store_each_worker_asks(issuer: Issuer) -> None:
    class Broken(MemoryStore):
        async def get_many(self, keys: Any) -> Any:
            raise ConnectionError

    raw = opaque(issuer)
    for _ in range(2):
        assert await outcome(worker(issuer, Broken()), raw) == (200, None)
    assert issuer.requests[PATH] == 2


@pytest.mark.requirement("IN-9")
@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"shared_secret": FLEET_SECRET}, ["store"], id="no store"),
        pytest.param({"store": MemoryStore()}, ["verifier.opaque.shared_cache"], id="no secret"),
        pytest.param({}, ["verifier.opaque.shared_cache", "store"], id="neither"),
    ],
)
def test_a_shared_cache_needs_a_store_and_a_secret(issuer: Issuer, options: dict[str, Any], where: list[str]) -> None:
    with pytest.raises(ConfigurationError) as raised:
        protect(issuer, RecordingApp(), verifier=ask_server(shared_cache=True), **options)
    assert [problem.where for problem in raised.value.problems] == where
