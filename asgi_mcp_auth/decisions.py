"""The record of one decision, the observers that receive it, the log of refusals, and the names of log events."""

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
    "RefusalLog",
)


class Event(StrEnum):
    """What happened to what we hold of an issuer: the `event` of log records, stable for alerts."""

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
    ISSUER_ADMITTED = "issuer_admitted"
    ISSUER_EVICTED = "issuer_evicted"
    ISSUER_WITHDRAWN = "issuer_withdrawn"


logger = logging.getLogger("asgi_mcp_auth.decisions")


# Every record has these attributes, so that a formatter may name them.
UNKNOWN = dict.fromkeys(("issuer", "kid", "alg", "client_id", "operation", "expected", "found"))

Outcome = Literal["allowed", "refused", "public", "metadata", "preflight"]


class Decision(NamedTuple):
    """What was decided about one request.

    `outcome` is `allowed` (with `auth_info`), `refused` (with `refusal`), or an answer that needs no token:
    `public`, `metadata`, `preflight`. `path` is the path as received, without the query: behind a proxy or a mount,
    the client's path may differ. `resource` is the identifier of the owning resource, if one owns the path;
    `operations` what an admitted body asks for, where it was read.
    Nothing here holds a token.
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
        """The stable code of a refusal."""
        return None if self.refusal is None else self.refusal.reason


Observer = Callable[[Decision], None]


def _level(refusal: Refusal) -> int:
    if isinstance(refusal, Unavailable) and refusal.reason is not Reason.KEY_NOT_YET_KNOWN:  # which anybody can cause
        return logging.ERROR
    return logging.DEBUG if isinstance(refusal, NoCredential) else logging.WARNING


def _quoted(value: str) -> str:
    """A value that cannot be taken for two fields, whatever a token says."""
    return value if not {" ", "=", '"'} & set(value) else '"' + value.replace('"', "'") + '"'


class RefusalLog:
    """Writes refusals to the logger `asgi_mcp_auth.decisions`, at most `most` per reason and `seconds`.

    A request without a credential is DEBUG (every client starts so), 503 is ERROR, the rest WARNING. The record
    has the attributes `reason`, `resource`, `issuer`, `kid`, `alg`, `client_id`, `operation`, `expected`, `found`
    and `suppressed`.
    """

    def __init__(self, clock: Callable[[], float], *, most: int = 20, seconds: float = 60.0) -> None:
        self._clock = clock
        self._most = most
        self._seconds = seconds
        self._windows: dict[Reason, tuple[float, int]] = {}

    def wants(self, refusal: Refusal | None) -> bool:
        """Whether anybody listens to records of this refusal: asked before a decision is put together."""
        return refusal is not None and logger.isEnabledFor(_level(refusal))

    def __call__(self, decision: Decision) -> None:
        """Observe a decision."""
        refusal = decision.refusal
        if refusal is None or not self.wants(refusal):
            return
        now = self._clock()
        start, count = self._windows.get(refusal.reason, (now, 0))
        suppressed = 0
        if not 0 <= now - start < self._seconds:
            suppressed = max(0, count - self._most)
            start, count = now, 0
        self._windows[refusal.reason] = (start, count + 1)
        if count >= self._most:
            return
        details = refusal.details()
        fields = details if decision.resource is None else {"resource": decision.resource, **details}
        listed = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        more = f" ({suppressed} more like it before)" if suppressed else ""
        if count + 1 == self._most:
            more += f" (no more of these for {self._seconds - (now - start):.0f} s)"
        logger.log(
            _level(refusal),
            "%d %s: %s %s %s%s",
            refusal.status,
            refusal.reason.value,
            printable(decision.method),
            printable(decision.path),
            listed,
            more,
            extra={
                "reason": refusal.reason.value,
                "resource": decision.resource,
                "suppressed": suppressed,
                **UNKNOWN,
                **details,
            },
        )
