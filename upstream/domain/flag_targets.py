"""Decides about a flag's individual targets: units that get one variation, whatever the rules say.

A unit is the target of one variation at most, so adding it to one takes it from another.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from upstream.domain.configs import ConfigEdit
from upstream.domain.entities import Target
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_commands import AddTargets, RemoveTargets
from upstream.domain.serving import MAX_UNITS, unit_list


def add_targets(command: AddTargets, view: View, facts: Facts) -> Decision:
    """Add units to the targets of a variation; those that are there already stay where they are."""
    edit = ConfigEdit(command, view, facts)
    variation = edit.values.named("variation", command.variation)
    units = _units(edit, command.units)
    kept = _without(edit.config.targets, lambda target, unit: target.variation != variation and unit in units)
    there = next((target for target in kept if target.variation == variation), Target(variation=variation, units=()))
    grown = Target(variation=variation, units=tuple(dict.fromkeys((*there.units, *units))))
    targets = tuple(grown if target is there else target for target in kept)
    if there not in kept:
        targets = (*targets, grown)
    if sum(len(target.units) for target in targets) > MAX_UNITS:
        edit.problems.add("units", f"At most {MAX_UNITS} units can be targets in an environment; use a segment.")
    return edit.decided(replace(edit.config, targets=targets))


def remove_targets(command: RemoveTargets, view: View, facts: Facts) -> Decision:
    """Take units from the targets of a variation, or of all; those that are not there do not matter."""
    edit = ConfigEdit(command, view, facts)
    only = None if command.variation is None else edit.values.named("variation", command.variation)
    units = _units(edit, command.units)
    targets = _without(edit.config.targets, lambda target, unit: only in {None, target.variation} and unit in units)
    return edit.decided(replace(edit.config, targets=targets))


def _units(edit: ConfigEdit, raw: Sequence[str | int]) -> dict[str, None]:
    units = unit_list(edit.problems, "units", raw)
    if not raw:
        edit.problems.add("units", "List at least one unit.")
    return dict.fromkeys(units)


def _without(targets: tuple[Target, ...], is_taken: Callable[[Target, str], bool]) -> tuple[Target, ...]:
    """Return the targets without the units that are taken, and without those that have none left."""
    left = (
        replace(target, units=tuple(unit for unit in target.units if not is_taken(target, unit))) for target in targets
    )
    return tuple(target for target in left if target.units)
