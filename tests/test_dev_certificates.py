"""Certificate-bound tokens of the development authorization server, and the certificates of the testing kit."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from dev import BASE, MCP, Session, claims_of, dev_server, error_of
from harness import RecordingApp, call

from asgi_mcp_auth import Choose, ClientCertificates, Introspection, MCPAuthMiddleware
from asgi_mcp_auth.dev import DevServer, Switch
from asgi_mcp_auth.testing import ClientCertificate, Issuer

pytestmark = pytest.mark.anyio

M2M = {"client_id": "m2m", "client_secret": "m2m-secret"}
CLIENT = {**M2M, "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_post"}
PROXY = ("10.0.0.7", 4711)
OWN = ClientCertificate()


async def grant(server: DevServer, *fields: tuple[str, str]) -> Any:
    async with Session(server) as session:
        form = {"grant_type": "client_credentials", "scope": "mcp:read", **M2M}
        return await session.post("/token", data=form, headers=list(fields))


async def protected_status(server: DevServer, token: str, certificate: ClientCertificate, **options: Any) -> int:
    app = MCPAuthMiddleware(
        RecordingApp(),
        resource=MCP,
        authorization_servers=[server.url],
        http_client=server.http_client,
        clock=server.clock,
        client_certificates=ClientCertificates(header="Client-Cert", proxies=[PROXY[0]]),
        **options,
    )
    headers = [("authorization", f"Bearer {token}"), ("client-cert", certificate.field())]
    url = urlsplit(MCP)
    return (await call(app, path=url.path, headers=[("host", url.netloc), *headers], host=None, client=PROXY)).status


@pytest.mark.requirement("RS-150", "AS-63")
@pytest.mark.parametrize(
    ("faults", "cnf", "own", "other"),
    [
        pytest.param([], {"x5t#S256": OWN.thumbprint}, 200, 401, id="bound to the certificate"),
        pytest.param([Switch.MTLS_NO_CNF], None, 200, 200, id="fault: bound to nothing"),
        pytest.param([Switch.MTLS_WRONG_CERTIFICATE], ..., 401, 401, id="fault: bound to another certificate"),
    ],
)
async def test_a_token_request_with_a_certificate_gets_a_bound_token(
    faults: list[Switch], cnf: Any, own: int, other: int
) -> None:
    server = dev_server(clients=[CLIENT], faults=faults)
    content = (await grant(server, ("client-cert", OWN.field()))).json()
    token = content["access_token"]
    assert content["token_type"] == "Bearer"
    assert cnf is ... or claims_of(token).get("cnf") == cnf
    assert await protected_status(server, token, OWN) == own
    assert await protected_status(server, token, ClientCertificate()) == other


@pytest.mark.requirement("RS-150", "IN-2")
async def test_introspection_names_the_certificate() -> None:
    server = dev_server(clients=[CLIENT])
    token = (await grant(server, ("client-cert", OWN.field()))).json()["access_token"]
    verifier = Choose(
        jwt=False, opaque=Introspection(client_id="m2m", client_secret="m2m-secret", auth_method="client_secret_post")
    )
    for certificate, status in ((OWN, 200), (ClientCertificate(), 401)):
        assert await protected_status(server, token, certificate, verifier=verifier) == status


@pytest.mark.requirement("AS-63")
@pytest.mark.parametrize(
    "value",
    ["", ":", ":AAAA:", OWN.field("xfcc"), f"{OWN.field()}, {OWN.field()}"],
    ids=["empty", "one colon", "no certificate", "another form", "two certificates"],
)
async def test_a_malformed_certificate_is_an_invalid_request(value: str) -> None:
    assert error_of(await grant(dev_server(clients=[CLIENT]), ("client-cert", value))) == (400, "invalid_request")


async def test_the_refresh_token_of_a_public_client_is_bound_to_its_certificate() -> None:
    fields = {"client-cert": OWN.field()}
    async with Session(dev_server(clients=[CLIENT])) as session:
        client = (await session.register())["client_id"]
        answer = await session.authorize(client, scope="mcp:read offline_access")
        tokens = (await session.exchange(client, answer["code"], headers=fields)).json()
        for other in ({}, {"client-cert": ClientCertificate().field()}):
            refused = await session.refresh(client, tokens["refresh_token"], headers=other)
            assert error_of(refused) == (400, "invalid_grant")
        again = (await session.refresh(client, tokens["refresh_token"], headers=fields)).json()
    assert claims_of(again["access_token"])["cnf"] == {"x5t#S256": OWN.thumbprint}


async def test_a_token_may_be_bound_to_a_key_and_a_certificate() -> None:
    issuer = Issuer(algorithms=("ES256",))
    proof = issuer.prove("POST", f"{BASE}/token")
    fields = ("client-cert", OWN.field()), ("dpop", proof)
    content = (await grant(dev_server(clients=[CLIENT]), *fields)).json()
    cnf = {"jkt": issuer.proof_key.thumbprint, "x5t#S256": OWN.thumbprint}
    assert (content["token_type"], claims_of(content["access_token"])["cnf"]) == ("DPoP", cnf)
