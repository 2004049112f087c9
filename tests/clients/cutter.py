"""A TCP proxy that can be cut: while it is, connections end at once, open ones and new ones."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Self

_CHUNK = 65_536
# A comment that is an HTTP chunk of its own.
_HEARTBEAT = b"\r\n:\n"


class Cutter:
    """`port` is where it listens; `accepted` counts connections that were carried, `heartbeats` lone comments."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.accepted = 0
        self.heartbeats = 0
        self._target_port = target_port
        self._is_cut = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def before(cls, target_port: int) -> AsyncIterator[Self]:
        """Listen on a free port until the block ends."""
        cutter = cls(target_port)
        server = await asyncio.start_server(cutter._accept, "127.0.0.1", 0)
        cutter.port = server.sockets[0].getsockname()[1]
        try:
            yield cutter
        finally:
            server.close()
            with cutter.cut():
                await asyncio.gather(*cutter._tasks)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """End every connection, and take none for as long as the block lasts."""
        self._is_cut = True
        for writer in self._open:
            writer.transport.abort()
        try:
            yield
        finally:
            self._is_cut = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with self._kept(writer):
            if not self._is_cut:
                self.accepted += 1
                await self._carry(reader, writer)

    @contextmanager
    def _kept(self, writer: asyncio.StreamWriter) -> Iterator[None]:
        self._open.add(writer)
        try:
            yield
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        with self._kept(far_writer):
            copies = [
                asyncio.ensure_future(self._copy(reader, far_writer)),
                asyncio.ensure_future(self._copy(far_reader, writer)),
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            writer.transport.abort()
            far_writer.transport.abort()
            await asyncio.gather(*copies)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A side that is gone is what this proxy is for; both sides are closed when either is.
        with suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                self.heartbeats += chunk.count(_HEARTBEAT)
                writer.write(chunk)
                await writer.drain()
