"""DPoP with real parts: a certified authorization server, the TypeScript SDK, workers that share a Redis server."""

from __future__ import annotations

import hmac
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from clients import sdk_client
from flows import world
from processes import (
    AuthorizationServer,
    authorization_server,
    free_port,
    importing_from,
    require_authorization_server,
    running,
    uvicorn,
)
from redis_servers import redis
from websockets.datastructures import Headers
from websockets.sync.client import connect

from asgi_mcp_auth._oauth.dpop_proof import make_nonce
from asgi_mcp_auth._policy.senders import NONCE_LABEL
from asgi_mcp_auth.testing import DPoPAuth, Issuer

pytestmark = pytest.mark.full

COUNTERPARTS = Path(__file__).parent / "counterparts"
SECRET = "a secret that all workers share, long enough"
"""As in dpop_app.py."""
BASIC = httpx.BasicAuth("m2m", "m2m-secret")


@pytest.fixture(scope="module")
def authority() -> Iterator[AuthorizationServer]:
    require_authorization_server()
    with authorization_server(alg="ES256") as running:
        yield running


def bound_token(authority: AuthorizationServer, auth: DPoPAuth, resource: str) -> dict[str, Any]:
    """Return the token response to client credentials with a proof."""
    form = {"grant_type": "client_credentials", "resource": resource, "scope": "mcp:read"}
    request = httpx.Request("POST", authority.metadata["token_endpoint"], data=form)
    basic = next(BASIC.auth_flow(request)).headers["authorization"]
    with httpx.Client(auth=auth, trust_env=False, timeout=10) as client:
        response = client.post(authority.metadata["token_endpoint"], data=form, headers={"authorization": basic})
    content: dict[str, Any] = response.raise_for_status().json()
    return content


@pytest.mark.requirement("DP-11", "DP-6", "RS-138")
@pytest.mark.parametrize("mode", ["allowed", "required"])
def test_tokens_of_a_certified_server_with_a_client_of_the_testing_kit(
    authority: AuthorizationServer, mode: str
) -> None:
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    env = {"RESOURCE": resource, "ISSUER": authority.issuer, "MODE": mode, "NONCES": "1"}
    with uvicorn("dpop_app:app", app_dir=COUNTERPARTS, port=port, env=env):
        auth = DPoPAuth()
        content = bound_token(authority, auth, resource)
        assert content["token_type"] == "DPoP"
        auth.token = content["access_token"]
        with httpx.Client(auth=auth, trust_env=False) as client:
            answers = [client.request(method, resource + "?q=1") for method in ("POST", "GET", "DELETE", "POST")]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert len(auth.nonces) == 1
        thief = DPoPAuth(auth.token)
        with httpx.Client(trust_env=False) as client:
            assert client.post(resource, auth=thief).status_code == 401
            downgraded = client.post(resource, headers={"authorization": f"Bearer {auth.token}"})
            assert downgraded.status_code == 401


@pytest.mark.requirement("DP-4", "DP-6")
def test_workers_with_one_store_accept_a_proof_once(authority: AuthorizationServer, tmp_path: Path) -> None:
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    with redis(tmp_path) as server:
        env = {"RESOURCE": resource, "ISSUER": authority.issuer, "MODE": "allowed", "STORE": server.url}
        with uvicorn("dpop_app:app", app_dir=COUNTERPARTS, port=port, env=env, args=["--workers", "2"]):
            auth = DPoPAuth()
            auth.token = bound_token(authority, auth, resource)["access_token"]
            served: Counter[str] = Counter()
            statuses: list[list[int]] = []
            while len(statuses) < 20 or (len(served) < 2 and len(statuses) < 100):
                signed = next(auth.sync_auth_flow(httpx.Request("POST", resource)))
                found: list[httpx.Response] = []

                def send(signed: httpx.Request = signed, found: list[httpx.Response] = found) -> None:
                    with httpx.Client(trust_env=False) as client:  # a connection of its own, to either worker
                        found.append(client.post(resource, headers=dict(signed.headers)))

                threads = [threading.Thread(target=send) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                statuses.append(sorted(response.status_code for response in found))
                served.update(response.text for response in found if response.status_code == 200)
    assert all(found == [200, 401, 401, 401] for found in statuses)
    assert len(served) == 2, "one worker served every request"


@pytest.mark.requirement("DP-6", "DP-9")
@pytest.mark.parametrize(
    ("server", "brings_it"),
    [
        pytest.param("uvicorn dpop_app:app --port {port} --ws websockets", True, id="uvicorn with websockets"),
        pytest.param("uvicorn dpop_app:app --port {port} --ws wsproto", True, id="uvicorn with wsproto"),
        pytest.param("hypercorn dpop_app:app --bind 127.0.0.1:{port}", True, id="hypercorn"),
        pytest.param("granian --interface asgi --port {port} dpop_app:app", False, id="granian 2.8 drops the fields"),
        pytest.param("daphne --port {port} dpop_app:app", False, id="daphne 4.2 drops the fields"),
    ],
)
def test_an_accepted_handshake_brings_the_next_nonce(server: str, brings_it: bool) -> None:
    issuer, port = Issuer("https://auth.example.com", algorithms=("ES256",)), free_port()
    resource = "https://mcp.example.com/mcp"
    settings = {"RESOURCE": resource, "ISSUER": issuer.url, "MODE": "required", "NONCES": "1"}
    env = importing_from(COUNTERPARTS, settings | {"KEYS": json.dumps(issuer.jwks())})
    access = issuer.mint(resource, scope="mcp:read", cnf={"jkt": issuer.proof_key.thumbprint})
    key = hmac.digest(SECRET.encode("ascii"), NONCE_LABEL + resource.encode("ascii"), "sha256")

    def shake_hands(slots_ago: int) -> Headers:
        proof = issuer.prove("GET", resource, access, nonce=make_nonce(key, time.time(), slots_ago=slots_ago))
        fields = {"authorization": f"DPoP {access}", "dpop": proof}
        with connect(f"ws://127.0.0.1:{port}/mcp", additional_headers=fields, proxy=None) as websocket:
            assert websocket.response is not None
            return websocket.response.headers

    argv = [sys.executable, "-m", *server.format(port=port).split()]
    with running(argv, ready_url=f"http://127.0.0.1:{port}/mcp", env=env, cwd=COUNTERPARTS):
        assert shake_hands(0).get_all("dpop-nonce") == []
        fresh = [make_nonce(key, time.time())] if brings_it else []
        assert shake_hands(1).get_all("dpop-nonce") == fresh


@pytest.mark.requirement("DP-11")
@pytest.mark.parametrize(
    ("options", "mode"),
    [
        pytest.param({"mode": "auto"}, "allowed", id="2026-07-28, allowed"),
        pytest.param({}, "required", id="2025-11-25, required"),
    ],
)
def test_the_typescript_sdk_with_its_dpop_session(tmp_path: Path, options: dict[str, Any], mode: str) -> None:
    with (
        world(tmp_path, DPOP=mode, LIFETIME="200") as here,
        sdk_client("v2", here.resource, dpop=True, **options) as client,
    ):
        client.do("connect")
        assert client.call("read") == "read"
        assert client.call("write") == "written"  # after a step-up
        here.later(250)  # token and nonce are over, and the clock of the client is within the window
        assert client.call("read") == "read"
        assert {token["answer"]["token_type"] for token in here.tokens()} == {"DPoP"}
        assert "use_dpop_nonce" in str([exchange["challenge"] for exchange in here.exchanges("resource")])
        assert here.statuses("tools/call write").count(403) == 1
