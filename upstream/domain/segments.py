"""Decides about segments: named groups of units that rules and other segments of the project refer to."""

from collections.abc import Sequence
from dataclasses import replace

import orjson

from relay.engine.environment import MAX_CHAIN
from relay.engine.parse import InvalidConfig, parse_segment
from relay.protocol.hashing import canonical
from upstream.domain.commands import (
    CreateSegment,
    DeleteSegment,
    UpdateSegment,
    given,
)
from upstream.domain.conditions import normalised, segments_in, sentence
from upstream.domain.diff import changes_between
from upstream.domain.entities import JsonObject, Segment
from upstream.domain.errors import Problems
from upstream.domain.facts import Decision, Facts, Notice, View
from upstream.domain.graph import chain_through, cycle_from, segment_edges, segment_users
from upstream.domain.lookup import check_version, forced_or_free, is_changed, next_version, project_of, segment_of
from upstream.domain.merging import SEGMENT_FIELDS, check_start, merged
from upstream.domain.naming import TEXT_CHARACTERS, check_name, check_text, choose_key
from upstream.domain.serving import unit_list
from upstream.domain.snapshot import segment_object
from upstream.domain.unset import (
    UNSET,
)

INVALID = "The segment cannot be used as it is."


def create_segment(command: CreateSegment, view: View, facts: Facts) -> Decision:
    """Create a segment."""
    project = project_of(view, facts, command.project)
    others = view.segments(project.id)
    problems = Problems()
    key = choose_key(problems, "segment", key=command.key, name=command.name, taken={other.key for other in others})
    segment = Segment(
        id=facts.new_id(),
        project_id=project.id,
        key=key,
        name=key if command.name is None else command.name,
        description=command.description,
        include=unit_list(problems, "include", command.include),
        exclude=unit_list(problems, "exclude", command.exclude),
        when=_condition(problems, command.when),
        version=1,
        created_at=facts.now_ms,
        updated_at=facts.now_ms,
    )
    warnings = check_segment(problems, segment, others)
    return Decision(
        action="segment.created",
        entity=segment,
        save=(segment,),
        changes=changes_between(None, segment),
        warnings=warnings,
        project_id=project.id,
    )


def update_segment(command: UpdateSegment, view: View, facts: Facts) -> Decision:
    """Change a segment."""
    project = project_of(view, facts, command.project)
    segment = segment_of(view, project, command.segment)
    check_start(command)
    check_version(segment, command.if_match)
    problems = Problems()
    after = replace(segment, **given(command, "name", "description"))
    if command.include is not UNSET:
        after = replace(after, include=unit_list(problems, "include", command.include))
    if command.exclude is not UNSET:
        after = replace(after, exclude=unit_list(problems, "exclude", command.exclude))
    if command.when is not UNSET:
        after = replace(after, when=_condition(problems, command.when))
    problems.check(INVALID)
    after = merged(view, command.base_version, segment, after, SEGMENT_FIELDS)
    warnings = check_segment(problems, after, view.segments(project.id))
    changes = changes_between(segment, after)
    saved = next_version(after, facts) if is_changed(segment, after) else None
    return Decision(
        action="segment.updated",
        entity=saved or segment,
        save=(saved,) if saved else (),
        changes=changes,
        warnings=warnings,
        project_id=project.id,
    )


def delete_segment(command: DeleteSegment, view: View, facts: Facts) -> Decision:
    """Delete a segment that nobody names, or any when forced."""
    project = project_of(view, facts, command.project)
    segment = segment_of(view, project, command.segment)
    check_version(segment, command.if_match)
    others = [other for other in view.segments(project.id) if other.id != segment.id]
    flag_keys = {flag.id: flag.key for flag in view.flags(project.id)}
    users = segment_users(segment.key, others, view.project_configs(project.id), flag_keys)
    forced_or_free(users, f"segment {segment.key!r}", force=command.force)
    return Decision(
        action="segment.deleted",
        entity=segment,
        remove=(segment,),
        changes=changes_between(segment, None),
        project_id=project.id,
    )


def _condition(problems: Problems, when: JsonObject | None) -> JsonObject | None:
    return None if when is None else normalised(problems, "when", when)


def check_segment(problems: Problems, segment: Segment, stored: Sequence[Segment]) -> tuple[Notice, ...]:
    """Refuse a segment that cannot be used; return warnings about what it names."""
    check_texts(problems, segment)
    problems.check(INVALID)
    by_key = {other.key: other for other in stored if other.id != segment.id} | {segment.key: segment}
    edges = segment_edges(by_key.values())
    if cycle := cycle_from(segment.key, edges):
        problems.add("when", f"This condition leads back to the segment itself: {' → '.join(cycle)}.")
    elif chain_through(segment.key, edges) > MAX_CHAIN:
        problems.add("when", f"At most {MAX_CHAIN} segments can name each other in a chain.")
    verify_segment(problems, segment)
    problems.check(INVALID)
    unknown = sorted(set(segments_in(segment.when)) - by_key.keys())
    text = "There is no segment {!r} yet; whatever names it is skipped until there is."
    return tuple(Notice(code="missing_segment", detail=text.format(key)) for key in unknown)


def check_texts(problems: Problems, segment: Segment) -> None:
    """Note what is wrong with what people read of a segment."""
    check_name(problems, "name", segment.name)
    check_text(problems, "description", segment.description, limit=TEXT_CHARACTERS)


def verify_segment(problems: Problems, segment: Segment) -> None:
    """Note what a relay would refuse of a segment."""
    try:
        parse_segment(segment.key, orjson.loads(canonical(segment_object(segment, 1))))
    except InvalidConfig as invalid:
        problems.add(invalid.path.removeprefix(f"segments.{segment.key}").lstrip("."), sentence(invalid.reason))
