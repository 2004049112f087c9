"""An example of each body, by the name of its model."""

from collections.abc import Mapping
from typing import Any, Final

from upstream.domain.transfer import FORMAT, FORMAT_VERSION

_RULE: Final = {
    "when": {"attribute": "email", "op": "ends_with", "values": ["@example.com"]},
    "variation": "on",
}
_SPLIT: Final = {"split": {"by": "targetingKey", "weights": [["on", 25_000], ["off", 75_000]]}}
_DOCUMENT: Final[dict[str, Any]] = {
    "format": FORMAT,
    "format_version": FORMAT_VERSION,
    "project": {"key": "shop", "name": "Shop", "description": None, "mau_limit": None},
    "environments": [
        {"key": "production", "name": "Production", "sort": 2, "critical": True, "require_review": False},
    ],
    "segments": [{"key": "testers", "name": "Testers", "include": ["user-1"], "exclude": [], "when": None}],
    "flags": [
        {
            "key": "new-checkout",
            "name": "New checkout",
            "type": "boolean",
            "variations": [{"key": "on", "value": True, "name": None}, {"key": "off", "value": False, "name": None}],
            "configs": {
                "production": {
                    "enabled": True,
                    "off": "off",
                    "fallthrough": {"variation": "on"},
                    "salt": "8c1f0f6e5a4b3c2d",
                    "rules": [],
                    "targets": [],
                },
            },
        },
    ],
}
EXPORTED: Final[dict[str, Any]] = {**_DOCUMENT, "exported_at": "2026-11-21T06:30:00.000Z"}

BODIES: Final[Mapping[str, Any]] = {
    "LoginBody": {"email": "ada@example.com", "password": "correct horse battery"},
    "RefreshBody": {"refresh_token": "3f9a…"},
    "SetupBody": {
        "setup_token": "f3b1…",
        "organisation": "Acme",
        "email": "ada@example.com",
        "name": "Ada",
        "password": "correct horse battery",
    },
    "AcceptBody": {"token": "hal_invite_…", "password": "correct horse battery", "name": "Ada"},
    "PasswordBody": {"current": "correct horse battery", "new": "staple correct horse"},
    "MyselfBody": {"name": "Ada"},
    "UpdateOrganisationBody": {"name": "Acme"},
    "CreateProjectBody": {
        "name": "Shop",
        "environments": [{"key": "staging"}, {"key": "production", "critical": True}],
    },
    "UpdateProjectBody": {"description": "What customers see.", "mau_limit": None},
    "CreateEnvironmentBody": {"name": "Canary", "critical": True},
    "UpdateEnvironmentBody": {"name": "Production (EU)"},
    "CloneEnvironmentBody": {"name": "Canary"},
    "ReorderEnvironmentsBody": {"environments": ["development", "staging", "production"]},
    "CreateFlagBody": {
        "key": "new-checkout",
        "name": "New checkout",
        "type": "boolean",
        "tags": ["checkout"],
        "environments": {"production": {"enabled": True, "rules": [_RULE]}},
    },
    "UpdateFlagBody": {"description": "The checkout on one page.", "owner": "ada@example.com"},
    "ArchiveBody": {"force": False},
    "RestoreBody": {},
    "UpdateConfigBody": {"enabled": True, "rules": [_RULE], "fallthrough": _SPLIT},
    "ToggleBody": {"environment": "production", "enabled": True},
    "ToggleFlagsBody": {"flags": ["new-checkout"], "environment": "production", "enabled": False},
    "ArchiveFlagsBody": {"flags": ["new-checkout"]},
    "TagFlagsBody": {"flags": ["new-checkout"], "add": ["checkout"]},
    "RevertBody": {"version": 3, "environment": "production", "reason": "Too many errors."},
    "RevertSegmentBody": {"version": 2},
    "CommentBody": {"comment": "Looks right."},
    "UpdateRequestBody": {"description": "For the launch on Monday."},
    "PromoteBody": {"from": "staging", "to": "production", "parts": ["rules"]},
    "CopyBody": {"key": "newer-checkout"},
    "NewRuleBody": {**_RULE, "position": 0},
    "RuleBody": {"is_active": False},
    "ReorderBody": {"rules": ["staff"]},
    "AddTargetsBody": {"variation": "on", "units": ["user-1"]},
    "RemoveTargetsBody": {"units": ["user-1"]},
    "RolloutBody": {"percentage": 25},
    "RampBody": {"to": "on", "increment": 10, "every_s": 86_400},
    "NewVariationBody": {"key": "maybe", "value": True},
    "UpdateVariationBody": {"name": "On"},
    "KillBody": {"environment": "production", "reason": "Payments fail."},
    "CreateSegmentBody": {"name": "Testers", "include": ["user-1"]},
    "UpdateSegmentBody": {"when": {"attribute": "plan", "op": "in", "values": ["beta"]}},
    "CreateKeyBody": {"kind": "server", "name": "backend", "project": "shop", "environment": "production"},
    "UpdateKeyBody": {"name": "backend (EU)", "expires_at": "2027-01-01T00:00:00Z"},
    "RotateBody": {"overlap_s": 3_600},
    "UpdateTokenBody": {"name": "deploy (EU)"},
    "CreateTokenBody": {"name": "deploy", "scopes": ["flags:write"], "projects": ["shop"]},
    "CreateMemberBody": {"email": "ada@example.com", "name": "Ada", "role": "developer"},
    "UpdateMemberBody": {"role": "admin"},
    "ImportBody": {**_DOCUMENT, "prune": False},
    "NewProjectBody": _DOCUMENT,
    "ExplainBody": {
        "project": "shop",
        "environment": "production",
        "flag": "new-checkout",
        "context": {"targetingKey": "user-1", "country": "de"},
    },
    "ChangeBody": {
        "idempotency_key": "6d3f9a1c-0001",
        "ops": [{"op": "kill", "project": "shop", "environment": "production", "flag": "new-checkout"}],
        "origin": {
            "relay": "relay-1",
            "at": "2026-11-21T06:30:00.000Z",
            "credential": "9a0c2d57-7a51-4d4e-9a4b-3a1d8a4c5e21",
            "proof": "0" * 64,
        },
    },
}
