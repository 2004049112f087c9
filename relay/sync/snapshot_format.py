"""The bytes of the snapshot file: a recorded change stream with a checksum in front. Pure.

First line: format, length and BLAKE2b of all that follows. Second: whose file it is and when upstream last confirmed
it. Then one `snapshot` event per environment, read back by the code that reads the wire, hash check included. Any byte
lost or changed makes the whole file unusable, with the reason; half of one is never used.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

import orjson

from relay.protocol.changes import Snapshot, State
from relay.protocol.decode import BadMessage, parse_message
from relay.protocol.encode import Audience, snapshot_lines
from relay.protocol.fields import Fields, load
from relay.protocol.sse import EventTooLarge, SseParser, encode_event

_FIRST_LINE = re.compile(rb"halyard-snapshot ([0-9]{1,9}) ([0-9]{1,15}) ([0-9a-f]{64})")
_FIRST_LINE_BYTES = 128
_FORMAT = 1


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
    pieces += [encode_event("snapshot", snapshot_lines(state, "start", Audience.RELAY)) for state in content.states]
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
    body = _checked_body(raw)
    meta, _, events = body.partition(b"\n")
    try:
        fields = Fields(load(meta, "meta"), "meta.")
        if fields.text("tenant") != tenant and tenant is not None:
            raise BadFile("it was written for another upstream or another relay key")
        confirmed_at_ms = fields.integer("confirmed_at_ms") if fields.has("confirmed_at_ms") else None
        covered = frozenset(fields.texts("covered")) if fields.has("covered") else None
        is_all_covered = fields.boolean("complete") if fields.has("complete") else True
        return Content(tuple(_states(events)), confirmed_at_ms, covered, is_all_covered)
    except (BadMessage, EventTooLarge) as error:
        raise BadFile(f"its content is refused: {error}") from None


def _checked_body(raw: bytes) -> bytes:
    first, _, _ = raw[:_FIRST_LINE_BYTES].partition(b"\n")
    header = _FIRST_LINE.fullmatch(first)
    if header is None:
        raise BadFile("it is no snapshot file")
    version, length, digest = int(header[1]), int(header[2]), header[3]
    if version != _FORMAT:
        raise BadFile(f"its format {version} is not understood; this version reads format {_FORMAT}")
    body = raw[len(first) + 1 :]
    if len(body) != length:
        raise BadFile(f"it should have {length} bytes after its first line and has {len(body)}")
    if blake2b(body, digest_size=32).hexdigest().encode() != digest:
        raise BadFile("its checksum is wrong")
    return body


def _states(events: bytes) -> Iterable[State]:
    for event in SseParser(max_event_bytes=len(events) + 1).feed(events):
        message = parse_message(event.event, event.data)
        if isinstance(message, Snapshot):
            yield message.state
