"""`make bench`: what Halyard does on this machine, in one run, against a reference in the same run.

Parts:
    engine       nanoseconds per flag in this process, all flags and one alone, compiled beside interpreted, at 10 to
                 5,000 flags with simple and with heavy rules; what compiling costs
    evaluation   one OFREP evaluation over keep-alive connections, CPU per request read from /proc, beside nginx
                 answering the same bytes with `return 200` (both pinned to one core, the load to the other)
    change       a flag toggled through the API -> the relay answers the new value, and an open client stream has its
                 patch: times of 200 toggles, one at a time
    writes       flags toggled through the API per second on SQLite with synchronous=FULL, over one keep-alive
                 connection and over eight, beside bare commits of one row on the same disk
    intake       durable `track` calls of one event each from 64 connections

What cannot run here (no wrk, no nginx) is left out with the reason printed. At the end the figures are held against
their targets in a table. `--keep` writes them to tests/bench/results/, one file per commit; the newest file there is
what the table shows as "before".
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.bench import results as kept
from tests.bench.engine import bench_engine
from tests.bench.evaluation import bench_evaluation
from tests.bench.measure import Figures
from tests.bench.services import bench_change, bench_intake
from tests.bench.table import table
from tests.bench.writes import bench_writes
from tests.faults.pair import Pair


async def _with_pair(bench: Callable[[Pair], Awaitable[Figures]]) -> Figures:
    """Run a part on a new demo installation, so that no part finds what another one left."""
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            return await bench(pair)


def _on_pair(bench: Callable[[Pair], Awaitable[Figures]]) -> Callable[[], Figures]:
    return lambda: asyncio.run(_with_pair(bench))


PARTS: Final[dict[str, Callable[[], Figures]]] = {
    "engine": bench_engine,
    "evaluation": _on_pair(bench_evaluation),
    "change": _on_pair(bench_change),
    "writes": _on_pair(bench_writes),
    "intake": _on_pair(bench_intake),
}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="run just this part (repeatable)")
    parser.add_argument("--keep", action="store_true", help="write the figures to tests/bench/results/")
    options = parser.parse_args()
    before = kept.latest()
    figures = kept.heading()
    for name in options.only or PARTS:
        figures[name] = PARTS[name]()
        _say(f"{name}: {json.dumps(figures[name], indent=2)}")
    _say(f"\n{figures['machine']}, Python {figures['python']}, commit {figures['commit']}\n\n{table(figures, before)}")
    if options.keep:
        _say(f"\nkept in {kept.keep(figures)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
