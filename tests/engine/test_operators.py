"""Every operator against values that match, that do not, and that it cannot read."""

from itertools import pairwise
from typing import Any

import pytest

from relay.engine.evaluate import evaluate
from relay.engine.node import InvalidConfig
from relay.engine.operators import (
    ALIASES,
    CONDITION_OPERATORS,
    MAX_COSTLY_ELEMENTS,
    MAX_ELEMENTS,
    MAX_PATTERNS,
    MAX_SEARCHED,
    OPERATORS,
    canonical,
)
from relay.engine.parse import parse_flag
from relay.engine.patterns import MAX_PATTERN_LENGTH, MAX_SUBJECT_BYTES
from tests.engine.build import clause, environment, ruled

YES, NO, NEVER = True, False, None
"""Whether a value passes the operator. NEVER: neither the operator nor its negation, as the value cannot be read."""


def passes(value: Any, op: str, *values: Any, **more: Any) -> bool:
    """Tell whether a context with this attribute meets the clause."""
    flags = environment({"f": ruled(clause("a", op, *values, **more))})
    return bool(evaluate(flags, "f", {"a": value}, 0).value)


EQUALITY = [
    ("NO", ["NO"], YES),
    ("NO", ["SE", "NO"], YES),
    ("no", ["NO"], NO),
    ("", [""], YES),
    ("NO", [], NO),
    (1, [1], YES),
    (1, [1.0], YES),
    (1.0, [1], YES),
    (1, ["1"], NO),
    ("1", [1], NO),
    (True, [True], YES),
    (True, [False], NO),
    (True, [1], NO),
    (1, [True], NO),
    (0, [False], NO),
    (False, [0], NO),
    (2**63, [2**63], YES),
    (9007199254740993, [9007199254740992.0], NO),
    (["SE", "NO"], ["NO"], YES),
    (["SE", "DK"], ["NO"], NO),
    ([], ["NO"], NO),
    ({"a": 1}, ["NO"], NEVER),
    (None, ["NO"], NEVER),
]


@pytest.mark.parametrize(("value", "values", "expected"), EQUALITY)
@pytest.mark.parametrize(("op", "negation"), [("equals", "not_equals"), ("in", "not_in")])
def test_equality(op: str, negation: str, value: Any, values: list[Any], expected: Any) -> None:
    """Equality is strict about types, takes numbers by value and lists by element."""
    assert passes(value, op, *values) is (expected is YES)
    assert passes(value, negation, *values) is (expected is NO)


@pytest.mark.parametrize(
    ("value", "expected", "negated"),
    [
        (["NO", {}], True, False),
        (["SE", {}], False, False),
        ([None], False, False),
        ([["NO"]], False, False),
        ([], False, True),
        (["SE", "DK"], False, True),
    ],
)
def test_lists(value: list[Any], expected: bool, negated: bool) -> None:  # noqa: FBT001 - a table
    """Any element may match; a negated operator needs all of them to be readable and different."""
    assert passes(value, "in", "NO") is expected
    assert passes(value, "not_in", "NO") is negated


TEXTS = [
    ("contains", "checkout-beta", ["beta"], YES),
    ("contains", "checkout-beta", ["x", "check"], YES),
    ("contains", "checkout", ["Check"], NO),
    ("contains", "checkout", [], NO),
    ("contains", "blåbær", ["åb"], YES),
    ("contains", ["alpha", "beta"], ["et"], YES),
    ("contains", 12, ["1"], NEVER),
    ("contains", True, ["T"], NEVER),
    ("contains", None, ["x"], NEVER),
    ("starts_with", "checkout", ["check"], YES),
    ("starts_with", "checkout", ["x", "c"], YES),
    ("starts_with", "checkout", ["out"], NO),
    ("starts_with", 12, ["1"], NEVER),
    ("ends_with", "ola@example.com", ["@example.com"], YES),
    ("ends_with", "ola@example.com", ["@example.org"], NO),
    ("ends_with", 12, ["2"], NEVER),
]


@pytest.mark.parametrize(("op", "value", "values", "expected"), TEXTS)
def test_texts(op: str, value: Any, values: list[str], expected: Any) -> None:
    """The string operators read strings only and mind the case."""
    assert passes(value, op, *values) is (expected is YES)
    assert passes(value, f"not_{op}", *values) is (expected is NO)


@pytest.mark.parametrize(
    ("op", "value", "argument"),
    [
        ("equals", "Straße", "STRASSE"),
        ("in", "NO", "no"),
        ("contains", "CheckOut", "kOUT"),
        ("starts_with", "CheckOut", "cHECK"),
        ("ends_with", "CheckOut", "oUT"),
        ("matches", "CheckOut", "^check"),
    ],
)
def test_fold_case(op: str, value: str, argument: str) -> None:
    """With fold_case, and only with it, upper and lower case are the same."""
    assert passes(value, op, argument, fold_case=True)
    assert not passes(value, op, argument, fold_case=False)
    assert not passes(value, op, argument)


@pytest.mark.parametrize(
    ("value", "pattern", "expected"),
    [
        ("user-42", r"\d+", True),
        ("user-42", r"^\d+$", False),
        ("user-42", r"^user-[0-9]{2}$", True),
        ("日本語", "^...$", True),
        ("", "^$", True),
        (42, "42", False),
        ("x" * (MAX_SUBJECT_BYTES - 1) + "y", "y", True),
        ("x" * MAX_SUBJECT_BYTES + "y", "y", False),
        ("é" * MAX_SUBJECT_BYTES, r"^é+$", True),
        ("x" + "é" * MAX_SUBJECT_BYTES, r"^xé+$", True),
        ("\ud800", r"^.$", True),
        ("a" * 4000, "(a+)+b", False),
    ],
)
def test_matches(value: Any, pattern: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A pattern is searched for in the first 4 KiB of a string, cut between characters."""
    assert passes(value, "matches", pattern) is expected


def test_matches_any_pattern() -> None:
    """One of several patterns is enough."""
    assert passes("beta", "matches", "^alpha", "^be")


@pytest.mark.parametrize(
    ("value", "op", "values", "expected"),
    [
        (18, "gt", [17], True),
        (18, "gt", [18], False),
        (18, "gte", [18], True),
        (17.5, "lt", [18], True),
        (18, "lt", [18], False),
        (18, "lte", [18.0], True),
        ("18", "gte", [18], True),
        (18, "gte", ["18"], True),
        ("-1.5e1", "lt", [-14], True),
        (5, "gt", [10, 4], True),
        (9007199254740993, "gt", [9007199254740992.0], True),
        ("9007199254740993", "gt", ["9007199254740992"], True),
        ("", "gte", [0], False),
        (" 1", "gte", [0], False),
        ("1_000", "gte", [0], False),
        ("0x10", "gte", [0], False),
        ("01", "gte", [0], False),
        ("+1", "gte", [0], False),
        ("1.", "gte", [0], False),
        ("inf", "gte", [0], False),
        ("NaN", "lte", [0], False),
        ("1e999", "gte", [0], False),
        ("\u0661", "gte", [0], False),  # ARABIC-INDIC DIGIT ONE
        ("1" * 65, "gte", [0], False),
        (float("inf"), "gte", [0], False),
        (True, "gte", [0], False),
        (None, "lte", [0], False),
        ({}, "lte", [0], False),
        ([3, 30], "gt", [20], True),
        (5, "between", [1, 5], True),
        (1, "between", [1, 5], True),
        (5.01, "between", [1, 5], False),
        ("3", "between", ["1", 5], True),
        ("x", "between", [1, 5], False),
    ],
)
def test_numbers(value: Any, op: str, values: list[Any], expected: bool) -> None:  # noqa: FBT001 - a table
    """Numbers compare exactly; strings count only when they are JSON numbers, and nothing becomes 0."""
    assert passes(value, op, *values) is expected


SEMVER_ORDER = [
    "0.0.0",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.2.0",
    "1.10.0",
    "10.0.0",
]


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(SEMVER_ORDER)))
def test_semver_precedence(lower: str, higher: str) -> None:
    """Versions stand in the order that SemVer 2.0 gives as its example, and some more."""
    assert passes(higher, "semver_gt", lower)
    assert passes(higher, "semver_gte", lower)
    assert passes(lower, "semver_lt", higher)
    assert passes(lower, "semver_lte", higher)
    assert not passes(lower, "semver_gt", higher)
    assert not passes(lower, "semver_eq", higher)


@pytest.mark.parametrize(
    ("value", "argument", "expected"),
    [
        ("1.2.3", "1.2.3", True),
        ("v1.2.3", "1.2.3", True),
        ("1.2", "1.2.0", True),
        ("1", "v1.0.0", True),
        ("1.2-rc", "1.2.0-rc", True),
        ("1.2.3+build.5", "1.2.3", True),
        ("1.2.3", "1.2.4", False),
        ("01.2.3", "1.2.3", False),
        ("1.2.3-01", "1.2.3-1", False),
        ("1.2.3.4", "1.2.3", False),
        ("latest", "1.2.3", False),
        ("", "0.0.0", False),
        ("1.2.3\n", "1.2.3", False),
        (1, "1.0.0", False),
        ("1" * 300, "1.0.0", False),
    ],
)
def test_semver_eq(value: Any, argument: str, expected: bool) -> None:  # noqa: FBT001 - a table
    """A leading v, missing parts and build metadata make no difference; what is no version never matches."""
    assert passes(value, "semver_eq", argument) is expected


NOON_MS = 1_795_262_400_000  # 2026-11-21T12:00:00Z


@pytest.mark.parametrize(
    ("value", "before", "after"),
    [
        ("2026-11-21T11:59:59.999Z", True, False),
        ("2026-11-21T12:00:00Z", False, False),
        ("2026-11-21T12:00:00.001Z", False, True),
        ("2026-11-21T12:00:00.0009Z", False, False),
        ("2026-11-21t12:00:01z", False, True),
        ("2026-11-21T13:00:00+01:00", False, False),
        ("2026-11-21T13:00:00+01:30", True, False),
        ("2026-11-21T06:30:00-05:30", False, False),
        ("2026-11-21T11:59:60Z", False, False),
        ("0001-01-01T00:00:00+23:59", True, False),
        (NOON_MS - 1, True, False),
        (NOON_MS, False, False),
        (NOON_MS + 0.5, False, True),
        ("2026-11-21T12:00:01", False, False),
        ("2026-11-21", False, False),
        ("2026-11-21 12:00:01Z", False, False),
        ("2026-02-30T12:00:00Z", False, False),
        ("2026-11-21T24:00:00Z", False, False),
        ("2026-11-21T12:00:61Z", False, False),
        ("2026-11-21T12:00:00+24:00", False, False),
        ("0000-01-01T00:00:00Z", False, False),
        (str(NOON_MS + 1), False, False),
        (True, False, False),
        (None, False, False),
    ],
)
def test_times(value: Any, before: bool, after: bool) -> None:  # noqa: FBT001 - a table
    """Both ends are exclusive; RFC 3339 with an offset and epoch milliseconds are read, anything else never matches."""
    for argument in (NOON_MS, "2026-11-21T12:00:00Z"):
        assert passes(value, "before", argument) is before
        assert passes(value, "after", argument) is after


CIDR = [
    ("10.1.2.3", ["10.0.0.0/8"], YES),
    ("10.1.2.3", ["10.9.9.9/8"], YES),
    ("11.1.2.3", ["10.0.0.0/8"], NO),
    ("11.1.2.3", ["10.0.0.0/8", "11.1.2.3"], YES),
    ("::ffff:10.1.2.3", ["10.0.0.0/8"], YES),
    ("10.1.2.3", ["::ffff:10.0.0.0/104"], YES),
    ("11.1.2.3", ["::ffff:10.0.0.0/104"], NO),
    ("2001:db8::1", ["2001:db8::/32"], YES),
    ("2001:db9::1", ["2001:db8::/32"], NO),
    ("2001:db8::1", ["0.0.0.0/0"], NO),
    ("10.1.2.3", ["::/0"], NO),
    ("10.1.2.3", ["0.0.0.0/0"], YES),
    (["9.9.9.9", "10.1.2.3"], ["10.0.0.0/8"], YES),
    ("10.1.2", ["10.0.0.0/8"], NEVER),
    ("10.1.2.3:80", ["10.0.0.0/8"], NEVER),
    ("010.1.2.3", ["10.0.0.0/8"], NEVER),
    ("", ["10.0.0.0/8"], NEVER),
    (167838211, ["10.0.0.0/8"], NEVER),
]


@pytest.mark.parametrize(("value", "values", "expected"), CIDR)
def test_networks(value: Any, values: list[str], expected: Any) -> None:
    """IPv4 and IPv6 are told apart, IPv4 inside IPv6 is IPv4, and what is no address is neither in nor outside."""
    assert passes(value, "in_cidr", *values) is (expected is YES)
    assert passes(value, "not_in_cidr", *values) is (expected is NO)


@pytest.mark.parametrize(
    ("context", "expected"),
    [({"a": 0}, True), ({"a": ""}, True), ({"a": []}, True), ({"a": False}, True), ({"a": None}, False), ({}, False)],
)
def test_exists(context: dict[str, Any], expected: bool) -> None:  # noqa: FBT001 - a table
    """An attribute exists unless it is missing or null."""
    flags = environment(
        {"yes": ruled({"attribute": "a", "op": "exists"}), "no": ruled({"attribute": "a", "op": "not_exists"})}
    )

    assert evaluate(flags, "yes", context, 0).value is expected
    assert evaluate(flags, "no", context, 0).value is not expected


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_missing_attribute_never_matches(op: str) -> None:
    """Without the attribute no operator matches, the negated ones included."""
    special: dict[str, list[Any]] = {
        "between": [1, 2],
        "in_cidr": ["::/0"],
        "not_in_cidr": ["::/0"],
        "before": [1],
        "after": [1],
    }
    arguments = special.get(op, ["1"])
    flags = environment({"f": ruled(clause("a", op, *arguments))})

    assert evaluate(flags, "f", {"b": 1}, 0).value is False
    assert evaluate(flags, "f", {"a": None}, 0).value is False


@pytest.mark.parametrize(
    ("op", "values", "path", "reason"),
    [
        ("equals", [None], "[0]", "must be a string, a number or a boolean"),
        ("in", ["a", []], "[1]", "must be a string, a number or a boolean"),
        ("contains", ["a", 1], "[1]", "must be a string"),
        ("matches", [1], "[0]", "must be a string"),
        ("matches", ["a", "("], "[1]", "is no RE2 pattern: missing ): ("),
        ("matches", [r"(a)\1"], "[0]", r"is no RE2 pattern: invalid escape sequence: \1"),
        ("matches", ["\ud800"], "[0]", "is no RE2 pattern: it holds half of a surrogate pair"),
        ("matches", ["x" * 513], "[0]", "is a pattern of 513 characters, at most 512 are allowed"),
        ("matches", ["(.{1,100}){10}Q"], "[0]", "costs too much: 8995 RE2 instructions, at most 600 are allowed"),
        ("matches", ["x"] * 101, "", "has 101 patterns, at most 100 are allowed"),
        ("gt", ["abc"], "[0]", "must be a number"),
        ("gt", [True], "[0]", "must be a number"),
        ("between", [1], "", "must be two numbers, the lower one first"),
        ("between", [2, 1], "", "must be two numbers, the lower one first"),
        ("semver_gt", ["1.2.3", "x"], "[1]", "must be a semantic version"),
        ("before", ["tomorrow"], "[0]", "must be an RFC 3339 time or epoch milliseconds"),
        ("in_cidr", ["10.0.0.0/33"], "[0]", "must be an IP network such as 10.0.0.0/8"),
        ("in_cidr", [10], "[0]", "must be an IP network such as 10.0.0.0/8"),
    ],
)
def test_bad_arguments_are_refused(op: str, values: list[Any], path: str, reason: str) -> None:
    """An argument that the operator cannot use is refused with its place."""
    with pytest.raises(InvalidConfig) as refused:
        parse_flag("f", ruled(clause("a", op, *values)))

    assert refused.value.path == f"flags.f.rules[0].when.values{path}"
    assert refused.value.reason == reason


def test_limits_are_inclusive() -> None:
    """Patterns of the greatest length, and the greatest number of them, are accepted."""
    assert passes("x" * MAX_PATTERN_LENGTH, "matches", "x" * MAX_PATTERN_LENGTH)
    assert passes("x", "matches", *["y"] * (MAX_PATTERNS - 1), "x")


def test_of_a_long_list_only_the_beginning_is_looked_at() -> None:
    """An element behind it does not match, and a negated operator, which must see every one, does not hold."""
    assert passes([0] * (MAX_ELEMENTS - 1) + [1], "equals", 1)
    assert not passes([0] * MAX_ELEMENTS + [1], "equals", 1)
    assert passes([0] * MAX_ELEMENTS, "not_equals", 1)
    assert not passes([0] * (MAX_ELEMENTS + 1), "not_equals", 1)
    assert passes(["x"] * (MAX_COSTLY_ELEMENTS - 1) + ["y"], "starts_with", "y")
    assert not passes(["x"] * MAX_COSTLY_ELEMENTS + ["y"], "starts_with", "y")


def test_of_long_texts_in_a_list_only_so_many_are_searched() -> None:
    """As much as of a single text, and the first in any case."""
    half = "x" * (MAX_SEARCHED // 2)
    assert passes([half, half[1:] + "y"], "contains", "y")
    assert not passes([half, half, "y"], "contains", "y")
    assert not passes([half, half, "z"], "not_contains", "y")
    assert passes(["x" * (MAX_SEARCHED - 1) + "y" + half], "contains", "y")
    assert not passes("x" * MAX_SEARCHED + "y", "contains", "y")
    assert not passes("x" * MAX_SEARCHED + "y", "not_contains", "y")
    assert not passes(["x" * MAX_SEARCHED + "y"], "not_contains", "y")
    assert passes("x" * MAX_SEARCHED, "not_contains", "y")
    assert passes([1, "y"], "matches", "y")
    assert not passes(["x" * MAX_SUBJECT_BYTES, "y"], "matches", "y")


def test_patterns_are_found_each_by_itself() -> None:
    """They are searched as one, and neither their alternatives nor their flags nor their groups meet."""
    assert passes("b", "matches", "x", "a|b")
    assert not passes("xA", "matches", "^(?i)a$", "^x$")
    assert not passes("Y", "matches", "(?i)x", "y")
    assert passes("y", "matches", "(?P<name>x)", "(?P<name>y)")
    for values in (["\\Qa"], ["b", "\\Qa"], ["\\Qa", "\\Qb\\E"]):
        with pytest.raises(InvalidConfig, match=r"opens .Q without .E"):
            passes("x", "matches", *values)
    assert passes("a.b", "matches", "x", "\\Qa.b\\E")
    with pytest.raises(InvalidConfig, match="cannot be searched together: costs too much: "):
        passes("x", "matches", *[r"\w{1,40}"] * 20)


def test_canonical_names() -> None:
    """Every alias stands for an operator that exists, every operator for itself, and nothing else for anything."""
    assert {canonical(alias) for alias in ALIASES} <= OPERATORS.keys()
    assert {canonical(name) for name in (*OPERATORS, *CONDITION_OPERATORS)} == OPERATORS.keys() | CONDITION_OPERATORS
    assert canonical("eq") == "equals"
    assert canonical("like") is None
