"""Rules, serves and differences in words, and times as people type them."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.engine.operators import CONDITION_OPERATORS, OPERATORS
from upstream.console import changes, words
from upstream.console.failures import Failed
from upstream.console.moments import moment, seconds, shown

COUNTRY = {"attribute": "country", "op": "in", "values": ["DE", "AT"]}
AGE = {"attribute": "age", "op": "gte", "values": [18]}


def test_every_operator_has_words() -> None:
    """An operator that the engine knows is never shown by its name."""
    assert OPERATORS.keys() | CONDITION_OPERATORS == words.OPERATORS.keys()


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (COUNTRY, "country is one of DE, AT"),
        ({**COUNTRY, "fold_case": True}, "country is one of DE, AT in any case"),
        ({"all": [COUNTRY, AGE]}, "country is one of DE, AT and age ≥ 18"),
        (
            {"any": [{"all": [COUNTRY, AGE]}, {"segment": "beta"}]},
            "(country is one of DE, AT and age ≥ 18) or in the segment beta",
        ),
        ({"not": {"any": [COUNTRY, AGE]}}, "not (country is one of DE, AT or age ≥ 18)"),
        ({"all": []}, "always"),
        ({"any": []}, "never"),
        ({"attribute": "email", "op": "exists", "values": []}, "email exists"),
        ({"attribute": "x", "op": "of_the_future", "values": [1]}, "x of_the_future 1"),
        ("odd", '"odd"'),
    ],
)
def test_conditions(condition: Any, text: str) -> None:
    """A condition reads as a sentence, nested ones in brackets."""
    assert words.condition(condition) == text


RAMP = {
    "to": "on", "else": "off", "start_at": None, "increment": 10_000, "every_s": 7_200, "target": 50_000,
    "by": "company",
}  # fmt: skip


@pytest.mark.parametrize(
    ("serve", "text"),
    [
        ({"variation": "on"}, "on"),
        (
            {"split": {"by": "company", "weights": [["a", 12_500], ["b", 87_500], ["c", 0]]}},
            "12.5 % a, 87.5 % b by company",
        ),
        ({"ramp": RAMP}, "on to 10 % more every 2 hours up to 50 %, not started, off to the rest by company"),
        ({"of_the_future": 1}, '{"of_the_future":1}'),
        ({}, "nothing"),
        (None, "nothing"),
    ],
)
def test_serves(serve: Any, text: str) -> None:
    """What is served is told with its percentages."""
    assert words.serve(serve) == text


def test_rules_and_targets() -> None:
    """A rule has its name, or none, and says when it is inactive; of many units the first ones are shown."""
    rule: Mapping[str, Any] = {"name": None, "when": COUNTRY, "serve": {"variation": "on"}, "is_active": False}
    assert words.rule(rule) == "if country is one of DE, AT → on   (inactive)"
    target = {"variation": "on", "units": [f"u{number}" for number in range(12)]}
    assert words.target(target).endswith("u9 and 2 more → on")


def rule(name: str) -> dict[str, Any]:
    return {"id": name, "name": name, "when": COUNTRY, "serve": {"variation": "on"}}


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"path": "enabled", "before": True, "after": False}, ["~ enabled: true → false"]),
        ({"path": "a.fallthrough", "before": {"variation": "on"}, "after": None}, ["- a.fallthrough: on"]),
        ({"path": "owner", "before": None, "after": "Ada"}, ['+ owner: "Ada"']),
        ({"path": "tags", "before": ["a", "b"], "after": ["b", "c"]}, ["- tags[1]: a", "+ tags[2]: c"]),
        (
            {"path": "rules", "before": [rule("x"), rule("y")], "after": [rule("y"), rule("x")]},
            ["~ rules: in another order: y: if country is one of DE, AT → on; x: if country is one of DE, AT → on"],
        ),
        (
            {"path": "rules", "before": [rule("x")], "after": [{**rule("x"), "id": "z"}]},
            ["~ rules: changed in what is not shown here; --json has it"],
        ),
        (
            {"path": "split.weights", "before": [["a", 50_000]], "after": [["a", 25_000]]},
            ["- split.weights[1]: 50 % a", "+ split.weights[1]: 25 % a"],
        ),
        ({"path": "x", "before": None, "after": "y" * 500}, ['+ x: "' + "y" * 199 + "…"]),
    ],
)
def test_differences(change: Mapping[str, Any], lines: list[str]) -> None:
    """What went and what came, in words; what is only in another order says so."""
    assert list(changes.lines([change])) == lines


def test_times() -> None:
    """RFC 3339 with an offset, or a distance from now, to either side."""
    assert moment("--at", "2026-11-21T07:30:00+01:00") == "2026-11-21T06:30:00Z"
    ahead = datetime.fromisoformat(moment("--at", "2h")) - datetime.now(UTC)
    behind = datetime.now(UTC) - datetime.fromisoformat(moment("--since", "3d", is_past=True))
    assert timedelta(hours=1, minutes=59) < ahead <= timedelta(hours=2)
    assert timedelta(days=3) <= behind < timedelta(days=3, minutes=1)
    assert (seconds("--overlap", "90m"), seconds("--overlap", "0s"), seconds("--overlap", "1w")) == (5_400, 0, 604_800)
    assert (shown("2026-11-21T06:30:00.000Z"), shown(None)) == ("2026-11-21 06:30:00", "")


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-11-21T06:30:00", "2 h", "-2h"])
def test_what_is_no_time(text: str) -> None:
    """The option and both forms are named; a time without an offset is none."""
    with pytest.raises(Failed, match="--at takes a time such as"):
        moment("--at", text)
    with pytest.raises(Failed, match="--overlap takes a duration"):
        seconds("--overlap", text)
