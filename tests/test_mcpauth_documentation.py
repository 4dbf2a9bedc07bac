"""The code in the documentation of mcpauth, run with this package: only the imports differ.

Each test follows one page or one tutorial, in short words; placeholder URLs and elided parts are filled in. The
authorization server is a real one on loopback, because `fetch_server_config` is synchronous, over real HTTP.
"""

import contextlib
import importlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx
import httpx2
import processes
import pytest
from mcp import Client, MCPError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer  # the documentation's FastMCP of mcp<2
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import asgi_mcp_auth
from asgi_mcp_auth import MCPAuth
from asgi_mcp_auth.config import (
    AuthorizationServerMetadata,
    AuthServerConfig,
    AuthServerType,
    ResourceServerConfig,
    ResourceServerMetadata,
    ServerMetadataPaths,
)
from asgi_mcp_auth.exceptions import (
    BearerAuthExceptionCode,
    MCPAuthAuthServerException,
    MCPAuthBearerAuthException,
    MCPAuthBearerAuthExceptionDetails,
    MCPAuthConfigException,
    MCPAuthJwtVerificationException,
    MCPAuthJwtVerificationExceptionCode,
    MCPAuthTokenVerificationException,
    MCPAuthTokenVerificationExceptionCode,
)
from asgi_mcp_auth.testing import Issuer, parse_challenges
from asgi_mcp_auth.types import AuthInfo
from asgi_mcp_auth.utils import fetch_server_config, fetch_server_config_by_well_known_url

API = "https://api.example.com"
NOTES = "https://api.example.com/notes"


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.fixture
def anyio_backend() -> str:
    """The protected apps run on uvicorn and therefore on asyncio; the client of the MCP SDK is not tested on trio."""
    return "asyncio"


# Servers on loopback


@contextlib.contextmanager
def serving(app: Any, listener: socket.socket | None = None) -> Generator[str]:
    """Serve an app with uvicorn in a thread; yield its URL."""
    import uvicorn

    with listener or socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.started:
                assert thread.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


class Provider:
    """An authorization server: an `Issuer` with a userinfo endpoint, whose metadata is at an unusual URL too."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.url = f"{origin}/oidc"
        self.issuer = Issuer(self.url)
        self.metadata = self.issuer.metadata
        self.metadata["authorization_endpoint"] = f"{self.url}/auth"
        self.metadata["userinfo_endpoint"] = f"{self.url}/me"
        self.unusual_url = f"{origin}/api/v1/oauth-metadata.json"
        self.people: dict[str, dict[str, Any]] = {}
        """The userinfo responses by opaque token."""
        routes = [
            Route("/oidc/me", self._userinfo),
            Route("/api/v1/oauth-metadata.json", self._unusual),
            Mount("/", app=self.issuer),
        ]
        self.app = Starlette(routes=routes)

    async def _userinfo(self, request: Request) -> JSONResponse:
        person = self.people.get(request.headers["authorization"].removeprefix("Bearer "))
        return JSONResponse({"error": "invalid_token"}, 401) if person is None else JSONResponse(person)

    async def _unusual(self, _: Request) -> JSONResponse:
        return JSONResponse(self.metadata)

    def mint(self, audience: str = API, **changes: Any) -> str:
        claims: dict[str, Any] = {"scope": "read write"} | changes
        return self.issuer.mint(audience, **claims)


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    listener = socket.create_server(("127.0.0.1", 0))
    provider = Provider(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with serving(provider.app, listener):
        yield provider


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    _provider.issuer.requests.clear()
    return _provider


@pytest.fixture
def auth_server_config(provider: Provider) -> AuthServerConfig:
    return fetch_server_config(provider.url, AuthServerType.OIDC)


def resource(identifier: str, *servers: AuthServerConfig, scopes: tuple[str, ...] = ()) -> ResourceServerConfig:
    metadata = ResourceServerMetadata(
        resource=identifier, authorization_servers=list(servers), scopes_supported=list(scopes) or None
    )
    return ResourceServerConfig(metadata=metadata)


@pytest.fixture
def mcp_auth(auth_server_config: AuthServerConfig) -> MCPAuth:
    return MCPAuth(protected_resources=resource(API, auth_server_config, scopes=("read", "write")))


def app_behind(mcp_auth: MCPAuth, bearer_auth: Callable[..., Any], path: str = "/") -> Starlette:
    """Return the app of the documentation, with a handler that shows `auth_info` instead of the MCP server."""

    async def show(_: Request) -> JSONResponse:
        info = mcp_auth.auth_info
        assert info is not None
        return JSONResponse({"subject": info.subject, "scopes": list(info.scopes), "claims": info.claims})

    shown = Starlette(routes=[Route("/", show, methods=["GET", "POST"])])
    routes = [
        *mcp_auth.resource_metadata_router().routes,
        Mount(path, app=shown, middleware=[Middleware(bearer_auth)]),
    ]
    return Starlette(routes=routes)


def get(app: Any, token: str | None = None, path: str = "/") -> httpx.Response:
    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=API) as client:
            return await client.get(path, headers=bearer(token) if token else {})

    return anyio.run(exchange)


def error_of(response: httpx.Response) -> tuple[int, str | None]:
    """Return the status and the `error` of the challenge; assert that the challenge names the metadata."""
    assert response.status_code in (401, 403), response.text
    (challenge,) = parse_challenges(response.headers["www-authenticate"])
    assert challenge.scheme == "Bearer"
    assert challenge.params["resource_metadata"] == f"{API}/.well-known/oauth-protected-resource"
    return response.status_code, challenge.params.get("error")


# Imports


IMPORTS = {
    "": ["MCPAuth"],
    ".config": [
        "AuthServerConfig",
        "AuthServerType",
        "AuthorizationServerMetadata",
        "ResourceServerConfig",  # in the next four, mcpauth's own documentation fails
        "ResourceServerMetadata",
        "fetch_server_config",
        "fetch_server_config_by_well_known_url",
        "ServerMetadataPaths",
    ],
    ".types": ["AuthInfo", "ResourceServerConfig", "ResourceServerMetadata"],
    ".utils": [
        "fetch_server_config",
        "fetch_server_config_by_well_known_url",
        "AuthServerType",  # here too, and in the next
        "ServerMetadataPaths",
    ],
    ".exceptions": [
        "BearerAuthExceptionCode",
        "MCPAuthBearerAuthException",
        "MCPAuthTokenVerificationException",
        "MCPAuthTokenVerificationExceptionCode",
        "MCPAuthJwtVerificationException",  # and in these two
        "MCPAuthJwtVerificationExceptionCode",
    ],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in IMPORTS.items() for name in names])
def test_documented_import(module: str, name: str) -> None:
    found = getattr(importlib.import_module(f"asgi_mcp_auth{module}"), name)
    assert found.__name__ == name.replace("Jwt", "Token")
    assert found is getattr(asgi_mcp_auth, name, found)  # one object, whatever the path


# Configure MCP Auth in MCP server


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (AuthServerType.OIDC, "/oidc/.well-known/openid-configuration"),
        (AuthServerType.OAUTH, "/.well-known/oauth-authorization-server/oidc"),
    ],
    ids=["DC-1 OIDC is appended to the issuer", "DC-1 OAUTH is inserted after the domain"],
)
def test_fetch_server_config(provider: Provider, kind: AuthServerType, place: str) -> None:
    positional = fetch_server_config(provider.url, kind)
    keyword = fetch_server_config(issuer=provider.url, type=kind)
    for config in (positional, keyword):
        assert config.type is kind
        assert config.metadata is not None
        assert config.metadata.issuer == provider.url
        assert config.metadata.jwks_uri == f"{provider.url}/jwks"
        assert config.metadata.userinfo_endpoint == f"{provider.url}/me"
    assert provider.issuer.requests == {place: 2}


@pytest.mark.anyio
async def test_fetch_server_config_can_be_awaited_under_another_name(provider: Provider) -> None:
    """The docstring of mcpauth awaits the synchronous function, which is impossible; the async one is meant."""
    config = await asgi_mcp_auth.fetch_server_config_async(issuer=provider.url, type=AuthServerType.OIDC)
    assert config.metadata is not None
    assert config.metadata.issuer == provider.url


def test_transpile_data(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(provider.metadata, "response_types_supported")
    config = fetch_server_config(
        provider.url,
        type=AuthServerType.OIDC,
        transpile_data=lambda data: {**data, "response_types_supported": ["code"]},
    )
    assert config.metadata is not None
    assert config.metadata.response_types_supported == ["code"]
    assert config.metadata.issuer == provider.url  # the rest is what was fetched


@pytest.mark.requirement("DC-2")
def test_transpile_data_corrects_metadata_that_would_be_refused(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issuer is compared after `transpile_data`."""
    monkeypatch.setitem(provider.metadata, "issuer", f"{provider.url}/")
    monkeypatch.setitem(provider.metadata, "scopes_supported", "read write")  # not a list
    with pytest.raises(MCPAuthConfigException):
        fetch_server_config(provider.url, AuthServerType.OIDC)
    corrected = fetch_server_config(
        provider.url,
        AuthServerType.OIDC,
        lambda data: {
            **data,
            "issuer": data["issuer"].removesuffix("/"),
            "scopes_supported": data["scopes_supported"].split(),
        },
    )
    assert corrected.metadata is not None
    assert corrected.metadata.scopes_supported == ["read", "write"]
    with pytest.raises(MCPAuthConfigException):
        fetch_server_config(provider.url, AuthServerType.OIDC, lambda data: {**data, "scopes_supported": []})


def test_fetch_from_a_specific_url(provider: Provider) -> None:
    config = fetch_server_config_by_well_known_url(provider.unusual_url, type=AuthServerType.OIDC)
    assert config.metadata is not None
    assert config.metadata.issuer == provider.url
    assert provider.issuer.requests == {}  # no well-known place was asked
    mcp_auth = MCPAuth(protected_resources=resource(API, config))
    app = app_behind(mcp_auth, mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API))
    assert get(app, provider.mint()).json()["subject"] == "alice"


def test_fetch_from_a_specific_url_and_transpile(provider: Provider) -> None:
    from asgi_mcp_auth.config import fetch_server_config_by_well_known_url as from_config

    config = from_config(
        provider.unusual_url,
        type=AuthServerType.OIDC,
        transpile_data=lambda data: {**data, "response_types_supported": ["code"]},
    )
    assert config.metadata is not None
    assert config.metadata.response_types_supported == ["code"]


def test_metadata_that_cannot_be_fetched_raises(provider: Provider) -> None:
    with pytest.raises(MCPAuthConfigException) as missing:
        fetch_server_config_by_well_known_url(f"{provider.origin}/nowhere", type=AuthServerType.OIDC)
    assert f"{provider.origin}/nowhere" in str(missing.value)
    with pytest.raises(MCPAuthConfigException):
        fetch_server_config(f"http://127.0.0.1:{processes.free_port()}", AuthServerType.OIDC)


def test_metadata_by_hand(provider: Provider) -> None:
    """As documented, without a token endpoint and response types, which mcpauth itself refuses."""
    config = AuthServerConfig(
        type=AuthServerType.OIDC,
        metadata=AuthorizationServerMetadata(
            issuer=provider.url,
            authorization_endpoint=f"{provider.url}/auth",
        ),
    )
    assert config.metadata is not None
    assert config.metadata.authorization_endpoint == f"{provider.url}/auth"
    assert config.metadata.token_endpoint is None
    mcp_auth = MCPAuth(protected_resources=resource(API, config))
    app = app_behind(mcp_auth, mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API))
    # It has no jwks_uri, so the keys are looked for where an issuer of this type has them.
    assert get(app, provider.mint()).json()["subject"] == "alice"
    assert provider.issuer.requests == {"/oidc/.well-known/openid-configuration": 1, "/oidc/jwks": 1}


def test_metadata_by_hand_needs_only_the_issuer() -> None:
    metadata = AuthorizationServerMetadata(issuer="https://auth.example.com")
    mcp_auth = MCPAuth(
        protected_resources=resource(API, AuthServerConfig(type=AuthServerType.OAUTH, metadata=metadata))
    )
    documents = get(Starlette(routes=mcp_auth.resource_metadata_router().routes), None, _prm(""))
    assert documents.json()["authorization_servers"] == ["https://auth.example.com"]


def test_server_metadata_paths() -> None:
    assert ServerMetadataPaths.OAUTH.value == "/.well-known/oauth-authorization-server"
    assert ServerMetadataPaths.OIDC.value == "/.well-known/openid-configuration"


def _prm(path: str) -> str:
    return f"/.well-known/oauth-protected-resource{path}"


@pytest.mark.parametrize("listed", [False, True], ids=["RS-50 one resource", "RS-50 a list"])
@pytest.mark.parametrize(("identifier", "path"), [(API, ""), (NOTES, "/notes")])
def test_protected_resource_metadata(
    auth_server_config: AuthServerConfig, identifier: str, path: str, listed: bool
) -> None:
    config = ResourceServerConfig(
        metadata=ResourceServerMetadata(
            resource=identifier,
            authorization_servers=[auth_server_config],
            scopes_supported=["read:notes", "write:notes"],
        )
    )
    mcp_auth = MCPAuth(protected_resources=[config] if listed else config)
    app = Starlette(routes=[*mcp_auth.resource_metadata_router().routes])
    with serving(app) as url, httpx.Client(trust_env=False) as client:
        response = client.get(url + _prm(path))
        assert response.status_code == 200
        document = response.json()
        assert document["resource"] == identifier
        assert document["authorization_servers"] == [auth_server_config.issuer]
        assert document["scopes_supported"] == ["read:notes", "write:notes"]
        assert None not in document.values()
        assert response.headers["access-control-allow-origin"] == "*"
        preflight = client.options(
            url + _prm(path), headers={"origin": "https://app.example.com", "access-control-request-method": "GET"}
        )
        assert preflight.is_success
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert client.get(url + _prm("/other")).status_code == 404


@pytest.mark.requirement("RS-104")
def test_several_resources(provider: Provider, auth_server_config: AuthServerConfig) -> None:
    """Each endpoint accepts only the tokens of its own resource."""
    files = "https://api.example.com/files"
    mcp_auth = MCPAuth(
        protected_resources=[
            resource(NOTES, auth_server_config, scopes=("read:notes",)),
            resource(files, auth_server_config, scopes=("read:files",)),
        ]
    )

    async def subject(_: Request) -> JSONResponse:
        return JSONResponse(mcp_auth.auth_info and mcp_auth.auth_info.subject)

    def protected(identifier: str, path: str) -> Mount:
        bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=identifier, audience=identifier)
        inner = Starlette(routes=[Route("/", subject)])
        return Mount(path, app=inner, middleware=[Middleware(bearer_auth)])

    routes = [*mcp_auth.resource_metadata_router().routes, protected(NOTES, "/notes"), protected(files, "/files")]
    with serving(Starlette(routes=routes)) as url, httpx.Client(trust_env=False) as client:
        for path, identifier, other in (("/notes", NOTES, files), ("/files", files, NOTES)):
            assert client.get(url + _prm(path)).json()["resource"] == identifier
            assert client.get(f"{url}{path}/", headers=bearer(provider.mint(identifier))).json() == "alice"
            refused = client.get(f"{url}{path}/", headers=bearer(provider.mint(other)))
            assert refused.status_code == 401
            named = f'resource_metadata="https://api.example.com{_prm(path)}"'
            assert named in refused.headers["www-authenticate"]
    with pytest.raises(MCPAuthAuthServerException):
        mcp_auth.bearer_auth_middleware("jwt")  # which one?


# Configure Bearer auth in MCP server


def test_no_token(mcp_auth: MCPAuth) -> None:
    app = app_behind(mcp_auth, mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API))
    assert error_of(get(app)) == (401, None)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("read write", 200), ("write other read", 200), ("read", 403), ("write", 403), ("", 403), ("readwrite", 403)],
)
def test_required_scopes(provider: Provider, mcp_auth: MCPAuth, scope: str, expected: int) -> None:
    bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API, required_scopes=["read", "write"])
    response = get(app_behind(mcp_auth, bearer_auth), provider.mint(scope=scope))
    assert response.status_code == expected
    if expected == 403:
        assert error_of(response) == (403, "insufficient_scope")
        assert 'scope="read write"' in response.headers["www-authenticate"]
    else:
        assert response.json()["scopes"] == scope.split()


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (API, 200),
        (["https://other.example.com", API], 200),
        ("https://other.example.com", 401),
        (f"{API}/notes", 401),
        (None, 401),
    ],
    ids=["RS-80 the resource", "RS-80 among others", "RS-80 another", "RS-101 a path below", "RS-80 none"],
)
def test_audience(provider: Provider, mcp_auth: MCPAuth, audience: str | list[str] | None, expected: int) -> None:
    bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API)
    response = get(app_behind(mcp_auth, bearer_auth), provider.issuer.mint(audience))
    assert response.status_code == expected
    if expected == 401:
        assert error_of(response) == (401, "invalid_token")


def test_an_audience_that_is_not_the_resource(provider: Provider, mcp_auth: MCPAuth) -> None:
    """The documentation says that the audience "typically" matches the resource; it may differ."""
    app = app_behind(mcp_auth, mcp_auth.bearer_auth_middleware("jwt", resource=API, audience="api://1234"))
    assert get(app, provider.mint("api://1234")).status_code == 200
    assert get(app, provider.mint("api://1234/")).status_code == 401


@pytest.mark.requirement("RS-80")
def test_without_audience_the_resource_is_the_audience(provider: Provider, mcp_auth: MCPAuth) -> None:
    """mcpauth checks no audience then; its documentation says to "please always include" one."""
    app = app_behind(mcp_auth, mcp_auth.bearer_auth_middleware("jwt", resource=API))
    assert get(app, provider.mint(API)).status_code == 200
    assert error_of(get(app, provider.mint("https://other.example.com"))) == (401, "invalid_token")


@pytest.mark.parametrize(
    ("options", "ago", "expected"),
    [({}, 45, 200), ({}, 75, 401), ({"leeway": 10}, 3, 200), ({"leeway": 10}, 25, 401), ({"leeway": 0}, 1, 401)],
    ids=["RS-81 60 s by default", "RS-81 no more", "RS-81 10 s", "RS-81 no more than 10 s", "RS-81 none"],
)
def test_leeway(provider: Provider, mcp_auth: MCPAuth, options: dict[str, Any], ago: int, expected: int) -> None:
    bearer_auth = mcp_auth.bearer_auth_middleware(
        "jwt", resource=API, audience=API, required_scopes=["read", "write"], **options
    )
    now = int(time.time())
    response = get(app_behind(mcp_auth, bearer_auth), provider.mint(iat=now - 600, exp=now - ago))
    assert response.status_code == expected


def test_the_resource_argument_is_optional_for_a_single_resource(provider: Provider, mcp_auth: MCPAuth) -> None:
    """The pages of 0.1.1: `bearer_auth_middleware("jwt", required_scopes=…)`, for a whole app."""

    async def endpoint(_: Request) -> JSONResponse:
        return JSONResponse(mcp_auth.auth_info and mcp_auth.auth_info.claims["scope"])

    app = Starlette(
        middleware=[Middleware(mcp_auth.bearer_auth_middleware("jwt", required_scopes=["read", "write"]))],
        routes=[Route("/mcp", endpoint=endpoint)],
    )
    assert get(app, provider.mint(), "/mcp").json() == "read write"
    assert get(app, None, "/mcp").status_code == 401
    assert get(app, None, "/elsewhere").status_code == 401


@pytest.mark.parametrize("mode", ["jwt", "custom"])
def test_unknown_resource(mcp_auth: MCPAuth, mode: str) -> None:
    def custom(token: str) -> AuthInfo:
        raise AssertionError(token)

    with pytest.raises(MCPAuthAuthServerException) as refused:
        mcp_auth.bearer_auth_middleware("jwt" if mode == "jwt" else custom, resource=NOTES)
    assert NOTES in str(refused.value)
    assert API in str(refused.value)


def test_auth_info(provider: Provider, mcp_auth: MCPAuth) -> None:
    bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API)
    assert mcp_auth.auth_info is None
    seen: list[AuthInfo | None] = []

    async def endpoint(_: Request) -> JSONResponse:
        seen.append(mcp_auth.auth_info)
        return JSONResponse({})

    inner = Starlette(routes=[Route("/", endpoint)])
    app = Starlette(routes=[Route("/open", endpoint), Mount("/", app=inner, middleware=[Middleware(bearer_auth)])])
    token = provider.mint(sub="bob", email="bob@example.com")
    with serving(app) as url, httpx.Client(trust_env=False) as client:
        client.get(f"{url}/", headers=bearer(token))
        client.get(f"{url}/open", headers=bearer(token))
    info, outside = seen
    assert info is not None
    assert (info.token, info.issuer, info.subject, info.client_id) == (token, provider.url, "bob", "c1")
    assert (list(info.scopes), info.audience) == (["read", "write"], API)
    assert info.claims["email"] == "bob@example.com"
    assert outside is None
    assert mcp_auth.auth_info is None


# Custom verification


VerifyToken = Callable[[str], AuthInfo]
Kind = Literal["sync", "async"]


def as_kind(kind: Kind, verify: VerifyToken) -> VerifyToken | Callable[[str], Awaitable[AuthInfo]]:
    async def asynchronous(token: str) -> AuthInfo:
        return verify(token)

    return verify if kind == "sync" else asynchronous


def custom(mcp_auth: MCPAuth, kind: Kind, verify: VerifyToken) -> Starlette:
    bearer_auth = mcp_auth.bearer_auth_middleware(
        as_kind(kind, verify), resource=API, audience=API, required_scopes=["read", "write"]
    )
    return app_behind(mcp_auth, bearer_auth)


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, (200, None), id="good"),
        pytest.param({"audience": ["https://other.example.com", API]}, (200, None), id="RS-80 audience among others"),
        pytest.param({"issuer": "https://evil.example.com"}, (401, "invalid_token"), id="RS-79 issuer"),
        pytest.param({"audience": "https://other.example.com"}, (401, "invalid_token"), id="RS-80 audience"),
        pytest.param({"audience": None}, (401, "invalid_token"), id="RS-80 no audience"),
        pytest.param({"scopes": ["read"]}, (403, "insufficient_scope"), id="RS-42 scopes"),
        pytest.param({"scopes": []}, (403, "insufficient_scope"), id="RS-42 no scopes"),
        pytest.param({"expires_at": 1.0}, (401, "invalid_token"), id="RS-81 expired"),
    ],
)
def test_the_result_of_a_custom_verification_is_checked(
    provider: Provider, mcp_auth: MCPAuth, kind: Kind, changes: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    """The documentation promises checks of issuer, audience and scopes; mcpauth 0.2 does not check the issuer."""
    asked: list[str] = []

    def verify(token: str) -> AuthInfo:
        asked.append(token)
        info: dict[str, Any] = {
            "issuer": provider.url,
            "subject": "carol",
            "scopes": ["read", "write"],
            "audience": API,
        }
        return AuthInfo(token=token, claims={"sub": "carol"}, **(info | changes))

    response = get(custom(mcp_auth, kind, verify), "opaque-token")
    assert asked == ["opaque-token"]
    if expected[0] == 200:
        assert response.json() == {"subject": "carol", "scopes": ["read", "write"], "claims": {"sub": "carol"}}
    else:
        assert error_of(response) == expected


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(
            MCPAuthJwtVerificationException(MCPAuthJwtVerificationExceptionCode.JWT_VERIFICATION_FAILED),
            (401, "invalid_token"),
            id="jwt verification failed",
        ),
        pytest.param(
            MCPAuthTokenVerificationException(
                MCPAuthTokenVerificationExceptionCode.INVALID_TOKEN, cause=ValueError("bad")
            ),
            (401, "invalid_token"),
            id="invalid token",
        ),
        pytest.param(
            MCPAuthTokenVerificationException(
                MCPAuthTokenVerificationExceptionCode.TOKEN_VERIFICATION_FAILED, cause=ValueError("bad")
            ),
            (401, "invalid_token"),
            id="token verification failed",
        ),
        pytest.param(
            MCPAuthBearerAuthException(BearerAuthExceptionCode.INVALID_AUDIENCE),
            (401, "invalid_token"),
            id="bearer auth",
        ),
        pytest.param(
            MCPAuthBearerAuthException(BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES),
            (403, "insufficient_scope"),
            id="missing required scopes",
        ),
    ],
)
def test_the_documented_exceptions_of_a_custom_verification_are_refusals(
    mcp_auth: MCPAuth, kind: Kind, error: Exception, expected: tuple[int, str]
) -> None:
    def verify(token: str) -> AuthInfo:
        raise error

    assert error_of(get(custom(mcp_auth, kind, verify), "opaque-token")) == expected


def test_scopes_named_by_a_custom_verification(mcp_auth: MCPAuth) -> None:
    def verify(token: str) -> AuthInfo:
        details = MCPAuthBearerAuthExceptionDetails(missing_scopes=["admin"])
        raise MCPAuthBearerAuthException(BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES, details)

    response = get(custom(mcp_auth, "sync", verify), "opaque-token")
    assert error_of(response) == (403, "insufficient_scope")
    assert 'scope="read write admin"' in response.headers["www-authenticate"]


@pytest.mark.requirement("RS-6")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_error_of_a_custom_verification_is_a_503(
    mcp_auth: MCPAuth, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the function is a 503 and admits no request; mcpauth answers 500."""

    def forgetful(token: str) -> Any:
        return None

    def failing(token: str) -> AuthInfo:
        msg = f"no such row: {token}"
        raise KeyError(msg)

    for verify in (forgetful, failing):
        response = get(custom(mcp_auth, kind, verify), "opaque-token")
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "opaque-token" not in response.text
    assert "KeyError" in caplog.text
    assert "opaque-token" not in caplog.text


def test_str_of_missing_scopes() -> None:
    """The text that a tool shows to the model if it raises the exception, as in the tutorial."""
    text = str(MCPAuthBearerAuthException(BearerAuthExceptionCode.MISSING_REQUIRED_SCOPES))
    assert "scope" in text.lower()
    assert "invalid" not in text.lower()


# In an MCP server


class AnyToken(httpx2.Auth):
    """HTTP authentication that sends the current token and keeps the responses."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.statuses: list[int] = []

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        request.headers["authorization"] = f"Bearer {self.token}"
        response = yield request
        self.statuses.append(response.status_code)


Mode = Literal["auto", "legacy"]


@contextlib.asynccontextmanager
async def mcp_client(url: str, auth: AnyToken, mode: Mode) -> AsyncGenerator[Client]:
    async with (
        httpx2.AsyncClient(auth=auth, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result
    return result.structured_content


def few_lines(mcp_auth: MCPAuth, *, stateless: bool) -> Starlette:
    """The landing page's "just a few lines of code", with the streamable transport; and A1.4's tool."""
    mcp = MCPServer("MyMCPServer")

    @mcp.tool()
    def whoami() -> dict[str, Any]:
        assert mcp_auth.auth_info is not None
        return mcp_auth.auth_info.claims

    @mcp.tool()
    async def scopes() -> dict[str, Any]:
        auth_info = mcp_auth.auth_info
        return {"subject": auth_info.subject, "scopes": list(auth_info.scopes)} if auth_info else {}

    bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API, required_scopes=["read"])
    inner = mcp.streamable_http_app(stateless_http=stateless)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with mcp.session_manager.run():
            yield

    routes = [*mcp_auth.resource_metadata_router().routes, Mount("/", app=inner, middleware=[Middleware(bearer_auth)])]
    return Starlette(routes=routes, lifespan=lifespan)


@pytest.mark.requirement("RS-3")
@pytest.mark.anyio
@pytest.mark.parametrize("stateless", [True, False], ids=["stateless", "stateful"])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_auth_info_in_a_tool_is_that_of_the_request(
    provider: Provider, mcp_auth: MCPAuth, mode: Mode, stateless: bool
) -> None:
    """ "the context object for the current request"; in mcpauth it is that of the session's first one."""
    with serving(few_lines(mcp_auth, stateless=stateless)) as url:
        auth = AnyToken(provider.mint(sub="alice", scope="read", team="red"))
        async with mcp_client(f"{url}/mcp", auth, mode) as client:
            assert (await call(client, "whoami"))["team"] == "red"
            assert await call(client, "scopes") == {"subject": "alice", "scopes": ["read"]}
            auth.token = provider.mint(sub="alice", scope="read write", team="blue")
            assert (await call(client, "whoami"))["team"] == "blue"
            assert await call(client, "scopes") == {"subject": "alice", "scopes": ["read", "write"]}
            auth.token = provider.mint(sub="alice", scope="write")
            with pytest.raises(MCPError):
                await call(client, "scopes")
            assert auth.statuses[-1] == 403


@pytest.mark.anyio
async def test_sse_app(provider: Provider, mcp_auth: MCPAuth) -> None:
    """The SSE transport, which most pages of the documentation use."""
    mcp = MCPServer("MyMCPServer")

    @mcp.tool()
    async def whoami() -> dict[str, Any]:
        auth_info = mcp_auth.auth_info
        assert auth_info is not None
        return {"subject": auth_info.subject}

    bearer_auth = mcp_auth.bearer_auth_middleware("jwt", resource=API, audience=API, required_scopes=["read", "write"])
    app = Starlette(
        routes=[
            *mcp_auth.resource_metadata_router().routes,
            Mount("/", app=mcp.sse_app(), middleware=[Middleware(bearer_auth)]),
        ]
    )
    with serving(app) as url:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert error_of(await http.get(f"{url}/sse")) == (401, None)
            assert error_of(await http.get(f"{url}/sse", headers=bearer(provider.mint(scope="read")))) == (
                403,
                "insufficient_scope",
            )
        token = AnyToken(provider.mint(sub="dave"))
        async with Client(sse_client(f"{url}/sse", auth=token), mode="legacy") as client:
            assert await call(client, "whoami") == {"subject": "dave"}


# Tutorial: who am I?


@pytest.mark.usefixtures("blocking_calls")  # the verifier's own
class TestWhoami:
    """The verifier of the tutorial calls the userinfo endpoint synchronously on the event loop."""

    def verifier(self, auth_server_config: AuthServerConfig, audience: str | None) -> Callable[[str], AuthInfo]:
        def verify_access_token(token: str) -> AuthInfo:
            assert auth_server_config.metadata is not None
            issuer = auth_server_config.metadata.issuer
            endpoint = auth_server_config.metadata.userinfo_endpoint
            if not endpoint:
                msg = "Userinfo endpoint is not configured in the auth server metadata."
                raise ValueError(msg)
            try:
                response = httpx.get(endpoint, headers=bearer(token), trust_env=False)  # there: requests
                response.raise_for_status()
                claims = response.json()
                return AuthInfo(token=token, subject=claims.get("sub"), issuer=issuer, claims=claims, audience=audience)
            except Exception as error:
                raise MCPAuthTokenVerificationException(
                    MCPAuthTokenVerificationExceptionCode.TOKEN_VERIFICATION_FAILED, cause=error
                ) from error

        return verify_access_token

    def app(self, mcp_auth: MCPAuth, auth_server_config: AuthServerConfig, audience: str | None = API) -> Starlette:
        mcp = MCPServer("WhoAmI")

        @mcp.tool()
        def whoami() -> dict[str, Any]:
            return mcp_auth.auth_info.claims if mcp_auth.auth_info else {"error": "Not authenticated"}

        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncGenerator[None]:
            async with mcp.session_manager.run():
                yield

        # The tutorial is of the time before resources: it has MCPAuth(server=…) and metadata_route().
        bearer_auth = Middleware(mcp_auth.bearer_auth_middleware(self.verifier(auth_server_config, audience)))
        inner = mcp.streamable_http_app(stateless_http=True)
        routes = [*mcp_auth.resource_metadata_router().routes, Mount("/", app=inner, middleware=[bearer_auth])]
        return Starlette(routes=routes, lifespan=lifespan)

    @pytest.mark.anyio
    async def test_whoami(
        self,
        provider: Provider,
        mcp_auth: MCPAuth,
        auth_server_config: AuthServerConfig,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(provider.people, "opaque-erin", {"sub": "erin", "name": "Erin"})
        with serving(self.app(mcp_auth, auth_server_config)) as url:
            async with mcp_client(f"{url}/mcp", AnyToken("opaque-erin"), "auto") as client:
                assert await call(client, "whoami") == {"sub": "erin", "name": "Erin"}

    def test_unknown_to_userinfo(self, mcp_auth: MCPAuth, auth_server_config: AuthServerConfig) -> None:
        response = get(self.app(mcp_auth, auth_server_config), "opaque-unknown", "/mcp")
        assert error_of(response) == (401, "invalid_token")

    def test_userinfo_without_a_subject(
        self,
        provider: Provider,
        mcp_auth: MCPAuth,
        auth_server_config: AuthServerConfig,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The response gives no AuthInfo: "the response didn't match the expected structure"."""
        monkeypatch.setitem(provider.people, "opaque-anonymous", {"name": "Anonymous"})
        response = get(self.app(mcp_auth, auth_server_config), "opaque-anonymous", "/mcp")
        assert error_of(response) == (401, "invalid_token")

    @pytest.mark.requirement("RS-80")
    def test_an_auth_info_without_audience(
        self,
        provider: Provider,
        mcp_auth: MCPAuth,
        auth_server_config: AuthServerConfig,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The AuthInfo of the tutorial has no audience; this package requires one."""
        monkeypatch.setitem(provider.people, "opaque-erin", {"sub": "erin"})
        response = get(self.app(mcp_auth, auth_server_config, audience=None), "opaque-erin", "/mcp")
        assert error_of(response) == (401, "invalid_token")


# Tutorial: build a todo manager


@pytest.fixture(scope="module")
def todo_manager(_provider: Provider) -> Iterator[str]:
    port = processes.free_port()
    # The tutorial's identifier, http://localhost:3001, at another port.
    env = {"MCP_AUTH_ISSUER": _provider.url, "RESOURCE": f"http://localhost:{port}"}
    app_dir = Path(__file__).parent / "counterparts"
    with processes.uvicorn("todo_manager:app", app_dir=app_dir, port=port, env=env):
        yield env["RESOURCE"]


def on_loopback(url: str) -> str:
    return url.replace("localhost", "127.0.0.1")


def test_todo_manager_is_protected(provider: Provider, todo_manager: str) -> None:
    with httpx.Client(trust_env=False, base_url=on_loopback(todo_manager)) as client:
        document = client.get("/.well-known/oauth-protected-resource")
        assert document.status_code == 200
        assert document.json()["resource"] == todo_manager
        assert document.json()["authorization_servers"] == [provider.url]
        assert document.json()["scopes_supported"] == ["create:todos", "read:todos", "delete:todos"]
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for headers in ({}, bearer(provider.mint("https://other.example.com"))):
            refused = client.post("/", json=body, headers=headers)
            assert refused.status_code == 401
            named = f'resource_metadata="{todo_manager}/.well-known/oauth-protected-resource"'
            assert named in refused.headers["www-authenticate"]


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_todo_manager(provider: Provider, todo_manager: str, mode: Mode) -> None:
    def user(subject: str, scope: str) -> contextlib.AbstractAsyncContextManager[Client]:
        token = provider.mint(todo_manager, sub=subject, scope=scope)
        return mcp_client(on_loopback(todo_manager) + "/", AnyToken(token), mode)

    async with user("alice", "create:todos") as alice, user("bob", "") as bob, user("admin", "read:todos") as admin:
        created = await call(alice, "create_todo", content="write tests")
        assert created["ownerId"] == "alice"
        assert (await call(alice, "get_todos"))["todos"] == [created]
        assert (await call(bob, "get_todos"))["todos"] == []
        assert (await call(admin, "get_todos"))["todos"] == [created]

        refused = await bob.call_tool("create_todo", {"content": "spam"})
        assert refused.is_error
        assert "spam" not in json.dumps(await call(admin, "get_todos"))

        assert "error" in await call(bob, "delete_todo", id=created["id"])
        assert (await call(admin, "get_todos"))["todos"] == [created]
        async with user("carol", "delete:todos") as carol:
            assert (await call(carol, "delete_todo", id=created["id"]))["details"] == created
        assert (await call(admin, "get_todos"))["todos"] == []
