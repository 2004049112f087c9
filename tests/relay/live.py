"""A world on a real listener, for what only shows on a connection."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from relay.protocol.keys import Kind
from relay.protocol.sse import SseEvent, SseParser
from relay.serve.server import HttpServer, listen
from tests.clocks import settle
from tests.relay.world import Answer, World, scope_of

DEADLINE_S = 5.0


class Reader:
    """Reads the events of an open stream with the product's own parser, which has tests of its own."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.raw = b""
        self._parser = SseParser()
        self._events: list[SseEvent] = []

    @property
    def retry_ms(self) -> int | None:
        return self._parser.retry_ms

    async def next(self, *names: str) -> SseEvent:
        """Return the next event, or the next that bears one of the names."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                while not self._events:
                    chunk = await self.answer.content.readany()
                    if not chunk:
                        raise EOFError("the stream ended")
                    self.raw += chunk
                    self._events += self._parser.feed(chunk)
                event = self._events.pop(0)
                if not names or event.event in names:
                    return event

    async def end(self) -> list[SseEvent]:
        """Read to the end of the stream and return the events that were still to come."""
        events = []
        try:
            while True:
                events.append(await self.next())
        except EOFError:
            return events

    async def until(self, text: bytes) -> None:
        """Read until the raw bytes hold a text, comments included."""
        async with asyncio.timeout(DEADLINE_S):
            while text not in self.raw:
                chunk = await self.answer.content.readany()
                assert chunk, "the stream ended"
                self.raw += chunk
                self._events += self._parser.feed(chunk)

    @property
    def has_more(self) -> bool:
        """Whether an event has been read that nobody asked for yet."""
        return bool(self._events)


def data(event: SseEvent) -> Any:
    return orjson.loads(event.data)


def context_parameter(**context: Any) -> str:
    """Return a context as the client stream's query takes it."""
    return base64.urlsafe_b64encode(orjson.dumps(context)).decode().rstrip("=")


@dataclass
class Live:
    """A world on a real listener, with its two loops running."""

    world: World
    port: int
    session: aiohttp.ClientSession
    server: HttpServer

    def url(self, target: str) -> str:
        return f"http://127.0.0.1:{self.port}{target}"

    def _headers(self, key: Kind | str | None, headers: dict[str, str] | None) -> dict[str, str]:
        if key is None:
            return dict(headers or {})
        raw = self.world.keys[key] if isinstance(key, Kind) else key
        return {"Authorization": f"Bearer {raw}", **(headers or {})}

    @asynccontextmanager
    async def stream(
        self,
        target: str,
        *,
        key: Kind | str | None = Kind.CLIENT,
        headers: dict[str, str] | None = None,
        body: Any = None,
    ) -> AsyncIterator[Reader]:
        """Open a stream and wait until the registry has it."""
        async with self.session.request(
            "GET" if body is None else "POST",
            self.url(target),
            headers=self._headers(key, headers),
            data=None if body is None else orjson.dumps(body),
        ) as answer:
            assert answer.status == 200, await answer.text()
            yield Reader(answer)

    async def refused(self, target: str, *, key: Kind | str | None = Kind.CLIENT, headers: Any = None) -> Answer:
        """Ask for a stream that is not given."""
        async with self.session.get(self.url(target), headers=self._headers(key, headers)) as answer:
            shown = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, shown, await answer.read())


async def until(fact: Callable[[], object], what: str = "the condition") -> None:
    """Let the loop turn until something is so."""
    loop = asyncio.get_running_loop()
    end = loop.time() + DEADLINE_S
    while not fact():
        assert loop.time() < end, f"{what}: not within {DEADLINE_S} s"
        await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Live]:
    """Serve a world on a free port of the loopback."""
    listener = listen("127.0.0.1", 0, 16, "relay.serve.port")
    server = HttpServer(world.app, listener, world.settings, world.metrics.refused_connections)
    await server.start()
    timeout = aiohttp.ClientTimeout(total=None)
    async with world.running(), aiohttp.ClientSession(timeout=timeout, read_bufsize=2**22) as session:
        yield Live(world, server.port, session, server)
        await until(lambda: not world.services.streams.counts(), "the streams' ends")
    await server.stop(0.05)


class SlowRequest:
    """A request whose body arrives when the test says so."""

    def __init__(self, world: World, target: str, body: Any, key: str | None = None) -> None:
        self.status = 0
        self.raw = b""
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._body = orjson.dumps(body)
        scope = scope_of("POST", target, {"authorization": f"Bearer {key or world.keys[Kind.CLIENT]}"})
        self.task = asyncio.create_task(self._run(world, scope))

    async def _run(self, world: World, scope: dict[str, Any]) -> None:
        await world.app(scope, self._messages.get, self._send)

    async def _send(self, message: Any) -> None:
        self.status = message.get("status", self.status)
        self.raw += message.get("body", b"")

    async def complete(self) -> None:
        """Send the body, and see what comes of it."""
        self._messages.put_nowait({"type": "http.request", "body": self._body, "more_body": False})
        await settle()

    async def leave(self) -> None:
        self._messages.put_nowait({"type": "http.disconnect"})
        await self.task

    @property
    def events(self) -> list[SseEvent]:
        return SseParser().feed(self.raw)
