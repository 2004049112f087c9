"""A real OTLP/HTTP receiver on loopback that decodes what it is sent with the published protobuf messages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from relay.metrics import RelayMetrics
from relay.settings import Otel
from relay.telemetry import Telemetry, start


@dataclass
class Receiver:
    """What has arrived: raw bodies, spans, metrics by name, the attributes of the sender, and the headers."""

    url: str = ""
    bodies: bytes = b""
    spans: list[Any] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def traces(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415 - of an extra
            ExportTraceServiceRequest,
        )

        for group in ExportTraceServiceRequest.FromString(await self._body(request)).resource_spans:
            self._note(group.resource)
            self.spans += [span for scope in group.scope_spans for span in scope.spans]
        return web.Response(content_type="application/x-protobuf")

    async def take_metrics(self, request: web.Request) -> web.Response:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415 - of an extra
            ExportMetricsServiceRequest,
        )

        for group in ExportMetricsServiceRequest.FromString(await self._body(request)).resource_metrics:
            self._note(group.resource)
            self.metrics |= {metric.name: metric for scope in group.scope_metrics for metric in scope.metrics}
        return web.Response(content_type="application/x-protobuf")

    async def _body(self, request: web.Request) -> bytes:
        body = await request.read()
        self.headers.append(dict(request.headers))
        self.bodies += body
        return body

    def _note(self, resource: Any) -> None:
        self.resource = {each.key: each.value.string_value for each in resource.attributes}

    def span(self, name: str) -> Any:
        (found,) = [span for span in self.spans if span.name == name]
        return found


def attributes(span: Any) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Receive for as long as the context lasts."""
    made = Receiver()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/v1/traces", made.traces)
    app.router.add_post("/v1/metrics", made.take_metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def exporting(metrics: RelayMetrics, /, **settings: Any) -> Telemetry:
    """Start exporting; the last export comes with the end, so nothing has to be waited for."""
    made = start(Otel.model_validate({"interval_s": 3_600, **settings}), metrics, "relay-1")
    assert made is not None
    return made


async def stop(telemetry: Telemetry) -> None:
    """End exporting, while the receiver's loop turns."""
    await asyncio.to_thread(telemetry.stop)
