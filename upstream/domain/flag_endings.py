"""Decides how a flag ends: archived (hidden, restorable) or deleted (gone, its key free at once)."""

from dataclasses import replace

from upstream.domain.commands import ArchiveFlag, DeleteFlag, RestoreFlag
from upstream.domain.diff import changes_between
from upstream.domain.entities import Flag
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.graph import dependents
from upstream.domain.lookup import check_version, flag_of, forced_or_free, live_flag_of, next_version, project_of
from upstream.domain.prerequisites import check_prerequisites


def archive_flag(command: ArchiveFlag, view: View, facts: Facts) -> Decision:
    """Hide a flag and stop serving it."""
    flag = live_flag_of(view, project_of(view, facts, command.project), command.flag)
    check_version(flag, command.if_match)
    forced_or_free(dependents(flag.key, view.requiring(flag.project_id)), f"flag {flag.key!r}", force=command.force)
    return _ended("flag.archived", flag, replace(flag, archived_at=facts.now_ms), facts)


def restore_flag(command: RestoreFlag, view: View, facts: Facts) -> Decision:
    """Bring an archived flag back as it was."""
    flag = flag_of(view, project_of(view, facts, command.project), command.flag)
    check_version(flag, command.if_match)
    if flag.archived_at is None:
        raise Rejected(Kind.CONFLICT, f"The flag {flag.key!r} is not archived.", code="flag_not_archived")
    restored = replace(flag, archived_at=None)
    warnings = check_prerequisites(restored, view)
    return replace(_ended("flag.restored", flag, restored, facts), warnings=warnings)


def delete_flag(command: DeleteFlag, view: View, facts: Facts) -> Decision:
    """Delete a flag, archived or not."""
    flag = flag_of(view, project_of(view, facts, command.project), command.flag)
    check_version(flag, command.if_match)
    forced_or_free(dependents(flag.key, view.requiring(flag.project_id)), f"flag {flag.key!r}", force=command.force)
    decision = _ended("flag.deleted", flag, replace(flag, deleted_at=facts.now_ms), facts)
    return replace(decision, changes=changes_between(flag, None))


def _ended(action: str, flag: Flag, after: Flag, facts: Facts) -> Decision:
    after = next_version(after, facts)
    return Decision(
        action=action,
        entity=after,
        save=(after,),
        changes=changes_between(flag, after),
        project_id=flag.project_id,
    )
