"""All workers beside worker 0: what they are told, how they are, and what all processes together have counted.

Owns the Unix socket and the app on it. What probes, status and metrics ask is answered from what each worker last said
of itself, so a stuck one holds nobody up; it is named, with the reason. Ends the workers in step with worker 0.
"""

import asyncio
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from starlette.routing import BaseRoute

from relay.clock import Clock
from relay.drain import Drain
from relay.errors import BadSettings
from relay.events.spool import Spool
from relay.heartbeat import Heartbeat
from relay.serve.guard import PROCESS
from relay.serve.health import Health
from relay.serve.server import HttpServer
from relay.serve.services import Services
from relay.settings import RelaySettings
from relay.supervise import Supervisor
from relay.workers import figures
from relay.workers.desk import Desk
from relay.workers.figures import CombinedMetrics, Figures
from relay.workers.link import SocketPlace, Start, new_secret
from relay.workers.worker import REPLACED_AFTER_S, State, Worker, drain, hurry

logger = logging.getLogger(__name__)

BACKLOG: Final = 128
# Nobody but a worker that was killed and does not go is silent for so long.
LOST_AFTER_S: Final = 2 * REPLACED_AFTER_S
_TOLD: Final = ("request_ids", "lag_s", "requests", "streams", "revisions")


class Crew:
    """The workers 1 to N-1 of a relay; there is none with one worker.

    Args:
        settings: of the relay; `port` is the one that is really served.
        services: of the app that serves clients here.
        spool: where counts go.
        kill_routes: the routes by which flags are killed here.
        metrics: shows the figures of all.
        heartbeat: tells how late worker 0's own loop is.
        clock: for silence.
    """

    def __init__(  # noqa: PLR0913 - wiring
        self,
        settings: RelaySettings,
        port: int,
        *,
        services: Services,
        spool: Spool,
        kill_routes: Sequence[BaseRoute],
        metrics: CombinedMetrics,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self._ended = figures.NONE
        self._counted: tuple[Figures, ...] = ()
        self._metrics = metrics
        self._own_streams = services.streams.counts
        self._own_requests = metrics.requests.total
        self._heartbeat = heartbeat
        self._place = SocketPlace(settings.data.dir)
        self._settings = settings.model_copy(update={"serve": settings.serve.model_copy(update={"port": port})})
        self._secret = new_secret()
        self._workers = {
            number: Worker(number, self._start_of(number), clock, self._retire)
            for number in range(1, settings.serve.workers)
        }
        self._desk = Desk(services, spool, self._hear, self._secret, kill_routes)
        self._server: HttpServer | None = None
        self._hurrying: asyncio.Task[None] | None = None
        metrics.add_from(self._figures)
        metrics.workers.read_from(self._states)
        metrics.worker_lag.read_from(self._lags)
        metrics.worker_requests.read_from(self._requests)

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self, supervisor: Supervisor) -> None:
        """Open the socket and start every worker.

        Raises:
            BadSettings: the socket cannot be made.
        """
        listener = self._listen()
        self._server = HttpServer(self._desk.app, listener, self._settings.serve, self._metrics.refused_connections)
        await self._server.start()
        supervisor.start("publisher to workers", self._desk.streams.run_publisher)
        supervisor.start("timers of workers", self._desk.streams.run_timers)
        for number, worker in self._workers.items():
            supervisor.start(f"worker {number}", worker.run)

    def begin_drain(self, own: Drain) -> None:
        """Let every worker begin to end, and pass on every hurry."""
        for worker in self._workers.values():
            drain(worker)
        self._hurrying = asyncio.create_task(self._hurry(own))

    async def gone(self, limit_s: float) -> None:
        """Return once every worker has ended, or after the limit."""
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.gather(*(worker.gone() for worker in self._workers.values()))
        except TimeoutError:
            left = [number for number, worker in self._workers.items() if worker.pid is not None]
            logger.warning("workers did not end in time; they are killed", extra={"workers": left})

    async def stop(self) -> None:
        """Let go of the socket. The supervisor has stopped, and with it every worker that was left."""
        if self._hurrying is not None:
            self._hurrying.cancel()
        if self._server is not None:
            await self._server.stop(0)
        self._desk.streams.close()
        self._place.remove()

    async def _hurry(self, own: Drain) -> None:
        await own.hurried()
        for worker in self._workers.values():
            hurry(worker)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX)
        try:
            self._place.prepare()
            listener.bind(str(self._place.path))
            self._place.path.chmod(0o600)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            message = f"relay.data.dir: {self._place.path} cannot be made: {error.strerror or error}"
            raise BadSettings([message]) from error
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        return listener

    def _start_of(self, number: int) -> Callable[[str], Start]:
        return lambda instance: Start(number, instance, str(self._place.path), self._secret, self._settings)

    # --- what workers say -------------------------------------------------------------------------------------------

    def _hear(self, report: Any) -> None:
        worker = self._workers.get(report["number"])
        if worker is not None:
            counted = figures.figures_of(report.pop("figures"))
            worker.hear(report["instance"], report, counted)
            self._publish()

    def _retire(self, last: Figures) -> None:
        self._ended = figures.ended(self._ended, last)
        self._publish()

    def _publish(self) -> None:
        # One pointer: a scrape that came between what has ended and what goes on would see a counter go down.
        self._counted = (self._ended, *(worker.figures for worker in self._workers.values()))

    # --- what is asked, also from another thread --------------------------------------------------------------------

    def added_to(self, health: Health) -> Health:
        """Return what probes and status are answered from, with the workers in it."""
        return replace(
            health,
            live=lambda: health.live() or self._unwell(),
            workers=self._unready,
            details={
                **health.details,
                "workers": self._status,
                "streams": self._streams,
                "refusals": self._refusals,
            },
        )

    def _unready(self) -> str | None:
        """Return why a share of the port is not served: a worker that is there and does not answer."""
        silent = [each for each in self._workers.values() if each.state is State.SILENT]
        return "; ".join(map(_silence_of, silent)) or None

    def _unwell(self) -> str | None:
        """Return why the process had better be replaced: a worker that is silent and cannot be."""
        there = [each for each in self._workers.values() if each.state is State.SILENT]
        return "; ".join(_silence_of(each) for each in there if each.silence_s() > LOST_AFTER_S) or None

    def _status(self) -> list[dict[str, Any]]:
        own = {
            "number": 0,
            "pid": os.getpid(),
            "state": State.RUNNING,
            "starts": 1,
            "request_ids": PROCESS,
            "lag_s": self._heartbeat.lag_s,
            "requests": self._own_requests(),
            "streams": self._own_streams(),
        }
        return [own, *map(_shown, self._workers.values())]

    def _streams(self) -> dict[str, int]:
        total = Counter(self._own_streams())
        for worker in self._workers.values():
            total.update(worker.told.get("streams", {}))
        return dict(total)

    def _refusals(self) -> dict[str, float]:
        metrics, others = self._metrics, self._figures()

        def elsewhere(family: str) -> float:
            return sum(sum(each.of(family).values()) for each in others)

        return {
            "configurations": metrics.refused_configs.total() + elsewhere(metrics.refused_configs.name),
            "keys": metrics.refused_keys.total() + elsewhere(metrics.refused_keys.name),
            "connections": metrics.refused_connections.total() + elsewhere(metrics.refused_connections.name),
        }

    def _figures(self) -> tuple[Figures, ...]:
        return self._counted

    def _states(self) -> Mapping[tuple[str, ...], float]:
        states = Counter([State.RUNNING, *(worker.state for worker in self._workers.values())])
        return {(state.value,): float(states[state]) for state in State}

    def _lags(self) -> Mapping[tuple[str, ...], float]:
        return {("0",): self._heartbeat.lag_s, **self._told("lag_s")}

    def _requests(self) -> Mapping[tuple[str, ...], float]:
        return {("0",): self._own_requests(), **self._told("requests")}

    def _told(self, member: str) -> Mapping[tuple[str, ...], float]:
        reports = ((each.number, each.told) for each in self._workers.values())
        return {(str(number),): float(told[member]) for number, told in reports if told}


def _silence_of(worker: Worker) -> str:
    return f"worker {worker.number} (process {worker.pid}) has not answered for {worker.silence_s():.0f} s"


def _shown(worker: Worker) -> dict[str, Any]:
    told = worker.told
    members = {name: told[name] for name in _TOLD if name in told}
    return {"number": worker.number, "pid": worker.pid, "state": worker.state, "starts": worker.starts, **members}
