"""Finished answers that may be given again: to the same credential, on the same route, for the same bytes.

The route includes the form: an answer that is kept gzipped is for who takes it so. An answer is kept when it is asked
for the second time within a while, so that contexts that come once cost no memory. It is given again only from the same
configuration and within the slice of time for which it was made. Bounded in number and bytes; the oldest goes first.
"""

from relay.serve.served import Answer, Served

Name = tuple[object, bytes]

_OVERHEAD_BYTES = 400
"""What an answer takes beside its bytes, about."""


class KeptAnswers:
    """The answers of one process."""

    def __init__(self, max_answers: int, max_bytes: int) -> None:
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._answers: dict[Name, tuple[Answer, Served, int, int]] = {}
        self._bytes = 0
        self._met: set[int] = set()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, name: Name, served: Served, now_ms: int) -> Answer | None:
        """Return the answer of that name, if it is of this configuration and of this time."""
        found = self._answers.get(name)
        if found is None:
            return None
        answer, of, since_ms, until_ms = found
        return answer if of is served and since_ms <= now_ms < until_ms else None

    def offer(self, name: Name, answer: Answer, served: Served, now_ms: int) -> None:
        """Keep an answer that was just made, if its name has been met before."""
        met = hash(name)
        if met not in self._met:
            if len(self._met) >= self._max_answers:
                self._met.clear()
            self._met.add(met)
            return
        size = _size(name, answer)
        if size > self._max_bytes // 8:
            return
        if name in self._answers:
            self._drop(name)
        until_ms = served.holds_until_ms(now_ms)
        self._answers[name] = answer, served, served.since_ms, until_ms
        self._bytes += size
        while len(self._answers) > self._max_answers or self._bytes > self._max_bytes:
            self._drop(next(iter(self._answers)))

    def clear(self) -> None:
        """Let go of everything."""
        self._answers = {}
        self._bytes = 0

    def _drop(self, name: Name) -> None:
        self._bytes -= _size(name, self._answers.pop(name)[0])


def _size(name: Name, answer: Answer) -> int:
    return len(name[1]) + len(answer.head) + len(answer.body) + 8 * answer.flags + _OVERHEAD_BYTES
