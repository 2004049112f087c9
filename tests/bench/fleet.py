"""A fleet: how long a write takes from the request to an evaluation at each of ten relays.

One upstream, ten relays as processes of their own, and beside them forty followers of the change stream in one more
process. Flags are switched through the API, twenty times a second. Each relay has one client stream, opened by this
process; a write has been evaluated at a relay when the `patch` with the flag's new value, which the relay evaluates
for that client, has been read here. So the times include the relay's evaluation and its way to one client.

`sent` counts from the moment before the request is sent, `committed` from the time that the authority notes in the
change (`committed_at`, in whole milliseconds), as told on a change stream of this process. `each` is one figure per
write and relay, `last` one per write: the last of the relays.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.config import ENVIRONMENT, PROJECT, Large
from tests.bench.measure import Figures, cpu_seconds, spread
from tests.faults.pair import Pair
from tests.stack import Client, Process, free_port, until

RELAYS: Final = 10
FOLLOWERS: Final = 40
WRITES_PER_S: Final = 20
SECONDS: Final = 20.0
FLAGS: Final = 100
SWITCHED: Final = 20
"""Flags that are switched in turn, so that a write is told from the one before it by its flag."""
GRACE_S: Final = 10.0
READ_BYTES: Final = 1 << 22


@dataclass
class Relay:
    """One relay of the fleet."""

    process: Process
    port: int
    admin_port: int


@dataclass
class Watch:
    """What was seen: for each (flag, value) the moments at which it was told, by relay."""

    seen: dict[tuple[str, bool], dict[int, float]] = field(default_factory=dict)
    committed: dict[tuple[str, bool], float] = field(default_factory=dict)

    def note(self, relay: int, flag: str, *, value: bool) -> None:
        self.seen.setdefault((flag, value), {}).setdefault(relay, time.time())

    def forget(self, flag: str, *, value: bool) -> None:
        self.seen.pop((flag, value), None)
        self.committed.pop((flag, value), None)


@contextlib.asynccontextmanager
async def _followers(port: int, key: str) -> AsyncIterator[int]:
    program = (sys.executable, "-m", "tests.bench.followers", str(port), key, str(FOLLOWERS))
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert (await process.stdout.readline()) == b"open\n"
        yield process.pid
    finally:
        process.stdin.close()
        await process.wait()


class Fleet:
    """Everything that runs, and what it does to a write."""

    def __init__(self, pair: Pair, client_key: str) -> None:
        self.pair = pair
        self.client_key = client_key
        self.relays: list[Relay] = []
        self.watch = Watch()
        self._open = asyncio.Semaphore(0)

    async def start_relays(self) -> None:
        """Start all relays, each with a directory of its own, and wait until they follow."""
        pair = self.pair
        for number in range(RELAYS):
            port, admin_port = free_port(), free_port()
            process = pair.start(
                "halyard-relay", "--upstream-url", pair.upstream_url,
                "--upstream-key-file", str(pair.data_dir / "relay.key"), "--port", str(port),
                "--admin-port", str(admin_port), "--data-dir", str(pair.data_dir / f"relay-{number}"),
            )  # fmt: skip
            self.relays.append(Relay(process, port, admin_port))
        for relay in self.relays:
            await self._connected(relay)

    async def _connected(self, relay: Relay) -> None:
        assert self.pair.session is not None
        admin = Client(self.pair.session, f"http://127.0.0.1:{relay.admin_port}", None)

        async def connected() -> bool:
            status, body = await admin.get("/readyz")
            return status == 200 and not body["degraded"]

        await until("a relay of the fleet is connected", connected, 60)

    async def watch_relay(self, number: int) -> None:
        """Read one relay's client stream and note each value that it tells."""
        context = base64.urlsafe_b64encode(b'{"targetingKey":"user-1"}').decode()
        path = f"/api/v2/client/stream?key={self.client_key}&context={context}"
        async for event, data in self._events(self.relays[number].port, path, ""):
            for flag, answer in data["flags"].items() if event == "patch" else ():
                self.watch.note(number, flag, value=answer["value"])

    async def watch_upstream(self) -> None:
        """Read the upstream's change stream and note when each write was committed."""
        path = "/api/v2/stream"
        header = f"Authorization: Bearer {self.pair.demo['relay_key']}\r\n"
        async for event, data in self._events(self.pair.upstream_port, path, header):
            for flag, made in data["upsert"]["flags"].items() if event == "changes" else ():
                committed = datetime.fromisoformat(data["committed_at"]).timestamp()
                self.watch.committed.setdefault((flag, made["enabled"]), committed)

    async def _events(self, port: int, path: str, header: str) -> AsyncIterator[tuple[str, Any]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: fleet\r\n{header}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        self._open.release()
        event, data = "message", b""
        while line := await reader.readline():
            # Lines of the chunked encoding stand between those of the stream, and are none of its fields.
            if line.startswith(b"event: "):
                event = line[7:].strip().decode()
            elif line.startswith(b"data: "):
                data += line[6:].strip()
            elif line in {b"\n", b"\r\n"} and data:
                if event in {"patch", "changes"}:
                    yield event, json.loads(data)
                event, data = "message", b""
        raise ConnectionError(f"a stream of port {port} ended")

    async def all_open(self) -> None:
        """Wait until every stream of this process has begun."""
        for _ in range(RELAYS + 1):
            await self._open.acquire()

    async def write(self, number: int) -> Figures:
        """Switch a flag, wait until every relay has told of it, and return the times in milliseconds."""
        flag, value = f"flag-{number % SWITCHED * 2}", number // SWITCHED % 2 == 1
        self.watch.forget(flag, value=value)
        sent = time.time()
        path = f"/api/v2/projects/{PROJECT}/flags/{flag}:toggle"
        status, body = await self.pair.manage.post(path, {"environment": ENVIRONMENT, "enabled": value})
        answered = time.time()
        assert status == 200, body
        name, end = (flag, value), sent + GRACE_S
        while len(self.watch.seen.get(name, ())) < RELAYS or name not in self.watch.committed:
            assert time.time() < end, f"write {number} was seen by {self.watch.seen.get(name)}"
            await asyncio.sleep(0.01)
        times, committed = self.watch.seen[name].values(), self.watch.committed[name]
        return {
            "answered": (answered - sent) * 1000,
            "sent": [(each - sent) * 1000 for each in times],
            "committed": [(each - committed) * 1000 for each in times],
        }

    async def write_steadily(self, seconds: float) -> list[Figures]:
        """Write at the pace, whatever the writes take, and return the times of each."""
        loop = asyncio.get_running_loop()
        start, writes = loop.time(), []
        for number in range(round(seconds * WRITES_PER_S)):
            await asyncio.sleep(start + number / WRITES_PER_S - loop.time())
            writes.append(asyncio.create_task(self.write(number)))
        return await asyncio.gather(*writes)


def _times(writes: list[Figures]) -> Figures:
    figures: Figures = {"write_answered": spread([each["answered"] for each in writes])}
    for since in ("sent", "committed"):
        figures[since] = {
            "each": spread([time_ms for each in writes for time_ms in each[since]]),
            "last": spread([max(each[since]) for each in writes]),
        }
    return figures


async def bench_fleet(seconds: float = SECONDS) -> Figures:
    """Measure a fleet."""
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            await pair.kill_relay()
            large = Large(pair)
            await large.fill(FLAGS)
            named = {"kind": "client", "name": "fleet", "project": PROJECT, "environment": ENVIRONMENT}
            key = (await large.manage("POST", "/keys", {**named, "origins": ["*"]}))["key"]
            fleet = Fleet(pair, key)
            await fleet.start_relays()
            async with _followers(pair.upstream_port, pair.demo["relay_key"]) as followers:
                watching = [asyncio.create_task(fleet.watch_relay(number)) for number in range(RELAYS)]
                watching.append(asyncio.create_task(fleet.watch_upstream()))
                await fleet.all_open()
                # The first turn of each flag is not counted: it has everything compiled for the first time.
                await fleet.write_steadily(2 * SWITCHED / WRITES_PER_S)
                assert pair.upstream_process is not None
                pids = {
                    "upstream": [pair.upstream_process.popen.pid],
                    "relays": [each.process.popen.pid for each in fleet.relays],
                    "followers": [followers],
                }
                before = {name: sum(map(cpu_seconds, each)) for name, each in pids.items()}
                writes = await fleet.write_steadily(seconds)
                spent = {name: sum(map(cpu_seconds, each)) - before[name] for name, each in pids.items()}
                for task in watching:
                    task.cancel()
            shares = {f"{name}_cpu_percent": round(100 * each / seconds) for name, each in spent.items()}
            return {"relays": RELAYS, "followers": FOLLOWERS, "writes_per_s": WRITES_PER_S, **_times(writes), **shares}


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    sys.stdout.write(f"{json.dumps(await bench_fleet(parser.parse_args().seconds), indent=2)}\n")


if __name__ == "__main__":
    asyncio.run(main())
