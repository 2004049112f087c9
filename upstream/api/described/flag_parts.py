"""Schemas and examples of what a flag is made of: configs, rules, variations; and of many flags together."""

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
from upstream.api.described.things import AT, CHECKOUT, FLAG, FLAG_EXAMPLE, PRODUCTION, WARNINGS

_RULE: Final[Mapping[str, Schema]] = {
    "id": TEXT,
    "name": nullable(TEXT),
    "when": OBJECT,
    "serve": OBJECT,
    "is_active": SWITCH,
}
_RULE_EXAMPLE: Final[dict[str, Any]] = {
    "id": "staff",
    "name": None,
    "when": {"attribute": "email", "op": "ends_with", "values": ["@example.com"]},
    "serve": {"variation": "on"},
    "is_active": True,
}
_PLACED: Final = {"position": 0, "flag": "new-checkout", "environment": "production", "version": 3}
_VARIATION: Final[Mapping[str, Schema]] = {"key": TEXT, "value": ANY, "name": nullable(TEXT)}
_VARIATION_EXAMPLE: Final[dict[str, Any]] = {"key": "on", "value": True, "name": None}
_LINK: Final = record(
    {
        "flag": TEXT,
        "state": one_of("live", "archived", "missing"),
        "distance": noted(NUMBER, "1 = directly."),
        "via": TEXT,
        "variations": nullable(list_of(TEXT)),
    }
)
_GROUP_EXAMPLE: Final[dict[str, Any]] = {
    "name": "checkout-tests",
    "members": [{"flag": "new-checkout", "is_active": True, "environments": {"production": True}}],
}
_TEMPLATE_EXAMPLE: Final[dict[str, Any]] = {
    "template": "kill_switch",
    "description": "A boolean flag that is on for everybody and can be switched off at once.",
    "flavors": [],
    "kind": "ops",
    "is_active": True,
    "variations": {"boolean": [{"key": "enabled", "value": True}, {"key": "disabled", "value": False}]},
    "off": "disabled",
    "fallthrough": {"variation": "enabled"},
}
_CONFIG_EXAMPLE: Final[dict[str, Any]] = {
    "flag_id": CHECKOUT,
    "environment_id": PRODUCTION,
    "flag": "new-checkout",
    "environment": "production",
    "enabled": True,
    "enabled_at": AT,
    "off": "off",
    "fallthrough": {"split": {"by": "targetingKey", "weights": [["on", 25_000], ["off", 75_000]]}},
    "rules": [
        {
            "id": "staff",
            "name": None,
            "when": {"attribute": "email", "op": "ends_with", "values": ["@example.com"]},
            "serve": {"variation": "on"},
            "is_active": True,
        }
    ],
    "targets": [{"variation": "on", "units": ["user-1"]}],
    "version": 3,
    "updated_at": AT,
}


def _whole_of(name: str, example: Any) -> Described:
    """Return a list that is never cut into pages."""
    return page_of(name, example, limit=1)


FLAG_PARTS: Final[Mapping[str, Described]] = {
    "FlagConfig": Described(
        record(
            {
                "flag_id": ID,
                "environment_id": ID,
                "enabled": SWITCH,
                "enabled_at": noted(TIME, "Of the last deliberate change of `enabled`."),
                "off": noted(nullable(TEXT), "The variation served while the flag is off; null = the code's default."),
                "fallthrough": OBJECT,
                "rules": list_of(record(_RULE)),
                "targets": list_of(record({"variation": TEXT, "units": list_of(TEXT)})),
                "version": NUMBER,
                "updated_at": TIME,
            },
            # Missing only where a repeated write is answered after the flag is gone.
            {"flag": TEXT, "environment": TEXT, **WARNINGS},
        ),
        _CONFIG_EXAMPLE,
    ),
    "FlagConfigPage": _whole_of("FlagConfig", _CONFIG_EXAMPLE),
    "Rule": Described(
        record(
            {
                **_RULE,
                "position": NUMBER,
                "flag": TEXT,
                "environment": TEXT,
                "version": noted(NUMBER, "Of the config that the rule belongs to."),
            },
            WARNINGS,
        ),
        {**_RULE_EXAMPLE, **_PLACED},
    ),
    "RuleList": _whole_of("Rule", {**_RULE_EXAMPLE, **_PLACED}),
    "Variation": Described(record(_VARIATION), _VARIATION_EXAMPLE),
    "VariationList": _whole_of("Variation", _VARIATION_EXAMPLE),
    "ChangedVariation": Described(
        record({**_VARIATION, "flag": TEXT, "version": noted(NUMBER, "Of the flag.")}, WARNINGS),
        {**_VARIATION_EXAMPLE, "flag": "new-checkout", "version": 4},
    ),
    "PlainFlag": Described(record(FLAG), FLAG_EXAMPLE),
    "ChangedFlags": Described(
        record({"data": list_of(ref("PlainFlag")), "total": NUMBER}, WARNINGS), {"data": [FLAG_EXAMPLE], "total": 1}
    ),
    "ToggledFlags": Described(
        record(
            {
                "data": list_of(record({"flag": TEXT, "environment": TEXT, "enabled": SWITCH, "version": NUMBER})),
                "total": NUMBER,
            },
            WARNINGS,
        ),
        {
            "data": [{"flag": "new-checkout", "environment": "production", "enabled": True, "version": 3}],
            "total": 1,
        },
    ),
    "Group": Described(
        record(
            {
                "name": TEXT,
                "members": list_of(
                    record(
                        {
                            "flag": TEXT,
                            "is_active": SWITCH,
                            "environments": noted(map_of(SWITCH), "Where it is enabled, by environment key."),
                        }
                    )
                ),
            }
        ),
        _GROUP_EXAMPLE,
    ),
    "GroupList": _whole_of("Group", _GROUP_EXAMPLE),
    "Tag": Described(
        record({"tag": TEXT, "flags": noted(NUMBER, "How many flags have it.")}), {"tag": "checkout", "flags": 3}
    ),
    "TagList": _whole_of("Tag", {"tag": "checkout", "flags": 3}),
    "Dependencies": Described(
        record(
            {
                "requires": list_of(_LINK),
                "required_by": list_of(_LINK),
                "segments": list_of(record({"segment": TEXT, "exists": SWITCH, "environments": list_of(TEXT)})),
            }
        ),
        {
            "requires": [{"flag": "payments", "state": "live", "distance": 1, "via": "payments", "variations": None}],
            "required_by": [],
            "segments": [{"segment": "testers", "exists": True, "environments": ["production"]}],
        },
    ),
    "Template": Described(
        record(
            {
                "template": TEXT,
                "description": TEXT,
                "flavors": noted(list_of(TEXT), "One of these has to be named, where there are any."),
                "kind": TEXT,
                "is_active": SWITCH,
                "variations": noted(map_of(list_of(OBJECT)), "By flavor."),
                "off": TEXT,
                "fallthrough": OBJECT,
            }
        ),
        _TEMPLATE_EXAMPLE,
    ),
    "TemplateList": _whole_of("Template", _TEMPLATE_EXAMPLE),
}
