"""Ten thousand event streams on one relay: how soon all of them hear of a change, beside nginx with nchan.

    fanout  a flag is toggled and every client's value changes; the same `patch` is published to nchan's subscribers.
            Both have 10,000 clients at once, the rounds alternate, both servers are pinned to core 0 and the clients
            to core 1. Two times of each: `request`, from the moment at which the change is asked for (the toggle at
            the upstream, which first commits it to disk and streams it to the relay; the POST to nchan) to a client's
            receipt; and `spread`, from the first client's receipt to a client's. The ratio is that of the spreads'
            medians of the rounds' p99, as what comes before the first write is another thing in the two servers.
            Memory of the relay before, and with its clients.
    stuck   the same rounds with 100 clients that read nothing and 100 that read a byte a second, all of whose buffers
            are full: what the others notice, and how long after its buffer filled each of them was cut.
    storm   all 10,000 connections break and come back at once: until all are served, the latency of a steady load of
            evaluations meanwhile beside the same load alone, and memory afterwards.

Run with `python -m tests.bench.streams [part …]`.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.steady_load import SteadyLoad
from tests.faults.pair import Pair
from tests.stack import free_port, until

CLIENTS = int(os.environ.get("HALYARD_BENCH_STREAMS", "10000"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
BAD = 100
AT_ONCE = 400
SERVER_CORE, CLIENT_CORE = 0, 1
MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
FLAG, FILLER = "bench-everybody", "bench-filler"
FILLING = 60_000
Figures = dict[str, Any]


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


def pin(pid: int, core: int) -> None:
    """Pin every thread of a process to one core, where there is more than one."""
    if (os.cpu_count() or 1) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def is_there(path: str) -> bool:
    """Tell whether there is such a file."""
    return Path(path).exists()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Clients:
    """The process that holds the streams; see `tests.bench.streams_client`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator["Clients"]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.streams_client", str(CLIENT_CORE),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield cls(process)
        finally:
            process.kill()
            await process.wait()

    async def do(self, what: str, **options: Any) -> Figures:
        """Send a command and wait for its answer."""
        await self.tell(what, **options)
        return await self.answer()

    async def tell(self, what: str, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **options}).encode() + b"\n")
        await self._process.stdin.drain()

    async def answer(self) -> Figures:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, "the clients' process has ended"
        found: Figures = json.loads(line)
        return found


class Relay:
    """The relay under test, and the flags that are changed for it."""

    def __init__(self, pair: Pair) -> None:
        assert pair.relay_process is not None
        self.pair = pair
        self.pid = pair.relay_process.popen.pid
        head = "GET /api/v2/client/stream?context={context} HTTP/1.1\r\nHost: relay\r\nAccept: text/event-stream\r\n"
        request = f"{head}Authorization: Bearer {pair.demo['client_key']}\r\n\r\n"
        self.target = {"port": pair.relay_port, "request": request, "marker": "\n\n"}
        self.enabled = True

    async def prepare(self) -> None:
        """Make a flag that everybody sees change, and one that fills the buffers of those marked as bad."""
        path = f"{self.pair.project_path}/flags"
        when = {"attribute": "bad", "op": "equals", "values": [True]}
        texts = [{"key": key, "value": value} for key, value in (("short", ""), ("long", "x" * FILLING))]
        await self._made(path, {"key": FLAG, "name": "Everybody", "type": "boolean", "client_side_enabled": True})
        served = {"off": "short", "fallthrough": {"variation": "short"}, "rules": [{"when": when, "variation": "long"}]}
        filler = {"key": FILLER, "name": "Filler", "type": "string", "client_side_enabled": True, "variations": texts}
        await self._made(path, {**filler, "environments": {self.pair.demo["environment"]: served}})
        await self.pair.toggle(enabled=True, flag=FLAG)
        await self.pair.toggle(enabled=False, flag=FILLER)
        await self.pair.settled()

    async def _made(self, path: str, body: Figures) -> None:
        status, answer = await self.pair.manage.post(path, body)
        assert status == 201, answer

    async def change(self) -> None:
        self.enabled = not self.enabled
        await self.pair.toggle(enabled=self.enabled, flag=FLAG)

    async def fill(self) -> None:
        """Send the bad readers more than all their buffers hold."""
        for enabled in (True, False, True):
            await self.pair.toggle(enabled=enabled, flag=FILLER)
            await self.pair.settled()


class Nchan:
    """nginx with one worker and one channel."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.target = {
            "port": self.port,
            "request": "GET /sub HTTP/1.1\r\nHost: nchan\r\nAccept: text/event-stream\r\nX-Unused: {context}\r\n\r\n",
            "marker": "",
        }
        self.pid = 0
        (directory / "nginx.conf").write_text(
            f"load_module {MODULE}; daemon off; worker_processes 1; worker_rlimit_nofile 20000;\n"
            f"pid {directory}/nginx.pid; error_log {directory}/error.log; user root;\n"
            "events { worker_connections 15000; }\n"
            "http { access_log off; nchan_max_reserved_memory 64M;\n"
            f" client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};\n"
            f" uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
            f" server {{ listen 127.0.0.1:{self.port} backlog=4096;\n"
            "  location = /pub { nchan_publisher; nchan_channel_id all; nchan_message_buffer_length 1; }\n"
            "  location = /sub { nchan_subscriber eventsource; nchan_channel_id all;\n"
            "   nchan_subscriber_first_message newest; } } }\n"
        )

    @asynccontextmanager
    async def running(self, pair: Pair) -> AsyncIterator["Nchan"]:
        process = await asyncio.create_subprocess_exec(
            "nginx", "-p", str(self.directory), "-c", str(self.directory / "nginx.conf")
        )

        async def worker() -> int | None:
            children = children_of(process.pid)
            return children[0] if children and await self._answers(pair) else None

        try:
            self.pid = await until("nchan answers", worker)
            pin(process.pid, SERVER_CORE)
            pin(self.pid, SERVER_CORE)
            yield self
        finally:
            process.terminate()
            await process.wait()

    async def _answers(self, pair: Pair) -> bool:
        assert pair.session is not None
        async with pair.session.get(f"http://127.0.0.1:{self.port}/pub") as answer:
            return answer.status in {200, 404}

    async def publish(self, pair: Pair, data: str) -> None:
        assert pair.session is not None
        headers = {"X-EventSource-Event": "patch", "Content-Type": "text/plain"}
        async with pair.session.post(f"http://127.0.0.1:{self.port}/pub", data=data, headers=headers) as answer:
            assert answer.status < 300, await answer.text()


def cpu_ms(pid: int) -> tuple[float, float]:
    """Return what a process has used in user and in system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    user, system = (int(fields[index]) * 1000 / os.sysconf("SC_CLK_TCK") for index in (11, 12))
    return user, system


async def heard(clients: Clients, change: Any) -> Figures:
    """Make a change and return in milliseconds when all clients heard of it."""
    await clients.do("collect", marker="patch")
    start = time.perf_counter()
    await change
    found = await clients.answer()
    assert found["heard"] == CLIENTS, found
    return {
        "request_p99_ms": (found["p99_at"] - start) * 1000,
        "first_ms": (found["first_at"] - start) * 1000,
        "p50_ms": (found["p50_at"] - found["first_at"]) * 1000,
        "p99_ms": (found["p99_at"] - found["first_at"]) * 1000,
        "last_ms": (found["last_at"] - found["first_at"]) * 1000,
    }


def medians(rounds: list[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}


async def fanout(relay: Relay) -> Figures:
    """Measure rounds of relay and nchan in turn."""
    if not is_there(MODULE):
        return {"left_out": f"not on this machine: {MODULE}"}
    base = rss_mib(relay.pid)
    with tempfile.TemporaryDirectory() as directory:
        nchan = Nchan(Path(directory))
        async with Clients.started() as own, Clients.started() as others, nchan.running(relay.pair):
            nchan_base = rss_mib(nchan.pid)
            opened = await own.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
            subscribed = await others.do("open", count=CLIENTS, at_once=AT_ONCE, **nchan.target)
            assert (opened["opened"], subscribed["opened"]) == (CLIENTS, CLIENTS), (opened, subscribed)
            held, nchan_held = rss_mib(relay.pid), rss_mib(nchan.pid)
            flags = {FLAG: {"value": True, "variation": "on", "reason": "STATIC"}}
            data = json.dumps({"flags": flags, "revision": 123}, separators=(",", ":"))
            await heard(own, relay.change())  # not counted: what is used for the first time
            await heard(others, nchan.publish(relay.pair, data))
            pairs = [
                (await heard(own, relay.change()), await heard(others, nchan.publish(relay.pair, data)))
                for _ in range(ROUNDS)
            ]
            after = rss_mib(relay.pid)
            await own.do("close")
            await others.do("close")
    relay_rounds, nchan_rounds = (list(each) for each in zip(*pairs, strict=True))
    ours, theirs = medians(relay_rounds), medians(nchan_rounds)
    return {
        "relay": ours,
        "nchan": theirs,
        "relay_p99_rounds_ms": [round(each["p99_ms"], 1) for each in relay_rounds],
        "nchan_p99_rounds_ms": [round(each["p99_ms"], 1) for each in nchan_rounds],
        "ratio_p99": round(ours["p99_ms"] / theirs["p99_ms"], 3),
        "opening_s": opened["seconds"],
        "relay_rss_mib": {"base": base, "open": held, "after": after},
        "relay_kib_per_stream": round((after - base) * 1024 / CLIENTS, 2),
        "nchan_kib_per_stream": round((nchan_held - nchan_base) * 1024 / CLIENTS, 2),
    }


async def stuck(relay: Relay) -> Figures:
    """Measure rounds without and with clients that take nothing."""
    async with Clients.started() as good, Clients.started() as bad:
        await good.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
        await heard(good, relay.change())
        alone = [await heard(good, relay.change()) for _ in range(ROUNDS)]
        await bad.do("open_bad", never=BAD, slow=BAD, **relay.target)
        await relay.fill()
        filled = time.perf_counter()
        before = rss_mib(relay.pid)
        watching = asyncio.create_task(bad.do("watch", seconds=30))
        beside = [await heard(good, relay.change()) for _ in range(ROUNDS)]
        rounds_s = time.perf_counter() - filled
        ends = await watching
        await good.do("close")
    gone = [at - filled for at in ends["gone_at"]]
    return {
        "alone": medians(alone),
        "beside": medians(beside),
        "moved": round(medians(beside)["p99_ms"] / medians(alone)["p99_ms"] - 1, 3),
        "rounds_took_s": round(rounds_s, 2),
        "cut": len(gone),
        "left": ends["left"],
        "first_gone_s": round(min(gone, default=0), 2),
        "last_gone_s": round(max(gone, default=0), 2),
        "rss_mib_when_full": before,
    }


async def storm(relay: Relay) -> Figures:
    """Let everybody come back at once, beside a steady load of evaluations."""
    path = f"/ofrep/v1/evaluate/flags/{relay.pair.demo['flag']}"
    load = SteadyLoad(relay.pair.relay_port, path, relay.pair.demo["server_key"], CLIENT_CORE)
    async with Clients.started() as clients, load.running():
        await clients.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
        await heard(clients, relay.change())
        before = rss_mib(relay.pid)
        await load.measured(1)
        alone = await load.measured(5)
        await load.begin()
        await clients.do("close")
        opened = await clients.do("open", count=CLIENTS, at_once=CLIENTS, **relay.target)
        meanwhile = await load.end()
        await heard(clients, relay.change())
        after = rss_mib(relay.pid)
        await clients.do("close")
    return {
        "served_s": opened["seconds"],
        "opened": opened["opened"],
        "refused_and_came_back": opened["refused"],
        "broken_and_came_back": opened["broken"],
        "evaluation_alone": alone,
        "evaluation_meanwhile": meanwhile,
        "ratio_p99": round(meanwhile["p99_ms"] / alone["p99_ms"], 2),
        "rss_mib": {"before": before, "after": after},
    }


PARTS = {"fanout": fanout, "stuck": stuck, "storm": storm}


async def bench_streams(pair: Pair, *parts: str) -> Figures:
    """Measure the parts, all by default. The pair must have been started for this and nothing else."""
    relay = Relay(pair)
    assert pair.upstream_process is not None
    pin(relay.pid, SERVER_CORE)
    pin(pair.upstream_process.popen.pid, CLIENT_CORE)
    await relay.prepare()
    return {name: await PARTS[name](relay) for name in parts or PARTS}


async def main() -> None:
    """Run the parts named on the command line, each against a relay of its own."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as directory:
            async with Pair.started(Path(directory)) as pair:
                sys.stdout.write(json.dumps(await bench_streams(pair, part), indent=2) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
