"""A client that finds its way: 401, challenge, metadata of resource and server, token, call (RFC 9728, RFC 8414, MCP).

In come an ASGI app, the URL that a user would give to a client, and the issuers; all in process. Out goes what was
found on the way, step by step, or a `WalkError` that says where the way ended. It is as strict as the RFCs oblige
clients to be, which is stricter than most clients are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from asgi_mcp_auth._oauth.challenge import Challenge, parse_challenges
from asgi_mcp_auth._oauth.server_metadata import accept_metadata, insecure_url
from asgi_mcp_auth._oauth.strict_json import JSONRefused, load_object
from asgi_mcp_auth._oauth.urls import discovery_urls, parse_url
from asgi_mcp_auth.config import AuthorizationServerMetadata
from asgi_mcp_auth.errors import InvalidServerMetadata, printable
from asgi_mcp_auth.testing.issuer import Issuer
from asgi_mcp_auth.testing.walk import Step, Walk, WalkError

if TYPE_CHECKING:
    import httpx

__all__ = ("walk_discovery",)

OK = 200
UNAUTHORIZED = 401
FORBIDDEN = 403
MCP = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


async def walk_discovery(
    app: Any,
    url: str,
    *issuers: Issuer,
    resource: str | None = None,
    method: str = "GET",
    message: object = None,
    headers: Mapping[str, str] | None = None,
    token_request: Mapping[str, str] | None = None,
) -> Walk:
    """Call an app as a client does that knows nothing but its URL, in process.

    1. Call without a token: 401 with one Bearer challenge (RFC 6750 section 3), which has `resource_metadata`.
    2. Fetch that: the `resource` in it must be the one that was called, to the letter (RFC 9728 section 3.3).
    3. Take the first of its `authorization_servers` that is among `issuers`, and fetch its metadata from the places
       that MCP names, in order: the `issuer` in it must be that one, to the letter (RFC 8414 section 3.3).
    4. Ask for a token: client credentials, for that resource (RFC 8707), with the scopes of the challenge, or else
       `scopes_supported`.
    5. Call with the token. If that is a 403 `insufficient_scope`, ask for the scopes it names, and for no others, as
       some clients do, and call once more.

    Args:
        app: The protected ASGI app. Its lifespan is not run: enter it before, where it is needed.
        url: Where to call.
        issuers: Those of the test; nothing else can be reached.
        resource: The resource identifier, where it is a parent of `url`. Default: `url` itself, as the RFC has it.
        method: Of the calls.
        message: To POST as JSON instead, an MCP message for example.
        headers: To add to the calls.
        token_request: Parameters to add to the token request. Default: a `client_id`.

    Returns:
        What was found. The last answer may be any but 401 and a 403 that asks for scopes: see `Walk.response`.

    Raises:
        WalkError: A step failed, or is not what a client may go on with. It is an `AssertionError`.
        ValueError: `url` is not absolute, or not below `resource`.

    Not checked: PKCE and whatever else is about people and browsers, the signature in `signed_metadata`.
    """
    from asgi_mcp_auth.testing.client import client_of_hosts  # noqa: PLC0415 - httpx, which importing is not to load

    called = parse_url(url)
    if called is None:
        msg = f"{url!r} is not an absolute URL"
        raise ValueError(msg)
    if resource is not None and not f"{url.partition('?')[0]}/".startswith(f"{resource.rstrip('/')}/"):
        msg = f"{url!r} is not below the resource {resource!r}"
        raise ValueError(msg)
    calls: dict[str, Any] = {"method": method, "url": url, "headers": dict(headers or {})}
    if message is not None:
        calls |= {"method": "POST", "content": json.dumps(message), "headers": MCP | calls["headers"]}
    async with client_of_hosts(issuers, apps={called.origin: app}) as client:
        return await _Walker(client, calls, resource or url, dict(token_request or {"client_id": "walk"})).walk(issuers)


class _Walker:
    """One walk; the steps taken are what it remembers."""

    def __init__(
        self, client: httpx.AsyncClient, calls: Mapping[str, Any], resource: str, token_request: Mapping[str, str]
    ) -> None:
        self._client = client
        self._calls = calls
        self._resource = resource
        self._token_request = token_request
        self._steps: list[Step] = []

    async def walk(self, issuers: tuple[Issuer, ...]) -> Walk:
        challenge = await self._be_challenged()
        document = await self._fetch_resource_metadata(challenge)
        server = await self._fetch_server_metadata(self._choose(document, issuers))
        scopes = challenge.params.get("scope") or " ".join(_strings(document.get("scopes_supported")))
        token = await self._obtain(server, scopes)
        response, wanted = await self._call(token)
        if wanted is not None:
            if set(wanted.split()) <= set(scopes.split()):
                raise self._ended(f"403 asks for the scopes {wanted!r}, with which the token was requested")
            token = await self._obtain(server, wanted)
            response, again = await self._call(token)
            if again is not None:
                raise self._ended(f"403 asks for {again!r} of a token that was requested as the 403 before said")
        return Walk(
            challenge=challenge,
            resource_metadata=document,
            server_metadata=server,
            token=token,
            response=response,
            steps=tuple(self._steps),
        )

    async def _be_challenged(self) -> Challenge:
        response = await self._send(**self._calls)
        challenge = _bearer(response)
        self._note(response, _told(challenge) if challenge else "no challenge")
        if response.status_code != UNAUTHORIZED:
            raise self._ended("without a token, the answer has to be 401 (RFC 6750 section 3.1)")
        if challenge is None:
            raise self._ended("a 401 needs a Bearer challenge, and one only (RFC 6750 section 3)")
        return challenge

    async def _fetch_resource_metadata(self, challenge: Challenge) -> dict[str, Any]:
        place = challenge.params.get("resource_metadata")
        if place is None:
            raise self._ended("the challenge has no resource_metadata (RFC 9728 section 5.1)")
        response, document = await self._fetch(place)
        if document is None:
            raise self._ended("there is no protected resource metadata (RFC 9728 section 3.2)")
        found = document.get("resource")
        self._note(response, f"the metadata of {printable(found)}")
        if found != self._resource:
            raise self._ended(f"the metadata is of {printable(found)}, not {self._resource} (RFC 9728 section 3.3)")
        return document

    def _choose(self, document: Mapping[str, Any], issuers: tuple[Issuer, ...]) -> str:
        listed = _strings(document.get("authorization_servers"))
        own = [issuer.url for issuer in issuers]
        for name in listed:
            if name in own:
                return name
        raise self._ended(f"authorization_servers lists {printable(listed)}, and none of this test's, {printable(own)}")

    async def _fetch_server_metadata(self, issuer: str) -> AuthorizationServerMetadata:
        url = parse_url(issuer)
        for place in () if url is None else discovery_urls(url, None):
            response, document = await self._fetch(place)
            if document is None:
                continue
            try:
                metadata = accept_metadata(document, issuer=issuer, url=place)
            except InvalidServerMetadata as error:
                self._note(response, f"not to be used: {error.message}")
                continue
            self._note(response, f"the metadata of {issuer}")
            return metadata
        raise self._ended(f"there is no usable metadata of {issuer} (RFC 8414 section 3.3)")

    async def _obtain(self, server: AuthorizationServerMetadata, scopes: str) -> str:
        endpoint = server.token_endpoint
        if endpoint is None or insecure_url(endpoint, allow_http=False):
            raise self._ended(f"the token_endpoint is {printable(endpoint)}: it has to be an https URL")
        form = {"grant_type": "client_credentials", "resource": self._resource, "scope": scopes, **self._token_request}
        response = await self._send("POST", endpoint, data={name: value for name, value in form.items() if value})
        answer = _document(response)
        if response.status_code != OK or isinstance(answer, str):
            told = answer if isinstance(answer, str) else printable(answer.get("error"))
            self._note(response, told)
            raise self._ended("no token was granted (RFC 6749 section 5.2)")
        token, kind = answer.get("access_token"), str(answer.get("token_type"))
        self._note(response, f"a {printable(kind)} token with the scopes {printable(answer.get('scope', scopes))}")
        if not isinstance(token, str) or kind.lower() != "bearer":
            raise self._ended("the answer has no access_token of the type Bearer (RFC 6749 section 5.1)")
        return token

    async def _call(self, token: str) -> tuple[httpx.Response, str | None]:
        """The answer, and the scopes it asks for if it says that they are too few."""
        calls = dict(self._calls)
        calls["headers"] = {**calls["headers"], "authorization": f"Bearer {token}"}
        response = await self._send(**calls)
        challenge = _bearer(response)
        self._note(response, "with the token" + (f": {_told(challenge)}" if challenge else ""))
        if response.status_code == UNAUTHORIZED:
            raise self._ended("the token was refused")
        insufficient = challenge is not None and challenge.params.get("error") == "insufficient_scope"
        if response.status_code != FORBIDDEN or challenge is None or not insufficient:
            return response, None
        return response, challenge.params.get("scope", "")

    async def _fetch(self, url: str) -> tuple[httpx.Response, dict[str, Any] | None]:
        """The answer, and the JSON object in it; without one, that is the step."""
        if (why := insecure_url(url, allow_http=False)) is not None:
            raise self._ended(f"{printable(url)} {why}")
        response = await self._send("GET", url)
        document = _document(response) if response.status_code == OK else "no document"
        if isinstance(document, str):
            self._note(response, document)
            return response, None
        return response, document

    async def _send(self, method: str, url: str, **more: Any) -> httpx.Response:
        import httpx  # noqa: PLC0415 - as above

        try:
            return await self._client.request(method, url, **more)
        except httpx.TransportError as error:
            self._steps.append(Step(f"{method} {url}", None, str(error) or type(error).__name__))
            raise self._ended("there was no answer") from error

    def _note(self, response: httpx.Response, found: str) -> None:
        self._steps.append(Step(f"{response.request.method} {response.request.url}", response.status_code, found))

    def _ended(self, reason: str) -> WalkError:
        return WalkError(reason, tuple(self._steps))


def _bearer(response: httpx.Response) -> Challenge | None:
    """The Bearer challenge of a response, if there is one and one only."""
    found = parse_challenges(response.headers.get("www-authenticate", ""))
    ours = [challenge for challenge in found if challenge.scheme.lower() == "bearer"]
    return ours[0] if len(ours) == 1 else None


def _told(challenge: Challenge) -> str:
    return f"{challenge.scheme} " + ", ".join(f'{name}="{value}"' for name, value in challenge.params.items())


def _strings(value: object) -> list[str]:
    values = cast("list[object]", value) if isinstance(value, list) else []
    return [each for each in values if isinstance(each, str)]


def _document(response: httpx.Response) -> dict[str, Any] | str:
    """The JSON object of a response, or why there is none."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        return f"{printable(kind)} is not application/json"
    try:
        return load_object(response.content)
    except JSONRefused as error:
        return f"not a JSON object: {error}"
