"""What of an environment has to be read to answer for one flag: the flags and segments that its answer depends on.

An environment may have ten thousand flags, and parsing one takes far longer than evaluating it. Works on published
objects as canonical bytes, and gives the engine an environment that answers for that one flag as the whole would.
"""

from collections.abc import Iterable, Mapping

import orjson

from relay.engine import model
from relay.engine.environment import assemble
from relay.engine.parse import parse_flag, parse_segment
from upstream.domain.entities import Environment, Project

Objects = Mapping[str, bytes]


def environment_for(  # noqa: PLR0913 - each of them is needed
    flag: str, project: Project, environment: Environment, revision: int, *, flags: Objects, segments: Objects
) -> model.Environment:
    """Return the part of an environment that decides what `flag` serves.

    Raises:
        InvalidConfig: an object is of a form that this version does not read.
    """
    read = _flags_for(flag, flags)
    return assemble(
        environment_id=environment.id,
        key=environment.key,
        project_id=project.id,
        project_key=project.key,
        revision=revision,
        flags=read,
        segments=_segments_for(read.values(), segments),
    )


def _flags_for(flag: str, flags: Objects) -> dict[str, model.Flag]:
    """Return the flag, what it requires, and those that it shares a group with; and what these require, and so on."""
    read: dict[str, model.Flag] = {}
    groups: set[str] = set()
    waiting = [flag]
    while waiting:
        key = waiting.pop()
        if key in read or key not in flags:
            continue
        read[key] = parse_flag(key, orjson.loads(flags[key]))
        waiting += [prerequisite.flag for prerequisite in read[key].prerequisites]
        group = read[key].group
        if group is not None and group.name not in groups:
            groups.add(group.name)
            # Objects are canonical, so that membership stands in them in one form only; a text that looks like it
            # adds a flag that changes nothing.
            stands = b'"group":' + orjson.dumps(group.name)
            waiting += [other for other, raw in flags.items() if stands in raw]
    return read


def _segments_for(flags: Iterable[model.Flag], segments: Objects) -> dict[str, model.Segment]:
    read: dict[str, model.Segment] = {}
    waiting = [key for flag in flags for rule in flag.rules for key in rule.needs.segments]
    while waiting:
        key = waiting.pop()
        if key not in read and key in segments:
            read[key] = parse_segment(key, orjson.loads(segments[key]))
            waiting += read[key].needs.segments
    return read
