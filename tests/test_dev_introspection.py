"""Introspection and revocation at the development authorization server, and control at run time."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from dev import BASE, M2M, MCP, Session, claims_of, dev_server, error_of, header_of
from harness import Clock

pytestmark = pytest.mark.anyio

RS: dict[str, Any] = {"client_id": "rs", "client_secret": "rs-secret", "grant_types": ["client_credentials"]}
AS_RS = ("rs", "rs-secret")


@pytest.mark.requirement("AS-60")
async def test_introspection_of_an_access_token(clock: Clock) -> None:
    async with Session(dev_server(clients=[RS], clock=clock)) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["access_token"]
        response = await session.post("/introspect", data={"token": token, "token_type_hint": "x"}, auth=AS_RS)
        claims = claims_of(token)
        assert response.json() == {"active": True, "token_type": "Bearer", "username": "alice", **claims}
        assert response.headers["cache-control"] == "no-store"
        clock.now = claims["exp"]
        assert (await session.post("/introspect", data={"token": token}, auth=AS_RS)).json() == {"active": False}


async def test_introspection_of_a_refresh_token() -> None:
    async with Session(dev_server(clients=[RS])) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["refresh_token"]
        content = (await session.post("/introspect", data={"token": token}, auth=AS_RS)).json()
    assert {name: value for name, value in content.items() if name != "exp"} == {
        "active": True,
        "iss": BASE,
        "sub": "alice",
        "client_id": client_id,
        "scope": "mcp:read",
    }


@pytest.mark.requirement("AS-60")
async def test_introspection_answers_with_a_signed_jwt() -> None:
    """RFC 9701 on `Accept`."""
    async with Session(dev_server(clients=[RS])) as session:
        client_id = (await session.register())["client_id"]
        token = (await session.login(client_id))["access_token"]
        headers = {"accept": "application/token-introspection+jwt"}
        response = await session.post("/introspect", data={"token": token}, auth=AS_RS, headers=headers)
        assert response.headers["content-type"] == "application/token-introspection+jwt"
        assert header_of(response.text)["typ"] == "token-introspection+jwt"
        (public,) = session.server.jwks()["keys"]
        claims = jwt.decode(response.text, jwt.PyJWK(public).key, algorithms=["ES256"], audience="rs", issuer=BASE)
    assert set(claims) == {"iss", "aud", "iat", "token_introspection"}
    assert claims["token_introspection"]["sub"] == "alice"


async def test_introspection_of_a_client_s_own_token() -> None:
    async with Session(dev_server()) as session:
        auth = (M2M["client_id"], M2M["client_secret"])
        token = (await session.token("client_credentials", auth=auth)).json()["access_token"]
        content = (await session.post("/introspect", data={"token": token}, auth=auth)).json()
    assert (content["active"], content["sub"], "username" in content) == (True, "m2m", False)


async def test_a_public_client_introspects_only_its_own_tokens() -> None:
    async with Session(dev_server(clients=[RS])) as session:
        owner, other = [(await session.register())["client_id"] for _ in range(2)]
        tokens = await session.login(owner)
        for token in (tokens["access_token"], tokens["refresh_token"]):
            assert await session.is_active(token, owner)
            assert not await session.is_active(token, other)
        assert not await session.is_active("unknown", owner)
        anonymous = await session.post("/introspect", data={"token": tokens["access_token"]})
        assert error_of(anonymous) == (401, "invalid_client")
        nothing = await session.post("/introspect", data={}, auth=AS_RS)
        assert error_of(nothing) == (400, "invalid_request")


@pytest.mark.requirement("AS-60")
@pytest.mark.parametrize(
    ("revoked", "dead"),
    [
        pytest.param("refresh_token", ("access_token", "refresh_token"), id="AS-60 a refresh token ends the grant"),
        pytest.param("access_token", ("access_token",), id="AS-60 an access token ends itself"),
    ],
)
async def test_revoking_a_refresh_token_ends_the_grant(revoked: str, dead: tuple[str, ...]) -> None:
    """revoke(R2) → introspect inactive."""
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        tokens = await session.login(client_id)
        response = await session.post("/revoke", data={"token": tokens[revoked], "client_id": client_id})
        assert response.status_code == 200
        for kind in ("access_token", "refresh_token"):
            assert await session.is_active(tokens[kind], client_id) is (kind not in dead)
        again = await session.refresh(client_id, tokens["refresh_token"])
        assert again.status_code == (400 if "refresh_token" in dead else 200)


@pytest.mark.requirement("AS-60")
async def test_revoking_unknown_tokens_succeeds_and_foreign_tokens_fails() -> None:
    async with Session(dev_server()) as session:
        owner, other = [(await session.register())["client_id"] for _ in range(2)]
        token = (await session.login(owner))["refresh_token"]
        unknown = await session.post("/revoke", data={"token": "unknown", "client_id": owner})
        assert unknown.status_code == 200, "200 even for unknown tokens"
        assert error_of(await session.post("/revoke", data={"token": token, "client_id": other})) == (
            400,
            "invalid_grant",
        )
        assert await session.is_active(token, owner)
        assert error_of(await session.post("/revoke", data={"token": token})) == (401, "invalid_client")


# --- control ----------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("AS-63")
async def test_faults_change_at_run_time() -> None:
    async with Session(dev_server()) as session:
        shown = (await session.get("/dev/faults")).json()
        assert shown["faults"] == []
        assert "no-pkce" in shown["known"]
        changed = await session.post("/dev/faults", json={"on": ["no-pkce", "no-iss"], "off": []})
        assert changed.json() == {"faults": ["no-iss", "no-pkce"]}
        metadata = (await session.get("/.well-known/oauth-authorization-server")).json()
        assert "code_challenge_methods_supported" not in metadata
        added = await session.post("/dev/faults", json={"on": ["no-scope"], "off": []})
        assert added.json() == {"faults": ["no-iss", "no-pkce", "no-scope"]}, "an empty list switches nothing off"
        off = {"off": ["no-pkce", "no-iss", "no-scope"]}
        assert (await session.post("/dev/faults", json=off)).json() == {"faults": []}
        metadata = (await session.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["code_challenge_methods_supported"] == ["S256"]


@pytest.mark.requirement("AS-7")
async def test_keys_rotate_and_clients_are_forgotten_at_run_time() -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        assert len((await session.post("/dev/rotate", json={})).json()["kids"]) == 2
        assert len((await session.post("/dev/rotate", json={"keep": False})).json()["kids"]) == 1
        assert (await session.post("/dev/forget", json={})).json() == {}
        assert (await session.get("/authorize", params=session.request(client_id))).status_code == 400


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        pytest.param("/dev/faults", {"json": {"on": ["gremlins"]}}, id="an unknown fault"),
        pytest.param("/dev/faults", {"json": {"on": "no-iss"}}, id="no list"),
        pytest.param("/dev/faults", {"json": {"on": [["no-iss"]]}}, id="a list in a list"),
        pytest.param("/dev/faults", {"json": []}, id="no object"),
        pytest.param("/dev/faults", {"content": b"{"}, id="no JSON"),
        pytest.param("/dev/forget", {"data": {"a": "b"}}, id="a form, which a page of any site can send"),
        pytest.param("/dev/forget", {"json": {}, "headers": {"origin": "https://evil.example"}}, id="another origin"),
    ],
)
async def test_control_refuses_malformed_and_cross_origin_requests(path: str, request_: dict[str, Any]) -> None:
    async with Session(dev_server()) as session:
        client_id = (await session.register())["client_id"]
        assert error_of(await session.post(path, **request_)) == (400, "invalid_request")
        assert session.server.faults == frozenset()
        assert (await session.authorize(client_id, resource=MCP))["code"]
