"""How an evaluation and its explanation look in a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from relay.clock import rfc3339
from relay.engine.explain import Explanation, Step
from relay.engine.model import Environment, Evaluation

_MARKS = {True: "✓", False: "✗", None: "·"}


def members_of(evaluation: Evaluation) -> dict[str, Any]:
    """Return what an evaluation says, without what it does not say."""
    told = {
        "value": evaluation.value,
        "variation": evaluation.variation,
        "reason": evaluation.reason,
        "rule_id": evaluation.rule_id,
        "rule_index": evaluation.rule_index,
        "blocked_by": evaluation.blocked_by,
        "experiment": evaluation.experiment,
        "error_code": evaluation.error_code,
        "error_detail": evaluation.error_detail,
        "metadata": evaluation.flag_metadata or None,
    }
    return {name: value for name, value in told.items() if value is not None or name == "value"}


def answer(flag: str, members: dict[str, Any]) -> str:
    """Return an answer in one line: the flag, its value, and behind it why."""
    why = [str(members["reason"])]
    why += [
        f"{name} {members[name]}" for name in ("variation", "rule_id", "blocked_by") if members.get(name) is not None
    ]
    if members.get("error_code"):
        why.append(f"{members['error_code']}: {members.get('error_detail', '')}".rstrip(": "))
    return f"{flag} = {_json(members['value'])}   ({', '.join(why)})"


def explanation(environment: Environment, flag: str, found: Explanation, at_ms: int) -> str:
    """Return an explanation: the answer, of which revision and moment, and every step beneath it."""
    where = f"{environment.project_key}/{environment.key} at revision {environment.revision}, {rfc3339(at_ms)}"
    return "\n".join([answer(flag, members_of(found.evaluation)), f"in {where}", "", *_lines(found.steps, "")])


def _lines(steps: Sequence[Step], indent: str) -> Iterator[str]:
    for step in steps:
        yield f"{indent}{_MARKS[step.holds]} {step.text}"
        yield from _lines(step.inner, indent + "    ")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
