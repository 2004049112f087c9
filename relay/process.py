"""The relay, assembled: what it is made of, the order in which that starts, and the order in which it ends.

Start: settings, both sockets, the data directory (locked), what an earlier process kept; then it serves at once,
marked stale, while it connects upstream. End: the phases of `relay.drain`. Every loop runs under the supervisor.
"""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import aiohttp
from starlette.routing import BaseRoute

from relay import data_dir, telemetry
from relay.changes.forward import KillForwarder
from relay.changes.kills import Kills, Serving
from relay.changes.outbox import Outbox
from relay.changes.overlay import Position
from relay.clock import Clock, SystemClock
from relay.drain import Drain, Phase
from relay.events.counters import Counters
from relay.events.forward import Forwarder
from relay.events.intake import SpoolIntake
from relay.events.spool import Spool
from relay.heartbeat import Heartbeat
from relay.metrics import RelayMetrics
from relay.protocol.keys import fingerprint
from relay.report import Report
from relay.serve.admin import LIMITS as ADMIN_LIMITS
from relay.serve.admin import AdminListener
from relay.serve.app import build_app
from relay.serve.health import build_admin
from relay.serve.kill import kill_routes
from relay.serve.lane import Lane
from relay.serve.server import HttpServer, listen, share
from relay.serve.services import serve_with
from relay.settings import RelaySettings, relay_key
from relay.supervise import Supervisor
from relay.sync.backoff import Backoff
from relay.sync.collector import collector_paused, give_back, keep_collected, own_collector
from relay.sync.follow import Follower, FollowSettings
from relay.sync.settling import Settling
from relay.sync.slices import in_slices
from relay.sync.snapshot_file import SnapshotFile, restore_steps, tenant_of
from relay.sync.store import Store
from relay.telemetry import NO_TRACING, Tracing
from relay.workers.crew import Crew
from relay.workers.figures import CombinedMetrics

logger = logging.getLogger(__name__)

# What an admin listener ever has waiting.
ADMIN_BACKLOG = 16
# After the streams have gone: for requests under way, and for connections that clients keep open.
LAST_REQUESTS_S = 1.0
FORWARD_HURRIED_S = 0.5
# The other workers go through the same phases at the same time; this is for what they have to hand over at the end.
WORKERS_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What only one process can have: opened before anything is built, so that its lack is found first."""

    serving: socket.socket
    watching: socket.socket
    relay_id: str
    spool: Spool
    outbox: Outbox


async def hold(settings: RelaySettings, clock: Clock, metrics: RelayMetrics) -> Held:
    """Take sockets and data directory.

    Raises:
        BadSettings: one of them cannot be had.
    """
    serve, admin = settings.serve, settings.admin
    with ExitStack() as undo:
        serving = undo.enter_context(listen(serve.host, serve.port, serve.backlog, "relay.serve.port"))
        if serve.workers > 1:
            share(serving)
        watching = undo.enter_context(listen(admin.host, admin.port, ADMIN_BACKLOG, "relay.admin.port"))
        relay_id, spool = await data_dir.take(settings.data.dir, settings.events, clock, metrics)
        outbox = await data_dir.open_outbox(settings.data.dir, settings.changes, spool)
        undo.pop_all()
    return Held(serving=serving, watching=watching, relay_id=relay_id, spool=spool, outbox=outbox)


class Relay:
    """One relay in the running event loop: `start` it, wait until `drain` is asked for, `stop` it."""

    def __init__(  # noqa: PLR0913 - wiring
        self,
        settings: RelaySettings,
        key: str,
        held: Held,
        metrics: RelayMetrics,
        clock: Clock,
        *,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.drain = Drain(clock)
        self.store = Store(clock, window_changes=settings.window.revisions, window_bytes=settings.window.bytes)
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._spool = held.spool
        self._heartbeat = Heartbeat(clock, metrics.loop_delay.observe, lambda: self.server.connections > 0)
        self._supervisor = Supervisor(clock, metrics.task_failures.add, metrics.task_failures.begin)
        self._counters = Counters(held.spool, settings.events, clock)
        self._services = serve_with(
            store=self.store,
            intake=SpoolIntake(held.spool, settings.events, clock, metrics),
            counters=self._counters,
            settings=settings.serve,
            clock=clock,
            metrics=metrics,
        )
        self._session = aiohttp.ClientSession()
        tenant = tenant_of(settings.upstream.url, fingerprint(key))
        self._file = SnapshotFile(settings.data.dir / "snapshot", tenant, self.store, clock)
        self._kills = Kills(
            held.outbox,
            Serving(self.store.overlays.hold, self._served, self._kept),
            relay_id=held.relay_id,
            settings=settings.changes,
            clock=clock,
            authority_ms=self._authority_ms,
            metrics=metrics,
        )
        self._kill_forwarder = KillForwarder(
            self._kills,
            self._session,
            settings.upstream,
            key=lambda: key,
            clock=clock,
            metrics=metrics,
            tracing=tracing,
        )
        more_routes = kill_routes(self._services, self._kills)
        app = build_app(self._services, more_routes=more_routes, tracing=tracing)
        lane = Lane(self._services, self._counters, settings.lane) if settings.lane.enabled else None
        self.server = HttpServer(app, held.serving, settings.serve, metrics.refused_connections, lane)
        self._follower = Follower(_follow_settings(settings, key), self.store, self._session, clock, tracing=tracing)
        self._forwarder = Forwarder(
            held.spool,
            self._session,
            settings.upstream,
            key=lambda: key,
            relay_id=held.relay_id,
            settings=settings.events,
            clock=clock,
            metrics=metrics,
            tracing=tracing,
        )
        self._report = Report(
            settings=settings,
            clock=clock,
            metrics=metrics,
            store=self.store,
            streams=self._services.streams,
            server=self.server,
            spool=held.spool,
            counters=self._counters,
            file=self._file,
            follower=self._follower,
            kills=self._kills,
            drain=self.drain,
            heartbeat=self._heartbeat,
            supervisor=self._supervisor,
        )
        self._report.wire_metrics()
        self._crew = self._assemble_crew(more_routes) if settings.serve.workers > 1 else None
        health = self._report.health()
        admin_app = build_admin(health if self._crew is None else self._crew.added_to(health), ADMIN_LIMITS)
        self.admin = AdminListener(admin_app, held.watching, metrics.refused_connections)

    async def start(self) -> None:
        """Serve, with what is there; everything else comes as it comes."""
        await self._kills.restore()
        start = self._supervisor.start
        start("heartbeat", self._heartbeat.run)
        start("report", self._report.copy_spool_figures)
        start("publisher", self._services.streams.run_publisher)
        start("stream timers", self._services.streams.run_timers)
        self.admin.start()
        await self.server.start()
        logger.info("serving", extra={"url": f"http://{self.server.host}:{self.server.port}"})
        if self._crew is not None:
            await self._crew.start(self._supervisor)
        await self._restore()
        give_back()
        start("snapshot file", self._file.run)
        start("settling", Settling(self.store, self._clock).run)
        start("collector", partial(keep_collected, self._clock.sleep))
        start("counters", self._counters.run)
        start("forwarder", self._forwarder.run)
        start("follower", self._follower.run)
        start("kills", self._kills.run)
        start("overlays", self.store.overlays.run)
        start("kill forwarder", self._kill_forwarder.run)

    async def stop(self) -> None:
        """Go through the phases of the drain, and let go of everything."""
        if self._crew is not None:
            self._crew.begin_drain(self.drain)
        await self.drain.run(self._phases())
        await self._supervisor.stop()
        if self._crew is not None:
            await self._crew.stop()
        await self._file.flush()
        await self._spool.close()
        self._services.streams.close()
        await self._session.close()
        self.admin.stop()
        logger.info("stopped")

    def _phases(self) -> Sequence[Phase]:
        drain = self._settings.drain
        streams_s = drain.window_s + LAST_REQUESTS_S
        workers_end_s = self._clock.monotonic() + drain.accept_s + streams_s + WORKERS_S

        async def close_listener(_limit_s: float) -> None:
            await self.server.stop_accepting()

        async def send_streams_away(limit_s: float) -> None:
            await self._services.streams.goodbye_all("drain", limit_s)

        async def wait_for_workers(limit_s: float) -> None:
            if self._crew is not None:
                # They may have streams to send away for longer than this process had, but began together with it.
                await self._crew.gone(min(limit_s, max(WORKERS_S, workers_end_s - self._clock.monotonic())))

        async def hand_over(limit_s: float) -> None:
            await self._supervisor.stop("follower", "counters")
            await self._counters.flush()
            await self._supervisor.stop("forwarder")
            left = await self._forwarder.flush(limit_s)
            if left:
                logger.info("records stay on disk for the next start", extra={"records": left})

        return (
            Phase("accepting", drain.accept_s, self.drain.wait),
            Phase("closing the listener", 0, close_listener),
            Phase("sending streams away", drain.window_s, send_streams_away),
            Phase("ending requests", LAST_REQUESTS_S, self.server.stop, hurried_s=LAST_REQUESTS_S),
            Phase("waiting for the other workers", streams_s + WORKERS_S, wait_for_workers, hurried_s=WORKERS_S),
            Phase("handing over events", drain.forward_s, hand_over, hurried_s=FORWARD_HURRIED_S),
        )

    def _assemble_crew(self, kill_here: Sequence[BaseRoute]) -> Crew:
        if not isinstance(self._metrics, CombinedMetrics):
            message = "several workers need metrics that add up"
            raise TypeError(message)
        return Crew(
            self._settings,
            self.server.port,
            services=self._services,
            spool=self._spool,
            kill_routes=kill_here,
            metrics=self._metrics,
            heartbeat=self._heartbeat,
            clock=self._clock,
        )

    def _authority_ms(self) -> int:
        known = self._follower.authority_ms()
        return self._clock.wall_ms() if known is None else known

    def _served(self, environment_id: str) -> Position | None:
        configuration = self.store.get(environment_id)
        return None if configuration is None else Position(configuration.state.epoch, configuration.revision)

    def _kept(self, environment_id: str) -> Position | None:
        kept = self._file.kept.get(environment_id)
        return None if kept is None else Position(*kept)

    async def _restore(self) -> None:
        """Put into the store what an earlier process kept; requests are answered meanwhile."""
        loaded = await in_slices(self._file.load_steps())
        for problem in loaded.problems:
            # At the first start there is none, which is no news; one that cannot be used is.
            level = logging.DEBUG if problem.endswith("there is none") else logging.WARNING
            logger.log(level, "snapshot file passed over", extra={"problem": problem})
        if loaded.content is None:
            return
        with collector_paused(sum(len(state.flags) for state in loaded.content.states)):
            problems = await in_slices(restore_steps(loaded.content, self.store))
        for problem in problems:
            logger.warning("snapshot file: an environment cannot be used", extra={"problem": problem})
        logger.info("serving from the snapshot file", extra={"environments": len(self.store.configurations)})


def _follow_settings(settings: RelaySettings, key: str) -> FollowSettings:
    link = settings.upstream
    return FollowSettings(
        upstream_url=link.url,
        relay_key=key,
        backoff=Backoff(link.backoff_min_s, link.backoff_max_s),
        dead_after_s=link.dead_after_s,
        connect_timeout_s=link.connect_timeout_s,
        max_message_bytes=link.max_message_bytes,
    )


async def run(settings: RelaySettings) -> None:
    """Be a relay until a signal ends it.

    Raises:
        BadSettings: something that the settings name cannot be used.
    """
    # What was loaded until now lives as long as the process; a collection need not look at it. Before the sockets are
    # there, as whoever connects waits for it.
    own_collector()
    clock, key = SystemClock(), relay_key(settings)
    metrics = CombinedMetrics() if settings.serve.workers > 1 else RelayMetrics()
    metrics.watch_process()
    telemetry.check(settings.otel)
    held = await hold(settings, clock, metrics)
    exporting = telemetry.start(settings.otel, metrics, held.relay_id)
    tracing = NO_TRACING if exporting is None else exporting.tracing
    relay = Relay(settings, key, held, metrics, clock, tracing=tracing)
    relay.drain.own_signals()
    await relay.start()
    await relay.drain.asked()
    await relay.stop()
    if exporting is not None:
        await asyncio.to_thread(exporting.stop)
