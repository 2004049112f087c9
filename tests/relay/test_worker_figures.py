"""Metrics of several processes: what they add up to, and that nothing goes down when one of them ends."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from relay.metrics import RelayMetrics
from relay.workers import figures
from relay.workers.figures import NONE, CombinedMetrics, Figures, ended, figures_of, take

counts = st.dictionaries(st.sampled_from(["200", "404", "503"]), st.integers(1, 1_000), max_size=3)


def counted(answers: dict[str, int]) -> Figures:
    metrics = RelayMetrics()
    for status, n in answers.items():
        metrics.requests.add("ofrep", status, n=n)
        metrics.change_latency.observe(0.003, n)
    return take(metrics)


def line(metrics: CombinedMetrics, start: str) -> float:
    (found,) = [each for each in metrics.exposition().decode().splitlines() if each.startswith(start)]
    return float(found.rpartition(" ")[2])


def test_what_is_shown_is_the_sum() -> None:
    """Counters by label, histograms by bucket, and gauges, except where the lowest or the highest tells more."""
    own = CombinedMetrics()
    own.requests.add("ofrep", "200", n=3)
    own.change_latency.observe(0.2)
    own.streams_open.read_from(lambda: {("client",): 4.0})
    own.config_revision.read_from(lambda: {("shop/production",): 9})
    own.loop_lag.read_value_from(lambda: 0.1)
    other = RelayMetrics()
    other.requests.add("ofrep", "200", n=2)
    other.requests.add("native", "404")
    other.change_latency.observe(0.003)
    other.streams_open.read_from(lambda: {("client",): 5.0})
    other.config_revision.read_from(lambda: {("shop/production",): 8})
    other.loop_lag.read_value_from(lambda: 0.7)
    own.add_from(lambda: (take(other),))
    assert line(own, 'halyard_relay_requests_total{route="ofrep",status="200"}') == 5
    assert line(own, 'halyard_relay_requests_total{route="native",status="404"}') == 1
    assert line(own, 'halyard_relay_change_latency_seconds_bucket{le="0.005"}') == 1
    assert line(own, 'halyard_relay_change_latency_seconds_bucket{le="+Inf"}') == 2
    assert line(own, "halyard_relay_change_latency_seconds_sum") == 0.203
    assert line(own, 'halyard_relay_streams_open{kind="client"}') == 9
    assert line(own, 'halyard_relay_config_revision{environment="shop/production"}') == 8
    assert line(own, "halyard_relay_loop_lag_seconds") == 0.7


def test_alone_it_is_what_one_process_shows() -> None:
    """The same lines in the same order, but for those about workers."""
    alone, combined = RelayMetrics(), CombinedMetrics()
    for metrics in (alone, combined):
        metrics.requests.add("ofrep", "200")
        metrics.change_latency.observe(0.003)
    shown = [each for each in combined.exposition().splitlines() if b"halyard_relay_worker" not in each]
    assert shown == alone.exposition().splitlines()


@given(st.lists(counts, max_size=4))
def test_figures_survive_their_way_and_the_end_of_a_process(lives: list[dict[str, int]]) -> None:
    """However many processes come and go, the sum of what they counted is what they counted."""
    over = NONE
    for life in lives:
        over = ended(over, figures_of(orjson.loads(orjson.dumps(counted(life).as_json()))))
    own = CombinedMetrics()
    own.add_from(lambda: (over,))
    for status in {status for life in lives for status in life}:
        wanted = sum(life.get(status, 0) for life in lives)
        assert line(own, f'halyard_relay_requests_total{{route="ofrep",status="{status}"}}') == wanted
    assert line(own, "halyard_relay_change_latency_seconds_count") == sum(sum(life.values()) for life in lives)


def test_a_gauge_ends_with_its_process() -> None:
    """Nobody counts the streams of a worker that is gone."""
    metrics = RelayMetrics()
    metrics.streams_open.read_from(lambda: {("client",): 5.0})
    assert figures.ended(NONE, take(metrics)).of("halyard_relay_streams_open") == {}
