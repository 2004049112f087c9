"""The compiled form answers what the interpreter answers, on everything that can be generated.

The interpreter is the reference; what it answers is tested elsewhere.
"""

import gc
from collections import deque
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.chunks import CHUNK, CHUNK_PARTS
from relay.engine.environment import amend
from relay.engine.evaluate import Run, evaluate, evaluate_all
from relay.engine.model import AnyOf, Not, Reason, UnknownOperator
from relay.engine.parse import parse_flag
from relay.engine.program import COMPILED_AT_MOST, Program, build, compile_steps
from relay.engine.source import MAX_PARTS, MAX_RULES, Source, is_compilable
from relay.engine.steps import finished
from tests.engine.build import HALF, OFF, ON, clause, environment, flag, rule, ruled, segment
from tests.engine.configurations import contexts, flags, json_values, names, segments
from tests.engine.scale import at_scale
from tests.engine.test_totality import accepted, moments

NOW_MS = 1_000_000
ASKED = at_scale(10, fast=4)
MANY = [{"targetingKey": f"user-{number}", "a": number % 7, "b": f"v{number % 3}"} for number in range(50)]


def assert_equal(program: Program, context: Any, now_ms: int) -> None:
    """Assert that alone and together, every flag is answered as by the interpreter; types count."""
    held = program.environment
    for client_side_only in (False, True):
        wanted = evaluate_all(held, context, now_ms, client_side_only=client_side_only)
        # As it comes, and once it is compiled: both at first, the same from then on.
        for _ in range(2):
            found = program.evaluate_all(context, now_ms, client_side_only=client_side_only)
            assert found == wanted
            if isinstance(context, dict):
                in_steps = finished(program.evaluate_all_steps(context, now_ms, client_side_only=client_side_only))
                assert list(in_steps.items()) == list(found.items())
            assert {key: type(answer.value) for key, answer in found.items()} == {
                key: type(answer.value) for key, answer in wanted.items()
            }
            deque(compile_steps(program), maxlen=0)
    for key in (*held.flags, "nowhere"):
        expected = evaluate(held, key, context, now_ms)
        assert program.evaluate(key, context, now_ms, may_compile=False) == expected
        assert program.evaluate(key, context, now_ms) == expected


def compiled(flag_objects: dict[str, Any], segment_objects: dict[str, Any] | None = None) -> Program:
    return build(environment(flag_objects, segment_objects))


@given(
    st.dictionaries(names, flags, min_size=1, max_size=3),
    st.dictionaries(names, segments, max_size=3),
    st.lists(st.tuples(contexts | json_values, moments), min_size=ASKED, max_size=ASKED),
)
def test_every_answer_is_the_interpreters(
    flag_objects: dict[str, Any], segment_objects: dict[str, Any], asked: list[tuple[Any, int]]
) -> None:
    """Whatever the configuration, the context and the moment."""
    program = build(accepted(flag_objects, segment_objects))
    for context, now_ms in asked:
        assert_equal(program, context, now_ms)


@given(
    st.dictionaries(names, flags, max_size=3),
    st.dictionaries(names, flags, max_size=2),
    st.sets(names, max_size=2),
    st.dictionaries(names, segments, max_size=2),
    contexts,
)
def test_what_is_shared_with_the_revision_before_answers_anew(
    first: dict[str, Any], more: dict[str, Any], gone: set[str], segment_objects: dict[str, Any], context: Any
) -> None:
    """A program made from the one before answers like one made from nothing, asked before and after."""
    before = build(accepted(first, {"a": segment()}))
    assert_equal(before, context, NOW_MS)
    change = accepted(more, segment_objects)
    after = amend(
        before.environment,
        revision=2,
        upsert_flags=change.flags,
        remove_flags=gone,
        upsert_segments=change.segments,
    )
    assert_equal(build(after, before), context, NOW_MS)
    assert_equal(before, context, NOW_MS)


class Plan(StrEnum):
    """Text that is no plain `str`, as an application in the same process may give it."""

    PRO = "pro"


TEXTS = ["pro", "PRO", "free", "", "1", "1.0", "1.2.3", "v1.2", "10.1.2.3", "::ffff:10.0.0.1", "2026-11-21T06:30:00Z"]
SCALARS = [0, 1, 1.0, True, False, None, float("nan"), float("inf"), 10**30, -5, "1e2", Plan.PRO]
VALUES = [*TEXTS, *SCALARS, [], ["pro"], ["free", "pro"], [1, "1"], [None], [["pro"]], {}, {"pro": 1}]


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("equals", ["pro"]),
        ("equals", [1]),
        ("in", ["pro", "1"]),
        ("in", ["pro", 1, True]),
        ("in", []),
        ("not_equals", ["pro"]),
        ("not_in", ["pro", 0, False]),
        ("contains", ["ro", "x"]),
        ("contains", []),
        ("contains", [f"p{number}" for number in range(20)] + ["ro"]),
        ("not_contains", ["r"]),
        ("starts_with", ["p", "1"]),
        ("not_ends_with", ["o"]),
        ("matches", ["^p", "[0-9]"]),
        ("matches", []),
        ("gt", [0]),
        ("gte", [1, 5]),
        ("lt", [1, "2"]),
        ("lte", []),
        ("between", [0, 1]),
        ("semver_eq", ["1.2.3", "1.2.0"]),
        ("semver_gt", ["1.2.0"]),
        ("semver_lte", ["1.2.0", "0.1"]),
        ("before", ["2026-11-21T06:30:00Z"]),
        ("after", [0]),
        ("in_cidr", ["10.0.0.0/8", "::/0"]),
        ("not_in_cidr", ["10.0.0.0/8"]),
        ("in_cidr", []),
        ("exists", []),
        ("not_exists", []),
        ("percentage_of", [50_000]),
    ],
)
@pytest.mark.parametrize("fold_case", [False, True])
def test_every_operator_on_every_kind_of_value(op: str, values: list[Any], *, fold_case: bool) -> None:
    """The quick way for plain values and the slow way for all others lead to the same place."""
    program = compiled({"f": ruled(clause("plan", op, *values, fold_case=fold_case))})
    for value in VALUES:
        assert_equal(program, {"targetingKey": "user-1", "plan": value}, NOW_MS)


def test_splits_ramps_groups_and_prerequisites_over_many_units() -> None:
    """Each draw is the interpreter's, for strings, integers and contexts without a unit."""
    weights = [["on", 10_000], ["off", 0], ["on", 30_000], ["off", 60_000]]
    ramp = {"to": "on", "else": "off", "start_at": 0, "increment": 10_000, "every_s": 100, "target": 70_000}
    program = compiled(
        {
            "split": flag(fallthrough={"split": {"weights": weights, "salt": "other"}}),
            "by": flag(fallthrough={"split": {"by": "b", "weights": [["on", 50_000], ["off", 50_000]]}}),
            "ruled": flag(rules=[rule(clause("a", "gt", 3), HALF), rule({"all": []}, ON, "r2")], fallthrough=OFF),
            "ramp": flag(fallthrough={"ramp": ramp}),
            "one": flag(group="g", fallthrough=HALF),
            "two": flag(group="g", prerequisites=[{"flag": "split", "variations": ["on"]}, {"flag": "ramp"}]),
            "three": flag(group="g", client_side=False, targets=[{"variation": "off", "units": ["user-3", 7]}]),
            "stuck": flag(prerequisites=[{"flag": "stuck"}]),
            "nobody": flag(prerequisites=[{"flag": "nowhere"}]),
            "in": ruled({"segment": "s"}),
            "out": ruled({"not": {"segment": "gone"}}),
        },
        {"s": segment(include=["user-4"], exclude=["user-5"], when=clause("b", "equals", "v1"))},
    )
    for context in (*MANY, {"targetingKey": 7}, {}, {"targetingKey": ""}, {"b": "x"}, {"targetingKey": "\ud800"}):
        for now_ms in (-1, 0, 100_000, NOW_MS):
            assert_equal(program, context, now_ms)


def test_a_chain_of_prerequisites_shares_its_answers() -> None:
    """Alone and together, over several steps and chunks, each flag of a chain is worked out from one table of a run."""
    chain = {
        "f": flag(prerequisites=[{"flag": "g"}, {"flag": "h"}]),
        "g": flag(prerequisites=[{"flag": "h", "variations": ["on"]}], group="x", client_side=False),
        "h": flag(prerequisites=[{"flag": "i"}], group="x", fallthrough=HALF),
        "i": flag(fallthrough=HALF, client_side=False),
    }
    program = compiled(chain)
    for context in (*MANY, {}):
        assert_equal(program, context, NOW_MS)
    assert {program.evaluate("f", context, NOW_MS).reason for context in MANY} == {Reason.PREREQUISITE_FAILED}
    ungrouped = compiled({key: {**obj, "group": None} for key, obj in chain.items()})
    for context in MANY:
        assert_equal(ungrouped, context, NOW_MS)
    assert {ungrouped.evaluate("f", context, NOW_MS).value for context in MANY} == {True, False}


def test_an_unknown_operator_is_written_as_never_holding() -> None:
    """As the interpreter has it, although what contains one is left out before it comes to that."""
    unknown = UnknownOperator("sounds_like")
    for condition in (unknown, AnyOf((unknown,)), Not(unknown)):
        source = Source()
        function = source.function(source._condition(condition))
        expected = Run(environment({}), {}, NOW_MS).meets(condition)
        assert bool(function({}, None, None, NOW_MS, None)) is expected is isinstance(condition, Not)


def test_what_is_too_large_is_interpreted() -> None:
    """Many rules, many conditions, many patterns, a large segment: all answered, none compiled."""
    many = {"any": [clause("a", "equals", number) for number in range(MAX_PARTS)]}
    large = {
        "rules": flag(rules=[rule(clause("a", "equals", n), ON, f"r{n}") for n in range(MAX_RULES + 1)]),
        "conditions": ruled(many),
        "segment": ruled({"segment": "large"}),
        "plain": flag(),
    }
    held = environment(large, {"large": segment(when=many)})
    assert [key for key, each in held.flags.items() if is_compilable(each)] == ["segment", "plain"]
    program = build(held)
    for context in (*MANY[:10], {"a": 399}):
        assert_equal(program, context, NOW_MS)


def test_a_large_environment_is_compiled_in_steps() -> None:
    """Every chunk is a step, so that an event loop can turn in between; after a change there is little left to do."""
    before = compiled({f"f{number}": flag() for number in range(3 * CHUNK + 1)})
    assert len(list(compile_steps(before))) == 4
    assert not list(compile_steps(before))
    after = amended(before, upsert_flags={"f0": parse_flag("f0", flag(enabled=False))})
    assert len(list(compile_steps(after))) == 1
    assert_equal(after, MANY[0], NOW_MS)


def test_some_flags_are_answered_as_each_alone() -> None:
    """A few are compiled one by one, more are interpreted, many come from what answers all."""
    held = environment(
        {
            f"f{number}": flag(client_side=number % 3 > 0, rules=[rule(clause("a", "gte", number % 7), HALF)])
            for number in range(40)
        }
    )
    for context in (*MANY[:5], "no object"):
        for many in (0, 1, 8, 9, 40):
            program = build(held)
            deque(compile_steps(program), maxlen=0)
            keys = [f"f{number}" for number in range(many)]
            answers = program.evaluate_some(keys, context, NOW_MS)
            assert list(answers) == keys
            assert answers == {key: evaluate(held, key, context, NOW_MS) for key in keys}
            compiled_alone = many if many <= COMPILED_AT_MOST and isinstance(context, dict) else 0
            assert len(program._single) == compiled_alone


def amended(program: Program, **changes: Any) -> Program:
    return build(amend(program.environment, revision=2, **changes), program)


def chunks_of(program: Program) -> list[tuple[str, ...]]:
    return [chunk.keys for chunk in (*program.public, *program.private)]


def test_a_change_compiles_only_its_own_chunk() -> None:
    """What did not change is the very same, a new flag fills a place that was left, and an empty chunk goes."""
    before = compiled({f"f{number}": flag() for number in range(2 * CHUNK)})
    first, second = before.public
    changed = amended(before, upsert_flags={"f0": parse_flag("f0", flag(enabled=False))})
    assert changed.public[1] is second
    assert changed.public[0] is not first
    assert_equal(changed, MANY[0], NOW_MS)

    fewer = amended(before, remove_flags=["f1"])
    fuller = amended(fewer, upsert_flags={"new": parse_flag("new", flag())})
    assert chunks_of(fuller)[0][-1] == "new"
    assert fuller.public[1] is second

    emptied = amended(before, remove_flags=list(second.keys))
    assert emptied.public == (first,)


def test_chunks_are_bounded_by_what_is_in_them() -> None:
    """Heavy flags stand together in smaller numbers, one that is too large alone, and a place is left to who fits."""
    heavy = ruled({"any": [clause("a", "contains", *"abcdefghij") for _ in range(5)]})
    huge = ruled({"any": [clause("a", "contains", *"abcdefghij") for _ in range(30)]})
    program = compiled({"huge": huge, **{f"heavy{number}": heavy for number in range(5)}, "light": flag()})
    assert chunks_of(program) == [("huge",), ("heavy0", "heavy1", "heavy2", "heavy3"), ("heavy4", "light")]
    assert all(chunk.weight <= CHUNK_PARTS for chunk in program.public[1:])
    fuller = amended(program, upsert_flags={"more": parse_flag("more", flag()), "big": parse_flag("big", heavy)})
    assert chunks_of(fuller)[1][-1] == "more"
    assert chunks_of(fuller)[2] == ("heavy4", "light", "big")
    assert_equal(fuller, {"a": "xcx"}, NOW_MS)


def test_a_flag_that_becomes_private_changes_sides() -> None:
    """Browsers stop seeing it, everybody else goes on."""
    before = compiled({"a": flag(), "b": flag()})
    after = amended(before, upsert_flags={"b": parse_flag("b", flag(client_side=False))})
    assert chunks_of(after) == [("a",), ("b",)]
    assert_equal(after, MANY[0], NOW_MS)


def test_nothing_of_a_configuration_is_spliced_into_code() -> None:
    """Keys, salts, attributes and values that look like code are data."""
    nasty = "'\"\\\n\u2028);import os #{}%s"
    program = compiled(
        {
            nasty: flag(
                salt=nasty,
                group=nasty,
                rules=[rule(clause(nasty, "equals", nasty), HALF), rule(clause(f"a.{nasty}", "contains", nasty), ON)],
                targets=[{"variation": "off", "units": [nasty]}],
                prerequisites=[{"flag": nasty + "2", "variations": ["on"]}],
            ),
            nasty + "2": ruled({"segment": nasty}),
        },
        {nasty: segment(include=[nasty])},
    )
    for context in ({"targetingKey": nasty}, {"targetingKey": "u", nasty: nasty}, {"a": {nasty: nasty}}):
        assert_equal(program, context, NOW_MS)


def test_an_empty_environment_has_no_answers() -> None:
    """Nothing to compile, and still total."""
    empty = environment({})
    assert build(empty).evaluate_all({}, NOW_MS) == {}
    assert_equal(build(empty), {}, NOW_MS)


def test_what_many_flags_ask_is_tested_once() -> None:
    """Equal clauses of several flags share one test; equal values of other types, other operators and rules do not."""
    asked = [*(clause("a", "equals", each) for each in (1, True, "1")), clause("a", "gt", 1)]
    conditions: list[Any] = [
        *asked,
        *asked,
        {"not": asked[0]},
        {"any": [asked[0], {"all": [asked[2], clause("b", "in", *map(str, range(40)))]}]},
        clause("b", "in", *map(str, range(40))),
        clause("b", "matches", "^v"),
        clause("b", "sounds_like", "v"),
        clause("c", "equals", "asked by one flag alone"),
        *(clause("b", "semver_gte", f"1.0.{number}") for number in range(2 * CHUNK)),
    ]
    program = compiled({f"f{number}": ruled(each) for number, each in enumerate(conditions)})
    values: list[Any] = [1, True, "1", 2, 1.0, [1, "1"], None, {}]
    for value in values:
        assert_equal(program, {"targetingKey": "u", "a": value, "b": "v1"}, NOW_MS)
    assert_equal(program, {}, NOW_MS)


def test_flags_that_answer_everybody_alike() -> None:
    """They come first, with their answer, and are asked of no function; whatever may differ is none of them."""
    held = {
        "on": flag(),
        "off": flag(enabled=False, fallthrough=HALF),
        "private": flag(client_side=False),
        "split": flag(fallthrough=HALF),
        "ruled": ruled(clause("a", "exists")),
        "aimed": flag(targets=[{"variation": "off", "units": ["u"]}]),
        "needy": flag(prerequisites=[{"flag": "on", "variations": ["on"]}]),
        "grouped": flag(group="g"),
    }
    program = build(environment(held))
    assert dict(program.layout().fixed) == {key: program.evaluate(key, {}, NOW_MS) for key in ("on", "off", "private")}
    assert set(program.layout().moving) == {"split", "ruled", "aimed", "needy", "grouped"}
    assert set(program.layout(client_side_only=True).fixed) == {"on", "off"}
    assert list(program.evaluate_all({}, NOW_MS)) == [*program.layout().fixed, *program.layout().moving]
    for context in MANY[:5]:
        assert_equal(program, context, NOW_MS)


def test_evaluating_leaves_nothing_to_the_collector() -> None:
    """Neither one flag alone nor all of them: garbage in circles would stall whoever serves thousands of streams."""
    segments_held = {"s": segment(include=["user-1"])}
    rules = [rule({"segment": "s"}, ON, "r1"), rule(clause("version", "semver_gte", "2.1.0"), ON, "r2")]
    program = compiled({"a": flag(rules=rules), "b": flag(prerequisites=[{"flag": "a"}], rules=rules)}, segments_held)
    deque(compile_steps(program), maxlen=0)
    context = {"targetingKey": "user-2", "version": "1.2.3"}
    program.evaluate("b", context, 0)
    gc.collect()
    gc.disable()
    try:
        program.evaluate("b", context, 0)
        program.evaluate_all(context, 0)
        assert gc.collect() == 0
    finally:
        gc.enable()
