"""Reads the values that operators compare: numbers, versions, moments, networks. None means that it is no such thing.

The same readers serve configured values, once at parse time, and attributes of a context, at evaluation: so both sides
of a comparison follow one grammar. Lengths are bounded, as a context comes from anybody.
"""

import ipaddress
import math
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

MAX_NUMBER_LENGTH = 64
MAX_VERSION_LENGTH = 256
MAX_VERSIONS_KEPT = 1_024
"""Versions that are remembered once read: clients have few, and reading one takes as long as a whole evaluation."""

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NUMERIC = r"0|[1-9][0-9]*"
_IDENTIFIER = rf"(?:{_NUMERIC}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v?({_NUMERIC})(?:\.({_NUMERIC}))?(?:\.({_NUMERIC}))?"
    rf"(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
)
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LEAP_SECOND = 60

Version = tuple[int, int, int, tuple[Any, ...]]
Address = tuple[int, int]
"""IP version and the address as a number."""
Network = tuple[int, int, int]
"""IP version, network address, mask."""


def number(value: Any) -> int | float | None:
    """Read a finite number, or a string that is exactly one JSON number: no blanks, no `inf`, nothing becomes 0."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = _numeral(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _numeral(text: str) -> int | float | None:
    parts = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_LENGTH else None
    if parts is None:
        return None
    return int(text) if parts[1] is None and parts[2] is None else float(text)


def version(value: Any) -> Version | None:
    """Read a version into a tuple that sorts by SemVer 2.0 precedence.

    A leading `v` is dropped, missing parts are 0, build metadata does not count.
    """
    return _version(value) if isinstance(value, str) and len(value) <= MAX_VERSION_LENGTH else None


@lru_cache(maxsize=MAX_VERSIONS_KEPT)
def _version(text: str) -> Version | None:
    parts = _VERSION.fullmatch(text)
    if parts is None:
        return None
    major, minor, patch, prerelease = parts.groups("")
    return int(major), int(minor or 0), int(patch or 0), _precedence(prerelease)


def _precedence(prerelease: str) -> tuple[Any, ...]:
    if not prerelease:
        return (1,)  # a release comes after all of its pre-releases
    return (0, *((0, int(part), "") if part.isdigit() else (1, 0, part) for part in prerelease.split(".")))


def moment_ms(value: Any) -> int | float | None:
    """Read an RFC 3339 date-time with its offset, or a number of epoch milliseconds. Finer digits are cut."""
    if not isinstance(value, str):
        return number(value)
    parts = _MOMENT.fullmatch(value)
    if parts is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in parts.groups()[:6])
    if second > _LEAP_SECOND:
        return None
    try:
        start = datetime(year, month, day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    offset_min = int(parts[9] or 0) * 60 + int(parts[10] or 0)
    seconds = round((start - _EPOCH).total_seconds()) + second - offset_min * (-60 if parts[8] == "-" else 60)
    return seconds * 1000 + int((parts[7] or "")[:3].ljust(3, "0"))


def address(value: Any) -> Address | None:
    """Read an IPv4 or IPv6 address; an IPv4 address inside IPv6 (`::ffff:10.0.0.1`) is the IPv4 one."""
    if not isinstance(value, str):
        return None
    try:
        read = ipaddress.ip_address(value)
    except ValueError:
        return None
    mapped = read.ipv4_mapped if isinstance(read, ipaddress.IPv6Address) else None
    return (4, int(mapped)) if mapped is not None else (read.version, int(read))


def network(value: Any) -> Network | None:
    """Read a network in CIDR notation, or one address. Host bits are ignored."""
    if not isinstance(value, str):
        return None
    try:
        read = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
    start, mask = int(read.network_address), int(read.netmask)
    if isinstance(read, ipaddress.IPv6Network) and read.prefixlen >= _MAPPED_PREFIX and start >> 32 == _MAPPED:
        return 4, start & _IPV4_MASK, mask & _IPV4_MASK
    return read.version, start, mask


_MAPPED_PREFIX = 96
_MAPPED = 0xFFFF
_IPV4_MASK = 0xFFFF_FFFF
