"""Evaluations at a steady pace from a thread-free process of its own, whose answers are timed one by one.

The pace does not wait for the answers: each request has its moment, and its latency counts from there, so a server
that stands still for a second shows up in every request of that second. The process is given the machine's first
attention on its core, or it would measure how long it waited for the other clients there.
"""

import asyncio
import json
import os
import selectors
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PER_S = 500
CONNECTIONS = 16


class SteadyLoad:
    """The process, from outside."""

    def __init__(self, port: int, path: str, key: str, core: int) -> None:
        body = b'{"context":{"targetingKey":"user-1","country":"NL","plan":"pro"}}'
        head = f"POST {path} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._arguments = [str(port), str(core), head + body.decode()]
        self._process: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["SteadyLoad"]:
        """Start the process; it waits for `begin`."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.steady_load", *self._arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            yield self
        finally:
            self._process.kill()
            await self._process.wait()

    async def begin(self) -> None:
        """Begin to send."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(b"begin\n")
        await self._process.stdin.drain()

    async def end(self) -> dict[str, float]:
        """Stop, and return what was measured since the beginning."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"end\n")
        await self._process.stdin.drain()
        found: dict[str, float] = json.loads(await self._process.stdout.readline())
        return found

    async def measured(self, seconds: float) -> dict[str, float]:
        """Measure for some time."""
        await self.begin()
        await asyncio.sleep(seconds)
        return await self.end()


def measure(selector: selectors.BaseSelector, connections: list[socket.socket], request: bytes) -> list[float]:
    """Send at the pace until the input says to end; return the latencies in milliseconds."""
    sent: dict[int, deque[float]] = {each.fileno(): deque() for each in connections}
    times: list[float] = []
    start, number, is_over = time.perf_counter(), 0, False
    while not is_over or any(sent.values()):
        due = start + number / PER_S
        now = time.perf_counter()
        if now >= due and not is_over:
            connection = connections[number % CONNECTIONS]
            connection.sendall(request)
            sent[connection.fileno()].append(due)
            number += 1
            continue
        for key, _ in selector.select(max(0.0, due - now)):
            if not isinstance(key.fileobj, socket.socket):
                sys.stdin.readline()
                is_over = True
                continue
            data = key.fileobj.recv(65_536)
            heard = time.perf_counter()
            waiting = sent[key.fd]
            times += [(heard - waiting.popleft()) * 1000 for _ in range(data.count(b"HTTP/1.1 200"))]
    return times


def main(port: int, core: int, request: bytes) -> None:
    """Measure whenever told to."""
    os.sched_setaffinity(0, {core})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        sys.stderr.write("no right to real-time scheduling: latencies include waiting for the other clients\n")
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    for each in connections:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(each, selectors.EVENT_READ)
    while sys.stdin.readline():
        times = sorted(measure(selector, connections, request))
        found = {
            "n": len(times),
            "p50_ms": round(statistics.median(times), 2),
            "p99_ms": round(times[round(len(times) * 0.99) - 1], 2),
            "max_ms": round(times[-1], 2),
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode())
