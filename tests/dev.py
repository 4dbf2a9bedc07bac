"""Helpers to use the development authorization server in process, as a client and as a person with a browser."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt

from asgi_mcp_auth.dev import DevServer
from asgi_mcp_auth.testing import SigningKey

BASE = "http://localhost:9000"
MCP = "http://localhost:8000/mcp"
CALLBACK = "http://localhost:6274/oauth/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636 appendix B
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
INSPECTOR: dict[str, Any] = {
    "redirect_uris": [CALLBACK],
    "token_endpoint_auth_method": "none",
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "client_name": "Inspector",
    "application_type": "native",
}
M2M: dict[str, Any] = {
    "client_id": "m2m",
    "client_secret": "m2m-secret",
    "grant_types": ["client_credentials"],
}


@functools.cache
def key(alg: str = "ES256") -> SigningKey:
    """Return one key for all servers: making RSA keys is slow."""
    return SigningKey(alg)


def dev_server(issuer: str = BASE, **options: Any) -> DevServer:
    """Return a server with two scopes, one resource, automatic approval and fast keys."""
    settings: dict[str, Any] = {
        "resources": [MCP],
        "scopes": ["mcp:read", "files:write"],
        "auto_approve": True,
        "algorithms": ["ES256"],
        "clients": [M2M],
    }
    return DevServer(issuer, **(settings | options))


def answer_of(response: httpx.Response) -> dict[str, str]:
    """Return the parameters of an authorization response, which occur once each."""
    assert response.status_code in (302, 303), response.text
    values = parse_qs(urlsplit(response.headers["location"]).query, keep_blank_values=True)
    assert all(len(found) == 1 for found in values.values()), values
    return {name: found[0] for name, found in values.items()}


@dataclass
class Form(HTMLParser):
    """The only form of a page: action, fields, buttons."""

    page: str
    action: str = ""
    method: str = ""
    fields: dict[str, str] = field(default_factory=dict[str, str])
    buttons: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    users: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            assert not self.action, "a second form"
            self.action, self.method = given["action"], given["method"]
        elif tag == "button":
            self.buttons.append((given["name"], given["value"]))
        elif tag == "input" and given.get("type") == "radio":
            self.users.append(given["value"])
            if "checked" in given:
                self.fields[given["name"]] = given["value"]
        elif tag == "input":
            self.fields[given["name"]] = given["value"]


class Session:
    """A browser and OAuth client of one server. It keeps cookies and follows no redirects."""

    def __init__(self, server: DevServer) -> None:
        self.server = server
        self.http = server.http_client()
        self.http.base_url = httpx.URL(server.url)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def get(self, path: str, **more: Any) -> httpx.Response:
        response: httpx.Response = await self.http.get(path, **more)
        return response

    async def post(self, path: str, **more: Any) -> httpx.Response:
        response: httpx.Response = await self.http.post(path, **more)
        return response

    async def register(self, **changes: Any) -> dict[str, Any]:
        """Register the Inspector, with changes."""
        metadata = {name: value for name, value in (INSPECTOR | changes).items() if value is not ...}
        response = await self.post("/register", json=metadata)
        assert response.status_code == 201, response.text
        registered: dict[str, Any] = response.json()
        return registered

    def request(self, client: str, /, **changes: Any) -> dict[str, Any]:
        """The parameters of an authorization request as the SDKs send it, with changes; `...` removes one."""
        params = {
            "response_type": "code",
            "client_id": client,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "redirect_uri": CALLBACK,
            "state": "s",
            "scope": "mcp:read",
            "resource": MCP,
        }
        return {name: value for name, value in (params | changes).items() if value is not ...}

    async def authorize(self, client: str, /, **changes: Any) -> dict[str, str]:
        """Send an authorization request and return the parameters of the redirect."""
        return answer_of(await self.get("/authorize", params=self.request(client, **changes)))

    async def token(self, grant_type: str, **params: Any) -> httpx.Response:
        """Send a token request."""
        form = {name: value for name, value in ({"grant_type": grant_type} | params).items() if value is not ...}
        auth, headers = form.pop("auth", None), form.pop("headers", None)
        return await self.post("/token", data=form, auth=auth, headers=headers)

    async def exchange(self, client: str, secret: str, /, **changes: Any) -> httpx.Response:
        """Exchange a code, with changes."""
        params = {"client_id": client, "code": secret, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return await self.token("authorization_code", **(params | {"resource": MCP} | changes))

    async def refresh(self, client_id: str, token: str, **more: Any) -> httpx.Response:
        """Send a refresh request."""
        return await self.token("refresh_token", client_id=client_id, refresh_token=token, **more)

    async def login(self, client: str, /, **changes: Any) -> dict[str, Any]:
        """Return the token response of a whole flow; `changes` apply to the authorization request."""
        answer = await self.authorize(client, **changes)
        redirect_uri = changes.get("redirect_uri", CALLBACK)
        more = {} if redirect_uri is CALLBACK else {"redirect_uri": redirect_uri}
        response = await self.exchange(client, answer["code"], resource=changes.get("resource", MCP), **more)
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    async def is_active(self, token: str, client_id: str) -> bool:
        """Return whether introspection reports an active token."""
        response = await self.post("/introspect", data={"token": token, "client_id": client_id})
        active: bool = response.json()["active"]
        return active


def header_of(token: str) -> dict[str, Any]:
    """The header of a JWT, unverified."""
    return jwt.get_unverified_header(token)


def claims_of(token: str) -> Mapping[str, Any]:
    """The claims of a JWT, unverified."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def error_of(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of an OAuth error, which has to be well formed."""
    content = response.json()
    assert set(content) == {"error", "error_description"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    description = content["error_description"]
    assert description.isascii()
    assert description.isprintable()
    assert not {'"', "\\"} & set(description)  # RFC 6749 section 5.2
    return response.status_code, content["error"]
