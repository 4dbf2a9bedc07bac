"""A strict MCP client: from the 401 over both metadata documents and a token to a response (RFC 9728, RFC 8414, MCP).

The client checks everything that the RFCs require of clients. Most real clients check less.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, cast

import httpx

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges
from asgi_mcp_auth._oauth.server_metadata import accept_metadata, insecure_url
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.config import AuthorizationServerMetadata
from asgi_mcp_auth.errors import InvalidServerMetadata, printable
from asgi_mcp_auth.testing._client import client_of_hosts
from asgi_mcp_auth.testing._issuer import Issuer
from asgi_mcp_auth.testing._lifespan import running
from asgi_mcp_auth.testing._proofs import DPoPAuth
from asgi_mcp_auth.testing._tools import MCP_FIELDS
from asgi_mcp_auth.testing._walk import Step, Walk, WalkError

__all__ = ("walk_discovery",)

OK = 200
UNAUTHORIZED = 401
FORBIDDEN = 403


async def walk_discovery(
    app: Any,
    url: str,
    *issuers: Issuer,
    resource: str | None = None,
    method: str = "GET",
    message: object = None,
    headers: Mapping[str, str] | None = None,
    token_request: Mapping[str, str] | None = None,
    dpop: DPoPAuth | None = None,
    lifespan: bool = True,
) -> Walk:
    """Follow the MCP authorization flow in process, as a client that knows only the URL of an app.

    1. Call without a token. The response must be a 401 with one Bearer challenge (RFC 6750 section 3) that has
       `resource_metadata`. If it has a DPoP challenge and no Bearer challenge, the walk goes on with DPoP (RFC 9449).
    2. Fetch the resource metadata. Its `resource` must be exactly the called URL (RFC 9728 section 3.3).
    3. Take the first of its `authorization_servers` that is in `issuers`. Fetch its metadata from the URLs that MCP
       names, in order. Its `issuer` must be exactly this server (RFC 8414 section 3.3).
    4. Request a token by client credentials for the resource (RFC 8707), with the scopes of the challenge, else with
       `scopes_supported`.
    5. Call with the token. After a 403 `insufficient_scope`, request a token with exactly the scopes of its challenge
       and call once more.

    Args:
        app: The protected ASGI app.
        url: The URL to call.
        issuers: The issuers of the test. Other hosts cannot be reached.
        resource: The resource identifier, if it is a parent of `url`. Default: `url`.
        method: The HTTP method of the calls.
        message: A JSON value to POST instead, such as an MCP message.
        headers: Header fields to add to the calls.
        token_request: Parameters to add to the token request. Default: a `client_id`.
        dpop: The key to go with DPoP, also where Bearer is accepted. Default: a new key, only where Bearer is not.
        lifespan: Run the lifespan of the app around the walk. Pass False if the test runs it.

    Returns:
        The walk. Its last `response` may have any status except 401 and 403 `insufficient_scope`.

    Raises:
        WalkError: A step failed, or a response must stop a client. It is an `AssertionError`.
        ValueError: `url` is not absolute, or not below `resource`.

    Not checked: PKCE, user consent, and the signature in `signed_metadata`.
    """
    called = parse_url(url)
    if called is None:
        raise ValueError(f"{url!r} is not an absolute URL: pass the URL that a client calls, with scheme and host")
    if resource is not None and not f"{url.partition('?')[0]}/".startswith(f"{resource.rstrip('/')}/"):
        msg = f"{url!r} is not below the resource {resource!r}: set `resource` to a parent of `url`, or remove it"
        raise ValueError(msg)
    calls: dict[str, Any] = {"method": method, "url": url, "headers": dict(headers or {})}
    if message is not None:
        calls |= {"method": "POST", "content": json.dumps(message), "headers": MCP_FIELDS | calls["headers"]}
    async with AsyncExitStack() as stack:
        started = await stack.enter_async_context(running(app)) if lifespan else app
        client = await stack.enter_async_context(client_of_hosts(issuers, apps={called.origin: started}))
        walker = _Walker(client, calls, resource or url, dict(token_request or {"client_id": "walk"}), dpop)
        return await walker.walk(issuers)


class _Walker:
    """One walk, with the steps so far."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        calls: Mapping[str, Any],
        resource: str,
        token_request: Mapping[str, str],
        dpop: DPoPAuth | None,
    ) -> None:
        self._client = client
        self._calls = calls
        self._resource = resource
        self._token_request = token_request
        self._dpop = dpop
        self._steps: list[Step] = []

    async def walk(self, issuers: tuple[Issuer, ...]) -> Walk:
        challenge = await self._be_challenged(issuers)
        document = await self._fetch_resource_metadata(challenge)
        server = await self._fetch_server_metadata(self._choose(document, issuers))
        scopes = challenge.params.get("scope") or " ".join(_strings(document.get("scopes_supported")))
        token = await self._obtain(server, scopes)
        response, wanted = await self._call(token)
        if wanted is not None:
            if set(wanted.split()) <= set(scopes.split()):
                raise self._stopped(f"the 403 asks for the scopes {wanted!r}, but the token was requested with them")
            token = await self._obtain(server, wanted)
            response, again = await self._call(token)
            if again is not None:
                raise self._stopped(f"the second 403 asks for {again!r}, but the token has the scopes of the first 403")
        return Walk(
            challenge=challenge,
            resource_metadata=document,
            server_metadata=server,
            token=token,
            response=response,
            steps=tuple(self._steps),
        )

    @property
    def _scheme(self) -> str:
        return "Bearer" if self._dpop is None else "DPoP"

    def _challenge(self, response: httpx.Response) -> Challenge | None:
        return _challenge_of(response, self._scheme)

    async def _be_challenged(self, issuers: tuple[Issuer, ...]) -> Challenge:
        response = await self._send(**self._calls)
        if _challenge_of(response, "Bearer") is None and _challenge_of(response, "DPoP") is not None:
            self._dpop = self._dpop or DPoPAuth(clock=issuers[0].clock if issuers else time.time)
        challenge = self._challenge(response)
        self._note(response, _show(challenge) if challenge else "no challenge")
        if response.status_code != UNAUTHORIZED:
            raise self._stopped("without a token, the status has to be 401 (RFC 6750 section 3.1)")
        if challenge is None:
            raise self._stopped(f"a 401 needs exactly one {self._scheme} challenge (RFC 6750 section 3)")
        if self._dpop is not None and self._dpop.key.alg not in challenge.params.get("algs", "").split():
            raise self._stopped(f"algs of the challenge does not list {self._dpop.key.alg} (RFC 9449 section 7.1)")
        return challenge

    async def _fetch_resource_metadata(self, challenge: Challenge) -> dict[str, Any]:
        url = challenge.params.get("resource_metadata")
        if url is None:
            raise self._stopped("the challenge has no resource_metadata (RFC 9728 section 5.1)")
        response, document = await self._fetch(url)
        if document is None:
            raise self._stopped("there is no protected resource metadata (RFC 9728 section 3.2)")
        found = document.get("resource")
        self._note(response, f"the metadata of {printable(found)}")
        if found != self._resource:
            named = f"the metadata names the resource {printable(found)}, not {self._resource}"
            raise self._stopped(f"{named} (RFC 9728 section 3.3)")
        return document

    def _choose(self, document: Mapping[str, Any], issuers: tuple[Issuer, ...]) -> str:
        listed = _strings(document.get("authorization_servers"))
        own = [issuer.url for issuer in issuers]
        for name in listed:
            if name in own:
                return name
        none = f"authorization_servers lists {printable(listed)} and no issuer of this test, {printable(own)}"
        raise self._stopped(f"{none}: pass an Issuer with a listed URL")

    async def _fetch_server_metadata(self, issuer: str) -> AuthorizationServerMetadata:
        url = parse_url(issuer)
        for metadata_url in () if url is None else discovery_urls(url, None):
            response, document = await self._fetch(metadata_url)
            if document is None:
                continue
            try:
                metadata = accept_metadata(document, issuer=issuer, url=metadata_url)
            except InvalidServerMetadata as error:
                self._note(response, f"rejected: {error.message}")
                continue
            self._note(response, f"the metadata of {issuer}")
            return metadata
        raise self._stopped(f"there is no usable metadata of {issuer} (RFC 8414 section 3.3)")

    async def _obtain(self, server: AuthorizationServerMetadata, scopes: str) -> str:
        endpoint = server.token_endpoint
        if endpoint is None or insecure_url(endpoint, allow_http=False):
            raise self._stopped(f"the token_endpoint is {printable(endpoint)}: it has to be an https URL")
        form = {"grant_type": "client_credentials", "resource": self._resource, "scope": scopes, **self._token_request}
        given = {name: value for name, value in form.items() if value}
        response = await self._send("POST", endpoint, data=given, auth=self._signing(None))
        answer = _document(response)
        if response.status_code != OK or isinstance(answer, str):
            self._note(response, answer if isinstance(answer, str) else printable(answer.get("error")))
            raise self._stopped("no token was granted (RFC 6749 section 5.2)")
        token, kind = answer.get("access_token"), str(answer.get("token_type"))
        self._note(response, f"a {printable(kind)} token with the scopes {printable(answer.get('scope', scopes))}")
        if not isinstance(token, str) or kind.lower() != self._scheme.lower():
            raise self._stopped(f"the response has no access_token of the type {self._scheme} (RFC 6749 section 5.1)")
        return token

    async def _call(self, token: str) -> tuple[httpx.Response, str | None]:
        """Return the response, and the scopes of its challenge if it is a 403 `insufficient_scope`."""
        calls = dict(self._calls)
        if self._dpop is None:
            calls["headers"] = {**calls["headers"], "authorization": f"Bearer {token}"}
        response = await self._send(**calls, auth=self._signing(token))
        challenge = self._challenge(response)
        self._note(response, "with the token" + (f": {_show(challenge)}" if challenge else ""))
        if response.status_code == UNAUTHORIZED:
            raise self._stopped("the token was rejected")
        insufficient = challenge is not None and challenge.params.get("error") == "insufficient_scope"
        if response.status_code != FORBIDDEN or challenge is None or not insufficient:
            return response, None
        return response, challenge.params.get("scope", "")

    def _signing(self, token: str | None) -> DPoPAuth | None:
        """Return what signs a request with this token; None without DPoP."""
        if self._dpop is not None:
            self._dpop.token = token
        return self._dpop

    async def _fetch(self, url: str) -> tuple[httpx.Response, dict[str, Any] | None]:
        """Return the response and the JSON object in it. Without an object, note the reason as a step."""
        if (why := insecure_url(url, allow_http=False)) is not None:
            raise self._stopped(f"{printable(url)} {why}")
        response = await self._send("GET", url)
        document = _document(response) if response.status_code == OK else "no document"
        if isinstance(document, str):
            self._note(response, document)
            return response, None
        return response, document

    async def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        try:
            return await self._client.request(method, url, **more)
        except httpx.TransportError as error:
            self._steps.append(Step(f"{method} {url}", None, str(error) or type(error).__name__))
            raise self._stopped("there was no response") from error

    def _note(self, response: httpx.Response, found: str) -> None:
        self._steps.append(Step(f"{response.request.method} {response.request.url}", response.status_code, found))

    def _stopped(self, reason: str) -> WalkError:
        return WalkError(reason, tuple(self._steps))


def _challenge_of(response: httpx.Response, scheme: str) -> Challenge | None:
    """Return the challenge of a scheme in a response if there is exactly one."""
    found = parse_challenges(response.headers.get("www-authenticate", ""))
    ours = [challenge for challenge in found if challenge.scheme.lower() == scheme.lower()]
    return ours[0] if len(ours) == 1 else None


def _show(challenge: Challenge) -> str:
    return f"{challenge.scheme} " + ", ".join(f'{name}="{value}"' for name, value in challenge.params.items())


def _strings(value: object) -> list[str]:
    values = cast("list[object]", value) if isinstance(value, list) else []
    return [each for each in values if isinstance(each, str)]


def _document(response: httpx.Response) -> dict[str, Any] | str:
    """Return the JSON object of a response, or the reason why there is none."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return f"{printable(kind)} is not application/json"
    try:
        return load_object(response.content)
    except JSONRefused as error:
        return f"not a JSON object: {error}"
