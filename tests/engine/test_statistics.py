"""Statistics of splits, rollouts and exclusion groups, over many units whose names are always the same.

A figure that is out of bounds is no bad luck here: units and salts are fixed, so every run draws the same buckets. The
bounds are those that chance would keep to if the draws were random.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import pytest

from relay.engine.bucketing import BUCKETS, bucket, draw, winner
from relay.engine.model import Reason
from relay.engine.program import Program, build
from tests.engine.build import ON, environment, flag
from tests.engine.scale import at_scale

UNITS = tuple(f"user-{number}" for number in range(at_scale(200_000, fast=5_000)))
SIGMAS = 5
# Upper 0.001 points of the chi-squared distribution, by degrees of freedom, from the usual tables.
CRITICAL = {1: 10.828, 2: 13.816, 4: 18.467, 9: 27.877, 99: 148.230}
SHARES = (("a", 10_000), ("b", 20_000), ("c", 30_000), ("d", 39_000), ("e", 1_000))
PLACE = dict(zip("abcde", range(5), strict=True))


def allowed(share: float, total: int) -> float:
    """Return five standard deviations of a share: 0.56 percentage points at worst for 200,000 units."""
    return SIGMAS * sqrt(share * (1 - share) / total)


def expect_shares(found: Mapping[Any, int], wanted: Mapping[Any, float]) -> None:
    """Assert that every part has its share of the whole, within five standard deviations."""
    total = sum(found.values())
    assert total
    assert found.keys() <= wanted.keys()
    for part, share in wanted.items():
        assert abs(found.get(part, 0) / total - share) <= allowed(share, total), (part, found)


def chi_squared(table: Sequence[Sequence[int]]) -> float:
    """Return the statistic of a contingency table, for the question whether rows and columns are independent."""
    rows, columns = [sum(row) for row in table], [sum(column) for column in zip(*table, strict=True)]
    total = sum(rows)
    expected: list[list[float]] = [[row * column / total for column in columns] for row in rows]
    return sum(
        (seen - wanted) * (seen - wanted) / wanted
        for seen_row, wanted_row in zip(table, expected, strict=True)
        for seen, wanted in zip(seen_row, wanted_row, strict=True)
    )


def expect_independent(pairs: Counter[tuple[int, int]], rows: int, columns: int) -> None:
    """Assert that chi-squared does not reject independence at 0.001."""
    table = [[pairs[row, column] for column in range(columns)] for row in range(rows)]
    assert chi_squared(table) < CRITICAL[(rows - 1) * (columns - 1)], table


def weighted(weights: Sequence[tuple[str, int]], **changes: Any) -> dict[str, Any]:
    """Return a flag that splits everybody."""
    return flag(
        type="string",
        variations=[{"key": key, "value": key} for key in "abcde"],
        off="a",
        fallthrough={"split": {"weights": [list(pair) for pair in weights]}},
        **changes,
    )


def served(program: Program, key: str) -> list[str]:
    """Return the variation that each unit is served."""
    return [str(program.evaluate(key, {"targetingKey": unit}, 0).variation) for unit in UNITS]


def test_the_bound_of_five_sigma() -> None:
    """At 200,000 units the widest bound, that of a half, is 0.56 percentage points."""
    assert round(allowed(0.5, 200_000) * 100, 2) == 0.56


def test_chi_squared_finds_what_hangs_together() -> None:
    """The test of independence can fail: equal draws are rejected, and a table that is exactly even gives 0."""
    assert chi_squared([[500, 500], [500, 500]]) == 0
    assert chi_squared([[1000, 0], [0, 1000]]) == pytest.approx(2000)
    assert chi_squared([[540, 460], [460, 540]]) > CRITICAL[1]


@pytest.mark.parametrize("salt", ["salt", "checkout", ""])
def test_shares_are_the_weights(salt: str) -> None:
    """A split of five serves each variation to its share of the units."""
    program = build(environment({"f": weighted(SHARES, salt=salt)}))

    expect_shares(Counter(served(program, "f")), {key: weight / BUCKETS for key, weight in SHARES})


def test_neighbours_are_told_apart() -> None:
    """Names that count upwards spread evenly over a hundred ranges, so no range is anybody's favourite."""
    counts = Counter(bucket("rollout", "salt", unit) * 100 // BUCKETS for unit in UNITS)

    wanted = len(UNITS) / 100
    assert sum((counts[part] - wanted) ** 2 / wanted for part in range(100)) < CRITICAL[99]


def test_growing_a_rollout_moves_nobody_out() -> None:
    """Whoever is in at 1 % is in at 5, 25, 50 and 100 %, and each step lets in its own share."""
    steps = (0, 1_000, 5_000, 25_000, 50_000, BUCKETS)
    program = build(environment({f"at-{share}": weighted([("a", share), ("b", BUCKETS - share)]) for share in steps}))
    inside = [
        {unit for unit, key in zip(UNITS, served(program, f"at-{share}"), strict=True) if key == "a"} for share in steps
    ]

    assert [len(inside[0]), len(inside[-1])] == [0, len(UNITS)]
    for smaller, larger in pairwise(inside):
        assert smaller < larger
    for share, units in zip(steps, inside, strict=True):
        assert abs(len(units) / len(UNITS) - share / BUCKETS) <= allowed(share / BUCKETS, len(UNITS))


def test_a_ramp_moves_nobody_out() -> None:
    """As time goes by, the units that a ramp serves only become more, and none of them leaves."""
    ramp = {"to": "on", "else": "off", "start_at": 0, "increment": 20_000, "every_s": 1, "target": 80_000}
    program = build(environment({"f": flag(fallthrough={"ramp": ramp})}))
    contexts = [{"targetingKey": unit} for unit in UNITS[: len(UNITS) // 4]]
    inside = [
        {context["targetingKey"] for context in contexts if program.evaluate("f", context, moment).value}
        for moment in (0, 1_000, 2_500, 9_000)
    ]

    assert not inside[0]
    for smaller, larger in pairwise(inside):
        assert smaller < larger
    expect_shares({True: len(inside[-1]), False: len(contexts) - len(inside[-1])}, {True: 0.8, False: 0.2})


def test_splits_of_two_flags_are_independent() -> None:
    """What one flag serves says nothing about another with its own salt; with the same salt it says everything."""
    halves = [("a", 50_000), ("b", 50_000)]
    thirds = [("a", 33_000), ("b", 33_000), ("c", 34_000)]
    program = build(
        environment(
            {
                "f": weighted(halves, salt="first"),
                "g": weighted(thirds, salt="second"),
                "h": weighted(halves, salt="first"),
            }
        )
    )
    first, second, same = ([PLACE[key] for key in served(program, name)] for name in "fgh")

    expect_independent(Counter(zip(first, second, strict=True)), 2, 3)
    assert first == same


def test_salts_that_differ_in_one_character_are_independent() -> None:
    """So are flags whose salts are as like as two can be."""
    drawn = [
        (bucket("rollout", "salt-1", unit) * 4 // BUCKETS, bucket("rollout", "salt-2", unit) * 4 // BUCKETS)
        for unit in UNITS
    ]

    expect_independent(Counter(drawn), 4, 4)


def group_of(members: Sequence[str], group: str = "g") -> Program:
    """Return a program of flags that exclude each other, each of which splits its units into halves."""
    return build(
        environment(
            {key: weighted([("b", 50_000), ("c", 50_000)], salt=f"salt of {key}", group=group) for key in members}
        )
    )


def test_an_exclusion_group_is_shared_equally() -> None:
    """Each unit gets exactly one flag of the group, and each flag an equal part of the units."""
    program = group_of("pqr")
    counts: Counter[str] = Counter()
    for unit in UNITS:
        answers = program.evaluate_all({"targetingKey": unit}, 0)
        (ours,) = [key for key, answer in answers.items() if answer.reason is not Reason.EXCLUDED]
        counts[ours] += 1

    expect_shares(counts, dict.fromkeys("pqr", 1 / 3))


def test_membership_says_nothing_about_the_split_inside() -> None:
    """A member's own split is independent of who is in it: its halves stay halves, among its own units and others."""
    program = group_of("pqr")
    for key in "pqr":
        halves = Counter(variation for variation in served(program, key) if variation != "a")
        expect_shares(halves, {"b": 0.5, "c": 0.5})
    pairs = Counter(
        ("pqr".index(winner("g", "pqr", unit)), bucket("rollout", "salt of p", unit) * 2 // BUCKETS) for unit in UNITS
    )
    expect_independent(pairs, 3, 2)


def test_a_new_member_takes_only_its_own_share() -> None:
    """A fourth flag takes a quarter from each of three, equally, and no unit goes from one of the three to another."""
    moved: Counter[str] = Counter()
    for unit in UNITS:
        before, after = winner("g", "pqr", unit), winner("g", "pqrs", unit)
        assert after in (before, "s")
        moved[before if after == "s" else "stayed"] += 1

    expect_shares(moved, {"stayed": 3 / 4, **dict.fromkeys("pqr", 1 / 12)})


def test_groups_are_independent() -> None:
    """Who wins a unit in one group says nothing about another group of flags with the same keys."""
    pairs = Counter(("pqr".index(winner("g", "pqr", unit)), "pqr".index(winner("h", "pqr", unit))) for unit in UNITS)

    expect_independent(pairs, 3, 3)


def test_draws_of_a_group_never_tie_here() -> None:
    """Ties go to the later key, so they must be too rare to matter: none among these units."""
    assert not any(draw("g", "p", unit) == draw("g", "q", unit) for unit in UNITS)


def test_everybody_is_served_on_without_a_split() -> None:
    """The control: a fixed variation is no draw."""
    program = build(environment({"f": flag(fallthrough=ON)}))

    assert {program.evaluate("f", {"targetingKey": unit}, 0).variation for unit in UNITS[:1_000]} == {"on"}
