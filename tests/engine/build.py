"""Small configurations in JSON's terms, and environments made of them."""

from typing import Any

from relay.engine.model import Environment
from relay.engine.parse import assemble, parse_flag, parse_segment

ON = {"variation": "on"}
OFF = {"variation": "off"}
HALF = {"split": {"weights": [["on", 50_000], ["off", 50_000]]}}


def flag(**changes: Any) -> dict[str, Any]:
    """Return a boolean flag that is on for everybody, with some members changed."""
    return {
        "id": "0b5c5c1e-7d0c-4d0e-9d0f-0d6f3f1f2a11",
        "name": "A flag",
        "type": "boolean",
        "version": 7,
        "salt": "salt",
        "enabled": True,
        "variations": [{"key": "on", "value": True}, {"key": "off", "value": False}],
        "off": "off",
        "fallthrough": ON,
        **changes,
    }


def rule(when: Any, serve: Any = ON, rule_id: str = "r1") -> dict[str, Any]:
    """Return a rule."""
    return {"id": rule_id, "when": when, "serve": serve}


def ruled(when: Any, **changes: Any) -> dict[str, Any]:
    """Return a flag that is on for whoever meets a condition and off for everybody else."""
    return flag(rules=[rule(when)], fallthrough=OFF, **changes)


def clause(attribute: str, op: str, *values: Any, **more: Any) -> dict[str, Any]:
    """Return a clause."""
    return {"attribute": attribute, "op": op, "values": list(values), **more}


def segment(**changes: Any) -> dict[str, Any]:
    """Return a segment without members, with some members changed."""
    return {"version": 1, "name": "A segment", "include": [], "exclude": [], "when": None, **changes}


def environment(flags: dict[str, Any], segments: dict[str, Any] | None = None) -> Environment:
    """Return the environment that holds these flags and segments."""
    return assemble(
        environment_id="5f1d3c52-90a5-4b0c-8a43-2d6f6f1f2a11",
        key="production",
        project_id="2c1d3c52-90a5-4b0c-8a43-2d6f6f1f2a22",
        project_key="shop",
        revision=1,
        flags={key: parse_flag(key, obj) for key, obj in flags.items()},
        segments={key: parse_segment(key, obj) for key, obj in (segments or {}).items()},
    )
