"""The development authorization server exchanges tokens (RFC 8693): `act`, the delegation policy, and faults."""

from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest
from dev import BASE, M2M, MCP, Session, dev_server
from harness import RecordingApp

from asgi_mcp_auth import ConfigurationError, ExchangeError, MCPAuthMiddleware, TokenExchange
from asgi_mcp_auth._oauth.token_exchange import ACCESS_TOKEN, EXCHANGE_GRANT
from asgi_mcp_auth.dev import DevServer, Switch

pytestmark = pytest.mark.anyio

API, OTHER = "http://localhost:8001/api", "http://localhost:8002/other"
SERVER: dict[str, Any] = {"client_id": "mcp-server", "client_secret": "s", "grant_types": [EXCHANGE_GRANT]}
AUTH = ("mcp-server", "s")


def exchanging(**options: Any) -> DevServer:
    settings: dict[str, Any] = {"resources": [MCP, API, OTHER], "clients": [M2M, SERVER]}
    return dev_server(**(settings | options))


async def subject_token(session: Session) -> str:
    form = {"grant_type": "client_credentials", "resource": MCP, "scope": "mcp:read"}
    response = await session.post("/token", data=form, auth=("m2m", "m2m-secret"))
    return str(response.json()["access_token"])


async def ask(session: Session, token: str, auth: Any = AUTH, **changes: Any) -> httpx.Response:
    form: dict[str, Any] = {
        "grant_type": EXCHANGE_GRANT,
        "subject_token": token,
        "subject_token_type": ACCESS_TOKEN,
        "resource": API,
        "scope": "mcp:read",
    } | changes
    return await session.post("/token", data={k: v for k, v in form.items() if v is not None}, auth=auth)


def claims_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    found: dict[str, Any] = jwt.decode(response.json()["access_token"], options={"verify_signature": False})
    return found


@pytest.mark.requirement("TX-1")
async def test_an_exchanged_token_names_subject_actor_and_resource() -> None:
    async with Session(exchanging()) as session:
        raw = await subject_token(session)
        response = await ask(session, raw)
        claims, answer = claims_of(response), response.json()
        assert (claims["sub"], claims["aud"], claims["client_id"]) == ("m2m", API, "mcp-server")
        assert claims["act"] == {"sub": "mcp-server"}
        assert (answer["issued_token_type"], answer["token_type"]) == (ACCESS_TOKEN, "Bearer")
        again = claims_of(await ask(session, answer["access_token"], resource=OTHER))
        assert again["act"] == {"sub": "mcp-server", "act": {"sub": "mcp-server"}}
        with_actor = claims_of(await ask(session, raw, actor_token=raw, actor_token_type=ACCESS_TOKEN))
        assert with_actor["act"] == {"sub": "m2m"}
        subject = jwt.decode(raw, options={"verify_signature": False})
        assert claims["exp"] <= subject["exp"]


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("an unknown subject token", {"subject_token": "x"}, 400, "invalid_request"),
    ("no subject token", {"subject_token": None}, 400, "invalid_request"),
    ("another subject type", {"subject_token_type": "urn:x"}, 400, "invalid_request"),
    ("another requested type", {"requested_token_type": "urn:x"}, 400, "invalid_request"),
    ("an actor type without an actor", {"actor_token_type": ACCESS_TOKEN}, 400, "invalid_request"),
    ("an unknown actor", {"actor_token": "x", "actor_token_type": ACCESS_TOKEN}, 400, "invalid_request"),
    ("an unknown resource", {"resource": "http://localhost:1/x"}, 400, "invalid_target"),
    ("a resource beyond the policy", {"resource": OTHER}, 400, "invalid_target"),
    ("an unknown scope", {"scope": "x"}, 400, "invalid_scope"),
    ("a client without the grant type", {"auth": ("m2m", "m2m-secret")}, 400, "unauthorized_client"),
    ("a wrong secret", {"auth": ("mcp-server", "x")}, 401, "invalid_client"),
]


@pytest.mark.requirement("TX-1")
@pytest.mark.parametrize(("changes", "status", "error"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
async def test_exchanges_that_are_refused(changes: dict[str, Any], status: int, error: str) -> None:
    async with Session(exchanging(delegation={"mcp-server": [API]})) as session:
        response = await ask(session, await subject_token(session), **changes)
        assert (response.status_code, response.json()["error"]) == (status, error)


@pytest.mark.requirement("TX-1")
async def test_a_client_without_a_delegation_may_not_exchange() -> None:
    async with Session(exchanging(delegation={})) as session:
        assert (await ask(session, await subject_token(session))).json()["error"] == "invalid_target"


async def test_a_public_client_and_a_wrong_policy_are_problems() -> None:
    with pytest.raises(ConfigurationError, match="without a secret"):
        exchanging(clients=[{"client_id": "c", "grant_types": [EXCHANGE_GRANT]}])
    with pytest.raises(ConfigurationError, match="delegation"):
        exchanging(delegation=["mcp-server"])


FAULTS: list[tuple[Switch, str]] = [
    (Switch.EXCHANGE_NO_ISSUED_TYPE, "invalid_answer"),
    (Switch.EXCHANGE_N_A, "invalid_answer"),
    (Switch.EXCHANGE_ERROR, "unavailable"),
    (Switch.EXCHANGE_SLOW, "unavailable"),
    (Switch.EXCHANGE_CONSENT, "interaction_required"),
]


@pytest.mark.requirement("TX-3", "TX-7")
@pytest.mark.parametrize(("fault", "reason"), [pytest.param(*row, id=row[0].value) for row in FAULTS])
async def test_the_faults_of_token_exchange_reach_the_app_as_errors(fault: Switch, reason: str) -> None:
    """The middleware and this server together: first a token, then the fault."""
    server = exchanging()
    found: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            found.append((await guarded.auth.exchange(resource=API, scopes=["mcp:read"])).is_bearer)
        except ExchangeError as error:
            found.append(error.reason.value)
            found.append(error.claims)
        await RecordingApp()(scope, receive, send)

    guarded = MCPAuthMiddleware(
        app,
        resource=MCP,
        authorization_servers=[BASE],
        http_client=server.http_client,
        token_exchange=[TokenExchange(client_id="mcp-server", client_secret="s", timeout=0.3)],
    )
    async with Session(server) as session:
        transport = httpx.ASGITransport(app=guarded)
        async with httpx.AsyncClient(transport=transport) as client:
            for faults in ((), (fault,)):
                server.switch_on(*faults)
                headers = {"authorization": f"Bearer {await subject_token(session)}"}
                assert (await client.post(MCP, headers=headers)).status_code == 200
    assert found[:2] == [True, reason]
    assert (found[2] is not None) is (fault is Switch.EXCHANGE_CONSENT)
