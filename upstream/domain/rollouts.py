"""Decides about rollouts and ramps in percent: sugar for the fallthrough of a flag in one environment.

A rollout serves one variation to some percent of the units and the off variation to the rest. Growing keeps everybody
who was in: the order of the two, what is bucketed by, and a split's own salt stay as they are. At 100 percent there is
nothing to divide, so that everybody is served, units or not.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from relay.clock import rfc3339
from relay.engine.bucketing import BUCKETS
from relay.engine.context import UNIT
from upstream.domain.configs import ConfigEdit, usual_serves
from upstream.domain.entities import FlagConfig, FlagType, JsonObject
from upstream.domain.errors import Problems
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_commands import RampUp, RollOut
from upstream.domain.flag_variations import variations_in
from upstream.domain.nearest import no_such_field

WHOLE: Final = 100
_PER_PERCENT: Final = BUCKETS // WHOLE
_INVALID_RAMP: Final = "The ramp cannot be used as it is."
_MEMBERS: Final = frozenset({"to", "else", "start_at", "increment", "every_s", "target", "by"})


def weight_of(problems: Problems, path: str, percentage: Any) -> int:
    """Return the number of buckets that a percentage is, after noting where it is none."""
    if not isinstance(percentage, int | float) or isinstance(percentage, bool) or not 0 <= percentage <= WHOLE:
        problems.add(path, "A percentage is a number from 0 to 100.")
        return 0
    weight = Decimal(str(percentage)) * _PER_PERCENT
    if weight != int(weight):
        problems.add(path, f"A percentage has at most three decimals; {percentage} has more.")
    return int(weight)


def roll_out(command: RollOut, view: View, facts: Facts) -> Decision:
    """Serve one variation to a percentage of the units, and `off` to the rest."""
    edit = ConfigEdit(command, view, facts)
    weight = weight_of(edit.problems, "percentage", command.percentage)
    chosen = None if command.variation is None else edit.values.named("variation", command.variation)
    variation = chosen or _rolled_out(edit)
    rest = edit.config.off
    if weight == BUCKETS:
        return edit.decided(replace(edit.config, fallthrough={"variation": variation}))
    if rest is None:
        edit.problems.add(
            "percentage", "The rest gets the off variation, and this flag has none here; set `off` first."
        )
    elif variation == rest:
        edit.problems.add("variation", f"The rest gets {rest!r} too, as it is the off variation; name another one.")
    edit.problems.check("The rollout cannot be carried out as it is.")
    split = edit.reader.split("", _split(edit, variation, str(rest), weight, command.by))
    return edit.decided(replace(edit.config, fallthrough={"split": split}))


def _rolled_out(edit: ConfigEdit) -> str:
    """Return the variation that a rollout is about when the request does not say."""
    if edit.flag.type is FlagType.BOOLEAN:
        return usual_serves(edit.flag.type, edit.flag.variations)[1]
    served = tuple(variations_in(edit.config.fallthrough))
    return next((key for key in served if key != edit.config.off), served[0])


def _split(edit: ConfigEdit, variation: str, rest: str, weight: int, by: str | None) -> dict[str, Any]:
    before = edit.config.fallthrough.get("split", {})
    weights = [[variation, weight], [rest, BUCKETS - weight]]
    if [key for key, _ in before.get("weights", ())] == [rest, variation]:
        weights.reverse()
    split = {"by": by or _bucketed_by(edit.config), "weights": weights}
    return split if before.get("salt") is None else {**split, "salt": before["salt"]}


def _bucketed_by(config: FlagConfig) -> str:
    divided: JsonObject = config.fallthrough.get("split") or config.fallthrough.get("ramp") or {}
    return str(divided.get("by", UNIT))


def ramp_up(command: RampUp, view: View, facts: Facts) -> Decision:
    """Serve one variation to a share of the units that grows with time."""
    edit = ConfigEdit(command, view, facts)
    asked = command.ramp
    for member in sorted(asked.keys() - _MEMBERS):
        edit.problems.add(member, no_such_field(member, _MEMBERS))
    ramp = {name: value for name, value in asked.items() if name in _MEMBERS}
    if "target" in asked:
        ramp["target"] = weight_of(edit.problems, "target", asked["target"])
    if "increment" in asked:
        ramp["increment"] = _increment(edit.problems, asked["increment"])
    ramp.setdefault("start_at", rfc3339(facts.now_ms))
    ramp.setdefault("by", _bucketed_by(edit.config))
    ramp.setdefault("else", edit.config.off)
    if ramp["else"] is None:
        edit.problems.add("else", "This flag has no off variation here; say what the rest gets.")
        edit.problems.check(_INVALID_RAMP)
    if ramp.get("to") == ramp["else"]:
        edit.problems.add("to", f"The rest gets {ramp['else']!r} too; name another variation.")
    return edit.decided(replace(edit.config, fallthrough={"ramp": edit.reader.ramp("", ramp)}))


def _increment(problems: Problems, percentage: Any) -> int:
    weight = weight_of(problems, "increment", percentage)
    if percentage == 0:
        problems.add("increment", "A ramp that never grows is a rollout; give an increment above 0.")
    # What was refused above is not to be refused again in other words.
    return max(weight, 1)
