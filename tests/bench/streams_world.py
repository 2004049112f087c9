"""What the bench of streams sets up: the process that holds the clients, the relay with its flags, nginx with nchan."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.bench.measure import CLIENT_CORE, SERVER_CORE, Figures, pin
from tests.faults.pair import Pair
from tests.stack import free_port, until

MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so"
FLAG, FILLER = "bench-everybody", "bench-filler"
FILLING = 60_000


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

    async def loop_delays(self) -> dict[str, int]:
        """Return how many delays of the relay's event loop were at most so long, by the metric's bounds in seconds."""
        assert self.pair.session is not None
        async with self.pair.session.get(f"http://127.0.0.1:{self.pair.admin_port}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        buckets = (line.split() for line in lines if line.startswith("halyard_relay_loop_delay_seconds_bucket"))
        return {name.split('"')[1]: round(float(value)) for name, value in buckets}

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
