"""The one reader of JSON that comes from outside, on both services.

Answers every malformed document with `BadJson` and a reason that names the place: too deep, NaN, a number beyond
float, a lone surrogate, a byte order mark, UTF-16. On request it refuses what parsers disagree about, too: duplicate
keys and integers beyond 64 bits. Never raises anything else, and never spends more than linear time.
"""

import json
from collections.abc import Iterable
from typing import Any

import orjson

MAX_DEPTH = 32

_ONE_KIND_OF_BRACKET = bytes.maketrans(b"[]", b"{}")
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPEN = ord("{")
_PEELS = 4
_LONG = 512
_INT64_MIN, _UINT64_END = -(1 << 63), 1 << 64
_INT64_DIGITS = 20


class BadJson(ValueError):
    """The document is refused. `position` is the byte (or, inside text, character) offset, where one is known."""

    def __init__(self, reason: str, position: int | None = None) -> None:
        super().__init__(reason if position is None else f"{reason} at position {position}")
        self.reason = reason
        self.position = position


def loads(raw: bytes, *, max_depth: int = MAX_DEPTH, refuse_duplicates: bool = False) -> Any:
    """Parse one JSON document.

    Args:
        raw: UTF-8 without byte order mark.
        max_depth: deepest nesting of arrays and objects that is accepted.
        refuse_duplicates: also refuse duplicate keys in an object and integers beyond 64 bits (management writes).

    Raises:
        BadJson: the document is malformed or refused.
    """
    if _is_deeper(raw, max_depth) and (position := _position_of_depth(raw, max_depth)) is not None:
        raise BadJson(f"nested deeper than {max_depth} levels", position)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _explained(raw, error) from None
    if refuse_duplicates:
        _refuse_ambiguity(raw)
    return value


def _is_deeper(raw: bytes, limit: int) -> bool:
    if raw.count(b"{") + raw.count(b"[") <= limit:
        return False
    structure = _structure(raw)
    # Peeling the innermost pairs off in C leaves little of a usual document for the loop below.
    peeled = 0
    while peeled < min(_PEELS, limit) and len(structure) > _LONG:
        structure = structure.replace(b"{}", b"")
        peeled += 1
    depth = 0
    for byte in structure:
        depth += 1 if byte == _OPEN else -1
        if depth > limit - peeled:
            return True
    return False


def _structure(raw: bytes) -> bytes:
    """Return the brackets that stand outside strings, all written as braces."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(raw.split(b'"')[::2]).translate(_ONE_KIND_OF_BRACKET, _ALL_BUT_BRACKETS)


def _position_of_depth(raw: bytes, limit: int) -> int | None:
    depth, in_string, escaped = 0, False, False
    for position, byte in enumerate(raw):
        if escaped:
            escaped = False
        elif byte == ord("\\"):
            escaped = in_string
        elif byte == ord('"'):
            in_string = not in_string
        elif not in_string and byte in b"[{":
            depth += 1
            if depth > limit:
                return position
        elif not in_string and byte in b"]}":
            depth -= 1
    return None


def _explained(raw: bytes, error: orjson.JSONDecodeError) -> BadJson:
    if not raw.strip():
        return BadJson("the document is empty")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00")) or raw[1:2] == b"\x00":
        return BadJson("the document is not UTF-8 (it looks like UTF-16 or UTF-32)", 0)
    try:
        raw.decode()
    except UnicodeDecodeError as wrong:
        return BadJson("the document is not valid UTF-8", wrong.start)
    return BadJson(error.msg, error.pos)


def _refuse_ambiguity(raw: bytes) -> None:
    """Read a document that is known to be valid and shallow once more with a parser that shows its parts."""
    json.loads(raw, object_pairs_hook=_unique, parse_int=_int64)


def _unique(pairs: Iterable[tuple[str, Any]]) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            raise BadJson(f"duplicate key {_shortened(key)}")
        seen.add(key)


def _int64(digits: str) -> int:
    if len(digits) > _INT64_DIGITS or not _INT64_MIN <= int(digits) < _UINT64_END:
        raise BadJson(f"integer {_shortened(digits)} does not fit into 64 bits")
    return int(digits)


def _shortened(text: str, limit: int = 64) -> str:
    return repr(text if len(text) <= limit else text[:limit] + "…")
