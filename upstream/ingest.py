"""Stores what relays forward: events once each, counts added up by the hour, a batch never twice.

One transaction stores the events, the counts and the id of the batch; a batch whose id is known is answered as a
duplicate and has no effect, so a relay may send again whatever it did not see confirmed. A batch is taken whole or not
at all. Also the way in for events and counts that the upstream's own evaluation plane takes, without a batch.
"""

import asyncio
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from relay.clock import Clock
from relay.errors import Problem
from relay.events.disk import SpoolFull
from relay.events.intake import Accepted
from relay.metrics import RelayMetrics
from relay.protocol.events import CounterRow, Event, EventRecord, InvalidEvents, parse_record
from relay.protocol.strict_json import BadJson, loads
from relay.serve.problems import unavailable
from upstream.domain.entities import Credential, Environment
from upstream.storage import tables
from upstream.storage.database import Database
from upstream.storage.errors import Unavailable
from upstream.storage.records import columns, find, made

HOUR_MS = 3_600_000
MAX_RECORDS = 10_000
GZIP = 31
"""zlib's name for "a gzip header and trailer must be there"."""

Record = EventRecord | CounterRow


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a batch comes from. `batch_id` is the same whenever the relay sends the batch again."""

    batch_id: str
    credential_id: str
    relay_id: str | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch: `events` were stored, `duplicates` were there already, `counters` rows were added up."""

    status: Literal["accepted", "duplicate"]
    events: int = 0
    duplicates: int = 0
    counters: int = 0

    def members(self) -> dict[str, Any]:
        """Return the members of the answer."""
        return asdict(self) if self.status == "accepted" else {"status": self.status}


class Ingest:
    """Takes batches.

    Args:
        database: where everything is stored.
        clock: for the time of receipt.
        max_bytes: largest batch, after decompression.
    """

    def __init__(self, database: Database, clock: Clock, max_bytes: int) -> None:
        self._database = database
        self._clock = clock
        self.max_bytes = max_bytes

    async def take(self, origin: Origin, body: bytes, *, is_gzip: bool) -> Receipt:
        """Store a batch.

        Raises:
            Problem: 400, 413 or 422 for the batch as a whole, with the line at fault; 503 to send it again later.
        """
        records = await asyncio.to_thread(self._read, body, is_gzip=is_gzip)
        now_ms = self._clock.wall_ms()
        try:
            return await self._database.write(lambda connection: _take(connection, origin, records, now_ms))
        except Unavailable as error:
            raise unavailable("database_unavailable", str(error)) from error

    def _read(self, body: bytes, *, is_gzip: bool) -> list[Record]:
        return read_records(decompress(body, self.max_bytes) if is_gzip else body)


class StoredIntake:
    """The intake of the upstream's own evaluation plane: an event is acknowledged when it is stored."""

    def __init__(self, database: Database, clock: Clock, metrics: RelayMetrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    async def accept(self, environment_id: str, events: Sequence[Event]) -> Accepted:
        """See `relay.events.intake.Intake`."""
        records = [EventRecord(environment_id, event) for event in events]
        now_ms = self._clock.wall_ms()
        try:
            stored = await self._database.write(lambda connection: _store_events(connection, records, now_ms))
        except Unavailable as error:
            self._metrics.events_refused.add("failed", n=len(events))
            raise unavailable("database_unavailable", str(error)) from error
        self._metrics.events_accepted.add(n=stored)
        self._metrics.events_duplicate.add(n=len(events) - stored)
        return Accepted(stored, len(events) - stored)


class StoredCounts:
    """Where the counts of the upstream's own evaluation plane go; see `relay.events.counters.Sink`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, records: Sequence[bytes]) -> None:
        """Add the rows up.

        Raises:
            SpoolFull: the database cannot take them now.
        """
        rows = [row for row in map(parse_record, map(loads, records)) if isinstance(row, CounterRow)]
        try:
            await self._database.write(lambda connection: _store_counts(connection, rows))
        except Unavailable as error:
            raise SpoolFull(str(error)) from error


def decompress(body: bytes, max_bytes: int) -> bytes:
    """Return what a gzip body holds, never using more memory than the limit.

    Raises:
        Problem: 413 over the limit, 400 when it is no gzip or not all of it.
    """
    unpacker = zlib.decompressobj(GZIP)
    try:
        data = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Problem(400, "malformed_gzip", f"The body is not valid gzip: {error}.") from None
    if len(data) > max_bytes:
        raise Problem(413, "batch_too_long", f"The batch is longer than {max_bytes} bytes after decompression.")
    if not unpacker.eof or unpacker.unused_data:
        raise Problem(400, "malformed_gzip", "The body is not exactly one whole gzip member.")
    return data


def read_records(data: bytes) -> list[Record]:
    """Read a batch: one JSON object per line.

    Raises:
        Problem: 400, 413 or 422, naming the line.
    """
    lines = data.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_RECORDS:
        raise Problem(413, "batch_too_long", f"The batch has more than {MAX_RECORDS} records.")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(parse_record(loads(line)))
        except BadJson as error:
            detail = f"Line {number} is not valid JSON: {error}."
            raise Problem(400, "malformed_json", detail, extra={"line": number}) from None
        except InvalidEvents as error:
            raise _bad_record(number, error.problems) from None
    return records


def _bad_record(number: int, problems: Mapping[str, list[str]], code: str = "invalid_record") -> Problem:
    errors = {f"lines[{number}].{path}": sentences for path, sentences in problems.items()}
    sentences = "; ".join(f"{path} {found[0]}" for path, found in problems.items())
    return Problem(422, code, f"Line {number} cannot be stored: {sentences}.", errors=errors, extra={"line": number})


def _take(connection: Connection, origin: Origin, records: Sequence[Record], now_ms: int) -> Receipt:
    batches = tables.ingest_batches
    if connection.execute(select(batches.c.id).where(batches.c.id == origin.batch_id)).first() is not None:
        return Receipt("duplicate")
    _check_coverage(connection, origin.credential_id, records, now_ms)
    events = [record for record in records if isinstance(record, EventRecord)]
    counts = [record for record in records if isinstance(record, CounterRow)]
    stored = _store_events(connection, events, now_ms)
    _store_counts(connection, counts)
    connection.execute(
        batches.insert(),
        {
            "id": origin.batch_id,
            "relay_id": origin.relay_id,
            "scope": {"credential": origin.credential_id},
            "received_at": now_ms,
        },
    )
    return Receipt("accepted", stored, len(events) - stored, len(counts))


def _check_coverage(connection: Connection, credential_id: str, records: Sequence[Record], now_ms: int) -> None:
    """Refuse a batch with a record of an environment that the key does not cover.

    The database is asked, not the configuration in memory: were that behind, good events would be refused for good.
    """
    credential = find(connection, Credential, tables.credentials.c.id == credential_id)
    if credential is None or not credential.is_alive(now_ms):
        raise Problem(401, "key_unknown", "The key is not known, or was revoked or has expired.")
    table = tables.environments
    query = (
        select(*columns(Environment))
        .join(tables.projects, tables.projects.c.id == table.c.project_id)
        .where(
            tables.projects.c.organisation_id == credential.organisation_id,
            table.c.id.in_({record.environment_id for record in records}),
        )
    )
    known = [made(Environment, row) for row in connection.execute(query)]
    covered = {environment.id for environment in known if credential.covers(environment)}
    for number, record in enumerate(records, 1):
        if record.environment_id not in covered:
            sentence = f"is {record.environment_id!r}, which this key does not cover"
            raise _bad_record(number, {"environment": [sentence]}, "environment_not_covered")


def _store_events(connection: Connection, records: Iterable[EventRecord], now_ms: int) -> int:
    """Store the events that are not stored yet; return how many."""
    first: dict[tuple[str, str], Event] = {}
    for record in records:
        first.setdefault((record.environment_id, record.event.id), record.event)
    for environment_id in {environment_id for environment_id, _ in first}:
        for known in _known_ids(connection, environment_id, first):
            del first[environment_id, known]
    if not first:
        return 0
    flag_ids = _flag_ids(connection, first)
    connection.execute(
        # Between the look-up above and this another writer may have stored one of them; that is no error.
        _insert(connection, tables.events).on_conflict_do_nothing(),
        [
            {
                "environment_id": environment_id,
                "id": event.id,
                "type": event.type,
                "name": event.name,
                "flag_id": flag_ids.get((environment_id, event.flag)),
                "flag_key": event.flag,
                "unit": event.unit,
                "value": event.value,
                "at": now_ms if event.at_ms is None else event.at_ms,
                "received_at": now_ms,
                "properties": event.properties,
            }
            for (environment_id, _), event in first.items()
        ],
    )
    return len(first)


def _known_ids(connection: Connection, environment_id: str, keys: Iterable[tuple[str, str]]) -> list[str]:
    table = tables.events
    wanted = [event_id for environment, event_id in keys if environment == environment_id]
    query = select(table.c.id).where(table.c.environment_id == environment_id, table.c.id.in_(wanted))
    return list(connection.execute(query).scalars())


def _flag_ids(connection: Connection, events: Mapping[tuple[str, str], Event]) -> Mapping[tuple[str, str | None], str]:
    """Return the id that each flag key means now in its environment's project, where there is such a flag."""
    flags, environments = tables.flags, tables.environments
    named = {(environment_id, event.flag) for (environment_id, _), event in events.items() if event.flag is not None}
    if not named:
        return {}
    query = (
        select(environments.c.id, flags.c.key, flags.c.id)
        .join(flags, flags.c.project_id == environments.c.project_id)
        .where(
            environments.c.id.in_({environment_id for environment_id, _ in named}),
            flags.c.key.in_({key for _, key in named}),
            flags.c.deleted_at.is_(None),
        )
    )
    return {(environment_id, key): flag_id for environment_id, key, flag_id in connection.execute(query)}


def _store_counts(connection: Connection, rows: Iterable[CounterRow]) -> None:
    """Add the rows to the counts of their hours."""
    counts: Counter[tuple[str, str, str, str, str, int]] = Counter()
    errors: Counter[tuple[str, str, str, str, str, int]] = Counter()
    for row in rows:
        hour_ms = row.minute_ms // HOUR_MS * HOUR_MS
        key = (row.environment_id, row.flag_id, row.variation or "", row.reason, row.source, hour_ms)
        counts[key] += row.count
        if row.error_code is not None:
            errors[key] += row.count
    if not counts:
        return
    table = tables.evaluation_counters
    insert = _insert(connection, table)
    added = {name: table.c[name] + insert.excluded[name] for name in ("count", "errors")}
    names = ("environment_id", "flag_id", "variation", "reason", "source", "hour_ms")
    connection.execute(
        insert.on_conflict_do_update(index_elements=names, set_=added),
        [dict(zip(names, key, strict=True)) | {"count": n, "errors": errors[key]} for key, n in counts.items()],
    )


def _insert(connection: Connection, table: Any) -> Any:
    """Return an insert that can say what to do with a conflict, which SQLAlchemy spells by dialect."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
