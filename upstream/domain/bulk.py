"""Many flags at once: finding all that a request lists, in which order they can end, and tagging.

What is done to them is a `Batch` of ordinary commands, so one transaction, one revision and an audit entry for each.
"""

from collections.abc import Sequence
from dataclasses import replace

from upstream.domain.diff import changes_between
from upstream.domain.entities import Flag, Project
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_commands import TagFlag
from upstream.domain.flags import checked_tags
from upstream.domain.graph import chain_from, dependents, prerequisite_edges
from upstream.domain.lookup import forced_or_free, is_changed, live_flag_of, next_version, project_of

MAX_FLAGS = 100
INVALID = "These flags cannot be changed together as they are listed."


def flags_listed(view: View, project: Project, references: Sequence[str]) -> tuple[Flag, ...]:
    """Return the flags that a request lists, each once.

    Raises:
        Rejected: INVALID with every one that there is not; CONFLICT with every one that is archived.
    """
    problems = Problems(limit=MAX_FLAGS)
    if not 0 < len(references) <= MAX_FLAGS:
        problems.add("flags", f"List 1 to {MAX_FLAGS} flags; this lists {len(references)}.")
        problems.check(INVALID)
    found: dict[str, Flag] = {}
    for index, reference in enumerate(references):
        flag = view.flag(project.id, reference)
        if flag is None:
            problems.add(f"flags[{index}]", f"There is no flag {reference!r} here.")
        else:
            found[flag.id] = flag
    problems.check(INVALID)
    archived = sorted(flag.key for flag in found.values() if flag.archived_at is not None)
    if archived:
        detail = f"These flags are archived: {', '.join(archived)}; restore them first, or leave them out."
        raise Rejected(Kind.CONFLICT, detail, code="flag_archived", extra={"flags": archived})
    return tuple(found.values())


def in_order_of_ending(view: View, flags: Sequence[Flag], *, force: bool) -> tuple[Flag, ...]:
    """Return the flags with those that require others of them first.

    Raises:
        Rejected: CONFLICT where flags that are not among them require them, unless forced.
    """
    requiring = view.requiring(flags[0].project_id)
    keys = {flag.key for flag in flags}
    needed_by = sorted({user for key in keys for user in dependents(key, requiring)} - keys)
    forced_or_free(needed_by, f"list of flags {', '.join(sorted(keys))}", force=force)
    edges = prerequisite_edges(requiring)
    return tuple(sorted(flags, key=lambda flag: -chain_from(flag.key, edges)))


def tag_flag(command: TagFlag, view: View, facts: Facts) -> Decision:
    """Add tags to a flag and take others away."""
    flag = live_flag_of(view, project_of(view, facts, command.project), command.flag)
    problems = Problems()
    for tag in sorted(set(command.add) & set(command.remove)):
        problems.add("remove", f"{tag!r} cannot be added and removed at once.")
    tags = checked_tags(problems, (*(tag for tag in flag.tags if tag not in command.remove), *command.add))
    problems.check(INVALID)
    after = replace(flag, tags=tags)
    saved = next_version(after, facts) if is_changed(flag, after) else None
    return Decision(
        action="flag.updated",
        entity=saved or flag,
        save=(saved,) if saved else (),
        changes=changes_between(flag, after),
        project_id=flag.project_id,
    )
