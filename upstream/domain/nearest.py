"""What is said of a name that is not known: the known one that is nearest to it, or all of them.

Pure, and the one place for it, so that every level of a body is answered alike. Long names are looked at and shown in
their beginning only.
"""

from collections.abc import Collection
from difflib import get_close_matches
from typing import Final

SHOWN_NAME: Final = 64
_CUTOFF: Final = 0.5


def no_such_field(name: str, known: Collection[str]) -> str:
    """Return the sentence about a member that an object does not have."""
    return f"There is no such field; {hint(name, known)}"


def hint(name: str, known: Collection[str]) -> str:
    """Return the end of a sentence about an unknown name."""
    near = get_close_matches(name[:SHOWN_NAME], known, n=1, cutoff=_CUTOFF)
    return f"did you mean {near[0]!r}?" if near else f"known here are: {', '.join(sorted(known))}."
