"""Calls of one endpoint of an authorization server, with the credentials of this server.

Calls with the same key share one answer, in the background of all callers that wait for it. The number of calls and of
waiting callers is limited, each call has a time limit, and a circuit breaker stops calls during an outage.
"""

from __future__ import annotations

import functools
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode

import anyio

from asgi_mcp_auth._keys.background import PerLoop, SingleFlight
from asgi_mcp_auth._keys.http import SERVER_ERROR, TRY_AGAIN, BodyRefusedError, read_decoded_body
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.client_authentication import ClientAuthentication
from asgi_mcp_auth._oauth.http_cache import CircuitBreaker
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError

if TYPE_CHECKING:
    import httpx

__all__ = ("Answer", "Endpoint", "EndpointTexts", "Limits", "Unanswered", "refuses_introspection")

T = TypeVar("T")

BAD_REQUEST = 400
UNAUTHORIZED = (401, 403)
REPORT_SECONDS = 60.0
MAX_ANSWER_BYTES = 64 * 1024
FORM = "application/x-www-form-urlencoded"


class Answer(NamedTuple):
    """A response of the endpoint. `fault` says why the body cannot be used."""

    status: int
    media_type: str
    body: bytes
    fault: str | None


class Unanswered(NamedTuple):
    """There is no answer now. `why` is for the operator; `retry_after` is in seconds."""

    why: str
    retry_after: float


class EndpointTexts(NamedTuple):
    """What log records say about an endpoint.

    Attributes:
        logger: Receives the records.
        member: The member of the metadata that contains the URL of the endpoint.
        name: The name of the endpoint, as in "The introspection endpoint".
        outage: What an outage means, with a place for the issuer.
        fix: How to fix credentials that the endpoint refuses.
        unavailable: The event of an outage.
        unauthorized: The event of refused credentials.
        recovered: The event of the end of an outage.
    """

    logger: logging.Logger
    member: str
    name: str
    outage: str
    fix: str
    unavailable: Event
    unauthorized: Event
    recovered: Event


class Limits(NamedTuple):
    """The seconds that one call may take, the calls at once on each event loop, and the keys that may wait."""

    timeout: float
    max_concurrency: int
    max_queue: int


def refuses_introspection(status: int, media_type: str, body: bytes) -> bool:
    """Return whether an answer refuses the credentials of this server (RFC 7662 section 2.3)."""
    del media_type
    return status in UNAUTHORIZED or (status == BAD_REQUEST and b'"invalid_client"' in body)


class Endpoint(Generic[T]):
    """One endpoint of an issuer.

    Args:
        issuer: Knows the metadata of the issuer.
        identifier: The issuer identifier.
        authentication: The credentials of this server.
        texts: What log records say.
        limits: The limits.
        clock: Seconds since the epoch.
        url: The URL of the endpoint; None for that of the metadata.
        refuses_client: Returns whether an answer refuses the credentials of this server, from its status, its media
            type and its body.

    Attributes:
        calls: The number of calls.
        last_error: Why the last call failed; None after an answer that can be used.
    """

    def __init__(
        self,
        issuer: RemoteJWKS,
        identifier: str,
        authentication: ClientAuthentication,
        texts: EndpointTexts,
        limits: Limits,
        *,
        clock: Callable[[], float],
        url: str | None,
        refuses_client: Callable[[int, str, bytes], bool] = refuses_introspection,
    ) -> None:
        self._issuer = issuer
        self._identifier = identifier
        self._authentication = authentication
        self._texts = texts
        self._limits = limits
        self._clock = clock
        self._url = url
        self._refuses_client = refuses_client
        self._flights: dict[bytes, SingleFlight[T | Unanswered]] = {}
        self._breaker = CircuitBreaker()
        self._limiters = PerLoop(f"asgi_mcp_auth_{texts.member}", lambda: anyio.CapacityLimiter(limits.max_concurrency))
        self._is_outage = False
        self._reported_at = -math.inf
        self.calls = 0
        self.last_error: str | None = None

    @property
    def under_way(self) -> int:
        """The number of keys whose answers callers wait for."""
        return len(self._flights)

    @property
    def failures(self) -> int:
        """The number of failures since the last answer."""
        return self._breaker.failures

    @property
    def retry_in(self) -> float:
        """The seconds until the circuit breaker allows a call; 0 if it allows one now."""
        return self._breaker.seconds_until_allowed(self._clock())

    def unanswered(self, why: str) -> Unanswered:
        """Return that there is no answer, with the seconds that the circuit breaker asks callers to wait."""
        return Unanswered(why, self.retry_in)

    async def join(self, key: bytes, work: Callable[[], Awaitable[T]]) -> T | Unanswered:
        """Return the result of the work for this key. The work goes on if the caller that started it leaves.

        Args:
            key: The key; callers with the same key share one result.
            work: What to run. It uses `call`, and returns its failures as results.
        """
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._limits.max_concurrency + self._limits.max_queue:
                return self.unanswered(f"{len(self._flights)} tokens are waiting")
            flight = self._flights[key] = SingleFlight(functools.partial(self._run, key, work))
        answer = await flight.join()
        return self.unanswered("The call was cancelled") if answer is None else answer

    async def _run(self, key: bytes, work: Callable[[], Awaitable[T]]) -> T | Unanswered:
        """Wait for a slot, at most `timeout`, then work."""
        try:
            limiter = self._limiters.get()
            acquired = False
            with anyio.move_on_after(self._limits.timeout):
                await limiter.acquire()
                acquired = True
            if not acquired:
                return self.unanswered(f"{self._limits.max_concurrency} other calls are under way")
            try:
                return await work()
            finally:
                limiter.release()
        finally:
            self._flights.pop(key, None)

    async def call(self, form: Sequence[tuple[str, str]], accept: str) -> Answer | Unanswered:
        """Send a form, if the circuit breaker allows it, and return the answer, whatever its status below 500."""
        now = self._clock()
        wait = self._breaker.seconds_until_allowed(now)
        if wait:
            return Unanswered(self.last_error or "The last calls failed", wait)
        self._breaker.start(now, self._limits.timeout)
        self.calls += 1
        answer = await self._try_exchange(form, accept)
        if isinstance(answer, str):
            return self._failed(answer)
        if self._refuses_client(answer.status, answer.media_type, answer.body):
            return self._unauthorized(answer.status)
        self._recovered()
        return answer

    async def _try_exchange(self, form: Sequence[tuple[str, str]], accept: str) -> Answer | str:
        """Return the answer of the endpoint, or why there is none."""
        answer = None
        try:
            with anyio.move_on_after(self._limits.timeout):
                answer = await self._exchange(form, accept)
        except DiscoveryError as failed:
            return failed.message
        if answer is None:
            return f"The {self._texts.name} did not answer within {self._limits.timeout:g} s"
        if answer.status >= SERVER_ERROR or answer.status in TRY_AGAIN:
            return f"The {self._texts.name} answered {answer.status}"
        return answer

    async def _exchange(self, form: Sequence[tuple[str, str]], accept: str) -> Answer:
        url, supported = self._url, None
        if url is None:
            url, metadata = await self._issuer.endpoint(self._texts.member)
            members = metadata.to_dict()
            listed = members.get(f"{self._texts.member}_auth_methods_supported")
            supported = listed or members.get("token_endpoint_auth_methods_supported")
        fields, parameters = self._authentication.fields(
            supported=supported,
            issuer=self._identifier,
            endpoint=url,
            now=self._clock(),
            token_id=secrets.token_urlsafe(16),
        )
        return await self._issuer.post(
            url,
            _read_answer,
            is_configured=self._url is not None,
            headers={"accept": accept, "content-type": FORM, **fields},
            content=urlencode([*form, *parameters.items()]).encode("ascii"),
        )

    def _failed(self, error: str) -> Unanswered:
        self._breaker.failed(self._clock())
        self.last_error = error
        if not self._is_outage:
            self._is_outage = True
            self._log(logging.ERROR, self._texts.unavailable, f"{self._texts.outage}: %s", error)
        return self.unanswered(error)

    def _unauthorized(self, status: int) -> Unanswered:
        """Report that the endpoint refuses our own credentials, once a minute: only the operator can fix them."""
        now = self._clock()
        self._breaker.failed(now)
        error = self.last_error = f"The {self._texts.name} refused the credentials of this server ({status})"
        if not 0 <= now - self._reported_at < REPORT_SECONDS:
            self._reported_at = now
            message = f"{self._texts.outage}: %s. {self._texts.fix}"
            self._log(logging.ERROR, self._texts.unauthorized, message, error)
        return self.unanswered(error)

    def _recovered(self) -> None:
        self._breaker.succeeded()
        self.last_error = None
        if self._is_outage:
            self._is_outage = False
            self._log(logging.INFO, self._texts.recovered, f"The {self._texts.name} of %s answers again")

    def _log(self, level: int, event: Event, message: str, *args: object) -> None:
        extra = {"event": event.value, "issuer": self._identifier}
        self._texts.logger.log(level, message, self._identifier, *args, extra=extra)


async def _read_answer(response: httpx.Response) -> Answer:
    body, fault = b"", None
    try:
        body = await read_decoded_body(response, MAX_ANSWER_BYTES)
    except BodyRefusedError as error:
        fault = str(error)
    return Answer(response.status_code, response.headers.get("content-type", ""), body, fault)
