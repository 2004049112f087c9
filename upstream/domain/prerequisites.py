"""Prerequisites of flags: reading them from a request, and judging whether they hold together.

A prerequisite that does not exist yet is a warning; one that leads back to the flag itself, or too far, is refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from relay.engine.environment import MAX_CHAIN
from upstream.domain.configs import INVALID
from upstream.domain.entities import Flag, JsonObject, Prerequisite
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Notice, View
from upstream.domain.graph import chain_through, cycle_from, prerequisite_edges
from upstream.domain.naming import KEY
from upstream.domain.nearest import no_such_field

MAX_PREREQUISITES = 50

_MEMBERS = frozenset({"flag", "variations"})


def check_prerequisites(flag: Flag, view: View) -> tuple[Notice, ...]:
    """Return warnings about prerequisites that do not hold together yet.

    Raises:
        Rejected: INVALID where they lead back to the flag itself, or too far.
    """
    if not flag.prerequisites:
        return ()
    edges = prerequisite_edges(other for other in view.requiring(flag.project_id) if other.id != flag.id)
    edges |= prerequisite_edges((flag,))
    if cycle := cycle_from(flag.key, edges):
        sentence = f"These prerequisites lead back to the flag itself: {' → '.join(cycle)}."
        raise Rejected(Kind.INVALID, INVALID, {"prerequisites": [sentence]}, code="prerequisite_cycle")
    if chain_through(flag.key, edges) > MAX_CHAIN:
        sentence = f"A chain of prerequisites has at most {MAX_CHAIN} flags."
        raise Rejected(Kind.INVALID, INVALID, {"prerequisites": [sentence]})
    notices: list[Notice] = []
    for prerequisite in flag.prerequisites:
        notices += _missing(flag, prerequisite, view.flag(flag.project_id, prerequisite.flag))
    return tuple(notices)


def _missing(flag: Flag, prerequisite: Prerequisite, required: Flag | None) -> list[Notice]:
    if required is None:
        detail = f"There is no flag {prerequisite.flag!r} yet; until there is, {flag.key!r} serves its off variation."
        return [Notice(code="missing_prerequisite", detail=detail)]
    return [
        Notice(code="missing_variation", detail=f"{required.key!r} has no variation {key!r}.")
        for key in prerequisite.variations or ()
        if required.variation(key) is None
    ]


def given_prerequisites(problems: Problems, raw: Sequence[str | JsonObject], key: str) -> tuple[Prerequisite, ...]:
    """Read the `prerequisites` of a request: a flag's key, or `{flag, variations?}` each."""
    if len(raw) > MAX_PREREQUISITES:
        problems.add("prerequisites", f"A flag has at most {MAX_PREREQUISITES} prerequisites.")
        return ()
    found: dict[str, Prerequisite] = {}
    for index, entry in enumerate(raw):
        path = f"prerequisites[{index}]"
        fields = {"flag": entry} if isinstance(entry, str) else entry
        if isinstance(fields, Mapping):
            for member in sorted(fields.keys() - _MEMBERS):
                problems.add(f"{path}.{member}", no_such_field(member, _MEMBERS))
        if not isinstance(fields, Mapping) or not isinstance(fields.get("flag"), str):
            problems.add(path, "A prerequisite is a flag's key, or an object with `flag` and optionally `variations`.")
            continue
        variations = fields.get("variations")
        if variations is not None and not (isinstance(variations, list | tuple) and _are_texts(variations)):
            problems.add(f"{path}.variations", "This must be a list of variation keys that is not empty.")
            variations = None
        if KEY.fullmatch(fields["flag"]) is None:
            problems.add(path, f"{fields['flag']!r} is not a flag's key.")
        if fields["flag"] == key:
            problems.add(path, "A flag cannot require itself.")
        if fields["flag"] in found:
            problems.add(path, f"{fields['flag']!r} is required twice.")
        found[fields["flag"]] = Prerequisite(
            flag=fields["flag"],
            variations=None if variations is None else tuple(variations),
        )
    return tuple(found.values())


def _are_texts(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)
