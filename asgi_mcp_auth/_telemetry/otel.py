"""Metrics and span attributes through the OpenTelemetry API, which does nothing until the process configures an SDK.

Labels are bounded: resource, issuer, outcome and reason, never a subject or the name of a tool. The `iss` of a rejected
token is attacker-controlled, so only issuers of accepted tokens are labels, at most 100.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation

from asgi_mcp_auth._version import __version__
from asgi_mcp_auth.decisions import Decision
from asgi_mcp_auth.status import IssuerStatus

__all__ = ("OpenTelemetry",)

SCOPE: Final = "asgi_mcp_auth"
BUCKETS: Final = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
MAX_ISSUERS: Final = 100  # issuers that are labels; a pattern may admit thousands
Labels = dict[str, str | bool]


class OpenTelemetry:
    """An observer that counts decisions and adds attributes to the server's current span.

    Args:
        issuers: Returns the status of the issuers, for the gauges.
    """

    def __init__(self, issuers: Callable[[], Iterable[IssuerStatus]]) -> None:
        self._issuers = issuers
        self._labels: set[str] = set()
        meter = metrics.get_meter(SCOPE, __version__)
        self._decisions = meter.create_counter("asgi_mcp_auth.decisions", "{decision}", "Decisions about requests")
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
            meter.create_observable_gauge(f"asgi_mcp_auth.key_set.{name}", [self._gauge(read)], unit, description)

    def _gauge(
        self, read: Callable[[IssuerStatus], float | None]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            del options
            for status in islice(self._issuers(), MAX_ISSUERS):
                value = read(status)
                if value is not None:
                    yield Observation(value, {"issuer": status.issuer})

        return observe

    def _issuer_label(self, issuer: str) -> str:
        if issuer not in self._labels:
            if len(self._labels) >= MAX_ISSUERS:
                return "other"
            self._labels.add(issuer)
        return issuer

    def __call__(self, decision: Decision) -> None:
        """Count a decision, and describe it in the current span."""
        labels: Labels = {"outcome": decision.outcome}
        if decision.resource is not None:
            labels["resource"] = decision.resource
        if decision.auth_info is not None:
            labels["issuer"] = self._issuer_label(decision.auth_info.issuer)
        if decision.refusal is not None:
            labels["reason"] = decision.refusal.reason.value
        if decision.cache_hit is not None:
            labels["cache_hit"] = decision.cache_hit
        self._decisions.add(1, labels)
        if decision.verify_seconds is not None and not decision.cache_hit and decision.outcome != "expired":
            self._seconds.record(decision.verify_seconds, labels)
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
    """Return the attributes of a span. `enduser.*` is deprecated, so all but `error.type` have our own namespace."""
    refusal = decision.refusal
    named = {
        "outcome": decision.outcome,
        "resource": decision.resource,
        "path_template": decision.path_template,
        "issuer": None if decision.auth_info is None else decision.auth_info.issuer,
        "client_id": None if decision.auth_info is None else decision.auth_info.client_id,
        "principal": decision.principal_hash,
        "scopes_needed": decision.scopes_needed or None,
        "cache_hit": decision.cache_hit,
        "verify_seconds": decision.verify_seconds,
    }
    attributes = {f"asgi_mcp_auth.{name}": value for name, value in named.items() if value is not None}
    return attributes if refusal is None else {**attributes, "error.type": refusal.reason.value}
