"""Published readers of Server-Sent Events behind one interface: open at a URL, then `next()` event by event.

Each reader comes back by its own means when its connection is cut. `empty` counts events without data that a library
hands over although the stream had none.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
from httpx_sse import aconnect_sse
from ld_eventsource import SSEClient  # type: ignore[import-untyped]
from ld_eventsource.async_client import AsyncSSEClient  # type: ignore[import-untyped]
from ld_eventsource.config import ConnectStrategy, ErrorStrategy  # type: ignore[import-untyped]
from ld_eventsource.config.async_connect_strategy import AsyncConnectStrategy  # type: ignore[import-untyped]

from tests.clients import node_program
from tests.stack import DEADLINE_S

RETRY_S = 0.05
Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as a library hands it over; `id` is the stream's last event id at that moment."""

    event: str
    id: str
    data: str


@dataclass
class Reader:
    """What a library has read and nobody has taken yet."""

    queue: asyncio.Queue[Seen] = field(default_factory=asyncio.Queue)
    empty: int = 0

    def put(self, event: str, event_id: str | None, data: str) -> None:
        if data:
            self.queue.put_nowait(Seen(event, event_id or "", data))
        else:
            self.empty += 1

    async def next(self, deadline_s: float = DEADLINE_S) -> Seen:
        """Return the next event but bookmarks, whose moment is each connection's own."""
        async with asyncio.timeout(deadline_s):
            while True:
                seen = await self.queue.get()
                if seen.event != "bookmark":
                    return seen


@asynccontextmanager
async def httpx_sse(url: str, headers: Headers) -> AsyncIterator[Reader]:
    """PyPI httpx-sse: a parser only, so whoever uses it comes back with the last id by himself."""
    reader = Reader()

    async def read() -> None:
        last_id = ""
        async with httpx.AsyncClient(timeout=httpx.Timeout(DEADLINE_S, read=None)) as client:
            while True:
                resume = {"Last-Event-ID": last_id} if last_id else {}
                with suppress(httpx.TransportError):
                    async with aconnect_sse(client, "GET", url, headers={**headers, **resume}) as source:
                        source.response.raise_for_status()
                        async for event in source.aiter_sse():
                            last_id = event.id or last_id
                            reader.put(event.event, event.id, event.data)
                await asyncio.sleep(RETRY_S)

    task = asyncio.create_task(read())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def ld_threads(url: str, headers: Headers) -> AsyncIterator[Reader]:
    """PyPI launchdarkly-eventsource, its blocking client; it gives up at the first fault unless told otherwise."""
    reader, loop, ended = Reader(), asyncio.get_running_loop(), threading.Event()
    goes_on = ErrorStrategy.from_lambda(
        lambda _: (ErrorStrategy.FAIL if ended.is_set() else ErrorStrategy.CONTINUE, None)
    )
    client = SSEClient(ConnectStrategy.http(url, dict(headers)), initial_retry_delay=RETRY_S, error_strategy=goes_on)

    def read() -> None:
        try:
            for event in client.events:
                loop.call_soon_threadsafe(reader.put, event.event, event.last_event_id, event.data)
        except Exception:
            if not ended.is_set():
                raise

    thread = asyncio.create_task(asyncio.to_thread(read))
    try:
        yield reader
    finally:
        ended.set()
        await asyncio.to_thread(client.close)
        await thread


@asynccontextmanager
async def ld_asyncio(url: str, headers: Headers) -> AsyncIterator[Reader]:
    """PyPI launchdarkly-eventsource, its client for asyncio."""
    reader = Reader()
    client = AsyncSSEClient(
        AsyncConnectStrategy.http(url, dict(headers)),
        initial_retry_delay=RETRY_S,
        error_strategy=ErrorStrategy.always_continue(),
    )

    async def read() -> None:
        async for event in client.events:
            reader.put(event.event, event.last_event_id, event.data)

    task = asyncio.create_task(read())
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


def _node(library: str) -> "Library":
    @asynccontextmanager
    async def opened(url: str, headers: Headers) -> AsyncIterator[Reader]:
        reader = Reader()
        process = await node_program.start("sse", "read.mjs")
        assert process.stdin is not None
        lines = process.stdout
        assert lines is not None
        process.stdin.write(json.dumps({"library": library, "url": url, "headers": dict(headers)}).encode() + b"\n")

        async def read() -> None:
            while line := await lines.readline():
                reader.put(*json.loads(line))

        task = asyncio.create_task(read())
        try:
            yield reader
        finally:
            process.kill()
            await process.wait()
            await task
            process.stdin.close()

    return opened


Library = Callable[[str, Headers], AbstractAsyncContextManager[Reader]]

LIBRARIES: Mapping[str, Library] = {
    "PyPI httpx-sse": httpx_sse,
    "PyPI launchdarkly-eventsource, threads": ld_threads,
    "PyPI launchdarkly-eventsource, asyncio": ld_asyncio,
    "npm eventsource": _node("eventsource"),
    "npm launchdarkly-eventsource": _node("launchdarkly-eventsource"),
}


def missing(library: str) -> str | None:
    """Return why a library cannot run here, or None if it can."""
    return node_program.missing("sse") if library.startswith("npm") else None
