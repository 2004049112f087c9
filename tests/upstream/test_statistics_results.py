"""Results of whole experiments: corrections over metrics and variants, findings by goal, and the verdict in words."""

from collections.abc import Mapping
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upstream.domain.statistics.correction import Correction
from upstream.domain.statistics.results import Design, Goal, Metric, Results, results
from upstream.domain.statistics.samples import Mean, Rate, Sample
from upstream.domain.statistics.verdict import Decision, Finding, Method

TWO = {"old": 1, "new": 1}
THREE = {"old": 1, "new": 1, "newest": 1}
METHODS = pytest.mark.parametrize("method", Method)


def judged(
    samples: Mapping[str, Sample],
    *secondary: Metric,
    method: Method = Method.FIXED,
    planned: int = 10_000,
    goal: Goal = Goal.HIGHER,
) -> Results:
    """Return the results of an experiment on sign-ups whose variants have equal weights."""
    design = Design("old", dict.fromkeys(samples, 1), planned, method)
    return results(design, Metric("signup", samples, goal), secondary)


def rates(**conversions: int) -> dict[str, Sample]:
    """Return samples of 10,000 units each."""
    return {name: Rate(10_000, count) for name, count in conversions.items()}


@METHODS
def test_a_better_variant_ships(method: Method) -> None:
    """A variant that is clearly better is the verdict of every method, in words that name both."""
    found = judged(rates(old=1_000, new=1_300), method=method)
    assert (found.verdict.decision, found.verdict.variant) == (Decision.SHIP, "new")
    assert found.verdict.sentence == "Ship 'new': 'signup' is better than with 'old'."
    assert found.verdict.reasons == ("'new': 'signup' is better.",)
    new = found.primary["new"]
    assert (new.units, new.conversions, new.value, new.finding) == (10_000, 1_300, 0.13, Finding.BETTER)
    assert new.chance_to_win == pytest.approx(1, abs=1e-6)
    assert new.standing is not None
    assert new.standing.chance_best == pytest.approx(1, abs=1e-6)


@METHODS
def test_a_worse_variant_does_not_ship(method: Method) -> None:
    """By every method, and also where lower is better and the variant is higher."""
    for samples, goal in ((rates(old=1_300, new=1_000), Goal.HIGHER), (rates(old=1_000, new=1_300), Goal.LOWER)):
        found = judged(samples, method=method, goal=goal)
        assert found.verdict.decision is Decision.DO_NOT_SHIP
        assert found.verdict.sentence == "Do not ship: 'signup' is worse than with 'old'."
        assert found.primary["new"].chance_to_win == pytest.approx(0, abs=1e-6)
        assert found.primary["new"].finding is Finding.WORSE


@METHODS
def test_no_difference_runs_on_until_the_planned_size(method: Method) -> None:
    """Before the planned size there is more to wait for; at it, nothing has been shown."""
    samples = rates(old=1_000, new=1_005)
    waiting = judged(samples, method=method, planned=30_000).verdict
    assert waiting.decision is Decision.KEEP_RUNNING
    assert waiting.sentence == "Keep running: 20000 of 30000 planned units are seen."
    assert waiting.reasons[-1] == "'new': 'signup' is unclear."
    done = judged(samples, method=method, planned=20_000).verdict
    assert (done.decision, done.variant) == (Decision.DO_NOT_SHIP, None)
    assert done.sentence == "Do not ship: 20000 units have shown no variant better on 'signup'."


def test_the_fixed_method_says_nothing_before_its_end() -> None:
    """However clear the difference looks: what is fixed is the number of units. The sequential method may say it."""
    samples = rates(old=1_000, new=1_300)
    assert judged(samples, planned=30_000).verdict.decision is Decision.KEEP_RUNNING
    assert "holds only at the planned number of units" in judged(samples, planned=30_000).verdict.reasons[0]
    assert judged(samples, planned=30_000, method=Method.SEQUENTIAL).verdict.decision is Decision.SHIP


@METHODS
def test_a_mismatch_blocks_whatever_is_found(method: Method) -> None:
    """Shares that chance does not explain make every comparison worthless."""
    found = judged({"old": Rate(10_000, 1_000), "new": Rate(9_000, 1_300)}, method=method)
    assert (found.verdict.decision, found.verdict.variant) == (Decision.BLOCKED, None)
    assert found.ratio.is_mismatch
    assert found.verdict.reasons[0] == "Units seen: 'old' 10000, 'new' 9000. Chance does not explain that."


def test_a_harm_elsewhere_holds_a_variant_back() -> None:
    """A variant that is better but makes a secondary metric worse does not ship; another one that is clean does."""
    slower = Metric(
        "latency", {"old": Mean(10_000, 10_000, 20_000), "new": Mean(10_000, 12_000, 25_000)}, goal=Goal.LOWER
    )
    found = judged(rates(old=1_000, new=1_300), slower)
    assert found.verdict.decision is Decision.DO_NOT_SHIP
    assert found.verdict.sentence == "Do not ship: what makes 'signup' better makes other metrics worse."
    assert found.verdict.reasons == ("'new': 'signup' is better; it makes 'latency' worse.",)
    assert found.secondary["latency"]["new"].finding is Finding.WORSE
    assert found.secondary["latency"]["new"].conversions is None
    three = Metric("latency", {**slower.samples, "newest": Mean(10_000, 10_010, 20_100)}, goal=Goal.LOWER)
    found = judged(rates(old=1_000, new=1_300, newest=1_200), three)
    assert (found.verdict.decision, found.verdict.variant) == (Decision.SHIP, "newest")


@METHODS
def test_of_several_better_ones_the_best_ships(method: Method) -> None:
    """The variant that most probably is the best of all."""
    assert judged(rates(old=1_000, new=1_300, newest=1_500), method=method).verdict.variant == "newest"


def test_the_best_is_the_lowest_where_lower_is_better() -> None:
    """Standings follow the metric's goal."""
    found = judged(rates(old=1_500, new=1_300, newest=1_000), goal=Goal.LOWER)
    assert found.verdict.variant == "newest"
    assert found.primary["newest"].standing is not None
    assert found.primary["newest"].standing.chance_best == pytest.approx(1, abs=1e-3)


@METHODS
def test_one_loser_among_unclear_ones_does_not_end_it(method: Method) -> None:
    """Only if every variant is worse is there nothing left to wait for."""
    found = judged(rates(old=1_000, new=700, newest=1_005), method=method, planned=30_001)
    assert found.verdict.decision is Decision.KEEP_RUNNING


@METHODS
def test_values_that_never_vary_are_waited_for(method: Method) -> None:
    """A metric of which nothing can be told yet is no verdict."""
    alike: dict[str, Sample] = {"old": Mean(9_000, 9_000, 9_000), "new": Mean(9_000, 9_000, 9_000)}
    found = judged(alike, method=method)
    assert found.verdict.decision is Decision.KEEP_RUNNING
    assert found.verdict.reasons == ("There is too little data, or none that varies, to compare every variant.",)
    assert found.primary["new"].finding is Finding.UNKNOWN


def test_an_experiment_starts_with_nobody() -> None:
    """Before the first unit there are no figures and no errors."""
    found = judged({"old": Rate(0, 0), "new": Rate(0, 0)}, method=Method.SEQUENTIAL)
    assert found.verdict.decision is Decision.KEEP_RUNNING
    assert found.primary["new"].value is None
    assert found.primary["new"].comparison.difference is None


def test_more_questions_ask_for_more_evidence() -> None:
    """Two variants are two questions: p-values rise and intervals widen, unless nothing is corrected."""
    samples = rates(old=1_000, new=1_090, newest=1_005)
    metric = Metric("signup", samples)
    corrected = results(Design("old", THREE, 30_000, Method.FIXED), metric).primary["new"]
    plain = results(Design("old", THREE, 30_000, Method.FIXED, correction=Correction.NONE), metric).primary["new"]
    assert (plain.finding, corrected.finding) == (Finding.BETTER, Finding.UNCLEAR)
    assert corrected.adjusted_p_value == pytest.approx(2 * (plain.adjusted_p_value or 0))
    assert corrected.comparison.p_value == plain.comparison.p_value
    assert corrected.comparison.interval is not None
    assert plain.comparison.interval is not None
    assert corrected.comparison.interval.low < plain.comparison.interval.low


@pytest.mark.parametrize(
    ("control", "weights", "planned", "message"),
    [
        ("gone", TWO, 1, "control must be one of the variants"),
        ("old", {"old": 1}, 1, "at least two variants"),
        ("old", TWO, 0, "planned_total must be a whole number from 1"),
    ],
)
def test_a_design_that_cannot_be_is_refused(
    control: str, weights: dict[str, float], planned: int, message: str
) -> None:
    """Every wrong argument is named."""
    with pytest.raises(ValueError, match=message):
        Design(control, weights, planned)


def test_metrics_have_the_designs_variants_and_keys_of_their_own() -> None:
    """A metric without a variant, or with the key of another, is refused."""
    with pytest.raises(ValueError, match=r"'signup' must have samples of \['new', 'old'\], and has \['old'\]"):
        results(Design("old", TWO, 1), Metric("signup", {"old": Rate(1, 1)}))
    metric = Metric("signup", rates(old=1, new=1))
    with pytest.raises(ValueError, match="different keys"):
        results(Design("old", TWO, 1), metric, [metric])


COUNTS = st.integers(0, 50) | st.integers(0, 10**6) | st.sampled_from([10**12, 2**53 - 1, 2**53])


@st.composite
def strange_rates(draw: st.DrawFn) -> Rate:
    """Draw any rate at all, nobody and everybody often among them."""
    units = draw(COUNTS)
    return Rate(units, draw(st.sampled_from([0, units]) | COUNTS.map(lambda count: min(count, units))))


@st.composite
def strange_means(draw: st.DrawFn) -> Mean:
    """Draw the mean of few values or of many alike, of any size that a float has room to square."""
    values = draw(st.lists(st.integers(-50, 50), max_size=8))
    times, scale = draw(st.sampled_from([1, 30, 10**9])), 10.0 ** draw(st.integers(-140, 140))
    squares = sum(value * value for value in values) * times * scale * scale
    return Mean(len(values) * times, sum(values) * times * scale, squares)


@METHODS
@given(st.lists(strange_rates(), min_size=2, max_size=4) | st.lists(strange_means(), min_size=2, max_size=4))
def test_no_samples_are_too_strange(method: Method, samples: list[Sample]) -> None:
    """Whatever was counted, there is a verdict, and every figure is one: finite, in its range, in order."""
    named = {"old" if not place else str(place): sample for place, sample in enumerate(samples)}
    found = judged(named, method=method)
    assert found.verdict.sentence
    for result in found.primary.values():
        comparison, standing = result.comparison, result.standing
        for interval in (comparison.interval, comparison.lift_interval):
            assert interval is None or (isfinite(interval.low) and isfinite(interval.high))
            assert interval is None or interval.low <= interval.high
        for share in (comparison.p_value, result.adjusted_p_value, result.chance_to_win):
            assert share is None or 0 <= share <= 1
        assert standing is None or (0 <= standing.chance_best <= 1 and standing.expected_loss >= 0)
