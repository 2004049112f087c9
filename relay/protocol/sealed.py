"""The frame of binary values on the wire: a letter for the kind, a version, the body, and the CRC-32 of all that.

A value that was cut, changed on the way or written by a newer version is told from a sound one before anything of it is
used. Also owns the variable-length integers that bodies are written in (LEB128). Pure.
"""

from zlib import crc32

_CRC_BYTES = 4
_FRAME_BYTES = 2 + _CRC_BYTES
_MAX_BITS = 63


class BadBytes(ValueError):
    """The bytes are not what they should be; the text says why."""


def seal(kind: bytes, version: int, body: bytes) -> bytes:
    """Return a body in its frame. The kind is one byte, the version 0..255."""
    framed = kind + bytes((version,)) + body
    return framed + crc32(framed).to_bytes(_CRC_BYTES, "big")


def unseal(name: str, kind: bytes, version: int, raw: bytes, *, most: int) -> bytes:
    """Return the body of a frame. `name` is what the value is called in errors, `most` the longest body allowed.

    Raises:
        BadBytes: the frame is cut, changed, of another kind or version, or too long.
    """
    if len(raw) > most + _FRAME_BYTES:
        raise BadBytes(f"{name} has {len(raw)} bytes, more than the {most + _FRAME_BYTES} that one can have")
    if len(raw) < _FRAME_BYTES:
        raise BadBytes(f"{name} is cut off: it has {len(raw)} bytes")
    if raw[:1] != kind:
        raise BadBytes(f"{name} must begin with {kind!r}, and begins with {raw[:1]!r}")
    if crc32(raw[:-_CRC_BYTES]) != int.from_bytes(raw[-_CRC_BYTES:], "big"):
        raise BadBytes(f"{name} was changed or cut on its way: its checksum is wrong")
    if raw[1] != version:
        raise BadBytes(f"{name} has version {raw[1]}, and this reader knows version {version}")
    return raw[2:-_CRC_BYTES]


def write_number(number: int) -> bytes:
    """Return a number from 0 to 2^63 - 1 in seven bits a byte, the lowest first."""
    parts = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - the seven bits
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def read_numbers(name: str, body: bytes) -> list[int]:
    """Return all numbers of a body.

    Raises:
        BadBytes: the last one is cut, or one is too large.
    """
    numbers, number, shift = [], 0, 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        if number >> _MAX_BITS or shift > _MAX_BITS:
            raise BadBytes(f"{name} holds a number above 2^63 - 1")
        if byte & 0x80:
            shift += 7
        else:
            numbers.append(number)
            number, shift = 0, 0
    if shift:
        raise BadBytes(f"{name} ends inside a number")
    return numbers
