"""Lets go of what a revision replaced, a little at a time.

A large configuration that nothing of its successor shares is 10,000 flags with their functions; the moment in which its
last reference goes frees all of them, and the event loop stands still for 50 ms. So every replaced object is held here
once more, and these references go in portions. Whoever else still holds the old configuration (a stream that has not
been told yet) only makes this one vain, never wrong.
"""

from collections.abc import Generator, Iterator, Mapping
from itertools import chain
from typing import Any

from relay.sync.configuration import Configuration

_PER_STEP = 64
FEW = 256
"""So many objects are freed in no time."""


def leftovers(before: Configuration, after: Configuration | None) -> list[Any]:
    """Return the flags and chunks of a configuration that its successor, if there is one, has not."""
    flags: Mapping[str, Any] = {} if after is None else after.environment.flags
    chunks = set[int]() if after is None else set(map(id, _chunks(after)))
    return [
        *(flag for key, flag in before.environment.flags.items() if flags.get(key) is not flag),
        *(chunk for chunk in _chunks(before) if id(chunk) not in chunks),
    ]


def _chunks(configuration: Configuration) -> Iterator[Any]:
    return chain(configuration.program.public, configuration.program.private)


def let_go(replaced: list[Any]) -> Generator[None]:
    """Empty the list, pausing (`yield`) after every few objects."""
    while replaced:
        del replaced[-_PER_STEP:]
        yield
