"""The published vectors: the files are what the source says, and whatever evaluates here agrees with each of them."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.engine.bucketing import bucket, draw, winner
from relay.engine.context import unit_of
from relay.engine.evaluate import evaluate, evaluate_all, typed
from relay.engine.explain import explain
from relay.engine.model import ErrorCode, Evaluation, FlagType, Reason
from relay.engine.operators import ALIASES, CONDITION_OPERATORS, OPERATORS, canonical
from relay.engine.parse import InvalidConfig, parse_flag
from relay.engine.program import Program, build
from relay.protocol import strict_json
from tests.engine import vectors
from tests.engine.build import clause, environment, ruled

BUCKETING: dict[str, Any] = json.loads((vectors.DIRECTORY / "bucketing.json").read_text(encoding="utf-8"))
OPERATING: dict[str, Any] = json.loads((vectors.DIRECTORY / "operators.json").read_text(encoding="utf-8"))
EVALUATING: dict[str, Any] = json.loads((vectors.DIRECTORY / "evaluations.json").read_text(encoding="utf-8"))


def murmur3(raw: bytes) -> int:
    """Return MurmurHash3_x86_32 with seed 0, written here from its definition."""

    def mixed(block: int) -> int:
        block = block * 0xCC9E2D51 & 0xFFFFFFFF
        block = (block << 15 | block >> 17) & 0xFFFFFFFF
        return block * 0x1B873593 & 0xFFFFFFFF

    end = len(raw) & ~3
    value = 0
    for start in range(0, end, 4):
        value ^= mixed(int.from_bytes(raw[start : start + 4], "little"))
        value = (value << 13 | value >> 19) & 0xFFFFFFFF
        value = (value * 5 + 0xE6546B64) & 0xFFFFFFFF
    value ^= mixed(int.from_bytes(raw[end:], "little")) ^ len(raw)
    value = (value ^ value >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    value = (value ^ value >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return value ^ value >> 16


def answers(program: Program, key: str, context: Any, now_ms: int) -> Iterator[tuple[str, Evaluation]]:
    """Yield what each way of evaluating one flag answers."""
    held = program.environment
    yield "interpreter", evaluate(held, key, context, now_ms)
    yield "program", program.evaluate(key, context, now_ms)
    yield "explain", explain(held, key, context, now_ms).evaluation
    if key in held.flags:
        yield "all, interpreter", evaluate_all(held, context, now_ms)[key]
        yield "all, program", program.evaluate_all(context, now_ms)[key]


def disagreements(cases: list[dict[str, Any]]) -> list[str]:
    """Return what does not answer as a case of `operators.json` says."""
    wrong = []
    programs: dict[str, Program] = {}
    for case in cases:
        asked = json.dumps(case["when"])
        program = programs.get(asked)
        if program is None:
            program = programs[asked] = build(environment({"f": ruled(case["when"])}))
        reason = Reason.RULE_MATCH if case["holds"] else Reason.DEFAULT
        wrong += [
            f"{case['name']}: {by} answers {found.reason}"
            for by, found in answers(program, "f", case["context"], 0)
            if found.reason is not reason
        ]
    return wrong


SIDES = {"lt": (-1,), "lte": (-1, 0), "gt": (1,), "gte": (0, 1), "eq": (0,)}


@pytest.mark.parametrize("name", ["bucketing.json", "operators.json", "evaluations.json"])
def test_files_are_what_the_source_generates(name: str) -> None:
    """`python -m tests.engine.vectors` would change nothing, and every strict reader of JSON can read the file."""
    text = (vectors.DIRECTORY / name).read_text(encoding="utf-8")

    assert text == vectors.files()[name]
    assert strict_json.loads(text.encode(), max_depth=64, refuse_duplicates=False) is not None


def test_names_are_unique_and_everything_is_explained() -> None:
    """A failing case can be named, and each says in one line what it shows."""
    for named in (
        [*BUCKETING["buckets"], *BUCKETING["surrogates"]],
        BUCKETING["units"],
        BUCKETING["draws"],
        OPERATING["conditions"],
        OPERATING["refused"],
        EVALUATING["refused"],
        *(world["cases"] for world in EVALUATING["environments"]),
    ):
        assert [name for name, count in Counter(case["name"] for case in named).items() if count > 1] == []
        assert [case["name"] for case in named if not case["why"] or "\n" in case["why"]] == []


def test_buckets_follow_from_the_formula() -> None:
    """The engine, and a hash written from its definition, give the published hashes and buckets."""
    for case in [*BUCKETING["buckets"], *BUCKETING["surrogates"]]:
        unit = case["unit"] if "unit" in case else "".join(map(chr, case["unit_code_points"]))
        raw = f"{case['purpose']}:{case['salt']}:{unit}".encode("utf-8", "surrogatepass")

        assert raw.hex() == case["bytes"], case["name"]
        assert murmur3(raw) == case["hash"], case["name"]
        assert case["hash"] * 100_000 >> 32 == case["bucket"], case["name"]
        assert bucket(case["purpose"], case["salt"], unit) == case["bucket"], case["name"]


def test_units_are_read_as_published() -> None:
    """The same values are units, for the same text."""
    assert [case["name"] for case in BUCKETING["units"] if unit_of(case["value"]) != case["unit"]] == []


def test_draws_follow_from_the_formula() -> None:
    """The engine, and a hash written from its definition, give the published draws and winners."""
    for case in BUCKETING["draws"]:
        group, flags, unit = case["group"], case["flags"], case["unit"]
        draws = {flag: murmur3(f"{group}\x1f{flag}\x1f{unit}".encode()) for flag in flags}

        assert draws == case["draws"], case["name"]
        assert {flag: draw(group, flag, unit) for flag in flags} == draws, case["name"]
        assert max(draws, key=lambda flag: (draws[flag], flag)) == case["winner"], case["name"]
        assert winner(group, flags, unit) == case["winner"], case["name"]


def test_conditions_hold_as_published() -> None:
    """Every way of evaluating agrees with every case of a condition."""
    assert disagreements(OPERATING["conditions"]) == []


@pytest.mark.parametrize("order", OPERATING["orders"], ids=lambda order: str(order["name"]))
def test_orders_hold_as_published(order: dict[str, Any]) -> None:
    """Any two values of an order compare as their places say, by every operator."""
    placed = [(place, value) for place, equals in enumerate(order["ascending"]) for value in equals]
    asked = [
        (SIDES[side], op, place, value)
        for side, op in order["operators"].items()
        if op is not None
        for place, value in placed
    ]
    held = environment({str(index): ruled(clause("a", op, value)) for index, (_, op, _, value) in enumerate(asked)})
    program = build(held)
    wrong = []
    for place, value in placed:
        context = {"a": value}
        for by, found in (
            ("interpreter", evaluate_all(held, context, 0)),
            ("program", program.evaluate_all(context, 0)),
        ):
            wrong += [
                f"{by}: {value!r} {op} {other!r}"
                for index, (sides, op, other_place, other) in enumerate(asked)
                if (found[str(index)].reason is Reason.RULE_MATCH)
                is not ((place > other_place) - (place < other_place) in sides)
            ]

    assert wrong == []


def test_refused_conditions_are_refused() -> None:
    """A condition that cannot be meant is an `InvalidConfig` and nothing else."""
    for case in OPERATING["refused"]:
        with pytest.raises(InvalidConfig):
            parse_flag("f", ruled(case["when"]))


def test_aliases_are_as_published() -> None:
    """The published aliases are those that are accepted, and stand for the same operators."""
    assert OPERATING["aliases"] == ALIASES
    assert {alias: canonical(alias) for alias in OPERATING["aliases"]} == OPERATING["aliases"]


def test_evaluations_are_as_published() -> None:
    """Every way of evaluating agrees with every case, to the last member."""
    wrong = []
    for world in EVALUATING["environments"]:
        program = build(environment(world["flags"], world["segments"]))
        for case in world["cases"]:
            for by, evaluation in answers(program, case["flag"], case["context"], case["now"]):
                found = typed(evaluation, FlagType(case["getter"])) if "getter" in case else evaluation
                seen = {name: getattr(found, name) for name in case["expected"]}
                if repr_of(seen) != repr_of(case["expected"]):
                    wrong.append(f"{world['name']}: {case['name']}: {by} answers {seen}")

    assert wrong == []


def repr_of(answer: dict[str, Any]) -> str:
    """Return an answer as JSON, in which 1 is not 1.0 and not true."""
    return json.dumps(answer, sort_keys=True)


def test_refused_flags_are_refused() -> None:
    """A flag that cannot be meant is an `InvalidConfig` and nothing else."""
    for case in EVALUATING["refused"]:
        with pytest.raises(InvalidConfig):
            parse_flag("f", case["flag"])


def test_nothing_is_left_out() -> None:
    """Every operator, every reason and every error code that the engine can answer stands in some case."""
    text = json.dumps([OPERATING["conditions"], EVALUATING["environments"]])
    asked = [op for op in (*OPERATORS, *CONDITION_OPERATORS) if f'"op": "{op}"' not in text]
    expected = [case["expected"] for world in EVALUATING["environments"] for case in world["cases"]]

    assert asked == []
    assert {each["reason"] for each in expected} == set(Reason)
    assert {each["error_code"] for each in expected} == {None, *ErrorCode} - {ErrorCode.PARSE_ERROR}


def test_the_specification_names_everything() -> None:
    """Each operator, alias, reason and error code stands in the specification, and its worked example is a vector."""
    text = (Path(__file__).parents[2] / "docs/evaluation.md").read_text(encoding="utf-8")
    example = next(case for case in BUCKETING["buckets"] if case["name"] == "ordinary")

    assert [
        name for name in (*OPERATORS, *CONDITION_OPERATORS, *ALIASES, *Reason, *ErrorCode) if f"`{name}`" not in text
    ] == []
    assert f"rollout:{example['salt']}:{example['unit']}\nhash     {example['hash']}\n" in text
    assert f"{example['hash'] * 100_000} >> 32 = {example['bucket']}\n" in text
