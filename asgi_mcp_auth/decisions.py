"""One `Decision` per request, its observers, and the log of refusals, which is always on. Records are rate-limited."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Literal, NamedTuple

from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.context import NO_ACTORS, ActorChain, AuthInfo
from asgi_mcp_auth.errors import DETAILS, NoCredential, Reason, Refusal, Unavailable, printable

__all__ = (
    "Decision",
    "Event",
    "Observer",
    "Outcome",
    "RecordBudget",
    "RecordGrant",
    "RefusalLog",
)


class Event(StrEnum):
    """The `event` of log records about the keys and endpoints of an issuer. The values are stable, for alerts."""

    KEYS_FETCHED = "keys_fetched"
    KEYS_CHANGED = "keys_changed"
    KEYS_LOADED = "keys_loaded"
    KEYS_CACHE_REJECTED = "keys_cache_rejected"
    KEY_SKIPPED = "key_skipped"
    KEYS_REFRESH_FAILED = "keys_refresh_failed"
    KEYS_STALE = "keys_stale"
    KEYS_UNAVAILABLE = "keys_unavailable"
    KEYS_RECOVERED = "keys_recovered"
    UNKNOWN_KID = "unknown_kid"
    METADATA_FETCHED = "metadata_fetched"
    METADATA_REFRESH_FAILED = "metadata_refresh_failed"
    METADATA_STALE = "metadata_stale"
    METADATA_UNAVAILABLE = "metadata_unavailable"
    METADATA_RECOVERED = "metadata_recovered"
    METADATA_UNFIT = "metadata_unfit"
    INTROSPECTION_UNAVAILABLE = "introspection_unavailable"
    INTROSPECTION_RECOVERED = "introspection_recovered"
    INTROSPECTION_UNAUTHORIZED = "introspection_unauthorized"
    EXCHANGE_UNAVAILABLE = "exchange_unavailable"
    EXCHANGE_RECOVERED = "exchange_recovered"
    EXCHANGE_UNAUTHORIZED = "exchange_unauthorized"
    ISSUER_ADMITTED = "issuer_admitted"
    ISSUER_EVICTED = "issuer_evicted"
    ISSUER_WITHDRAWN = "issuer_withdrawn"


logger = logging.getLogger("asgi_mcp_auth.decisions")


# Every record has these attributes, so that a formatter may use them.
UNKNOWN = dict.fromkeys(DETAILS)

Outcome = Literal["allowed", "refused", "public", "metadata", "preflight", "expired"]


class Decision(NamedTuple):
    """The decision about one request: the one value for the log, the audit log, telemetry and observers.

    No attribute holds a token, an argument of an operation, or a session id.

    Attributes:
        outcome: `allowed` (with `auth_info`), `refused` (with `refusal`), or an answer that needs no token: `public`,
            `metadata`, `preflight`. `expired` reports that an allowed websocket or event stream ended with its token.
        method: The request method.
        path: The path as received, without the query. Behind a proxy or a mount, the client's path may differ.
        resource: The identifier of the resource that owns the path, or None.
        status: The status of an answer of the middleware.
        auth_info: The caller, if the credential was accepted; a 403 has it too.
        refusal: The refusal.
        operations: The operations in the body, without their arguments, if the body was read.
        time: Seconds since the epoch.
        path_template: The path rule that applies, as configured.
        scopes_needed: The scopes that the request needs, as a client requests them.
        kid: The key id in the token's header; unverified in a refusal.
        alg: The algorithm in the token's header; unverified in a refusal.
        credential: The scheme of the credential, such as `bearer`; `api_key` for a key in its own header field.
        cache_hit: Whether an accepted token was in the token cache.
        verify_seconds: The seconds that the verification took; None if only the refusal log consumes the decision.
        request_id: `X-Request-Id`, escaped and cut.
        trace_id: The trace id of `traceparent`.
        session_hash: The SHA-256 of `Mcp-Session-Id` in hexadecimal digits.
        client_address: `loopback`, `private` or `public`.
    """

    outcome: Outcome
    method: str
    path: str
    resource: str | None = None
    status: int | None = None
    auth_info: AuthInfo | None = None
    refusal: Refusal | None = None
    operations: tuple[Operation, ...] = ()
    time: float = 0.0
    path_template: str | None = None
    scopes_needed: tuple[str, ...] = ()
    kid: str | None = None
    alg: str | None = None
    credential: str | None = None
    cache_hit: bool | None = None
    verify_seconds: float | None = None
    request_id: str | None = None
    trace_id: str | None = None
    session_hash: str | None = None
    client_address: str | None = None

    @property
    def issuer(self) -> str | None:
        """The issuer of the token; unverified in a refusal."""
        if self.auth_info is not None:
            return self.auth_info.issuer
        return None if self.refusal is None else self.refusal.issuer

    @property
    def client_id(self) -> str | None:
        """The client of an accepted token."""
        if self.auth_info is not None:
            return self.auth_info.client_id
        return None if self.refusal is None else self.refusal.client_id

    @property
    def scopes_granted(self) -> tuple[str, ...]:
        """The scopes of an accepted token."""
        return () if self.auth_info is None else self.auth_info.scopes

    @property
    def principal_hash(self) -> str | None:
        """`Principal.key` of the caller, computed once for a cached token."""
        return None if self.auth_info is None else self.auth_info.principal_hash

    @property
    def jti_hash(self) -> str | None:
        """The SHA-256 of the token's `jti`, computed once for a cached token."""
        return None if self.auth_info is None else self.auth_info.jti_hash

    @property
    def actors(self) -> ActorChain:
        """The parties that act for the subject (RFC 8693 section 4.1)."""
        return NO_ACTORS if self.auth_info is None else self.auth_info.actors

    @property
    def reason(self) -> Reason | None:
        """The stable reason code of a refusal, or None."""
        return None if self.refusal is None else self.refusal.reason


Observer = Callable[[Decision], None]


def _level(refusal: Refusal) -> int:
    # Any client can cause KEY_NOT_YET_KNOWN, so it is no error of this server.
    if isinstance(refusal, Unavailable) and refusal.reason is not Reason.KEY_NOT_YET_KNOWN:
        return logging.ERROR
    return logging.DEBUG if isinstance(refusal, NoCredential) else logging.WARNING


def _quoted(value: str) -> str:
    """Return a value that cannot be read as two fields, whatever a token contains."""
    return value if not {" ", "=", '"'} & set(value) else '"' + value.replace('"', "'") + '"'


class RecordGrant(NamedTuple):
    """The permission to write one record.

    Attributes:
        suppressed: How many records of the kind were not written before.
        note: What to append to the text of the record.
    """

    suppressed: int
    note: str


class RecordBudget:
    """Limits log records to `most` for each kind and window.

    Args:
        clock: Seconds.
        most: Records of one kind in a window.
        seconds: The length of a window, which begins with its first record.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = 20, seconds: float = 60.0) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._windows: dict[str, tuple[float, int]] = {}

    def suppress(self, kind: str) -> bool:
        """Return whether no record of this kind may be written now. Count the record that is not written."""
        window = self._windows.get(kind)
        if window is None or window[1] < self._most or not 0 <= self._clock() - window[0] < self._seconds:
            return False
        self._windows[kind] = window[0], window[1] + 1
        return True

    def take(self, kind: str) -> RecordGrant | None:
        """Take one record of this kind out of the budget. Return None, and count the record, if nothing is left."""
        if self.suppress(kind):
            return None
        now = self._clock()
        start, count = self._windows.get(kind, (now, 0))
        suppressed = 0
        if not 0 <= now - start < self._seconds:
            suppressed = max(0, count - self._most)
            start, count = now, 0
        self._windows[kind] = start, count + 1
        note = f" ({suppressed} more like it before)" if suppressed else ""
        if count + 1 == self._most:
            note += f" (no more of these for {self._seconds - (now - start):.0f} s)"
        return RecordGrant(suppressed, note)


class RefusalLog:
    """Writes refusals to the logger `asgi_mcp_auth.decisions`, at most `most` for each reason and window.

    A request without a credential is DEBUG, because every client begins with one. 503 is ERROR, all else is WARNING.
    A record has the attributes `reason`, `resource`, `issuer`, `kid`, `alg`, `client_id`, `operation`, `expected`,
    `found`, `request_id`, `trace_id`, `client_address` and `suppressed`.

    Args:
        clock: Seconds.
        most: Records of one reason in a window.
        seconds: The length of a window.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = 20, seconds: float = 60.0) -> None:
        self._budget = RecordBudget(clock, most=most, seconds=seconds)

    def wants(self, refusal: Refusal | None) -> bool:
        """Return whether a record of this refusal would be written now. If the budget is spent, count the refusal.

        Ask before building a decision: most of a flood of refusals needs none.
        """
        return (
            refusal is not None
            and logger.isEnabledFor(_level(refusal))
            and not self._budget.suppress(refusal.reason.value)
        )

    def __call__(self, decision: Decision) -> None:
        """Write the record of a refusal, if the budget allows it."""
        refusal = decision.refusal
        if refusal is None or not logger.isEnabledFor(_level(refusal)):
            return
        grant = self._budget.take(refusal.reason.value)
        if grant is None:
            return
        details = refusal.details()
        named = {} if decision.resource is None else {"resource": decision.resource}
        named |= details
        context = {
            "client_address": decision.client_address,
            "request_id": decision.request_id,
            "trace_id": decision.trace_id,
        }
        named |= {name: value for name, value in context.items() if value is not None}
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in named.items())
        logger.log(
            _level(refusal),
            "%d %s: %s %s %s%s",
            refusal.status,
            refusal.reason.value,
            printable(decision.method),
            printable(decision.path),
            fields,
            grant.note,
            extra={
                "reason": refusal.reason.value,
                "resource": decision.resource,
                "suppressed": grant.suppressed,
                **UNKNOWN,
                **details,
                **context,
            },
        )
