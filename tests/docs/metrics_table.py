"""Writes the tables of docs/metrics.md from the metrics themselves: `python -m tests.docs.metrics_table`."""

import re
from collections.abc import Iterator
from pathlib import Path

from relay.metrics import Distribution, Gauge, OwnedCount, RelayMetrics, Tally
from relay.workers.figures import CombinedMetrics

PAGE = Path(__file__).parents[2] / "docs/metrics.md"
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(\n<!-- end -->)", re.DOTALL)

Row = tuple[str, str, str, str]


def rows(service: str) -> Iterator[Row]:
    """Yield name, kind, labels and meaning of every family, as a scrape names them."""
    metrics = CombinedMetrics() if service == "relay" else RelayMetrics(service)
    ours: set[str] = set()
    for member in vars(metrics).values():
        if isinstance(member, Tally | OwnedCount):
            yield f"{member.name}_total", "counter", ", ".join(member.labels), member.documentation
        elif isinstance(member, Gauge):
            yield member.name, "gauge", ", ".join(member.labels), member.documentation
        elif isinstance(member, Distribution):
            yield member.name, "histogram", "", member.documentation
        else:
            continue
        ours.add(member.name)
    metrics.watch_process()
    for family in metrics.registry.collect():
        if family.name not in ours:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found = sorted({label for sample in family.samples for label in sample.labels})
            yield name, family.type, ", ".join(found), family.documentation.rstrip(".") + "."


def with_tables(page: str) -> str:
    """Return the page with its tables renewed."""

    def table(found: re.Match[str]) -> str:
        lines = [f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in rows(found[2])]
        return found[1] + "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *lines]) + found[3]

    return PLACE.sub(table, page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
