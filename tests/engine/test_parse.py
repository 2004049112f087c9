"""What is read, what is refused and where, and what is ignored."""

from typing import Any

import pytest

from relay.engine.model import Evaluation, Fixed, FlagType, Reason, Split
from relay.engine.parse import InvalidConfig, parse_flag, parse_segment
from tests.engine.build import HALF, ON, clause, flag, rule, segment


def test_whole_flag() -> None:
    """Every member of a flag lands where it belongs."""
    read = parse_flag(
        "checkout",
        flag(
            number_format="ignored on a boolean",
            client_side=False,
            analytics=False,
            metadata={"team": "shop", "tier": 1, "ratio": 0.5, "hot": True},
            fallthrough={**HALF, "experiment": "colour"},
            targets=[{"variation": "on", "units": ["u", 42]}],
            prerequisites=[{"flag": "payments", "variations": ["on"]}],
            group="checkout",
            future={"anything": []},
        ),
    )

    assert (read.key, read.id, read.name) == ("checkout", "0b5c5c1e-7d0c-4d0e-9d0f-0d6f3f1f2a11", "A flag")
    assert (read.type, read.number_format, read.version, read.salt) == (FlagType.BOOLEAN, None, 7, "salt")
    assert (read.enabled, read.client_side, read.analytics) == (True, False, False)
    assert read.metadata == {"team": "shop", "tier": 1, "ratio": 0.5, "hot": True}
    assert read.variations == {"on": True, "off": False}
    assert read.off == Evaluation(
        value=False, variation="off", reason=Reason.DISABLED, version=7, flag_metadata=read.metadata
    )
    assert isinstance(read.fallthrough, Split)
    assert read.fallthrough.bounds == (50_000, 100_000)
    assert read.targets.keys() == {"u", "42"}
    assert (read.prerequisites[0].flag, read.prerequisites[0].variations) == ("payments", frozenset({"on"}))
    assert read.group is not None
    assert read.group.name == "checkout"


def test_defaults() -> None:
    """Members that may be left out, or be null, have their defaults."""
    absent = {"name": None, "rules": None, "targets": None, "prerequisites": None, "group": None, "metadata": None}
    read = parse_flag("f", flag(**absent))

    assert (read.name, read.client_side, read.analytics, read.group) == ("f", True, True, None)
    assert (read.rules, read.prerequisites, read.targets, read.metadata) == ((), (), {}, {})
    assert parse_flag("f", flag(name="", salt="")).salt == ""


def test_answers_are_shared() -> None:
    """The answer of a place that serves one variation is made once."""
    read = parse_flag("f", flag())

    assert isinstance(read.fallthrough, Fixed)
    assert read.fallthrough.outcome == Evaluation(value=True, variation="on", reason=Reason.STATIC, version=7)


@pytest.mark.parametrize(
    ("values", "declared", "number_format", "expected"),
    [
        ([1, 2], None, "integer", [1, 2]),
        ([1, 2.5], None, "float", [1.0, 2.5]),
        ([1, 2.0], None, "float", [1.0, 2.0]),
        ([1, 2], "float", "float", [1.0, 2.0]),
        ([1, 2.0], "integer", "integer", [1, 2]),
        ([2**64 - 1, -(2**63)], None, "integer", [2**64 - 1, -(2**63)]),
    ],
)
def test_number_format(values: list[Any], declared: str | None, number_format: str, expected: list[Any]) -> None:
    """Values of a number flag are of the type that its format says; where it is not declared, the values tell."""
    variations = [{"key": f"v{n}", "value": value} for n, value in enumerate(values)]
    read = parse_flag(
        "f",
        flag(type="number", variations=variations, off="v0", fallthrough={"variation": "v1"}, number_format=declared),
    )

    assert read.number_format == number_format
    assert [(type(value), value) for value in read.variations.values()] == [(type(value), value) for value in expected]


@pytest.mark.parametrize("obj", [flag(off=None), {name: value for name, value in flag().items() if name != "off"}])
def test_without_an_off_variation(obj: dict[str, Any]) -> None:
    """A flag whose off variation is null or absent serves no value while it is off; all else is as ever."""
    read = parse_flag("f", obj)

    assert read.off == Evaluation(value=None, variation=None, reason=Reason.DISABLED, version=7)
    assert read.fallthrough == parse_flag("f", flag()).fallthrough


def with_number(value: Any, number_format: str = "integer") -> dict[str, Any]:
    """Return a number flag with one value."""
    variations = [{"key": "v", "value": value}]
    return flag(
        type="number", variations=variations, off="v", fallthrough={"variation": "v"}, number_format=number_format
    )


def with_rule(when: Any) -> dict[str, Any]:
    """Return a flag with one rule."""
    return flag(rules=[rule(when)])


def weights(*pairs: Any) -> dict[str, Any]:
    """Return a split."""
    return {"split": {"weights": list(pairs)}}


def ramp(**changes: Any) -> dict[str, Any]:
    """Return a ramp."""
    members = {"to": "on", "else": "off", "start_at": None, "increment": 1, "every_s": 1, "target": 1}
    return {"ramp": {**members, **changes}}


def without(name: str) -> dict[str, Any]:
    """Return a flag that lacks one member."""
    return {key: value for key, value in flag().items() if key != name}


def nested(depth: int) -> Any:
    """Return a clause inside of `depth - 1` other conditions."""
    when: Any = clause("a", "equals", 1)
    for _ in range(depth - 1):
        when = {"all": [when]}
    return when


THOUSANDS = list(range(10_001))
DEEP = "flags.f.rules[0].when" + ".all[0]" * 10
START_AT = "must be an RFC 3339 time, epoch milliseconds or null"
CONDITION_FORMS = "must have exactly one of all, any, not, op, segment"
SERVE_FORMS = "must have exactly one of variation, split, ramp"
UNIT = "must be a string that is not empty or an integer"

REFUSED: list[tuple[Any, str, str]] = [
    ([], "flags.f", "must be an object"),
    (None, "flags.f", "must be an object"),
    *((without(name), "flags.f", f"has no {name!r}") for name in ("id", "type", "version", "enabled", "variations")),
    (flag(off=""), "flags.f.off", "must be a string that is not empty"),
    (without("fallthrough"), "flags.f", "has no 'fallthrough'"),
    (flag(id=""), "flags.f.id", "must be a string that is not empty"),
    (flag(id=5), "flags.f.id", "must be a string that is not empty"),
    (flag(name=5), "flags.f.name", "must be a string that is not empty"),
    (flag(salt=5), "flags.f.salt", "must be a string that is not empty"),
    (flag(type="colour"), "flags.f.type", "must be one of boolean, string, number, json"),
    (flag(version=-1), "flags.f.version", "must be a whole number from 0 to 9223372036854775807"),
    (flag(version=True), "flags.f.version", "must be a whole number from 0 to 9223372036854775807"),
    (flag(version=1.0), "flags.f.version", "must be a whole number from 0 to 9223372036854775807"),
    (flag(enabled=1), "flags.f.enabled", "must be true or false"),
    (flag(client_side="yes"), "flags.f.client_side", "must be true or false"),
    (flag(variations={}), "flags.f.variations", "must be a list"),
    (flag(variations=[]), "flags.f.variations", "must not be empty"),
    (flag(variations=[{"key": "on"}]), "flags.f.variations[0]", "has no 'value'"),
    (flag(variations=[{"key": "on", "value": 1}]), "flags.f.variations[0].value", "must be a boolean value"),
    (flag(variations=[{"key": "on", "value": True}] * 2), "flags.f.variations[1].key", "stands twice"),
    (flag(type="string"), "flags.f.variations[0].value", "must be a string value"),
    (flag(type="number"), "flags.f.variations[0].value", "must be a number value"),
    (flag(type="json"), "flags.f.variations[0].value", "must be a json value"),
    (flag(type="number", number_format="hex"), "flags.f.number_format", "must be one of integer, float"),
    (flag(type="number", number_format=[]), "flags.f.number_format", "must be one of integer, float"),
    (with_number(1.5), "flags.f.variations[0].value", "must be a whole number, as the number_format is integer"),
    *(
        (with_number(value, form), "flags.f.variations[0].value", "must be a whole number of at most 64 bits")
        for value, form in ((2**64, "integer"), (10**400, "float"), (1e300, "integer"))
    ),
    (with_number(float("nan"), "float"), "flags.f.variations[0].value", "must be finite"),
    (with_number(float("inf"), "integer"), "flags.f.variations[0].value", "must be finite"),
    (flag(metadata=[]), "flags.f.metadata", "must be an object"),
    (flag(metadata={"a": {}}), "flags.f.metadata.a", "must be a string, a number or a boolean"),
    (flag(metadata={"a": None}), "flags.f.metadata.a", "must be a string, a number or a boolean"),
    (flag(off="gone"), "flags.f.off", "there is no variation 'gone'"),
    (flag(fallthrough={}), "flags.f.fallthrough", SERVE_FORMS),
    (flag(fallthrough={**ON, **HALF}), "flags.f.fallthrough", SERVE_FORMS),
    (flag(fallthrough={"variation": "gone"}), "flags.f.fallthrough.variation", "there is no variation 'gone'"),
    (flag(fallthrough={"variation": {}}), "flags.f.fallthrough.variation", "must be a string that is not empty"),
    (
        flag(fallthrough={**HALF, "experiment": 1}),
        "flags.f.fallthrough.experiment",
        "must be a string that is not empty",
    ),
    (flag(fallthrough=weights()), "flags.f.fallthrough.split.weights", "must add up to 100000, not 0"),
    (
        flag(fallthrough=weights(["on", 99_999])),
        "flags.f.fallthrough.split.weights",
        "must add up to 100000, not 99999",
    ),
    (
        flag(fallthrough=weights(["on", 60_000], ["off", 60_000])),
        "flags.f.fallthrough.split.weights",
        "must add up to 100000, not 120000",
    ),
    (flag(fallthrough=weights("on")), "flags.f.fallthrough.split.weights[0]", "must be a list"),
    (
        flag(fallthrough=weights(["on"])),
        "flags.f.fallthrough.split.weights[0]",
        "must be a variation and its weight",
    ),
    (
        flag(fallthrough=weights(["on", -1])),
        "flags.f.fallthrough.split.weights[0][1]",
        "must be a whole number from 0 to 100000",
    ),
    (
        flag(fallthrough=weights(["gone", 100_000])),
        "flags.f.fallthrough.split.weights[0][0]",
        "there is no variation 'gone'",
    ),
    (
        flag(fallthrough=ramp(every_s=0)),
        "flags.f.fallthrough.ramp.every_s",
        "must be a whole number from 1 to 1000000000",
    ),
    (flag(fallthrough=ramp(start_at="now")), "flags.f.fallthrough.ramp.start_at", START_AT),
    (flag(fallthrough=ramp(start_at=10**20)), "flags.f.fallthrough.ramp.start_at", START_AT),
    (flag(fallthrough=ramp(start_at=-1)), "flags.f.fallthrough.ramp.start_at", START_AT),
    (flag(rules=[{}] * 201), "flags.f.rules", "has 201 elements, at most 200 are allowed"),
    (flag(rules=[{"id": "r", "serve": ON}]), "flags.f.rules[0]", "has no 'when'"),
    (flag(rules=[{"when": {"all": []}, "serve": ON}]), "flags.f.rules[0]", "has no 'id'"),
    (with_rule({}), "flags.f.rules[0].when", CONDITION_FORMS),
    (with_rule({"all": [], "any": []}), "flags.f.rules[0].when", CONDITION_FORMS),
    (with_rule([]), "flags.f.rules[0].when", "must be an object"),
    (with_rule({"all": {}}), "flags.f.rules[0].when.all", "must be a list"),
    (with_rule({"any": [1]}), "flags.f.rules[0].when.any[0]", "must be an object"),
    (with_rule({"not": 1}), "flags.f.rules[0].when.not", "must be an object"),
    (with_rule({"segment": ""}), "flags.f.rules[0].when.segment", "must be a string that is not empty"),
    (with_rule({"op": 5}), "flags.f.rules[0].when.op", "must be a string that is not empty"),
    (with_rule({"op": "equals", "values": []}), "flags.f.rules[0].when", "has no 'attribute'"),
    (with_rule({"op": "equals", "attribute": "a"}), "flags.f.rules[0].when", "has no 'values'"),
    (with_rule({"op": "exists"}), "flags.f.rules[0].when", "has no 'attribute'"),
    (
        with_rule({"op": "in_segment", "values": [5]}),
        "flags.f.rules[0].when.values[0]",
        "must be a string that is not empty",
    ),
    (with_rule(clause("a", "equals", 1, fold_case=1)), "flags.f.rules[0].when.fold_case", "must be true or false"),
    (
        with_rule(clause("a", "in", *THOUSANDS)),
        "flags.f.rules[0].when.values",
        "has 10001 elements, at most 10000 are allowed",
    ),
    (
        with_rule(clause("a", "percentage_of")),
        "flags.f.rules[0].when.values",
        "must be one share in thousandths of a percent",
    ),
    (
        with_rule(clause("a", "percentage_of", 100_001)),
        "flags.f.rules[0].when.values[0]",
        "must be a whole number from 0 to 100000",
    ),
    (with_rule(nested(11)), DEEP, "is nested deeper than 10 conditions"),
    (
        flag(targets=[{"variation": "gone", "units": []}]),
        "flags.f.targets[0].variation",
        "there is no variation 'gone'",
    ),
    (flag(targets=[{"variation": "on", "units": ["a", ""]}]), "flags.f.targets[0].units[1]", UNIT),
    (flag(prerequisites=[{}]), "flags.f.prerequisites[0]", "has no 'flag'"),
    (
        flag(prerequisites=[{"flag": "a", "variations": [1]}]),
        "flags.f.prerequisites[0].variations[0]",
        "must be a string that is not empty",
    ),
    (flag(group=5), "flags.f.group", "must be a string that is not empty"),
]


@pytest.mark.parametrize(("obj", "path", "reason"), REFUSED)
def test_refused_flags(obj: Any, path: str, reason: str) -> None:
    """A flag that cannot be meant is refused with the path and the reason."""
    with pytest.raises(InvalidConfig) as refused:
        parse_flag("f", obj)

    assert (refused.value.path, refused.value.reason) == (path, reason)
    assert str(refused.value) == f"{path}: {reason}"


@pytest.mark.parametrize(
    ("obj", "path", "reason"),
    [
        ("s", "segments.s", "must be an object"),
        ({}, "segments.s", "has no 'version'"),
        (segment(include="u"), "segments.s.include", "must be a list"),
        (segment(exclude=[1.5]), "segments.s.exclude[0]", UNIT),
        (segment(when={}), "segments.s.when", CONDITION_FORMS),
    ],
)
def test_refused_segments(obj: Any, path: str, reason: str) -> None:
    """A segment that cannot be meant is refused with the path and the reason."""
    with pytest.raises(InvalidConfig) as refused:
        parse_segment("s", obj)

    assert (refused.value.path, refused.value.reason) == (path, reason)


def test_segment_without_lists() -> None:
    """A segment may be a version and nothing else."""
    read = parse_segment("s", {"version": 1})

    assert (read.name, read.include, read.exclude, read.when) == ("s", frozenset(), frozenset(), None)


def test_greatest_sizes() -> None:
    """What is exactly at a limit is accepted."""
    values = with_rule(clause("a", "in", *THOUSANDS[:-1]))
    rules = flag(rules=[rule(nested(10), rule_id=f"r{n}") for n in range(200)])

    assert len(parse_flag("f", values).rules) == 1
    assert len(parse_flag("f", rules).rules) == 200


def test_unknown_operators_are_named() -> None:
    """Operators that are not understood are not refused, whatever their arguments; the flag names them."""
    future = [{"op": "sounds_like"}, clause("a", "near", {}), clause("a", "equals", 1), {"not": {"op": "near"}}]
    read = parse_flag("f", flag(rules=[rule({"any": future}), rule(clause("a", "like", "x"), rule_id="r2")]))

    assert read.unknown_operators == {"sounds_like", "near", "like"}
    assert parse_flag("f", flag()).unknown_operators == frozenset()
