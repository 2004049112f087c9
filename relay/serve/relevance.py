"""Which flags a change may have touched, and when two answers are the same to a client.

Pure. Asked once per change, and costs what the change costs; `relay.serve.update` then asks for each client.
"""

from collections.abc import Generator, Mapping
from typing import Any

import orjson

from relay.engine.model import Environment, Evaluation, Flag, Segment
from relay.engine.steps import finished


def touched_flags(before: Environment, after: Environment) -> frozenset[str]:
    """Return every flag whose evaluation may differ between two revisions of an environment.

    These are the flags that changed, those with a rule on a segment that changed, those that share an exclusion group
    with one of them, and those that have one of them as a prerequisite, over any number of steps.
    """
    return finished(touched_steps(before, after))


def touched_steps(before: Environment, after: Environment) -> Generator[None, None, frozenset[str]]:
    """Do what `touched_flags` does, pausing (`yield`) between two looks at all flags."""
    if before is after:
        return frozenset()
    touched = _differing(before.flags, after.flags)
    yield
    if before.segments is not after.segments:
        segments = _segments_around(_differing(before.segments, after.segments), (before, after))
        for environment in (before, after):
            touched |= {key for key, named in environment.segmented.items() if not segments.isdisjoint(named)}
            yield
    return (yield from _with_dependents(touched, (before, after)))


def timed_flags(environment: Environment) -> frozenset[str]:
    """Return every flag whose evaluation may change merely because time passes."""
    return finished(_with_dependents(set(environment.ramps), (environment,)))


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[str]:
    # Revisions share what did not change, so identity tells, at 20 ns an object.
    return {key for key in before.keys() | after.keys() if before.get(key) is not after.get(key)}


def _segments_around(changed: set[str], environments: tuple[Environment, ...]) -> set[str]:
    """Return the changed segments and all that refer to them, over any number of steps."""
    segments: list[tuple[str, Segment]] = [
        item for environment in environments for item in environment.segments.items()
    ]
    while more := {key for key, segment in segments if not changed.isdisjoint(segment.needs.segments)} - changed:
        changed |= more
    return changed


def _with_dependents(touched: set[str], environments: tuple[Environment, ...]) -> Generator[None, None, frozenset[str]]:
    members = [group for environment in environments for group in environment.groups.values()]
    chained = [item for environment in environments for item in environment.chained.items()]
    while True:
        more = {key for key, needed in chained if not touched.isdisjoint(needed)}
        yield
        more = more.union(*(group for group in members if not touched.isdisjoint(group))) - touched
        if not more:
            return frozenset(touched)
        touched |= more


def is_visible(flag: Flag | None, *, client_side_only: bool) -> bool:
    """Tell whether a flag exists for a client."""
    return flag is not None and (flag.client_side or not client_side_only)


def same_answer(before: Evaluation, after: Evaluation) -> bool:
    """Tell whether two evaluations give a client the same variation and value. Type counts: `true` is not 1."""
    if before is after:
        return True
    if before.variation != after.variation or type(before.value) is not type(after.value):
        return False
    if isinstance(after.value, dict | list):
        return orjson.dumps(before.value) == orjson.dumps(after.value)
    return bool(before.value == after.value)
