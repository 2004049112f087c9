"""OpenTelemetry, where it is configured: spans in batches and all metrics in intervals, over OTLP/HTTP.

Everything is sent by threads of its own. A span that ends is put into a bounded queue, so no receiver, however slow,
is waited for; what cannot be sent is dropped and counted, and said once until it works again. Only
`relay.telemetry.start` imports this module.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from relay.metrics import RelayMetrics
from relay.settings import Otel, otel_headers
from relay.telemetry import Kind, Span, Value
from relay.telemetry_metrics import translate
from relay.version import VERSION

logger = logging.getLogger(__name__)

STOP_S: Final = 2.0
"""How long the end of the process waits for the last export."""
KINDS: Final = {"internal": SpanKind.INTERNAL, "server": SpanKind.SERVER, "client": SpanKind.CLIENT}
PROPAGATOR: Final = TraceContextTextMapPropagator()
# Each of these says of every single export that it failed.
TALKATIVE: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)


class Exporting:
    """What runs while an endpoint is configured. See `relay.telemetry.start` for the arguments."""

    def __init__(self, settings: Otel, metrics: RelayMetrics, instance: str) -> None:
        base, headers = settings.endpoint, otel_headers(settings)
        resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": VERSION,
                # Workers of one relay have counters of their own.
                "service.instance.id": f"{instance}/{os.getpid()}",
            }
        )
        self._said = _LastSaid()
        for name in TALKATIVE:
            logging.getLogger(name).addFilter(self._said)
        outcomes = _Outcomes(metrics, f"{base}", self._said)
        sampler = ParentBased(TraceIdRatioBased(settings.sampling_ratio))
        self._provider = TracerProvider(resource=resource, sampler=sampler, shutdown_on_exit=False)
        spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", headers=headers)
        if settings.traces:
            self._provider.add_span_processor(
                BatchSpanProcessor(_CountedSpans(spans, outcomes), max_queue_size=settings.max_spans)
            )
        self.tracing = _Tracing(self._provider.get_tracer("halyard", VERSION))
        self._pusher = _Pusher(metrics, OTLPMetricExporter(endpoint=f"{base}/v1/metrics", headers=headers), resource)
        if settings.metrics:
            self._pusher.begin(settings.interval_s, outcomes)

    def stop(self) -> None:
        """Export what waits, for two seconds at most."""
        last = threading.Thread(target=self._end, name="telemetry end", daemon=True)
        last.start()
        last.join(STOP_S)
        for name in TALKATIVE:
            logging.getLogger(name).removeFilter(self._said)

    def _end(self) -> None:
        self._pusher.end()
        self._provider.shutdown()


class _OtelSpan:
    def __init__(self, span: SdkSpan) -> None:
        self._span = span

    def note(self, name: str, value: Value) -> None:
        self._span.set_attribute(name, value)

    def fail(self, reason: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR, reason))


class _Tracing:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, Value] | None = None,
        *,
        kind: Kind = "internal",
        caller: Mapping[str, str] | None = None,
    ) -> Iterator[Span]:
        context = None if caller is None else PROPAGATOR.extract(caller, Context())
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=KINDS[kind],
            attributes=attributes,
            # The text of an exception may hold what a caller sent.
            record_exception=False,
            set_status_on_exception=False,
        ) as found:
            span = _OtelSpan(found)
            try:
                yield span
            except asyncio.CancelledError:
                raise
            except Exception as error:
                span.fail(type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        PROPAGATOR.inject(headers)
        return headers


class _LastSaid(logging.Filter):
    """Keeps the exporters' complaints from the log, and the last of them for the one line that is logged.

    Two, as the last one only says that there was no further attempt, and the one before it why.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: deque[str] = deque(maxlen=2)

    @property
    def text(self) -> str:
        return " ".join(tuple(self._last))

    def filter(self, record: logging.LogRecord) -> bool:
        self._last.append(record.getMessage())
        return False


class _Outcomes:
    """Counts exports, and says when they begin to fail and when they work again."""

    def __init__(self, metrics: RelayMetrics, endpoint: str, said: _LastSaid) -> None:
        self._counts = metrics.telemetry_exports
        self._endpoint = endpoint
        self._said = said
        self._failing: set[str] = set()

    def note(self, signal: str, *, is_exported: bool) -> None:
        # Each signal has one thread, so no two of them touch one count.
        self._counts.add(signal, "exported" if is_exported else "failed")
        if is_exported and signal in self._failing:
            self._failing.discard(signal)
            logger.info("telemetry is exported again", extra={"signal": signal, "endpoint": self._endpoint})
        elif not is_exported and signal not in self._failing:
            self._failing.add(signal)
            logger.warning(
                "telemetry cannot be exported; it is dropped until that works again",
                extra={"signal": signal, "endpoint": self._endpoint, "reason": self._said.text},
            )


class _CountedSpans(SpanExporter):
    def __init__(self, inner: OTLPSpanExporter, outcomes: _Outcomes) -> None:
        self._inner = inner
        self._outcomes = outcomes

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        self._outcomes.note("traces", is_exported=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]


class _Pusher:
    """Sends all metrics in intervals, and once more at the end."""

    def __init__(self, metrics: RelayMetrics, exporter: OTLPMetricExporter, resource: Resource) -> None:
        self._metrics = metrics
        self._exporter = exporter
        self._resource = resource
        self._started_ns = time.time_ns()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, interval_s: float, outcomes: _Outcomes) -> None:
        def run() -> None:
            while not self._is_over.wait(interval_s):
                outcomes.note("metrics", is_exported=self._push())
            outcomes.note("metrics", is_exported=self._push())

        self._thread = threading.Thread(target=run, name="telemetry metrics", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
        self._exporter.shutdown()

    def _push(self) -> bool:
        try:
            families = self._metrics.registry.collect()
            data = translate(families, self._resource, self._started_ns, time.time_ns())
            return self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception:
            logger.exception("the metrics could not be read or exported")
            return False
