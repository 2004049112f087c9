"""Snapshot objects as an authority would send them, made with few words."""

import itertools
from typing import Any

from relay.clock import rfc3339
from relay.protocol.keys import Kind, fingerprint, mint
from relay.protocol.state import EnvironmentRef

EPOCH = "e1"
Json = dict[str, Any]

_entropy = itertools.count(1)


def new_key(kind: Kind) -> str:
    """Return a raw key that no other test has."""
    return mint(kind, next(_entropy).to_bytes(32, "big"))


def flag(*, on: Any = True, off: Any = False, **members: Any) -> Json:
    """Return a snapshot's flag object with the variations `on` and `off`, serving `on` to everybody."""
    kinds = {bool: "boolean", str: "string", int: "number", float: "number", dict: "json"}
    return {
        "id": f"id-{next(_entropy)}",
        "name": "a flag",
        "type": kinds[type(on)],
        "version": 1,
        "salt": "salt",
        "enabled": True,
        "variations": [{"key": "on", "value": on}, {"key": "off", "value": off}],
        "off": "off",
        "fallthrough": {"variation": "on"},
        "rules": [],
        "targets": [],
        "prerequisites": [],
        "client_side": True,
        "analytics": True,
        "metadata": {},
        **members,
    }


def rule(condition: Json, variation: str = "on") -> Json:
    """Return a rule that serves one variation."""
    return {"id": "rule-1", "when": condition, "serve": {"variation": variation}}


def equals(attribute: str, *values: Any) -> Json:
    return {"attribute": attribute, "op": "equals", "values": list(values)}


SPLIT: Json = {"split": {"by": "targetingKey", "weights": [["on", 50_000], ["off", 50_000]]}}


def ramp(start_ms: int, *, every_s: int) -> Json:
    """Return a ramp that takes in everybody at its first step."""
    steps = {"start_at": rfc3339(start_ms), "increment": 100_000, "every_s": every_s, "target": 100_000}
    return {"ramp": {"to": "on", "else": "off", "by": "targetingKey", **steps}}


def reference(number: int, key: str, project: str = "shop") -> EnvironmentRef:
    """Return the names of an environment."""
    return EnvironmentRef(f"{number:08d}-0000-4000-8000-000000000000", key, key.title(), f"project-{project}", project)


def credential(raw: str, kind: Kind, **members: Any) -> Json:
    """Return the credential object of a raw key."""
    found = fingerprint(raw)
    return {
        "id": f"credential-{found[:8]}",
        "hash": found,
        "kind": kind,
        "scopes": ["flags:read"],
        "projects": None,
        "expires_at": None,
        "origins": [],
        **members,
    }
