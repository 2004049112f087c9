"""The owner of every background task of a process.

A task that raises, or returns though it is meant to run for ever, is logged, counted and started again after a
random wait that grows; when it fails too often `alive` turns false, so that the orchestrator replaces the process.
Nothing dies silently (F42). `stop` cancels the tasks in reverse order of start and waits for each.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from relay.clock import Clock

logger = logging.getLogger(__name__)

Run = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor tries: waits between restarts, and the failures in a window that are too many."""

    wait_min_s: float = 0.5
    wait_max_s: float = 30.0
    failures: int = 10
    window_s: float = 300.0


@dataclass(slots=True)
class _Owned:
    name: str
    run: Run
    failed_at: deque[float]
    task: asyncio.Task[None] | None = None
    last_error: str = ""


@dataclass(slots=True)
class Supervisor:
    """Starts, restarts and stops named tasks.

    Args:
        clock: for waits and for the window in which failures are counted.
        on_failure: told the name of each task that failed, for the metrics.
        on_start: told the name of each task that is begun, for the metrics.
        patience: when to give up.
    """

    clock: Clock
    on_failure: Callable[[str], None] = lambda _name: None
    on_start: Callable[[str], None] = lambda _name: None
    patience: Patience = field(default_factory=Patience)
    _owned: dict[str, _Owned] = field(default_factory=dict)

    def start(self, name: str, run: Run) -> None:
        """Run `run` for ever under this name; it is called again after each failure."""
        if name in self._owned:
            message = f"a task called {name!r} is running already"
            raise ValueError(message)
        owned = _Owned(name, run, deque(maxlen=self.patience.failures))
        self._owned[name] = owned
        self.on_start(name)
        owned.task = asyncio.create_task(self._keep_running(owned), name=name)

    async def stop(self, *names: str) -> None:
        """Cancel the named tasks, or all of them, last started first, and wait until they have ended."""
        for name in names or tuple(reversed(self._owned)):
            owned = self._owned.pop(name, None)
            if owned is not None and owned.task is not None:
                owned.task.cancel()
                await asyncio.wait({owned.task})

    @property
    def alive(self) -> bool:
        """Whether no task has failed too often of late. May be asked from another thread."""
        return not self.failing()

    def failing(self) -> dict[str, str]:
        """Return the tasks that failed too often of late, each with its last error."""
        since = self.clock.monotonic() - self.patience.window_s
        return {
            owned.name: owned.last_error
            for owned in tuple(self._owned.values())
            if len(owned.failed_at) == self.patience.failures and owned.failed_at[0] >= since
        }

    async def _keep_running(self, owned: _Owned) -> None:
        wait_s = self.patience.wait_min_s
        while True:
            started = self.clock.monotonic()
            try:
                await owned.run()
                owned.last_error = "returned, but is meant to run for ever"
                logger.error("background task %s", owned.last_error, extra={"task": owned.name})
            except Exception as error:
                owned.last_error = f"{type(error).__name__}: {error}"
                logger.exception("background task failed", extra={"task": owned.name})
            owned.failed_at.append(self.clock.monotonic())
            self.on_failure(owned.name)
            if self.clock.monotonic() - started > self.patience.window_s:
                wait_s = self.patience.wait_min_s
            # Random, so that the tasks of many relays that fail for one reason do not come back in step.
            await self.clock.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, protects nothing
            wait_s = min(wait_s * 2, self.patience.wait_max_s)
