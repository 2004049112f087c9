"""Which flags a change may have touched, and whether one of them now answers a context differently.

Pure. The first question is asked once per change and costs what the change costs; only what it names is evaluated
again for each client, with the configuration and the moment that the client was told last. So a client hears of a
change exactly if a value of its own is another one now, and no client's values need to be remembered.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from relay.engine.model import Environment, Evaluation, Flag, Segment
from relay.engine.program import Program
from relay.sync.configuration import Configuration

COMPILED_AT_MOST = 8
"""Flags that one client's turn may compile; each takes a fraction of a millisecond, mostly."""


def touched_flags(before: Environment, after: Environment) -> frozenset[str]:
    """Return every flag whose evaluation may differ between two revisions of an environment.

    These are the flags that changed, those with a rule on a segment that changed, those that share an exclusion group
    with one of them, and those that have one of them as a prerequisite, over any number of steps.
    """
    if before is after:
        return frozenset()
    touched = _differing(before.flags, after.flags)
    if before.segments is not after.segments:
        segments = _segments_around(_differing(before.segments, after.segments), (before, after))
        touched |= {
            key
            for environment in (before, after)
            for key, named in environment.segmented.items()
            if not segments.isdisjoint(named)
        }
    return _with_dependents(touched, (before, after))


def timed_flags(environment: Environment) -> frozenset[str]:
    """Return every flag whose evaluation may change merely because time passes."""
    return _with_dependents(set(environment.ramps), (environment,)) if environment.ramps else frozenset()


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


def _with_dependents(touched: set[str], environments: tuple[Environment, ...]) -> frozenset[str]:
    members = [group for environment in environments for group in environment.groups.values()]
    chained = [item for environment in environments for item in environment.chained.items()]
    while True:
        more = {key for key, needed in chained if not touched.isdisjoint(needed)}
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


class Update:
    """One pass over the streams of an environment: what is true now, and what that can mean to whom.

    Args:
        after: the configuration that every stream shall have been told of after this pass.
        now_ms: the moment for which it is evaluated.
    """

    def __init__(self, after: Configuration, now_ms: int) -> None:
        self.after = after
        self.now_ms = now_ms
        self._timed = timed_flags(after.environment)
        self._touched: dict[int, tuple[Environment, frozenset[str]]] = {}

    def candidates(self, seen: Environment) -> frozenset[str]:
        """Return the flags that may answer otherwise than they did under `seen`."""
        # Nearly every stream has seen the same revision, so this is worked out about once. The environment is kept
        # beside the answer, or its id might come to name another one.
        found = self._touched.get(id(seen))
        if found is None:
            touched = touched_flags(seen, self.after.environment)
            found = self._touched[id(seen)] = (seen, touched | self._timed)
        return found[1]

    def changed(
        self, seen: Program, seen_ms: int, context: Mapping[str, Any] | None, *, client_side_only: bool
    ) -> set[str]:
        """Return the flags that answer this context otherwise now than under `seen` at `seen_ms`.

        Without a context (it was too large to be kept) every visible candidate counts.
        """
        after, candidates = self.after.program, self.candidates(seen.environment)
        changed, kept = set(), []
        for key in candidates:
            old, new = seen.environment.flags.get(key), after.environment.flags.get(key)
            was_visible = is_visible(old, client_side_only=client_side_only)
            visible = is_visible(new, client_side_only=client_side_only)
            if was_visible != visible or (visible and context is None):
                changed.add(key)
            elif visible:
                kept.append(key)
        was, now = seen.evaluate_some(kept, context, seen_ms), after.evaluate_some(kept, context, self.now_ms)
        return changed | {key for key in kept if not same_answer(was[key], now[key])}
