"""Schemas and examples of history, scheduled changes and change requests."""

from collections.abc import Mapping
from typing import Any, Final

from upstream.api.described.parts import (
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
from upstream.api.described.reports import REPORTS
from upstream.api.described.things import (
    AT,
    CHECKOUT,
    EDITED,
    EDITED_EXAMPLE,
    FLAG_EXAMPLE,
    PRODUCTION,
    SHOP,
    THINGS,
    WARNINGS,
)

_AUDIT_ID: Final = "2b8f6f0e-51a7-4a2e-8a0e-6d0c9b7e4f10"
_WHO: Final = record({"type": TEXT, "id": nullable(TEXT), "name": TEXT})
_ADA: Final = {"type": "member", "id": "7c1f0a3e-9a64-4b7d-8d0b-5e2f6a1c3b90", "name": "Ada"}
_BOB: Final = {"type": "member", "id": "e1a4c7d2-3b58-4f60-9c1e-8a7b6d5f4e32", "name": "Bob"}
_HEAD: Final[Mapping[str, Schema]] = {
    "version": NUMBER,
    "at": TIME,
    "audit_id": noted(nullable(ID), "null = older than the history that is kept."),
    "revisions": noted(map_of(NUMBER), "The revisions that published it, by environment id."),
}
_HEAD_EXAMPLE: Final[dict[str, Any]] = {
    "version": 3, "at": AT, "audit_id": _AUDIT_ID, "revisions": {PRODUCTION: 42},
}  # fmt: skip
_ROW_EXAMPLE: Final[dict[str, Any]] = {
    **_HEAD_EXAMPLE, "actor": _ADA, "action": "flag.updated", "reason": None, "changed": ["enabled"],
}  # fmt: skip
_CONTENT: Final = noted(OBJECT, "As the thing itself is shown.")
_VERSION: Final = record({**_HEAD, "content": _CONTENT})
_VERSION_EXAMPLE: Final[dict[str, Any]] = {**_HEAD_EXAMPLE, "content": FLAG_EXAMPLE}
_PREVIEW: Final = record(
    {
        "changes": list_of(ref("ChangeOfThing")),
        "warnings": list_of(ref("Warning")),
        "affected": REPORTS["DryRun"].schema["properties"]["affected"],
    },
    {name: REPORTS["DryRun"].schema["properties"][name] for name in ("plan", "counts")},
    description="What it would do, as it was tried when it was kept.",
)
_KEPT: Final[dict[str, Any]] = {
    "commands": [
        {"command": "ToggleFlag", "project": SHOP, "flag": CHECKOUT, "environment": PRODUCTION, "enabled": True},
    ],
    "preview": {name: REPORTS["DryRun"].example[name] for name in ("changes", "warnings", "affected")},
}
_COMMANDS: Final = noted(list_of(OBJECT), "What is to be carried out; things are named by id.")
_SCHEDULE_EXAMPLE: Final[dict[str, Any]] = {
    "id": "b7d2e9c4-0f6a-4d3b-9e58-1c2a3b4d5e6f",
    "project_id": SHOP,
    "run_at": "2026-12-01T08:00:00.000Z",
    "status": "pending",
    "actor": _ADA,
    "reason": "launch",
    **_KEPT,
    "result": None,
    **EDITED_EXAMPLE,
}
_BOUND: Final[Mapping[str, Schema]] = {
    "type": one_of("flag", "config", "segment"),
    "key": nullable(TEXT),
    "entity_id": ID,
    "environment_id": noted(TEXT, "Empty but for configs."),
    "version": NUMBER,
}
_REQUEST_EXAMPLE: Final[dict[str, Any]] = {
    "id": "4d9b1c7e-62f3-4a8d-b0c5-7e1f2a3b4c5d",
    "project_id": SHOP,
    "title": "Launch the new checkout",
    "description": None,
    "status": "approved",
    "author": _ADA,
    **_KEPT,
    "bound": [
        {"type": "config", "key": "new-checkout", "entity_id": CHECKOUT, "environment_id": PRODUCTION, "version": 3},
    ],
    "reviews": [{"by": _BOB, "verdict": "approved", "comment": "Looks right.", "at": AT}],
    **EDITED_EXAMPLE,
}

GOVERNANCE: Final[Mapping[str, Described]] = {
    "VersionRow": Described(
        record(
            {
                **_HEAD,
                "actor": nullable(_WHO),
                "action": nullable(TEXT),
                "reason": nullable(TEXT),
                "changed": noted(list_of(TEXT), "Paths that differ from the version before."),
            }
        ),
        _ROW_EXAMPLE,
    ),
    "VersionPage": page_of("VersionRow", _ROW_EXAMPLE),
    "Version": Described(_VERSION, _VERSION_EXAMPLE),
    "AtRevision": Described(
        record({"environment": TEXT, "revision": NUMBER, "flag": ref("Version"), "config": ref("Version")}),
        {"environment": "production", "revision": 42, "flag": _VERSION_EXAMPLE, "config": _VERSION_EXAMPLE},
    ),
    "Comparison": Described(
        record({"from": record(_HEAD), "to": record(_HEAD), "changes": list_of(ref("Change"))}),
        {
            "from": {**_HEAD_EXAMPLE, "version": 2, "revisions": {PRODUCTION: 41}},
            "to": _HEAD_EXAMPLE,
            "changes": [{"path": "enabled", "before": False, "after": True}],
        },
    ),
    "RevertedFlag": Described(
        {"anyOf": [ref("Flag"), ref("FlagConfig")], "description": "The flag, or with `environment` its config there."},
        THINGS["Flag"].example,
    ),
    "Schedule": Described(
        record(
            {
                "id": ID,
                "project_id": ID,
                "run_at": TIME,
                "status": one_of("pending", "done", "failed", "cancelled"),
                "actor": noted(_WHO, "In whose name; what they may do is looked up when the time comes."),
                "reason": nullable(TEXT),
                "commands": _COMMANDS,
                "preview": _PREVIEW,
                "result": noted(
                    nullable(OBJECT), "`{audit_ids, revisions}` when it is done, `{code, detail}` when it failed."
                ),
                **EDITED,
            },
            WARNINGS,
        ),
        _SCHEDULE_EXAMPLE,
    ),
    "SchedulePage": page_of("Schedule", _SCHEDULE_EXAMPLE),
    "ChangeRequest": Described(
        record(
            {
                "id": ID,
                "project_id": ID,
                "title": TEXT,
                "description": nullable(TEXT),
                "status": one_of("open", "approved", "rejected", "applied", "voided", "withdrawn"),
                "author": _WHO,
                "commands": _COMMANDS,
                "preview": _PREVIEW,
                "bound": noted(
                    list_of(record(_BOUND, {"holds": SWITCH})),
                    "The versions that it was proposed on; an edit voids it.",
                ),
                "reviews": list_of(
                    record(
                        {
                            "by": _WHO,
                            "verdict": one_of("approved", "rejected"),
                            "comment": nullable(TEXT),
                            "at": TIME,
                        }
                    )
                ),
                **EDITED,
            },
            {**WARNINGS, "revisions": noted(map_of(NUMBER), "What applying it published, by environment id.")},
        ),
        _REQUEST_EXAMPLE,
    ),
    "ChangeRequestPage": page_of("ChangeRequest", _REQUEST_EXAMPLE),
}
