"""What is ready of an environment's answers: the bytes of each answer object, and how often each was given.

The engine gives equal answers as the same object, so an object's identity names its bytes and its row in the counts.
Every object that is named is kept beside its name, or the identity could pass on to another one. All of it lives until
there is too much, and then is given up at once, counts first. Whatever is made here, is made by the functions that the
plain routes use.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from relay.engine.model import Evaluation, Flag, Reason
from relay.events.counters import Counters, Key
from relay.serve.answers import Source
from relay.sync.configuration import Configuration

MAX_REPEATS: Final = 1_000
"""Whole answers with a count of their own between two flushes; their flags are counted one by one beyond."""

T = TypeVar("T")
Write = Callable[[Configuration, Flag, Evaluation], T]


class Pieces(dict[int, T]):
    """What is written of each answer, by its identity, in one shape for one kind of client.

    It holds for later revisions too, except where an answer names another flag (a prerequisite) that the client may
    or may not see, or where `of_one_revision` says so of all.
    """

    def __init__(self, write: Write[T], *, of_one_revision: bool) -> None:
        super().__init__()
        self._write = write
        self._is_of_one_revision = of_one_revision
        self._passing: list[int] = []

    def add(self, configuration: Configuration, flag: Flag, evaluation: Evaluation) -> T:
        """Write what is lacking."""
        name = id(evaluation)
        written = self[name] = self._write(configuration, flag, evaluation)
        if evaluation.reason == Reason.PREREQUISITE_FAILED:
            self._passing.append(name)
        return written

    def begin_revision(self) -> None:
        """Forget what the next revision may tell otherwise of the same answers."""
        if self._is_of_one_revision:
            self.clear()
        for name in self._passing:
            self.pop(name, None)
        self._passing = []


class Repeated:
    """The answers of one request, by identity, that are given again as a whole."""

    __slots__ = ("names", "times")

    def __init__(self, names: Sequence[int]) -> None:
        self.names = names
        self.times = 0


class Sums:
    """How often each answer was given in one way of asking since the last flush."""

    __slots__ = ("counters", "each", "repeated", "rows", "source")

    def __init__(self, source: Source, counters: Counters) -> None:
        self.source = source
        self.counters = counters
        self.each: Counter[int] = Counter()
        self.repeated: list[Repeated] = []
        self.rows = 0

    def count(self, name: int) -> None:
        """Count one answer."""
        each = self.each
        n = each.get(name)
        if n is None:
            self.counters.begin()
            each[name] = 1
            self._note_rows()
        else:
            each[name] = n + 1

    def count_all(self, names: Iterable[int]) -> None:
        """Count the answers of one request."""
        each = self.each
        if not each:
            self.counters.begin()
        each.update(names)
        if len(each) > self.rows:
            self._note_rows()

    def repeat(self, answers: Repeated) -> None:
        """Count all answers of a request once more, by one addition."""
        if not answers.times:
            self.counters.begin()
            if len(self.repeated) >= MAX_REPEATS:
                self._resolve()
            self.repeated.append(answers)
        answers.times += 1

    def take(self) -> dict[int, int]:
        """Return the sums and begin anew."""
        self._resolve()
        taken, self.each, self.rows = self.each, Counter(), 0
        return taken

    def _resolve(self) -> None:
        each = self.each
        for answers in self.repeated:
            for name in answers.names:
                each[name] += answers.times
            answers.times = 0
        self.repeated = []

    def _note_rows(self) -> None:
        self.rows = len(self.each)
        self.counters.note_rows(self.rows)


class Prepared:
    """Everything that is ready of one environment; a `Teller` of its counts."""

    def __init__(self, environment_id: str, counters: Counters) -> None:
        self._environment_id = environment_id
        self._known: dict[int, tuple[Flag, Evaluation]] = {}
        self._pieces: dict[object, Pieces[Any]] = {}
        self.single = Sums("single", counters)
        self.bulk = Sums("bulk", counters)
        self._counters = counters
        counters.attach(self)

    def __len__(self) -> int:
        return len(self._known)

    def pieces(self, shape: object, write: Write[T], *, of_one_revision: bool = False) -> Pieces[T]:
        """Return the pieces of one shape. `write` makes what is lacking, and is the same whenever the shape is."""
        found = self._pieces.get(shape)
        if found is None:
            found = self._pieces[shape] = Pieces(write, of_one_revision=of_one_revision)
        return found

    def add(self, pieces: Pieces[T], configuration: Configuration, flag: Flag, evaluation: Evaluation) -> T:
        """Make the piece of an answer. From now on it may be counted by its identity."""
        self._known[id(evaluation)] = (flag, evaluation)
        return pieces.add(configuration, flag, evaluation)

    def begin_revision(self) -> None:
        """Go on with another revision of the environment."""
        for pieces in self._pieces.values():
            pieces.begin_revision()

    def close(self) -> None:
        """Hand over the last counts; nothing may be counted after that."""
        self._counters.detach(self)

    def take(self) -> Iterable[tuple[Key, int]]:
        """Return the sums by row; see `relay.events.counters.Teller`."""
        return [*self._rows(self.single), *self._rows(self.bulk)]

    def _rows(self, sums: Sums) -> Iterable[tuple[Key, int]]:
        for name, n in sums.take().items():
            flag, found = self._known[name]
            if flag.analytics:
                key = self._environment_id, flag.id, found.variation, found.reason, sums.source, found.error_code
                yield key, n
