"""OpenTelemetry: what a real receiver gets, what it never gets, and that a relay does not mind when there is none."""

import logging
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relay.errors import BadSettings
from relay.metrics import RelayMetrics
from relay.protocol.keys import Kind
from relay.protocol.sse import SseParser
from relay.serve.app import build_app
from relay.serve.guard import Receive, Scope, Send
from relay.serve.traced import Traced
from relay.settings import Otel, load, otel_headers
from relay.settings_reader import Source
from relay.sync.backoff import Backoff
from relay.sync.inbox import Inbox
from relay.sync.store import Store
from relay.telemetry import MISSING, NO_TRACING, check, start
from tests.clocks import FakeClock
from tests.relay import test_follow, test_forward, test_kill_forward
from tests.relay.edge_world import ORDER
from tests.relay.otlp_receiver import attributes, exporting, receiver, stop
from tests.relay.world import World, call_asgi

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


async def test_a_request_is_a_span_of_its_callers_trace(world: World) -> None:
    """Named by the route, with method and status; neither key nor flag nor context nor path leave the relay."""
    async with receiver() as here:
        telemetry = exporting(world.metrics, endpoint=here.url, headers="api-key=secret-1, team=flags")
        app = build_app(world.services, tracing=telemetry.tracing)
        body = {"context": {"targetingKey": "somebody@example.com"}}
        target = "/ofrep/v1/evaluate/flags/beta"
        answer = await world.call("POST", target, body, app=app, headers={"traceparent": TRACEPARENT})
        assert answer.status == 200
        await stop(telemetry)
        span = here.span("POST /ofrep/v1/evaluate/flags/{key}")
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert attributes(span) == {
            "http.request.method": "POST",
            "http.route": "/ofrep/v1/evaluate/flags/{key}",
            "http.response.status_code": 200,
        }
        for secret in (world.keys[Kind.SERVER].encode(), b"somebody", b"beta"):
            assert secret not in here.bodies
        assert here.resource["service.name"] == "halyard-relay"
        assert here.resource["service.instance.id"].startswith("relay-1/")
        assert (here.headers[0]["api-key"], here.headers[0]["team"]) == ("secret-1", "flags")


async def test_what_no_route_knows_is_not_named(world: World) -> None:
    """A path or a method of the caller's own would make as many names as there are callers."""
    async with receiver() as here:
        telemetry = exporting(world.metrics, endpoint=here.url, metrics=False)
        app = build_app(world.services, tracing=telemetry.tracing)
        assert (await world.call("BREW", "/coffee/with-milk", app=app)).status == 404
        await stop(telemetry)
        assert attributes(here.span("_OTHER")) == {"http.request.method": "_OTHER", "http.response.status_code": 404}
        assert b"coffee" not in here.bodies
        assert not here.metrics


async def test_a_caller_that_does_not_sample_is_followed(world: World) -> None:
    """The flag of `traceparent` decides; without one, the ratio does."""
    async with receiver() as here:
        telemetry = exporting(world.metrics, endpoint=here.url, metrics=False, sampling_ratio=0)
        app = build_app(world.services, tracing=telemetry.tracing)
        for flags in ("-00", "-01"):
            await world.call("GET", "/nowhere", app=app, headers={"traceparent": TRACEPARENT[:-3] + flags})
        await world.call("GET", "/nowhere", app=app)
        await stop(telemetry)
        assert len(here.spans) == 1


async def test_a_streams_span_ends_when_the_stream_is_open() -> None:
    """A span of ten minutes for each of 10,000 streams would tell nothing and take memory."""
    async with receiver() as here:
        telemetry = exporting(RelayMetrics(), endpoint=here.url, metrics=False)
        seen = []

        async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            seen.append(telemetry.tracing.headers())

        await call_asgi(Traced(app, telemetry.tracing, []), "GET", "/api/v2/client/stream", b"", {})
        await stop(telemetry)
        assert seen == [{}]
        assert attributes(here.span("GET"))["http.response.status_code"] == 200


async def test_a_failure_is_told_by_its_kind_alone() -> None:
    """The text of an exception may hold what a caller sent; a span has the name of its class."""
    async with receiver() as here:
        telemetry = exporting(RelayMetrics(), endpoint=here.url, metrics=False)

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            message = "hal_server_topsecret"
            raise ValueError(message)

        with pytest.raises(ValueError, match="topsecret"):
            await call_asgi(Traced(app, telemetry.tracing, []), "GET", "/", b"", {})
        await stop(telemetry)
        assert here.span("GET").status.message == "ValueError"
        assert b"topsecret" not in here.bodies


async def test_what_goes_upstream_carries_the_trace(tmp_path: Path) -> None:
    """A batch of events and a kill are spans, and the authority is told which; the outcome is noted."""
    async with receiver() as here:
        telemetry = exporting(RelayMetrics(), endpoint=here.url, metrics=False)
        async with test_forward.relaying(tmp_path / "spool") as relay:
            relay.forwarder._tracing = telemetry.tracing
            await relay.spool.append([b'{"a":1}', b'{"b":2}'])
            await relay.steps()
            sent_events = relay.authority.headers[0]["traceparent"]
        async with test_kill_forward.way(tmp_path) as way:
            way.forwarder._tracing = telemetry.tracing
            await way.edge.kills.kill(ORDER)
            await way.attempt()
            sent_kill = way.authority.headers[0]["traceparent"]
        await stop(telemetry)
        events, kill = here.span("forward events"), here.span("forward kill")
        assert attributes(events) == {"halyard.records": 2, "halyard.outcome": "confirmed"}
        assert attributes(kill) == {"halyard.outcome": "confirmed"}
        for span, header in ((events, sent_events), (kill, sent_kill)):
            assert header.startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")


async def test_applying_a_configuration_is_a_span() -> None:
    """With what kind of message it was."""
    async with receiver() as here:
        telemetry = exporting(RelayMetrics(), endpoint=here.url, metrics=False)
        clock = FakeClock()
        inbox = Inbox(Store(clock), clock, Backoff(), lambda: 1.0, telemetry.tracing)
        frames = test_follow.snapshot(test_follow.FIRST) + test_follow.changes(test_follow.FIRST, test_follow.SECOND)
        for event in SseParser().feed(frames):
            await inbox.take(event)
        await stop(telemetry)
        assert [attributes(span) for span in here.spans if span.name == "apply configuration"] == [
            {"halyard.message": "snapshot"},
            {"halyard.message": "changes"},
        ]


async def test_every_metric_is_exported() -> None:
    """All families of /metrics that have samples arrive with their values, those of the process included."""
    metrics = RelayMetrics()
    metrics.watch_process()
    metrics.requests.add("ofrep", "200", n=3)
    metrics.spool_bytes.read_value_from(lambda: 17)
    for value in (0.004, 0.02, 0.02, 60):
        metrics.change_latency.observe(value)
    async with receiver() as here:
        telemetry = exporting(metrics, endpoint=here.url, traces=False, service_name="flags")
        await stop(telemetry)
        assert set(here.metrics) == {family.name for family in metrics.registry.collect() if family.samples} - {
            "halyard_relay_telemetry_exports"  # its first sample is this very export
        }
        counted = here.metrics["halyard_relay_requests"].sum
        assert (counted.is_monotonic, counted.aggregation_temporality) == (True, 2)
        assert [(attributes(each), each.as_double) for each in counted.data_points] == [
            ({"route": "ofrep", "status": "200"}, 3)
        ]
        gauge = here.metrics["halyard_relay_spool_bytes"]
        assert (gauge.unit, gauge.gauge.data_points[0].as_double) == ("By", 17)
        (point,) = here.metrics["halyard_relay_change_latency_seconds"].histogram.data_points
        assert (point.count, point.sum) == (4, pytest.approx(60.044))
        found = dict(zip((*point.explicit_bounds, math.inf), point.bucket_counts, strict=True))
        assert {bound: count for bound, count in found.items() if count} == {0.005: 1, 0.025: 2, math.inf: 1}
        assert not point.HasField("min")
        assert here.resource["service.name"] == "flags"
        assert metrics.telemetry_exports.value("metrics", "exported") == 1


async def test_a_relay_does_not_mind_a_receiver_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are answered; the failure is counted, and said once with its reason, by us alone."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    caplog.set_level(logging.INFO)
    telemetry = exporting(world.metrics, endpoint="http://127.0.0.1:9")
    app = build_app(world.services, tracing=telemetry.tracing)
    for _ in range(5_000):
        assert (await world.call("GET", "/nowhere", app=app)).status == 404
    await stop(telemetry)
    assert world.metrics.telemetry_exports.value("traces", "failed") > 1
    assert world.metrics.telemetry_exports.value("metrics", "failed") == 1
    said = [record for record in caplog.records if record.name.startswith(("opentelemetry", "relay.telemetry"))]
    assert {(record.name, vars(record)["signal"]) for record in said} == {
        ("relay.telemetry_otel", "traces"),
        ("relay.telemetry_otel", "metrics"),
    }
    assert len(said) == 2
    assert "Failed to export" in vars(said[0])["reason"]


def test_without_the_packages_a_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint that nothing could be sent to is an error, not a silence; without an endpoint nothing is needed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    check(Otel())
    with pytest.raises(BadSettings) as refused:
        check(Otel(endpoint="http://collector:4318"))
    assert refused.value.problems == (MISSING,)


def test_nothing_of_it_is_loaded_unless_it_is_configured() -> None:
    """A relay without an endpoint pays neither time nor memory; importing its program shows what it loads."""
    code = "import sys, relay.__main__; print([each for each in sys.modules if each.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
    assert start(Otel(), RelayMetrics(), "relay-1") is None


def test_not_tracing_costs_nothing_and_does_nothing() -> None:
    """The same calls lead nowhere, and no header is added to a request."""
    with NO_TRACING.span("x", {"a": 1}, kind="client", caller={"traceparent": TRACEPARENT}) as span:
        span.note("b", 2)
        span.fail("why")
        assert NO_TRACING.headers() == {}


@pytest.mark.parametrize(
    ("text", "headers"),
    [("a=b", {"a": "b"}), ("a=b, c-d = e=f ", {"a": "b", "c-d": "e=f"}), (None, {})],
)
def test_headers_are_pairs(text: Any, headers: dict[str, str]) -> None:
    """As in OTEL_EXPORTER_OTLP_HEADERS."""
    assert otel_headers(Otel.model_validate({"headers": text})) == headers


@pytest.mark.parametrize("text", ["no-pair", "a=b,,c=d", "=value", "a b=c", "a=b\n"])
def test_headers_that_are_none_are_refused_without_being_shown(text: str) -> None:
    """The problem names the variable, and holds nothing of a secret."""
    with pytest.raises(BadSettings) as refused:
        load(Source(environ={"HALYARD_RELAY_OTEL__HEADERS": text}))
    assert refused.value.problems == ("HALYARD_RELAY_OTEL__HEADERS: must be name=value pairs, separated by commas",)
