"""A reverse proxy between a client and the relay: notes every request, and makes trouble when it is told to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import aiohttp
from aiohttp import web

from tests.stack import free_port

BULK: Final = "/ofrep/v1/evaluate/flags"
STREAM: Final = "/ofrep/v1/stream"
_OF_THE_CONNECTION: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Passed:
    """One request and the status that it was answered with; 0 stands for a relay that was not there."""

    method: str
    path: str
    status: int
    last_event_id: str | None


@dataclass
class Proxy:
    """Listens on a port of its own; `origin` is what clients take for the relay.

    With `is_gateway` it answers 502 while the relay is away, as a load balancer does; else it drops the connection.
    """

    target: str
    session: aiohttp.ClientSession
    port: int = field(default_factory=free_port)
    passed: list[Passed] = field(default_factory=list)
    refuse_next_bulk: bool = False
    is_gateway: bool = False
    open_streams: int = 0
    _runner: web.ServerRunner | None = None
    _site: web.TCPSite | None = None

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[Self]:
        """Pass on to `target` until left."""
        timeout = aiohttp.ClientTimeout(total=None)
        # A connection of its own for each request: one that the relay closed meanwhile is not the client's business.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as session:
            proxy = cls(target, session)
            proxy._runner = web.ServerRunner(web.Server(proxy._pass_on, access_log=None, handler_cancellation=True))
            await proxy._runner.setup()
            await proxy.listen()
            try:
                yield proxy
            finally:
                proxy.cut()
                await proxy._runner.cleanup()

    async def listen(self) -> None:
        """Take connections, again if it had stopped."""
        assert self._runner is not None
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()

    async def go_away(self) -> None:
        """Refuse new connections and cut those that are open."""
        assert self._site is not None
        await self._site.stop()
        self.cut()

    def cut(self) -> None:
        """Reset every open connection."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def counts(self) -> Counter[str]:
        """Return how often each kind of request was answered: `bulk 200`, `stream 401`."""
        names = {BULK: "bulk", STREAM: "stream"}
        return Counter(
            f"{names.get(each.path, each.path)} {each.status}" for each in self.passed if each.method != "OPTIONS"
        )

    def forget(self) -> None:
        """Begin to count anew."""
        self.passed.clear()

    def count(self, what: str) -> int:
        """Return how many requests of a kind there were, whatever they were answered with."""
        return sum(number for name, number in self.counts().items() if name.startswith(what))

    async def _pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if self.refuse_next_bulk and request.method == "POST" and request.path == BULK:
            self.refuse_next_bulk = False
            self._note(request, 429)
            return self._too_many(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        is_stream = request.path == STREAM
        self.open_streams += is_stream
        try:
            async with self.session.request(
                request.method,
                self.target + request.raw_path,
                headers=headers,
                data=body or None,
                allow_redirects=False,
            ) as answer:
                self._note(request, answer.status)
                response = web.StreamResponse(status=answer.status)
                for name, value in answer.headers.items():
                    if name.lower() not in _OF_THE_CONNECTION:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                await response.write_eof()
                return response
        except (aiohttp.ClientError, ConnectionError) as error:
            if isinstance(error, aiohttp.ClientConnectorError):
                self._note(request, 0)
                if self.is_gateway:
                    return web.Response(status=502, text="Bad gateway")
            # What the relay does to its connection is done to the client's.
            if request.transport is not None:
                request.transport.abort()
            raise asyncio.CancelledError from None
        finally:
            self.open_streams -= is_stream

    def _note(self, request: web.BaseRequest, status: int) -> None:
        last_event_id = request.headers.get("Last-Event-ID")
        self.passed.append(Passed(request.method, request.path, status, last_event_id))

    @staticmethod
    def _too_many(request: web.BaseRequest) -> web.Response:
        headers = {"Retry-After": "1", "Access-Control-Expose-Headers": "Retry-After"}
        if (origin := request.headers.get("Origin")) is not None:
            headers["Access-Control-Allow-Origin"] = origin
        body = {"errorCode": "GENERAL", "errorDetails": "Too many requests."}
        return web.json_response(body, status=429, headers=headers)
