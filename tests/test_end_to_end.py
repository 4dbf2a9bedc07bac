"""Whole flows over real HTTP: a certified authorization server, a protected app on real ASGI servers, and httpx.

Nothing here runs in this process but the client. The clock of a protected app can be put ahead (see
counterparts/apps.py), so that no test waits for a cool-down.
"""

import base64
import contextlib
import hmac
import json
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
import jwt
import processes
import pytest
from cryptography.hazmat.primitives import serialization
from processes import AsgiServer, AuthorizationServer
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from asgi_mcp_auth.testing import Issuer, parse_challenges

COUNTERPARTS = Path(__file__).parent / "counterparts"

Under = Literal["uvicorn", "hypercorn-asyncio", "hypercorn-trio"]
SERVERS: tuple[Under, ...] = ("uvicorn", "hypercorn-asyncio", "hypercorn-trio")
UNDER = ("uvicorn", pytest.param("hypercorn-asyncio", marks=pytest.mark.full), "hypercorn-trio")

INVALID = "The access token is invalid"
EXPIRED = "The access token expired"

STALE = 700.0  # a key set is fresh for 10 minutes
UNUSABLE = 90_000.0  # and served stale for 24 hours more


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class CompiledConfig:
    """A protected app on a server, and a client that calls it."""

    server: AsgiServer
    http: httpx.Client

    @property
    def resource(self) -> str:
        return f"{self.server.url}/mcp"

    @property
    def metadata_url(self) -> str:
        return f"{self.server.url}/.well-known/oauth-protected-resource/mcp"

    def challenge(self, error: str | None = None, description: str | None = None, scope: str = "mcp:read") -> str:
        """Return the expected `WWW-Authenticate` value."""
        begin = "" if error is None else f'error="{error}", '
        end = "" if description is None else f', error_description="{description}"'
        return f'Bearer {begin}scope="{scope}", resource_metadata="{self.metadata_url}"{end}'

    def call(self, token: str | None, path: str = "/mcp", method: str = "POST") -> httpx.Response:
        return self.http.request(method, self.server.url + path, headers=bearer(token) if token else {})

    def put_clock(self, ahead: float) -> None:
        assert self.http.post(f"{self.server.url}/control/clock", params={"ahead": ahead}).status_code == 204

    def websocket(self, token: str | None) -> Any:
        url = f"ws://127.0.0.1:{self.server.port}/mcp/ws"
        return connect(url, additional_headers=bearer(token) if token else {}, open_timeout=10, close_timeout=10)

    def check_refused(self, token: str, description: str = INVALID) -> None:
        """Assert that the answer is exactly the 401 of the requirements."""
        response = self.call(token)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == self.challenge("invalid_token", description)
        assert response.json() == {"error": "invalid_token", "error_description": description}
        assert response.headers["cache-control"] == "no-store"

    def check_unavailable(self, token: str, at_most: int) -> int:
        """Assert a 503 that does not blame the token; return its Retry-After."""
        response = self.call(token)
        assert response.status_code == 503
        assert "www-authenticate" not in response.headers
        assert response.json() == {"error": "temporarily_unavailable"}
        seconds = int(response.headers["retry-after"])
        assert 1 <= seconds <= at_most
        return seconds


@contextlib.contextmanager
def protected(*issuers: str, under: Under = "uvicorn", warm_up: bool = True) -> Generator[CompiledConfig]:
    """Run counterparts/apps.py, trusting these issuers; without a warm-up nothing is fetched before the first token."""
    port = processes.free_port()
    env = {"RESOURCE": f"http://127.0.0.1:{port}/mcp", "ISSUERS": " ".join(issuers)}
    with contextlib.ExitStack() as stack:
        if under == "uvicorn":
            args = () if warm_up else ("--lifespan", "off")
            run = processes.uvicorn("apps:app", app_dir=COUNTERPARTS, port=port, env=env, args=args)
        else:
            assert warm_up, "Hypercorn always runs the lifespan"
            worker: Literal["asyncio", "trio"] = "asyncio" if under == "hypercorn-asyncio" else "trio"
            run = processes.hypercorn("apps:app", app_dir=COUNTERPARTS, port=port, env=env, worker=worker)
        server = stack.enter_context(run)
        yield CompiledConfig(server, stack.enter_context(httpx.Client(trust_env=False, timeout=20.0)))


def jwks_path(authority: AuthorizationServer) -> str:
    jwks_uri: str = authority.metadata["jwks_uri"]
    return urlsplit(jwks_uri).path


def well_known_paths(authority: AuthorizationServer) -> list[str]:
    """Return the well-known paths of an issuer's metadata, in the order of MCP."""
    path = urlsplit(authority.issuer).path
    oauth, oidc = "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"
    return [oauth + path, oidc + path, path + oidc] if path else [oauth, oidc]


def own_token(authority: AuthorizationServer, audience: str, **changes: Any) -> str:
    """A token signed with the authorization server's real key, with claims that it would never sign; `...` removes."""
    key = authority.private_keys()[0]
    claims = Issuer(authority.issuer, algorithms=()).claims(audience, **({"scope": "mcp:read"} | changes))
    header = {"kid": key["kid"], "typ": "at+jwt"}
    return jwt.encode(claims, jwt.PyJWK(key).key, algorithm=key["alg"], headers=header)


# Shared by most tests: authorization servers without rotations, faults and restarts, and apps that trust them.


@pytest.fixture(scope="module")
def authority() -> Iterator[AuthorizationServer]:
    processes.require_authorization_server()
    with processes.authorization_server() as server:
        yield server


@pytest.fixture(scope="module")
def brief() -> Iterator[AuthorizationServer]:
    """An issuer whose tokens live for two seconds."""
    processes.require_authorization_server()
    with processes.authorization_server(alg="ES256", ttl=2) as server:
        yield server


@pytest.fixture(scope="module")
def tenant() -> Iterator[AuthorizationServer]:
    """An issuer with a path."""
    processes.require_authorization_server()
    with processes.authorization_server(path="/tenant1") as server:
        yield server


@pytest.fixture(scope="module")
def sites(authority: AuthorizationServer, brief: AuthorizationServer) -> Iterator[dict[Under, CompiledConfig]]:
    with contextlib.ExitStack() as stack:
        yield {under: stack.enter_context(protected(authority.issuer, brief.issuer, under=under)) for under in SERVERS}


@pytest.fixture
def site(sites: dict[Under, CompiledConfig]) -> CompiledConfig:
    """The app under uvicorn."""
    return sites["uvicorn"]


# The way in


@pytest.mark.requirement("RS-1", "RS-30", "RS-31", "RS-32")
@pytest.mark.parametrize("under", UNDER)
def test_from_a_401_to_the_claims(
    sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer
) -> None:
    site = sites[under]
    refused = site.call(None)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == site.challenge()
    assert refused.headers["cache-control"] == "no-store"
    assert refused.json() == {"detail": "Authentication required"}

    # From here on, the client uses only values from responses.
    (challenge,) = parse_challenges(refused.headers["www-authenticate"])
    document = site.http.get(challenge.params["resource_metadata"])
    assert document.status_code == 200
    assert document.headers["content-type"] == "application/json"
    assert document.json() == {
        "resource": site.resource,
        "authorization_servers": [authority.issuer, document.json()["authorization_servers"][1]],
        "scopes_supported": ["mcp:read"],
        "bearer_methods_supported": ["header"],
    }
    metadata = site.http.get(f"{document.json()['authorization_servers'][0]}/.well-known/oauth-authorization-server")
    grant = {
        "grant_type": "client_credentials",
        "resource": document.json()["resource"],
        "scope": challenge.params["scope"],
    }
    granted = site.http.post(metadata.json()["token_endpoint"], data=grant, auth=("m2m", "m2m-secret")).json()

    response = site.call(granted["access_token"])
    assert response.status_code == 200
    assert "www-authenticate" not in response.headers
    seen = response.json()
    claims = jwt.decode(granted["access_token"], options={"verify_signature": False})
    assert claims["aud"] == site.resource
    assert seen == {
        "claims": claims,
        "subject": "m2m",
        "client_id": "m2m",
        "expires_at": claims["exp"],
        "user": "m2m",
        "is_authenticated": True,
        "scopes": ["mcp:read"],
        "authorization": None,
    }


@pytest.mark.parametrize("under", UNDER)
def test_authorization_code_with_pkce(
    sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer
) -> None:
    site = sites[under]
    granted = authority.authorization_code(resource=site.resource, scope="mcp:read mcp:write")
    response = site.call(granted["access_token"], method="GET")
    assert response.status_code == 200
    seen = response.json()
    assert (seen["subject"], seen["user"], seen["client_id"]) == ("alice", "alice", "native")
    assert seen["scopes"] == ["mcp:read", "mcp:write"]
    assert seen["claims"]["groups"] == ["dev", "ops"]
    # and the token that the refresh token brings is as good
    refreshed = authority.refresh(granted["refresh_token"], resource=site.resource)
    assert refreshed["access_token"] != granted["access_token"]
    assert site.call(refreshed["access_token"]).json()["subject"] == "alice"


@pytest.mark.requirement("RS-71", "RS-75")
@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA", "Ed25519"])
def test_a_token_of_each_algorithm_passes(alg: str) -> None:
    processes.require_authorization_server()
    with processes.authorization_server(alg=alg) as authority, protected(authority.issuer) as site:
        token = authority.client_credentials(resource=site.resource)
        assert jwt.get_unverified_header(token)["alg"] == alg
        assert site.call(token).json()["claims"]["iss"] == authority.issuer
        site.check_refused(_with_another_signature(token))


def _with_another_signature(token: str) -> str:
    """Return the token with the last full character of its signature changed; padding bits do not matter."""
    at = -3
    return token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]


@pytest.mark.requirement("RS-61")
@pytest.mark.parametrize("under", UNDER)
def test_head(sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer) -> None:
    site = sites[under]
    token = authority.client_credentials(resource=site.resource)
    for credential, url, status in (
        (None, site.resource, 401),
        (token, site.resource, 200),
        (None, site.metadata_url, 200),
    ):
        headers = bearer(credential) if credential else {}
        got, head = site.http.get(url, headers=headers), site.http.head(url, headers=headers)
        assert (got.status_code, head.status_code) == (status, status)
        assert got.content
        assert head.content == b""
        kept = ("content-type", "content-length", "www-authenticate", "cache-control", "etag")
        assert {name: head.headers.get(name) for name in kept} == {name: got.headers.get(name) for name in kept}


# Streams and websockets


@pytest.mark.requirement("RS-213")
@pytest.mark.parametrize("under", UNDER)
def test_a_response_streams(sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer) -> None:
    site = sites[under]
    headers = bearer(authority.client_credentials(resource=site.resource))
    with site.http.stream("GET", f"{site.resource}/stream", headers=headers) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        assert next(lines) == "first m2m"  # the second has not been said yet, and is not before:
        assert site.http.post(f"{site.server.url}/control/release").status_code == 204
        assert list(lines) == ["second"]


@pytest.mark.requirement("RS-213")
@pytest.mark.parametrize("under", UNDER)
def test_a_client_that_leaves_ends_its_stream(
    sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer
) -> None:
    site = sites[under]
    headers = bearer(authority.client_credentials(resource=site.resource))

    def ended() -> int:
        count: int = site.http.get(f"{site.server.url}/control/streams").json()["ended"]
        return count

    before = ended()
    with site.http.stream("GET", f"{site.resource}/stream", headers=headers) as response:
        lines = response.iter_lines()  # held: its end would be the response's
        assert next(lines) == "first m2m"
        assert ended() == before
    deadline = time.monotonic() + 10
    while ended() == before:
        assert time.monotonic() < deadline, "the app did not receive a disconnect"
        time.sleep(0.02)


@pytest.mark.requirement("RS-4")
@pytest.mark.parametrize("under", UNDER)
def test_websocket_without_a_token_gets_the_401(sites: dict[Under, CompiledConfig], under: Under) -> None:
    site = sites[under]
    with pytest.raises(InvalidStatus) as refused, site.websocket(None):
        pytest.fail("accepted")
    response = refused.value.response
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == site.challenge()
    assert json.loads(response.body) == {"detail": "Authentication required"}


@pytest.mark.requirement("RS-4")
def test_websocket_with_a_bad_token_gets_the_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    token = authority.client_credentials(resource="http://127.0.0.1:1/mcp")
    with pytest.raises(InvalidStatus) as refused, site.websocket(token):
        pytest.fail("accepted")
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["www-authenticate"] == site.challenge("invalid_token", INVALID)


@pytest.mark.requirement("RS-4")
def test_websocket_without_the_scope_gets_the_403(site: CompiledConfig, authority: AuthorizationServer) -> None:
    token = authority.client_credentials(resource=site.resource, scope="mcp:write")
    with pytest.raises(InvalidStatus) as refused, site.websocket(token):
        pytest.fail("accepted")
    assert refused.value.response.status_code == 403
    expected = site.challenge("insufficient_scope", "Additional scope required")
    assert refused.value.response.headers["www-authenticate"] == expected


@pytest.mark.requirement("RS-4")
@pytest.mark.parametrize("under", UNDER)
def test_websocket_ends_with_its_token(
    sites: dict[Under, CompiledConfig], under: Under, brief: AuthorizationServer
) -> None:
    site = sites[under]
    token = brief.client_credentials(resource=site.resource)
    expires = jwt.decode(token, options={"verify_signature": False})["exp"]
    with site.websocket(token) as socket:
        assert socket.recv(timeout=5) == "m2m"
        socket.send("still there?")
        assert socket.recv(timeout=5) == "still there?"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert 0 <= time.time() - expires < 2


# Refused


@pytest.mark.requirement("RS-80")
def test_a_token_of_another_resource_is_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    for other in (f"{site.server.url}/mcp2", site.server.url, f"{site.resource}/", "https://elsewhere.example.com/mcp"):
        site.check_refused(authority.client_credentials(resource=other))


@pytest.mark.requirement("RS-70")
def test_an_opaque_token_is_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    token = authority.client_credentials(resource=None)
    assert "." not in token
    site.check_refused(token)


@pytest.mark.requirement("RS-81")
def test_an_expired_token_is_401(site: CompiledConfig, brief: AuthorizationServer) -> None:
    token = brief.client_credentials(resource=site.resource)
    assert site.call(token).status_code == 200  # and is remembered: only its time ends it
    expires = jwt.decode(token, options={"verify_signature": False})["exp"]
    time.sleep(max(0.0, expires - time.time()) + 0.02)
    site.check_refused(token, EXPIRED)
    unseen = own_token(brief, site.resource, iat=expires - 60, exp=expires)
    site.check_refused(unseen, EXPIRED)


@pytest.mark.requirement("RS-70")
@pytest.mark.parametrize("token", ["garbage", "a.b.c", "e30.e30.e30", "x" * 8000], ids=lambda token: token[:12])
def test_garbage_is_401(site: CompiledConfig, token: str) -> None:
    site.check_refused(token)


@pytest.mark.requirement("RS-17")
def test_a_credential_that_is_not_a_token68_is_400(site: CompiledConfig) -> None:
    response = site.call("not a token68")
    assert response.status_code == 400
    expected = site.challenge("invalid_request", "Malformed Authorization header")
    assert response.headers["www-authenticate"] == expected


@pytest.mark.requirement("RS-79", "RS-80", "RS-81", "RS-82", "RS-85")
def test_bad_claims_signed_with_the_real_key_are_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    now = int(time.time())
    assert site.call(own_token(authority, site.resource)).status_code == 200
    for changes in (
        {"iss": "http://127.0.0.1:1"},
        {"iss": authority.issuer + "/"},
        {"aud": ...},
        {"exp": ...},
        {"exp": "soon"},
        {"sub": ...},
        {"nbf": now + 60},
        {"iat": now + 60},
        {"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}},
        {"at_hash": "x"},
    ):
        site.check_refused(own_token(authority, site.resource, **changes))


@pytest.mark.requirement("RS-78")
def test_a_token_that_was_changed_after_signing_is_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    good = authority.client_credentials(resource=site.resource, scope="mcp:read")
    more = authority.client_credentials(resource=site.resource, scope="mcp:read mcp:admin")
    (header, claims, signature), (_, more_claims, _) = good.split("."), more.split(".")
    assert site.call(good).status_code == 200
    site.check_refused(f"{header}.{more_claims}.{signature}")
    site.check_refused(f"{header}.{claims}.{'A' * len(signature)}")
    site.check_refused(_with_another_signature(good))


@pytest.mark.requirement("RS-75")
def test_another_key_under_a_known_kid_is_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    impostor = Issuer(authority.issuer)
    impostor.keys[0].kid = authority.private_keys()[0]["kid"]
    site.check_refused(impostor.mint(site.resource, scope="mcp:read"))


@pytest.mark.requirement("RS-71")
def test_alg_confusion_is_401(site: CompiledConfig, authority: AuthorizationServer) -> None:
    key = authority.private_keys()[0]
    claims = Issuer(authority.issuer, algorithms=()).claims(site.resource, scope="mcp:read")
    forms = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    public = jwt.PyJWK(key).key.public_key().public_bytes(*forms)
    headers = {"kid": key["kid"], "typ": "at+jwt"}
    site.check_refused(jwt.encode(claims, "", algorithm="none", headers=headers))
    as_hs256 = jwt.encode(claims, "x" * 32, algorithm="HS256", headers=headers).rpartition(".")[0]
    mac = hmac.digest(public, as_hs256.encode(), "sha256")  # PyJWT itself would not do this
    site.check_refused(f"{as_hs256}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@pytest.mark.requirement("RS-42", "RS-111")
@pytest.mark.parametrize("under", UNDER)
def test_a_missing_scope_is_a_403_that_names_all_scopes(
    sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer
) -> None:
    site = sites[under]
    read = authority.client_credentials(resource=site.resource, scope="mcp:read")
    assert site.call(read).status_code == 200
    refused = site.call(read, "/mcp/admin")
    assert refused.status_code == 403
    needed = "mcp:read mcp:admin"
    expected = site.challenge("insufficient_scope", "Additional scope required", scope=needed)
    assert refused.headers["www-authenticate"] == expected
    assert refused.json() == {"error": "insufficient_scope", "error_description": "Additional scope required"}
    # The client requests the scopes that the challenge named.
    assert site.call(authority.client_credentials(resource=site.resource, scope=needed), "/mcp/admin").is_success
    admin = authority.client_credentials(resource=site.resource, scope="mcp:admin")
    assert site.call(admin, "/mcp/admin").status_code == 403  # the baseline is needed too


@pytest.mark.requirement("RS-241")
@pytest.mark.parametrize("under", UNDER)
def test_the_log_has_the_reason_and_no_token(
    sites: dict[Under, CompiledConfig], under: Under, authority: AuthorizationServer
) -> None:
    site = sites[under]
    good = authority.client_credentials(resource=site.resource)
    wrong = authority.client_credentials(resource="https://log.example.com/mcp")
    assert site.call(good).status_code == 200
    site.check_refused(wrong)
    output = site.server.process.output
    assert "wrong_audience" in output
    assert "https://log.example.com/mcp" in output
    for part in (*good.split("."), *wrong.split(".")[1:]):
        assert part not in output
    assert "Traceback" not in output


# Discovery and keys


@pytest.mark.requirement("DC-7")
def test_concurrent_requests_after_a_cold_start_share_one_fetch(authority: AuthorizationServer) -> None:
    with protected(authority.issuer, warm_up=False) as site, ThreadPoolExecutor(50) as pool:
        tokens = [authority.client_credentials(resource=site.resource) for _ in range(10)]
        authority.reset_stats()
        assert [response.status_code for response in pool.map(site.call, tokens * 5)] == [200] * 50
        assert authority.stats() == {well_known_paths(authority)[0]: 1, jwks_path(authority): 1}


@pytest.mark.requirement("RS-73")
def test_nothing_is_fetched_for_an_unknown_issuer(authority: AuthorizationServer) -> None:
    with protected(authority.issuer, warm_up=False) as site:
        authority.reset_stats()
        site.check_refused(Issuer("https://unknown.example.com").mint(site.resource, scope="mcp:read"))
        site.check_refused("garbage")
        assert site.call(None).status_code == 401
        assert authority.stats() == {}
        assert site.call(own_token(authority, site.resource)).status_code == 200
        assert authority.stats() == {well_known_paths(authority)[0]: 1, jwks_path(authority): 1}


@pytest.mark.requirement("DC-9")
def test_keys_are_fetched_at_start(authority: AuthorizationServer) -> None:
    authority.reset_stats()
    fetched = {well_known_paths(authority)[0]: 1, jwks_path(authority): 1}
    with protected(authority.issuer) as site:
        deadline = time.monotonic() + 10
        while authority.stats() != fetched:  # in the background of the start, without a request
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert site.call(own_token(authority, site.resource)).status_code == 200
        assert authority.stats() == fetched


@pytest.mark.requirement("DC-1")
def test_issuer_with_a_path(tenant: AuthorizationServer) -> None:
    with protected(tenant.issuer, warm_up=False) as site:
        token = tenant.client_credentials(resource=site.resource)
        tenant.reset_stats()
        assert site.call(token).json()["claims"]["iss"] == tenant.issuer
        assert tenant.stats() == {"/.well-known/oauth-authorization-server/tenant1": 1, "/tenant1/jwks": 1}


@pytest.mark.requirement("DC-1", "DC-2", "DC-3", "DC-5")
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404},
        {"status": 500},
        {"status": 302, "headers": {"location": "/elsewhere"}},
        {"status": 200, "body": "<!doctype html>"},
        {"status": 200, "body": {"issuer": "https://evil.example.com", "jwks_uri": "https://evil.example.com/jwks"}},
        {"destroy": True},
    ],
    ids=["not-found", "error", "redirect", "html", "other-issuer", "cut"],
)
def test_a_failed_metadata_url_does_not_end_the_probing(tenant: AuthorizationServer, fault: dict[str, Any]) -> None:
    first, second, third = well_known_paths(tenant)
    with protected(tenant.issuer, warm_up=False) as site:
        token = tenant.client_credentials(resource=site.resource)
        tenant.reset_stats()
        tenant.fault(first, **fault)
        try:
            assert site.call(token).status_code == 200
            # This server does not know the second URL (404); the third is the URL of OpenID Connect.
            assert tenant.stats() == {first: 1, second: 1, third: 1, jwks_path(tenant): 1}
        finally:
            tenant.clear_faults()


@pytest.mark.requirement("RS-6")
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 404},
        {"status": 200, "body": "<!doctype html>"},
        {"status": 200, "body": {"keys": []}},
        {"destroy": True},
    ],
    ids=["error", "not-found", "html", "empty", "cut"],
)
def test_a_failed_key_set_fetch_is_503_until_the_back_off_ends(
    authority: AuthorizationServer, fault: dict[str, Any]
) -> None:
    with protected(authority.issuer, warm_up=False) as site:
        token = authority.client_credentials(resource=site.resource)
        authority.reset_stats()
        authority.fault(jwks_path(authority), times=1, **fault)
        try:
            wait = site.check_unavailable(token, at_most=2)
            # Until then no request causes a fetch.
            site.check_unavailable(token, at_most=2)
            assert authority.stats()[jwks_path(authority)] == 1
            site.put_clock(wait)
            assert site.call(token).status_code == 200
            assert authority.stats()[jwks_path(authority)] == 2
        finally:
            authority.clear_faults()


def test_a_slow_key_set_is_awaited(authority: AuthorizationServer) -> None:
    with protected(authority.issuer, warm_up=False) as site, ThreadPoolExecutor(5) as pool:
        token = authority.client_credentials(resource=site.resource)
        authority.reset_stats()
        authority.fault(jwks_path(authority), times=1, delay_ms=700)
        try:
            began = time.monotonic()
            assert [response.status_code for response in pool.map(site.call, [token] * 5)] == [200] * 5
            assert time.monotonic() - began > 0.6
            assert authority.stats()[jwks_path(authority)] == 1
        finally:
            authority.clear_faults()


# Rotation: an authorization server of their own, since its keys do not come back.


@pytest.fixture(scope="module")
def rotating() -> Iterator[AuthorizationServer]:
    processes.require_authorization_server()
    with processes.authorization_server() as server:
        yield server


@pytest.mark.requirement("RS-77")
def test_a_key_replaced_without_notice(rotating: AuthorizationServer) -> None:
    with protected(rotating.issuer, warm_up=False) as site:
        old, unseen = (rotating.client_credentials(resource=site.resource) for _ in range(2))
        assert site.call(old).status_code == 200
        time.sleep(1.1)  # `iat` counts whole seconds: old tokens are older than the key set that is fetched next
        rotating.reset_stats()
        rotating.rotate("replace")
        new = rotating.client_credentials(resource=site.resource)
        assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]

        assert site.call(new).status_code == 200  # its first request, although the keys were just fetched
        assert rotating.stats()[jwks_path(rotating)] == 1
        site.check_refused(old)  # remembered or not, it went with its key
        site.check_refused(unseen)
        assert site.call(new).status_code == 200


@pytest.mark.requirement("RS-77")
def test_a_key_rolled_over(rotating: AuthorizationServer) -> None:
    with protected(rotating.issuer, warm_up=False) as site:
        old = rotating.client_credentials(resource=site.resource)
        lasting = own_token(rotating, site.resource, exp=int(time.time()) + 7200)  # with the same key
        assert site.call(old).status_code == 200
        rotating.rotate("stage")
        assert site.call(rotating.client_credentials(resource=site.resource)).status_code == 200
        rotating.rotate("roll")
        new = rotating.client_credentials(resource=site.resource)
        assert site.call(new).status_code == 200
        assert site.call(old).status_code == 200  # still published
        rotating.rotate("drop")
        site.put_clock(630)
        assert site.call(lasting).status_code == 200  # stale: used once more, and refreshed in the background
        deadline = time.monotonic() + 10
        while site.call(lasting).status_code == 200:
            assert time.monotonic() < deadline, "a dropped key is still believed"
            time.sleep(0.02)
        site.check_refused(lasting)


@pytest.mark.requirement("DC-10", "RS-77")
def test_unknown_kid(rotating: AuthorizationServer) -> None:
    unpublished = Issuer(rotating.issuer)  # with a key that is not in the key set
    with protected(rotating.issuer, warm_up=False) as site:
        good = rotating.client_credentials(resource=site.resource)
        assert site.call(good).status_code == 200
        rotating.reset_stats()
        now = int(time.time())
        older = unpublished.mint(site.resource, scope="mcp:read", iat=now - 200)
        newer = unpublished.mint(site.resource, scope="mcp:read", iat=now - 10)
        site.check_refused(older)  # looked up at once
        for _ in range(5):
            site.check_refused(newer)  # the kid was looked up since this token was issued
        assert rotating.stats() == {jwks_path(rotating): 1}
        first, second = (Issuer(rotating.issuer).mint(site.resource, scope="mcp:read", iat=now + 5) for _ in range(2))
        site.check_refused(first)  # the last one of two a minute
        site.check_unavailable(second, at_most=30)
        assert rotating.stats() == {jwks_path(rotating): 2}
        assert site.call(good).status_code == 200


# The authorization server is gone


@pytest.mark.requirement("RS-6")
def test_keys_outlive_the_authorization_server() -> None:
    processes.require_authorization_server()
    with processes.authorization_server(ttl=200_000) as authority, protected(authority.issuer) as site:
        seen, *unseen = (authority.client_credentials(resource=site.resource) for _ in range(3))
        assert site.call(seen).status_code == 200
        authority.process.stop()
        assert site.call(seen).status_code == 200
        assert site.call(unseen[0]).status_code == 200
        site.put_clock(STALE)
        assert site.call(unseen[1]).status_code == 200
        assert site.call(seen).status_code == 200
        # To the stated limit and no further.
        site.put_clock(UNUSABLE)
        site.check_unavailable(seen, at_most=33)
        site.check_unavailable(unseen[0], at_most=33)


@pytest.mark.requirement("DC-9", "RS-6")
@pytest.mark.parametrize("under", UNDER)
def test_cold_start_without_the_authorization_server(under: Under, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.require_authorization_server()
    port = processes.free_port()
    issuer = f"http://127.0.0.1:{port}"
    with protected(issuer, under=under) as site:  # it starts all the same
        forged = Issuer(issuer).mint(site.resource, scope="mcp:read")
        site.check_unavailable(forged, at_most=33)  # bad, but who knows
        assert site.call(None).status_code == 401
        assert site.http.get(site.metadata_url).status_code == 200
        monkeypatch.setattr(processes, "free_port", lambda: port)
        with processes.authorization_server() as authority:
            assert authority.issuer == issuer
            token = authority.client_credentials(resource=site.resource)
            site.put_clock(33)  # longer than any back-off
            assert site.call(token).status_code == 200
            site.check_refused(forged)
