"""The review gate: what an environment with `require_review` publishes changes through approved requests only.

Looks at what a decision would change, whichever command it came from. A kill always passes, and so does what can be
felt by nobody: a new flag that is off there, a new segment that nobody names, and what is not published at all.
"""

from collections.abc import Iterable

from relay.protocol.hashing import canonical
from upstream.domain.commands import Command, KillFlag
from upstream.domain.entities import Environment, Flag, FlagConfig, Segment
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Decision, Facts, View
from upstream.domain.graph import segment_users
from upstream.domain.snapshot import flag_object, segment_object


def check_review(command: Command, decision: Decision, view: View, facts: Facts) -> None:
    """Refuse a decision that needs a review and has none. `view` shows the state before it.

    Raises:
        Rejected: CONFLICT `review_required` with the environments that ask for it.
    """
    if facts.is_reviewed or isinstance(command, KillFlag):
        return
    decisions = [each for each in (*decision.parts, decision) if _is_about_flags(each)]
    projects = dict.fromkeys(each.project_id for each in decisions if each.project_id is not None)
    guarded = [each for project in projects for each in view.environments(project) if each.require_review]
    felt = [each.key for each in guarded if any(_is_felt(part, each, view) for part in decisions)]
    if felt:
        names = " and ".join(repr(key) for key in felt)
        detail = (
            f"Flags in {names} change through approved change requests only;"
            " send the same again with ?propose=TITLE to open one."
        )
        raise Rejected(Kind.CONFLICT, detail, code="review_required", extra={"environments": felt})


def _is_about_flags(decision: Decision) -> bool:
    return any(isinstance(each, Flag | FlagConfig | Segment) for each in (*decision.save, *decision.remove))


def _is_felt(decision: Decision, environment: Environment, view: View) -> bool:
    flags = {each.id: each for each in decision.save if isinstance(each, Flag)}
    configs = {
        each.flag_id: each
        for each in decision.save
        if isinstance(each, FlagConfig) and each.environment_id == environment.id
    }
    flag_ids = dict.fromkeys((*flags, *configs))
    if any(_is_flag_felt(flags.get(each), configs.get(each), each, environment, view) for each in flag_ids):
        return True
    if any(isinstance(each, Segment) for each in decision.remove):
        return True
    return _are_segments_felt((each for each in decision.save if isinstance(each, Segment)), view)


def _is_flag_felt(
    flag: Flag | None, config: FlagConfig | None, flag_id: str, environment: Environment, view: View
) -> bool:
    """Tell whether the flag is published otherwise than before; `flag` and `config` are what is saved of it."""
    config_before = view.config(flag_id, environment.id)
    if config is not None:
        return config_before is not None or config.enabled
    assert flag is not None and config_before is not None  # noqa: S101, PT018 - every flag has a config everywhere
    before = view.flag(flag.project_id, flag_id)
    published = None if before is None else flag_object(before, config_before, 1)
    return canonical(published) != canonical(flag_object(flag, config_before, 1))


def _are_segments_felt(segments: Iterable[Segment], view: View) -> bool:
    for segment in segments:
        before = view.segment(segment.project_id, segment.id)
        if before is not None and canonical(segment_object(before, 1)) != canonical(segment_object(segment, 1)):
            return True
        if before is None and _is_named(segment, view):
            return True
    return False


def _is_named(segment: Segment, view: View) -> bool:
    keys = {flag.id: flag.key for flag in view.flags(segment.project_id)}
    others = view.segments(segment.project_id)
    return bool(segment_users(segment.key, others, view.project_configs(segment.project_id), keys))
