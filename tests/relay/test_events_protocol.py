"""The shapes and limits of events and counts, and their wire form."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol import events
from relay.protocol.events import (
    CounterRow,
    Event,
    EventRecord,
    InvalidEvents,
    encode_counters,
    encode_event,
    parse_events,
    parse_record,
)

TRACK = {"id": "e1", "type": "track", "name": "purchase", "unit": "user-1"}
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
moments = st.integers(0, 253_402_300_799_999)
tracked = st.builds(
    Event,
    id=texts,
    type=st.just("track"),
    unit=texts,
    name=texts,
    flag=st.none() | texts,
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    at_ms=moments,
    properties=st.none() | st.dictionaries(texts, st.booleans() | texts, max_size=3),
)
rows = st.builds(
    CounterRow,
    environment_id=texts,
    flag_id=texts,
    variation=st.none() | texts,
    reason=st.sampled_from(["SPLIT", "STATIC", "ERROR"]),
    source=st.sampled_from(["single", "bulk"]),
    minute_ms=moments.map(lambda wall_ms: wall_ms // 60_000 * 60_000),
    count=st.integers(1, events.MAX_COUNT),
    error_code=st.none() | st.just("FLAG_NOT_FOUND"),
)


def problems_of(*items: Any) -> dict[str, list[str]]:
    with pytest.raises(InvalidEvents) as caught:
        parse_events({"events": list(items)})
    return dict(caught.value.problems)


def test_a_track_event_with_every_field() -> None:
    """Every documented field is read; the time is taken with its offset."""
    full = {**TRACK, "flag": "f", "value": 3, "at": "2026-11-21T07:30:00.5+01:00", "properties": {"a": [1]}}
    assert parse_events({"events": [full]}) == [
        Event("e1", "track", "user-1", "purchase", "f", 3.0, 1_795_242_600_500, {"a": [1]})
    ]


def test_an_exposure_needs_a_flag_and_no_name() -> None:
    """An exposure names the flag that was seen; a track event names what happened."""
    exposure = {"id": "e1", "type": "exposure", "unit": 7}
    assert parse_events({"events": [{**exposure, "flag": "f"}]}) == [Event("e1", "exposure", "7", flag="f")]
    assert problems_of(exposure) == {"events[0].flag": ["is required"]}
    assert problems_of({**exposure, "type": "track"}) == {"events[0].name": ["is required"]}


def test_null_is_as_good_as_absent() -> None:
    """A member that is null is treated like one that is not there."""
    assert parse_events({"events": [{**TRACK, "value": None, "at": None}]}) == [
        Event("e1", "track", "user-1", name="purchase")
    ]


@pytest.mark.parametrize(
    ("field", "value", "part"),
    [
        ("id", "", "not empty"),
        ("id", "x" * 129, "at most 128"),
        ("id", 5, "text"),
        ("name", "x" * 129, "at most 128"),
        ("name", "a\x00b", "control"),
        ("unit", "x" * 257, "at most 256"),
        ("unit", True, "text"),
        ("unit", 1.5, "text"),
        ("type", "click", "track or exposure"),
        ("type", ["track"], "track or exposure"),
        ("value", "3", "finite number"),
        ("value", True, "finite number"),
        ("value", float("inf"), "finite number"),
        ("at", 1_790_000_000_000, "date-time"),
        ("at", "2026-11-21T07:30:00", "date-time"),
        ("at", "2026-02-30T07:30:00Z", "no moment"),
        ("at", "1969-12-31T23:59:59Z", "1970"),
        ("at", "0001-01-01T00:00:00+23:59", "1970"),
        ("at", "1970-01-01T00:00:00+00:01", "1970"),
        ("at", "9999-12-31T23:59:59-23:59", "9999"),
        ("at", "9999-12-31T23:59:59.999-00:01", "9999"),
        ("properties", [], "object"),
        ("properties", {"a": "x" * 8_192}, "8192 bytes"),
    ],
)
def test_each_wrong_field_is_named(field: str, value: Any, part: str) -> None:
    """A wrong value is reported under its path, with a sentence that says what is right."""
    found = problems_of(TRACK, {**TRACK, field: value})
    assert list(found) == [f"events[1].{field}"]
    assert part in found[f"events[1].{field}"][0]


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59.999999999Z", "1970-01-01T00:00:00Z"])
def test_whatever_moment_is_taken_can_be_written(at: str) -> None:
    """Both ends of the range go through the record and back."""
    (event,) = parse_events({"events": [{**TRACK, "at": at}]})
    assert parse_record(orjson.loads(encode_event("env", event, 0))) == EventRecord("env", event)


def test_all_problems_are_reported_at_once() -> None:
    """Problems of several events and fields come together, unknown fields with the nearest known one."""
    found = problems_of({**TRACK, "nme": 1, "unit": ""}, "text", {**TRACK, "zzz": 1})
    assert list(found) == ["events[0].nme", "events[0].unit", "events[1]", "events[2].zzz"]
    assert found["events[0].nme"] == ["is not a known field; did you mean name?"]
    assert "known are id, type" in found["events[2].zzz"][0]


def test_the_report_is_bounded() -> None:
    """A call that is wrong in a thousand ways gets a short answer."""
    assert len(problems_of(*[{"x" * 1_000: 1}] * 1_000)) == events.MAX_PROBLEMS


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ([], ""),
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": {}}, "events"),
        ({"events": [TRACK] * 1_001}, "events"),
        ({"events": [TRACK], "evnts": 1}, "evnts"),
    ],
)
def test_the_call_itself_is_checked(body: Any, path: str) -> None:
    """The body is an object with one to a thousand events and nothing else."""
    with pytest.raises(InvalidEvents) as caught:
        parse_events(body)
    assert list(caught.value.problems) == [path]


def test_the_error_tells_everything_in_one_line() -> None:
    """The text of the error holds each path and sentence, for logs and for the quarantine."""
    with pytest.raises(InvalidEvents, match=r"^events: must be a list of events$"):
        parse_events({"events": 1})


@given(tracked)
def test_events_survive_the_wire(event: Event) -> None:
    """An event that is encoded, sent as JSON and read again is the same event."""
    record = parse_record(orjson.loads(encode_event("env", event, 0)))
    assert record == EventRecord("env", event)


@given(rows)
def test_counts_survive_the_wire(row: CounterRow) -> None:
    """A row of counts that is encoded, sent as JSON and read again is the same row."""
    assert parse_record(orjson.loads(encode_counters(row))) == row


def test_an_event_without_a_time_gets_the_moment_of_receipt() -> None:
    """The relay that took the event says when, if the sender did not."""
    record = parse_record(orjson.loads(encode_event("env", Event("e", "track", "u", name="n"), 1_500)))
    assert isinstance(record, EventRecord)
    assert record.event.at_ms == 1_500


def test_a_record_of_a_newer_relay_may_have_more_fields() -> None:
    """Unknown fields of a record are ignored, so that a relay may be newer than the authority."""
    record = {"kind": "event", "environment": "env", **TRACK, "later": 1}
    assert parse_record(record) == EventRecord("env", Event("e1", "track", "user-1", name="purchase"))


COUNTERS = {
    "kind": "counters", "environment": "env", "flag": "f", "reason": "SPLIT", "source": "single",
    "minute": "2026-11-21T06:30:00.000Z", "count": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("record", "path"),
    [
        ([], "kind"),
        ({"kind": "sketch"}, "kind"),
        ({"kind": "event", **TRACK}, "environment"),
        ({"kind": "event", "environment": "env", **TRACK, "unit": ""}, "event.unit"),
        ({**COUNTERS, "count": 0}, "count"),
        ({**COUNTERS, "count": True}, "count"),
        ({**COUNTERS, "count": None}, "count"),
        ({**COUNTERS, "reason": "not a word"}, "reason"),
    ],
)
def test_wrong_records_are_refused(record: Any, path: str) -> None:
    """A record of an unknown kind, or with a missing or wrong field, is refused with the path."""
    with pytest.raises(InvalidEvents) as caught:
        parse_record(record)
    assert list(caught.value.problems) == [path]
