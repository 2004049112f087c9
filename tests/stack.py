"""Halyard as its users run it: real processes on loopback, driven over HTTP.

`Stack` owns a data directory and the processes started on it. `together()` is `halyard up`; `upstream()` and `relay()`
start the services on their own, so that a test can kill one of them. Everything is ended when the stack is closed,
and whatever a process printed can be read back.
"""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

DEADLINE_S = 20.0
Json = dict[str, Any]
T = TypeVar("T")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def new_session() -> aiohttp.ClientSession:
    """Return a session whose reader takes the longest line that a stream may hold."""
    return aiohttp.ClientSession(read_bufsize=2**22, timeout=aiohttp.ClientTimeout(total=DEADLINE_S))


async def until(what: str, attempt: Callable[[], Awaitable[T | None]], deadline_s: float = DEADLINE_S) -> T:
    """Call `attempt` until it returns something true; connection errors count as not yet."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    last: object = None
    while loop.time() < end:
        try:
            last = await attempt()
            if last:
                return last
        except (aiohttp.ClientError, ConnectionError) as error:
            last = error
        await asyncio.sleep(0.01)
    message = f"{what}: not within {deadline_s} s; last seen: {last!r}"
    raise AssertionError(message)


@dataclass
class Process:
    """One started program with its output in a file."""

    popen: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> None:
        """Send SIGKILL, as a crash would end it, and reap it."""
        self.popen.kill()
        self.popen.wait(DEADLINE_S)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.popen.send_signal(how)
        return self.popen.wait(DEADLINE_S)


@dataclass
class Stack:
    """Ports, data and processes of one Halyard installation."""

    data_dir: Path
    upstream_port: int = field(default_factory=free_port)
    relay_port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    processes: list[Process] = field(default_factory=list)

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"

    @property
    def relay_url(self) -> str:
        return f"http://127.0.0.1:{self.relay_port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def demo(self) -> Json:
        loaded: Json = json.loads((self.data_dir / "demo.json").read_text())
        return loaded

    def start(self, *command: str, env: dict[str, str] | None = None) -> Process:
        """Start a program of this installation's virtual environment."""
        output = self.data_dir / f"output-{len(self.processes)}.txt"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        program = str(Path(sys.executable).parent / command[0])
        with output.open("wb") as sink:
            popen = subprocess.Popen(
                [program, *command[1:]],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NO_COLOR": "1", **(env or {})},
                cwd=self.data_dir,
            )
        process = Process(popen, output)
        self.processes.append(process)
        return process

    def together(self, *extra: str) -> Process:
        """Run `halyard up --demo` on this stack's ports and directory."""
        return self.start(
            "halyard", "up", "--data-dir", str(self.data_dir), "--upstream-port", str(self.upstream_port),
            "--relay-port", str(self.relay_port), "--admin-port", str(self.admin_port), "--demo", *extra,
        )  # fmt: skip

    async def close(self) -> None:
        """End whatever still runs."""
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.processes:
            try:
                await asyncio.to_thread(process.popen.wait, 5)
            except subprocess.TimeoutExpired:
                process.kill()


class Client:
    """A thin HTTP client for tests: JSON in, (status, JSON) out."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, key: str | None) -> None:
        self._session = session
        self.base_url = base_url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send one request; header names are given with underscores for dashes."""
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        if data is not None:
            extra.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method, self.base_url + path, data=data, headers={**self._headers, **extra}
        ) as answer:
            raw = await answer.read()
            return answer.status, (json.loads(raw) if raw else None)

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        return await self.call("POST", path, body, **headers)

    async def patch(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        return await self.call("PATCH", path, body, **headers)

    @asynccontextmanager
    async def stream(self, path: str, last_event_id: str | None = None) -> AsyncIterator["SseReader"]:
        """Open a stream of Server-Sent Events."""
        headers = {**self._headers, "Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        async with self._session.get(
            self.base_url + path, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
        ) as answer:
            assert answer.status == 200, await answer.text()
            yield SseReader(answer)


@dataclass(frozen=True)
class Message:
    """One received event."""

    event: str
    id: str | None
    data: Any


class SseReader:
    """Reads events the way the WHATWG text says, line by line; independent of the product's own parser."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.headers = answer.headers

    async def next(self, deadline_s: float = DEADLINE_S) -> Message:
        """Return the next whole event; comments are passed over."""
        async with asyncio.timeout(deadline_s):
            return await self._next()

    async def next_named(self, *names: str, deadline_s: float = DEADLINE_S) -> Message:
        """Return the next event that bears one of the names."""
        async with asyncio.timeout(deadline_s):
            while True:
                message = await self._next()
                if message.event in names:
                    return message

    async def _next(self) -> Message:
        event, last_id = "message", None
        data: list[str] = []
        while True:
            raw = await self._line()
            line = raw.decode().rstrip("\r\n")
            if not line:
                if data:
                    return Message(event, last_id, json.loads("\n".join(data)))
                event, last_id = "message", None
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                last_id = value

    async def _line(self) -> bytes:
        raw = await self._answer.content.readuntil(b"\n")
        if not raw:
            message = "the stream ended"
            raise ConnectionError(message)
        return raw


@dataclass
class Running(Stack):
    """A stack that has been started with the demo project, with clients for its keys."""

    session: aiohttp.ClientSession | None = None
    main: Process | None = None

    def _client(self, base_url: str, key: str | None) -> Client:
        assert self.session is not None
        return Client(self.session, base_url, key)

    @property
    def manage(self) -> Client:
        """The management API with the demo token."""
        return self._client(self.upstream_url, self.demo["token"])

    def relay(self, key: str | None = "server_key") -> Client:
        """The relay, with one of the demo keys by its name in demo.json."""
        return self._client(self.relay_url, self.demo[key] if key else None)

    def upstream(self, key: str | None) -> Client:
        """The upstream, with one of the demo keys by its name in demo.json."""
        return self._client(self.upstream_url, self.demo[key] if key else None)

    @property
    def admin(self) -> Client:
        return self._client(self.admin_url, None)

    @property
    def project_path(self) -> str:
        return f"/api/v2/projects/{self.demo['project']}"

    @property
    def flag_path(self) -> str:
        return f"{self.project_path}/flags/{self.demo['flag']}"

    async def toggle(self, *, enabled: bool, flag: str | None = None) -> Any:
        """Switch a flag of the demo environment and return the answer."""
        path = f"{self.project_path}/flags/{flag or self.demo['flag']}:toggle"
        status, body = await self.manage.post(path, {"environment": self.demo["environment"], "enabled": enabled})
        assert status == 200, body
        return body

    async def evaluate(self, flag: str | None = None, unit: str = "user-1") -> Json:
        """Ask the relay for one flag through OFREP."""
        path = f"/ofrep/v1/evaluate/flags/{flag or self.demo['flag']}"
        status, body = await self.relay().post(path, {"context": {"targetingKey": unit}})
        assert status == 200, body
        answer: Json = body
        return answer

    async def settled(self) -> None:
        """Wait until the relay has whatever was answered until now."""
        # What is committed, not what the upstream's own memory has followed so far, as its status would tell.
        status, page = await self.manage.get(f"{self.project_path}/environments?limit=100")
        assert status == 200, page
        wanted = {each["id"]: each["revision"] for each in page["data"]}

        async def there() -> bool:
            held = {each["id"]: each["revision"] for each in (await self.admin.get("/status"))[1]["environments"]}
            return all(held.get(each, -1) >= revision for each, revision in wanted.items())

        await until("the relay stands where the upstream stands", there)

    async def ready(self) -> Self:
        """Wait until upstream and relay both say that they are ready, and demo.json is there."""

        async def both() -> bool:
            if not (self.data_dir / "demo.json").exists():
                self.check_alive()
                return False
            services = (self.upstream(None), self.admin)
            return [(await service.get("/readyz"))[0] for service in services] == [200, 200]

        await until("upstream and relay ready", both)
        return self

    def check_alive(self) -> None:
        assert self.main is not None
        assert self.main.popen.poll() is None, self.main.text()

    @classmethod
    @asynccontextmanager
    async def up(cls, data_dir: Path) -> AsyncIterator[Self]:
        """Start `halyard up --demo`, wait until it serves, stop it at the end."""
        async with new_session() as session:
            stack = cls(data_dir, session=session)
            stack.main = stack.together()
            try:
                yield await stack.ready()
            finally:
                await stack.close()
