"""What a worker costs: memory of each process of a relay with 1, 2 and 4 of them, and how soon all of them serve.

The relay is a real one; its upstream is the serving part of one in this process, with one environment of 100 flags.
RSS counts what processes share once for each, PSS divides it among them: the sum of PSS is what the machine has less.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import aiohttp

from relay.clock import SystemClock
from relay.protocol.keys import Kind
from tests.bench.engine import KINDS
from tests.relay.live import Live, serving
from tests.relay.world import World
from tests.stack import free_port, until

COUNTS: Final = (1, 2, 4)
FLAGS: Final = 100
REST_S: Final = 3.0
Figures = dict[str, Any]


def memory_mib(pid: int) -> dict[str, float]:
    """Return RSS and PSS of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    found = {name.rstrip(":"): int(size) for name, size, *_ in (line.split() for line in lines[1:])}
    return {name.lower(): round(found[name] / 1024, 1) for name in ("Rss", "Pss")}


async def _ready(session: aiohttp.ClientSession, admin_url: str, pid: int, count: int) -> list[Figures] | None:
    async with session.get(f"{admin_url}/readyz") as answer:
        if answer.status != 200:
            return None
    async with session.get(f"{admin_url}/status") as answer:
        workers: list[Figures] = (await answer.json()).get("workers", [{"pid": pid, "state": "running"}])
    is_whole = len(workers) == count and all(each["state"] == "running" for each in workers)
    return workers if is_whole else None


async def _measured(live: Live, count: int) -> Figures:
    admin_url = f"http://127.0.0.1:{(admin_port := free_port())}"
    with tempfile.TemporaryDirectory() as directory:
        started = time.perf_counter()
        relay = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "halyard-relay"), "--workers", str(count), "--port", str(free_port()),
            "--admin-port", str(admin_port), "--data-dir", directory, "--upstream-url", live.url(""),
            env={**os.environ, "HALYARD_RELAY_UPSTREAM__KEY": live.world.keys[Kind.RELAY]},
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            workers = await until("every worker", lambda: _ready(live.session, admin_url, relay.pid, count))
            ready_s = time.perf_counter() - started
            await asyncio.sleep(REST_S)
            processes = [memory_mib(each["pid"]) for each in workers]
        finally:
            relay.terminate()
            await relay.wait()
    total = {name: round(sum(each[name] for each in processes), 1) for name in ("rss", "pss")}
    return {"all_serving_s": round(ready_s, 2), "processes_mib": processes, "total_mib": total}


async def bench_workers() -> dict[str, Figures]:
    """Measure each number of workers once, one after the other."""
    world = World(SystemClock())
    world.snapshot({f"flag-{number}": KINDS[("simple", "heavy")[number % 2]](number) for number in range(FLAGS)})
    async with serving(world) as live:
        return {f"{count} workers": await _measured(live, count) for count in COUNTS}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(bench_workers()), indent=2))  # noqa: T201 - what the program is for
