"""A process that holds ten thousand event streams on bare sockets, and notes when each of them hears something.

Reads commands from standard input, one JSON object a line, and answers each with a line (`collect` with two: the first
says that it listens). One epoll loop, so that a receipt costs a few microseconds: what is measured is the server.
All moments are `time.perf_counter()`, which on Linux is one clock for all processes.
"""

import base64
import gc
import json
import os
import random
import select
import socket
import struct
import sys
import time
from typing import Any

COUNTRIES = ("NL", "DE", "FR", "BE", "US", "GB", "ES", "IT", "PL", "SE")
PLANS = ("free", "pro", "team")
DEADLINE_S = 60.0
HEAD_ENDS = b"\r\n\r\n"
SMALL_BUFFER = 4_096
READ = 65_536


def context(number: int, **more: Any) -> str:
    """Return one client's context, unlike all others, as the stream's query takes it."""
    members = {
        "targetingKey": f"user-{number:06d}",
        "country": COUNTRIES[number % len(COUNTRIES)],
        "plan": PLANS[number % len(PLANS)],
        "email": f"user-{number}@example.com",
        **more,
    }
    return base64.urlsafe_b64encode(json.dumps(members).encode()).decode().rstrip("=")


class Client:
    """All streams of this process."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.streams: dict[int, socket.socket] = {}
        self.never: dict[int, socket.socket] = {}
        self.slow: dict[int, socket.socket] = {}
        self.gone_at: dict[int, float] = {}
        self._next_byte_s = 0.0

    # --- opening ----------------------------------------------------------------------------------------------------

    def open(self, port: int, count: int, request: str, marker: str, at_once: int) -> dict[str, Any]:
        """Open streams, at most so many at a time, and wait until each has had `marker`; come back when refused."""
        start = time.perf_counter()
        opening = Opening(self, port, request, marker.encode())
        waiting = list(range(count - 1, -1, -1))
        later: list[tuple[float, int]] = []
        while len(self.streams) < count:
            now = time.perf_counter()
            if now - start > DEADLINE_S:
                break
            while waiting and len(opening.started) < at_once:
                opening.start(waiting.pop())
            later, due = [each for each in later if each[0] > now], [each for each in later if each[0] <= now]
            waiting += [number for _, number in due]
            for number, after_s in opening.turn(0.05):
                later.append((time.perf_counter() + after_s, number))
        seconds = time.perf_counter() - start
        return {"opened": len(self.streams), "seconds": round(seconds, 3), "refused": opening.refused,
                "broken": opening.broken, "first_bytes": opening.sample.decode(errors="replace")}  # fmt: skip

    def open_bad(self, port: int, never: int, slow: int, request: str, marker: str) -> dict[str, Any]:
        """Open streams with small buffers that will be read no more, or a byte a second."""
        for number in range(never + slow):
            connected = socket.socket()
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
            connected.connect(("127.0.0.1", port))
            connected.sendall(request.format(context=context(number, bad=True)).encode())
            seen = b""
            while marker.encode() not in seen:
                seen += connected.recv(READ)
            connected.setblocking(False)  # noqa: FBT003 - the standard library's signature
            (self.never if number < never else self.slow)[connected.fileno()] = connected
            self.poll.register(connected.fileno(), 0)  # hears of its end and of nothing else
        return {"never": len(self.never), "slow": len(self.slow)}

    # --- listening --------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Read away what came while nobody looked."""
        while events := self.poll.poll(0):
            self._note_ends(events)
            for number, _ in events:
                if number in self.streams:
                    self._read(number)

    def collect(self, marker: str) -> dict[str, Any]:
        """Wait until every stream has heard something that holds the marker."""
        wanted, streams, times = marker.encode(), self.streams, []
        heard: set[int] = set()
        end = time.perf_counter() + DEADLINE_S
        while len(heard) < len(streams) and time.perf_counter() < end:
            events = self.poll.poll(0.1)
            for number, _ in events:
                stream = streams.get(number)
                if stream is None:
                    continue
                data = stream.recv(READ)
                if wanted in data and number not in heard:
                    times.append(time.perf_counter())
                    heard.add(number)
                elif not data:
                    self._drop(number)
            self._note_ends(events)
            self._read_slowly()
        times.sort()
        return {"heard": len(times), "first_at": times[0], "p50_at": times[len(times) // 2],
                "p99_at": times[max(0, round(len(times) * 0.99) - 1)], "last_at": times[-1]}  # fmt: skip

    def watch(self, seconds: float) -> dict[str, Any]:
        """Go on reading a byte a second, until all bad readers have been cut or the time is over."""
        end = time.perf_counter() + seconds
        while (self.never or self.slow) and time.perf_counter() < end:
            events = self.poll.poll(0.05)
            self._note_ends(events)
            for number, _ in events:
                if number in self.streams:
                    self._read(number)
            self._read_slowly()
        return {"left": len(self.never) + len(self.slow), "gone_at": sorted(self.gone_at.values())}

    def _read_slowly(self) -> None:
        now = time.perf_counter()
        if now < self._next_byte_s:
            return
        self._next_byte_s = now + 1
        for stream in self.slow.values():
            try:
                stream.recv(1)
            except OSError:
                continue

    def _note_ends(self, events: list[tuple[int, int]]) -> None:
        for number, event in events:
            ended = event & (select.EPOLLERR | select.EPOLLHUP)
            held = self.never if number in self.never else self.slow if number in self.slow else None
            if ended and held is not None:
                self.gone_at[number] = time.perf_counter()
                self.poll.unregister(number)
                held.pop(number).close()

    def _read(self, number: int) -> None:
        try:
            if not self.streams[number].recv(READ):
                self._drop(number)
        except OSError:
            self._drop(number)

    def _drop(self, number: int) -> None:
        self.poll.unregister(number)
        self.streams.pop(number).close()

    def close(self) -> dict[str, Any]:
        """Break every connection at once, so that no port is kept waiting."""
        count = 0
        for held in (self.streams, self.never, self.slow):
            for stream in held.values():
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.close()
                count += 1
            held.clear()
        self.gone_at.clear()
        return {"closed": count}


class Opening:
    """Streams on their way to being open."""

    def __init__(self, client: Client, port: int, request: str, marker: bytes) -> None:
        self.started: dict[int, tuple[socket.socket, int, bytes]] = {}
        self.refused = 0
        self.broken = 0
        self.sample = b""
        self._client = client
        self._port = port
        self._request = request
        self._marker = marker

    def start(self, number: int) -> None:
        """Connect."""
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        stream.connect_ex(("127.0.0.1", self._port))
        self.started[stream.fileno()] = stream, number, b""
        self._client.poll.register(stream.fileno(), select.EPOLLOUT)

    def turn(self, timeout_s: float) -> list[tuple[int, float]]:
        """Go on with what is ready; return who was refused, and after how many seconds each is to come back."""
        again = []
        for number, event in self._client.poll.poll(timeout_s):
            if number not in self.started:
                continue
            stream, name, seen = self.started[number]
            try:
                if event & select.EPOLLOUT:
                    stream.sendall(self._request.format(context=context(name)).encode())
                    self._client.poll.modify(number, select.EPOLLIN)
                    continue
                data = stream.recv(READ)
                if not data:
                    raise ConnectionResetError
            except OSError:
                self.broken += 1
                again.append(self._end(number, 0.5))
                continue
            seen += data
            if seen[:12] == b"HTTP/1.1 503" and HEAD_ENDS in seen:
                self.refused += 1
                again.append(self._end(number, retry_after_s(seen)))
            elif self._marker in seen.partition(HEAD_ENDS)[2] or (not self._marker and HEAD_ENDS in seen):
                self._client.streams[number] = self.started.pop(number)[0]
                self.sample = self.sample or seen
            else:
                self.started[number] = stream, name, seen
        return again

    def _end(self, number: int, after_s: float) -> tuple[int, float]:
        stream, name, _ = self.started.pop(number)
        self._client.poll.unregister(number)
        stream.close()
        return name, after_s


def retry_after_s(head: bytes) -> float:
    """Return the seconds that a refusal names, and a little more, as a polite client adds."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"retry-after:"):
            return int(line.partition(b":")[2]) + random.random()
    return 1.0


def main() -> None:
    """Do as told until the input ends."""
    gc.disable()  # one collection would be a pause of the clock that is read here
    os.sched_setaffinity(0, {int(sys.argv[1])})
    client = Client()
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        if what == "collect":
            client.drain()
            sys.stdout.write("{}\n")
            sys.stdout.flush()
        sys.stdout.write(json.dumps(getattr(client, what)(**command)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
