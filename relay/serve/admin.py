"""Answers probes, metrics and status on a listener and an event loop of its own, in its own thread.

A main loop that is stuck cannot say so itself (F43); this thread reads its heartbeat. Whatever the app reads must be
readable from another thread: immutable values, single attributes, copies.
"""

import asyncio
import logging
import socket
import threading

import uvloop

from relay.errors import HalyardError
from relay.metrics import Tally
from relay.serve.guard import AsgiApp
from relay.serve.server import HttpServer
from relay.settings import Limits, Serve

logger = logging.getLogger(__name__)

# Operators' tools, not the world: a few connections are plenty, and a flood must not cost the process its descriptors.
LIMITS = Limits(connections=64)
START_S = 10.0
STOP_S = 1.0


class AdminListener:
    """One app on one socket in one thread."""

    def __init__(self, app: AsgiApp, listener: socket.socket, refused: Tally) -> None:
        self._app = app
        self._listener = listener
        self._refused = refused
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)

    def start(self) -> None:
        """Start the thread and return when it answers."""
        self._thread.start()
        if not self._started.wait(START_S):
            message = f"the admin listener did not start within {START_S:g} s"
            raise HalyardError(message)

    def stop(self) -> None:
        """End the thread; blocks for a moment."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_S * 2)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            self._loop = runner.get_loop()
            runner.run(self._serve())

    async def _serve(self) -> None:
        settings = Serve(limits=LIMITS, keep_alive_s=15)
        server = HttpServer(self._app, self._listener, settings, self._refused)
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(STOP_S)
