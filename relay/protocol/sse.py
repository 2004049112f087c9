"""Server-Sent Events, read incrementally and written.

`SseParser` follows the WHATWG algorithm at any split of the bytes: CR, LF and CRLF end a line, one byte order mark at
the start is dropped, an id with NUL is ignored, and an event that the connection's end cuts off is never delivered.
Data stays bytes and stays in its lines, so that a snapshot can be parsed in slices. Memory is bounded by
`max_event_bytes`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"
_RETRY_DIGITS = 9  # longer than a week is no reconnection time


class EventTooLarge(ValueError):
    """One event exceeds the limit. The parser is of no use afterwards; close the connection."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an event is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One dispatched event; `id` is the stream's last event id at that moment."""

    event: str
    lines: tuple[bytes, ...]
    id: str = ""

    @property
    def data(self) -> bytes:
        """The data as one text, its lines joined by LF."""
        return b"\n".join(self.lines)


class SseParser:
    """Turns the bytes of one connection into events.

    Attributes:
        last_event_id: id of the last whole event.
        retry_ms: the last reconnection time that the server named, or None.
        field_bytes: how many bytes of fields (no comments, no blank lines) have come so far; grows while a large
            event is still on its way, so that it can be told from a silent connection.
    """

    def __init__(self, max_event_bytes: int = 64 << 20) -> None:
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.field_bytes = 0
        self._limit = max_event_bytes
        self._head: bytes | None = b""  # the first bytes, until they are known to be a byte order mark or not
        self._skip_lf = False
        self._pending: list[bytes] = []  # pieces of a line whose end has not come
        self._event_bytes = 0
        self._event = ""
        self._lines: list[bytes] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes and return the events that they complete.

        Raises:
            EventTooLarge: an event exceeds `max_event_bytes`.
        """
        if self._head is not None:
            chunk = self._strip_bom(self._head + chunk)
        if self._skip_lf:
            chunk = chunk.removeprefix(b"\n")
            self._skip_lf = not chunk and self._skip_lf
        events: list[SseEvent] = []
        for line in chunk.splitlines(keepends=True):
            self._take(line, events)
        if chunk:
            # A CR that ends a chunk may be half of a CRLF; only the next chunk tells.
            self._skip_lf = chunk.endswith(b"\r")
        return events

    def _strip_bom(self, head: bytes) -> bytes:
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        self._count(line)
        if line[-1] not in b"\r\n":
            self._pending.append(line)
            return
        if self._pending:
            self._pending.append(line)
            line = b"".join(self._pending)
            self._pending.clear()
        if line.startswith(b":"):
            # Comments keep idle streams open for hours; they must not add up to an event that is too large.
            self._event_bytes -= len(line)
            return
        line = line.rstrip(b"\r\n")
        if line:
            self._field(line)
        else:
            self._dispatch(events)

    def _count(self, piece: bytes) -> None:
        start = self._pending[0] if self._pending else piece
        if not start.startswith((b":", b"\r", b"\n")):
            self.field_bytes += len(piece)
        self._event_bytes += len(piece)
        if self._event_bytes > self._limit:
            raise EventTooLarge(self._limit)

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._lines.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS:
            self.retry_ms = int(value)

    def _dispatch(self, events: list[SseEvent]) -> None:
        self.last_event_id = self._id
        if self._lines:
            events.append(SseEvent(self._event or "message", tuple(self._lines), self._id))
        self._event = ""
        self._lines = []
        self._event_bytes = 0


def encode_event(
    event: str | None,
    data_lines: Iterable[bytes],
    *,
    event_id: str | None = None,
    retry_ms: int | None = None,
) -> bytes:
    """Return one whole event as it goes over the wire."""
    return b"".join(iter_event(event, data_lines, event_id=event_id, retry_ms=retry_ms))


def iter_event(
    event: str | None,
    data_lines: Iterable[bytes],
    *,
    event_id: str | None = None,
    retry_ms: int | None = None,
) -> Iterator[bytes]:
    """Yield one event in pieces, one per data line, so that a large one need not exist in one piece.

    The id comes last: a client that takes it up at once, and not with the whole event, must not skip what was cut.

    Raises:
        ValueError: a name, id or data line would end its line early and forge another field.
    """
    if retry_ms is not None:
        yield b"retry: %d\n" % retry_ms
    if event is not None:
        yield b"event: %b\n" % _one_line(event.encode())
    for line in data_lines:
        yield b"data: %b\n" % _one_line(line)
    yield b"\n" if event_id is None else b"id: %b\n\n" % _one_line(event_id.encode())


def _one_line(value: bytes) -> bytes:
    if b"\n" in value or b"\r" in value:
        raise ValueError("a field of a server-sent event cannot hold a line break")
    return value
