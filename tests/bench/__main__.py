"""`make bench`: what Halyard does on this machine, in one run, against a reference.

    engine       nanoseconds per flag in this process, all flags and one alone, compiled beside interpreted, at 10 to
                 5,000 flags with simple and with heavy rules; what compiling costs
    evaluation   one OFREP evaluation over keep-alive connections, CPU per request read from /proc, beside nginx
                 answering the same bytes with `return 200` (both pinned to core 0, the load to core 1)
    change       a flag toggled through the API -> the relay answers the new value, and an open client stream has its
                 patch: times of 200 toggles, one at a time
    writes       flags toggled through the API per second on SQLite with synchronous=FULL, over one keep-alive
                 connection and over eight, beside bare commits of one row on the same disk
    intake       durable `track` calls of one event each from 64 connections

What cannot run here (no wrk, no nginx) is left out with the reason printed. Results are written as JSON to the file
named by --out.
"""

import argparse
import asyncio
import base64
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.engine import bench_engine
from tests.bench.writes import bench_writes
from tests.faults.pair import Pair
from tests.stack import free_port, until

CONNECTIONS = 64
SECONDS = 5
TOGGLES = 200
Figures = dict[str, Any]


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and its reaped children, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[index]) for index in (11, 12)) / os.sysconf("SC_CLK_TCK")


def pin(pid: int, core: int) -> None:
    """Pin every thread of a process to one core, where there is more than one."""
    if (os.cpu_count() or 1) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def wrk(url: str, script: str, pid: int) -> Figures:
    """Load one URL; return requests per second, CPU microseconds per request, and what was not answered 2xx."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-s", file.name, url]
        before = cpu_seconds(pid)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = cpu_seconds(pid) - before
    total = int(next(line for line in out.splitlines() if "requests in" in line).split()[0])
    bad = [line.strip() for line in out.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    return {"requests_per_s": round(total / SECONDS), "cpu_us": round(spent / total * 1e6, 2), "bad": bad}


def post_script(key: str, body: str) -> str:
    """Return wrk's program for one repeated POST."""
    return (
        'wrk.method = "POST"\n'
        f"wrk.body = {json.dumps(body)}\n"
        f'wrk.headers["Authorization"] = "Bearer {key}"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )


class Nginx:
    """nginx with one worker that answers every request with the same bytes."""

    def __init__(self, directory: Path, answer: bytes) -> None:
        self.port = free_port()
        quoted = answer.decode().replace("\\", "\\\\").replace("'", "\\'")
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
            "events { worker_connections 1024; }\n"
            "http { access_log off; keepalive_requests 100000000; default_type application/json;\n"
            f" client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};\n"
            f" uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
            f" server {{ listen 127.0.0.1:{self.port}; location / {{ return 200 '{quoted}'; }} }} }}\n"
        )
        self.popen = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")])


async def bench_evaluation(pair: Pair) -> Figures:
    """CPU per OFREP evaluation beside nginx."""
    missing = [program for program in ("wrk", "nginx", "taskset") if not shutil.which(program)]
    if missing:
        return {"left_out": f"not on this machine: {', '.join(missing)}"}
    assert pair.relay_process is not None
    path = f"/ofrep/v1/evaluate/flags/{pair.demo['flag']}"
    body = json.dumps({"context": {"targetingKey": "user-1", "country": "NL", "plan": "pro"}})
    status, answer = await pair.relay().post(path, body.encode())
    assert status == 200, answer
    script = post_script(pair.demo["server_key"], body)
    relay_pid = pair.relay_process.popen.pid
    with tempfile.TemporaryDirectory() as directory:
        nginx = Nginx(Path(directory), json.dumps(answer, separators=(",", ":")).encode())
        try:
            pin(relay_pid, 0)
            pin(nginx.popen.pid, 0)
            url = f"http://127.0.0.1:{nginx.port}{path}"

            async def answers() -> bool:
                assert pair.session is not None
                async with pair.session.post(url, data=body) as reply:
                    return reply.status == 200

            await until("nginx answers", answers)
            rounds = [
                (wrk(url, script, nginx.popen.pid), wrk(pair.relay_url + path, script, relay_pid)) for _ in range(3)
            ]
        finally:
            nginx.popen.terminate()
            nginx.popen.wait()
    reference = statistics.median(round_[0]["cpu_us"] for round_ in rounds)
    own = statistics.median(round_[1]["cpu_us"] for round_ in rounds)
    return {
        "nginx_cpu_us": reference,
        "relay_cpu_us": own,
        "relay_requests_per_s": statistics.median(round_[1]["requests_per_s"] for round_ in rounds),
        "ratio_to_nginx": round(reference / own, 3),
        "bad": [note for round_ in rounds for side in round_ for note in side["bad"]],
    }


def spread(times_ms: list[float]) -> Figures:
    """Return median, 99th percentile and maximum."""
    ordered = sorted(times_ms)
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[max(0, round(len(ordered) * 0.99) - 1)], 2),
        "max_ms": round(ordered[-1], 2),
        "n": len(ordered),
    }


async def bench_change(pair: Pair) -> Figures:
    """How long a toggle takes to show at the relay and in a client's stream, measured from sending the write."""
    context = base64.urlsafe_b64encode(b'{"targetingKey":"user-1"}').decode()
    answered, patched, written = [], [], []

    async def until_answer(value: object, start: float) -> None:
        while (await pair.evaluate())["value"] != value:
            pass
        answered.append((time.perf_counter() - start) * 1000)

    async with pair.relay("client_key").stream(f"/api/v2/client/stream?context={context}") as stream:
        await stream.next_named("put")

        async def until_patch(start: float) -> None:
            await stream.next_named("patch")
            patched.append((time.perf_counter() - start) * 1000)

        for number in range(TOGGLES):
            enabled = number % 2 == 1
            start = time.perf_counter()

            async def write(start: float = start, *, enabled: bool = enabled) -> None:
                await pair.toggle(enabled=enabled)
                written.append((time.perf_counter() - start) * 1000)

            await asyncio.gather(write(), until_answer(enabled, start), until_patch(start))
    return {"write_answered": spread(written), "relay_answers": spread(answered), "client_patched": spread(patched)}


async def bench_intake(pair: Pair) -> Figures:
    """Durable single-event `track` calls from many connections."""
    end = time.perf_counter() + SECONDS
    times: list[float] = []

    async def client(name: int) -> None:
        number = 0
        while time.perf_counter() < end:
            number += 1
            start = time.perf_counter()
            await pair.track([f"bench-{name}-{number}"])
            times.append((time.perf_counter() - start) * 1000)

    await asyncio.gather(*(client(name) for name in range(CONNECTIONS)))
    return {"events_per_s": round(len(times) / SECONDS), "accept": spread(times), "limited_by": "the Python client"}


ENGINE = "engine"
BENCHES = {"evaluation": bench_evaluation, "change": bench_change, "writes": bench_writes, "intake": bench_intake}


def commit() -> str:
    """Return the commit that is measured."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()


def tell(name: str, figures: Figures) -> None:
    """Print the figures of one part as soon as they are there."""
    sys.stdout.write(f"{name}: {json.dumps(figures, indent=2)}\n")
    sys.stdout.flush()


async def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--only", choices=sorted((ENGINE, *BENCHES)), action="append", help="run just this part (repeatable)"
    )
    parser.add_argument("--out", type=Path, help="write the figures as JSON to this file")
    options = parser.parse_args()
    figures: Figures = {
        "commit": commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    chosen = options.only or [ENGINE, *BENCHES]
    # Measured before any service runs, so that it has the machine for itself.
    if ENGINE in chosen:
        figures[ENGINE] = bench_engine()
        tell(ENGINE, figures[ENGINE])
    if services := [name for name in chosen if name != ENGINE]:
        with tempfile.TemporaryDirectory() as directory:
            async with Pair.started(Path(directory)) as pair:
                for name in services:
                    figures[name] = await BENCHES[name](pair)
                    tell(name, figures[name])
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
