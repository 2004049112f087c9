"""Which streams are open: by environment, by key, and how many of each there may be.

Plain indexes with named maxima; every stream is in all of them or in none. Sends nothing and knows no time.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from relay.errors import Problem
from relay.serve.access import Grant
from relay.serve.problems import unavailable
from relay.serve.stream import Stream
from relay.settings import Streams as StreamSettings

SLICE: Final = 256
_RETRY_AFTER_S: Final = 5


class Registry:
    """All open streams of the process."""

    def __init__(self, settings: StreamSettings) -> None:
        self._settings = settings
        self._streams: dict[Stream, None] = {}
        self._by_environment: dict[str, dict[Stream, None]] = {}
        self._by_key: dict[str, dict[Stream, None]] = {}
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._streams)

    def admit(self, key_fingerprint: str) -> None:
        """Make sure that one more stream may be opened with this key.

        Raises:
            Problem: 503 when the process is full or on its way out, 429 when the key has its share; with Retry-After.
        """
        if self.is_closed:
            raise unavailable("draining", "This service is about to stop; connect to another one.", _RETRY_AFTER_S)
        if len(self._streams) >= self._settings.total:
            raise unavailable("too_many_streams", "This service has as many streams as it may.", _RETRY_AFTER_S)
        if len(self._by_key.get(key_fingerprint, ())) >= self._settings.per_key:
            raise Problem(
                429,
                "too_many_streams_of_key",
                f"This key has {self._settings.per_key} open streams, as many as it may.",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )

    def kept(self, grant: Grant) -> Grant:
        """Return what a stream keeps of its grant: one object for all that were opened alike, mostly."""
        kept = grant.kept(grant.terms)
        other = next(reversed(self._by_key.get(grant.fingerprint, {})), None)
        return kept if other is None or other.grant != kept else other.grant

    def add(self, stream: Stream) -> None:
        """Take up a stream that was admitted."""
        self._streams[stream] = None
        for environment_id in stream.environment_ids:
            self._by_environment.setdefault(environment_id, {})[stream] = None
        self._by_key.setdefault(stream.grant.fingerprint, {})[stream] = None

    def discard(self, stream: Stream) -> None:
        """Forget a stream."""
        self._streams.pop(stream, None)
        for environment_id in stream.environment_ids:
            _drop(self._by_environment, environment_id, stream)
        _drop(self._by_key, stream.grant.fingerprint, stream)

    def move(self, stream: Stream, environment_ids: frozenset[str]) -> None:
        """Let a stream be about other environments from now on."""
        for environment_id in stream.environment_ids - environment_ids:
            _drop(self._by_environment, environment_id, stream)
        for environment_id in environment_ids - stream.environment_ids:
            self._by_environment.setdefault(environment_id, {})[stream] = None
        stream.environment_ids = environment_ids

    def all(self) -> tuple[Stream, ...]:
        """Return every stream. May be asked from another thread."""
        return tuple(self._streams)

    def of_environment(self, environment_id: str) -> tuple[Stream, ...]:
        """Return the streams that are about an environment."""
        return tuple(self._by_environment.get(environment_id, ()))

    def of_key(self, key_fingerprint: str) -> tuple[Stream, ...]:
        """Return the streams that were opened with a key."""
        return tuple(self._by_key.get(key_fingerprint, ()))

    def environments(self) -> tuple[str, ...]:
        """Return the ids of the environments that any stream is about."""
        return tuple(self._by_environment)

    def key_fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprints of the keys that have streams."""
        return tuple(self._by_key)

    def counts(self) -> dict[str, int]:
        """Return how many streams of each kind are open. May be asked from another thread."""
        return dict(Counter(stream.kind for stream in self.all()))


def slices(streams: Sequence[Stream]) -> Iterator[Sequence[Stream]]:
    """Cut a long walk into parts between which the event loop shall turn."""
    return (streams[start : start + SLICE] for start in range(0, len(streams), SLICE))


def _drop(index: dict[str, dict[Stream, None]], name: str, stream: Stream) -> None:
    members = index.get(name, {})
    members.pop(stream, None)
    if not members:
        index.pop(name, None)
