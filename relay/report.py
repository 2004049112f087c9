"""What a running relay says of itself: health, status, and the metrics that are read from their owners.

Only reads. Everything here is called from the admin listener's thread as well, so it touches immutable values, single
attributes and copies; the spool's figures are copied on the main loop.
"""

import logging
from dataclasses import asdict, dataclass, field
from typing import Any

from relay import machine
from relay.changes.kills import Kills
from relay.clock import Clock, parse_rfc3339_ms
from relay.drain import Drain
from relay.events.counters import Counters
from relay.events.spool import Spool, SpoolStats
from relay.heartbeat import Heartbeat
from relay.metrics import RelayMetrics
from relay.protocol.changes import Cause, EnvironmentRef
from relay.serve.broadcast import Broadcast
from relay.serve.health import Health, readiness
from relay.serve.server import HttpServer
from relay.settings import RelaySettings
from relay.supervise import Supervisor
from relay.sync.follow import Follower
from relay.sync.gaps import GapBook
from relay.sync.snapshot_file import SnapshotFile
from relay.sync.store import Store, Swap
from relay.version import VERSION

logger = logging.getLogger(__name__)

SPOOL_COPIED_EVERY_S = 1.0


def process_fault(heartbeat: Heartbeat, supervisor: Supervisor) -> str | None:
    """Return why the process had better be replaced; None when it is well."""
    if not heartbeat.alive:
        return f"the event loop has not turned for {heartbeat.silence_s():.0f} s"
    return "; ".join(f"{task}: {error}" for task, error in supervisor.failing().items()) or None


def environment_name(ref: EnvironmentRef) -> str:
    """Return how an environment is called in metrics."""
    return f"{ref.project_key}/{ref.key}"


def wire_process(metrics: RelayMetrics, heartbeat: Heartbeat) -> None:
    """Let what the process and its machine tell be shown."""
    metrics.loop_lag.read_value_from(lambda: heartbeat.lag_s)
    metrics.loop_lag_max.read_value_from(lambda: heartbeat.longest_lag_s)
    metrics.threads.read_from(machine.threads)
    metrics.memory_limit.read_from(machine.memory_limit)
    metrics.build_info.read_from(machine.build)


@dataclass(slots=True, kw_only=True)
class Report:
    """The parts that are reported on."""

    settings: RelaySettings
    clock: Clock
    metrics: RelayMetrics
    store: Store
    streams: Broadcast
    server: HttpServer
    spool: Spool
    counters: Counters
    file: SnapshotFile
    follower: Follower
    kills: Kills
    drain: Drain
    heartbeat: Heartbeat
    supervisor: Supervisor
    _spool_stats: SpoolStats = field(init=False)

    def __post_init__(self) -> None:
        self._spool_stats = self.spool.stats()

    async def copy_spool_figures(self) -> None:
        """Keep a copy of the spool's figures that other threads may read; for ever."""
        is_failing = False
        while True:
            try:
                self._spool_stats = await self.spool.measure()
            except OSError as error:
                if not is_failing:
                    logger.warning("the spool's figures are incomplete: the disk cannot be read", exc_info=error)
                is_failing = True
                self._spool_stats = self.spool.stats()
            else:
                is_failing = False
            await self.clock.sleep(SPOOL_COPIED_EVERY_S)

    def health(self) -> Health:
        """Return what probes and status are answered from."""
        return Health(
            version=VERSION,
            store=self.store,
            streams=self.streams,
            metrics=self.metrics,
            clock=self.clock,
            live=lambda: process_fault(self.heartbeat, self.supervisor),
            listener=lambda: None if self.server.is_accepting else "the listener is closed",
            spool=self._spool_fault,
            refused=self._refused,
            expected=self._expected,
            is_draining=lambda: self.drain.is_draining,
            max_stale_s=self.settings.admin.max_stale_s,
            details={
                "drain": lambda: self.drain.phase,
                "follower": self._follower_status,
                "outbox": self.kills.outbox_status,
                "overlays": self.kills.status,
                "spool": lambda: asdict(self._spool_stats),
            },
        )

    def _expected(self) -> frozenset[str]:
        """Return what must be there; what cannot be used is reported, and does not keep the rest from being served."""
        refused = {each for each in self.follower.refusals if each is not None}
        return (self.store.covered or frozenset()) - refused

    def wire_metrics(self) -> None:
        """Let the families that have an owner be read from it."""
        self._wire_configuration()
        self._wire_serving()
        self._wire_events()
        wire_process(self.metrics, self.heartbeat)

    def _wire_configuration(self) -> None:
        metrics, store, follower, health = self.metrics, self.store, self.follower, self.health()
        metrics.ready.read_value_from(lambda: float(readiness(health)[0]))
        metrics.environments.read_value_from(lambda: len(store.configurations))
        metrics.environments_lacking.read_value_from(lambda: len(store.lacking))
        metrics.config_revision.read_from(
            lambda: {(environment_name(each.ref),): each.revision for each in store.configurations.values()}
        )
        metrics.config_age.read_from(self._ages)
        metrics.gaps.read_from(GapBook(store).counts)
        metrics.refused_configs.read_from(lambda: follower.stats.refused)
        metrics.refusals.read_value_from(lambda: len(follower.refusals))
        metrics.resyncs.read_each_from(
            lambda: {(cause,): follower.stats.resync_causes[cause] for cause in map(str, Cause)}
        )
        metrics.listener_failures.read_from(lambda: store.listener_failures)
        metrics.connects.read_from(lambda: follower.stats.connections)
        metrics.upstream_connected.read_value_from(lambda: float(follower.connected))
        metrics.snapshot_writes.read_from(lambda: self.file.writes)
        metrics.snapshot_failures.read_from(lambda: self.file.failures)
        metrics.overlays.read_from(self.kills.counts)
        store.subscribe(self._count_swap)

    def _wire_serving(self) -> None:
        metrics, serve = self.metrics, self.settings.serve
        metrics.streams_blocked.read_value_from(lambda: self.streams.blocked)
        metrics.streams_limit.read_value_from(lambda: serve.streams.total)
        metrics.connections.read_value_from(lambda: self.server.connections)
        metrics.connections_limit.read_value_from(lambda: serve.limits.connections)

    def _wire_events(self) -> None:
        metrics, limit_bytes = self.metrics, self.settings.events.spool_bytes
        metrics.spool_bytes.read_value_from(lambda: self._spool_stats.bytes)
        metrics.spool_limit_bytes.read_value_from(lambda: limit_bytes)
        metrics.spool_records.read_value_from(lambda: self._spool_stats.records)
        metrics.spool_oldest.read_value_from(lambda: self._spool_stats.oldest_age_s or 0.0)
        metrics.spool_quarantine_bytes.read_value_from(lambda: self._spool_stats.quarantine_bytes)
        metrics.spool_writable.read_value_from(lambda: float(self._spool_stats.is_writable))
        metrics.counter_rows.read_value_from(lambda: self.counters.rows)
        metrics.counts_lost.read_from(lambda: self.counters.lost)

    def _ages(self) -> dict[tuple[str, ...], float]:
        """Return the age by environment; nothing while upstream has never confirmed what is held."""
        age_s = self.store.age_s()
        if age_s is None:
            return {}
        return {(environment_name(each.ref),): age_s for each in self.store.configurations.values()}

    def _count_swap(self, swap: Swap) -> None:
        if swap.after is not None:
            self.metrics.swaps.add(environment_name(swap.after.ref))
        if swap.changes is None:
            return
        try:
            committed_ms = parse_rfc3339_ms(swap.changes.committed_at)
        except (ValueError, OverflowError):
            # A change is none the worse for a time that cannot be read; it only cannot be measured.
            return
        self.metrics.apply_latency.observe(max(0, self.clock.wall_ms() - committed_ms) / 1000)

    def _spool_fault(self) -> str | None:
        stats = self._spool_stats
        if stats.failure is not None:
            return stats.failure
        return "the spool is full" if stats.is_full else None

    def _refused(self) -> str | None:
        refusals = tuple(self.follower.refusals.values())
        if not refusals:
            return None
        first = refusals[0]
        where = "a message" if first.environment_id is None else f"environment {first.environment_id}"
        others = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        return f"{where} at {first.path}: {first.reason}{others}"

    def _follower_status(self) -> dict[str, Any]:
        follower = self.follower
        return {
            "upstream": self.settings.upstream.url,
            "connected": follower.connected,
            "last_error": follower.last_error,
            "refused": [asdict(each) for each in tuple(follower.refusals.values())],
        }
