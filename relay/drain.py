"""How a service goes: the signals, and the phases between the first signal and the exit.

SIGTERM begins the drain: not ready but still accepting, then the listener closes, then streams are sent away, then
events are handed over; each phase ends as soon as nothing is left. SIGINT (Ctrl-C) begins the same without waiting,
and takes the waits out of a drain that SIGTERM began. The same signal a second time ends the process at once: what was
acknowledged is on disk already. Never drops anything itself; the parts that own work do it in the phases that they are
given.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from relay.clock import Clock

logger = logging.getLogger(__name__)

# What a phase gets beyond its limit to come to an end by itself before it is cancelled.
GRACE_S = 1.2
SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Phase:
    """One step of the drain.

    Args:
        name: shown in the log and the status.
        limit_s: time after which the phase is given up.
        run: does the work within the seconds it is told; returns as soon as nothing is left.
        hurried_s: what the limit becomes with Ctrl-C, when somebody sits before the terminal.
    """

    name: str
    limit_s: float
    run: Callable[[float], Awaitable[None]]
    hurried_s: float = 0.0


@dataclass(slots=True)
class Drain:
    """State of a process between serving and gone. Read by probes, also from another thread."""

    clock: Clock
    grace_s: float = GRACE_S
    phase: str | None = None
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _signals: set[signal.Signals] = field(default_factory=set)

    @property
    def is_draining(self) -> bool:
        """Whether the process is on its way out and must not get new traffic."""
        return self._asked.is_set()

    def own_signals(self) -> None:
        """Take SIGTERM and SIGINT of this process. Called once, in the main thread, with the loop running."""
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)

    def disown_signals(self) -> None:
        """Give the signals back to whoever had them."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def begin(self, *, hurry: bool = False) -> None:
        """Begin to drain; `hurry` takes the waits out, also of a drain that is under way."""
        if hurry:
            self._hurry.set()
        self._asked.set()

    async def asked(self) -> None:
        """Return when the drain has begun."""
        await self._asked.wait()

    async def hurried(self) -> None:
        """Return when somebody is in a hurry."""
        await self._hurry.wait()

    async def wait(self, limit_s: float) -> None:
        """Let time pass, but none when in a hurry."""
        hurried = asyncio.ensure_future(self._hurry.wait())
        slept = asyncio.ensure_future(self.clock.sleep(limit_s))
        try:
            await asyncio.wait((hurried, slept), return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
            slept.cancel()

    async def run(self, phases: Sequence[Phase]) -> None:
        """Do the phases in order. One that fails or takes too long is logged and left; the next one still runs."""
        for phase in phases:
            self.phase = phase.name
            limit_s = min(phase.limit_s, phase.hurried_s) if self._hurry.is_set() else phase.limit_s
            logger.info("drain: %s", phase.name, extra={"limit_s": limit_s})
            try:
                async with asyncio.timeout(limit_s + self.grace_s) as limit:
                    await self._hurried(phase, limit_s, limit)
            except TimeoutError:
                logger.warning("drain: %s took longer than it may; going on", phase.name)
            except Exception:
                logger.exception("drain: %s failed; going on", phase.name)
        self.phase = "done"

    async def _hurried(self, phase: Phase, limit_s: float, limit: asyncio.Timeout) -> None:
        """Do a phase, and cut its time short should somebody begin to hurry meanwhile."""
        loop = asyncio.get_running_loop()
        running = asyncio.ensure_future(phase.run(limit_s))
        hurried = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((running, hurried), return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                until_s = loop.time() + min(limit_s, phase.hurried_s) + self.grace_s
                limit.reschedule(min(until_s, limit.when() or until_s))
            await running
        finally:
            hurried.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def _signalled(self, number: signal.Signals) -> None:
        if number in self._signals:
            logger.warning("the same signal again: ending at once", extra={"signal": number.name})
            # No cleanup: an atexit handler or a thread that hangs would be in the way of somebody who asked twice.
            os._exit(128 + number)
        self._signals.add(number)
        logger.info("stopping", extra={"signal": number.name})
        self.begin(hurry=number == signal.SIGINT)
