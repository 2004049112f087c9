"""What `/metrics` shows, and that nothing from outside can make it grow without bound."""

import asyncio
import re
import threading

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics import MAX_SERIES, Distribution, Gauge, RelayMetrics, Tally


def samples(metrics: RelayMetrics) -> dict[str, float]:
    """Return every sample of the exposition as `name{label=value}` -> number."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def test_counts_gauges_and_histograms_are_shown() -> None:
    """Each kind of family appears in Prometheus' text format under the name of the service."""
    metrics = RelayMetrics()
    metrics.requests.add("ofrep", "200")
    metrics.requests.add("ofrep", "200", n=2)
    metrics.spool_bytes.read_value_from(lambda: 17)
    metrics.config_revision.read_from(lambda: {("demo/production",): 4})
    metrics.connects.read_from(lambda: 5)
    metrics.resyncs.read_each_from(lambda: {("gap",): 2})
    metrics.change_latency.observe(0.02, n=3)
    found = samples(metrics)
    assert found["halyard_relay_requests_total{route=ofrep,status=200}"] == 3
    assert found["halyard_relay_spool_bytes{}"] == 17
    assert found["halyard_relay_config_revision{environment=demo/production}"] == 4
    assert found["halyard_relay_upstream_connects_total{}"] == 5
    assert found["halyard_relay_config_resyncs_total{cause=gap}"] == 2
    assert found["halyard_relay_change_latency_seconds_bucket{le=0.025}"] == 3
    assert found["halyard_relay_change_latency_seconds_bucket{le=0.01}"] == 0
    assert found["halyard_relay_change_latency_seconds_bucket{le=+Inf}"] == 3
    assert found["halyard_relay_change_latency_seconds_sum{}"] == pytest.approx(0.06)


def test_two_services_in_one_process_do_not_mix() -> None:
    """Each has a registry and names of its own."""
    relay, upstream = RelayMetrics(), RelayMetrics("upstream")
    relay.events_accepted.add()
    assert samples(relay)["halyard_relay_events_accepted_total{}"] == 1
    assert samples(upstream)["halyard_upstream_events_accepted_total{}"] == 0


def test_label_values_are_bounded() -> None:
    """Beyond its maximum a family sums under `other`, so that no caller can fill the memory; nothing is lost."""
    tally = Tally("t", "", ("reason",), max_series=3)
    for number in range(10):
        tally.add(f"reason-{number}")
    tally.add("reason-1")
    assert tally.value("reason-1") == 2
    assert tally.value("other") == 7
    assert tally.total() == 11


def test_distribution_counts_its_bounds_inclusively() -> None:
    """An observation equal to a bound belongs to that bucket, as Prometheus defines `le`."""
    distribution = Distribution("d", "", buckets=(1.0, 2.0))
    for value in (1.0, 1.5, 3.0):
        distribution.observe(value)
    assert distribution.count() == 3
    buckets = {s.labels["le"]: s.value for s in distribution.family().samples if s.name == "d_bucket"}
    assert buckets == {"1.0": 1, "2.0": 2, "+Inf": 3}


def every_family() -> list[Metric]:
    """Return the families of a relay, those of the process included."""
    metrics = RelayMetrics()
    metrics.watch_process()
    return list(metrics.registry.collect())


UNITS = {"milliseconds", "ms", "s", "minutes", "kib", "mib", "kilobytes", "percent"}
OURS = [family for family in every_family() if family.name.startswith("halyard_relay_")]


@pytest.mark.parametrize("family", OURS, ids=lambda family: family.name)
def test_names_follow_prometheus_conventions(family: Metric) -> None:
    """What `promtool check metrics` would find fault with: names, base units, suffixes, help, reserved labels."""
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", family.name)
    assert UNITS.isdisjoint(family.name.split("_"))
    assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_counter", "_gauge", "_histogram"))
    if family.type == "histogram":
        assert family.name.endswith("_seconds")
    assert family.documentation.endswith(".")
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert labels.isdisjoint({"job", "instance", "quantile", "le"})
    for sample in family.samples:
        assert sample.name.endswith("_total") == (family.type == "counter")


def test_names_are_unique() -> None:
    """No family hides another one, nor one of its own samples."""
    names = [family.name for family in every_family()]
    assert len(set(names)) == len(names)


def test_the_process_is_shown_where_it_is_watched() -> None:
    """Memory, processor time, descriptors and collections come with Prometheus' usual names, only when asked for."""
    names = {family.name for family in every_family()}
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names
    assert {"process_start_time_seconds", "python_gc_collections"} <= names
    assert not any(family.name.startswith("process_") for family in RelayMetrics().registry.collect())


def test_a_scrape_gets_the_format_that_it_asks_for() -> None:
    """Prometheus' text unless OpenMetrics is accepted; both can be read by a parser of their own."""
    metrics = RelayMetrics()
    metrics.requests.add("ofrep", "200")
    text, media_type = metrics.exposition_for("")
    assert media_type.startswith("text/plain; version=0.0.4")
    assert list(text_string_to_metric_families(text.decode()))
    text, media_type = metrics.exposition_for("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    assert list(parse_open_metrics(text.decode()))  # type: ignore[no-untyped-call]


def test_no_family_can_grow_without_bound() -> None:
    """Every family that has labels shows at most its maximum of series and one more, whatever is counted or read."""
    metrics = RelayMetrics()
    for member in vars(metrics).values():
        if isinstance(member, Tally) and member.labels:
            for number in range(MAX_SERIES + 500):
                member.add(*(f"{label}-{number}" for label in member.labels))
        elif isinstance(member, Gauge) and member.labels:
            many = {tuple(f"{each}-{n}" for each in member.labels): 1.0 for n in range(MAX_SERIES + 500)}
            member.read_from(lambda many=many: many)  # type: ignore[misc]
    shown = {family.name: len(family.samples) for family in metrics.registry.collect()}
    assert max(shown.values()) == MAX_SERIES + 1


async def test_a_scrape_may_come_from_another_thread() -> None:
    """While series are being added, a scrape on another thread neither fails nor sees a family change under it."""
    metrics, is_done = RelayMetrics(), threading.Event()

    def scrape() -> int:
        scrapes = 0
        while not is_done.is_set():
            assert metrics.exposition()
            scrapes += 1
        return scrapes

    scraping = asyncio.get_running_loop().run_in_executor(None, scrape)
    for number in range(MAX_SERIES):
        metrics.refused_keys.add(f"reason-{number}")
        metrics.change_latency.observe(number / 100)
        await asyncio.sleep(0)
    is_done.set()
    assert await scraping > 0
