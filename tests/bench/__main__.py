"""`make bench`: what Halyard does on this machine, in one run, against a reference in the same run.

Parts:
    engine       nanoseconds per flag in this process, all flags and one alone, compiled beside interpreted, at 10 to
                 5,000 flags with simple and with heavy rules; what compiling costs
    evaluation   one flag and 350 flags over keep-alive connections, with the same and with new contexts: CPU per
                 request read from /proc, beside nginx answering the same bytes (both pinned to one core, the load to
                 the other)
    fanout       10,000 client streams: one change to all of them, beside nginx with nchan; memory
    stuck        the same with 200 clients that take nothing or next to nothing
    storm        the 10,000 reconnecting at once, beside a steady load of evaluations
    small        a relay with 100 flags: memory, start to ready, waits while its configuration changes
    large        the same with 10,000 flags
    fleet        20 writes a second at the upstream until ten relays evaluate them, beside forty followers
    change       a flag toggled through the API -> the relay answers the new value, and an open client stream has its
                 patch: times of 200 toggles, one at a time
    writes       flags toggled through the API per second on SQLite with synchronous=FULL, over one keep-alive
                 connection and over eight, beside bare commits of one row on the same disk
    intake       durable `track` calls of 1, 10 and 100 events, beside the memory mode
    workers      memory and start of a relay with 1, 2 and 4 workers

What cannot run here (no wrk, no nginx, no nchan) is left out with the reason printed. At the end the figures are held
against their targets in a table. `--keep` writes them to tests/bench/results/, one file per commit; the newest file
there is what the table shows as "before".
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import results as kept
from tests.bench.config import bench_config
from tests.bench.engine import bench_engine
from tests.bench.evaluation import bench_evaluation
from tests.bench.fleet import bench_fleet
from tests.bench.intake import bench_intake
from tests.bench.measure import CLIENT_CORE, Figures
from tests.bench.services import bench_change
from tests.bench.streams import bench_streams
from tests.bench.table import table
from tests.bench.workers import bench_workers
from tests.bench.writes import bench_writes
from tests.faults.pair import Pair


async def _with_pair(bench: Callable[[Pair], Awaitable[Figures]]) -> Figures:
    """Run a part on a new demo installation, so that no part finds what another one left."""
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            return await bench(pair)


def _on_pair(bench: Callable[[Pair], Awaitable[Figures]]) -> Callable[[], Figures]:
    return lambda: asyncio.run(_with_pair(bench))


async def _streams(part: str, pair: Pair) -> Figures:
    everywhere = os.sched_getaffinity(0)
    if len(everywhere) > 1:
        os.sched_setaffinity(0, {CLIENT_CORE})
    try:
        figures: Figures = (await bench_streams(pair, part))[part]
        return figures
    finally:
        os.sched_setaffinity(0, everywhere)


PARTS: Final[dict[str, Callable[[], Figures]]] = {
    "engine": bench_engine,
    "evaluation": _on_pair(bench_evaluation),
    "fanout": _on_pair(partial(_streams, "fanout")),
    "stuck": _on_pair(partial(_streams, "stuck")),
    "storm": _on_pair(partial(_streams, "storm")),
    "small": lambda: asyncio.run(bench_config(100)),
    "large": lambda: asyncio.run(bench_config(10_000)),
    "fleet": lambda: asyncio.run(bench_fleet()),
    "change": _on_pair(bench_change),
    "writes": _on_pair(bench_writes),
    "intake": _on_pair(bench_intake),
    "workers": lambda: asyncio.run(bench_workers()),
}


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="run just this part (repeatable)")
    parser.add_argument("--keep", action="store_true", help="write the figures to tests/bench/results/")
    parser.add_argument("--table", action="store_true", help="measure nothing, show the figures kept last")
    options = parser.parse_args()
    before = kept.latest()
    if options.table:
        _show(before or {}, None)
        return
    figures = kept.heading()
    for name in options.only or PARTS:
        figures[name] = PARTS[name]()
        _say(f"{name}: {json.dumps(figures[name], indent=2)}")
    _show(figures, before)
    if options.keep:
        _say(f"\nkept in {kept.keep(figures)}")


def _show(figures: Figures, before: Figures | None) -> None:
    of_run = ", ".join(f"{name} {figures[name]}" for name in ("machine", "python", "commit", "at") if name in figures)
    _say(f"\n{of_run}\n\n{table(figures, before)}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
