"""`halyard up`: the upstream and one relay as two processes under one terminal.

Owns the two processes: starts the relay when the upstream is ready, shows what they print under their names, starts
one that died again, and stops both when asked. Settings, keys and the demo are `upstream.up`'s business.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from relay.errors import HalyardError

READY_POLL_S = 0.05
PROBE_S = 1.0
RESTART_S = 0.5
# A service that dies so often in so short a time will not get better by itself.
MAX_DEATHS = 5
DEATH_WINDOW_S = 60.0
# Whoever pressed Ctrl-C is given back the terminal within two seconds.
STOP_FIRST_S = 1.1
STOP_LAST_S = 0.7
STOP_KILLED_S = 0.1
BAD_SETTINGS_STATUS = 2
MAX_LINE_BYTES = 1 << 20


class GaveUp(HalyardError):
    """A service cannot be kept running."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Service:
    """One service: how it is started, and the address and path of the probe that says it is ready.

    `is_up` says that the running process has answered, and so takes signals in its own way; `ready` that the probe has
    said yes since the first start.
    """

    name: str
    arguments: Sequence[str]
    probe: tuple[str, int, str]
    environ: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    deaths: list[float] = field(default_factory=list)
    is_up: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def command(self) -> list[str]:
        """Return the command line; `-P` keeps the directory that we are in out of Python's way."""
        python = [sys.executable, "-P", "-m"]
        return [*python, "upstream.child", str(os.getpid()), *python, *self.arguments]


class Launcher:
    """Keeps services running until it is told to stop.

    Args:
        show: prints one line of a service, or of the launcher itself (name "").
    """

    def __init__(self, show: Callable[[str, str], None]) -> None:
        self._show = show
        self._stop = asyncio.Event()
        self._signals = 0
        self._failure: BaseException | None = None
        self._services: list[Service] = []
        self._keepers: list[asyncio.Task[None]] = []

    def own_signals(self) -> None:
        """Stop at SIGTERM and SIGINT; a second one kills."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Begin to stop; when it has begun already, kill."""
        self._signals += 1
        self._stop.set()
        if self._signals > 1:
            for service in self._services:
                _signal(service, signal.SIGKILL)

    async def run(self, services: Sequence[Service], on_ready: Callable[[Service], None]) -> None:
        """Start the services one after another, each when the one before is ready, and keep them until `stop`.

        Raises:
            GaveUp: one of them cannot be kept running; the others have been stopped.
        """
        starting = self._watched(self._start_all(services, on_ready))
        try:
            await self._stop.wait()
        finally:
            self._stop.set()
            starting.cancel()
            await self._stop_all()
        if self._failure is not None:
            raise self._failure

    def _watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something whose failure ends everything."""

        def note(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (failure := task.exception()) is not None:
                self._failure = self._failure or failure
                self._stop.set()

        task = asyncio.create_task(work)
        task.add_done_callback(note)
        return task

    async def _start_all(self, services: Sequence[Service], on_ready: Callable[[Service], None]) -> None:
        for service in services:
            self._services.append(service)
            self._keepers.append(self._watched(self._keep(service)))
            await service.ready.wait()
            on_ready(service)

    async def _keep(self, service: Service) -> None:
        """Run a service again and again until told to stop."""
        while not self._stop.is_set():
            status = await self._run_once(service)
            if self._stop.is_set():
                return
            if status == BAD_SETTINGS_STATUS:
                raise GaveUp(f"{service.name} cannot start; see what it said above", BAD_SETTINGS_STATUS)
            self._count_death(service, status)
            self._show("", f"{service.name} ended unexpectedly ({_how(status)}); starting it again")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RESTART_S)

    def _count_death(self, service: Service, status: int) -> None:
        now = asyncio.get_running_loop().time()
        service.deaths = [death for death in service.deaths if now - death < DEATH_WINDOW_S] + [now]
        if len(service.deaths) >= MAX_DEATHS:
            raise GaveUp(f"{service.name} ended {MAX_DEATHS} times within a minute (last: {_how(status)})", 1)

    async def _run_once(self, service: Service) -> int:
        service.is_up = False
        service.process = await asyncio.create_subprocess_exec(
            *service.command(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **service.environ},
            limit=MAX_LINE_BYTES,
            # Ctrl-C in the terminal goes to the launcher alone, which then asks the services in order.
            start_new_session=True,
        )
        if self._stop.is_set():
            # The stop came while there was no process yet that could have been told.
            self._end(service)
        watching = self._watched(_watch(service))
        try:
            assert service.process.stdout is not None  # noqa: S101 - it was asked for
            async for line in service.process.stdout:
                self._show(service.name, line.decode(errors="replace").rstrip("\n"))
            return await service.process.wait()
        finally:
            watching.cancel()

    async def _stop_all(self) -> None:
        """Stop the services in reverse order, so that the last one's parting words still find the first one."""
        kept = list(zip(self._services, self._keepers, strict=True))
        for (service, keeper), limit_s in zip(reversed(kept), (STOP_FIRST_S, STOP_LAST_S), strict=False):
            self._end(service)
            if not (await asyncio.wait({keeper}, timeout=limit_s))[0]:
                self._show("", f"{service.name} took too long and is killed; nothing acknowledged is lost")
                _signal(service, signal.SIGKILL)
        for keeper in self._keepers:
            # Whoever is killed may leave something behind that holds its output open, which must not hold us.
            await asyncio.wait({keeper}, timeout=STOP_KILLED_S)
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    def _end(self, service: Service) -> None:
        """Ask a service to end without waiting for its clients; kill it when asking is over."""
        if self._signals > 1:
            _signal(service, signal.SIGKILL)
            return
        if not service.is_up:
            # While it starts, SIGINT would be an exception with a traceback, and SIGTERM is its end. Should it take
            # signals already, this begins an orderly end that the second one hurries.
            _signal(service, signal.SIGTERM)
        _signal(service, signal.SIGINT)


def _signal(service: Service, number: signal.Signals) -> None:
    if service.process is not None and service.process.returncode is None:
        with suppress(ProcessLookupError):
            service.process.send_signal(number)


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


async def _watch(service: Service) -> None:
    """Note that the service is up when it gives any answer, and ready when it gives the right one."""
    while (answer := await _probed(*service.probe)) is None or b" 200 " not in answer:
        service.is_up = service.is_up or bool(answer)
        await asyncio.sleep(READY_POLL_S)
    service.is_up = True
    service.ready.set()


async def _probed(host: str, port: int, path: str) -> bytes | None:
    """Ask a probe in the plainest way; return the status line."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
