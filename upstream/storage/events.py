"""How events, counts and the marks of batches lie in their tables: each event once, counts added up by the hour.

Everything runs inside the caller's transaction. Also lets go of what is beyond its retention, a bounded number of rows
at a time, because the one who writes is kept waiting meanwhile.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Table, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from relay.protocol.events import CounterRow, Event, EventRecord
from upstream.storage import tables

HOUR_MS: Final = 3_600_000
FORGOTTEN_AT_ONCE: Final = 10_000


def store_events(connection: Connection, records: Iterable[EventRecord], now_ms: int) -> int:
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
            # In one order, as are the counts below, so that two writers do not wait for each other's rows.
            for (environment_id, _), event in sorted(first.items(), key=itemgetter(0))
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


def store_counts(connection: Connection, rows: Iterable[CounterRow]) -> None:
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
        [dict(zip(names, key, strict=True)) | {"count": n, "errors": errors[key]} for key, n in sorted(counts.items())],
    )


def of_known_flags(connection: Connection, rows: Sequence[CounterRow]) -> list[CounterRow]:
    """Return the rows of flags that belong to their environment's project, or did before they were deleted."""
    flags, environments = tables.flags, tables.environments
    query = (
        select(environments.c.id, flags.c.id)
        .join(flags, flags.c.project_id == environments.c.project_id)
        .where(
            environments.c.id.in_({row.environment_id for row in rows}),
            flags.c.id.in_({row.flag_id for row in rows}),
        )
    )
    known = {(environment_id, flag_id) for environment_id, flag_id in connection.execute(query)}
    return [row for row in rows if (row.environment_id, row.flag_id) in known]


def forget_events(connection: Connection, before_ms: int) -> int:
    """Delete events that arrived earlier, at most `FORGOTTEN_AT_ONCE`; returns how many."""
    return _forget(connection, tables.events, before_ms)


def forget_batches(connection: Connection, before_ms: int) -> int:
    """Delete the marks of batches that arrived earlier, at most `FORGOTTEN_AT_ONCE`; returns how many."""
    return _forget(connection, tables.ingest_batches, before_ms)


def _forget(connection: Connection, table: Table, before_ms: int) -> int:
    keys = table.primary_key.columns
    old = select(*keys).where(table.c.received_at < before_ms).limit(FORGOTTEN_AT_ONCE)
    return connection.execute(delete(table).where(tuple_(*keys).in_(old))).rowcount


def _insert(connection: Connection, table: Any) -> Any:
    """Return an insert that can say what to do with a conflict, which SQLAlchemy spells by dialect."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
