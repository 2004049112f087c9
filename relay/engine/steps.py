"""Work in steps: generators that pause wherever whoever runs them may do something else in between.

A step is a few milliseconds at most. The result is what the generator returns. Whether there is a pause, and how long,
is the caller's business; nothing here knows a clock or an event loop.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def finished(steps: Generator[None, None, T]) -> T:
    """Run all steps at once and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
