"""Ingest: events once, counts added up, batches whole and never twice, and nobody else's environments."""

import asyncio
import gzip
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Problem
from relay.events.disk import SpoolFull
from relay.events.intake import Accepted
from relay.metrics import RelayMetrics
from relay.protocol.events import CounterRow, Event, encode_counters, encode_event
from relay.protocol.keys import Kind
from tests.upstream.ingest_world import (
    CHECKOUT,
    DELETED,
    FOREIGN,
    MAX_BYTES,
    ORG,
    PRODUCTION,
    STAGING,
    START_MS,
    NoEntropy,
    raw_key,
    world,
)
from upstream import authority, ingest
from upstream.authority import Authority
from upstream.batches import MAX_RECORDS, Batch, decompress, read_batch, read_records
from upstream.ingest import AT_WORK, MAX_WAITING, StoredCounts, StoredIntake
from upstream.notifier import Notifier
from upstream.settings import UpstreamLimits
from upstream.storage import events as stored_events
from upstream.storage.errors import Unavailable
from upstream.storage.events import HOUR_MS
from upstream.storage.history import DAY_MS

HOUR = START_MS // HOUR_MS * HOUR_MS


def event(event_id: str, environment: str = PRODUCTION, **changes: Any) -> dict[str, Any]:
    record = {"kind": "event", "environment": environment, "id": event_id, "type": "track", "name": "n", "unit": "u"}
    return record | changes


def counters(count: int, **changes: Any) -> dict[str, Any]:
    record = {
        "kind": "counters", "environment": PRODUCTION, "flag": CHECKOUT, "variation": "on", "reason": "SPLIT",
        "source": "single", "minute": "2026-09-21T14:55:00.000Z", "count": count,
    }  # fmt: skip
    return record | changes


async def test_a_batch_of_a_relay_is_stored(tmp_path: Path) -> None:
    """What the relay encodes is stored: events with all their fields, the flag by its id, counts by the hour."""
    full = Event("e1", "track", "u1", "purchase", "checkout", 9.5, START_MS - 5, {"a": [1]})
    row = CounterRow(PRODUCTION, CHECKOUT, None, "ERROR", "single", START_MS, 3, "TYPE_MISMATCH")
    body = b"\n".join([encode_event(PRODUCTION, full, START_MS), encode_counters(row)]) + b"\n"
    async with world(tmp_path) as here:
        answer = await here.send(gzip.compress(body), Content_Encoding="gzip", Relay_Id="relay-1")
        assert answer.status == 200
        assert answer.body == {"status": "accepted", "events": 1, "duplicates": 0, "counters": 1, "unknown_flags": 0}
        assert await here.rows("events") == [
            {
                "environment_id": PRODUCTION, "id": "e1", "type": "track", "name": "purchase", "flag_id": CHECKOUT,
                "flag_key": "checkout", "unit": "u1", "value": 9.5, "at": START_MS - 5, "received_at": START_MS,
                "properties": {"a": [1]},
            }
        ]  # fmt: skip
        assert await here.rows("evaluation_counters") == [
            {
                "environment_id": PRODUCTION, "flag_id": CHECKOUT, "variation": "", "reason": "ERROR",
                "source": "single", "hour_ms": HOUR, "count": 3, "errors": 3,
            }
        ]  # fmt: skip
        (batch,) = await here.rows("ingest_batches")
        assert batch["organisation_id"] == ORG
        assert (batch["id"], batch["relay_id"], batch["received_at"]) == ("batch-0001", "relay-1", START_MS)


async def test_a_repeated_batch_has_no_effect(tmp_path: Path) -> None:
    """F05: the same batch id again is answered as a duplicate; events and counts are as they were."""
    async with world(tmp_path) as here:
        await here.send([event("a"), counters(5)])
        again = await here.send([event("a"), counters(5)])
        assert (again.status, again.body) == (200, {"status": "duplicate"})
        assert [row["count"] for row in await here.rows("evaluation_counters")] == [5]
        assert len(await here.rows("events")) == 1


async def test_a_batch_id_belongs_to_one_relay_of_one_organisation(tmp_path: Path) -> None:
    """F36: the id of another tenant's, relay's or nameless key's batch is free; nobody's events vanish by it."""
    other_tenant, other_key = raw_key(Kind.RELAY, 3), raw_key(Kind.SERVER)
    async with world(tmp_path) as here:
        answers = [
            await here.send([event("a")], Relay_Id="relay-1"),
            await here.send([event("b", FOREIGN)], key=other_tenant, Relay_Id="relay-1"),
            await here.send([event("c")], Relay_Id="relay-2"),
            await here.send([event("d")]),
            await here.send([event("e")], key=other_key),
        ]
        assert [answer.body.get("events") for answer in answers] == [1] * 5
        assert {row["id"] for row in await here.rows("events")} == set("abcde")


async def test_a_batch_is_recognised_after_the_key_was_replaced(tmp_path: Path) -> None:
    """The relay's own name decides, and what is in the batch, not how it is compressed."""
    body = b'{"kind":"event","environment":"%s","id":"a","type":"track","name":"n","unit":"u"}' % PRODUCTION.encode()
    async with world(tmp_path) as here:
        await here.send(body, Relay_Id="relay-1")
        again = await here.send(
            gzip.compress(body), key=raw_key(Kind.SERVER), Relay_Id="relay-1", Content_Encoding="gzip"
        )
        assert again.body == {"status": "duplicate"}


async def test_another_batch_under_a_known_id_is_refused(tmp_path: Path) -> None:
    """It is not called a duplicate, which would make the relay forget it; the relay sends it under other ids."""
    async with world(tmp_path) as here:
        await here.send([event("a")])
        answer = await here.send([event("b")])
        assert (answer.status, answer.body["code"]) == (422, "batch_id_reused")
        assert list(answer.body["errors"]) == ["Batch-Id"]
        assert [row["id"] for row in await here.rows("events")] == ["a"]


async def test_an_event_is_stored_once_by_its_id(tmp_path: Path) -> None:
    """Another batch with a known event, or one twice in a batch, stores it once; the first wins, per environment."""
    async with world(tmp_path) as here:
        first = await here.send([event("a", unit="first"), event("a", unit="second"), event("a", STAGING)])
        assert (first.body["events"], first.body["duplicates"]) == (2, 1)
        second = await here.send([event("a", unit="third"), event("b")], "batch-0002")
        assert (second.body["events"], second.body["duplicates"]) == (1, 1)
        third = await here.send([event("a")], "batch-0003")
        assert (third.body["events"], third.body["duplicates"]) == (0, 1)
        units = {(row["environment_id"], row["id"]): row["unit"] for row in await here.rows("events")}
        assert units == {(PRODUCTION, "a"): "first", (STAGING, "a"): "u", (PRODUCTION, "b"): "u"}


async def test_counts_are_added_up_by_the_hour(tmp_path: Path) -> None:
    """Rows of one hour are one sum, within a batch and over batches; another hour, source or variation is another."""
    late = {"minute": "2026-09-21T15:00:00.000Z"}
    async with world(tmp_path) as here:
        await here.send([counters(1), counters(2, minute="2026-09-21T14:01:00.000Z"), counters(4, **late)])
        await here.send([counters(8), counters(16, source="bulk"), counters(32, variation="off")], "batch-0002")
        rows = await here.rows("evaluation_counters")
        assert sorted(row["count"] for row in rows) == [4, 11, 16, 32]
        assert {row["errors"] for row in rows} == {0}


async def test_counts_of_flags_that_never_were_are_dropped(tmp_path: Path) -> None:
    """A row of a deleted flag counts, one of a flag that the project never had does not; the answer says how many."""
    records = [counters(1), counters(2, flag=DELETED), counters(4, flag="unknown"), counters(8, flag="checkout")]
    async with world(tmp_path) as here:
        answer = await here.send(records)
        assert (answer.body["counters"], answer.body["unknown_flags"]) == (2, 2)
        assert {row["flag_id"] for row in await here.rows("evaluation_counters")} == {CHECKOUT, DELETED}
        foreign = await here.send([counters(1, environment=FOREIGN)], key=raw_key(Kind.RELAY, 3))
        assert (foreign.body["counters"], foreign.body["unknown_flags"]) == (0, 1)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reason": "INVENTED"}, "must be one of DISABLED, TARGET_MATCH, "),
        ({"source": "invented"}, "must be one of single, bulk, stream"),
        ({"minute": "9999-12-31T23:59:59-23:59"}, "must not be after 9999 in UTC"),
        ({"minute": "0001-01-01T00:00:00+23:59"}, ""),
    ],
)
async def test_counts_that_no_evaluation_gives_are_refused(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    """Words and moments that cannot be are a 422 with the line and the field; no row is made of them."""
    async with world(tmp_path) as here:
        answer = await here.send([counters(1), counters(1, **changes)])
        assert (answer.status, answer.body["code"], answer.body["line"]) == (422, "invalid_record", 2)
        (told,) = answer.body["errors"][f"lines[2].{next(iter(changes))}"]
        assert told.startswith(sentence)
        assert await here.rows("evaluation_counters") == []


async def test_a_batch_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    """One bad record refuses the batch, with its line; nothing of it is stored and its id stays free."""
    async with world(tmp_path) as here:
        answer = await here.send([event("a"), event("b", unit=""), event("c")])
        assert (answer.status, answer.body["code"], answer.body["line"]) == (422, "invalid_record", 2)
        assert answer.body["errors"] == {"lines[2].event.unit": ["must be a text that is not empty"]}
        assert await here.rows("events") == await here.rows("ingest_batches") == []
        assert (await here.send([event("a"), event("c")])).status == 200


@pytest.mark.parametrize(("key", "environment"), [(1, FOREIGN), (1, "unknown"), (2, PRODUCTION)])
async def test_an_environment_that_the_key_does_not_cover_is_named(tmp_path: Path, key: int, environment: str) -> None:
    """F36: a record of another organisation's, an unknown or an excluded environment refuses the batch, by name."""
    async with world(tmp_path) as here:
        answer = await here.send([event("a", STAGING), event("b", environment)], key=raw_key(Kind.RELAY, key))
        assert (answer.status, answer.body["code"], answer.body["line"]) == (422, "environment_not_covered", 2)
        assert environment in answer.body["detail"]
        assert await here.rows("events") == []


async def test_a_server_key_may_send_for_its_environment_only(tmp_path: Path) -> None:
    """A server key is good for its own environment."""
    async with world(tmp_path) as here:
        assert (await here.send([event("a")], key=raw_key(Kind.SERVER))).status == 200
        assert (await here.send([event("b", STAGING)], "batch-0002", raw_key(Kind.SERVER))).status == 422


async def test_keys_of_other_kinds_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    """A client key is 403, no key or an unknown one 401, and so is one that was revoked a moment ago."""
    async with world(tmp_path) as here:
        assert (await here.send([event("a")], key=raw_key(Kind.CLIENT))).status == 403
        assert (await here.send([event("a")], key=raw_key(Kind.RELAY, 9))).status == 401
        assert (await here.send([event("a")], Authorization="")).status == 401
        await here.revoke("credential-relay-1")
        assert (await here.send([event("a")])).status == 401
        assert await here.rows("events") == []


@pytest.mark.parametrize(
    ("body", "line"),
    [(b"", 1), (b'{"kind":', 1), (b"\n", 1), (b'{"a":NaN}', 1), (b'{"a":"\\ud800"}', 1), (b"\xff", 1),
     (b'{"a":' * 40 + b"1" + b"}" * 40, 1)],
)  # fmt: skip
async def test_malformed_lines_are_named(tmp_path: Path, body: bytes, line: int) -> None:
    """A line that is not strict JSON is a 400 with its number."""
    async with world(tmp_path) as here:
        answer = await here.send(body)
        assert (answer.status, answer.body["code"], answer.body["line"]) == (400, "malformed_json", line)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Batch_Id": ""}, 400),
        ({"Batch_Id": "short"}, 400),
        ({"Batch_Id": "x" * 129}, 400),
        ({"Relay_Id": "a b"}, 400),
        ({"Content_Encoding": "br"}, 415),
    ],
)
async def test_wrong_headers_are_refused(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    """The batch id is required and of a known shape; gzip is the only encoding."""
    async with world(tmp_path) as here:
        sent = {"Batch-Id" if name == "Batch_Id" else name: value for name, value in headers.items()}
        assert (await here.send([event("a")], **sent)).status == status


async def test_long_bodies_are_refused(tmp_path: Path) -> None:
    """F31: a body, announced or not, or its decompressed content over the limit is a 413, a gzip bomb included."""
    bomb = gzip.compress(b"\0" * (20 << 20))
    assert len(bomb) < MAX_BYTES
    async with world(tmp_path) as here:
        assert (await here.send(b" " * (MAX_BYTES + 1))).status == 413
        assert (await here.send(b"{}", Content_Length=str(MAX_BYTES + 1))).status == 413
        assert (await here.send(bomb, Content_Encoding="gzip")).status == 413
        assert (await here.send(b"{}\n" * (MAX_RECORDS + 1))).status == 413


def test_many_empty_lines_take_no_memory() -> None:
    """F31: 8 MiB of line ends, from 8 KiB of gzip, are refused before they are cut into lines."""
    data = b"\n" * (8 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="413"):
            read_records(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


async def test_few_batches_are_worked_on_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F31: a bounded number waits for its turn, and more are told when to come back; those that wait are stored."""
    go, at_work, most = threading.Event(), 0, 0
    counting = threading.Lock()

    def slow(body: bytes, max_bytes: int, *, is_gzip: bool) -> Batch:
        nonlocal at_work, most
        with counting:
            at_work += 1
            most = max(most, at_work)
        assert go.wait(10)
        with counting:
            at_work -= 1
        return read_batch(body, max_bytes, is_gzip=is_gzip)

    monkeypatch.setattr(ingest, "read_batch", slow)
    async with world(tmp_path) as here:
        sent = AT_WORK + MAX_WAITING + 1
        tasks = [asyncio.create_task(here.send([event(f"e{n}")], f"batch-{n:04}")) for n in range(sent)]
        (refused,), waiting = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert (refused.result().status, refused.result().body["code"]) == (503, "ingest_busy")
        assert int(refused.result().headers["retry-after"]) >= 1
        go.set()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert most == AT_WORK
        assert (await here.send([event("last")], "batch-last")).status == 200


async def test_half_a_body_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    """F29: the rest of a body has its time, then the request is a 408 and the connection ends."""
    async with world(tmp_path) as here:
        here.ingest.limits = UpstreamLimits(ingest_bytes=MAX_BYTES, body_s=0.01)
        parts: list[dict[str, Any]] = [{"type": "http.request", "body": b'{"kind":', "more_body": True}]
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if not parts:
                await asyncio.Event().wait()
            return parts.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        async with asyncio.timeout(5):
            await here.app(ingest_scope(), receive, send)
        assert sent[0]["status"] == 408
        assert (b"connection", b"close") in sent[0]["headers"]
        assert b'"body_timeout"' in sent[1]["body"]


def ingest_scope() -> dict[str, Any]:
    headers = [(b"authorization", f"Bearer {raw_key(Kind.RELAY)}".encode()), (b"batch-id", b"batch-0001")]
    return {
        "type": "http", "method": "POST", "path": "/api/v2/ingest", "query_string": b"", "headers": headers,
        "root_path": "", "state": {}, "client": None,
    }  # fmt: skip


WHOLE = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize("body", [b"", b"plain", WHOLE[:-3], WHOLE + b"x"])
def test_what_is_not_exactly_one_gzip_member_is_refused(body: bytes) -> None:
    """A cut, padded or absent gzip member is a 400."""
    with pytest.raises(Problem) as caught:
        decompress(body, 100)
    assert (caught.value.status, caught.value.code) == (400, "malformed_gzip")


async def test_a_client_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    """A body that ends too early stores nothing and is not an error of the service."""
    async with world(tmp_path) as here:
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await here.app(ingest_scope(), receive, send)
        assert sent[0]["status"] == 400


def refuse(*_: object) -> None:
    raise Unavailable("The disk is full.")


async def test_a_database_that_cannot_write_is_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F09: the relay is told to come back; nothing is lost because it keeps what was not confirmed."""
    async with world(tmp_path) as here:
        monkeypatch.setattr(here.database, "write", refuse)
        answer = await here.send([event("a")])
        assert (answer.status, answer.body["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) >= 1


async def test_events_of_the_upstreams_own_evaluation_plane_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream's own `track` stores at once and tells duplicates exactly."""
    metrics = RelayMetrics("upstream")
    async with world(tmp_path) as here:
        intake = StoredIntake(here.database, here.clock, metrics)
        events = [Event("a", "track", "u", name="n"), Event("b", "exposure", "u", flag="checkout")]
        assert await intake.accept(PRODUCTION, events) == Accepted(2, 0)
        assert await intake.accept(PRODUCTION, events[:1]) == Accepted(0, 1)
        assert {row["at"] for row in await here.rows("events")} == {START_MS}
        monkeypatch.setattr(here.database, "write", refuse)
        with pytest.raises(Problem, match="503"):
            await intake.accept(PRODUCTION, events)
    assert (metrics.events_accepted.total(), metrics.events_refused.value("failed")) == (2, 2)


async def test_counts_of_the_upstreams_own_evaluation_plane_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upstream's own counters add up in the same table, and are told when that is not possible now."""
    record = encode_counters(CounterRow(PRODUCTION, CHECKOUT, "on", "SPLIT", "single", START_MS, 2))
    async with world(tmp_path) as here:
        sink = StoredCounts(here.database)
        await sink.append([record, record])
        await sink.append([record])
        assert [row["count"] for row in await here.rows("evaluation_counters")] == [6]
        monkeypatch.setattr(here.database, "write", refuse)
        with pytest.raises(SpoolFull):
            await sink.append([record])


async def test_what_is_beyond_its_retention_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are recognised for 45 days and events kept for 400, by their arrival; any number goes, in small parts."""
    monkeypatch.setattr(stored_events, "FORGOTTEN_AT_ONCE", 2)
    monkeypatch.setattr(authority, "FORGOTTEN_AT_ONCE", 2)
    async with world(tmp_path) as here:
        keeper = Authority(here.database, here.clock, NoEntropy(), Notifier())
        for number in range(5):
            await here.send([event(f"old-{number}")], f"batch-{number:04}")
        await here.clock.advance(44 * DAY_MS / 1000)
        await here.send([event("new", at="1990-01-01T00:00:00Z")], "batch-new")
        await keeper.keep_house()
        assert len(await here.rows("ingest_batches")) == 6
        await here.clock.advance(2 * DAY_MS / 1000)
        await keeper.keep_house()
        assert [row["id"] for row in await here.rows("ingest_batches")] == ["batch-new"]
        assert len(await here.rows("events")) == 6
        await here.clock.advance(355 * DAY_MS / 1000)
        await keeper.keep_house()
        assert [row["id"] for row in await here.rows("events")] == ["new"]


async def test_a_clock_that_jumps_deletes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Ten years ahead, nothing is old; mended, all goes on; a day later a clock that still says so is believed."""
    async with world(tmp_path) as here:
        keeper = Authority(here.database, here.clock, NoEntropy(), Notifier())
        await here.send([event("kept")], "batch-0001")
        here.clock.jump_wall(3_650 * DAY_MS)
        await keeper.keep_house()
        assert "the clock has jumped" in caplog.text
        here.clock.jump_wall(-3_650 * DAY_MS)
        await keeper.keep_house()
        assert len(await here.rows("events")) == len(await here.rows("ingest_batches")) == 1
        here.clock.jump_wall(3_650 * DAY_MS)
        await keeper.keep_house()
        await here.clock.advance(25 * 3600)
        await keeper.keep_house()
        assert await here.rows("events") == []


async def test_the_document_describes_the_body(tmp_path: Path) -> None:
    """Clients can be generated: the body, its type, and the headers around it are in the OpenAPI document."""
    async with world(tmp_path) as here:
        operation = here.api.openapi()["paths"]["/api/v2/ingest"]["post"]
        assert operation["requestBody"]["required"] is True
        assert list(operation["requestBody"]["content"]) == ["application/x-ndjson"]
        headers = {each["name"]: each for each in operation["parameters"]}
        assert headers["Batch-Id"]["required"] is True
        assert "gzip" in headers["Content-Encoding"]["schema"]["enum"]
