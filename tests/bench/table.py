"""The targets that Halyard sets itself, and the table that holds a run's figures against them.

A target names its figure by part and path: what a run did not produce shows as "not measured", never as met.
"""

import operator
from collections.abc import Iterator, Mapping
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
    Target("compiled evaluation, 1,000 heavy flags, against the interpreter", "engine.heavy.1000.ratio", "≥", 3, "x"),
    Target("compiled evaluation of one heavy flag", "engine.heavy.1000.compiled_ns_per_flag", "≤", 150, "ns"),
    Target("change: write sent → client's stream has the patch, p99", "change.client_patched.p99_ms", "≤", 200, "ms"),
    Target("flag writes on SQLite, synchronous=FULL, 8 connections", "writes.per_s", "≥", 200, "/s"),
    Target("durable events", "intake.events_per_s", "≥", 5_000, "/s"),
    Target("durable events, acknowledged, p99", "intake.accept.p99_ms", "≤", 50, "ms"),
)


def ratios(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every figure of a run whose name says that it is a ratio: these can be compared between machines."""
    for name, value in results.items():
        if isinstance(value, Mapping):
            yield from ratios(value, f"{prefix}{name}.")
        elif "ratio" in name and isinstance(value, int | float):
            yield prefix + name, float(value)


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
