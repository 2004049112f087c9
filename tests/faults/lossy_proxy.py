"""A TCP proxy before the upstream that loses answers after the upstream has committed.

It passes everything through unchanged, streams included, but for answers to `POST /api/v2/ingest`: the first `losses`
of them, or where a `share` is given that share of them by chance, are read from the upstream, so that the upstream is
done, then dropped together with their connection.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

INGEST = b"POST /api/v2/ingest"
CHUNK = 65_536


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class LossyProxy:
    """`port` is where it listens; `lost` counts the answers that it dropped, `passed` those that it did not."""

    def __init__(self, upstream_port: int, losses: int, share: float, seed: int) -> None:
        self.port = 0
        self.lost = 0
        self.passed = 0
        self._share = share
        self._random = random.Random(seed)
        self._upstream_port = upstream_port
        self._losses = losses
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @asynccontextmanager
    async def running(
        cls, upstream_port: int, losses: int = sys.maxsize, *, share: float = 1.0, seed: int = 0
    ) -> AsyncIterator[Self]:
        """Listen on a free port until the block ends."""
        proxy = cls(upstream_port, losses, share, seed)
        server = await asyncio.start_server(proxy._accept, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for connection in proxy._connections:
                connection.cancel()
            await asyncio.gather(*proxy._connections, return_exceptions=True)

    async def _accept(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            server_in, server_out = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            try:
                await self._pass(client_in, server_out, server_in, client_out)
            finally:
                await _close(server_out)
        except OSError:
            return  # the upstream is down; closing tells the client so
        finally:
            await _close(client_out)

    async def _pass(
        self,
        client_in: asyncio.StreamReader,
        server_out: asyncio.StreamWriter,
        server_in: asyncio.StreamReader,
        client_out: asyncio.StreamWriter,
    ) -> None:
        """Copy both ways until either side ends, or an answer is lost."""
        is_ingest = False

        async def requests() -> None:
            nonlocal is_ingest
            while chunk := await client_in.read(CHUNK):
                is_ingest = is_ingest or chunk.startswith(INGEST)
                server_out.write(chunk)
                await server_out.drain()

        async def answers() -> None:
            while chunk := await server_in.read(CHUNK):
                if is_ingest and self.lost < self._losses and self._random.random() < self._share:
                    self.lost += 1
                    return
                self.passed += is_ingest
                client_out.write(chunk)
                await client_out.drain()

        copies = [asyncio.ensure_future(requests()), asyncio.ensure_future(answers())]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
