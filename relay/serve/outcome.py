"""What a change means to clients: the flags that have another value for them, and those that are gone.

One object for all clients that it means the same to, encoded once. What was told of it is counted once for all of
them, when the pass that made it ends.
"""

from collections.abc import Callable, Generator, Mapping

from relay.engine.model import Evaluation
from relay.engine.steps import finished
from relay.serve.answers import Ledger
from relay.sync.configuration import Configuration

Encode = Callable[[Configuration, Mapping[str, Evaluation], frozenset[str]], Generator[None, None, bytes]]


class Owed:
    """What a client lacks: the keys of flags that have another value, and of flags that are gone."""

    __slots__ = ("dirty", "gone")

    def __init__(self, dirty: frozenset[str], gone: frozenset[str]) -> None:
        self.dirty = dirty
        self.gone = gone

    def followed_by(self, later: "Owed") -> "Owed":
        """Return what a client lacks that was sent neither: the newest of each flag, never both."""
        return Owed((self.dirty | later.dirty) - later.gone, (self.gone - later.dirty) | later.gone)


class Outcome(Owed):
    """What one change means to every client that it means the same to; at least one flag is dirty or gone."""

    __slots__ = ("_frame", "_ledger", "_told", "configuration", "evaluations", "is_settled")

    def __init__(
        self, configuration: Configuration, evaluations: Mapping[str, Evaluation], gone: frozenset[str]
    ) -> None:
        super().__init__(frozenset(evaluations), gone)
        self.configuration = configuration
        self.evaluations = evaluations
        self.is_settled = False
        self._frame: bytes | None = None
        self._ledger: Ledger | None = None
        self._told = 0

    def frame(self, ledger: Ledger, encode: Encode) -> bytes:
        """Return the bytes that tell one client of it, encoded for the first, and count what they answer."""
        if self.is_settled:
            ledger.enter(self.configuration, self.evaluations, "stream")
        else:
            self._ledger = ledger
            self._told += 1
        if self._frame is None:
            self._frame = finished(encode(self.configuration, self.evaluations, self.gone))
        return self._frame

    def encode_steps(self, encode: Encode) -> Generator[None]:
        """Encode it before somebody is told, pausing (`yield`) as `encode` does."""
        if self._frame is None:
            self._frame = yield from encode(self.configuration, self.evaluations, self.gone)

    def settle(self) -> None:
        """Enter into the ledger what was told since the beginning, at once for all clients."""
        if self._ledger is not None and not self.is_settled:
            self._ledger.enter(self.configuration, self.evaluations, "stream", self._told)
        self.is_settled = True
