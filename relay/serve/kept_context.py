"""The evaluation context that a stream holds for as long as it lives, at the least cost in memory.

Parsed JSON takes up to twenty times the room of its text, and a public key may open thousands of streams. So there is
a largest context, and only a small one is kept parsed, ready for the next change; any other is kept as its text.
"""

from typing import Final

import orjson

from relay.errors import Problem
from relay.serve.answers import Context

_SMALL_BYTES: Final = 512


class KeptContext:
    """One stream's context.

    Raises:
        Problem: 413, it is longer than `largest_bytes` as JSON without spaces.
    """

    __slots__ = ("_kept",)

    def __init__(self, context: Context, largest_bytes: int) -> None:
        text = orjson.dumps(context)
        if len(text) > largest_bytes:
            raise Problem(
                413,
                "context_too_long",
                f"A stream's context may have {largest_bytes} bytes as JSON without spaces; this one has {len(text)}.",
            )
        self._kept: Context | bytes = context if len(text) <= _SMALL_BYTES else text

    def parsed(self) -> Context:
        """Return the context; hold it no longer than it takes to evaluate."""
        if isinstance(self._kept, bytes):
            context: Context = orjson.loads(self._kept)
            return context
        return self._kept
