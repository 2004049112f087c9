"""A worker other than the first: serves clients from a configuration of its own, and leaves all else to worker 0.

It follows worker 0 as a relay follows its upstream, opens its share of the port once it has what worker 0 has, says
every second how it is, and ends in the phases of a drain when it is told to. It has no data directory, no admin port
and no way to the upstream.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Final

import aiohttp
import orjson

from relay.clock import Clock
from relay.drain import Drain, Phase
from relay.events.counters import Counters
from relay.heartbeat import Heartbeat
from relay.metrics import RelayMetrics
from relay.serve.app import build_app
from relay.serve.guard import PROCESS
from relay.serve.lane import Lane
from relay.serve.server import HttpServer, listen
from relay.serve.services import serve_with
from relay.supervise import Supervisor
from relay.sync.backoff import Backoff
from relay.sync.collector import give_back, keep_collected, own_collector
from relay.sync.follow import Follower, FollowSettings
from relay.sync.settling import Settling
from relay.sync.store import Store
from relay.workers import figures
from relay.workers.link import FIGURES_PATH, REPORT_EVERY_S, SECRET_HEADER, Start
from relay.workers.remote import ORIGIN, RemoteIntake, RemoteKill, RemoteSink

logger = logging.getLogger(__name__)

LAST_REQUESTS_S: Final = 1.0
HANDED_OVER_WITHIN_S: Final = 2.0
_REPORT_TIMEOUT: Final = aiohttp.ClientTimeout(total=5)
_BACKOFF: Final = Backoff(0.05, 0.5)


class Child:
    """One worker in the running event loop: `start` it, wait until `drain` is asked for, `stop` it."""

    def __init__(self, start: Start, clock: Clock) -> None:
        settings = start.settings
        self.drain = Drain(clock)
        self._start = start
        self._clock = clock
        self._metrics = RelayMetrics()
        self._heartbeat = Heartbeat(clock, self._metrics.loop_delay.observe, lambda: self._connections() > 0)
        self._supervisor = Supervisor(clock, self._metrics.task_failures.add, self._metrics.task_failures.begin)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(start.socket),
            headers={SECRET_HEADER: start.secret},
        )
        self._store = Store(clock, window_changes=settings.window.revisions, window_bytes=settings.window.bytes)
        self._sink = RemoteSink(self._session, clock)
        self._counters = Counters(self._sink, settings.events, clock)
        self._services = serve_with(
            store=self._store,
            intake=RemoteIntake(self._session, clock),
            counters=self._counters,
            settings=settings.serve,
            clock=clock,
            metrics=self._metrics,
        )
        kills = RemoteKill(self._session, self._store.overlays, settings.serve.limits)
        self._app = build_app(self._services, more_routes=kills.routes())
        self._follower = Follower(_follow_settings(start), self._store, self._session, clock)
        self._server: HttpServer | None = None
        self._wire_metrics()

    def _wire_metrics(self) -> None:
        """Let the families whose sum over all workers makes sense be read from their owners."""
        metrics, serve = self._metrics, self._start.settings.serve
        metrics.loop_lag.read_value_from(lambda: self._heartbeat.lag_s)
        metrics.loop_lag_max.read_value_from(lambda: self._heartbeat.longest_lag_s)
        metrics.connections.read_value_from(self._connections)
        metrics.connections_limit.read_value_from(lambda: serve.limits.connections)
        metrics.streams_blocked.read_value_from(lambda: self._services.streams.blocked)
        metrics.streams_limit.read_value_from(lambda: serve.streams.total)

    def _connections(self) -> int:
        return 0 if self._server is None else self._server.connections

    async def start(self) -> None:
        """Follow, and serve as soon as there is what worker 0 has."""
        start = self._supervisor.start
        start("heartbeat", self._heartbeat.run)
        start("publisher", self._services.streams.run_publisher)
        start("stream timers", self._services.streams.run_timers)
        start("settling", Settling(self._store, self._clock).run)
        start("collector", partial(keep_collected, self._clock.sleep))
        start("counters", self._counters.run)
        start("overlays", self._store.overlays.run)
        start("follower", self._follower.run)
        start("report", self._report_for_ever)
        if await self._synced():
            await self._serve()

    async def stop(self) -> None:
        """Go through the phases of the drain, and let go of everything."""
        await self.drain.run(self._phases())
        await self._supervisor.stop()
        await self._session.close()

    async def _synced(self) -> bool:
        """Return whether there is something to serve; false when it is time to go first."""
        synced = asyncio.ensure_future(self._follower.first_sync.wait())
        asked = asyncio.ensure_future(self.drain.asked())
        try:
            await asyncio.wait((synced, asked), return_when=asyncio.FIRST_COMPLETED)
            return not self.drain.is_draining
        finally:
            synced.cancel()
            asked.cancel()

    async def _serve(self) -> None:
        serve = self._start.settings.serve
        listener = listen(serve.host, serve.port, serve.backlog, "relay.serve.port", is_shared=True)
        settings = self._start.settings.lane
        lane = Lane(self._services, self._counters, settings) if settings.enabled else None
        self._server = HttpServer(self._app, listener, serve, self._metrics.refused_connections, lane)
        await self._server.start()
        # What was loaded until now lives as long as the process; a collection need not look at it.
        own_collector()
        give_back()
        logger.info("serving", extra={"url": f"http://{self._server.host}:{self._server.port}"})
        await self._report()

    def _phases(self) -> Sequence[Phase]:
        drain = self._start.settings.drain

        async def close_listener(_limit_s: float) -> None:
            if self._server is not None:
                await self._server.stop_accepting()

        async def send_streams_away(limit_s: float) -> None:
            await self._services.streams.goodbye_all("drain", limit_s)

        async def end_requests(limit_s: float) -> None:
            if self._server is not None:
                await self._server.stop(limit_s)

        async def hand_over(_limit_s: float) -> None:
            await self._supervisor.stop("follower", "counters")
            await self._counters.flush()
            await self._sink.settled()
            await self._report()

        return (
            Phase("accepting", drain.accept_s, self.drain.wait),
            Phase("closing the listener", 0, close_listener),
            Phase("sending streams away", drain.window_s, send_streams_away),
            Phase("ending requests", LAST_REQUESTS_S, end_requests, hurried_s=LAST_REQUESTS_S),
            Phase("handing over counts", HANDED_OVER_WITHIN_S, hand_over, hurried_s=HANDED_OVER_WITHIN_S),
        )

    # --- what worker 0 is told --------------------------------------------------------------------------------------

    async def _report_for_ever(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):  # worker 0 notices the silence
                await self._report()
            if failing := self._supervisor.failing():
                logger.critical("this worker cannot go on and is replaced", extra={"failing": failing})
                self.drain.begin(hurry=True)
            await self._clock.sleep(REPORT_EVERY_S)

    async def _report(self) -> None:
        server = self._server
        report = {
            "number": self._start.number,
            "instance": self._start.instance,
            "pid": os.getpid(),
            "accepting": server is not None and server.is_accepting,
            "lag_s": self._heartbeat.lag_s,
            "request_ids": PROCESS,
            "requests": self._metrics.requests.total(),
            "streams": self._services.streams.counts(),
            "revisions": {each: held.revision for each, held in self._store.configurations.items()},
            "figures": figures.take(self._metrics).as_json(),
        }
        url = ORIGIN + FIGURES_PATH
        async with self._session.post(url, data=orjson.dumps(report), timeout=_REPORT_TIMEOUT) as answer:
            held = orjson.loads(await answer.read())
        if held.get("environments") == []:
            # A stream of nothing is none at all, so nothing else would tell of the last environment's end.
            for environment_id in tuple(self._store.configurations):
                self._store.remove(environment_id)


def _follow_settings(start: Start) -> FollowSettings:
    return FollowSettings(
        upstream_url=ORIGIN,
        relay_key="worker",  # what opens the stream is the session's secret
        backoff=_BACKOFF,
        dead_after_s=start.settings.upstream.dead_after_s,
        key_refused_retry_s=1.0,
        retry_after_max_s=0.2,
        max_message_bytes=start.settings.upstream.max_message_bytes,
    )
