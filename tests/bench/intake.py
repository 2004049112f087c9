"""Events taken in per second, on disk before the answer and in memory only, alternated on two relays in one run.

wrk sends `track` calls of 1, 10 and 100 events, each with an id of its own, over 64 connections from the client's core.
The relay that is measured has the server's core to itself, for the other one is stopped meanwhile; it forwards as it
always does, and the upstream takes that on the client's core.
Run it alone with `python -m tests.bench.intake`.
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.measure import CLIENT_CORE, CONNECTIONS, SERVER_CORE, Figures, cpu_seconds, missing, pin, spread
from tests.faults.pair import Pair
from tests.stack import Process, free_port, until

ROUNDS = 3
SECONDS = 2
SIZES = (1, 10, 100)
SYNCHRONISATIONS = 200
SETTLE_MS = 200

# Ids are unique over runs, connections and calls: wrk has one thread here. Each connection waits before its first call
# until all are accepted: a busy uvloop accepts one per turn, and that wait would be told as the last percentile.
SCRIPT = """
local run, size, number, waits = "%(run)s", %(size)d, 0, %(connections)d
local headers = {["Authorization"] = "Bearer %(key)s", ["Content-Type"] = "application/json"}
request = function()
  local events = {}
  for i = 1, size do
    number = number + 1
    events[i] = string.format('{"id":"%%s-%%d","type":"track","name":"purchase","unit":"user-%%d","value":12.5}', run,
      number, number %% 10000)
  end
  return wrk.format("POST", "/api/v2/track", headers, '{"events":[' .. table.concat(events, ",") .. ']}')
end
delay = function()
  waits = waits - 1
  return waits >= 0 and %(settle_ms)d or 0
end
done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format('\\nFIGURES {"requests":%%d,"us":%%d,"p50":%%d,"p99":%%d,"max":%%d,"bad":%%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def _load(url: str, key: str, pid: int, run: str, size: int) -> Mapping[str, float]:
    """Send calls of so many events; return what wrk saw, and the CPU that the relay spent."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(SCRIPT % {"run": run, "size": size, "key": key, "connections": CONNECTIONS, "settle_ms": SETTLE_MS})
        file.flush()
        core = ["taskset", "-c", str(CLIENT_CORE)] if (os.cpu_count() or 1) > 1 else []
        command = [*core, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", file.name, url]
        before = cpu_seconds(pid)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = cpu_seconds(pid) - before
    told = json.loads(next(line for line in out.splitlines() if line.startswith("FIGURES ")).partition(" ")[2])
    return {**told, "cpu_us": spent / max(1, told["requests"] * size) * 1e6}


@contextmanager
def _alone(others: Iterable[int]) -> Iterator[None]:
    """Stop the other processes while the block runs."""
    stopped = list(others)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def _median(rounds: list[Mapping[str, float]], size: int) -> Figures:
    def middle(name: str) -> float:
        return statistics.median(round_[name] for round_ in rounds)

    per_s = statistics.median(round_["requests"] * size / (round_["us"] / 1e6 - SETTLE_MS / 1e3) for round_ in rounds)
    return {
        "events_per_s": round(per_s),
        "p50_ms": round(middle("p50") / 1_000, 2),
        "p99_ms": round(middle("p99") / 1_000, 2),
        "max_ms": round(max(round_["max"] for round_ in rounds) / 1_000, 2),
        "cpu_us_per_event": round(middle("cpu_us"), 1),
        "bad": round(sum(round_["bad"] for round_ in rounds)),
    }


def bare_synchronisation(directory: Path) -> Figures:
    """Return how long the disk takes for 4 KiB and fdatasync: no durable answer can be faster."""
    times = []
    descriptor = os.open(directory / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(SYNCHRONISATIONS):
        start = time.perf_counter()
        os.write(descriptor, b"x" * 4_096)
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - start) * 1_000)
    os.close(descriptor)
    return spread(times)


async def _memory_relay(pair: Pair) -> tuple[Process, str]:
    """Start a second relay of the installation that acknowledges from memory; return it with its address."""
    port, admin = free_port(), free_port()
    process = pair.start(
        "halyard-relay", "--upstream-url", pair.upstream_url, "--upstream-key-file", str(pair.data_dir / "relay.key"),
        "--port", str(port), "--admin-port", str(admin), "--data-dir", str(pair.data_dir / "relay-memory"),
        env={"HALYARD_RELAY_EVENTS__DURABILITY": "memory"},
    )  # fmt: skip

    async def ready() -> bool:
        assert pair.session is not None
        async with pair.session.get(f"http://127.0.0.1:{admin}/readyz") as answer:
            return answer.status == 200 and not (await answer.json())["degraded"]

    await until("the relay in memory mode is ready", ready)
    return process, f"http://127.0.0.1:{port}"


async def bench_intake(pair: Pair) -> Figures:
    """Events per second, time until accepted and CPU per event: durable beside memory, by events per call."""
    if left_out := missing("wrk", "taskset"):
        return left_out
    assert pair.relay_process is not None
    assert pair.upstream_process is not None
    memory, memory_url = await _memory_relay(pair)
    relays = {
        "durable": (pair.relay_process.popen.pid, pair.relay_url),
        "memory": (memory.popen.pid, memory_url),
    }
    pin(pair.upstream_process.popen.pid, CLIENT_CORE)
    for pid, _ in relays.values():
        pin(pid, SERVER_CORE)
    key = pair.demo["server_key"]
    figures: dict[str, Any] = {"fdatasync": bare_synchronisation(pair.data_dir)}
    for size in SIZES:
        seen: dict[str, list[Mapping[str, float]]] = {mode: [] for mode in relays}
        for round_ in range(ROUNDS):
            for mode, (relay_pid, url) in relays.items():
                run = f"{mode}-{size}-{round_}"
                with _alone(pid for pid, _ in relays.values() if pid != relay_pid):
                    seen[mode].append(await asyncio.to_thread(_load, url, key, relay_pid, run, size))
        found = {mode: _median(rounds, size) for mode, rounds in seen.items()}
        found["durable"]["ratio_to_memory"] = round(
            found["durable"]["events_per_s"] / found["memory"]["events_per_s"], 3
        )
        figures[f"of_{size}"] = found
    single = figures["of_1"]["durable"]
    return {
        "events_per_s": single["events_per_s"],
        "accept": {name: single[name] for name in ("p50_ms", "p99_ms", "max_ms")},
        **figures,
    }


async def _main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            sys.stdout.write(json.dumps(await bench_intake(pair), indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(_main())
