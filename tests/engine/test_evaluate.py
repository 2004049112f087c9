"""The order of an evaluation and the reason of every answer."""

from typing import Any

import pytest

from relay.engine.bucketing import bucket, winner
from relay.engine.conditions import MAX_DEPTH
from relay.engine.environment import MAX_CHAIN
from relay.engine.evaluate import Run, evaluate, evaluate_all, typed
from relay.engine.model import Environment, ErrorCode, Evaluation, FlagType, Reason, UnknownOperator
from tests.engine.build import HALF, OFF, ON, clause, environment, flag, rule, ruled, segment

ANYBODY: dict[str, Any] = {"all": []}
UNITS = [f"user-{n}" for n in range(200)]


def ask(flags: dict[str, Any], context: Any, key: str = "f", segments: dict[str, Any] | None = None) -> Evaluation:
    """Evaluate one flag of a small environment."""
    return evaluate(environment(flags, segments), key, context, 0)


def test_unknown_flag() -> None:
    """A flag that does not exist has no value, and the error names it."""
    answer = ask({}, {}, "nowhere")

    assert (answer.value, answer.variation, answer.reason) == (None, None, Reason.ERROR)
    assert answer.error_code is ErrorCode.FLAG_NOT_FOUND
    assert answer.error_detail == "there is no flag 'nowhere' in environment 'production'"


@pytest.mark.parametrize("context", [None, [], "user-1", 5, True])
def test_context_that_is_no_object(context: Any) -> None:
    """Anything but an object as context is an error that serves the off variation, for one flag and for all."""
    answer = ask({"f": flag()}, context)

    assert (answer.value, answer.variation, answer.reason) == (False, "off", Reason.ERROR)
    assert answer.error_code is ErrorCode.INVALID_CONTEXT
    assert evaluate_all(environment({"f": flag()}), context, 0) == {"f": answer}


def test_disabled() -> None:
    """A flag that is switched off serves its off variation whatever else it says."""
    answer = ask({"f": flag(enabled=False, targets=[{"variation": "on", "units": ["u"]}])}, {"targetingKey": "u"})

    assert (answer.value, answer.variation, answer.reason) == (False, "off", Reason.DISABLED)


@pytest.mark.parametrize(
    ("changes", "context", "reason", "error_code"),
    [
        ({"enabled": False}, {}, Reason.DISABLED, None),
        ({"prerequisites": [{"flag": "x"}]}, {}, Reason.PREREQUISITE_FAILED, None),
        ({"group": "g"}, {"targetingKey": "user-0"}, Reason.EXCLUDED, None),
        ({"group": "g"}, {}, Reason.ERROR, ErrorCode.TARGETING_KEY_MISSING),
        ({"fallthrough": HALF}, {}, Reason.ERROR, ErrorCode.TARGETING_KEY_MISSING),
        ({"prerequisites": [{"flag": "f"}]}, {}, Reason.ERROR, ErrorCode.GENERAL),
        ({}, [], Reason.ERROR, ErrorCode.INVALID_CONTEXT),
    ],
)
def test_off_without_a_variation(
    changes: dict[str, Any], context: Any, reason: Reason, error_code: ErrorCode | None
) -> None:
    """Where a flag has no off variation, it is off without a value, for the reason that it would be off for anyway."""
    flags = {"f": flag(off=None, **changes), "other": flag(group="g")}
    for env in (environment(flags), environment({**flags, "f": {**flags["f"], "off": "off"}})):
        answer = evaluate(env, "f", context, 0)
        assert (answer.reason, answer.error_code, answer.version) == (reason, error_code, 7)
        has_none = env.flags["f"].off.variation is None
        assert (answer.value, answer.variation) == ((None, None) if has_none else (False, "off"))


def test_on_without_an_off_variation() -> None:
    """A flag that is on serves as ever, and holds as a prerequisite; while it is off it does not."""
    for enabled in (True, False):
        flags = {"base": flag(off=None, enabled=enabled), "f": flag(prerequisites=[{"flag": "base"}])}
        assert ask(flags, {}).variation == ("on" if enabled else "off")
    assert ask({"f": flag(off=None)}, {}).value is True


def test_answers_carry_version_and_metadata() -> None:
    """Every answer about a flag that exists shows its version and metadata."""
    metadata = {"team": "shop", "tier": 1}

    for changes in ({}, {"enabled": False}, {"fallthrough": HALF}, {"prerequisites": [{"flag": "x"}]}):
        answer = ask({"f": flag(metadata=metadata, **changes)}, {})
        assert (answer.version, answer.flag_metadata) == (7, metadata)


@pytest.mark.parametrize(
    ("changes", "context", "reason"),
    [
        ({}, {}, Reason.STATIC),
        ({"rules": [rule(clause("a", "equals", 1))]}, {}, Reason.DEFAULT),
        ({"rules": [rule(clause("a", "equals", 1))]}, {"a": 1}, Reason.RULE_MATCH),
        ({"rules": [rule(ANYBODY, HALF)]}, {"targetingKey": "u"}, Reason.SPLIT),
        ({"targets": [{"variation": "on", "units": ["v"]}]}, {"targetingKey": "u"}, Reason.DEFAULT),
        ({"targets": [{"variation": "on", "units": ["u"]}]}, {"targetingKey": "u"}, Reason.TARGET_MATCH),
        ({"targets": [{"variation": "on", "units": [42]}]}, {"targetingKey": 42}, Reason.TARGET_MATCH),
        ({"targets": [{"variation": "on", "units": ["42"]}]}, {"targetingKey": 42}, Reason.TARGET_MATCH),
        ({"fallthrough": HALF}, {"targetingKey": "u"}, Reason.SPLIT),
        ({"fallthrough": HALF, "rules": [rule(clause("a", "equals", 1))]}, {"targetingKey": "u"}, Reason.SPLIT),
    ],
)
def test_reasons(changes: dict[str, Any], context: dict[str, Any], reason: Reason) -> None:
    """Each way to an answer has its reason."""
    answer = ask({"f": flag(**changes)}, context)

    assert answer.reason is reason
    assert answer.error_code is None


def test_first_rule_wins() -> None:
    """Rules are asked in order, and the answer names the one that matched."""
    rules = [
        rule(clause("a", "equals", 1), ON, "first"),
        rule(clause("b", "equals", 1), OFF, "second"),
        rule(clause("b", "equals", 1), ON, "third"),
    ]
    answer = ask({"f": flag(rules=rules)}, {"a": 2, "b": 1})

    assert (answer.rule_id, answer.rule_index, answer.variation) == ("second", 1, "off")


def test_targets_come_before_rules() -> None:
    """A unit that is named is served before any rule is asked; one named twice keeps the first."""
    targets = [{"variation": "off", "units": ["u"]}, {"variation": "on", "units": ["u"]}]
    answer = ask({"f": flag(targets=targets, rules=[rule(ANYBODY)])}, {"targetingKey": "u"})

    assert (answer.variation, answer.reason, answer.rule_id) == ("off", Reason.TARGET_MATCH, None)


@pytest.mark.parametrize("unit", ["", 1.5, True, None, [], {}, 2**64, -(2**63) - 1])
def test_what_is_no_unit(unit: Any) -> None:
    """Only strings that are not empty and 64-bit integers are units; without one a split serves off, with an error."""
    answer = ask({"f": flag(fallthrough=HALF)}, {"targetingKey": unit})

    assert (answer.value, answer.reason, answer.error_code) == (False, Reason.ERROR, ErrorCode.TARGETING_KEY_MISSING)
    assert answer.error_detail == "the context has no 'targetingKey', a string that is not empty or an integer"


def test_split_by_another_attribute() -> None:
    """A split may tell units apart by any attribute, and the error names it."""
    by_company = {"split": {"by": "company.id", "weights": [["on", 100_000]]}}

    assert ask({"f": flag(fallthrough=by_company)}, {"company": {"id": 7}}).variation == "on"
    detail = ask({"f": flag(fallthrough=by_company)}, {"targetingKey": "u"}).error_detail
    assert detail == "the context has no 'company.id', a string that is not empty or an integer"


def test_rule_whose_split_lacks_its_unit_does_not_match() -> None:
    """A rule that cannot tell the unit lets the next rule answer."""
    rules = [rule(ANYBODY, HALF, "split"), rule(ANYBODY, ON, "fixed")]

    assert ask({"f": flag(rules=rules)}, {}).rule_id == "fixed"
    assert ask({"f": flag(rules=rules)}, {"targetingKey": "u"}).rule_id == "split"


def test_split_serves_ranges_in_stored_order() -> None:
    """Every unit gets the variation in whose range its bucket lies; a range of 0 serves nobody."""
    weights = [["b", 25_000], ["none", 0], ["a", 60_000], ["c", 15_000]]
    variations = [{"key": key, "value": key} for key in ("a", "b", "c", "none")]
    served = environment(
        {"f": flag(type="string", variations=variations, off="a", fallthrough={"split": {"weights": weights}})}
    )

    for unit in UNITS:
        drawn = bucket("rollout", "salt", unit)
        expected = "b" if drawn < 25_000 else "a" if drawn < 85_000 else "c"
        assert evaluate(served, "f", {"targetingKey": unit}, 0).value == expected


def test_salt_of_a_split() -> None:
    """A split may carry a salt of its own; a rule's split and the fallthrough share the flag's otherwise."""
    own = {"split": {"weights": [["on", 50_000], ["off", 50_000]], "salt": "own"}}
    served = environment({"own": flag(fallthrough=own), "rule": flag(rules=[rule(ANYBODY, HALF)])})

    for unit in UNITS:
        context = {"targetingKey": unit}
        assert evaluate(served, "own", context, 0).value is (bucket("rollout", "own", unit) < 50_000)
        assert evaluate(served, "rule", context, 0).value is (bucket("rollout", "salt", unit) < 50_000)


def test_growing_a_percentage_keeps_everybody() -> None:
    """Whoever is in at 10 % is in at 11 % and at 60 %."""
    shares = (10_000, 11_000, 60_000)
    served = environment(
        {
            str(share): flag(fallthrough={"split": {"weights": [["on", share], ["off", 100_000 - share]]}})
            for share in shares
        }
    )
    inside = [{u for u in UNITS if evaluate(served, str(s), {"targetingKey": u}, 0).value} for s in shares]

    assert inside[0] < inside[1] | {""} < inside[2] | {""}


def test_experiment() -> None:
    """A split of an experiment names it; a fixed variation does not."""
    serve = {**HALF, "experiment": "checkout-colour"}

    assert ask({"f": flag(fallthrough=serve)}, {"targetingKey": "u"}).experiment == "checkout-colour"
    assert ask({"f": flag(fallthrough=HALF)}, {"targetingKey": "u"}).experiment is None


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"all": []}, True),
        ({"any": []}, False),
        ({"all": [clause("a", "equals", 1), clause("b", "equals", 2)]}, True),
        ({"all": [clause("a", "equals", 1), clause("b", "equals", 3)]}, False),
        ({"any": [clause("a", "equals", 2), clause("b", "equals", 2)]}, True),
        ({"any": [clause("a", "equals", 2), clause("b", "equals", 3)]}, False),
        ({"not": clause("a", "equals", 2)}, True),
        ({"not": clause("missing", "equals", 2)}, True),
        ({"not": clause("missing", "not_equals", 2)}, True),
        ({"not": {"not": clause("a", "equals", 1)}}, True),
        (clause("nested.deep.value", "equals", "x"), True),
        (clause("nested.deep", "equals", "x"), False),
        (clause("nested.deep.value.more", "equals", "x"), False),
        (clause("nested.missing.value", "equals", "x"), False),
        (clause("dotted.name", "equals", "literal"), True),
        (clause("dotted.null", "equals", "nested"), False),
        (clause("targetingKey", "starts_with", "user"), True),
    ],
)
def test_conditions(when: Any, expected: bool) -> None:  # noqa: FBT001 - a table
    """Conditions combine as their names say; paths look for the literal name first, then inside objects."""
    context = {
        "targetingKey": "user-1",
        "a": 1,
        "b": 2,
        "nested": {"deep": {"value": "x"}},
        "dotted.name": "literal",
        "dotted.null": None,
        "dotted": {"name": "nested", "null": "nested"},
    }

    assert ask({"f": ruled(when)}, context).value is expected


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"not": c}, lambda c: {"any": [{"all": []}, c]}])
def test_unknown_operator_skips_the_rule(wrap: Any) -> None:
    """A rule with an operator of the future never matches, neither negated nor beside a condition that holds."""
    rules = [rule(wrap(clause("a", "sounds_like", "x")), OFF, "future"), rule(ANYBODY, ON, "next")]

    assert ask({"f": flag(rules=rules)}, {"a": "x"}).rule_id == "next"


def test_unknown_operator_itself_never_holds() -> None:
    """Were it asked all the same, an unknown operator would say no."""
    assert not Run(environment({}), {}, 0).meets(UnknownOperator("sounds_like"))


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ({"targetingKey": "in"}, True),
        ({"targetingKey": "both"}, False),
        ({"targetingKey": "out", "plan": "pro"}, False),
        ({"targetingKey": "else", "plan": "pro"}, True),
        ({"targetingKey": "else", "plan": "free"}, False),
        ({"plan": "pro"}, True),
        ({}, False),
        ({"targetingKey": 42}, True),
    ],
)
def test_segments(context: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table
    """A segment has who is included by name or meets its condition, and never who is excluded by name."""
    members = segment(include=["in", "both", 42], exclude=["out", "both"], when=clause("plan", "equals", "pro"))

    segments = {"s": members, "none": segment()}

    assert ask({"f": ruled({"segment": "s"})}, context, segments=segments).value is expected
    one_of = {"op": "in_segment", "values": ["none", "s"]}
    assert ask({"f": ruled(one_of)}, context, segments=segments).value is expected
    assert ask({"f": ruled({**one_of, "op": "not_in_segment"})}, context, segments=segments).value is not expected


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: {"not": c}, lambda c: {"any": [{"all": []}, c]}])
@pytest.mark.parametrize(
    "segments",
    [
        {},
        {"s": segment(when=clause("a", "sounds_like", 1))},
        {"s": segment(when={"segment": "gone"})},
        {"s": segment(when={"segment": "s"})},
        {"s": segment(when={"segment": "t"}), "t": segment(when={"segment": "s"})},
    ],
)
def test_segment_that_cannot_be_decided_skips_the_rule(wrap: Any, segments: dict[str, Any]) -> None:
    """A segment that is missing, not understood or inside itself makes its rules match nobody."""
    rules = [rule(wrap({"segment": "s"}), OFF, "skipped"), rule(ANYBODY, ON, "next")]

    assert ask({"f": flag(rules=rules)}, {"targetingKey": "u"}, segments=segments).rule_id == "next"


@pytest.mark.parametrize(("depth", "expected"), [(16, True), (17, False)])
def test_depth_of_segments(depth: int, expected: bool) -> None:  # noqa: FBT001 - a table
    """Segments nest 16 deep; one level more is not decided."""
    segments = {f"s{n}": segment(when={"segment": f"s{n + 1}"}) for n in range(depth)}
    segments[f"s{depth}"] = segment(include=["u"])

    assert ask({"f": ruled({"segment": "s0"})}, {"targetingKey": "u"}, segments=segments).value is expected


def test_percentage_of() -> None:
    """A share of the attribute's values passes, drawn with the rule's id; what is no unit never does."""
    served = environment({"f": ruled(clause("company", "percentage_of", 30_000))})

    for unit in UNITS:
        assert evaluate(served, "f", {"company": unit}, 0).value is (bucket("rollout", "r1", unit) < 30_000)
    assert evaluate(served, "f", {"company": 1.5}, 0).value is False
    assert evaluate(served, "f", {}, 0).value is False


def test_percentage_of_in_a_segment() -> None:
    """In a segment the share is drawn with the segment's key, so that it is the same people in every flag."""
    half = segment(when=clause("targetingKey", "percentage_of", 50_000))
    served = environment({"f": ruled({"segment": "half"}), "g": ruled({"segment": "half"})}, {"half": half})

    for unit in UNITS:
        answers = evaluate_all(served, {"targetingKey": unit}, 0)
        assert answers["f"].value is answers["g"].value is (bucket("rollout", "half", unit) < 50_000)


def required(*keys: str, **more: Any) -> list[dict[str, Any]]:
    """Return prerequisites."""
    return [{"flag": key, **more} for key in keys]


@pytest.mark.parametrize(
    ("other", "variations", "context", "holds"),
    [
        (flag(), None, {}, True),
        (flag(fallthrough=OFF), None, {}, True),
        (flag(), ["on"], {}, True),
        (flag(), ["off", "on"], {}, True),
        (flag(fallthrough=OFF), ["on"], {}, False),
        (flag(), [], {}, False),
        (flag(enabled=False), None, {}, False),
        (flag(enabled=False), ["off"], {}, False),
        (flag(fallthrough=HALF), None, {}, False),
        (flag(prerequisites=required("gone")), ["off"], {}, False),
        (flag(rules=[rule(clause("a", "equals", 1), OFF)]), ["off"], {"a": 1}, True),
    ],
)
def test_prerequisites(other: Any, variations: Any, context: Any, holds: bool) -> None:  # noqa: FBT001 - a table
    """A prerequisite must be on for this context, its own ones included, and serve one of the variations asked for."""
    asked = {} if variations is None else {"variations": variations}
    answer = ask({"f": flag(prerequisites=required("other", **asked)), "other": other}, context)

    if holds:
        assert (answer.value, answer.reason) == (True, Reason.STATIC)
    else:
        assert (answer.value, answer.variation, answer.reason) == (False, "off", Reason.PREREQUISITE_FAILED)
        assert (answer.blocked_by, answer.error_code) == ("other", None)


def test_missing_prerequisite_fails() -> None:
    """A prerequisite that does not exist does not hold, and the first one that fails is named."""
    flags = {"f": flag(prerequisites=required("there", "gone", "lost")), "there": flag()}

    assert ask(flags, {}).blocked_by == "gone"


def test_a_diamond_is_no_cycle() -> None:
    """Two prerequisites that share a third are fine."""
    flags = {
        "f": flag(prerequisites=required("left", "right")),
        "left": flag(prerequisites=required("bottom")),
        "right": flag(prerequisites=required("bottom")),
        "bottom": flag(),
    }

    assert ask(flags, {}).reason is Reason.STATIC


def test_cycles_of_prerequisites() -> None:
    """Flags on a cycle, or leading into one, are off with an error, wherever one enters; others are not touched."""
    served = environment(
        {
            "a": flag(prerequisites=required("b")),
            "b": flag(prerequisites=required("c")),
            "c": flag(prerequisites=required("a")),
            "self": flag(prerequisites=required("self")),
            "outside": flag(prerequisites=required("a")),
            "disabled": flag(prerequisites=required("a"), enabled=False),
            "fine": flag(),
        }
    )
    answers = evaluate_all(served, {}, 0)

    for key in ("a", "b", "c", "self", "outside"):
        assert (answers[key].variation, answers[key].error_code) == ("off", ErrorCode.GENERAL)
        assert answers[key] == evaluate(served, key, {}, 0)
    assert answers["disabled"].reason is Reason.DISABLED
    assert answers["fine"].reason is Reason.STATIC


def chain(length: int) -> Environment:
    """Return flags f0 … fN, each requiring the next."""
    flags = {f"f{n}": flag(prerequisites=required(f"f{n + 1}")) for n in range(length)}
    return environment({**flags, f"f{length}": flag()})


def test_depth_of_prerequisites() -> None:
    """Prerequisites nest 16 deep; one more level is an error at the top, and at no flag below."""
    assert evaluate(chain(16), "f0", {}, 0).reason is Reason.STATIC

    too_deep = chain(17)
    assert evaluate(too_deep, "f0", {}, 0).error_code is ErrorCode.GENERAL
    assert evaluate(too_deep, "f1", {}, 0).reason is Reason.STATIC


def test_endless_chain() -> None:
    """1,500 flags in a row are off with an error, not a stack overflow."""
    assert evaluate(chain(1_500), "f0", {}, 0).error_code is ErrorCode.GENERAL


def test_deepest_configuration() -> None:
    """Prerequisites, segments and conditions may all be as deep as they are allowed to be at once."""

    def deep(innermost: Any) -> Any:
        for _ in range(MAX_DEPTH - 1):
            innermost = {"all": [innermost]}
        return innermost

    segments = {f"s{n}": segment(when=deep({"segment": f"s{n + 1}"})) for n in range(MAX_CHAIN)}
    segments[f"s{MAX_CHAIN}"] = segment(when=deep(clause("a", "equals", 1)))
    flags = {f"f{n}": flag(prerequisites=required(f"f{n + 1}")) for n in range(MAX_CHAIN)}
    flags[f"f{MAX_CHAIN}"] = ruled(deep({"segment": "s0"}))

    assert ask(flags, {"a": 1}, "f0", segments).reason is Reason.STATIC
    assert ask(flags, {"a": 1}, f"f{MAX_CHAIN}", segments).reason is Reason.RULE_MATCH


def test_wide_graphs_are_decided_once() -> None:
    """Layers in which everything requires, or contains, everything below cost their edges, not their paths: 4^16."""
    layers, width = 16, 4
    names = [[f"n{layer}.{n}" for n in range(width)] for layer in range(layers + 1)]
    flags = {k: flag(prerequisites=required(*names[i + 1])) for i in range(layers) for k in names[i]}
    inside = [{"any": [{"segment": key} for key in names[i + 1]]} for i in range(layers)]
    segments = {key: segment(when=inside[i]) for i in range(layers) for key in names[i]}
    flags |= dict.fromkeys(names[layers], flag(rules=[rule({"segment": names[0][0]})]))
    segments |= dict.fromkeys(names[layers], segment())

    assert ask(flags, {"targetingKey": "u"}, names[0][0], segments).reason is Reason.STATIC


def test_mutual_exclusion() -> None:
    """Each unit is served by exactly one enabled member of a group; the others say EXCLUDED."""
    members = ("a", "b", "c")
    served = environment(
        {
            **{key: flag(group="checkout") for key in members},
            "off": flag(group="checkout", enabled=False),
            "other": flag(group="search"),
        }
    )
    for unit in UNITS:
        answers = evaluate_all(served, {"targetingKey": unit}, 0)
        on = [key for key in members if answers[key].value]
        assert on == [winner("checkout", members, unit)]
        assert answers["other"].value is True
        for key in set(members) - set(on):
            assert (answers[key].reason, answers[key].blocked_by) == (Reason.EXCLUDED, "checkout")


def test_mutual_exclusion_comes_before_targets_and_needs_a_unit() -> None:
    """A group decides before individual targets; without targetingKey its flags are off with an error."""
    loser = "b" if winner("g", ("a", "b"), "u") == "a" else "a"
    flags = {key: flag(group="g", targets=[{"variation": "on", "units": ["u"]}]) for key in ("a", "b")}

    assert ask(flags, {"targetingKey": "u"}, loser).reason is Reason.EXCLUDED
    assert ask(flags, {}, loser).error_code is ErrorCode.TARGETING_KEY_MISSING


def test_excluded_prerequisite_does_not_hold() -> None:
    """A flag that is not this unit's cannot carry another one."""
    loser = "b" if winner("g", ("a", "b"), "u") == "a" else "a"
    flags = {"a": flag(group="g"), "b": flag(group="g"), "f": flag(prerequisites=required(loser))}

    assert ask(flags, {"targetingKey": "u"}).reason is Reason.PREREQUISITE_FAILED


def test_evaluate_all() -> None:
    """All flags are answered as each alone; browsers get those on the client side only."""
    served = environment(
        {
            "open": flag(fallthrough=HALF),
            "closed": flag(client_side=False),
            "chained": flag(prerequisites=required("closed", "open")),
        }
    )
    context = {"targetingKey": "user-2"}
    answers = evaluate_all(served, context, 0)

    assert answers == {key: evaluate(served, key, context, 0) for key in ("open", "closed", "chained")}
    assert evaluate_all(served, context, 0, client_side_only=True) == {k: answers[k] for k in ("open", "chained")}


@pytest.mark.parametrize(
    ("flag_type", "value", "fits"),
    [
        (FlagType.BOOLEAN, True, {FlagType.BOOLEAN}),
        (FlagType.STRING, "x", {FlagType.STRING}),
        (FlagType.NUMBER, 1, {FlagType.NUMBER}),
        (FlagType.NUMBER, 0.5, {FlagType.NUMBER}),
        (FlagType.JSON, {}, {FlagType.JSON}),
        (FlagType.JSON, [1], {FlagType.JSON}),
    ],
)
def test_typed(flag_type: FlagType, value: Any, fits: set[FlagType]) -> None:
    """A getter of the flag's type sees the answer as it is, any other TYPE_MISMATCH without a value."""
    served = flag(type=flag_type, variations=[{"key": "v", "value": value}], off="v", fallthrough={"variation": "v"})
    answer = ask({"f": served}, {})

    for wanted in FlagType:
        seen = typed(answer, wanted)
        if wanted in fits:
            assert seen is answer
        else:
            assert (seen.value, seen.variation, seen.error_code) == (None, None, ErrorCode.TYPE_MISMATCH)
            assert (seen.reason, seen.version) == (Reason.ERROR, 7)


@pytest.mark.parametrize("wanted", FlagType)
def test_typed_keeps_answers_without_a_value(wanted: FlagType) -> None:
    """Whatever the getter's type, an answer that leaves the value to the code's default is no mismatch."""
    answer = ask({"f": flag(off=None, enabled=False)}, {})

    assert typed(answer, wanted) is answer


def test_typed_keeps_errors() -> None:
    """A getter reports what went wrong in the evaluation rather than the type of its fallback value."""
    unknown = ask({}, {})
    without_unit = ask({"f": flag(fallthrough=HALF)}, {})

    assert typed(unknown, FlagType.STRING) is unknown
    assert typed(without_unit, FlagType.STRING) is without_unit
