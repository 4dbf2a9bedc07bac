"""The exchanged token in requests of `httpx`, for allowed destinations only.

httpx runs an auth flow once for each request that the app sends, and follows redirects inside of that. A redirect to
another origin loses the `Authorization` field there (httpx 0.28, `_redirect_headers`), and is an error here.

After a 401, a request is sent once more with a new token. Not repeated are requests whose body is a stream, which can
be sent only once, and redirected requests, which the API may have executed before the redirect.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx

from asgi_mcp_auth._oauth.token_exchange import Destinations, ExchangedToken, ExchangeRequest
from asgi_mcp_auth._upstream.exchange import Caller, Exchanger
from asgi_mcp_auth.errors import ExchangeError, ExchangeReason, printable

__all__ = ("ExchangeAuth",)

UNAUTHORIZED = 401


class ExchangeAuth(httpx.Auth):
    """Sends a token for an upstream API, exchanged for the token of the caller of the request that is being handled.

    One object, and one `httpx.AsyncClient` with it, may serve many callers.

    Args:
        exchanger: Exchanges tokens.
        request: What is asked for.
        destinations: The origins that may receive the token.
        caller: The caller; None for the caller of the request that is being handled.
    """

    def __init__(
        self, exchanger: Exchanger, request: ExchangeRequest, destinations: Destinations, caller: Caller | None
    ) -> None:
        self._exchanger = exchanger
        self._request = request
        self._destinations = destinations
        self._caller = caller

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Refuse synchronous clients, which would block the event loop."""
        del request
        raise RuntimeError("Token exchange waits. Use httpx.AsyncClient.")

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Add the token to one request, check where redirects led, and renew a token that the API refuses.

        Raises:
            ExchangeError: The destination is not allowed, or there is no token that may be sent as a bearer token.
        """
        self._check(request.url)
        caller = self._exchanger.current() if self._caller is None else self._caller
        token = await self._exchanger.exchange(self._request, caller)
        response = yield _authorized(request, token)
        self._check_visited(response)
        if response.status_code != UNAUTHORIZED or "authorization" not in response.request.headers:
            return
        if not self._exchanger.refuse(self._request, token, caller):
            return
        if isinstance(request.stream, httpx.ByteStream) and not response.history:
            renewed = await self._exchanger.exchange(self._request, caller)
            self._check_visited((yield _authorized(request, renewed)))

    def _check_visited(self, response: httpx.Response) -> None:
        for visited in (*response.history, response):
            self._check(visited.request.url)

    def _check(self, url: httpx.URL) -> None:
        if not self._destinations.allow(url.scheme, url.raw_host.decode("ascii", "replace"), url.port):
            origin = printable(f"{url.scheme}://{url.netloc.decode('ascii', 'replace')}")
            message = f"The token may not be sent to {origin}. Add the origin to allow= if it is part of the API."
            raise ExchangeError(ExchangeReason.DESTINATION, message)


def _authorized(request: httpx.Request, token: ExchangedToken) -> httpx.Request:
    if not token.is_bearer:
        raise ExchangeError(ExchangeReason.NOT_BEARER, f"The token is no bearer token, but {token.issued_token_type}.")
    request.headers["authorization"] = f"Bearer {token.access_token}"
    return request
