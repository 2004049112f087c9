"""A real HTTP server on loopback that plays an upstream's change stream, step by step as a test says."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

DEADLINE_S = 5.0


class Connection:
    """One request for the stream, to be answered and fed by the test."""

    def __init__(self, request: web.Request) -> None:
        self.headers = request.headers
        self.closed = asyncio.Event()
        self._request = request
        self._commands: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answer: asyncio.Future[web.StreamResponse] = asyncio.get_running_loop().create_future()

    def answer(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Answer without a stream."""
        self._answer.set_result(web.Response(status=status, headers=headers))

    def open(self, *frames: bytes, content_type: str = "text/event-stream") -> None:
        """Answer with a stream that begins with these frames."""
        self._answer.set_result(web.StreamResponse(headers={"Content-Type": content_type}))
        self.send(*frames)

    def send(self, *frames: bytes) -> None:
        """Send more."""
        self._commands.put_nowait(b"".join(frames))

    def close(self) -> None:
        """End the stream as a server that is done."""
        self._commands.put_nowait(None)

    def abort(self) -> None:
        """Break the connection."""
        if self._request.transport is not None:
            self._request.transport.abort()

    async def serve(self) -> web.StreamResponse:
        """Do what the test says until it ends the stream or the client leaves."""
        try:
            response = await self._answer
            if isinstance(response, web.Response):
                return response
            await response.prepare(self._request)
            while (frames := await self._commands.get()) is not None:
                await response.write(frames)
            return response
        finally:
            self.closed.set()


class StreamServer:
    """Hands every request to the test that waits for it."""

    def __init__(self) -> None:
        self.url = ""
        self._waiting: asyncio.Queue[Connection] = asyncio.Queue()

    async def next_connection(self) -> Connection:
        """Wait for the follower's next request."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._waiting.get()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        connection = Connection(request)
        self._waiting.put_nowait(connection)
        return await connection.serve()


@asynccontextmanager
async def stream_server() -> AsyncIterator[StreamServer]:
    """Run a server for as long as the context lasts."""
    server = StreamServer()
    app = web.Application()
    app.router.add_get("/base/api/v2/stream", server.handle)
    async with TestServer(app, handler_cancellation=True, shutdown_timeout=0.1) as running:
        server.url = str(running.make_url("/base"))
        yield server


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition holds; fail after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - anything may be waited for, not only what sets an event
            await asyncio.sleep(0.001)
