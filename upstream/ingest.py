"""Stores what relays forward: events once each, counts added up by the hour, a batch never twice.

One transaction stores the events, the counts and the mark of the batch; a batch that its relay has sent before is
answered as a duplicate and has no effect, so a relay may send again whatever it did not see confirmed. A batch is taken
whole or not at all. Few are worked on at a time, since a small body can become many objects. Also the way in for events
and counts that the upstream's own evaluation plane takes, without a batch.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, select

from relay.clock import Clock
from relay.errors import Problem
from relay.events.disk import SpoolFull
from relay.events.intake import Accepted
from relay.metrics import RelayMetrics
from relay.protocol.events import CounterRow, Event, EventRecord, parse_record
from relay.protocol.strict_json import loads
from relay.serve.problems import unavailable
from upstream.batches import Batch, Record, bad_record, read_batch
from upstream.domain.entities import Credential, Environment
from upstream.settings import UpstreamLimits
from upstream.storage import tables
from upstream.storage.database import Database
from upstream.storage.errors import Unavailable
from upstream.storage.events import of_known_flags, store_counts, store_events
from upstream.storage.records import columns, find, made

AT_WORK: Final = 2
"""Batches that are decompressed, read and stored at a time: one is read while another is stored."""
MAX_WAITING: Final = 16
"""Batches that wait for that; more are sent away, to come back later."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a batch comes from. `batch_id` is the same whenever the relay sends the batch again."""

    batch_id: str
    credential_id: str
    relay_id: str | None = None

    @property
    def relay(self) -> str:
        """Return whose batch ids these are: a relay's also after its key was replaced, else a key's."""
        # No Relay-Id can hold a colon.
        return self.relay_id or f"credential:{self.credential_id}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a batch.

    `events` were stored, `duplicates` were there already, `counters` rows were added up, `unknown_flags` rows were
    dropped, as their flag never belonged to the environment's project.
    """

    status: Literal["accepted", "duplicate"]
    events: int = 0
    duplicates: int = 0
    counters: int = 0
    unknown_flags: int = 0

    def members(self) -> dict[str, Any]:
        """Return the members of the answer."""
        return asdict(self) if self.status == "accepted" else {"status": self.status}


class Ingest:
    """Takes batches.

    Args:
        database: where everything is stored.
        clock: for the time of receipt.
        limits: how long a batch may be, after decompression, and how long its arrival may take.
    """

    def __init__(self, database: Database, clock: Clock, limits: UpstreamLimits) -> None:
        self.limits = limits
        self._database = database
        self._clock = clock
        self._places = asyncio.Semaphore(AT_WORK)
        self._waiting = 0

    async def take(self, origin: Origin, body: bytes, *, is_gzip: bool) -> Receipt:
        """Store a batch.

        Raises:
            Problem: 400, 413 or 422 for the batch as a whole, with the line at fault; 503 to send it again later.
        """
        async with self._place():
            batch = await asyncio.to_thread(read_batch, body, self.limits.ingest_bytes, is_gzip=is_gzip)
            now_ms = self._clock.wall_ms()
            try:
                return await self._database.write(lambda connection: _take(connection, origin, batch, now_ms))
            except Unavailable as error:
                raise unavailable("database_unavailable", str(error)) from error

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for a place among the batches that are worked on."""
        if self._waiting >= MAX_WAITING:
            raise unavailable("ingest_busy", "Too many batches wait to be stored; send it again later.")
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()


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
            stored = await self._database.write(lambda connection: store_events(connection, records, now_ms))
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
            await self._database.write(lambda connection: store_counts(connection, rows))
        except Unavailable as error:
            raise SpoolFull(str(error)) from error


def _take(connection: Connection, origin: Origin, batch: Batch, now_ms: int) -> Receipt:
    credential = find(connection, Credential, tables.credentials.c.id == origin.credential_id)
    if credential is None or not credential.is_alive(now_ms):
        raise Problem(401, "key_unknown", "The key is not known, or was revoked or has expired.")
    mark = {"organisation_id": credential.organisation_id, "relay_id": origin.relay, "id": origin.batch_id}
    if _is_taken(connection, mark, batch.digest):
        return Receipt("duplicate")
    _check_coverage(connection, credential, batch.records)
    events = [record for record in batch.records if isinstance(record, EventRecord)]
    counts = [record for record in batch.records if isinstance(record, CounterRow)]
    known = of_known_flags(connection, counts)
    stored = store_events(connection, events, now_ms)
    store_counts(connection, known)
    row = {**mark, "body_hash": batch.digest, "credential_id": origin.credential_id, "received_at": now_ms}
    connection.execute(tables.ingest_batches.insert(), row)
    return Receipt("accepted", stored, len(events) - stored, len(known), len(counts) - len(known))


def _is_taken(connection: Connection, mark: Mapping[str, str], digest: str) -> bool:
    """Tell whether this batch was stored before; another one under its id is refused, or it would vanish unseen."""
    table = tables.ingest_batches
    query = select(table.c.body_hash).where(*(table.c[name] == value for name, value in mark.items()))
    stored = connection.execute(query).scalar_one_or_none()
    if stored not in {None, digest}:
        errors = {"Batch-Id": ["belongs to another batch of this relay"]}
        raise Problem(422, "batch_id_reused", "Another batch was stored under this Batch-Id.", errors=errors)
    return stored is not None


def _check_coverage(connection: Connection, credential: Credential, records: Sequence[Record]) -> None:
    """Refuse a batch with a record of an environment that the key does not cover.

    The database is asked, not the configuration in memory: were that behind, good events would be refused for good.
    """
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
            raise bad_record(number, {"environment": [sentence]}, "environment_not_covered")
