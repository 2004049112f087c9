"""Asks one evaluation every two milliseconds over a kept connection, and notes how long each waited.

Runs in a thread of its own with a plain socket, so that nothing of the asking side's event loop is measured. What
would have been asked while an answer was awaited counts too, with the time that was left of the wait: a stall of 50 ms
is 25 evaluations that waited, not one.
"""

import json
import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.bench.measure import Figures, spread

PACE_S = 0.002
CONNECT_PATIENCE_S = 30.0


class Prober:
    """Measures while the `with` block runs; `figures` afterwards."""

    def __init__(self, port: int, key: str, flag: str) -> None:
        body = json.dumps({"context": {"targetingKey": "user-1", "country": "NL", "plan": "pro"}}).encode()
        self._port = port
        self._request = (
            f"POST /ofrep/v1/evaluate/flags/{flag} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._waits_ms: list[float] = []
        self._refused = 0
        self.failure: OSError | None = None

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ask no more."""
        self._over.set()
        self._thread.join()

    def figures(self) -> Figures:
        """Return how long evaluations waited; `refused` are those that were answered at once with another status."""
        if self.failure is not None:
            raise self.failure
        return {**spread(self._waits_ms), "refused": self._refused}

    def _run(self) -> None:
        try:
            with self._connected() as connection:
                while not self._over.is_set():
                    start = time.perf_counter()
                    connection.sendall(self._request)
                    self._refused += not self._answer(connection).startswith(b"HTTP/1.1 200")
                    taken_s = time.perf_counter() - start
                    left_s = taken_s
                    while left_s > 0:
                        self._waits_ms.append(left_s * 1000)
                        left_s -= PACE_S
                    time.sleep(max(0.0, PACE_S - taken_s))
        except OSError as error:
            self.failure = error

    def _connected(self) -> socket.socket:
        end = time.monotonic() + CONNECT_PATIENCE_S
        while True:
            try:
                connection = socket.create_connection(("127.0.0.1", self._port), timeout=CONNECT_PATIENCE_S)
            except ConnectionRefusedError:
                if time.monotonic() > end:
                    raise
                time.sleep(PACE_S)
            else:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return connection

    def _answer(self, connection: socket.socket) -> bytes:
        answer = b""
        while True:
            got = connection.recv(65_536)
            if not got:
                raise ConnectionError("the relay closed the connection")
            answer += got
            head, found, rest = answer.partition(b"\r\n\r\n")
            if found and len(rest) >= _length_of(head):
                return answer


def _length_of(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
