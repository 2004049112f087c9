"""What is ready of an environment's answers: the bytes of each answer object, and how often each was given.

The engine gives equal answers as the same object, and hashes it by what it is and not by what it says: so the object
is the key to its bytes and to its row in the counts. All of it lives until there is too much, and then is given up at
once, counts first. Whatever is written here, is written by the functions that the plain routes use.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from relay.engine.model import Evaluation, Flag, Reason
from relay.events.counters import Counters, Key
from relay.serve.answers import Source
from relay.sync.configuration import Configuration

MAX_REPEATS: Final = 1_000
"""Whole answers with a count of their own between two flushes; their flags are counted one by one beyond."""

T = TypeVar("T")
Write = Callable[[Configuration, Flag, Evaluation], T]


class Pieces(dict[Evaluation, T]):
    """What is written of each answer in one shape for one kind of client.

    It holds for later revisions too, except where an answer names another flag (a prerequisite) that the client may
    or may not see, or where `of_one_revision` says so of all.
    """

    def __init__(self, write: Write[T], *, of_one_revision: bool) -> None:
        super().__init__()
        self._write = write
        self._is_of_one_revision = of_one_revision
        self._passing: list[Evaluation] = []

    def add(self, configuration: Configuration, flag: Flag, evaluation: Evaluation) -> T:
        """Write what is lacking."""
        written = self[evaluation] = self._write(configuration, flag, evaluation)
        if evaluation.reason == Reason.PREREQUISITE_FAILED:
            self._passing.append(evaluation)
        return written

    def begin_revision(self) -> None:
        """Forget what the next revision may tell otherwise of the same answers."""
        if self._is_of_one_revision:
            self.clear()
        for evaluation in self._passing:
            self.pop(evaluation, None)
        self._passing = []


class Repeated:
    """The answers of one request that is answered again as a whole."""

    __slots__ = ("answers", "times")

    def __init__(self, answers: Sequence[Evaluation]) -> None:
        self.answers = answers
        self.times = 0


NOTHING: Final = Repeated(())


class Sums:
    """How often each answer was given in one way of asking since the last flush."""

    __slots__ = ("counters", "each", "repeated", "rows", "source")

    def __init__(self, source: Source, counters: Counters) -> None:
        self.source = source
        self.counters = counters
        self.each: Counter[Evaluation] = Counter()
        self.repeated: list[Repeated] = []
        self.rows = 0

    def count(self, answer: Evaluation) -> None:
        """Count one answer."""
        each = self.each
        n = each.get(answer)
        if n is None:
            self.counters.begin()
            each[answer] = 1
            self._note_rows()
        else:
            each[answer] = n + 1

    def count_all(self, answers: Iterable[Evaluation]) -> None:
        """Count the answers of one request."""
        each = self.each
        if not each:
            self.counters.begin()
        each.update(answers)
        if len(each) > self.rows:
            self._note_rows()

    def repeat(self, repeated: Repeated) -> None:
        """Count all answers of a request once more, by one addition."""
        if not repeated.answers:
            return
        if not repeated.times:
            self.counters.begin()
            if len(self.repeated) >= MAX_REPEATS:
                self._resolve()
            self.repeated.append(repeated)
        repeated.times += 1

    def take(self) -> Mapping[Evaluation, int]:
        """Return the sums and begin anew."""
        self._resolve()
        taken, self.each, self.rows = self.each, Counter(), 0
        return taken

    def _resolve(self) -> None:
        each = self.each
        for repeated in self.repeated:
            for answer in repeated.answers:
                each[answer] += repeated.times
            repeated.times = 0
        self.repeated = []

    def _note_rows(self) -> None:
        self.rows = len(self.each)
        self.counters.note_rows(self.rows)


class Prepared:
    """Everything that is ready of one environment; a `Teller` of its counts."""

    def __init__(self, environment_id: str, counters: Counters) -> None:
        self._environment_id = environment_id
        self._flags: dict[Evaluation, Flag] = {}
        self._pieces: dict[object, Pieces[Any]] = {}
        self.single = Sums("single", counters)
        self.bulk = Sums("bulk", counters)
        self._counters = counters
        counters.attach(self)

    def __len__(self) -> int:
        return len(self._flags)

    @property
    def rows(self) -> int:
        """How many answers have a count; see `relay.events.counters.Teller`."""
        return len(self.single.each) + len(self.bulk.each)

    def pieces(self, shape: object, write: Write[T], *, of_one_revision: bool = False) -> Pieces[T]:
        """Return the pieces of one shape. `write` makes what is lacking, and is the same whenever the shape is."""
        found = self._pieces.get(shape)
        if found is None:
            found = self._pieces[shape] = Pieces(write, of_one_revision=of_one_revision)
        return found

    def add(self, pieces: Pieces[T], configuration: Configuration, flag: Flag, evaluation: Evaluation) -> T:
        """Make the piece of an answer. From now on it may be counted."""
        self._flags[evaluation] = flag
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
        for found, n in sums.take().items():
            flag = self._flags[found]
            if flag.analytics:
                key = self._environment_id, flag.id, found.variation, found.reason, sums.source, found.error_code
                yield key, n
