"""The upstream, assembled: what it is made of, the order in which that starts, and the order in which it ends.

Start: the socket, the data directory (locked), migrations, the store filled from the change log, then the listener:
nothing is answered before everything committed is known. End: the phases of `relay.drain`. Every loop runs under the
supervisor.
"""

import gc
import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from relay.clock import Clock, SystemClock
from relay.drain import Drain, Phase
from relay.errors import BadSettings
from relay.events.counters import Counters
from relay.heartbeat import Heartbeat
from relay.metrics import RelayMetrics
from relay.report import environment_name, process_fault, wire_process
from relay.serve.health import Health
from relay.serve.server import HttpServer, listen
from relay.serve.services import serve_with
from relay.settings import Events
from relay.supervise import Supervisor
from relay.sync.gaps import GapBook
from relay.sync.store import Store, Swap
from relay.version import VERSION
from upstream import data_dir
from upstream.api.accounts import SetupToken
from upstream.api.passwords import Passwords
from upstream.app import build_upstream
from upstream.authority import Authority, SystemEntropy
from upstream.first_start import setup_token
from upstream.ingest import StoredCounts, StoredIntake
from upstream.notifier import Feed, Notifier, StoredHistory
from upstream.scheduler import Scheduler
from upstream.sealing import Sealer
from upstream.settings import UpstreamSettings
from upstream.storage.database import Database, Unavailable

if TYPE_CHECKING:
    from upstream.redis_wakes import RedisWakes

logger = logging.getLogger(__name__)

HOUSEKEEPING_S = 60.0
DAY_MS = 86_400_000
LAST_REQUESTS_S = 1.0
COUNTS_HURRIED_S = 0.5


class Upstream:
    """One upstream in the running event loop: `start` it, wait until `drain` is asked for, `stop` it."""

    def __init__(  # noqa: PLR0913 - the parts, one by one
        self,
        settings: UpstreamSettings,
        *,
        database: Database,
        passwords: Passwords,
        listener: socket.socket,
        clock: Clock,
        setup: SetupToken | None = None,
    ) -> None:
        self.drain = Drain(clock)
        self._settings = settings
        self._database = database
        self._clock = clock
        self._metrics = RelayMetrics("upstream")
        self._heartbeat = Heartbeat(clock, self._metrics.loop_delay.observe, lambda: self.server.connections > 0)
        self._supervisor = Supervisor(clock, self._metrics.task_failures.add, self._metrics.task_failures.begin)
        notifier = Notifier()
        self._redis_wakes = _redis_wakes(settings, notifier, clock)
        waker = self._redis_wakes or notifier
        self._sealer = Sealer(database, clock)
        self._authority = Authority(database, clock, SystemEntropy(), waker, self._sealer.wake)
        self._scheduler = Scheduler(database, self._authority, clock)
        window = settings.window
        self._store = Store(
            clock,
            window_changes=window.revisions,
            window_bytes=window.bytes,
            max_environments=window.environments,
            # Most environments are only streamed from here; relays evaluate them.
            compile_ahead=False,
        )
        self._feed = Feed(database, self._store, notifier, clock)
        self._counters = Counters(StoredCounts(database), Events(), clock)
        self._services = serve_with(
            store=self._store,
            intake=StoredIntake(database, clock, self._metrics),
            counters=self._counters,
            settings=settings.serve,
            clock=clock,
            metrics=self._metrics,
            history=StoredHistory(database),
        )
        app = build_upstream(
            settings=settings,
            services=self._services,
            health=self._health(),
            authority=self._authority,
            database=database,
            passwords=passwords,
            signing_key=data_dir.signing_key(settings),
            clock=clock,
            metrics=self._metrics,
            setup=setup,
        )
        self.server = HttpServer(app, listener, settings.serve, self._metrics.refused_connections)
        self._wire_metrics()

    async def start(self) -> None:
        """Fill the store, then serve."""
        await self._feed.load()
        start = self._supervisor.start
        start("heartbeat", self._heartbeat.run)
        start("feed", self._feed.run)
        start("publisher", self._services.streams.run_publisher)
        start("stream timers", self._services.streams.run_timers)
        start("counters", self._counters.run)
        start("audit seals", self._sealer.run)
        start("housekeeping", self._keep_house)
        start("schedules", self._scheduler.run)
        if self._redis_wakes is not None:
            start("redis speaking", self._redis_wakes.run_speaking)
            start("redis listening", self._redis_wakes.run_listening)
        await self.server.start()
        # What was loaded until now lives as long as the process; a collection need not look at it.
        gc.collect()
        gc.freeze()
        logger.info("serving", extra={"url": f"http://{self.server.host}:{self.server.port}"})

    async def stop(self) -> None:
        """Go through the phases of the drain, and let go of everything."""
        await self.drain.run(self._phases())
        await self._supervisor.stop()
        if self._redis_wakes is not None:
            await self._redis_wakes.close()
        self._services.streams.close()
        logger.info("stopped")

    def _phases(self) -> Sequence[Phase]:
        drain = self._settings.drain

        async def close_listener(_limit_s: float) -> None:
            await self.server.stop_accepting()

        async def send_streams_away(limit_s: float) -> None:
            await self._services.streams.goodbye_all("drain", limit_s)
            await self.server.stop(LAST_REQUESTS_S)

        async def store_counts(_limit_s: float) -> None:
            await self._supervisor.stop("counters")
            await self._counters.flush()

        return (
            Phase("accepting", drain.accept_s, self.drain.wait),
            Phase("closing the listener", 0, close_listener),
            Phase("sending streams away", drain.window_s, send_streams_away),
            Phase("storing counts", drain.forward_s, store_counts, hurried_s=COUNTS_HURRIED_S),
        )

    async def _keep_house(self) -> None:
        """Let go of what is beyond its retention, and take expired keys out of the streams; for ever."""
        retention = self._settings.retention
        while True:
            try:
                await self._authority.keep_house(
                    keep_ms=round(retention.stream_days * DAY_MS),
                    keep_revisions=retention.stream_revisions,
                    keep_idempotency_ms=retention.idempotency_s * 1_000,
                    keep_batches_ms=round(retention.batches_days * DAY_MS),
                    keep_events_ms=round(retention.events_days * DAY_MS),
                )
            except Unavailable as error:
                logger.warning("housekeeping has to wait for the database", extra={"reason": str(error)})
            await self._clock.sleep(HOUSEKEEPING_S)

    def _health(self) -> Health:
        return Health(
            version=VERSION,
            store=self._store,
            streams=self._services.streams,
            metrics=self._metrics,
            clock=self._clock,
            live=lambda: process_fault(self._heartbeat, self._supervisor),
            listener=lambda: None if self.server.is_accepting else "the listener is closed",
            is_draining=lambda: self.drain.is_draining,
            is_authority=True,
            details={"drain": lambda: self.drain.phase, "refused": lambda: len(self._feed.refused)},
        )

    def _wire_metrics(self) -> None:
        """Let the families that have an owner be read from it."""
        metrics, store = self._metrics, self._store
        metrics.config_revision.read_from(
            lambda: {(environment_name(each.ref),): each.revision for each in store.configurations.values()}
        )
        metrics.gaps.read_from(GapBook(store).counts)
        metrics.refused_configs.read_from(lambda: len(self._feed.refused))
        metrics.watch_process()
        wire_process(metrics, self._heartbeat)
        store.subscribe(self._count_swap)

    def _count_swap(self, swap: Swap) -> None:
        if swap.after is not None:
            self._metrics.swaps.add(environment_name(swap.after.ref))


def _redis_wakes(settings: UpstreamSettings, ours: Notifier, clock: Clock) -> "RedisWakes | None":
    """Return what tells other upstreams of commits, where Redis is configured.

    Raises:
        BadSettings: it cannot be used, whatever Redis does.
    """
    url = settings.redis.url
    if url is None:
        return None
    try:
        from upstream.redis_wakes import RedisWakes, connect  # noqa: PLC0415 - most installations have no Redis

        return RedisWakes(connect(url.get_secret_value()), settings.redis.channel, ours, clock)
    except ImportError as error:
        raise BadSettings([f"upstream.redis.url: {error}; pip install 'halyard[upstream]'"]) from error
    except ValueError as error:
        raise BadSettings([f"upstream.redis.url: {error}"]) from error


async def run(settings: UpstreamSettings) -> None:
    """Be an upstream until a signal ends it.

    Raises:
        BadSettings: something that the settings name cannot be used.
    """
    clock = SystemClock()
    serve = settings.serve
    with ExitStack() as held:
        listener = held.enter_context(listen(serve.host, serve.port, serve.backlog, "upstream.serve.port"))
        held.enter_context(data_dir.taken(settings.data.dir))
        database = held.enter_context(closing(data_dir.open_stored(settings, clock)))
        passwords = held.enter_context(closing(Passwords()))
        setup = await setup_token(settings.data.dir, database)
        upstream = Upstream(
            settings, database=database, passwords=passwords, listener=listener, clock=clock, setup=setup
        )
        upstream.drain.own_signals()
        await upstream.start()
        await upstream.drain.asked()
        await upstream.stop()
