"""OpenTelemetry: counters, durations, gauges and span attributes, in memory and over HTTP to a stand-in collector."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from harness import ISS, R, RecordingApp, bearer, call, protect, token
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asgi_mcp_auth import ConfigurationError
from asgi_mcp_auth._telemetry import otel
from asgi_mcp_auth.testing import Issuer

pytestmark = [pytest.mark.anyio, pytest.mark.requirement("AU-4")]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    monkeypatch.setattr(otel, "TOTALS", otel.Totals())
    yield reader
    provider.shutdown()


def read(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    assert data is not None
    found = [one for resource in data.resource_metrics for scope in resource.scope_metrics for one in scope.metrics]
    return {one.name: list(one.data.data_points) for one in found}


async def test_decisions_durations_and_key_sets_have_bounded_labels(
    issuer: Issuer, reader: InMemoryMetricReader
) -> None:
    app = protect(issuer, RecordingApp(), telemetry=True)
    accepted = token(issuer)
    for credential in (accepted, accepted, "garbage", token(issuer, scope="x"), token(issuer, iss="https://evil")):
        await call(app, headers=bearer(credential))
    found = read(reader)
    counts: Counter[object] = Counter()
    for point in found["asgi_mcp_auth.decisions"]:
        counts[point.attributes.get("reason")] += point.value
    assert counts == {
        None: 2,
        "malformed_token": 1,
        "insufficient_scope": 1,
        "unknown_issuer": 1,
    }
    for points in found.values():
        for point in points:
            assert set(point.attributes) <= {"outcome", "resource", "issuer", "reason", "cache_hit"}
            assert point.attributes.get("issuer", ISS) == ISS
            assert point.attributes.get("resource", R) == R
    assert sum(point.count for point in found["asgi_mcp_auth.verification.duration"]) == 4
    [keys] = found["asgi_mcp_auth.key_set.keys"]
    assert (keys.value, keys.attributes) == (len(issuer.keys), {"issuer": ISS})
    assert [point.value for point in found["asgi_mcp_auth.key_set.failures"]] == [0]
    assert found["asgi_mcp_auth.key_set.age"][0].value >= 0


async def test_every_configuration_of_a_process_has_its_part_in_the_metrics(
    issuer: Issuer, reader: InMemoryMetricReader
) -> None:
    other = Issuer("https://other.example.com")
    apps = [protect(one, RecordingApp(), telemetry=True) for one in (issuer, other, issuer)]
    for app, one in zip(apps, (issuer, other, issuer), strict=True):
        await call(app, headers=bearer(token(one)))
    found = read(reader)
    counts = {point.attributes["issuer"]: point.value for point in found["asgi_mcp_auth.decisions"]}
    assert counts == {ISS: 2, other.url: 1}
    assert {point.attributes["issuer"] for point in found["asgi_mcp_auth.key_set.keys"]} == {ISS, other.url}


def test_at_most_100_issuers_are_labels() -> None:
    totals = otel.Totals()
    labels = [totals.issuer_label(f"https://{number}") for number in (*range(102), 0)]
    assert labels[99:] == ["https://99", otel.OTHER, otel.OTHER, "https://0"]


async def test_the_current_span_has_the_decision(issuer: Issuer, reader: InMemoryMetricReader) -> None:
    del reader
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = protect(issuer, RecordingApp(), telemetry=True)
    for credential in (token(issuer), "garbage"):
        span = provider.get_tracer("server").start_span("POST /mcp")
        with trace.use_span(span, end_on_exit=True):
            await call(app, headers=bearer(credential))
    allowed, refused = [dict(span.attributes or {}) for span in exporter.get_finished_spans()]
    assert allowed["asgi_mcp_auth.outcome"] == "allowed"
    assert allowed["asgi_mcp_auth.issuer"] == ISS
    assert "error.type" not in allowed
    assert "asgi_mcp_auth.scopes_needed" not in allowed
    assert refused["error.type"] == "malformed_token"
    names = allowed.keys() | refused.keys()
    assert all(name == "error.type" or name.startswith("asgi_mcp_auth.") for name in names)
    assert "alice" not in str(allowed)


async def test_metrics_arrive_at_a_collector(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - the name of the base class

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever, daemon=True)
    thread.start()
    exporter = OTLPMetricExporter(f"http://127.0.0.1:{collector.server_port}/v1/metrics", timeout=5)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    text = token(issuer)
    await call(protect(issuer, RecordingApp(), telemetry=True), headers=bearer(text))
    provider.force_flush()
    provider.shutdown()
    collector.shutdown()
    collector.server_close()
    assert {path for path, _ in received} == {"/v1/metrics"}
    sent = b"".join(body for _, body in received)
    for name in (b"asgi_mcp_auth.decisions", b"asgi_mcp_auth.verification.duration", b"asgi_mcp_auth.key_set.keys"):
        assert name in sent
    assert text.encode() not in sent


def test_telemetry_without_the_package_is_a_configuration_error(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_mcp_auth._option_checks.find_spec", dict[str, None]().get)
    with pytest.raises(ConfigurationError, match=r"\.\[otel\]"):
        protect(issuer, RecordingApp(), telemetry=True)
