"""Metrics and span attributes through the OpenTelemetry API, which does nothing until the process configures an SDK.

Labels are bounded: resource, issuer, outcome and reason, never a subject or the name of a tool. The `iss` of a rejected
token is attacker-controlled, so only issuers of accepted tokens are labels, at most 100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from threading import Lock
from typing import Final, NamedTuple
from weakref import WeakSet

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from asgi_mcp_auth._version import __version__
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.status import IssuerStatus

__all__ = ("OpenTelemetry",)

SCOPE: Final = "asgi_mcp_auth"
BUCKETS: Final = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
MAX_ISSUERS: Final = 100  # issuers that are labels; a pattern may admit thousands
OTHER: Final = "other"


class Labels(NamedTuple):
    """The labels of a decision; None for a label that does not apply."""

    outcome: str
    resource: str | None
    issuer: str | None
    reason: str | None
    cache_hit: bool | None

    def attributes(self) -> dict[str, str | bool]:
        """Return the labels that apply."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Totals:
    """What a process has decided since its start, and whose key sets it shows.

    The SDK keeps one instrument of a name, with its first callback, so all `MCPAuth` of a process share the totals. The
    counter is observed and not incremented: one `Counter.add` of the SDK costs more than the rest of the telemetry
    (benchmarks: in_process).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: dict[Labels, int] = {}
        self._issuers: set[str] = set()
        self._observers: WeakSet[OpenTelemetry] = WeakSet()

    def add(self, observer: OpenTelemetry) -> None:
        """Show the key sets of an observer as long as the observer lives."""
        self._observers.add(observer)

    def issuer_label(self, issuer: str) -> str:
        """Return the label for the issuer of an accepted token."""
        if issuer not in self._issuers:
            if len(self._issuers) >= MAX_ISSUERS:
                return OTHER
            self._issuers.add(issuer)
        return issuer

    def count(self, labels: Labels) -> None:
        """Count one decision."""
        with self._lock:
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def observe_counts(self, options: CallbackOptions) -> Iterable[Observation]:
        """Yield the number of decisions for each set of labels."""
        del options
        with self._lock:
            counts = [*self._counts.items()]
        return [Observation(count, labels.attributes()) for labels, count in counts]

    def observe_issuers(self, read: Callable[[IssuerStatus], float | None]) -> Iterable[Observation]:
        """Yield what `read` returns for each issuer."""
        statuses = (status for observer in [*self._observers] for status in observer.issuers())
        for status in islice(statuses, MAX_ISSUERS):
            value = read(status)
            if value is not None:
                yield Observation(value, {"issuer": status.issuer})


TOTALS = Totals()


def _gauge(read: Callable[[IssuerStatus], float | None]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: TOTALS.observe_issuers(read)


class OpenTelemetry:
    """An observer that counts decisions and adds attributes to the server's current span.

    Args:
        issuers: Returns the status of the issuers, for the gauges.
    """

    def __init__(self, issuers: Callable[[], Iterable[IssuerStatus]]) -> None:
        self.issuers = issuers
        TOTALS.add(self)
        meter = metrics.get_meter(SCOPE, __version__)
        meter.create_observable_counter(
            "asgi_mcp_auth.decisions",
            [lambda options: TOTALS.observe_counts(options)],  # noqa: PLW0108 - the totals of that moment
            "{decision}",
            "Decisions about requests",
        )
        self._seconds = meter.create_histogram(
            "asgi_mcp_auth.verification.duration",
            "s",
            "Time to verify a credential",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        for name, unit, description, read in (
            ("keys", "{key}", "Usable keys of an issuer", _keys),
            ("age", "s", "Age of an issuer's key set", _age),
            ("failures", "{failure}", "Failed fetches of the key set since the last success", _failures),
        ):
            meter.create_observable_gauge(f"asgi_mcp_auth.key_set.{name}", [_gauge(read)], unit, description)

    def __call__(self, decision: Decision) -> None:
        """Count a decision, and describe it in the current span."""
        info, refusal = decision.auth_info, decision.refusal
        labels = Labels(
            decision.outcome,
            decision.resource,
            None if info is None else TOTALS.issuer_label(info.issuer),
            None if refusal is None else refusal.reason.value,
            decision.cache_hit,
        )
        TOTALS.count(labels)
        if decision.verify_seconds is not None and not decision.cache_hit and decision.outcome != "expired":
            self._seconds.record(decision.verify_seconds, labels.attributes())
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attributes(_attributes(decision))


def _keys(status: IssuerStatus) -> float:
    return float(len(status.keys))


def _age(status: IssuerStatus) -> float | None:
    return status.key_set.age


def _failures(status: IssuerStatus) -> float:
    return float(status.key_set.failures)


def _attributes(decision: Decision) -> Mapping[str, str | bool | float | tuple[str, ...]]:
    """Return the attributes of a span. `enduser.*` is deprecated, so all but `error.type` have our own namespace.

    Each attribute costs time in the SDK, so there are few for the frequent case, an allowed request with a known token.
    """
    info, refusal = decision.auth_info, decision.refusal
    named = {
        "asgi_mcp_auth.outcome": decision.outcome,
        "asgi_mcp_auth.resource": decision.resource,
        "asgi_mcp_auth.path_template": decision.path_template,
        "asgi_mcp_auth.issuer": None if info is None else info.issuer,
        "asgi_mcp_auth.client_id": None if info is None else info.client_id,
        "asgi_mcp_auth.principal": decision.principal_hash,
        "asgi_mcp_auth.cache_hit": decision.cache_hit,
        "asgi_mcp_auth.verify_seconds": None if decision.cache_hit else decision.verify_seconds,
        "asgi_mcp_auth.scopes_needed": None if refusal is None else decision.scopes_needed or None,
        "error.type": None if refusal is None else refusal.reason.value,
    }
    return {name: value for name, value in named.items() if value is not None}
