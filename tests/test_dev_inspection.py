"""Introspection and revocation at the development authorization server (requirement AS-60), and control at run time."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from dev import BASE, M2M, MCP, Asked, claims_of, dev_server, error_of, header_of
from harness import Clock

pytestmark = pytest.mark.anyio

RS: dict[str, Any] = {"client_id": "rs", "client_secret": "rs-secret", "grant_types": ["client_credentials"]}
AS_RS = ("rs", "rs-secret")


async def test_as_60_introspection_of_an_access_token(clock: Clock) -> None:
    async with Asked(dev_server(clients=[RS], clock=clock)) as asked:
        client_id = (await asked.register())["client_id"]
        token = (await asked.login(client_id))["access_token"]
        response = await asked.post("/introspect", data={"token": token, "token_type_hint": "x"}, auth=AS_RS)
        claims = claims_of(token)
        assert response.json() == {"active": True, "token_type": "Bearer", "username": "alice", **claims}, "AS-60"
        assert response.headers["cache-control"] == "no-store"
        clock.now = claims["exp"]
        assert (await asked.post("/introspect", data={"token": token}, auth=AS_RS)).json() == {"active": False}


async def test_introspection_of_a_refresh_token() -> None:
    async with Asked(dev_server(clients=[RS])) as asked:
        client_id = (await asked.register())["client_id"]
        token = (await asked.login(client_id))["refresh_token"]
        content = (await asked.post("/introspect", data={"token": token}, auth=AS_RS)).json()
    assert {name: value for name, value in content.items() if name != "exp"} == {
        "active": True,
        "iss": BASE,
        "sub": "alice",
        "client_id": client_id,
        "scope": "mcp:read",
    }


async def test_as_60_introspection_as_a_signed_answer() -> None:
    """AS-60: RFC 9701 on `Accept`."""
    async with Asked(dev_server(clients=[RS])) as asked:
        client_id = (await asked.register())["client_id"]
        token = (await asked.login(client_id))["access_token"]
        headers = {"accept": "application/token-introspection+jwt"}
        response = await asked.post("/introspect", data={"token": token}, auth=AS_RS, headers=headers)
        assert response.headers["content-type"] == "application/token-introspection+jwt"
        assert header_of(response.text)["typ"] == "token-introspection+jwt"
        (public,) = asked.server.jwks()["keys"]
        claims = jwt.decode(response.text, jwt.PyJWK(public).key, algorithms=["ES256"], audience="rs", issuer=BASE)
    assert set(claims) == {"iss", "aud", "iat", "token_introspection"}
    assert claims["token_introspection"]["sub"] == "alice"


async def test_introspection_of_a_client_s_own_token() -> None:
    async with Asked(dev_server()) as asked:
        auth = (M2M["client_id"], M2M["client_secret"])
        token = (await asked.token("client_credentials", auth=auth)).json()["access_token"]
        content = (await asked.post("/introspect", data={"token": token}, auth=auth)).json()
    assert (content["active"], content["sub"], "username" in content) == (True, "m2m", False)


async def test_who_may_ask() -> None:
    async with Asked(dev_server(clients=[RS])) as asked:
        owner, other = [(await asked.register())["client_id"] for _ in range(2)]
        tokens = await asked.login(owner)
        for token in (tokens["access_token"], tokens["refresh_token"]):
            assert await asked.is_active(token, owner)
            assert not await asked.is_active(token, other)
        assert not await asked.is_active("unknown", owner)
        nobody = await asked.post("/introspect", data={"token": tokens["access_token"]})
        assert error_of(nobody) == (401, "invalid_client")
        nothing = await asked.post("/introspect", data={}, auth=AS_RS)
        assert error_of(nothing) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("revoked", "dead"),
    [
        pytest.param("refresh_token", ("access_token", "refresh_token"), id="AS-60 a refresh token ends the grant"),
        pytest.param("access_token", ("access_token",), id="AS-60 an access token ends itself"),
    ],
)
async def test_revocation(revoked: str, dead: tuple[str, ...]) -> None:
    """AS-60: revoke(R2) → introspect inactive."""
    async with Asked(dev_server()) as asked:
        client_id = (await asked.register())["client_id"]
        tokens = await asked.login(client_id)
        response = await asked.post("/revoke", data={"token": tokens[revoked], "client_id": client_id})
        assert response.status_code == 200
        for kind in ("access_token", "refresh_token"):
            assert await asked.is_active(tokens[kind], client_id) is (kind not in dead)
        again = await asked.refresh(client_id, tokens["refresh_token"])
        assert again.status_code == (400 if "refresh_token" in dead else 200)


async def test_as_60_revocation_of_what_is_not_there_or_not_theirs() -> None:
    async with Asked(dev_server()) as asked:
        owner, other = [(await asked.register())["client_id"] for _ in range(2)]
        token = (await asked.login(owner))["refresh_token"]
        unknown = await asked.post("/revoke", data={"token": "unknown", "client_id": owner})
        assert unknown.status_code == 200, "AS-60: 200 even for unknown tokens"
        assert error_of(await asked.post("/revoke", data={"token": token, "client_id": other})) == (
            400,
            "invalid_grant",
        )
        assert await asked.is_active(token, owner)
        assert error_of(await asked.post("/revoke", data={"token": token})) == (401, "invalid_client")


# --- control ----------------------------------------------------------------------------------------------------------


async def test_as_63_faults_change_at_run_time() -> None:
    async with Asked(dev_server()) as asked:
        shown = (await asked.get("/dev/faults")).json()
        assert shown["faults"] == []
        assert "no-pkce" in shown["known"]
        changed = await asked.post("/dev/faults", json={"on": ["no-pkce", "no-iss"], "off": []})
        assert changed.json() == {"faults": ["no-iss", "no-pkce"]}, "AS-63"
        metadata = (await asked.get("/.well-known/oauth-authorization-server")).json()
        assert "code_challenge_methods_supported" not in metadata
        assert (await asked.post("/dev/faults", json={"off": ["no-pkce", "no-iss"]})).json() == {"faults": []}
        metadata = (await asked.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["code_challenge_methods_supported"] == ["S256"]


async def test_as_7_rotating_and_forgetting_at_run_time() -> None:
    async with Asked(dev_server()) as asked:
        client_id = (await asked.register())["client_id"]
        assert len((await asked.post("/dev/rotate", json={})).json()["kids"]) == 2, "AS-7"
        assert len((await asked.post("/dev/rotate", json={"keep": False})).json()["kids"]) == 1
        assert (await asked.post("/dev/forget", json={})).json() == {}
        assert (await asked.get("/authorize", params=asked.request(client_id))).status_code == 400


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
async def test_control_is_strict(path: str, request_: dict[str, Any]) -> None:
    async with Asked(dev_server()) as asked:
        client_id = (await asked.register())["client_id"]
        assert error_of(await asked.post(path, **request_)) == (400, "invalid_request")
        assert asked.server.faults == frozenset()
        assert (await asked.authorize(client_id, resource=MCP))["code"]
