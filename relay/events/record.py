"""How records lie in a spool file, and how they are found again in damaged bytes. Pure.

    record = magic (4) · body length (4) · body CRC (4) · wall clock in ms (8) · CRC of these 20 bytes (4) · body

All integers are big-endian. The magic contains a byte that no UTF-8 text has, so a body can never be taken for a
header. A header is believed only if its own CRC holds: then its length is true even if the body is damaged, and
reading goes on behind it; else the next believable header is searched for.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\xffHR\x01"
_FIELDS = struct.Struct(">4sIIQ")
_HEADER = struct.Struct(">4sIIQI")
_CRC = struct.Struct(">I")
HEADER_BYTES = _HEADER.size


class Good(NamedTuple):
    """A whole record at `start`; the next one begins at `end`."""

    start: int
    end: int
    at_ms: int
    body: bytes


class Bad(NamedTuple):
    """Bytes from `start` to `end` that are no record: damaged."""

    start: int
    end: int


class Torn(NamedTuple):
    """From `start` on, the beginning of a record whose rest is missing: never acknowledged, or not read far enough."""

    start: int


def encode(body: bytes, at_ms: int) -> bytes:
    """Return the record of `body`."""
    fields = _FIELDS.pack(MAGIC, len(body), zlib.crc32(body), at_ms)
    return b"".join((fields, _CRC.pack(zlib.crc32(fields)), body))


def header_at(data: bytes, offset: int) -> tuple[int, int, int] | None:
    """Return (body length, body CRC, wall clock in ms) if there is a believable header at `offset`."""
    if len(data) - offset < HEADER_BYTES:
        return None
    magic, length, body_crc, at_ms, crc = _HEADER.unpack_from(data, offset)
    if magic != MAGIC or crc != zlib.crc32(data[offset : offset + _FIELDS.size]):
        return None
    return length, body_crc, at_ms


def scan(data: bytes) -> Iterator[Good | Bad | Torn]:
    """Yield everything in `data`, in order and without a hole; at most one `Torn`, at the end."""
    offset = 0
    while offset < len(data):
        header = header_at(data, offset)
        if header is None:
            following = _next_header(data, offset)
            if following == len(data) and _may_begin_header(data, offset):
                yield Torn(offset)
                return
            yield Bad(offset, following)
            offset = following
            continue
        length, body_crc, at_ms = header
        end = offset + HEADER_BYTES + length
        if end > len(data):
            yield Torn(offset)
            return
        body = data[offset + HEADER_BYTES : end]
        yield Good(offset, end, at_ms, body) if zlib.crc32(body) == body_crc else Bad(offset, end)
        offset = end


def _next_header(data: bytes, bad: int) -> int:
    """Return where the next believable (or cut) header behind `bad` begins, or the end of `data`."""
    offset = bad
    while (offset := data.find(MAGIC, offset + 1)) >= 0:
        if header_at(data, offset) is not None:
            return offset
    return len(data)


def _may_begin_header(data: bytes, offset: int) -> bool:
    rest = data[offset:]
    return len(rest) < HEADER_BYTES and rest[: len(MAGIC)] == MAGIC[: len(rest)]
