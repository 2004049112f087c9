"""Decides about the variations of a flag, one at a time; nothing that is served anywhere is taken away."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from upstream.domain.configs import INVALID, verify
from upstream.domain.diff import changes_between
from upstream.domain.entities import Flag, FlagConfig, JsonObject, Variation
from upstream.domain.errors import Kind, Problems, Rejected, not_found
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_commands import AddVariation, DeleteVariation, UpdateVariation
from upstream.domain.lookup import check_version, is_changed, live_flag_of, next_version, project_of
from upstream.domain.naming import check_text
from upstream.domain.values import Values, added_variation, value_problem

_MEMBERS = ("value", "name")


def add_variation(command: AddVariation, view: View, facts: Facts) -> Decision:
    """Add a variation, which nothing serves yet."""
    flag = _flag_of(command, view, facts)
    problems = Problems()
    values = Values(flag.type, flag.variations, problems, flag.number_format)
    added_variation(values, problems, "", command.variation)
    problems.check(INVALID)
    return _decided(flag, replace(flag, variations=values.variations), view, facts)


def update_variation(command: UpdateVariation, view: View, facts: Facts) -> Decision:
    """Change a variation's value or name."""
    flag = _flag_of(command, view, facts)
    variation = variation_of(flag, command.variation)
    problems = Problems()
    for member in sorted(command.changes.keys() - set(_MEMBERS)):
        problems.add(member, "Only `value` and `name` of a variation can be changed; its key stays.")
    after = _with_changes(variation, command.changes, flag, problems)
    problems.check(INVALID)
    variations = tuple(after if each.key == variation.key else each for each in flag.variations)
    return _decided(flag, replace(flag, variations=variations), view, facts)


def _with_changes(variation: Variation, changes: JsonObject, flag: Flag, problems: Problems) -> Variation:
    if "value" in changes:
        if problem := value_problem(flag.type, changes["value"], flag.number_format):
            problems.add("value", problem)
        variation = replace(variation, value=changes["value"])
    if "name" in changes:
        name = changes["name"]
        if name is not None and not isinstance(name, str):
            problems.add("name", "This must be a text.")
            return variation
        check_text(problems, "name", name)
        variation = replace(variation, name=name)
    return variation


def delete_variation(command: DeleteVariation, view: View, facts: Facts) -> Decision:
    """Take away a variation that is served nowhere and that no other flag waits for."""
    flag = _flag_of(command, view, facts)
    variation = variation_of(flag, command.variation)
    places = [*_places(flag, variation.key, view), *_waiting(flag, variation.key, view)]
    if places:
        detail = f"The variation {variation.key!r} is used at {', '.join(places)}; serve another one there first."
        raise Rejected(Kind.CONFLICT, detail, code="in_use", extra={"used_by": places})
    left = tuple(each for each in flag.variations if each is not variation)
    return _decided(flag, replace(flag, variations=left), view, facts)


def variation_of(flag: Flag, key: str) -> Variation:
    """Return a variation of a flag.

    Raises:
        Rejected: NOT_FOUND.
    """
    found = flag.variation(key)
    if found is None:
        raise not_found("variation", key)
    return found


def served(config: FlagConfig) -> Iterator[tuple[str, str]]:
    """Yield each place of a config that names a variation, and the variation; inactive rules included."""
    if config.off is not None:
        yield "off", config.off
    yield from (("fallthrough", key) for key in variations_in(config.fallthrough))
    for index, rule in enumerate(config.rules):
        yield from ((f"rules[{index}].serve", key) for key in variations_in(rule.serve))
    for index, target in enumerate(config.targets):
        yield f"targets[{index}]", target.variation


def variations_in(serve: JsonObject) -> Iterator[str]:
    """Yield the variations that a stored serve names."""
    if "variation" in serve:
        yield serve["variation"]
    elif "split" in serve:
        yield from (key for key, _ in serve["split"]["weights"])
    else:
        ramp: Mapping[str, str] = serve["ramp"]
        yield from (ramp["to"], ramp["else"])


def _flag_of(command: AddVariation | UpdateVariation | DeleteVariation, view: View, facts: Facts) -> Flag:
    flag = live_flag_of(view, project_of(view, facts, command.project), command.flag)
    check_version(flag, command.if_match)
    return flag


def _places(flag: Flag, key: str, view: View) -> Iterator[str]:
    configs = view.configs(flag.id)
    for environment in view.environments(flag.project_id):
        places = (place for place, used in served(configs[environment.id]) if used == key)
        yield from (f"environments.{environment.key}.{place}" for place in dict.fromkeys(places))


def _waiting(flag: Flag, key: str, view: View) -> Iterator[str]:
    for other in view.requiring(flag.project_id):
        if any(each.flag == flag.key and key in (each.variations or ()) for each in other.prerequisites):
            yield f"prerequisites of the flag {other.key}"


def _decided(flag: Flag, after: Flag, view: View, facts: Facts) -> Decision:
    problems = Problems()
    configs = view.configs(flag.id)
    for environment in view.environments(flag.project_id):
        verify(problems, after, configs[environment.id], path=f"environments.{environment.key}.")
    problems.check(INVALID)
    saved = next_version(after, facts) if is_changed(flag, after) else None
    return Decision(
        action="flag.updated",
        entity=saved or flag,
        save=(saved,) if saved else (),
        changes=changes_between(flag, after),
        project_id=flag.project_id,
    )
