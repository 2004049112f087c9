"""Templates: what a new flag is made of when its creation names one.

A template gives type, variations, and the config of every environment that there is; only a name is needed beside it.
Whatever else the request names holds on top of it. `metadata.flag_template` keeps the template's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from relay.engine.bucketing import BUCKETS
from relay.engine.context import UNIT
from upstream.domain.commands import (
    ConfigFields,
    CreateFlag,
    given,
)
from upstream.domain.entities import FlagKind, FlagTemplate, FlagType, JsonObject, TemplateFlavor
from upstream.domain.errors import Problems
from upstream.domain.unset import (
    UNSET,
)

METADATA = "flag_template"
FLAVORS: tuple[TemplateFlavor, ...] = get_args(TemplateFlavor)

_DAY_S = 86_400
_ENABLED = {"key": "enabled", "name": "Enabled", "value": True}
_DISABLED = {"key": "disabled", "name": "Disabled", "value": False}
_THIRD = BUCKETS // 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What one template makes. `variations` are by flavor; those of a template without flavors are under None."""

    description: str
    kind: FlagKind
    is_active: bool
    variations: Mapping[TemplateFlavor | None, tuple[JsonObject, ...]]
    off: str
    fallthrough: JsonObject


def _arms(*values: Any) -> tuple[JsonObject, ...]:
    names = ("Control", "Variant A", "Variant B")
    keys = ("control", "variant_a", "variant_b")
    return tuple(
        {"key": key, "name": name, "value": value} for key, name, value in zip(keys, names, values, strict=True)
    )


TEMPLATES: Mapping[FlagTemplate, Template] = {
    "kill_switch": Template(
        description="A boolean flag that is on for everybody and can be switched off at once.",
        kind=FlagKind.OPS,
        is_active=True,
        variations={None: (_ENABLED, _DISABLED)},
        off="disabled",
        fallthrough={"variation": "enabled"},
    ),
    "gradual_rollout": Template(
        description="A boolean flag that reaches another 10 % every day, once it is active and its ramp has a start.",
        kind=FlagKind.RELEASE,
        is_active=False,
        variations={None: (_DISABLED, _ENABLED)},
        off="disabled",
        fallthrough={
            "ramp": {
                "to": "enabled",
                "else": "disabled",
                "start_at": None,
                "increment": BUCKETS // 10,
                "every_s": _DAY_S,
                "target": BUCKETS,
                "by": UNIT,
            }
        },
    ),
    "ab_test": Template(
        description="A flag with a control and two variants in equal shares; its flavor is the type of their values.",
        kind=FlagKind.EXPERIMENT,
        is_active=False,
        variations={
            "string": _arms("control", "variant_a", "variant_b"),
            "number": _arms(0, 1, 2),
            "json": _arms({"variant": "control"}, {"variant": "variant_a"}, {"variant": "variant_b"}),
        },
        off="control",
        fallthrough={
            "split": {
                "by": UNIT,
                # What does not divide by three goes to the control.
                "weights": [["control", BUCKETS - 2 * _THIRD], ["variant_a", _THIRD], ["variant_b", _THIRD]],
            }
        },
    ),
}


def with_template(command: CreateFlag, problems: Problems) -> CreateFlag:
    """Return the command as if everything that its template makes had been written out."""
    if command.template is None:
        if command.flavor is not None:
            problems.add("flavor", "A flavor goes with the template ab_test only.")
        return command
    template = TEMPLATES[command.template]
    _check_beside(command, template, problems)
    if command.flavor not in template.variations:
        return replace(command, template=None)
    return replace(
        command,
        template=None,
        flavor=None,
        type=FlagType.BOOLEAN if command.flavor is None else FlagType(command.flavor),
        variations=template.variations[command.flavor],
        kind=template.kind if command.kind is UNSET else command.kind,
        is_active=template.is_active if command.is_active is UNSET else command.is_active,
        metadata={**command.metadata, METADATA: command.template},
        config=_over(ConfigFields(enabled=True, off=template.off, fallthrough=template.fallthrough), command.config),
    )


def _check_beside(command: CreateFlag, template: Template, problems: Problems) -> None:
    if command.flavor not in template.variations:
        known = ", ".join(flavor for flavor in template.variations if flavor is not None)
        sentence = f"The template {command.template} needs a flavor: {known}." if known else None
        problems.add("flavor", sentence or f"The template {command.template} has no flavors.")
    made = {
        "type": command.type is not None,
        "variations": command.variations is not None,
        "default_value": command.default_value is not UNSET,
        "number_format": command.number_format is not None,
    }
    for name, is_given in made.items():
        if is_given:
            problems.add(name, f"The template {command.template} makes this; leave it out, or leave out the template.")


def _over(below: ConfigFields, above: ConfigFields) -> ConfigFields:
    """Return the fields of `above` where it names them, else those of `below`."""
    return replace(below, **given(above, *(each.name for each in fields(ConfigFields))))
