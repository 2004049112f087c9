"""Events and counts on their way from an application to the authority: the shapes, their limits, the wire form.

Owns what a `track` call may say (`parse_events`) and the records that a relay forwards, one JSON object per line
(`encode_event`, `encode_counters`, `parse_record`). Whatever is wrong with a call is reported at once, each problem
under its path. Records come from a relay that may be newer than their reader: their unknown fields are ignored, their
unknown kinds are not. Pure: the moment of receipt comes in as an argument.
"""

import difflib
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from relay.protocol.moments import moment_ms, moment_text

MAX_EVENTS = 1_000
MAX_ID = 128
MAX_NAME = 128
MAX_UNIT = 256
MAX_PROPERTIES_BYTES = 8 * 1_024
MAX_COUNT = 2**40
MAX_PROBLEMS = 50
"""Problems reported for one call; a call that is wrong in more ways is not worth a longer answer."""

TYPES = ("track", "exposure")
FIELDS = ("id", "type", "name", "flag", "unit", "value", "at", "properties")
MINUTE_MS = 60_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_Reader = Callable[[Any], Any]


class InvalidEvents(ValueError):
    """The call or record is refused as a whole. `problems` maps a path such as `events[3].unit` to sentences."""

    def __init__(self, problems: Mapping[str, list[str]]) -> None:
        super().__init__("; ".join(f"{path}: {sentence}" for path, found in problems.items() for sentence in found))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one unit: a conversion (`track`) or the sight of an experiment (`exposure`).

    `id` is the sender's, unique in its environment, and makes repeats harmless. `flag` is a flag key. `at_ms` is None
    when the sender gave no time; the moment of receipt takes its place.
    """

    id: str
    type: str
    unit: str
    name: str | None = None
    flag: str | None = None
    value: float | None = None
    at_ms: int | None = None
    properties: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event with the environment that it belongs to, as forwarded."""

    environment_id: str
    event: Event


@dataclass(frozen=True, slots=True)
class CounterRow:
    """How often a flag was evaluated with one result in one minute. `flag_id` is the id: a key can be used anew."""

    environment_id: str
    flag_id: str
    variation: str | None
    reason: str
    source: str
    minute_ms: int
    count: int
    error_code: str | None = None


class _Problems:
    """Collects what is wrong, up to `MAX_PROBLEMS`."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, path: str, sentence: str) -> None:
        if len(self.found) < MAX_PROBLEMS:
            self.found.setdefault(path, []).append(sentence)

    def check(self) -> None:
        if self.found:
            raise InvalidEvents(self.found)


def parse_events(body: Any, *, max_events: int = MAX_EVENTS) -> list[Event]:
    """Read the body of a `track` call, `{"events": […]}`.

    Raises:
        InvalidEvents: with every problem of every event.
    """
    problems = _Problems()
    if not isinstance(body, dict):
        raise InvalidEvents({"": ["must be an object with the member events"]})
    _refuse_unknown(body, ("events",), "", problems)
    events = body.get("events")
    if not isinstance(events, list):
        problems.add("events", "must be a list of events")
    elif not 1 <= len(events) <= max_events:
        problems.add("events", f"must hold 1 to {max_events} events, not {len(events)}")
    else:
        parsed = [_event(item, f"events[{index}]", problems) for index, item in enumerate(events)]
        problems.check()
        return [event for event in parsed if event is not None]
    raise InvalidEvents(problems.found)


def _refuse_unknown(item: Mapping[str, Any], known: Iterable[str], path: str, problems: _Problems) -> None:
    for name in item.keys() - set(known):
        # Comparing costs the product of both lengths, and the caller chose one of them.
        nearest = difflib.get_close_matches(name[:MAX_NAME], known, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
        problems.add(f"{path}.{name[:MAX_NAME]}" if path else name[:MAX_NAME], f"is not a known field; {hint}")


def _event(item: Any, path: str, problems: _Problems, *, is_strict: bool = True) -> Event | None:
    """Read one event; None stands for one whose problems have been noted."""
    if not isinstance(item, dict):
        problems.add(path, "must be an object")
        return None
    if is_strict and not item.keys() <= _KNOWN:
        _refuse_unknown(item, FIELDS, path, problems)
    needed = ("id", "type", "unit", "flag" if item.get("type") == "exposure" else "name")
    read = _fields(item, _EVENT_READERS, needed, f"{path}.", problems)
    if problems.found:
        return None
    return Event(at_ms=read.pop("at", None), **read)


def _fields(
    item: Mapping[str, Any], readers: Mapping[str, _Reader], needed: Container[str], path: str, problems: _Problems
) -> dict[str, Any]:
    """Return the members that `readers` could read; null is as good as absent."""
    read = {}
    for name, reader in readers.items():
        value = item.get(name)
        if value is None:
            if name in needed:
                problems.add(path + name, "is required")
            continue
        try:
            read[name] = reader(value)
        except ValueError as error:
            problems.add(path + name, str(error))
    return read


def _type(value: Any) -> str:
    if not isinstance(value, str) or value not in TYPES:
        raise ValueError("must be track or exposure")
    return value


def _text(longest: int) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("must be a text that is not empty")
        if len(value) > longest:
            raise ValueError(f"must have at most {longest} characters, not {len(value)}")
        if _CONTROL.search(value):
            raise ValueError("must not contain control characters")
        return value

    return read


def _unit(value: Any) -> str:
    """Read a unit as evaluation reads a targeting key: an integer counts as its decimal digits."""
    return _read_unit_text(str(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a finite number")
    return float(value)


def _date_time(value: Any) -> int:
    return moment_ms(value if isinstance(value, str) else "")


def _properties(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - a fact about the input, collected with the others
    size = len(orjson.dumps(value))
    if size > MAX_PROPERTIES_BYTES:
        raise ValueError(f"must have at most {MAX_PROPERTIES_BYTES} bytes as JSON, not {size}")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise ValueError(f"must be an integer from 1 to {MAX_COUNT}")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError("must be a word of letters, digits and underscores")
    return value


_read_unit_text = _text(MAX_UNIT)
_KNOWN = frozenset(FIELDS)
_EVENT_READERS: Mapping[str, _Reader] = {
    "type": _type,
    "id": _text(MAX_ID),
    "unit": _unit,
    "name": _text(MAX_NAME),
    "flag": _text(MAX_NAME),
    "value": _number,
    "at": _date_time,
    "properties": _properties,
}
_ENVIRONMENT_READER: Mapping[str, _Reader] = {"environment": _text(MAX_ID)}
_COUNTER_READERS: Mapping[str, _Reader] = {
    **_ENVIRONMENT_READER,
    "flag": _text(MAX_ID),
    "variation": _text(MAX_NAME),
    "reason": _word,
    "source": _word,
    "minute": _date_time,
    "count": _count,
    "error_code": _word,
}
_COUNTER_NEEDED = ("environment", "flag", "reason", "source", "minute", "count")


def encode_event(environment_id: str, event: Event, received_ms: int) -> bytes:
    """Return the record of an event: one line of JSON, without the line's end."""
    members = {
        "kind": "event",
        "environment": environment_id,
        "id": event.id,
        "type": event.type,
        "unit": event.unit,
        "at": moment_text(received_ms if event.at_ms is None else event.at_ms),
    }
    optional = {"name": event.name, "flag": event.flag, "value": event.value, "properties": event.properties}
    return orjson.dumps(members | {name: value for name, value in optional.items() if value is not None})


def encode_counters(row: CounterRow) -> bytes:
    """Return the record of one row of counts: one line of JSON, without the line's end."""
    members: dict[str, Any] = {
        "kind": "counters",
        "environment": row.environment_id,
        "flag": row.flag_id,
        "reason": row.reason,
        "source": row.source,
        "minute": moment_text(row.minute_ms),
        "count": row.count,
    }
    optional = {"variation": row.variation, "error_code": row.error_code}
    return orjson.dumps(members | {name: value for name, value in optional.items() if value is not None})


def parse_record(record: Any) -> EventRecord | CounterRow:
    """Read what `encode_event` or `encode_counters` wrote.

    Raises:
        InvalidEvents: the record has a kind that is not known, or a field that is missing or wrong.
    """
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind == "event":
        return _event_record(record)
    if kind == "counters":
        return _counter_row(record)
    raise InvalidEvents({"kind": ["must be event or counters"]})


def _event_record(record: Mapping[str, Any]) -> EventRecord:
    problems = _Problems()
    event = _event(record, "event", problems, is_strict=False)
    read = _fields(record, _ENVIRONMENT_READER, ("environment",), "", problems)
    problems.check()
    assert event is not None  # noqa: S101 - else a problem was noted
    return EventRecord(read["environment"], event)


def _counter_row(record: Mapping[str, Any]) -> CounterRow:
    problems = _Problems()
    read = _fields(record, _COUNTER_READERS, _COUNTER_NEEDED, "", problems)
    problems.check()
    return CounterRow(
        environment_id=read["environment"],
        flag_id=read["flag"],
        variation=read.get("variation"),
        reason=read["reason"],
        source=read["source"],
        minute_ms=read["minute"] // MINUTE_MS * MINUTE_MS,
        count=read["count"],
        error_code=read.get("error_code"),
    )
