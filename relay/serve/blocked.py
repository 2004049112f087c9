"""Clients that do not take what was written to them: since when, how much waits for them, and whose time is over.

What waits is memory of this process, so its sum is the budget that decides whether another stream may begin. Knows no
time but what it is told; cuts nobody.
"""

from typing import Final

from relay.serve.stream import Stream

_PROGRESS_BYTES: Final = 16 << 10
"""Who takes so much within the deadline gets another one: a long frame on a thin line is no reason to begin anew."""


class Blocked:
    """All of them. `waiting_bytes` is what was written to them and not taken when they were last looked at."""

    def __init__(self, deadline_s: float) -> None:
        self.waiting_bytes = 0
        self._deadline_s = deadline_s
        self._since: dict[Stream, tuple[float, int]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, stream: Stream, now_s: float, waiting_bytes: int) -> None:
        """Give a client its deadline."""
        self.discard(stream)
        self._since[stream] = now_s, waiting_bytes
        self.waiting_bytes += waiting_bytes

    def discard(self, stream: Stream) -> None:
        """Forget a client, who has taken everything or has gone."""
        found = self._since.pop(stream, None)
        if found is not None:
            self.waiting_bytes -= found[1]

    def overdue(self, now_s: float) -> list[Stream]:
        """Return whose deadline is over, all of whom are forgotten; who has come on gets another."""
        late = [
            (stream, size) for stream, (since_s, size) in self._since.items() if now_s - since_s >= self._deadline_s
        ]
        stuck = []
        for stream, size in late:
            self.discard(stream)
            left = stream.waiting_bytes
            if left and size - left >= _PROGRESS_BYTES:
                self.add(stream, now_s, left)
            else:
                stuck.append(stream)
        return stuck
