"""Ramps: shares as a function of time alone, who is in, and when the next step comes."""

from typing import Any

import pytest

from relay.engine.bucketing import bucket
from relay.engine.evaluate import evaluate, next_change_at, share_of
from relay.engine.model import ErrorCode, Ramp, Reason
from relay.engine.parse import amend, parse_flag
from tests.engine.build import clause, environment, flag, rule

START = 1_000_000
DAY = 86_400_000
UNITS = [f"user-{n}" for n in range(200)]


def ramp(**changes: Any) -> dict[str, Any]:
    """Return a ramp of 10 % a day."""
    members = {"to": "on", "else": "off", "start_at": START, "increment": 10_000, "every_s": 86_400, "target": 100_000}
    return {"ramp": {**members, **changes}}


def parsed(**changes: Any) -> Ramp:
    """Return that ramp as the engine holds it."""
    serve = parse_flag("f", flag(fallthrough=ramp(**changes))).fallthrough
    assert isinstance(serve, Ramp)
    return serve


@pytest.mark.parametrize(
    ("changes", "now_ms", "share"),
    [
        ({}, START - 1, 0),
        ({}, -(10**15), 0),
        ({}, START, 0),
        ({}, START + DAY - 1, 0),
        ({}, START + DAY, 10_000),
        ({}, START + 5 * DAY + 1, 50_000),
        ({}, START + 10 * DAY, 100_000),
        ({}, START + 10**6 * DAY, 100_000),
        ({"target": 25_000}, START + 2 * DAY, 20_000),
        ({"target": 25_000}, START + 3 * DAY, 25_000),
        ({"increment": 0}, START + 3 * DAY, 0),
        ({"start_at": None}, START + 3 * DAY, 0),
        ({"start_at": "1970-01-01T00:16:40Z"}, START + DAY, 10_000),
    ],
)
def test_share(changes: dict[str, Any], now_ms: int, share: int) -> None:
    """The share is min(target, increment times whole steps since the start), and never negative."""
    assert share_of(parsed(**changes), now_ms) == share


@pytest.mark.parametrize(
    ("changes", "now_ms", "step_ms"),
    [
        ({}, START - 5 * DAY, START + DAY),
        ({}, START, START + DAY),
        ({}, START + DAY - 1, START + DAY),
        ({}, START + DAY, START + 2 * DAY),
        ({}, START + 9 * DAY, START + 10 * DAY),
        ({}, START + 10 * DAY, None),
        ({"target": 25_000}, START + 2 * DAY, START + 3 * DAY),
        ({"target": 25_000}, START + 3 * DAY, None),
        ({"target": 0}, START, None),
        ({"increment": 0}, START, None),
        ({"start_at": None}, START, None),
    ],
)
def test_next_step(changes: dict[str, Any], now_ms: int, step_ms: int | None) -> None:
    """The next change is the next step that alters the share, None once the target is reached."""
    assert next_change_at(environment({"f": flag(fallthrough=ramp(**changes))}), now_ms) == step_ms


def test_next_step_of_an_environment() -> None:
    """The earliest ramp of any enabled flag counts, in rules too; disabled flags and disarmed rules do not."""
    soon, later = ramp(every_s=60), ramp(every_s=3_600)
    rules = [rule(clause("a", "equals", 1), later), rule(clause("a", "sounds_like", 1), soon, "r2")]
    served = environment({"f": flag(rules=rules), "g": flag(fallthrough=soon, enabled=False), "h": flag()})

    assert next_change_at(served, START) == START + 3_600_000
    enabled = amend(served, revision=2, upsert_flags={"g": parse_flag("g", flag(fallthrough=soon))})
    assert next_change_at(enabled, START) == START + 60_000
    assert next_change_at(amend(enabled, revision=3, remove_flags=["f", "g"]), START) is None


def test_ramp_serves_as_a_split_of_the_same_share_does() -> None:
    """Turning a ramp into a split, or back, moves nobody."""
    split = {"split": {"weights": [["on", 40_000], ["off", 60_000]]}}
    served = environment({"ramp": flag(fallthrough=ramp()), "split": flag(fallthrough=split)})

    for unit in UNITS:
        answers = [evaluate(served, key, {"targetingKey": unit}, START + 4 * DAY) for key in ("ramp", "split")]
        assert answers[0] == answers[1]
        assert answers[0].value is (bucket("rollout", "salt", unit) < 40_000)
        assert answers[0].reason is Reason.SPLIT


def test_ramp_without_unit() -> None:
    """A ramp needs its unit even at 0 %: off with an error as fallthrough, no match in a rule."""
    served = environment({"f": flag(fallthrough=ramp()), "g": flag(rules=[rule({"all": []}, ramp())])})

    assert evaluate(served, "f", {}, 0).error_code is ErrorCode.TARGETING_KEY_MISSING
    assert evaluate(served, "g", {}, 0).reason is Reason.DEFAULT


def test_ramp_by_another_attribute() -> None:
    """A ramp may tell units apart by any attribute."""
    served = environment({"f": flag(fallthrough=ramp(by="company"))})

    assert evaluate(served, "f", {"company": "acme"}, START + 10 * DAY).value is True
