"""One `Decision` per request, its observers, and the log of refusals, which is always on. Records are rate-limited."""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Literal, NamedTuple

from asgi_mcp_auth.authorization import Operation
from asgi_mcp_auth.context import AuthInfo
from asgi_mcp_auth.errors import NoCredential, Reason, Refusal, Unavailable, printable

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
    ISSUER_ADMITTED = "issuer_admitted"
    ISSUER_EVICTED = "issuer_evicted"
    ISSUER_WITHDRAWN = "issuer_withdrawn"


logger = logging.getLogger("asgi_mcp_auth.decisions")


# Every record has these attributes, so that a formatter may use them.
UNKNOWN = dict.fromkeys(("issuer", "kid", "alg", "client_id", "operation", "expected", "found"))

Outcome = Literal["allowed", "refused", "public", "metadata", "preflight"]


class Decision(NamedTuple):
    """The decision about one request. No attribute holds a token.

    Attributes:
        outcome: `allowed` (with `auth_info`), `refused` (with `refusal`), or an answer that needs no token: `public`,
            `metadata`, `preflight`.
        method: The request method.
        path: The path as received, without the query. Behind a proxy or a mount, the client's path may differ.
        resource: The identifier of the resource that owns the path, or None.
        status: The status of an answer of the middleware.
        auth_info: The caller of an allowed request.
        refusal: The refusal.
        operations: The operations of an admitted request, if its body was read.
    """

    outcome: Outcome
    method: str
    path: str
    resource: str | None = None
    status: int | None = None
    auth_info: AuthInfo | None = None
    refusal: Refusal | None = None
    operations: tuple[Operation, ...] = ()

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
    `found` and `suppressed`.

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
        named = details if decision.resource is None else {"resource": decision.resource, **details}
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
            },
        )
