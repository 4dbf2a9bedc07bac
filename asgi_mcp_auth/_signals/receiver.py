"""The receiver of security events and logout tokens: verify, store what they revoke, then acknowledge."""

from __future__ import annotations

import hmac
import logging
import math
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager

from asgi_mcp_auth._keys.remote_jwks import RemoteJWKS
from asgi_mcp_auth._oauth.http_cache import TokenBucket
from asgi_mcp_auth._oauth.jws import CompactJWS
from asgi_mcp_auth._oauth.security_event import (
    EventRefusedError,
    EventSubject,
    SecurityEvent,
    check_event,
    check_logout,
    parse_event,
    parse_logout,
)
from asgi_mcp_auth._policy.transmitters import CompiledTransmitter
from asgi_mcp_auth._signals.revocations import Revocations
from asgi_mcp_auth._signals.watermarks import Kind, Watermark, watermark_of
from asgi_mcp_auth._verify.hooks import HookCaller
from asgi_mcp_auth.config import MAX_LEEWAY
from asgi_mcp_auth.context import revocation_key
from asgi_mcp_auth.decisions import RecordBudget
from asgi_mcp_auth.errors import InvalidToken, Reason, Refusal, Unavailable, printable
from asgi_mcp_auth.stores._shared import StoreUse

__all__ = ("OnSecurityEvent", "Receiver", "Source")

logger = logging.getLogger("asgi_mcp_auth.events")

OnSecurityEvent = Callable[[SecurityEvent], object]
EVENTS_PER_MINUTE = 6000  # of one transmitter, in one process; the next ones are delivered again later


class Source:
    """A transmitter with its keys and its rate limit."""

    def __init__(self, compiled: CompiledTransmitter, keys: RemoteJWKS) -> None:
        self.compiled = compiled
        self.keys = keys
        self.bucket = TokenBucket(EVENTS_PER_MINUTE)


class Receiver:
    """Receives the events of the configured transmitters.

    Args:
        transmitters: The transmitters.
        keys_of: Returns the keys of a transmitter.
        revocations: Where the effects go.
        use: The entries of the store, for the identifiers of events that were received.
        clock: Seconds since the epoch.
        hooks: Calls the user's function, within its time limit.
        on_event: A function of the user that is called with each event, sync or async; None for none.
    """

    def __init__(
        self,
        transmitters: Iterable[CompiledTransmitter],
        keys_of: Callable[[CompiledTransmitter], RemoteJWKS],
        *,
        revocations: Revocations,
        use: StoreUse,
        clock: Callable[[], float],
        hooks: HookCaller,
        on_event: OnSecurityEvent | None,
    ) -> None:
        self._sources = {one.issuer: Source(one, keys_of(one)) for one in transmitters}
        self._revocations = revocations
        self.polled = [one for one in self._sources.values() if one.compiled.settings.poll_endpoint is not None]
        """The transmitters that are asked for events."""
        self._use = use
        self._clock = clock
        self._hooks = hooks
        self._on_event = on_event
        self._budget = RecordBudget(clock)

    async def receive_event(self, body: bytes, authorization: bytes | None) -> None:
        """Receive a Security Event Token (RFC 8935 section 2). It is stored when this method returns.

        Raises:
            EventRefusedError: The event is not accepted.
            Unavailable: The event cannot be verified or stored now; the transmitter has to deliver it again.
        """
        await self._receive_event(body, lambda one: _check_authorization(authorization, one))

    async def receive_polled(self, body: bytes, issuer: str) -> None:
        """Receive a Security Event Token that was fetched from its transmitter. Raises as `receive_event`."""

        def check(one: CompiledTransmitter) -> None:
            if one.issuer != issuer:
                raise EventRefusedError("invalid_issuer", "The iss is not the transmitter that was asked")

        await self._receive_event(body, check)

    async def _receive_event(self, body: bytes, check: Callable[[CompiledTransmitter], None]) -> None:
        with self._logging_refusals():
            jws = parse_event(body)
            source = self._source(jws, needs=lambda one: bool(one.audiences))
            one = source.compiled
            check(one)
            await self._verify(jws, source)
            event = check_event(jws.claims, audiences=one.audiences, now=self._clock(), leeway=one.trusted.rules.leeway)
            await self._accept(event, one)

    async def receive_logout(self, token: bytes) -> None:
        """Receive a logout token (OpenID Connect Back-Channel Logout 1.0 section 2.5). Raises as `receive_event`."""
        with self._logging_refusals():
            jws = parse_logout(token)
            source = self._source(jws, needs=lambda one: bool(one.clients))
            one = source.compiled
            await self._verify(jws, source)
            event = check_logout(jws.claims, clients=one.clients, now=self._clock(), leeway=one.trusted.rules.leeway)
            await self._accept(event, one)

    @contextmanager
    def _logging_refusals(self) -> Generator[None]:
        try:
            yield
        except EventRefusedError as refused:
            grant = self._budget.take(refused.code)
            if grant is not None:
                logger.warning("Refused a security event: %s: %s%s", refused.code, refused.description, grant.note)
            raise

    def _source(self, jws: CompactJWS, *, needs: Callable[[CompiledTransmitter], bool]) -> Source:
        issuer: object = jws.claims.get("iss")
        source = self._sources.get(issuer) if isinstance(issuer, str) else None
        if source is None or not needs(source.compiled):
            raise EventRefusedError("invalid_issuer", "The iss is not a configured transmitter")
        return source

    async def _verify(self, jws: CompactJWS, source: Source) -> None:
        """Check the signature. Nothing else of the token is trusted before."""
        rules, header = source.compiled.trusted.rules, jws.header
        if header.alg not in rules.algorithms:
            raise EventRefusedError("invalid_key", "The alg is not accepted")
        wait = source.bucket.take(self._clock())
        if wait:
            if (grant := self._budget.take("too many")) is not None:
                issuer = printable(source.compiled.issuer)
                logger.warning("Too many events of %s; the next ones are answered 503%s", issuer, grant.note)
            raise Unavailable(Reason.STORE_UNAVAILABLE, found="too many events", retry_after=wait)
        try:
            candidates, _ = await source.keys.select(
                header.kid, header.alg, issued_at=None, leeway=rules.leeway, max_without_kid=1
            )
        except InvalidToken as refusal:
            raise EventRefusedError("invalid_key", f"The key cannot be used: {refusal.reason}") from None
        if not any(key.verify(header.alg, jws.signing_input, jws.signature) for key in candidates):
            raise EventRefusedError("authentication_failed", "The signature is not valid")

    async def _accept(self, event: SecurityEvent, source: CompiledTransmitter) -> None:
        """Store the effects of an event, then call the hook. The `jti` is stored last: else a retry had no effect."""
        expected = source.settings.verification_state
        if event.effect == "verification" and expected is not None:
            state = event.payload.get("state")
            given = state.encode("utf-8", "surrogatepass") if isinstance(state, str) else b""
            if not hmac.compare_digest(given, expected.encode("utf-8", "surrogatepass")):
                raise EventRefusedError("invalid_request", "The state of the verification is not the expected one")
        watermarks = [mark for subject in event.subjects for mark in self._watermarks(event, subject, source)]
        seen = self._use.key("event", event.issuer, event.token_id)
        if await self._use.get(seen) is not None:
            return
        if watermarks:
            await self._revocations.revoke(watermarks)
        elif event.effect in ("revoke", "changed"):
            kind, issuer = printable(event.event_type), printable(event.issuer)
            logger.warning("The subject of an event %s of %s cannot be used; no token was revoked", kind, issuer)
        if self._on_event is not None:
            try:
                await self._hooks.call(self._on_event, event, name="on_security_event", token=b"")
            except Refusal:  # the transmitter delivers the event again
                raise Unavailable(Reason.HOOK_FAILED, found="on_security_event") from None
        await self._use.put(seen, b"1", self._revocations.lifetime)

    def _watermarks(self, event: SecurityEvent, subject: EventSubject, source: CompiledTransmitter) -> list[Watermark]:
        """Return the watermarks of one subject.

        Raises:
            EventRefusedError: The transmitter may not speak for the issuer of the subject.
        """
        if subject.issuer is not None and subject.issuer not in source.token_issuers:
            found, of = printable(event.issuer), printable(subject.issuer)
            logger.error(
                "The transmitter %s sent an event about a subject of %s, for which it may not speak", found, of
            )
            raise EventRefusedError("access_denied", "The transmitter may not speak for the issuer of the subject")
        issuers = source.token_issuers if subject.issuer is None else (subject.issuer,)
        if event.effect == "changed" and subject.kind == "subject":
            return [Watermark(Kind.CHANGED, revocation_key("sub", one, subject.value), event.at) for one in issuers]
        email_claim = source.settings.email_claim
        if event.effect != "revoke" or (subject.kind == "email" and email_claim is None):
            return []
        # Both times have whole seconds, so a token of the same second may have been issued before the event.
        before = self._clock() + MAX_LEEWAY if subject.kind == "token" else math.floor(event.at) + 1.0
        return [_watermark(subject.kind, one, subject.value, email_claim, before) for one in issuers]


def _check_authorization(given: bytes | None, one: CompiledTransmitter) -> None:
    expected = one.settings.authorization
    if expected is not None and not hmac.compare_digest(given or b"", expected.encode("utf-8", "surrogatepass")):
        raise EventRefusedError("authentication_failed", "The Authorization field is not the expected one")


def _watermark(kind: str, issuer: str, value: str, email_claim: str | None, before: float) -> Watermark:
    subject = value if kind == "subject" else None
    session = value if kind == "session" else None
    token_id = value if kind == "token" else None
    claim = (email_claim, value) if kind == "email" and email_claim is not None else None
    return watermark_of(issuer, subject, None, session, token_id, claim, before)
