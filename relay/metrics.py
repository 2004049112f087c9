"""What one process counts and shows on `/metrics`.

Owns a registry of its own, so that two services or two tests in one process never mix. Counting is an addition in a
dictionary, cheap enough for the request path; the Prometheus families are built when somebody looks, also from the
admin listener's thread. Every family has a named maximum of series: what comes beyond it is summed under `other`.
Never holds a key, a context, a flag's value or anything else that a caller chose freely.
"""

import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MAX_SERIES = 1_000
LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Stalls of the event loop matter from 20 ms on, and a loop that turns is late by less than 1 ms.
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

Reading = Mapping[tuple[str, ...], float]


class Tally:
    """A counter with labels. `add` is called on the request path and must stay this small."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), max_series: int = MAX_SERIES) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self._max_series = max_series
        self._counts: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, *labels: str, n: float = 1) -> None:
        """Count `n` more under these label values."""
        counts = self._counts
        if labels not in counts and len(counts) >= self._max_series:
            labels = ("other",) * len(self.labels)
        counts[labels] = counts.get(labels, 0) + n

    def begin(self, *labels: str) -> None:
        """Show these label values from now on, at 0: Prometheus sees no increase in a series that begins at 1."""
        self.add(*labels, n=0)

    def value(self, *labels: str) -> float:
        """Return what was counted under these label values."""
        return self._counts.get(labels, 0)

    def total(self) -> float:
        """Return the sum over all label values."""
        return sum(self._counts.copy().values())

    def family(self) -> Metric:
        """Return what a scrape shows."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, count in sorted(self._counts.copy().items()):
            family.add_metric(labels, count)
        return family


class Gauge:
    """A value with labels that is read from its owner when somebody looks, never copied around."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = (), max_series: int = MAX_SERIES) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self._max_series = max_series
        self._read: Callable[[], Reading] = dict

    def read_from(self, read: Callable[[], Reading]) -> None:
        """Name the owner of the value. `read` may be called from another thread."""
        self._read = read

    def read_value_from(self, read: Callable[[], float]) -> None:
        """Name the owner of a value without labels."""
        self._read = lambda: {(): read()}

    def family(self) -> Metric:
        """Return what a scrape shows."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, value in sorted(self._read().items())[: self._max_series]:
            family.add_metric(labels, value)
        return family


class OwnedCount:
    """A counter that its owner keeps, and that is read when somebody looks. Its owner bounds what labels there are."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self._read: Callable[[], Reading] = lambda: {} if labels else {(): 0}

    def read_from(self, read: Callable[[], float]) -> None:
        """Name the owner of the count. `read` may be called from another thread."""
        self._read = lambda: {(): read()}

    def read_each_from(self, read: Callable[[], Reading]) -> None:
        """Name the owner of a count with labels. `read` may be called from another thread."""
        self._read = read

    def total(self) -> float:
        """Return the count, over all labels."""
        return sum(self._read().values())

    def family(self) -> Metric:
        """Return what a scrape shows."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.labels)
        for labels, count in sorted(self._read().items()):
            family.add_metric(labels, count)
        return family


class Distribution:
    """A histogram without labels. Counted on one thread; a scrape on another may find one more in the sum."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self.name = name
        self.documentation = documentation
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, n: int = 1) -> None:
        """Count `n` observations of `value`; a publish to many clients is one call."""
        self._counts[bisect.bisect_left(self._bounds, value)] += n
        self._sum += value * n

    def count(self) -> int:
        """Return how many observations there were."""
        return sum(self._counts)

    def family(self) -> Metric:
        """Return what a scrape shows: cumulative buckets up to +Inf."""
        seen, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts.copy(), strict=True):
            seen += count
            buckets.append((bound, float(seen)))
        family = HistogramMetricFamily(self.name, self.documentation)
        family.add_metric((), buckets, self._sum)
        return family


class RelayMetrics(Collector):
    """Every family that the serving process shows. The upstream, which mounts the same app, has one of its own.

    Args:
        service: `relay` or `upstream`; the families are called `halyard_{service}_…`.
    """

    def __init__(self, service: str = "relay") -> None:
        name = f"halyard_{service}_{{}}".format
        self._add_serving(name)
        self._add_configuration(name)
        self._add_events(name)
        self._add_process(name)
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def _add_serving(self, name: Callable[[str], str]) -> None:
        """Declare what tells how clients are served."""
        self.requests = Tally(name("requests"), "Answered requests by route class and status.", ("route", "status"))
        self.evaluations = Tally(name("evaluations"), "Evaluated flags by way of asking.", ("source",))
        self.lane_answers = Tally(
            name("lane_answers"), "Requests answered in the hot lane, by route and outcome.", ("route", "outcome")
        )
        self.refused_keys = Tally(
            name("refused_keys"), "Requests whose credential was refused, by reason.", ("reason",)
        )
        self.refused_connections = Tally(
            name("refused_connections"), "Connections ended for breaking a limit, by limit.", ("limit",)
        )
        self.connections = Gauge(name("connections_open"), "Connections of clients that are open now.")
        self.connections_limit = Gauge(name("connections_limit"), "Most connections of clients; more are refused.")
        self.streams_opened = Tally(name("streams_opened"), "Streams begun, by kind.", ("kind",))
        self.goodbyes = Tally(name("goodbyes"), "Streams ended by this side, by kind and reason.", ("kind", "reason"))
        self.streams_open = Gauge(name("streams_open"), "Streams open now, by kind.", ("kind",))
        self.streams_postponed = Tally(
            name("streams_postponed"), "Streams sent away because too many were being opened at once."
        )
        self.coalesced_updates = Tally(
            name("coalesced_updates"), "Changes told together with earlier ones to a client that was behind."
        )
        self.streams_blocked = Gauge(name("streams_blocked"), "Streams whose client takes nothing at the moment.")
        self.streams_limit = Gauge(name("streams_limit"), "Most open streams; more are refused.")
        self.change_latency = Distribution(
            name("change_latency_seconds"), "From the commit of a change at the authority to its write to a client."
        )

    def _add_configuration(self, name: Callable[[str], str]) -> None:
        """Declare what tells of the configuration and of the link it comes by."""
        self.ready = Gauge(name("ready"), "1 while the readiness probe says yes.")
        self.environments = Gauge(name("environments"), "Environments that are served.")
        self.environments_lacking = Gauge(
            name("environments_lacking"), "Environments that the key covers and of which nothing is held."
        )
        self.config_revision = Gauge(name("config_revision"), "Revision in use.", ("environment",))
        self.config_age = Gauge(
            name("config_age_seconds"), "Time since the authority last confirmed the configuration.", ("environment",)
        )
        self.gaps = Gauge(
            name("config_gaps"),
            "Rules and flags set aside in the configuration: unknown_operator, unusable_segment, missing_prerequisite, "
            "unsettled_prerequisites.",
            ("environment", "kind"),
        )
        self.swaps = Tally(name("config_swaps"), "Configurations put into use.", ("environment",))
        self.apply_latency = Distribution(
            name("apply_latency_seconds"), "From the commit of a change at the authority to its use here."
        )
        self.refused_configs = OwnedCount(name("config_refused"), "Messages refused; the last good one stays.")
        self.refusals = Gauge(
            name("config_refusals"), "Configurations that are refused now, and served in an older revision."
        )
        self.resyncs = OwnedCount(
            name("config_resyncs"),
            "Whole snapshots asked for: missing, another epoch, a gap, a hash that differs, or a race.",
            ("cause",),
        )
        self.listener_failures = OwnedCount(
            name("config_listener_failures"), "Parts of this process that failed when they were told of a change."
        )
        self.connects = OwnedCount(name("upstream_connects"), "Attempts to open the change stream.")
        self.upstream_connected = Gauge(name("upstream_connected"), "1 while the change stream is open.")
        self.snapshot_writes = OwnedCount(name("snapshot_writes"), "Times the snapshot file was written.")
        self.snapshot_failures = OwnedCount(
            name("snapshot_failures"), "Times the snapshot file could not be written; the older one stays."
        )
        self.overlays = Gauge(name("overlays"), "Flags killed here and not in the configuration yet.", ("state",))
        self.kills = Tally(
            name("kills"),
            "Kills by what became of them: taken, committed, superseded, replaced, refused, expired.",
            ("outcome",),
        )
        self.kill_attempts = Tally(name("kill_attempts"), "Kills sent to the authority, by outcome.", ("outcome",))

    def _add_events(self, name: Callable[[str], str]) -> None:
        """Declare what tells of events and counts on their way to the authority."""
        self.events_accepted = Tally(name("events_accepted"), "Events acknowledged to a client.")
        self.events_duplicate = Tally(name("events_duplicate"), "Events that were known already.")
        self.events_refused = Tally(name("events_refused"), "Events answered with an error, by reason.", ("reason",))
        self.events_forwarded = Tally(name("events_forwarded"), "Events that the authority has confirmed.")
        self.events_quarantined = Tally(name("events_quarantined"), "Records set aside, by reason.", ("reason",))
        self.events_shed = Tally(
            name("events_shed"), "Acknowledged events given up on purpose, by reason.", ("reason",)
        )
        self.forward_attempts = Tally(name("forward_attempts"), "Batches sent, by outcome.", ("outcome",))
        self.spool_bytes = Gauge(name("spool_bytes"), "Bytes waiting on disk for the authority.")
        self.spool_limit_bytes = Gauge(name("spool_limit_bytes"), "Most bytes that may wait on disk.")
        self.spool_records = Gauge(name("spool_records"), "Records waiting on disk for the authority.")
        self.spool_oldest = Gauge(name("spool_oldest_age_seconds"), "Age of the oldest waiting record; 0: none waits.")
        self.spool_quarantine_bytes = Gauge(name("spool_quarantine_bytes"), "Bytes of records that were set aside.")
        self.spool_writable = Gauge(name("spool_writable"), "1 while the spool takes events.")
        self.counter_rows = Gauge(name("counter_rows"), "Distinct evaluation counts that wait for the spool.")
        self.counts_lost = OwnedCount(name("counts_lost"), "Evaluations that found no row to be counted in.")

    def _add_process(self, name: Callable[[str], str]) -> None:
        """Declare what tells of the process itself."""
        self.task_failures = Tally(name("task_failures"), "Background tasks that raised and were restarted.", ("task",))
        self.loop_delay = Distribution(
            name("loop_delay_seconds"),
            "How late the event loop came round, 50 times a second while anybody is connected.",
            LAG_BUCKETS_S,
        )
        self.loop_lag = Gauge(name("loop_lag_seconds"), "How late the event loop last came round.")
        self.loop_lag_max = Gauge(name("loop_lag_max_seconds"), "Its longest delay of the last one to two minutes.")
        self.telemetry_exports = Tally(
            name("telemetry_exports"), "Exports to the OpenTelemetry receiver.", ("signal", "outcome")
        )
        self.threads = Gauge(name("threads"), "Threads of the process.")
        self.memory_limit = Gauge(
            name("memory_limit_bytes"), "Memory that the container may use, where it has a limit."
        )
        self.build_info = Gauge(name("build_info"), "Always 1; the labels tell what runs.", ("version", "python"))

    def watch_process(self) -> None:
        """Show memory, CPU, descriptors and collections of this process as well, under Prometheus' usual names."""
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def collect(self) -> Iterable[Metric]:
        """Yield every family, in the order of declaration."""
        for member in list(vars(self).values()):
            if isinstance(member, Tally | Gauge | OwnedCount | Distribution):
                yield member.family()

    def exposition(self) -> bytes:
        """Return the text format of Prometheus."""
        return self.exposition_for("")[0]

    def exposition_for(self, accept: str) -> tuple[bytes, str]:
        """Return what a scrape gets, and its media type: OpenMetrics for whoever accepts it, else Prometheus' text."""
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type
