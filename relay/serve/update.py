"""One pass over the streams of an environment: what is true now, and what that means to each client.

A client hears of a change exactly if a value of its own is another one now: what the change may have touched is
evaluated again with the configuration and the moment that the client was told last, so nobody's values need to be
remembered. Contexts that agree in all that a change depends on are evaluated once for all of them, and clients that
are answered the same share one `Outcome`, which is encoded once. Evaluates; sends nothing.
"""

from collections.abc import Generator, Mapping
from enum import Enum
from typing import Any, Final, Literal

from relay.engine.context import UNIT, attribute, lookup
from relay.engine.dependencies import depends_on
from relay.engine.evaluate import next_change_at
from relay.engine.model import Attribute, Environment, Evaluation
from relay.engine.program import Program
from relay.engine.steps import finished
from relay.serve.access import Grant
from relay.serve.answers import Context
from relay.serve.kept_context import KeptContext
from relay.serve.outcome import Outcome
from relay.serve.relevance import is_visible, same_answer, timed_flags, touched_steps
from relay.sync.configuration import Configuration

_TOLD_APART_AT_MOST: Final = 64
"""Flags whose dependencies are worked out for one change; a larger one is evaluated for every client."""
_REMEMBERED: Final = 1_024
_REMEMBERED_ANSWERS: Final = 100_000
"""Answers in all outcomes that are remembered for other clients; each takes some hundred bytes until the pass ends."""
SMALL: Final = 256
"""Flags that are evaluated for a client at once; more are evaluated in steps."""
_COMPARED_PER_STEP: Final = 512
_PARTED_PER_STEP: Final = 1_024


class _Unknown(Enum):
    UNKNOWN = "unknown"


UNKNOWN: Final = _Unknown.UNKNOWN
"""What an update means is not known yet; None, that it means nothing."""


class Update:
    """One pass.

    Args:
        after: the configuration that every stream shall have been told of after this pass.
        now_ms: the moment for which it is evaluated.
    """

    def __init__(self, after: Configuration, now_ms: int) -> None:
        self.after = after
        self.now_ms = now_ms
        self.outcomes: dict[tuple[object, ...], Outcome] = {}
        self.answers = 0
        # Times of the past from which on no ramp has taken a step until now, and up to which one has.
        self._still_since_ms = now_ms
        self._moved_until_ms = -1
        self._views: dict[tuple[int, bool, bool], View] = {}
        self.coalesced = 0
        self._latest: tuple[Configuration, Grant, bool, View] | None = None

    def view(self, seen: Configuration, grant: Grant, seen_ms: int) -> "View":
        """Return how this looks to clients that were told of `seen` at that time and have this grant."""
        is_moved = not self._still_since_ms <= seen_ms <= self.now_ms and self._has_moved(seen_ms)
        latest = self._latest
        if latest is not None and latest[0] is seen and latest[1] is grant and latest[2] is is_moved:
            return latest[3]
        found = self._found(seen, grant, is_moved=is_moved) or finished(self._built(seen, grant, is_moved=is_moved))
        self._latest = seen, grant, is_moved, found
        return found

    def prepare(
        self, seen: Configuration, grant: Grant, seen_ms: int, context: KeptContext
    ) -> Generator[None, None, "Outcome | None"] | None:
        """Return the steps in which what this means to a client is worked out and kept for `view(…).outcome(…)`.

        None where that takes no time to speak of. A pure function of what never changes is worked out ahead, so it does
        not matter what happens to the client meanwhile: whoever is asked for another answer than the one kept works
        it out at once.
        """
        if len(self.after.environment.flags) <= SMALL and len(seen.environment.flags) <= SMALL:
            return None
        is_moved = self._has_moved(seen_ms)
        found = self._found(seen, grant, is_moved=is_moved)
        if found is not None and not found.is_large:
            return None
        return self._prepared(seen, grant, seen_ms, context, is_moved=is_moved)

    def _prepared(
        self, seen: Configuration, grant: Grant, seen_ms: int, context: KeptContext, *, is_moved: bool
    ) -> Generator[None, None, "Outcome | None"]:
        found = self._found(seen, grant, is_moved=is_moved)
        if found is None:
            found = yield from self._built(seen, grant, is_moved=is_moved)
        return (yield from found.prepare(seen_ms, context)) if found.is_large else None

    def _found(self, seen: Configuration, grant: Grant, *, is_moved: bool) -> "View | None":
        # Nearly every stream has seen the same revision, so a view is worked out about once. It holds the program, or
        # its id might come to name another one.
        return self._views.get((id(seen.program), grant.client_side_only, is_moved))

    def _built(self, seen: Configuration, grant: Grant, *, is_moved: bool) -> Generator[None, None, "View"]:
        before, after = seen.program.environment, self.after.environment
        touched = yield from touched_steps(before, after)
        if is_moved:
            touched |= timed_flags(after)
        parts = yield from _parted(touched, before, after, client_side_only=grant.client_side_only)
        found = View(self, seen.program, *parts)
        self._views[id(seen.program), grant.client_side_only, is_moved] = found
        return found

    def _has_moved(self, seen_ms: int) -> bool:
        """Tell whether a ramp has taken a step since then; a clock that was set back may have undone one."""
        if not self.after.environment.ramps or self._still_since_ms <= seen_ms <= self.now_ms:
            return False
        if seen_ms > self.now_ms or seen_ms <= self._moved_until_ms:
            return True
        step_ms = next_change_at(self.after.environment, seen_ms)
        if step_ms is not None and step_ms <= self.now_ms:
            self._moved_until_ms = seen_ms
            return True
        self._still_since_ms = seen_ms
        return False

    def settle(self) -> None:
        """End the pass: what is told of it later on is counted one by one."""
        finished(self.settle_steps())

    def settle_steps(self) -> Generator[None]:
        """Do what `settle` does, pausing (`yield`) after each outcome; what is left over is left for `settle`."""
        for outcome in tuple(self.outcomes.values()):
            outcome.settle()
            yield


class View:
    """An update in the eyes of all clients that have seen the same program with the same kind of key."""

    def __init__(self, update: Update, seen: Program, kept: list[str], new: list[str], gone: frozenset[str]) -> None:
        self._update = update
        self._seen = seen
        self._kept = kept
        self._new = new
        self._gone = gone
        self.is_large = len(kept) + len(new) > SMALL
        self._ahead: tuple[int, KeptContext, Outcome | None] | None = None
        self.may_concern = bool(self._kept or self._new or self._gone)
        self._is_timed = False
        self._attributes = self._attributes_of((seen.environment, update.after.environment))
        self._remembered: dict[tuple[object, ...], Outcome | None] = {}
        self.to_all: Outcome | Literal[_Unknown.UNKNOWN] | None = UNKNOWN if self.may_concern else None
        """The one answer to every context, once it is known that there is only one."""

    def outcome(self, seen_ms: int, context: KeptContext) -> Outcome | None:
        """Return what it means to a client that was told of `seen_ms` last."""
        known = self.to_all
        if known is not UNKNOWN:
            return known
        ahead = self._ahead
        if ahead is not None and ahead[1] is context and ahead[0] == seen_ms:
            return ahead[2]
        attributes = self._attributes
        name = None if attributes is None else values_of(context.parsed(), attributes)
        if name is None:
            return self._worked_out(seen_ms, context.parsed())
        if self._is_timed:
            name = (seen_ms, *name)
        found = self._remembered.get(name, UNKNOWN)
        if found is UNKNOWN:
            found = self._worked_out(seen_ms, context.parsed())
            if not name:
                self.to_all = found
            elif len(self._remembered) < _REMEMBERED:
                self._remembered[name] = found
        return found

    def _attributes_of(self, environments: tuple[Environment, Environment]) -> tuple[Attribute, ...] | None:
        """Return what the touched flags depend on; None where every client is one of its own."""
        keys = [*self._kept, *self._new]
        if len(keys) > _TOLD_APART_AT_MOST:
            return None
        paths: set[str] = set()
        for environment in environments:
            for key in keys:
                found = depends_on(environment, key)
                paths |= found.attributes
                self._is_timed = self._is_timed or bool(found.ramps)
        return None if UNIT in paths else tuple(map(attribute, sorted(paths)))

    def prepare(self, seen_ms: int, context: KeptContext) -> Generator[None, None, Outcome | None]:
        """Work an outcome out and keep it, in the place of the one before."""
        outcome = yield from self._worked_out_steps(seen_ms, context.parsed())
        self._ahead = seen_ms, context, outcome
        return outcome

    def _worked_out(self, seen_ms: int, context: Context) -> Outcome | None:
        return finished(self._worked_out_steps(seen_ms, context))

    def _worked_out_steps(self, seen_ms: int, context: Context) -> Generator[None, None, Outcome | None]:
        after, now_ms = self._update.after.program, self._update.now_ms
        was = yield from self._seen.evaluate_some_steps(self._kept, context, seen_ms)
        now = yield from after.evaluate_some_steps([*self._kept, *self._new], context, now_ms)
        evaluations = {}
        for number, (key, answer) in enumerate(now.items(), 1):
            if key not in was or not same_answer(was[key], answer):
                evaluations[key] = answer
            if not number % _COMPARED_PER_STEP:
                yield
        return self._shared(evaluations) if evaluations or self._gone else None

    def _shared(self, evaluations: dict[str, Evaluation]) -> Outcome:
        # The engine gives equal answers as the same object, so identities name them; the outcome keeps them alive.
        update, outcomes = self._update, self._update.outcomes
        name = (self._gone, *evaluations, *map(id, evaluations.values()))
        found = outcomes.get(name)
        if found is None:
            found = Outcome(update.after, evaluations, self._gone)
            size = len(evaluations) + len(self._gone)
            if len(outcomes) < _REMEMBERED and update.answers + size <= _REMEMBERED_ANSWERS:
                update.answers += size
                outcomes[name] = found
            else:
                found.settle()  # nobody would do it for one that is not kept
        return found


def _parted(
    touched: frozenset[str], before: Environment, after: Environment, *, client_side_only: bool
) -> Generator[None, None, tuple[list[str], list[str], frozenset[str]]]:
    """Return which of the touched flags clients go on to see, see for the first time, and see no more."""
    kept, new, gone = list[str](), list[str](), list[str]()
    for number, key in enumerate(touched, 1):
        was_visible = is_visible(before.flags.get(key), client_side_only=client_side_only)
        if is_visible(after.flags.get(key), client_side_only=client_side_only):
            (kept if was_visible else new).append(key)
        elif was_visible:
            gone.append(key)
        if not number % _PARTED_PER_STEP:
            yield
    return kept, new, frozenset(gone)


def values_of(context: Mapping[str, Any], attributes: tuple[Attribute, ...]) -> tuple[object, ...] | None:
    """Return what tells contexts apart that differ in one of these; None if that would cost more than it saves."""
    values: list[object] = []
    for each in attributes:
        value = lookup(context, each)  # type: ignore[arg-type]  # reads only
        if value is None or type(value) is str:
            values.append(value)
        elif isinstance(value, bool | int | float):
            # As text and with its type: 1, 1.0 and true are equal to Python and not to a rule.
            values.append((type(value).__name__, repr(value)))
        else:
            return None
    return tuple(values)
