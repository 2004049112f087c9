"""Configurations and contexts made to be slow: refused where there is a limit, and quick wherever they get through.

Times are CPU times and the best of several calls, as other work on the machine only ever adds to them; the call that
compiles comes before. Under a coverage run a line costs many times as much, so the limit is ten times as high there.
`forced` objects are built past the parser and the assembly, as a bug in either would.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from relay.engine.conditions import MAX_DEPTH, MAX_VALUES
from relay.engine.environment import assemble
from relay.engine.evaluate import evaluate, evaluate_all
from relay.engine.explain import explain
from relay.engine.model import All, Environment, ErrorCode, Evaluation, Not, Reason
from relay.engine.operators import MAX_AFFIXES, MAX_CONTAINED, MAX_NETWORKS, MAX_PATTERNS
from relay.engine.parse import MAX_RULES, InvalidConfig, parse_flag, parse_segment
from relay.engine.patterns import MAX_PATTERN_LENGTH, MAX_PATTERN_PROGRAM, MAX_SUBJECT_BYTES, compile_pattern
from relay.engine.program import build
from tests.engine.build import HALF, ON, clause, environment, flag, rule, ruled, segment

pytestmark = pytest.mark.timed

LIMIT_MS = 100 if "COVERAGE_RUN" in os.environ else 10
MANY = 10_000
DEEP = 1_000
UNIT = {"targetingKey": "user-1"}

SLOW_ELSEWHERE = [
    "(a+)+$",
    "(a*)*b",
    "(a|a)*c",
    "(a|aa)+$",
    "(x+x+)+y",
    r"(\w+\s?)+$",
    "(.*)*Q",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
]
"""Patterns on which backtracking takes forever."""
TOO_COSTLY = ["(.{1,100}){10}Q", "((a{1,30}){1,30})", "((a?){1,30}){1,30}b", "a.{900}b.{1,900}Q"]
"""Patterns of a few characters that multiply into programs of thousands of instructions."""


def milliseconds(call: Callable[[], object], rounds: int = 5) -> float:
    """Return how long the quickest of some calls took."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        times.append((time.process_time() - start) * 1000)
    return min(times)


def answers_quickly(held: Environment, context: Any, key: str = "f") -> Evaluation:
    """Assert that interpreter and program answer alike, alone and together, within the limit; return the answer."""
    program = build(held)
    answer = evaluate(held, key, context, 0)
    assert program.evaluate(key, context, 0) == answer
    assert program.evaluate_all(context, 0) == evaluate_all(held, context, 0)
    assert explain(held, key, context, 0).evaluation == answer
    assert milliseconds(lambda: evaluate(held, key, context, 0)) <= LIMIT_MS
    assert milliseconds(lambda: program.evaluate(key, context, 0)) <= LIMIT_MS
    assert milliseconds(lambda: evaluate_all(held, context, 0)) <= LIMIT_MS * len(held.flags)
    assert milliseconds(lambda: program.evaluate_all(context, 0)) <= LIMIT_MS * len(held.flags)
    return answer


def conditions_inside(depth: int, form: str) -> Any:
    """Return a condition so many levels deep."""
    condition: Any = clause("a", "equals", "x")
    for _ in range(depth - 1):
        condition = {"not": condition} if form == "not" else {form: [condition]}
    return condition


def alternation(length: int) -> str:
    """Return a pattern of that length, of words to choose from."""
    return "|".join(f"w{number:03}" for number in range(length))[: length - 1] + "Q"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"rules": [rule({"all": []}, ON, f"r{number}") for number in range(MANY)]}, "rules"),
        ({"rules": [rule({"all": []}, ON, f"r{number}") for number in range(MAX_RULES + 1)]}, "rules"),
        ({"rules": [rule(clause("a", "in", *range(MAX_VALUES + 1)))]}, "rules[0].when.values"),
        ({"rules": [rule({"any": [{"all": []}] * (MAX_VALUES + 1)})]}, "rules[0].when.any"),
        ({"rules": [rule(clause("a", "in_segment", *["s"] * (MAX_VALUES + 1)))]}, "rules[0].when.values"),
        ({"rules": [rule(clause("a", "matches", *["x"] * (MAX_PATTERNS + 1)))]}, "rules[0].when.values"),
        ({"rules": [rule(clause("a", "matches", "x" * (MAX_PATTERN_LENGTH + 1)))]}, "rules[0].when.values[0]"),
        ({"rules": [rule(clause("a", "matches", alternation(5_000)))]}, "rules[0].when.values[0]"),
        ({"rules": [rule(clause("a", "matches", *["\\w{1,40}"] * 20))]}, "rules[0].when.values"),
        ({"rules": [rule(clause("a", "contains", *["x"] * (MAX_CONTAINED + 1)))]}, "rules[0].when.values"),
        ({"rules": [rule(clause("a", "starts_with", *["x"] * (MAX_AFFIXES + 1)))]}, "rules[0].when.values"),
        ({"rules": [rule(clause("a", "in_cidr", *["::/0"] * (MAX_NETWORKS + 1)))]}, "rules[0].when.values"),
        *(
            ({"rules": [rule(clause("a", "matches", "x", pattern))]}, "rules[0].when.values[1]")
            for pattern in TOO_COSTLY
        ),
    ],
)
def test_what_is_too_much_is_refused(changes: dict[str, Any], path: str) -> None:
    """With the place where it stands, and soon."""
    with pytest.raises(InvalidConfig) as refused:
        parse_flag("f", flag(**changes))
    assert refused.value.path == f"flags.f.{path}"


@pytest.mark.parametrize("form", ["not", "all", "any"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, DEEP, 50_000])
def test_deep_conditions_are_refused(depth: int, form: str) -> None:
    """One level more than allowed, and depths at which Python itself gives up; in flags and in segments."""
    with pytest.raises(InvalidConfig, match="nested deeper"):
        parse_flag("f", ruled(conditions_inside(depth, form)))
    with pytest.raises(InvalidConfig, match="nested deeper"):
        parse_segment("s", segment(when=conditions_inside(depth, form)))


@pytest.mark.parametrize("pattern", [*SLOW_ELSEWHERE, alternation(MAX_PATTERN_LENGTH)])
@pytest.mark.parametrize("subject", ["a" * MAX_SUBJECT_BYTES, "a" * 60_000 + "!", "x" * 4_095 + "é", "ab " * 20_000])
def test_patterns_that_are_slow_elsewhere(pattern: str, subject: str) -> None:
    """They take no longer than any other, also on subjects as long as a body may be."""
    answers_quickly(environment({"f": ruled(clause("a", "matches", pattern))}), {"a": subject})


SHAPES = ["(a|b)*a(a|b){%d}c", "([ab]*a[ab]{%d})*c", "(a{1,%d}){10}Q", "([ab]{0,%d}){5}c", "(a*b*){%d}c", ".*a.{%d}Q"]
"""What makes RE2 hold many states at once; the number says how many."""


def heaviest(shape: str, limit: int) -> str:
    """Return the largest pattern of a shape that stays within a limit of instructions."""
    fitting = ""
    for number in range(1, MAX_PATTERN_LENGTH):
        try:
            compiled = compile_pattern(shape % number, fold_case=False)
        except ValueError:
            break
        if compiled.programsize > limit:
            break
        fitting = shape % number
    assert fitting
    return fitting


@pytest.mark.parametrize("shape", SHAPES)
def test_the_heaviest_patterns_that_are_accepted(shape: str) -> None:
    """On subjects that are new each time, so that nothing which RE2 remembers of the last one helps."""
    held = environment({"f": ruled(clause("a", "matches", heaviest(shape, MAX_PATTERN_PROGRAM)))})
    subjects = iter(["".join(Random(seed).choices("ab", k=MAX_SUBJECT_BYTES)) for seed in range(9)])

    assert milliseconds(lambda: evaluate(held, "f", {"a": next(subjects)}, 0), rounds=9) <= LIMIT_MS


@pytest.mark.parametrize(
    ("op", "many"), [("in", MANY), ("equals", MANY), ("starts_with", MAX_AFFIXES), ("ends_with", MAX_AFFIXES)]
)
def test_thousands_of_values(op: str, many: int) -> None:
    """As many values as a clause may have, none of which is the one."""
    values = [f"value-{number}" for number in range(MANY - many, MANY)]
    held = environment({"f": ruled(clause("a", op, *values))})

    assert answers_quickly(held, {"a": "x" * 4_096}).value is False
    assert answers_quickly(held, {"a": "value-9999"}).value is True


@pytest.mark.parametrize(
    ("op", "values", "value"),
    [
        ("gt", [number + 2 for number in range(MANY)], 1),
        ("semver_gt", [f"{number + 2}.0.0" for number in range(MANY)], "1.0.0"),
        ("semver_eq", [f"{number + 2}.0.0" for number in range(MANY)], "1.0.0-" + "1a." * 80 + "!"),
        ("before", [-number for number in range(MANY)], "2026-11-21T06:30:00Z"),
        ("in_cidr", [f"10.{number // 256}.{number % 256}.0/24" for number in range(MAX_NETWORKS)], "11.0.0.1"),
        ("in_segment", [f"s{number}" for number in range(MANY)], 1),
    ],
)
def test_thousands_of_values_that_are_read(op: str, values: list[Any], value: Any) -> None:
    """So it is for numbers, versions, moments and networks; and nobody is in segments that do not exist."""
    assert answers_quickly(environment({"f": ruled(clause("a", op, *values))}), {"a": value}).value is False


@pytest.mark.parametrize("op", ["contains", "not_contains"])
@pytest.mark.parametrize("value", ["a" * 4_096, "a" * 60_000, ["a" * 30] * 2_000, ["a" * 4_096] * 15])
def test_hundreds_of_texts_inside_a_text(op: str, value: Any) -> None:
    """As many as a clause may have; of what they are looked for in, no more than the beginning is looked at."""
    held = environment({"f": ruled(clause("a", op, *[f"{'a' * 30}{number}" for number in range(MAX_CONTAINED)]))})

    answers_quickly(held, {"a": value})


LONG_LISTS: dict[str, tuple[list[Any], list[Any]]] = {
    "starts_with": ([f"value-{number}" for number in range(MAX_AFFIXES)], ["x" * 4] * 16_000),
    "not_ends_with": ([f"value-{number}" for number in range(MAX_AFFIXES)], ["x" * 4] * 16_000),
    "in_cidr": ([f"10.{number // 256}.{number % 256}.0/24" for number in range(MAX_NETWORKS)], ["11.0.0.1"] * 4_000),
    "matches": ([f"a{{1,9}}b{number}" for number in range(20)], ["a" * 30] * 2_000),
    "in": (list(range(MANY)), [-1] * 16_000),
    "semver_gt": (["2.0.0"], ["1.0.0"] * 8_000),
    "before": ([0], ["2026-11-21T06:30:00Z"] * 3_000),
}


@pytest.mark.parametrize("op", LONG_LISTS)
def test_lists_as_long_as_a_body_may_hold(op: str) -> None:
    """Only the beginning is looked at, less of it where each element costs more."""
    values, elements = LONG_LISTS[op]

    answers_quickly(environment({"f": ruled(clause("a", op, *values))}), {"a": elements})


@pytest.mark.parametrize("op", ["gt", "gte", "lt", "lte", "before", "after"])
def test_ten_thousand_bounds_and_a_long_list(op: str) -> None:
    """Of many bounds one decides, so that a list of thousands of numbers costs no more than its length."""
    bounds = [number * (-1 if op in {"lt", "lte", "before"} else 1) for number in range(1, MANY + 1)]
    held = environment({"f": ruled(clause("a", op, *bounds))})

    assert milliseconds(lambda: evaluate(held, "f", {"a": [0] * 5_000}, 0), rounds=2) <= LIMIT_MS
    assert milliseconds(lambda: build(held).evaluate("f", {"a": [0] * 5_000}, 0), rounds=2) <= LIMIT_MS


def test_ten_thousand_targets() -> None:
    """Units that are named are found at once."""
    units = [f"user-{number}" for number in range(MANY)]
    held = environment({"f": flag(targets=[{"variation": "off", "units": units}], fallthrough=HALF)})

    assert answers_quickly(held, {"targetingKey": "user-9999"}).reason is Reason.TARGET_MATCH
    assert answers_quickly(held, {"targetingKey": "nobody"}).reason is Reason.SPLIT


def test_ten_thousand_conditions() -> None:
    """A hundred times a hundred clauses are too many to be compiled, and quick all the same."""
    groups = [{"any": [clause("a", "equals", f"{row}-{column}") for column in range(100)]} for row in range(100)]

    assert answers_quickly(environment({"f": ruled({"any": groups})}), {"a": "x"}).value is False


def test_ten_thousand_rules_forced() -> None:
    """Fifty times as many rules as are allowed."""
    parsed = parse_flag("f", ruled(clause("a", "equals", "x")))
    held = forced(environment({"f": flag()}), replace(parsed, rules=parsed.rules * MANY))

    assert evaluate(held, "f", UNIT, 0).reason is Reason.DEFAULT
    program = build(held)
    assert program.evaluate("f", UNIT, 0) == evaluate(held, "f", UNIT, 0)
    assert milliseconds(lambda: evaluate(held, "f", UNIT, 0)) <= LIMIT_MS
    assert milliseconds(lambda: program.evaluate("f", UNIT, 0)) <= LIMIT_MS


def forced(held: Environment, changed: Any) -> Environment:
    """Return the environment with a flag that no parser has seen."""
    return replace(held, flags={**held.flags, changed.key: changed})


SEGMENTS = {f"s{number}": segment(when={"segment": f"s{number + 1}"}) for number in range(DEEP)} | {
    f"s{DEEP}": segment(include=["user-1"])
}
CIRCLE = {"s0": segment(when={"segment": "s1"}), "s1": segment(when={"segment": "s0"})}
FLAGS = {"f": flag(prerequisites=[{"flag": "f0"}]), f"f{DEEP}": flag()} | {
    f"f{number}": flag(prerequisites=[{"flag": f"f{number + 1}"}]) for number in range(DEEP)
}
ROUND = {"f": flag(prerequisites=[{"flag": "g"}]), "g": flag(prerequisites=[{"flag": "f"}])}


@pytest.mark.parametrize("segments", [SEGMENTS, CIRCLE])
def test_deep_and_circular_segments_are_set_aside(segments: dict[str, Any]) -> None:
    """A rule that hangs on them never matches."""
    assert answers_quickly(environment({"f": ruled({"segment": "s0"})}, segments), UNIT).reason is Reason.DEFAULT


@pytest.mark.parametrize("flags", [FLAGS, ROUND])
def test_deep_and_circular_prerequisites_are_errors(flags: dict[str, Any]) -> None:
    """Of their own, so that whoever asks learns of it."""
    answer = answers_quickly(environment(flags), UNIT)

    assert (answer.reason, answer.error_code, answer.value) == (Reason.ERROR, ErrorCode.GENERAL, False)


def survives(held: Environment, context: Any) -> None:
    """Assert that every way to ask gives an answer of the flag or an error, and within the limit."""
    program = build(held)
    ways: list[Callable[[], Evaluation]] = [
        lambda: evaluate(held, "f", context, 0),
        lambda: evaluate_all(replace(held, flags={**held.flags}), context, 0)["f"],
        lambda: program.evaluate("f", context, 0),
        lambda: program.evaluate_all(context, 0)["f"],
        lambda: explain(held, "f", context, 0).evaluation,
    ]
    for way in ways:
        answer = way()
        assert answer.variation in held.flags["f"].variations
        assert (answer.error_code is ErrorCode.GENERAL) == (answer.reason is Reason.ERROR)
    for way in (ways[0], ways[2]):
        assert milliseconds(way) <= LIMIT_MS


@pytest.mark.parametrize("segments", [SEGMENTS, CIRCLE])
def test_deep_and_circular_segments_forced(segments: dict[str, Any]) -> None:
    """Even if they were taken for usable."""
    held = environment({"f": ruled({"segment": "s0"})}, segments)
    survives(replace(held, usable=held.segments), UNIT)


@pytest.mark.parametrize("flags", [FLAGS, ROUND])
def test_deep_and_circular_prerequisites_forced(flags: dict[str, Any]) -> None:
    """Even if they were taken for settled."""
    survives(replace(environment(flags), unsettled=frozenset()), UNIT)


@pytest.mark.parametrize("form", [Not, lambda inner: All((inner,))])
def test_deep_conditions_forced(form: Callable[[Any], Any]) -> None:
    """A condition of a thousand levels is an answer or an error, and no crash."""
    parsed = parse_flag("f", ruled(clause("a", "equals", "x")))
    condition = parsed.rules[0].when
    for _ in range(DEEP):
        condition = form(condition)
    survives(
        forced(environment({"g": flag()}), replace(parsed, rules=(replace(parsed.rules[0], when=condition),))), UNIT
    )


def test_an_environment_of_poison_is_assembled_soon() -> None:
    """Laying out 1,000 levels of segments and of flags looks at each of them a bounded number of times."""
    flags = {key: parse_flag(key, obj) for key, obj in FLAGS.items()}
    segments = {key: parse_segment(key, obj) for key, obj in SEGMENTS.items()}
    parts: dict[str, Any] = {"environment_id": "e", "key": "k", "project_id": "p", "project_key": "p", "revision": 1}

    assert milliseconds(lambda: assemble(**parts, flags=flags, segments=segments)) <= 10 * LIMIT_MS
