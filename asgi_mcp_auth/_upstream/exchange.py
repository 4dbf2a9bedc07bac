"""The exchange of callers' tokens for tokens of upstream APIs: callers, cache, single flight and failures.

A caller's token is held here while its request runs, and nowhere else. It leaves as `subject_token` to the token
endpoint of its own issuer only.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar, Token
from functools import partial
from hashlib import sha256
from typing import NamedTuple, NoReturn, final

from asgi_mcp_auth._keys.bounded_map import BoundedMap
from asgi_mcp_auth._keys.endpoint import Endpoint, EndpointTexts, Limits, Unanswered
from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.credentials import is_token
from asgi_mcp_auth._oauth.token_exchange import (
    ExchangedToken,
    ExchangeRequest,
    Failure,
    cached_until,
    read_answer,
    refuses_client,
)
from asgi_mcp_auth._policy.exchange_settings import CompiledExchange
from asgi_mcp_auth._request import RequestInfo
from asgi_mcp_auth._signals.changes import SubjectChanges
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth._verify.verifier import IsRevoked
from asgi_mcp_auth.context import AuthInfo, current_auth_var
from asgi_mcp_auth.decisions import Event
from asgi_mcp_auth.errors import ExchangeError, ExchangeReason, Refusal
from asgi_mcp_auth.status import ExchangeStatus

__all__ = ("Caller", "Entered", "Exchanger")

TEXTS = EndpointTexts(
    logger=logging.getLogger("asgi_mcp_auth.exchange"),
    member="token_endpoint",
    name="token endpoint",
    outage="Tokens of %s cannot be exchanged",
    fix="Fix client_id and the secret of TokenExchange(...).",
    unavailable=Event.EXCHANGE_UNAVAILABLE,
    unauthorized=Event.EXCHANGE_UNAUTHORIZED,
    recovered=Event.EXCHANGE_RECOVERED,
)
FAILED = frozenset((ExchangeReason.UNAVAILABLE, ExchangeReason.INVALID_ANSWER))
MIN_SECONDS_TO_RENEWAL = 10.0  # an API that refuses new tokens too must not cause an exchange for each of its answers


@final
class Caller:
    """The caller of one request, to exchange the caller's token in a task that does not inherit the request's context.

    The value contains no token, and cannot be copied or pickled. After the request, only cached tokens are available.

    Attributes:
        auth_info: The identity.
    """

    __slots__ = ("_digest", "_valid_until", "auth_info")
    auth_info: AuthInfo

    def __init__(self, auth_info: AuthInfo, valid_until: float | None) -> None:
        self.auth_info = auth_info
        self._valid_until = valid_until
        self._digest = b""

    def __repr__(self) -> str:
        return f"<Caller {self.auth_info.subject!r} of {self.auth_info.issuer!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A Caller belongs to one request of this process. Pass the exchanged token on instead.")

    def is_expired(self, now: float) -> bool:
        """Return whether the caller's token has expired."""
        return self._valid_until is not None and now >= self._valid_until

    def digest(self, token: bytes | None) -> bytes:
        """Return the SHA-256 of the caller's token, which is computed while the token is known; empty before that."""
        if token is not None and not self._digest:
            self._digest = sha256(token).digest()
        return self._digest


class _Cached(NamedTuple):
    """A cached token, with the times of its use, and the subject that it was issued for, as `RevocationKeys` has it."""

    token: ExchangedToken
    since: float
    until: float
    subject: bytes

    def is_usable(self, now: float) -> bool:
        """Return whether the token is used."""
        return self.since <= now < self.until


class _Upstream:
    """The token endpoint of one issuer, the settings for it, and counts of its answers."""

    def __init__(self, compiled: CompiledExchange, issuer: RemoteJWKS, clock: Callable[[], float]) -> None:
        settings = self.settings = compiled.settings
        self.issuer = compiled.trusted.identifier
        self.exchanged = self.cached = self.failed = 0
        self.refused: Counter[str] = Counter()
        self.client_id = compiled.authentication.client_id
        self.cache: BoundedMap[bytes, _Cached] = BoundedMap(settings.cache_size)
        self.endpoint: Endpoint[ExchangedToken | Failure] = Endpoint(
            issuer,
            self.issuer,
            compiled.authentication,
            TEXTS,
            Limits(settings.timeout, settings.max_concurrency, settings.max_queue),
            clock=clock,
            url=settings.endpoint,
            refuses_client=refuses_client,
        )

    def count(self, answer: ExchangedToken | Failure) -> None:
        """Count one exchange."""
        if isinstance(answer, ExchangedToken):
            self.exchanged += 1
        elif answer.reason in FAILED:
            self.failed += 1
        else:
            self.refused[answer.reason.value] += 1

    def status(self) -> ExchangeStatus:
        """Return a snapshot of the cache, the counts and the calls."""
        return ExchangeStatus(
            issuer=self.issuer,
            entries=len(self.cache),
            exchanged=self.exchanged,
            cached=self.cached,
            refused=dict(self.refused),
            failed=self.failed,
            under_way=self.endpoint.under_way,
            failures=self.endpoint.failures,
            retry_in=self.endpoint.retry_in,
            last_error=self.endpoint.last_error,
        )


class Entered(NamedTuple):
    """A request that runs: its caller, and how the context is reset after it."""

    caller: Caller
    reset: Token[Caller | None]


_caller_var: ContextVar[Caller | None] = ContextVar("asgi_mcp_auth caller", default=None)


class Exchanger:
    """Exchanges callers' tokens.

    Args:
        compiled: The settings for each issuer.
        issuer_of: Returns what knows the metadata of an issuer.
        clock: Seconds since the epoch.
        hooks: Calls the user's functions, and logs failures.
        is_revoked: The hook that is asked about the caller before each exchange; None for no hook.
        revocations: The revocations that the caller is compared with before each exchange; None if revocation is off.
    """

    def __init__(
        self,
        compiled: tuple[CompiledExchange, ...],
        issuer_of: Callable[[CompiledExchange], RemoteJWKS],
        *,
        clock: Callable[[], float],
        hooks: HookCaller,
        is_revoked: IsRevoked | None,
        revocations: Revocations | None = None,
    ) -> None:
        self._clock = clock
        self._hooks = hooks
        self._is_revoked = is_revoked
        self._revocations = revocations
        self._by_issuer: dict[str, _Upstream] = {}
        for one in compiled:
            self._by_issuer |= dict.fromkeys(one.accepted, _Upstream(one, issuer_of(one), clock))
        self._running: dict[Caller, bytes | None] = {}  # the token; None for an API key
        self._changes = SubjectChanges()

    def enter(self, info: AuthInfo, request: RequestInfo, valid_until: float | None) -> Entered:
        """Hold the token of a request that starts to run. API keys and tokens of other issuers are not held."""
        caller, lines, token = Caller(info, valid_until), request.fields.get(b"authorization", ()), b""
        if info.issuer in self._by_issuer and len(lines) == 1:
            token = lines[0].strip(b" \t").partition(b" ")[2].lstrip(b" ")  # as `read_credential` reads the field
        self._running[caller] = token if is_token(token) else None
        return Entered(caller, _caller_var.set(caller))

    def leave(self, entered: Entered) -> None:
        """Drop the token: the request has ended."""
        self._running.pop(entered.caller, None)
        _caller_var.reset(entered.reset)

    def current(self) -> Caller:
        """Return the caller of the request that is being handled.

        Raises:
            ExchangeError: There is none, or the request has ended.
        """
        caller = _caller_var.get()
        if caller is None or current_auth_var.get() is not caller.auth_info:
            message = "There is no authenticated caller. Exchange in a protected request, or pass caller=."
            raise ExchangeError(ExchangeReason.NO_CALLER, message)
        if caller not in self._running:
            message = "The request has ended, and with it the caller's token. Pass caller=auth.caller() of the request."
            raise ExchangeError(ExchangeReason.REQUEST_ENDED, message)
        caller.digest(self._running[caller])
        return caller

    async def exchange(self, request: ExchangeRequest, caller: Caller | None = None) -> ExchangedToken:
        """Return a token for an upstream API, cached or new.

        Args:
            request: What is asked for.
            caller: The caller; None for the caller of the request that is being handled.

        Raises:
            ExchangeError: There is no token.
        """
        subject = self.current() if caller is None else caller
        issuer = subject.auth_info.issuer
        upstream = self._by_issuer.get(issuer)
        if upstream is None or self._running.get(subject, b"") is None:
            message = f"The credential of the caller, of {issuer}, is no access token that can be exchanged."
            raise ExchangeError(ExchangeReason.NOT_EXCHANGEABLE, message)
        if (unfit := request.unfit_for(upstream.settings.grant)) is not None:
            raise ValueError(unfit)
        await self._check_revocation(subject)
        answer = await self._find(upstream, request, subject)  # raised here: no frame with the token is in a traceback
        if isinstance(answer, Failure):
            raise ExchangeError(**answer._asdict())
        return answer

    def refuse(self, request: ExchangeRequest, token: ExchangedToken, caller: Caller | None = None) -> bool:
        """Use a cached token no longer, because the API has answered it with 401. Return whether to expect another one.

        A token that is new stays: another one would hardly be accepted either.

        Raises:
            ExchangeError: `caller` is None, and no request is being handled.
        """
        subject = self.current() if caller is None else caller
        info = subject.auth_info
        upstream = self._by_issuer.get(info.issuer)
        if upstream is None:
            return False
        key = request.key(info.issuer, upstream.client_id, subject.digest(self._running.get(subject)))
        cached = upstream.cache.get(key)
        if cached is None:  # tokens that are not cached are new
            return False
        now = self._clock()
        if cached.token != token:  # renewed in the meantime, or the token is not cached and follows one that has ended
            return cached.is_usable(now)
        if 0 <= now - cached.since < MIN_SECONDS_TO_RENEWAL:
            return False
        upstream.cache.put(key, cached._replace(until=-math.inf))
        return True

    async def _find(self, upstream: _Upstream, request: ExchangeRequest, subject: Caller) -> ExchangedToken | Failure:
        """Return the cached token, or join the call of the token endpoint."""
        now, token, info = self._clock(), self._running.get(subject), subject.auth_info
        if subject.is_expired(now):
            return Failure(ExchangeReason.SUBJECT_REFUSED, "The caller's token has expired.")
        key = request.key(info.issuer, upstream.client_id, subject.digest(token))
        cached = upstream.cache.get(key)
        if cached is not None and cached.is_usable(now):
            upstream.cached += 1
            return cached.token
        if token is None:
            message = "The request has ended, and no usable token is cached. Exchange before the request ends."
            return Failure(ExchangeReason.REQUEST_ENDED, message)
        work = partial(self._run, upstream, request, token, info, key)
        change = self._changes.last(info.revocation_keys.subject).number
        answer = await upstream.endpoint.join(key + change.to_bytes(8, "big"), work)
        if isinstance(answer, Unanswered):
            upstream.failed += 1
            return Failure(ExchangeReason.UNAVAILABLE, answer.why, retry_after=answer.retry_after)
        return answer

    async def _check_revocation(self, subject: Caller) -> None:
        """Compare the caller with the revocations, then ask the hook; drop what is cached for a revoked caller."""
        info, revoked = subject.auth_info, False
        if self._revocations is not None:
            unavailable = None if self._revocations.is_current() else await self._revocations.catch_up()
            if unavailable is not None:
                raise ExchangeError(ExchangeReason.UNAVAILABLE, f"The revocations are not known: {unavailable.reason}")
            revoked = self._revocations.refuse(info) is not None
        if self._is_revoked is not None and not revoked:
            try:
                token = self._running.get(subject) or b""
                answer = await self._hooks.call(self._is_revoked, info, name="is_revoked", token=token)
            except Refusal as refusal:
                found = f"The hook is_revoked failed: {refusal.reason}"
                raise ExchangeError(ExchangeReason.UNAVAILABLE, found) from None
            revoked = answer is not False
        if revoked:
            self.remove_subject(info.revocation_keys.subject)
            raise ExchangeError(ExchangeReason.REVOKED, "The caller's token is revoked.")

    def status(self) -> tuple[ExchangeStatus, ...]:
        """Return the status of each issuer."""
        return tuple(upstream.status() for upstream in dict.fromkeys(self._by_issuer.values()))

    def remove_subject(self, key: bytes) -> None:
        """Drop the cached tokens of a subject; see `RevocationKeys.subject`.

        Tokens that are on their way are not cached, and are for requests from before only.
        """
        self._changes.add(key, self._clock())
        for upstream in set(self._by_issuer.values()):
            upstream.cache.remove_if(lambda one: one.subject == key)

    async def _run(
        self, upstream: _Upstream, request: ExchangeRequest, token: bytes, info: AuthInfo, key: bytes
    ) -> ExchangedToken | Failure:
        """Call the token endpoint, and cache its token. A failure is an answer too: many callers wait for it."""
        try:
            answer = await self._call(upstream, request, token, info, key)
        except Exception as error:  # noqa: BLE001 - a fault here must not reach callers with the token in its frames
            failed = self._hooks.failed("The token exchange", error, token)
            answer = Failure(ExchangeReason.UNAVAILABLE, f"The token exchange failed with {failed.found}")
        upstream.count(answer)
        return answer

    async def _call(
        self, upstream: _Upstream, request: ExchangeRequest, token: bytes, info: AuthInfo, key: bytes
    ) -> ExchangedToken | Failure:
        settings, now, subject = upstream.settings, self._clock(), info.revocation_keys.subject
        change = self._changes.last(subject)
        form = request.form(token.decode("ascii"), settings.grant)
        answer = await upstream.endpoint.call(form, "application/json")
        if isinstance(answer, Unanswered):
            return Failure(ExchangeReason.UNAVAILABLE, answer.why, retry_after=answer.retry_after)
        if answer.fault is not None:
            return Failure(ExchangeReason.INVALID_ANSWER, f"The token endpoint answered with {answer.fault}")
        read = read_answer(answer.status, answer.media_type, answer.body, request, grant=settings.grant, now=now)
        if isinstance(read, ExchangedToken) and change == self._changes.last(subject):
            until = cached_until(read, info.expires_at, settings.margin)
            if until is not None and until > now and settings.cache_size:
                upstream.cache.put(key, _Cached(read, now, until, subject))
        return read
