"""A protected app with Prometheus metrics on a port of their own; the dashboard is `grafana.json`.

    uvicorn prometheus:app

Needs fastmcp, prometheus-client and uvicorn. Each worker process needs a port of its own. With OpenTelemetry, pass
`telemetry=True` instead: its Prometheus exporter gives the metrics the same names.
"""

import os
from collections.abc import Iterator

from fastmcp import FastMCP
from prometheus_client import Counter, Histogram, start_http_server
from prometheus_client.core import REGISTRY, GaugeMetricFamily

from asgi_mcp_auth import Decision, MCPAuthMiddleware

DECISIONS = Counter("asgi_mcp_auth_decisions", "Decisions about requests", ["resource", "issuer", "outcome", "reason"])
SECONDS = Histogram(
    "asgi_mcp_auth_verification_duration_seconds",
    "Time to verify a credential",
    ["resource", "cache_hit"],
    buckets=(0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0),
)


def observe(decision: Decision) -> None:
    """Count a decision. Only issuers of accepted tokens are labels: the `iss` of others is attacker-controlled."""
    issuer = "" if decision.auth_info is None else decision.auth_info.issuer
    resource, reason = decision.resource or "", decision.reason or ""
    DECISIONS.labels(resource, issuer, decision.outcome, reason).inc()
    if decision.verify_seconds is not None and decision.outcome != "expired":
        SECONDS.labels(resource, str(decision.cache_hit).lower()).observe(decision.verify_seconds)


app = MCPAuthMiddleware(
    FastMCP("notes").http_app(),
    resource=os.environ.get("RESOURCE", "http://127.0.0.1:8000/mcp"),
    authorization_servers=[os.environ.get("ISSUER", "http://127.0.0.1:9000")],
    required_scopes=["notes:read"],
    on_decision=[observe],
)


class KeySets:
    """Gauges of the key sets, read when Prometheus asks."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges."""
        keys = GaugeMetricFamily("asgi_mcp_auth_key_set_keys", "Usable keys of an issuer", labels=["issuer"])
        age = GaugeMetricFamily("asgi_mcp_auth_key_set_age_seconds", "Age of a key set", labels=["issuer"])
        failures = GaugeMetricFamily("asgi_mcp_auth_key_set_failures", "Failed fetches in a row", labels=["issuer"])
        for issuer in app.auth.status().issuers:
            keys.add_metric([issuer.issuer], len(issuer.keys))
            failures.add_metric([issuer.issuer], issuer.key_set.failures)
            if issuer.key_set.age is not None:
                age.add_metric([issuer.issuer], issuer.key_set.age)
        yield from (keys, age, failures)


REGISTRY.register(KeySets())
start_http_server(int(os.environ.get("METRICS_PORT", "9464")), os.environ.get("METRICS_HOST", "127.0.0.1"))
