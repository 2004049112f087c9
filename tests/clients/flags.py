"""The flags that every client is asked for: one of each type, and one for each reason that a flag can give.

Made through the management API like any other flag. Keys begin with `of-`, so that they stand apart from the demo's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.stack import Json, Running, until

TEXT = "Grüße, 世界 👩‍🚀"
OBJECT = {"limit": 5, "share": 0.5, "deep": {"list": [1, "zwei", None, True], "empty": {}}, "text": TEXT}
LIST = [1, "two", {"three": 3}]
METADATA = {"owner": "checkout", "level": 3, "cost": 1.5, "beta": True}
# One more than a double can tell from its neighbour.
LARGE = 2**53 + 1

ON_OFF = ({"key": "on", "value": True}, {"key": "off", "value": False})


def _words(*words: str) -> list[Json]:
    return [{"key": word, "value": word} for word in words]


def _fixed(variation: str) -> Json:
    return {"variation": variation}


def _split(by: str = "targetingKey") -> Json:
    # A salt of our own, so that a user gets the same share on every run.
    return {"split": {"by": by, "weights": [["left", 50_000], ["right", 50_000]], "salt": "clients"}}


def _rule(attribute: str, op: str, values: Sequence[Any], variation: str) -> Json:
    return {"when": {"attribute": attribute, "op": op, "values": list(values)}, "variation": variation}


def _flag(key: str, kind: str, variations: Sequence[Json], on: Json, off: str | None, **more: Any) -> Json:
    config = {"enabled": True, "off": off, "fallthrough": on}
    return {"key": key, "name": key, "type": kind, "variations": list(variations), **config, **more}


FLAGS: Sequence[Json] = (
    _flag("of-boolean", "boolean", ON_OFF, _fixed("on"), "off", metadata=METADATA),
    _flag(
        "of-string", "string",
        [{"key": "hello", "value": TEXT}, {"key": "none", "value": ""}], _fixed("hello"), "none",
    ),
    _flag("of-empty-string", "string", [*_words("some"), {"key": "none", "value": ""}], _fixed("none"), "some"),
    _flag(
        "of-integer", "number", [{"key": "few", "value": 5}, {"key": "zero", "value": 0}], _fixed("few"), "zero",
    ),
    _flag("of-zero", "number", [{"key": "few", "value": 5}, {"key": "zero", "value": 0}], _fixed("zero"), "few"),
    _flag(
        "of-large-integer", "number",
        [{"key": "large", "value": LARGE}, {"key": "zero", "value": 0}], _fixed("large"), "zero",
    ),
    _flag(
        "of-float", "number", [{"key": "half", "value": 0.5}, {"key": "one", "value": 1.0}], _fixed("half"), "one",
    ),
    _flag(
        "of-whole-float", "number", [{"key": "one", "value": 1.0}, {"key": "two", "value": 2.0}], _fixed("one"), "two",
    ),
    _flag(
        "of-mixed-float", "number", [{"key": "half", "value": 0.5}, {"key": "one", "value": 1}], _fixed("one"), "half",
    ),
    _flag(
        "of-declared-float", "number", [{"key": "one", "value": 1}, {"key": "two", "value": 2}], _fixed("one"), "two",
        number_format="float",
    ),
    _flag(
        "of-object", "json", [{"key": "full", "value": OBJECT}, {"key": "none", "value": {}}], _fixed("full"), "none",
    ),
    _flag("of-list", "json", [{"key": "full", "value": LIST}, {"key": "none", "value": []}], _fixed("full"), "none"),
    _flag("of-disabled", "boolean", ON_OFF, _fixed("on"), "off", enabled=False),
    _flag("of-code-boolean", "boolean", ON_OFF, _fixed("on"), None, enabled=False),
    _flag("of-code-string", "string", _words("some"), _fixed("some"), None, prerequisites=["of-disabled"]),
    _flag(
        "of-targeted", "string", _words("target", "rule", "rest", "off"), _fixed("rest"), "off",
        targets=[{"variation": "target", "units": ["user-1"]}],
        rules=[_rule("plan", "equals", ["pro"], "rule")],
    ),
    _flag("of-split", "string", _words("left", "right"), _split(), "right"),
    _flag("of-split-by-company", "string", _words("left", "right"), _split("company.id"), "right"),
    _flag("of-dependent", "boolean", ON_OFF, _fixed("on"), "off", prerequisites=["of-disabled"]),
    _flag("of-first", "boolean", ON_OFF, _fixed("on"), "off", mutual_exclusion_group="of-group"),
    _flag("of-second", "boolean", ON_OFF, _fixed("on"), "off", mutual_exclusion_group="of-group"),
    _flag("of-server-only", "boolean", ON_OFF, _fixed("on"), "off", client_side_enabled=False),
    _flag(
        "of-context", "string", _words("city", "tags", "age", "date", "emoji", "member", "rest"),
        _fixed("rest"), "rest",
        rules=[
            _rule("address.city", "equals", ["Zürich"], "city"),
            _rule("tags", "contains", ["beta"], "tags"),
            _rule("age", "between", [17.5, 18.5], "age"),
            _rule("signed_up", "after", ["2026-01-01T00:00:00Z"], "date"),
            _rule("mood", "starts_with", ["👩‍🚀"], "emoji"),
            _rule("member", "equals", [True], "member"),
        ],
    ),
)  # fmt: skip


async def create(stack: Running, flags: Sequence[Mapping[str, Any]] = FLAGS) -> None:
    """Create the flags and wait until the relay has them."""
    for flag in flags:
        status, body = await stack.manage.post(f"{stack.project_path}/flags", flag)
        assert status == 201, body
    await caught_up(stack)


async def revision(stack: Running) -> int:
    """Return the revision of the demo environment, as the authority has it on disk."""
    status, body = await stack.manage.get(f"{stack.project_path}/environments/{stack.demo['environment']}")
    assert status == 200, body
    found: int = body["revision"]
    return found


async def caught_up(stack: Running) -> int:
    """Wait until the relay has every change that was answered, and return the revision of the demo environment."""
    wanted = await revision(stack)

    async def has_it() -> bool:
        _, body = await stack.admin.get("/status")
        key = stack.demo["environment"]
        return any(each["key"] == key and each["revision"] >= wanted for each in body["environments"])

    await until(f"the relay has revision {wanted}", has_it)
    return wanted
