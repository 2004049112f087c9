"""Schemas and examples of answers that are about things: dry runs, imports, explanations, counts and events."""

from collections.abc import Mapping
from typing import Any, Final

from upstream.api.described.parts import (
    ANY,
    ID,
    NUMBER,
    OBJECT,
    SWITCH,
    TEXT,
    TIME,
    Described,
    Schema,
    list_of,
    map_of,
    noted,
    nullable,
    one_of,
    page_of,
    record,
    ref,
)
from upstream.api.described.things import AT, CHECKOUT, PRODUCTION, THINGS

_PLAN: Final[Mapping[str, Schema]] = {
    "plan": list_of(ref("PlanStep")),
    "counts": noted(record(dict.fromkeys(("create", "update", "unchanged", "delete"), NUMBER)), "Of the plan's steps."),
}
_STEP_EXAMPLE: Final[dict[str, Any]] = {
    "action": "update",
    "thing": "flag",
    "key": "new-checkout",
    "changes": [{"path": "environments.production.enabled", "before": False, "after": True}],
}
_COUNT_EXAMPLE: Final[dict[str, Any]] = {
    "flag": "new-checkout",
    "flag_id": CHECKOUT,
    "environment": "production",
    "variation": "on",
    "reason": "SPLIT",
    "source": "single",
    "hour": "2026-11-21T06:00:00.000Z",
    "count": 1_204,
    "errors": 0,
}
_EVENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "8c1f0f6e",
    "type": "track",
    "environment": "production",
    "name": "purchase",
    "flag": None,
    "unit": "user-1",
    "value": 19.9,
    "at": AT,
    "received_at": AT,
    "properties": {"currency": "EUR"},
}

REPORTS: Final[Mapping[str, Described]] = {
    "DryRun": Described(
        record(
            {
                "dry_run": {"const": True},
                "changes": noted(list_of(ref("ChangeOfThing")), "Empty for imports, whose changes stand in the plan."),
                "warnings": list_of(ref("Warning")),
                "affected": record(
                    dict.fromkeys(("flags", "segments", "environments", "dependents"), list_of(TEXT)),
                    description="Keys of what the change is about, and of the flags that depend on it.",
                ),
            },
            _PLAN,
        ),
        {
            "dry_run": True,
            "changes": [THINGS["ChangeOfThing"].example],
            "warnings": [],
            "affected": {
                "flags": ["new-checkout"],
                "segments": [],
                "environments": ["production"],
                "dependents": ["express-pay"],
            },
        },
    ),
    "PlanStep": Described(
        record(
            {
                "action": one_of("create", "update", "unchanged", "delete"),
                "thing": one_of("project", "environment", "segment", "flag"),
                "key": TEXT,
                "changes": noted(list_of(ref("Change")), "Of an update; what is created is as in the document."),
            }
        ),
        _STEP_EXAMPLE,
    ),
    "Imported": Described(
        record(
            {
                "project": ref("Project"),
                **_PLAN,
                "revisions": noted(map_of(NUMBER), "The revisions that it made, by environment id."),
            },
            {"warnings": list_of(ref("Warning"))},
        ),
        {
            "project": THINGS["Project"].example,
            "plan": [_STEP_EXAMPLE],
            "counts": {"create": 0, "update": 1, "unchanged": 0, "delete": 0},
            "revisions": {PRODUCTION: 43},
        },
    ),
    "ExplainedStep": Described(
        # What a step compared stands in members of its own, which differ from step to step.
        {
            "type": "object",
            "required": ["step", "holds", "text"],
            "properties": {
                "step": noted(TEXT, "What kind of step: switch, prerequisite, group, targets, rule, clause, split, …"),
                "holds": noted(nullable(SWITCH), "null where there is no yes or no."),
                "text": TEXT,
                "steps": list_of(ref("ExplainedStep")),
            },
        },
        {"step": "switch", "holds": True, "text": "'new-checkout' is switched on"},
    ),
    "Explanation": Described(
        record(
            {
                "project": TEXT,
                "environment": TEXT,
                "revision": NUMBER,
                "at": TIME,
                "flag": TEXT,
                "value": ANY,
                "reason": TEXT,
                "steps": list_of(ref("ExplainedStep")),
            },
            {
                "variation": TEXT,
                "rule_id": TEXT,
                "rule_index": NUMBER,
                "blocked_by": noted(TEXT, "The prerequisite that does not hold, or the exclusion group."),
                "experiment": TEXT,
                "error_code": TEXT,
                "error_detail": TEXT,
                "metadata": OBJECT,
            },
        ),
        {
            "project": "shop",
            "environment": "production",
            "revision": 42,
            "at": AT,
            "flag": "new-checkout",
            "value": True,
            "variation": "on",
            "reason": "STATIC",
            "steps": [
                {"step": "switch", "holds": True, "text": "'new-checkout' is switched on"},
                {
                    "step": "fallthrough",
                    "holds": None,
                    "text": "the fallthrough decides",
                    "steps": [{"step": "serve", "holds": None, "text": "serves 'on'", "variation": "on"}],
                },
            ],
        },
    ),
    "Count": Described(
        record(
            {
                "flag": TEXT,
                "flag_id": ID,
                "environment": TEXT,
                "variation": noted(nullable(TEXT), "null where nothing was served."),
                "reason": TEXT,
                "source": one_of("single", "bulk", "stream", "sdk"),
                "hour": TIME,
                "count": NUMBER,
                "errors": NUMBER,
            }
        ),
        _COUNT_EXAMPLE,
    ),
    "CountPage": page_of("Count", _COUNT_EXAMPLE, limit=1_000),
    "Event": Described(
        record(
            {
                "id": TEXT,
                "type": one_of("track", "exposure"),
                "environment": TEXT,
                "name": nullable(TEXT),
                "flag": nullable(TEXT),
                "unit": nullable(TEXT),
                "value": nullable({"type": "number"}),
                "at": TIME,
                "received_at": TIME,
                "properties": nullable(OBJECT),
            }
        ),
        _EVENT_EXAMPLE,
    ),
    "EventPage": page_of("Event", _EVENT_EXAMPLE),
    "Receipt": Described(
        record(
            {"status": one_of("accepted", "duplicate")},
            dict.fromkeys(("events", "duplicates", "counters", "unknown_flags"), NUMBER),
        ),
        {"status": "accepted", "events": 2, "duplicates": 0, "counters": 1, "unknown_flags": 0},
    ),
    "TakenChange": Described(
        record(
            {
                "epoch": TEXT,
                "revisions": noted(map_of(NUMBER), "From which revision on each environment contains the change."),
                "superseded": noted(list_of(TEXT), "Flags that were switched on after the kill, and stay on."),
            }
        ),
        {"epoch": "4f6a9c1e2b3d5a70", "revisions": {PRODUCTION: 43}, "superseded": []},
    ),
}
