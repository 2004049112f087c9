"""One worker as worker 0 sees it: started, watched, told to end, and started again when it dies.

`run` is kept running by the supervisor, which waits longer after each death and tells `/livez` when there are too
many. A worker that says nothing for too long is killed, as nothing else would bring its share of the port back. It
ends with worker 0, however that ends: its standard input is closed then.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

from relay.clock import Clock
from relay.errors import HalyardError
from relay.workers import figures
from relay.workers.figures import Figures
from relay.workers.link import DRAIN, HURRY, Start

logger = logging.getLogger(__name__)

SILENT_AFTER_S: Final = 5.0
REPLACED_AFTER_S: Final = 15.0
STARTED_WITHIN_S: Final = 60.0
WATCHED_EVERY_S: Final = 0.5


class State(StrEnum):
    """What a worker does."""

    RUNNING = "running"
    STARTING = "starting"
    SILENT = "silent"
    DOWN = "down"


class WorkerDied(HalyardError):
    """A worker has ended though nobody told it to."""


class Worker:
    """One of the workers 1 to N-1.

    Args:
        start: makes what an instance is told, given its id.
        number: which one it is.
        clock: tells how long it has been silent.
        retire: takes the last figures of an instance that has ended.
    """

    def __init__(
        self, number: int, start: Callable[[str], Start], clock: Clock, retire: Callable[[Figures], None]
    ) -> None:
        self.number = number
        self.starts = 0
        self.told: Mapping[str, Any] = {}  # its newest report, without the figures
        self.figures: Figures = figures.NONE
        self._start = start
        self._clock = clock
        self._retire = retire
        self._instance = ""
        self._process: asyncio.subprocess.Process | None = None
        self._heard_s = 0.0
        self._commands: list[bytes] = []

    # --- what is known; may be asked from another thread ------------------------------------------------------------

    @property
    def state(self) -> State:
        """What it does."""
        if self._process is None:
            return State.DOWN
        if not self.told:
            return State.STARTING
        if self.silence_s() > SILENT_AFTER_S:
            return State.SILENT
        return State.RUNNING if self.told.get("accepting") else State.STARTING

    @property
    def pid(self) -> int | None:
        """Its process id, None while it is down."""
        process = self._process
        return None if process is None else process.pid

    def silence_s(self) -> float:
        """Return the seconds since it was last heard of."""
        return self._clock.monotonic() - self._heard_s

    # --- on the loop ------------------------------------------------------------------------------------------------

    def hear(self, instance: str, report: Mapping[str, Any], counted: Figures) -> None:
        """Take note of a report; one of an instance that has ended is too late."""
        if instance == self._instance and self._process is not None:
            self.told, self.figures = report, counted
            self._heard_s = self._clock.monotonic()

    def tell(self, command: bytes) -> None:
        """Give a command, also to an instance that is yet to be started."""
        self._commands.append(command)
        if self._process is not None:
            _write(self._process, command)

    async def run(self) -> None:
        """Be the worker's parent until it ends.

        Raises:
            WorkerDied: it ended and was not told to.
        """
        if self._commands:
            # On the way out nobody is started any more.
            await asyncio.Event().wait()
        self._instance = uuid4().hex
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "relay.workers"),
            stdin=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for worker 0, which tells the others
        )
        self.starts += 1
        self._heard_s = self._clock.monotonic()
        self._process = process
        try:
            for line in (self._start(self._instance).encode(), *self._commands):
                _write(process, line)
            await self._watch(process)
        finally:
            await self._bury(process)
        if not self._commands:
            raise WorkerDied(f"worker {self.number} ended with status {process.returncode}")
        await asyncio.Event().wait()

    async def gone(self) -> None:
        """Return once it has ended."""
        while (process := self._process) is not None:
            await process.wait()
            await asyncio.sleep(0)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.ensure_future(process.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended, tick := asyncio.ensure_future(self._clock.sleep(WATCHED_EVERY_S))},
                                   return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
                tick.cancel()
                if self.silence_s() > (REPLACED_AFTER_S if self.told else STARTED_WITHIN_S):
                    logger.error("a worker does not answer; it is replaced", extra={"worker": self.number})
                    process.kill()
                    return
        finally:
            ended.cancel()

    async def _bury(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            process.kill()
        await process.wait()
        last, self.figures, self.told = self.figures, figures.NONE, {}
        self._process = None
        self._retire(last)


def drain(worker: Worker) -> None:
    """Let a worker end in order."""
    worker.tell(DRAIN)


def hurry(worker: Worker) -> None:
    """Let a worker end without waiting."""
    worker.tell(HURRY)


def _write(process: asyncio.subprocess.Process, line: bytes) -> None:
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.write(line + b"\n")


def _environment() -> dict[str, str]:
    # What it needs of the settings it is told; a key has no business in its environment.
    return {name: value for name, value in os.environ.items() if not name.startswith("HALYARD_")}
