"""What `/metrics` shows, and that nothing from outside can make it grow without bound."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay.metrics import Distribution, RelayMetrics, Tally


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
    metrics.resyncs.read_from(lambda: 5)
    metrics.change_latency.observe(0.02, n=3)
    found = samples(metrics)
    assert found["halyard_relay_requests_total{route=ofrep,status=200}"] == 3
    assert found["halyard_relay_spool_bytes{}"] == 17
    assert found["halyard_relay_config_revision{environment=demo/production}"] == 4
    assert found["halyard_relay_config_resyncs_total{}"] == 5
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
