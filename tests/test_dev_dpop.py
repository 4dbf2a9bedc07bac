"""DPoP at token endpoints: the development authorization server, the issuer of the testing kit, and their client."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from dev import BASE, MCP, Session, claims_of, dev_server, error_of
from harness import Clock, R, RecordingApp, protect

from asgi_mcp_auth import DPoPSettings, MCPAuthMiddleware
from asgi_mcp_auth.dev import DevServer, Switch
from asgi_mcp_auth.testing import DPoPAuth, Issuer, SigningKey, WalkError, walk_discovery

pytestmark = pytest.mark.anyio

M2M = {"client_id": "m2m", "client_secret": "m2m-secret"}
CLIENT = {**M2M, "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_post"}
SECRET = "a secret that all workers share, long enough"


async def grant(server: DevServer, auth: DPoPAuth) -> httpx.Response:
    async with Session(server) as session:
        form = {"grant_type": "client_credentials", "scope": "mcp:read", **M2M}
        return await session.post("/token", data=form, auth=auth)


async def protected_status(server: DevServer, auth: DPoPAuth, content: dict[str, Any]) -> int:
    app = MCPAuthMiddleware(
        RecordingApp(),
        resource=MCP,
        authorization_servers=[server.url],
        http_client=server.http_client,
        clock=server.clock,
        dpop="allowed",
        dpop_settings=DPoPSettings(require_nonce=True),
        shared_secret=SECRET,
    )
    auth.token = content["access_token"]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), auth=auth) as client:
        return (await client.post(MCP)).status_code


async def test_a_token_request_with_a_proof_gets_a_bound_token() -> None:
    server, auth = dev_server(clients=[CLIENT]), DPoPAuth()
    content = (await grant(server, auth)).json()
    assert content["token_type"] == "DPoP"
    assert claims_of(content["access_token"])["cnf"] == {"jkt": auth.key.thumbprint}
    assert await protected_status(server, auth, content) == 200
    assert await protected_status(server, DPoPAuth(), content) == 401


@pytest.mark.parametrize(
    ("fault", "cnf", "status"),
    [
        pytest.param(Switch.DPOP_NONCE, True, 200, id="AS-63 a nonce"),
        pytest.param(Switch.DPOP_NO_CNF, False, 401, id="AS-63 no cnf"),
        pytest.param(Switch.DPOP_WRONG_KEY, True, 401, id="AS-63 another key"),
    ],
)
async def test_faults_of_bound_tokens(fault: Switch, cnf: bool, status: int) -> None:
    server, auth = dev_server(clients=[CLIENT], faults=[fault]), DPoPAuth()
    content = (await grant(server, auth)).json()
    assert content["token_type"] == "DPoP"
    assert ("cnf" in claims_of(content["access_token"])) is cnf
    assert await protected_status(server, auth, content) == status


@pytest.mark.parametrize("proof", ["", "x", "a.b.c"])
async def test_a_proof_that_is_not_acceptable_is_refused(proof: str) -> None:
    async with Session(dev_server(clients=[CLIENT])) as session:
        form = {"grant_type": "client_credentials", **M2M}
        response = await session.post("/token", data=form, headers={"dpop": proof})
    assert error_of(response) == (400, "invalid_dpop_proof")


async def test_the_proof_is_for_the_token_endpoint() -> None:
    issuer = Issuer(algorithms=("ES256",))
    async with Session(dev_server(clients=[CLIENT])) as session:
        form = {"grant_type": "client_credentials", **M2M}
        for url, status in ((f"{BASE}/token", 200), (f"{BASE}/revoke", 400)):
            response = await session.post("/token", data=form, headers={"dpop": issuer.prove("POST", url)})
            assert response.status_code == status


async def test_the_refresh_token_of_a_public_client_is_bound_to_its_key() -> None:
    auth = DPoPAuth()
    async with Session(dev_server(clients=[CLIENT])) as session:
        client = (await session.register())["client_id"]
        answer = await session.authorize(client, scope="mcp:read offline_access")
        tokens = (await session.exchange(client, answer["code"], auth=auth)).json()
        for other in (None, DPoPAuth()):
            refused = await session.refresh(client, tokens["refresh_token"], auth=other)
            assert error_of(refused) == (400, "invalid_grant")
        again = (await session.refresh(client, tokens["refresh_token"], auth=auth)).json()
    assert again["token_type"] == "DPoP"
    assert claims_of(again["access_token"])["cnf"] == {"jkt": auth.key.thumbprint}


async def test_introspection_names_the_binding() -> None:
    auth, server = DPoPAuth(), dev_server(clients=[CLIENT])
    token = (await grant(server, auth)).json()["access_token"]
    async with Session(server) as session:
        form = {"token": token, "client_id": "m2m", "client_secret": "m2m-secret"}
        content = (await session.post("/introspect", data=form)).json()
    assert (content["token_type"], content["cnf"]) == ("DPoP", {"jkt": auth.key.thumbprint})


@pytest.mark.requirement("DP-6", "DP-7")
@pytest.mark.parametrize("mode", ["allowed", "required"])
async def test_a_strict_client_walks_with_dpop(mode: str) -> None:
    issuer = Issuer(clock=Clock(), algorithms=("ES256",))
    app = protect(
        issuer,
        RecordingApp(),
        dpop=mode,
        dpop_settings=DPoPSettings(require_nonce=True),
        shared_secret=SECRET,
    )
    signer = None if mode == "required" else DPoPAuth(clock=issuer.clock)
    walk = await walk_discovery(app, R, issuer, dpop=signer)
    assert (walk.response.status_code, walk.challenge.scheme) == (200, "DPoP")
    assert "a DPoP token with the scopes mcp:read" in str(walk)
    plain = (await walk_discovery(app, R, issuer)).challenge.scheme
    assert plain == ("DPoP" if mode == "required" else "Bearer")


async def test_a_strict_client_without_a_common_algorithm_stops() -> None:
    issuer = Issuer(clock=Clock(), algorithms=("ES256",))
    app = protect(issuer, RecordingApp(), dpop="required")
    with pytest.raises(WalkError, match="does not list Ed25519"):
        await walk_discovery(app, R, issuer, dpop=DPoPAuth(key=SigningKey("Ed25519"), clock=issuer.clock))


async def test_the_issuer_of_the_testing_kit_refuses_bad_proofs() -> None:
    issuer = Issuer(algorithms=("ES256",))
    async with issuer.http_client() as client:
        form = {"grant_type": "client_credentials", "resource": R}
        response = await client.post(f"{issuer.url}/token", data=form, headers={"dpop": "x"})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_dpop_proof")
