"""The targets that Halyard sets itself, and the table that holds a run's figures against them.

A target names its figure by part and path: what a run did not produce shows as "not measured", never as met.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.measure import Figures

_HOLDS: Final = {"≥": operator.ge, "≤": operator.le}


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table: `path` leads to the figure inside the results, `bound` is what it should be."""

    what: str
    path: str
    relation: str
    bound: float
    unit: str

    def figure(self, results: Mapping[str, Any]) -> float | None:
        """Return the figure, None if this run has none."""
        found: Any = results
        for name in self.path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else float(found)

    def is_met(self, figure: float) -> bool:
        """Tell whether a figure is as it should be."""
        return bool(_HOLDS[self.relation](figure, self.bound))


TARGETS: Final = (
    Target("single OFREP evaluation, new context, CPU", "evaluation.single.new_context_ratio", "≥", 0.5, "x nginx"),
    Target("single OFREP evaluation, same request, CPU", "evaluation.single.cached_ratio", "≥", 0.7, "x nginx"),
    Target("bulk of 350 flags, new context, CPU", "evaluation.bulk.new_context_cpu_us", "≤", 90, "µs"),
    Target("bulk of 350 flags, same request, CPU", "evaluation.bulk.cached_ratio", "≥", 0.5, "x nginx"),
    Target("compiled evaluation, 1,000 heavy flags", "engine.heavy.1000.ratio", "≥", 3, "x interpreter"),
    Target("compiled evaluation of one heavy flag", "engine.heavy.1000.compiled_ns_per_flag", "≤", 150, "ns"),
    Target("10,000 client streams: resident memory in all", "fanout.relay_rss_mib.after", "≤", 160, "MiB"),
    Target("a change to 10,000 streams, p99", "fanout.ratio_p99", "≤", 1.15, "x nchan"),
    Target("what 200 stuck clients add to the others' p99", "stuck.moved", "≤", 0.2, "of it"),
    Target("the last stuck client is gone after", "stuck.last_gone_s", "≤", 11, "s"),
    Target("10,000 streams reconnect: all served after", "storm.served_s", "≤", 20, "s"),
    Target("10,000 streams reconnect: evaluation p99", "storm.ratio_p99", "≤", 2, "x alone"),
    Target("100 flags: resident memory, idle", "small.rss_mib", "≤", 60, "MiB"),
    Target("100 flags: start to ready", "small.ready_from_upstream_s", "≤", 1, "s"),
    Target("10,000 flags: resident memory, idle", "large.rss_mib", "≤", 180, "MiB"),
    Target("10,000 flags: start to ready", "large.ready_from_upstream_s", "≤", 5, "s"),
    Target("10,000 flags, one changes: longest wait", "large.one_flag_changes.max_ms", "≤", 20, "ms"),
    Target("10,000 flags, a segment of 5,000 changes: longest wait", "large.segment_changes.max_ms", "≤", 20, "ms"),
    Target("10,000 flags, all change: longest wait", "large.every_flag_changes.max_ms", "≤", 20, "ms"),
    Target("10,000 flags, read from the file: longest wait", "large.start_from_file.max_ms", "≤", 20, "ms"),
    Target("write → evaluated at the last of ten relays, p99", "fleet.sent.last.p99_ms", "≤", 100, "ms"),
    Target("write → client's stream has the patch, p99", "change.client_patched.p99_ms", "≤", 200, "ms"),
    Target("flag writes on SQLite, synchronous=FULL, 8 connections", "writes.per_s", "≥", 200, "/s"),
    Target("durable events", "intake.events_per_s", "≥", 5_000, "/s"),
    Target("durable events, acknowledged, p99", "intake.accept.p99_ms", "≤", 50, "ms"),
)


def table(results: Figures, before: Figures | None = None) -> str:
    """Return the table in Markdown; with the figures of an earlier run beside it, where there is one."""
    heads = ["what", "target", "measured", "met", *(["before"] if before else [])]
    lines = [heads, ["---"] * len(heads)]
    for target in TARGETS:
        figure = target.figure(results)
        met = "not measured" if figure is None else "yes" if target.is_met(figure) else "**no**"
        line = [target.what, f"{target.relation} {target.bound:,g} {target.unit}", _written(figure, target.unit), met]
        lines.append([*line, *([_written(target.figure(before), target.unit)] if before else [])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _written(figure: float | None, unit: str) -> str:
    return "" if figure is None else f"{figure:,g} {unit}"
