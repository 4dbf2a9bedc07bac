"""Verification of opaque tokens: the authorization server is asked about each token (RFC 7662, RFC 9701).

A verifier belongs to one resource and one issuer, so the SHA-256 of the credential is the key of its caches. A call
runs in the background of all requests that wait for its answer. An answer that is no verdict about the token is a 503.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlencode

import anyio
from anyio.lowlevel import RunVar

from asgi_mcp_auth._keys.background import SingleFlight
from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.http import JSON_TYPE, BodyRefusedError, read_decoded_body
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.access_token import unverified_time
from asgi_mcp_auth._oauth.confirmation import read_confirmation
from asgi_mcp_auth._oauth.credentials import Credential
from asgi_mcp_auth._oauth.http_cache import CircuitBreaker
from asgi_mcp_auth._oauth.introspection_response import (
    JWT_TYPE,
    MAX_ANSWER_BYTES,
    AnswerRefusedError,
    check_answer,
    parse_signed,
    read_plain,
    read_signed,
)
from asgi_mcp_auth._policy.verifiers import CompiledIntrospection
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.token_cache import CONFIRMATION_BYTES, Entry, TokenCache, estimate_size
from asgi_mcp_auth._verify.verifier import Verified, copy_with_token
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import DiscoveryError, InvalidToken, Reason, Refusal, Unavailable
from asgi_mcp_auth.status import IntrospectionStatus

__all__ = ("IntrospectionVerifier",)

logger = logging.getLogger("asgi_mcp_auth.introspection")

OK, BAD_REQUEST, SERVER_ERROR = 200, 400, 500
UNAUTHORIZED = (401, 403)
TRY_AGAIN = (408, 429)
REPORT_SECONDS = 60.0
FORM = "application/x-www-form-urlencoded"


class _Answer(NamedTuple):
    """A response of the endpoint. `fault` says why the body cannot be used."""

    status: int
    media_type: str
    body: bytes
    fault: str | None


class _Rejected(NamedTuple):
    """A cached refusal. Its texts are cut, because the members of an answer may be long."""

    until: float
    reason: Reason
    description: str
    details: Mapping[str, str]

    def refusal(self) -> InvalidToken:
        known: dict[str, Any] = {name: self.details.get(name) for name in ("issuer", "client_id", "expected", "found")}
        return InvalidToken(self.reason, description=self.description, **known)


class _Unchanging:
    """Nothing but its times ends an answer: no key has verified it."""

    def usable(self, generation: object, now: float) -> bool:
        del generation, now
        return True


UNCHANGING = _Unchanging()


class IntrospectionVerifier:
    """A verifier of the opaque tokens of one issuer, for one resource.

    Args:
        compiled: The settings, the issuer and the client authentication.
        issuer: The metadata and the keys of the issuer.
        clock: Seconds since the epoch.
        cache_bytes: The largest memory of the cached active answers, in bytes.
        expose_token: Whether `AuthInfo.token` contains the raw token.
        hooks: Logs failures at a limited rate.
    """

    def __init__(
        self,
        compiled: CompiledIntrospection,
        issuer: RemoteJWKS,
        *,
        clock: Callable[[], float],
        cache_bytes: int,
        expose_token: bool,
        hooks: HookCaller,
    ) -> None:
        self.rules = compiled.trusted.rules
        self._settings = compiled.settings
        self._trusted = compiled.trusted
        self._authentication = compiled.authentication
        self._issuer = issuer
        self._clock = clock
        self._expose_token = expose_token
        self._hooks = hooks
        self._active = TokenCache(self._settings.cache_size, cache_bytes, clock)
        # Apart from active answers, so that invented tokens cannot evict those of callers.
        self._inactive: BoundedMap[bytes, _Rejected] = BoundedMap(self._settings.cache_size)
        self._flights: dict[bytes, SingleFlight[Verified | Refusal]] = {}
        self._breaker = CircuitBreaker()
        self._limiters: RunVar[anyio.CapacityLimiter] = RunVar("asgi_mcp_auth_introspection")
        self._refusals: Counter[str] = Counter()
        self._calls = self._inactive_hits = 0
        self._last_error: str | None = None
        self._is_outage = False
        self._reported_at = -math.inf

    def get_cached(self, digest: bytes) -> Verified | None:
        """Return the cached active answer about a token, if it can be used now."""
        return self._active.get(digest)

    def check(
        self, token: bytes, digest: bytes, local: Verified | None = None
    ) -> Verified | Refusal | Awaitable[Verified | Refusal]:
        """Return the decision about a token if its answer is cached, else an awaitable that asks the server.

        Args:
            token: The token.
            digest: The cache key of the token.
            local: The result of a local verification, which the server only has to confirm.
        """
        cached = self._active.get(digest)
        if cached is not None:
            return cached
        rejected = self._inactive.get(digest)
        if rejected is not None:
            if 0 < rejected.until - self._clock() <= self._settings.inactive_ttl:
                self._inactive_hits += 1
                return self._count(rejected.refusal())
            self._inactive.pop(digest)
        return self._join(token, digest, local)

    async def verify(self, credential: Credential, request: RequestInfo) -> Verified | Refusal:
        """Return the decision about a credential, cached or not; see `Verifier`."""
        del request  # the decision does not depend on the request
        digest = sha256(credential.scheme + b" " + credential.token).digest()
        decided = self.check(credential.token, digest)
        return decided if isinstance(decided, (Verified, Refusal)) else await decided

    async def _join(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Wait for the call about this token. It goes on if the caller that started it leaves."""
        flight = self._flights.get(digest)
        if flight is None:
            if len(self._flights) >= self._settings.max_concurrency + self._settings.max_queue:
                return self._count(self._unavailable(f"{len(self._flights)} tokens are waiting"))
            flight = self._flights[digest] = SingleFlight(functools.partial(self._run, token, digest, local))
        answer = await flight.join()
        return self._count(self._unavailable("The call was cancelled") if answer is None else answer)

    async def _run(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Wait for a slot, at most `timeout`, then call. A failure is an answer too: many callers wait for it."""
        try:
            limiter = self._limiter()
            acquired = False
            with anyio.move_on_after(self._settings.timeout):
                await limiter.acquire()
                acquired = True
            if not acquired:
                return self._unavailable(f"{self._settings.max_concurrency} other calls are under way")
            try:
                return await self._call(token, digest, local)
            finally:
                limiter.release()
        except Refusal as refusal:
            return refusal.without_traceback()
        except Exception as error:  # noqa: BLE001 - a fault of the verifier must neither accept a token nor cause a 500
            return self._hooks.failed("The introspection", error, token)
        finally:
            self._flights.pop(digest, None)

    def _limiter(self) -> anyio.CapacityLimiter:
        limiter = self._limiters.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(self._settings.max_concurrency)
            self._limiters.set(limiter)
        return limiter

    async def _call(self, token: bytes, digest: bytes, local: Verified | None) -> Verified | Refusal:
        """Call the endpoint, if the circuit breaker allows it, and cache the decision."""
        now = self._clock()
        wait = self._breaker.seconds_until_allowed(now)
        if wait:
            return self._unavailable(self._last_error or "The last calls failed", wait)
        self._breaker.start(now, self._settings.timeout)
        self._calls += 1
        answer = await self._try_exchange(token)
        if isinstance(answer, str):
            return self._failed(answer)
        if answer.status in UNAUTHORIZED or (answer.status == BAD_REQUEST and b'"invalid_client"' in answer.body):
            return self._unauthorized(answer.status)
        self._recovered()
        try:
            content, text = await self._read(answer)
        except AnswerRefusedError as refused:
            self._last_error = f"The introspection endpoint answered with {refused}"
            return self._unavailable(self._last_error)
        return self._decide(content, text, token, digest, local)

    async def _try_exchange(self, token: bytes) -> _Answer | str:
        """Return the answer of the endpoint, or why there is none."""
        answers: list[_Answer] = []
        try:
            with anyio.move_on_after(self._settings.timeout):
                answers.append(await self._exchange(token))
        except DiscoveryError as failed:
            return failed.message
        if not answers:
            return f"The introspection endpoint did not answer within {self._settings.timeout:g} s"
        status = answers[0].status
        if status >= SERVER_ERROR or status in TRY_AGAIN:
            return f"The introspection endpoint answered {status}"
        return answers[0]

    async def _exchange(self, token: bytes) -> _Answer:
        """Send the request (RFC 7662 section 2.1)."""
        settings, supported = self._settings, None
        url = settings.endpoint
        if url is None:
            url, metadata = await self._issuer.endpoint("introspection_endpoint")
            members = metadata.to_dict()
            listed = members.get("introspection_endpoint_auth_methods_supported")
            supported = listed or members.get("token_endpoint_auth_methods_supported")
        fields, parameters = self._authentication.fields(
            supported=supported,
            audience=self._trusted.identifier,
            now=self._clock(),
            token_id=secrets.token_urlsafe(16),
        )
        form = {"token": token.decode("ascii"), "token_type_hint": "access_token", **parameters}
        accept = JWT_TYPE if settings.signed else "application/json"
        return await self._issuer.post(
            url,
            _read_answer,
            is_configured=settings.endpoint is not None,
            headers={"accept": accept, "content-type": FORM, **fields},
            content=urlencode(form).encode("ascii"),
        )

    async def _read(self, answer: _Answer) -> tuple[dict[str, Any], bytes]:
        """Return the members of an answer and its JSON text.

        Raises:
            AnswerRefusedError: The answer cannot be used.
            Unavailable: There are no keys to verify a signed answer with.
        """
        if answer.fault is not None:
            raise AnswerRefusedError(answer.fault)
        if answer.status != OK:  # redirects are not followed
            raise AnswerRefusedError(f"status {answer.status}")
        is_signed = answer.media_type.partition(";")[0].strip().lower() == JWT_TYPE
        if is_signed != self._settings.signed:
            raise AnswerRefusedError("a signed answer" if is_signed else "an answer that is not signed")
        if not is_signed:
            if re.match(JSON_TYPE, answer.media_type) is None:
                raise AnswerRefusedError("another media type than application/json")
            return read_plain(answer.body), answer.body
        rules, jws = self.rules, parse_signed(answer.body, self.rules.algorithms)
        try:
            keys, _ = await self._issuer.select(
                jws.header.kid,
                jws.header.alg,
                issued_at=unverified_time(jws.claims, "iat"),
                leeway=rules.leeway,
                max_without_kid=self._trusted.max_keys_without_kid,
            )
        except InvalidToken as unknown:  # it is the answer that cannot be verified, not the token
            raise AnswerRefusedError(f"a signature of another key: {unknown.reason}") from None
        if not any(key.verify(jws.header.alg, jws.signing_input, jws.signature) for key in keys):
            raise AnswerRefusedError("a wrong signature")
        audiences = frozenset({self._authentication.client_id, rules.resource} - {""})
        issuer, now = self._trusted.identifier, self._clock()
        content = read_signed(jws.claims, issuer=issuer, audiences=audiences, leeway=rules.leeway, now=now)
        return content, jws.payload

    def _decide(
        self, content: dict[str, Any], text: bytes, token: bytes, digest: bytes, local: Verified | None
    ) -> Verified | Refusal:
        """Return the decision, and cache it."""
        now = self._clock()
        try:
            verified = self._confirm(content, local) if local is not None else self._accept(content, token, now)
        except InvalidToken as refusal:
            refusal.issuer = self.rules.issuer
            until = now + self._settings.inactive_ttl
            self._inactive.put(digest, _Rejected(until, refusal.reason, refusal.description, refusal.details()))
            return refusal.without_traceback()
        until = min(now + self._settings.ttl, math.inf if verified.valid_until is None else verified.valid_until)
        if until > now:
            weight = estimate_size(text, content, verified.auth_info)
            weight += 0 if verified.confirmation is None else CONFIRMATION_BYTES
            self._active.put(digest, Entry(verified, now, until, UNCHANGING, None, weight))
        return verified

    def _accept(self, content: dict[str, Any], token: bytes, now: float) -> Verified:
        """Return the identity that an answer describes."""
        if not content["active"]:
            raise InvalidToken(Reason.INACTIVE_TOKEN)
        info = check_answer(content, self.rules, now, issuer_checks_audience=self._settings.issuer_checks_audience)
        bound = read_confirmation(content.get("cnf"), self.rules.confirmations)
        info = copy_with_token(info, token.decode("ascii") if self._expose_token else None)
        return Verified(info, info.expires_at, confirmation=bound)

    def _confirm(self, content: dict[str, Any], local: Verified) -> Verified:
        """Return the locally verified token, if the answer is about the same subject."""
        if not content["active"]:
            raise InvalidToken(Reason.INACTIVE_TOKEN)
        for name, expected in (("iss", local.auth_info.issuer), ("sub", local.auth_info.claims.get("sub"))):
            if content.get(name) not in (None, expected):
                raise InvalidToken(Reason.INACTIVE_TOKEN, expected=f"{name} of the token", found=content[name])
        return local

    def _failed(self, error: str) -> Unavailable:
        self._breaker.failed(self._clock())
        self._last_error = error
        if not self._is_outage:
            self._is_outage = True
            self._log(logging.ERROR, Event.INTROSPECTION_UNAVAILABLE, "Tokens of %s cannot be introspected: %s", error)
        return self._unavailable(error)

    def _unauthorized(self, status: int) -> Unavailable:
        """Report that the endpoint refuses our own credentials, once a minute: only the operator can fix them."""
        now = self._clock()
        self._breaker.failed(now)
        error = self._last_error = f"The introspection endpoint refused the credentials of this server ({status})"
        if not 0 <= now - self._reported_at < REPORT_SECONDS:
            self._reported_at = now
            message = "Tokens of %s cannot be introspected: %s. Fix client_id and the secret of Introspection(...)."
            self._log(logging.ERROR, Event.INTROSPECTION_UNAUTHORIZED, message, error)
        return self._unavailable(error)

    def _recovered(self) -> None:
        self._breaker.succeeded()
        self._last_error = None
        if self._is_outage:
            self._is_outage = False
            self._log(logging.INFO, Event.INTROSPECTION_RECOVERED, "The introspection endpoint of %s answers again")

    def _log(self, level: int, event: Event, message: str, *args: object) -> None:
        extra = {"event": event.value, "issuer": self._trusted.identifier}
        logger.log(level, message, self._trusted.identifier, *args, extra=extra)

    def _unavailable(self, found: str, wait: float | None = None) -> Unavailable:
        wait = self._breaker.seconds_until_allowed(self._clock()) if wait is None else wait
        reason = Reason.INTROSPECTION_UNAVAILABLE
        return Unavailable(reason, issuer=self._trusted.identifier, found=found, retry_after=wait)

    def _count(self, answer: Verified | Refusal) -> Verified | Refusal:
        if isinstance(answer, Refusal):
            self._refusals[answer.reason.value] += 1
        return answer

    @property
    def is_available(self) -> bool:
        """Whether the circuit breaker allows calls."""
        return not self._breaker.seconds_until_allowed(self._clock())

    def status(self) -> IntrospectionStatus:
        """Return a snapshot of caches and calls."""
        return IntrospectionStatus(
            issuer=self._trusted.identifier,
            active=len(self._active),
            inactive=len(self._inactive),
            hits=self._active.hits + self._inactive_hits,
            calls=self._calls,
            under_way=len(self._flights),
            failures=self._breaker.failures,
            retry_in=self._breaker.seconds_until_allowed(self._clock()),
            last_error=self._last_error,
            refusals=dict(self._refusals),
        )


async def _read_answer(response: Any) -> _Answer:
    body, fault = b"", None
    try:
        body = await read_decoded_body(response, MAX_ANSWER_BYTES)
    except BodyRefusedError as error:
        fault = str(error)
    return _Answer(response.status_code, response.headers.get("content-type", ""), body, fault)
