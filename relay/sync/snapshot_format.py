"""The bytes of the snapshot file: a recorded change stream with a checksum in front. Pure.

First line: format, length and BLAKE2b of all that follows. Second: whose file it is and when upstream last confirmed
it. Then one `snapshot` event per environment, read back by the code that reads the wire, hash check included. Any byte
lost or changed makes the whole file unusable, with the reason; half of one is never used.
"""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from relay.engine.steps import finished
from relay.protocol.changes import Snapshot, State
from relay.protocol.decode import BadMessage, decode_steps
from relay.protocol.encode import Audience, snapshot_lines
from relay.protocol.fields import Fields, load
from relay.protocol.sse import EventTooLarge, SseParser, iter_event

_FIRST_LINE = re.compile(rb"halyard-snapshot ([0-9]{1,9}) ([0-9]{1,15}) ([0-9a-f]{64})")
_FIRST_LINE_BYTES = 128
_FORMAT = 1
_PIECE_BYTES = 512 << 10


class BadFile(ValueError):
    """The bytes are no snapshot file that can be used here; the text says why."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a snapshot file holds.

    `confirmed_at_ms` is wall time, None = upstream never confirmed it. `covered` are the environments that should be
    there, which may be more than are; None = upstream had not said. `is_all_covered`: upstream itself knew them all.
    """

    states: tuple[State, ...] = field(repr=False)
    confirmed_at_ms: int | None
    covered: frozenset[str] | None = None
    is_all_covered: bool = True


def tenant_of(upstream_url: str, key_fingerprint: str) -> str:
    """Return what binds a file to one upstream and one relay key, revealing neither."""
    return blake2b(f"{upstream_url.rstrip('/')}\n{key_fingerprint}".encode(), digest_size=16).hexdigest()


def encode_file(tenant: str, content: Content) -> list[bytes]:
    """Return the pieces of a file."""
    covered = None if content.covered is None else sorted(content.covered)
    meta = {
        "tenant": tenant,
        "confirmed_at_ms": content.confirmed_at_ms,
        "covered": covered,
        "complete": content.is_all_covered,
    }
    pieces = [orjson.dumps(meta) + b"\n"]
    for state in content.states:
        pieces += iter_event("snapshot", snapshot_lines(state, "start", Audience.RELAY))
    digest = blake2b(digest_size=32)
    for piece in pieces:
        digest.update(piece)
    length = sum(map(len, pieces))
    return [b"halyard-snapshot %d %d %b\n" % (_FORMAT, length, digest.hexdigest().encode()), *pieces]


def decode_file(raw: bytes, tenant: str | None) -> Content:
    """Read a file back. Whoever may look at it whosever it is gives no tenant.

    Raises:
        BadFile: it is damaged, of another format or another tenant's.
    """
    return finished(decode_file_steps(raw, tenant))


def decode_file_steps(raw: bytes, tenant: str | None) -> Generator[None, None, Content]:
    """Do what `decode_file` does, pausing (`yield`) every millisecond or two."""
    begin = yield from _begin_of_body(raw)
    end = raw.find(b"\n", begin)
    meta, events = (raw[begin:], len(raw)) if end < 0 else (raw[begin:end], end + 1)
    try:
        fields = Fields(load(meta, "meta"), "meta.")
        if fields.text("tenant") != tenant and tenant is not None:
            raise BadFile("it was written for another upstream or another relay key")
        confirmed_at_ms = fields.integer("confirmed_at_ms") if fields.has("confirmed_at_ms") else None
        covered = frozenset(fields.texts("covered")) if fields.has("covered") else None
        is_all_covered = fields.boolean("complete") if fields.has("complete") else True
        states = yield from _states(raw, events)
        return Content(states, confirmed_at_ms, covered, is_all_covered)
    except (BadMessage, EventTooLarge) as error:
        raise BadFile(f"its content is refused: {error}") from None


def _begin_of_body(raw: bytes) -> Generator[None, None, int]:
    """Return where the body begins, once it has been shown to be whole."""
    first, _, _ = raw[:_FIRST_LINE_BYTES].partition(b"\n")
    header = _FIRST_LINE.fullmatch(first)
    if header is None:
        raise BadFile("it is no snapshot file")
    version, length, digest = int(header[1]), int(header[2]), header[3]
    if version != _FORMAT:
        raise BadFile(f"its format {version} is not understood; this version reads format {_FORMAT}")
    begin = len(first) + 1
    found = max(0, len(raw) - begin)
    if found != length:
        raise BadFile(f"it should have {length} bytes after its first line and has {found}")
    counted = blake2b(digest_size=32)
    for piece in _pieces(raw, begin):
        counted.update(piece)
        yield
    if counted.hexdigest().encode() != digest:
        raise BadFile("its checksum is wrong")
    return begin


def _states(raw: bytes, begin: int) -> Generator[None, None, tuple[State, ...]]:
    parser = SseParser(max_event_bytes=len(raw) + 1)
    states: list[State] = []
    for piece in _pieces(raw, begin):
        for event in parser.feed(piece):
            message = yield from decode_steps(event.event, event.lines)
            if isinstance(message, Snapshot):
                states.append(message.state)
        yield
    return tuple(states)


def _pieces(raw: bytes, begin: int) -> Iterator[bytes]:
    return (raw[start : start + _PIECE_BYTES] for start in range(begin, len(raw), _PIECE_BYTES))
