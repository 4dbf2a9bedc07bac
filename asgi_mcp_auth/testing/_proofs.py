"""DPoP as a client does it (RFC 9449): proofs, and an httpx authentication that signs each request."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from typing import Any, TypeVar

import httpx

from asgi_mcp_auth._oauth.challenge import parse_challenges
from asgi_mcp_auth._oauth.dpop_proof import digest_of
from asgi_mcp_auth.testing._keys import SigningKey

__all__ = ("DPoPAuth", "present", "prove")

T = TypeVar("T")

USE_NONCE = "use_dpop_nonce"
BAD_REQUEST, UNAUTHORIZED = 400, 401


def present(members: Mapping[str, T]) -> dict[str, T]:
    """Return the members whose value is not `...`."""
    return {name: value for name, value in members.items() if value is not ...}


def prove(
    key: SigningKey,
    method: str,
    url: str,
    token: str | None,
    *,
    now: float,
    nonce: str | None = None,
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
) -> str:
    """Return a DPoP proof; see `Issuer.prove`."""
    members: dict[str, Any] = {"typ": "dpop+jwt", "alg": key.alg, "jwk": key.public, **header}
    content: dict[str, Any] = {
        "jti": secrets.token_urlsafe(12),
        "htm": method,
        "htu": url.partition("#")[0].partition("?")[0],
        "iat": int(now),
        "ath": ... if token is None else digest_of(token.encode("ascii")),
        "nonce": ... if nonce is None else nonce,
        **claims,
    }
    return key.sign(present(members), present(content))


class DPoPAuth(httpx.Auth):
    """The authentication of a client with DPoP: `httpx.AsyncClient(auth=DPoPAuth(token, key=key))`.

    Each request gets a proof of its own. If a server asks for a nonce, the request is sent once more with it; the last
    nonce of each origin is used from then on.

    Args:
        token: The access token, which is bound to the key; None for requests to a token endpoint.
        key: The key of the client. Default: a new one for ES256.
        clock: Seconds since the epoch.

    Attributes:
        token: The access token; set it when it is known, or replaced.
        key: The key of the client.
        nonces: The last nonce by origin.
    """

    def __init__(
        self, token: str | None = None, *, key: SigningKey | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.token = token
        self.key = key or SigningKey("ES256")
        self.nonces: dict[str, str] = {}
        self._clock = clock

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign a request, and sign it once more with the nonce that the server asks for."""
        response = yield self._signed(request)
        if self._keep_nonce(response):
            if response.status_code == BAD_REQUEST:  # no other body is read: event streams have no end
                response.read()
            if _asks_for_nonce(response):
                self._keep_nonce((yield self._signed(request)))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Do the same for an async client."""
        response = yield self._signed(request)
        if self._keep_nonce(response):
            if response.status_code == BAD_REQUEST:
                await response.aread()
            if _asks_for_nonce(response):
                self._keep_nonce((yield self._signed(request)))

    def _signed(self, request: httpx.Request) -> httpx.Request:
        url, nonce = str(request.url), self.nonces.get(_origin(request))
        proof = prove(self.key, request.method, url, self.token, now=self._clock(), nonce=nonce, header={}, claims={})
        request.headers["dpop"] = proof
        if self.token is not None:
            request.headers["authorization"] = f"DPoP {self.token}"
        return request

    def _keep_nonce(self, response: httpx.Response) -> bool:
        """Keep the nonce of a response, and return whether there is one."""
        nonce = response.headers.get("dpop-nonce")
        if nonce is None:
            return False
        self.nonces[_origin(response.request)] = nonce
        return True


def _origin(request: httpx.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"


def _asks_for_nonce(response: httpx.Response) -> bool:
    if response.status_code == UNAUTHORIZED:
        found = parse_challenges(response.headers.get("www-authenticate", ""))
        return any(challenge.params.get("error") == USE_NONCE for challenge in found)
    return response.status_code == BAD_REQUEST and f'"{USE_NONCE}"' in response.text
