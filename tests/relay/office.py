"""Worker 0's desk on a real Unix socket, with a spool and a world behind it, for tests of those who ask it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.clock import SystemClock
from relay.events.spool import Spool
from relay.protocol.edge import KILL_PATH
from relay.protocol.overlays import ForcedOff
from relay.serve.server import HttpServer
from relay.settings import Events, Serve
from relay.workers.desk import Desk
from relay.workers.link import SECRET_HEADER, SocketPlace, new_secret
from tests.relay.objects import flag
from tests.relay.world import World

SECRET = new_secret()
HOUR_MS = 3_600_000


@dataclass
class Office:
    """A desk on a socket, a session that knows the secret, and what came in."""

    world: World
    spool: Spool
    desk: Desk
    session: aiohttp.ClientSession
    path: Path
    reports: list[Any]
    kills: list[tuple[str, Any]]

    async def records(self) -> list[Any]:
        batch = await self.spool.peek()
        return [] if batch is None else [orjson.loads(each) for each in batch.records]


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[Office]:
    """Open a desk in a directory."""
    world = World(SystemClock())
    world.snapshot({"beta": flag()})
    spool = await Spool.open(tmp_path / "spool", Events(), world.clock, world.metrics)
    kills: list[tuple[str, Any]] = []

    async def kill(request: Request) -> Response:
        kills.append((request.headers["authorization"], await request.json()))
        now_ms = world.clock.wall_ms()
        overlay = ForcedOff(world.ref.id, f"kill-{request.path_params['f']}", "beta", now_ms, now_ms + HOUR_MS)
        world.store.overlays.hold(world.ref.id, [overlay])
        return Response(orjson.dumps({"id": overlay.id}), 202, media_type="application/json")

    reports: list[Any] = []
    desk = Desk(world.services, spool, reports.append, SECRET, [Route(KILL_PATH, kill, methods=["POST"])])
    place = SocketPlace(tmp_path)
    place.prepare()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place.path))
    listener.listen(16)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    server = HttpServer(desk.app, listener, Serve(), world.metrics.refused_connections)
    await server.start()
    loops = [asyncio.create_task(desk.streams.run_publisher()), asyncio.create_task(desk.streams.run_timers())]
    connector = aiohttp.UnixConnector(str(place.path))
    async with aiohttp.ClientSession(connector=connector, headers={SECRET_HEADER: SECRET}) as session:
        yield Office(world, spool, desk, session, place.path, reports, kills)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    await server.stop(1)
    await spool.close()
    place.remove()
    assert not place.path.exists()
