"""Server-Sent Events: read at any split of the bytes, written so that nothing can be forged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.sse import EventTooLarge, SseEvent, SseParser, encode_event, iter_event

TRANSCRIPT = (
    "event: changes\ndata: {}\nid: 1.e1.x\n\n"
    ": a comment\n\n"
    "data: first\ndata:second\ndata\ndata:  two spaces\n\n"
    "id: kept\nretry: 2500\n\n"
    "event: naïve 🏴\ndata: ü\n\n"
)
EVENTS = [
    SseEvent("changes", (b"{}",), "1.e1.x"),
    SseEvent("message", (b"first", b"second", b"", b" two spaces"), "1.e1.x"),
    SseEvent("naïve 🏴", ("ü".encode(),), "kept"),
]


def read(raw: bytes, sizes: list[int], parser: SseParser | None = None) -> list[SseEvent]:
    parser, events, position = parser or SseParser(), [], 0
    for size in sizes:
        events += parser.feed(raw[position : position + size])
        position += size
    return events + parser.feed(raw[position:])


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"])
def test_split_at_every_byte(ending: bytes, bom: bytes) -> None:
    """Every line ending, with and without byte order mark, cut in two anywhere or fed byte by byte, reads the same."""
    raw = bom + TRANSCRIPT.encode().replace(b"\n", ending)
    for place in range(len(raw) + 1):
        assert read(raw, [place]) == EVENTS
    assert read(raw, [1] * len(raw)) == EVENTS


@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data", b":", b" ", b"x", b"id", b"\0"])),
    st.lists(st.integers(0, 5)),
)
def test_any_split_reads_as_one_piece(tokens: list[bytes], sizes: list[int]) -> None:
    """How the network cuts the bytes never changes what is read, mixed and odd line endings included."""
    raw = b"".join(tokens)
    assert read(raw, sizes) == read(raw, [])


def test_data_is_the_lines_joined() -> None:
    """Several data lines are one text."""
    assert EVENTS[1].data == b"first\nsecond\n\n two spaces"


def test_an_event_that_is_cut_off_is_never_delivered() -> None:
    """Without the blank line there is no event, and its id is not taken up either."""
    parser = SseParser()
    assert parser.feed(b"data: {}\nid: 7\n") == []
    assert parser.last_event_id == ""
    assert parser.feed(b"\n") == [SseEvent("message", (b"{}",), "7")]
    assert parser.last_event_id == "7"


def test_id_with_nul_is_ignored() -> None:
    """An id with NUL leaves the last id in place."""
    assert SseParser().feed(b"id: a\ndata: 1\n\nid: b\0\ndata: 2\n\n")[1].id == "a"


@pytest.mark.parametrize(
    ("value", "retry_ms"), [(b"2500", 2500), (b"", None), (b"-1", None), (b"1.5", None), (b"9" * 5000, None)]
)
def test_retry_takes_digits_only(value: bytes, retry_ms: int | None) -> None:
    """A reconnection time is a number of milliseconds of a sane length, or it is not there."""
    parser = SseParser()
    parser.feed(b"retry: %b\n" % value)
    assert parser.retry_ms == retry_ms


def test_a_bom_is_dropped_only_at_the_start() -> None:
    """Elsewhere, the mark belongs to the field's name, which is then not known."""
    assert SseParser().feed(b"data: 1\n\n\xef\xbb\xbfdata: 2\n\n") == [SseEvent("message", (b"1",))]


@pytest.mark.parametrize(
    "raw", [b"data: " + b"x" * 100, b"data: x\n" * 20, b":" + b"x" * 100, b"id:" + b"x" * 100 + b"\n"]
)
@pytest.mark.parametrize("chunk_bytes", [7, 1000])
def test_an_event_beyond_the_limit_is_refused(raw: bytes, chunk_bytes: int) -> None:
    """Neither a line nor an event nor a comment that does not end can fill the memory."""
    sizes = [chunk_bytes] * (len(raw) // chunk_bytes)
    with pytest.raises(EventTooLarge, match="larger than 99 bytes"):
        read(raw, sizes, SseParser(max_event_bytes=99))


def test_comments_can_go_on_forever() -> None:
    """Comments that keep an idle stream open never add up to an event that is too large, and count as no field."""
    parser = SseParser(max_event_bytes=99)
    for _ in range(1_000):
        parser.feed(b": ping\n\n:\n")
    assert parser.field_bytes == 0
    parser.feed(b"data: 1\n")
    assert parser.field_bytes == 8


def test_written_events_are_read_back() -> None:
    """The encoder's output is what the parser understands, the id last."""
    raw = encode_event("snapshot", [b"{", b"}"], event_id="t", retry_ms=1000)
    assert raw == b"retry: 1000\nevent: snapshot\ndata: {\ndata: }\nid: t\n\n"
    assert SseParser().feed(raw) == [SseEvent("snapshot", (b"{", b"}"), "t")]
    assert encode_event(None, [b"1"]) == b"data: 1\n\n"


def test_a_large_event_is_written_in_pieces() -> None:
    """One piece per line, so that a server can wait between them."""
    assert list(iter_event("e", [b"1", b"2"])) == [b"event: e\n", b"data: 1\n", b"data: 2\n", b"\n"]


@pytest.mark.parametrize("bad", ["a\nb", "a\rb"])
def test_line_breaks_cannot_forge_fields(bad: str) -> None:
    """A line break in a name, an id or a data line is an error of the caller, never another field on the wire."""
    for event, lines, event_id in [(bad, [], None), ("e", [bad.encode()], None), ("e", [], bad)]:
        with pytest.raises(ValueError, match="line break"):
            encode_event(event, lines, event_id=event_id)
