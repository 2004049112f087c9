"""Translates Prometheus families into OTLP metrics, one to one.

A counter becomes a monotonic cumulative sum without `_total` (which Prometheus puts back), a gauge a gauge, a histogram
a histogram with the same bounds. Only reads; imported only where OpenTelemetry is used.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import groupby, pairwise
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from relay.version import VERSION

CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
UNITS: Final = {"seconds": "s", "bytes": "By"}


def translate(families: Iterable[Family], resource: Resource, started_ns: int, now_ns: int) -> MetricsData:
    """Return the families as OTLP has them; a family without samples is left out."""
    metrics = [_metric(family, started_ns, now_ns) for family in families if family.samples]
    scope = ScopeMetrics(InstrumentationScope("halyard", VERSION), metrics, "")
    return MetricsData([ResourceMetrics(resource, [scope], "")])


def _metric(family: Family, started_ns: int, now_ns: int) -> Metric:
    unit = UNITS.get(family.name.rpartition("_")[2], "")
    return Metric(family.name, family.documentation, unit, _data(family, started_ns, now_ns))


def _data(family: Family, started_ns: int, now_ns: int) -> Sum | Gauge | Histogram:
    if family.type == "histogram":
        return Histogram(_histogram_points(family, started_ns, now_ns), CUMULATIVE)
    points = [
        NumberDataPoint(sample.labels, started_ns, now_ns, float(sample.value))
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    if family.type == "counter":
        return Sum(points, CUMULATIVE, is_monotonic=True)
    return Gauge(points)


def _histogram_points(family: Family, started_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    def series(sample: Sample) -> list[tuple[str, str]]:
        return sorted((name, value) for name, value in sample.labels.items() if name != "le")

    points = []
    for labels, samples in groupby(sorted(family.samples, key=series), key=series):
        found = list(samples)
        buckets = sorted((float(each.labels["le"]), each.value) for each in found if each.name.endswith("_bucket"))
        total = sum(each.value for each in found if each.name.endswith("_sum"))
        points.append(_histogram_point(dict(labels), buckets, total, (started_ns, now_ns)))
    return points


def _histogram_point(
    labels: Mapping[str, str], buckets: list[tuple[float, float]], total: float, times: tuple[int, int]
) -> HistogramDataPoint:
    # Prometheus adds the buckets up, OTLP does not.
    counts = [round(now - before) for (_, before), (_, now) in pairwise([(0.0, 0.0), *buckets])]
    unknown: Any = None  # nobody keeps the smallest and the largest
    return HistogramDataPoint(
        attributes=labels,
        start_time_unix_nano=times[0],
        time_unix_nano=times[1],
        count=sum(counts),
        sum=total,
        bucket_counts=counts,
        explicit_bounds=[bound for bound, _ in buckets if not math.isinf(bound)],
        min=unknown,
        max=unknown,
    )
