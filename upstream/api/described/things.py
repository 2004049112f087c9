"""Schemas and examples of the things that the API manages, as `upstream.api.shapes` shows them."""

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

AT: Final = "2026-11-21T06:30:00.000Z"
EDITED: Final[Mapping[str, Schema]] = {
    "version": noted(NUMBER, "Grows by one with each change; the ETag is made of it."),
    "created_at": TIME,
    "updated_at": TIME,
}
EDITED_EXAMPLE: Final = {"version": 1, "created_at": AT, "updated_at": AT}
WARNINGS: Final[Mapping[str, Schema]] = {"warnings": list_of(ref("Warning"))}
SHOP: Final = "0b9cf5a1-2f0e-4a53-9d3c-6a3c1f1f2b10"
PRODUCTION: Final = "3c6f1d4e-8f43-4b6c-9d53-0a9a2a5a7f01"
CHECKOUT: Final = "6e2f8c1b-5b0d-4f0e-8a67-1f2e3d4c5b6a"

FLAG: Final[Mapping[str, Schema]] = {
    "id": ID,
    "key": TEXT,
    "name": TEXT,
    "description": nullable(TEXT),
    "type": one_of("boolean", "string", "number", "json"),
    "number_format": nullable(one_of("integer", "float")),
    "kind": one_of("release", "experiment", "ops", "permission"),
    "tags": list_of(TEXT),
    "metadata": map_of({"type": ["string", "number", "boolean"]}),
    "is_active": noted(SWITCH, "Off = off in every environment."),
    "client_side_enabled": SWITCH,
    "analytics_enabled": SWITCH,
    "prerequisites": list_of(record({"flag": TEXT, "variations": nullable(list_of(TEXT))})),
    "mutual_exclusion_group": nullable(TEXT),
    "variations": list_of(record({"key": TEXT, "value": ANY, "name": nullable(TEXT)})),
    "owner": nullable(TEXT),
    "expires_at": nullable(TIME),
    "archived_at": nullable(TIME),
    **EDITED,
}
FLAG_EXAMPLE: Final[dict[str, Any]] = {
    "id": CHECKOUT,
    "key": "new-checkout",
    "name": "New checkout",
    "description": "The checkout on one page.",
    "type": "boolean",
    "number_format": None,
    "kind": "release",
    "tags": ["checkout"],
    "metadata": {"team": "payments"},
    "is_active": True,
    "client_side_enabled": True,
    "analytics_enabled": True,
    "prerequisites": [{"flag": "payments", "variations": None}],
    "mutual_exclusion_group": None,
    "variations": [{"key": "on", "value": True, "name": None}, {"key": "off", "value": False, "name": None}],
    "owner": "ada@example.com",
    "expires_at": None,
    "archived_at": None,
    **EDITED_EXAMPLE,
}
_STALE_EXAMPLE: Final = [
    {"reason": "unchanged", "since": AT, "evidence": {"changed_at": AT}},
]
_PROJECT_EXAMPLE: Final[dict[str, Any]] = {
    "id": SHOP, "key": "shop", "name": "Shop", "description": None, "mau_limit": None, **EDITED_EXAMPLE,
}  # fmt: skip
_ENVIRONMENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": PRODUCTION, "key": "production", "name": "Production", "sort": 2, "critical": True, "require_review": False,
    "revision": 42, **EDITED_EXAMPLE,
}  # fmt: skip
_SEGMENT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "5f3b8a52-6f1f-4f77-8a7c-2f6f4f0f7c33", "key": "testers", "name": "Testers", "description": None,
    "include": ["user-1"], "exclude": [], "when": {"attribute": "plan", "op": "in", "values": ["beta"]},
    **EDITED_EXAMPLE,
}  # fmt: skip
_STATES: Final = noted(
    map_of(ref("FlagState")), "By key; missing only where a repeated write is answered after the flag is gone."
)

THINGS: Final[Mapping[str, Described]] = {
    "Warning": Described(
        record({"code": TEXT, "detail": TEXT}, description="What should be known although the change was made."),
        {"code": "missing_segment", "detail": "There is no segment 'testers' yet; rules that name it are skipped."},
    ),
    "Change": Described(
        record({"path": TEXT, "before": ANY, "after": ANY}), {"path": "enabled", "before": False, "after": True}
    ),
    "ChangeOfThing": Described(
        record(
            {
                "target": record({"type": TEXT, "key": nullable(TEXT)}),
                "environment": noted(nullable(TEXT), "Its key, where it is about one."),
                "path": TEXT,
                "before": ANY,
                "after": ANY,
            },
            description="One difference, and the thing that it is one of.",
        ),
        {
            "target": {"type": "flag", "key": "new-checkout"},
            "environment": "production",
            "path": "enabled",
            "before": False,
            "after": True,
        },
    ),
    "Project": Described(
        record(
            {
                "id": ID,
                "key": TEXT,
                "name": TEXT,
                "description": nullable(TEXT),
                "mau_limit": nullable(NUMBER),
                **EDITED,
            },
            WARNINGS,
        ),
        _PROJECT_EXAMPLE,
    ),
    "ProjectPage": page_of("Project", _PROJECT_EXAMPLE),
    "Environment": Described(
        record(
            {
                "id": ID,
                "key": TEXT,
                "name": TEXT,
                "sort": NUMBER,
                "critical": SWITCH,
                "require_review": SWITCH,
                "revision": noted(NUMBER, "Of what is published; followers tell by it how current they are."),
                **EDITED,
            },
            WARNINGS,
        ),
        _ENVIRONMENT_EXAMPLE,
    ),
    "EnvironmentPage": page_of("Environment", _ENVIRONMENT_EXAMPLE),
    "FlagState": Described(
        record({"enabled": SWITCH, "version": NUMBER, "last_evaluated_at": noted(nullable(TIME), "To the hour.")}),
        {"enabled": True, "version": 3, "last_evaluated_at": "2026-11-21T06:00:00.000Z"},
    ),
    "Flag": Described(
        record(FLAG, {"environments": _STATES, "stale": list_of(ref("Stale")), **WARNINGS}),
        {
            **FLAG_EXAMPLE,
            "environments": {"production": {"enabled": True, "version": 3, "last_evaluated_at": None}},
        },
    ),
    "FlagPage": page_of(
        "Flag",
        {
            **FLAG_EXAMPLE,
            "environments": {"production": {"enabled": True, "version": 3, "last_evaluated_at": None}},
            "stale": [],
        },
    ),
    "Stale": Described(
        record(
            {
                "reason": one_of("never_evaluated", "not_evaluated_lately", "fully_rolled_out", "expired", "unchanged"),
                "since": TIME,
                "evidence": OBJECT,
            }
        ),
        _STALE_EXAMPLE[0],
    ),
    "StaleFlag": Described(record({**FLAG, "stale": list_of(ref("Stale"))}), {**FLAG_EXAMPLE, "stale": _STALE_EXAMPLE}),
    "StaleAfter": Described(
        record({name: {"type": "number"} for name in ("not_evaluated_days", "rolled_out_days", "unchanged_days")}),
        {"not_evaluated_days": 30, "rolled_out_days": 30, "unchanged_days": 90},
    ),
    "StaleFlagPage": page_of(
        "StaleFlag",
        {**FLAG_EXAMPLE, "stale": _STALE_EXAMPLE},
        {"thresholds": noted(map_of(ref("StaleAfter")), "By kind of flag; 0 days are never over.")},
        thresholds={"release": {"not_evaluated_days": 30, "rolled_out_days": 30, "unchanged_days": 90}},
    ),
    "Segment": Described(
        record(
            {
                "id": ID,
                "key": TEXT,
                "name": TEXT,
                "description": nullable(TEXT),
                "include": list_of(TEXT),
                "exclude": list_of(TEXT),
                "when": nullable(OBJECT),
                **EDITED,
            },
            WARNINGS,
        ),
        _SEGMENT_EXAMPLE,
    ),
    "SegmentPage": page_of("Segment", _SEGMENT_EXAMPLE),
}
