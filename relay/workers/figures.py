"""The metrics of several processes as one: taken in each, sent to worker 0, added up there.

Counters and histograms are sums, and those of a process that has ended stay in the sum, so that none ever goes down.
Gauges are sums too, but for those of which the lowest or the highest tells more. Knows families by their samples
only, so a metric that somebody adds needs nothing here unless its sum makes no sense. What is held is never changed,
only replaced, as another thread reads it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.metrics_core import Metric

from relay.metrics import Gauge, RelayMetrics

_LOWEST: Final = frozenset({"halyard_relay_config_revision"})
_HIGHEST: Final = frozenset(
    f"halyard_relay_{name}" for name in ("loop_lag_seconds", "loop_lag_max_seconds", "build_info", "memory_limit_bytes")
)

Sample = tuple[str, tuple[tuple[str, str], ...]]
"""Name and labels of one line."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process counted: by family, whether it only grows, and its samples."""

    families: Mapping[str, tuple[bool, Mapping[Sample, float]]]

    def of(self, family: str) -> Mapping[Sample, float]:
        """Return the samples of a family; none when it is not known."""
        found = self.families.get(family)
        return {} if found is None else found[1]

    def as_json(self) -> Any:
        """Return what `figures_of` reads back."""
        return {
            name: [grows, [[sample, labels, value] for (sample, labels), value in samples.items()]]
            for name, (grows, samples) in self.families.items()
        }


NONE: Final = Figures({})


def take(metrics: RelayMetrics) -> Figures:
    """Return what a process has counted until now."""
    return Figures({family.name: (family.type != "gauge", _samples(family)) for family in metrics.collect()})


def figures_of(read: Any) -> Figures:
    """Read what `Figures.as_json` gave, after its way as JSON."""
    return Figures(
        {
            name: (
                grows,
                {(sample, tuple((key, label) for key, label in labels)): value for sample, labels, value in samples},
            )
            for name, (grows, samples) in read.items()
        }
    )


def ended(before: Figures, last: Figures) -> Figures:
    """Add the last figures of a process to those of all that have ended: what only grows stays, the rest is gone."""
    families = dict(before.families)
    for name, (grows, samples) in last.families.items():
        if grows:
            families[name] = (True, _merged(sum, (before.of(name), samples)))
    return Figures(families)


class CombinedMetrics(RelayMetrics):
    """The metrics of worker 0, shown together with those of all others, and what only it knows of them."""

    def __init__(self) -> None:
        super().__init__()
        self.workers = Gauge("halyard_relay_workers", "Worker processes by what they do.", ("state",))
        self.worker_lag = Gauge(
            "halyard_relay_worker_loop_lag_seconds", "How late each worker's event loop last came round.", ("worker",)
        )
        self.worker_requests = Gauge(
            "halyard_relay_worker_requests", "Requests answered by each worker since it was started.", ("worker",)
        )
        self._others: Callable[[], Sequence[Figures]] = tuple

    def add_from(self, others: Callable[[], Sequence[Figures]]) -> None:
        """Name where the figures of the other processes are. `others` may be called from another thread."""
        self._others = others

    def collect(self) -> Iterable[Metric]:
        """Yield every family, added up over all processes."""
        others = self._others()
        for family in super().collect():
            merged = Metric(family.name, family.documentation, family.type)
            for (name, labels), value in combine(family.name, [_samples(family), *(o.of(family.name) for o in others)]):
                merged.add_sample(name, dict(labels), value)
            yield merged


def combine(family: str, parts: Iterable[Mapping[Sample, float]]) -> Iterable[tuple[Sample, float]]:
    """Return the samples of one family over all processes."""
    how: Callable[[list[float]], float] = min if family in _LOWEST else max if family in _HIGHEST else sum
    return _merged(how, parts).items()


def _merged(how: Callable[[list[float]], float], parts: Iterable[Mapping[Sample, float]]) -> dict[Sample, float]:
    values: dict[Sample, list[float]] = {}
    for part in parts:
        for sample, value in part.items():
            values.setdefault(sample, []).append(value)
    return {sample: how(found) for sample, found in values.items()}


def _samples(family: Metric) -> dict[Sample, float]:
    # Labels in their own order: `le` of a histogram's buckets comes last there, and the lines stay as they were.
    return {(each.name, tuple(each.labels.items())): each.value for each in family.samples}
