"""Decides what restoring an earlier version comes to: its content as a new version, if that still holds together.

What a thing is called and when it was made is never restored, nor whether a flag is archived. A version is judged by
the flag as it is now: one that serves a variation which is gone is refused with the names of those.
"""

from dataclasses import replace
from typing import Any

from upstream.domain.configs import config_of, missing_segments, verify
from upstream.domain.diff import changes_between
from upstream.domain.entities import Environment, Flag, FlagConfig, Project, Segment
from upstream.domain.errors import Kind, Problems, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.flag_variations import served
from upstream.domain.governance_commands import RevertFlag, RevertSegment
from upstream.domain.lookup import (
    check_version,
    environment_of,
    is_changed,
    live_flag_of,
    next_version,
    project_of,
    segment_of,
)
from upstream.domain.prerequisites import check_prerequisites
from upstream.domain.segments import check_segment


def revert_flag(command: RevertFlag, view: View, facts: Facts) -> Decision:
    """Restore an earlier version of a flag, or of its config in one environment."""
    project = project_of(view, facts, command.project)
    flag = live_flag_of(view, project, command.flag)
    _check_which(command)
    if command.environment is None:
        return _revert_itself(command, flag, view, facts)
    return _revert_config(command, project, flag, environment_of(view, project, command.environment), view, facts)


def _check_which(command: RevertFlag) -> None:
    problems = Problems()
    if (command.version is None) == (command.revision is None):
        problems.add("version", "Give exactly one of `version` and `revision`.")
    if command.revision is not None and command.environment is None:
        problems.add("environment", "A revision is one of an environment: name it.")
    problems.check("This does not say which version to restore.")


def _revert_itself(command: RevertFlag, flag: Flag, view: View, facts: Facts) -> Decision:
    check_version(flag, command.if_match)
    earlier = view.version(flag.id, "", command.version or 0)
    if not isinstance(earlier, Flag):
        raise no_version(f"flag {flag.key!r}", command.version)
    # Its key may not have been another one, and being archived or deleted is no content.
    after = replace(
        earlier,
        key=flag.key,
        version=flag.version,
        created_at=flag.created_at,
        archived_at=flag.archived_at,
        deleted_at=flag.deleted_at,
    )
    keys = {each.id: each.key for each in view.environments(flag.project_id)}
    problems = Problems()
    for environment_id, config in view.configs(flag.id).items():
        _note_gone(problems, after, config, f"environments.{keys[environment_id]}.")
    _refuse(problems, f"Version {command.version} lacks variations that are served now; change these serves first.")
    for environment_id, config in view.configs(flag.id).items():
        verify(problems, after, config, path=f"environments.{keys[environment_id]}.")
    _refuse(problems, f"Version {command.version} does not go with what the flag serves now.")
    warnings = check_prerequisites(after, view)
    decision = _reverted(flag, after, f"Back to version {command.version}.", facts)
    return replace(decision, warnings=warnings, reason=command.reason or decision.reason)


def _revert_config(  # noqa: PLR0913, PLR0917 - each of them is needed
    command: RevertFlag, project: Project, flag: Flag, environment: Environment, view: View, facts: Facts
) -> Decision:
    config = config_of(view, flag, environment)
    place = f"flag {flag.key!r} in {environment.key!r}"
    check_version(config, command.if_match)
    earlier = _earlier_config(command, environment, flag, view)
    if earlier is None:
        raise no_version(place, command.version if command.revision is None else None, command.revision)
    is_switch = earlier.enabled != config.enabled
    # Restoring is as deliberate as switching: a kill at the edge from before must not undo it.
    enabled_at = facts.now_ms if is_switch else config.enabled_at
    after = replace(earlier, salt=config.salt, version=config.version, enabled_at=enabled_at)
    problems = Problems()
    _note_gone(problems, flag, after)
    _refuse(problems, f"Version {earlier.version} serves variations that this flag does not have any more.")
    verify(problems, flag, after)
    _refuse(problems, f"Version {earlier.version} does not go with the flag as it is now.")
    decision = _reverted(config, after, f"Back to version {earlier.version}.", facts)
    return replace(
        decision,
        target=flag,
        warnings=missing_segments(view, project.id, after),
        project_id=project.id,
        environment_id=environment.id,
        reason=command.reason or decision.reason,
    )


def _earlier_config(command: RevertFlag, environment: Environment, flag: Flag, view: View) -> FlagConfig | None:
    if command.revision is not None:
        if command.revision > environment.revision:
            return None
        return view.config_at(flag.id, environment.id, command.revision)
    found = view.version(flag.id, environment.id, command.version or 0)
    return found if isinstance(found, FlagConfig) else None


def revert_segment(command: RevertSegment, view: View, facts: Facts) -> Decision:
    """Restore an earlier version of a segment."""
    project = project_of(view, facts, command.project)
    segment = segment_of(view, project, command.segment)
    check_version(segment, command.if_match)
    earlier = view.version(segment.id, "", command.version)
    if not isinstance(earlier, Segment):
        raise no_version(f"segment {segment.key!r}", command.version)
    after = replace(earlier, key=segment.key, version=segment.version, created_at=segment.created_at)
    warnings = check_segment(Problems(), after, view.segments(project.id))
    decision = _reverted(segment, after, f"Back to version {command.version}.", facts)
    return replace(decision, warnings=warnings, reason=command.reason or decision.reason)


def _reverted(before: Any, after: Any, reason: str, facts: Facts) -> Decision:
    saved = next_version(after, facts) if is_changed(before, after) else None
    return Decision(
        action="segment.reverted" if isinstance(before, Segment) else "flag.reverted",
        entity=saved or before,
        save=(saved,) if saved else (),
        changes=changes_between(before, after),
        project_id=None if isinstance(before, FlagConfig) else before.project_id,
        reason=reason,
    )


def no_version(thing: str, version: int | None, revision: int | None = None) -> Rejected:
    """Return the refusal for a version that is not kept."""
    wanted = f"version {version}" if revision is None else f"version at revision {revision}"
    return Rejected(Kind.NOT_FOUND, f"There is no {wanted} of the {thing}.", code="version_not_found")


def _refuse(problems: Problems, detail: str) -> None:
    """Refuse what does not go with the present state: a conflict, as the request itself is sound.

    Raises:
        Rejected: CONFLICT with everything noted.
    """
    try:
        problems.check(detail)
    except Rejected as rejected:
        raise Rejected(Kind.CONFLICT, detail, rejected.errors, code="revert_conflict") from None


def _note_gone(problems: Problems, flag: Flag, config: FlagConfig, path: str = "") -> None:
    """Note each place where a config names a variation that the flag does not have."""
    known = {variation.key for variation in flag.variations}
    for place, key in served(config):
        if key not in known:
            problems.add(path + place, f"This serves the variation {key!r}, which is not there.")
