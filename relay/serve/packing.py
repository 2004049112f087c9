"""Gzip for the answers that hold all flags: who is offered it, from what length on, and how it is made.

Said in `[….serve]`. An answer to somebody who is offered it says so by `Vary`, packed or not; whoever asks for it then
gets every answer packed that is long enough. So hot lane and routes agree without knowing what the other has kept.
Answers about one flag, errors and streams are never packed. Packing is done at once, in the event loop, at the lowest
level: it holds the loop up for about as long as making the answer did, or for less.
"""

import zlib
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv6Address, ip_address
from struct import pack
from typing import Final

from starlette.responses import Response

from relay.serve.guard import Scope
from relay.settings import Serve

Peer = tuple[str, int] | None

PEER: Final = "peer"
"""Where a request's state has the other end of its connection, whoever a proxy there says that it speaks for."""
VARY: Final = ("Vary", "Accept-Encoding")
CODED: Final = ("Content-Encoding", "gzip")

_AT_ONCE: Final = 1
_FOR_MANY: Final = 6
_RAW: Final = -zlib.MAX_WBITS
_GZIP: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""The ten bytes before deflated data: no name, no time, no system."""


class Form(StrEnum):
    """What an answer can be: one that nobody is offered packed, or one that varies, as it is or packed."""

    BARE = "bare"
    PLAIN = "plain"
    PACKED = "packed"


class Packing:
    """What the operator has decided."""

    def __init__(self, settings: Serve) -> None:
        self._from_bytes = settings.compress_from_bytes
        self._to_loopback = settings.compress_loopback

    def is_offered(self, peer: Peer) -> bool:
        """Tell whether who is at the other end of a connection may get packed answers."""
        return self._from_bytes > 0 and (self._to_loopback or not _is_here(peer))

    def pays(self, body: bytes) -> bool:
        """Tell whether an answer is long enough."""
        return len(body) >= self._from_bytes

    def answer(self, scope: Scope, body: bytes, etag: str) -> Response:
        """Return the answer of a route, packed if it is to be."""
        headers = dict(self._vary(scope))
        if headers and self.pays(body) and takes_gzip(_accepted(scope)):
            body = _GATHERED.pack(body)
            headers |= [CODED]
        return Response(body, 200, headers | {"ETag": etag}, "application/json")

    def not_modified(self, scope: Scope, etag: str) -> Response:
        """Return the answer of a route to who has it already."""
        return Response(status_code=304, headers={**self._vary(scope), "ETag": etag})

    def _vary(self, scope: Scope) -> Mapping[str, str]:
        return dict([VARY]) if self.is_offered(scope.get("state", {}).get(PEER)) else {}


class Packer:
    """Packs bodies that all begin alike. What they have in common is packed once, and better."""

    def __init__(self, beginning: bytes) -> None:
        deflating = zlib.compressobj(_FOR_MANY, zlib.DEFLATED, _RAW)
        # After a full flush, what follows may be deflated by somebody else.
        self._begun = _GZIP + deflating.compress(beginning) + deflating.flush(zlib.Z_FULL_FLUSH)
        self._checksum = zlib.crc32(beginning)
        self._length = len(beginning)

    def pack(self, body: bytes) -> bytes:
        """Pack a whole body, its beginning included."""
        rest = memoryview(body)[self._length :]
        deflating = zlib.compressobj(_AT_ONCE, zlib.DEFLATED, _RAW)
        end = pack("<II", zlib.crc32(rest, self._checksum), len(body) & 0xFFFF_FFFF)
        return b"".join((self._begun, deflating.compress(rest), deflating.flush(), end))


_GATHERED: Final = Packer(b"")


def takes_gzip(accept_encoding: bytes | None) -> bool:
    """Tell whether `Accept-Encoding` asks for gzip, and does not prefer what is not packed.

    Nothing said is nothing asked for. What cannot be read is not accepted.
    """
    if not accept_encoding:
        return False
    wishes: dict[str, float] = {}
    for each in accept_encoding.decode("latin-1").lower().split(","):
        coding, *parameters = (part.strip() for part in each.split(";"))
        wishes[coding.removeprefix("x-") if coding == "x-gzip" else coding] = _weight(parameters)
    gzip = wishes.get("gzip", wishes.get("*", 0.0))
    return gzip > 0 and gzip >= wishes.get("identity", 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0


def _accepted(scope: Scope) -> bytes | None:
    """Return the field, put together if it stands there more than once."""
    return b",".join(value for name, value in scope["headers"] if name == b"accept-encoding") or None


def _is_here(peer: Peer) -> bool:
    """Tell whether a connection comes from this machine: over the loopback interface or over no network at all."""
    if peer is None:
        return True
    address = ip_address(peer[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback
