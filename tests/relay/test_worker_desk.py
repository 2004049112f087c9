"""What worker 0 does for the others, over a real Unix socket: events, counts, kills, the stream, and no strangers."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from relay.errors import Problem
from relay.events.counters import Counters
from relay.events.disk import SpoolError
from relay.events.intake import Accepted
from relay.protocol.events import Event
from relay.protocol.keys import Kind, mint
from relay.serve.app import route
from relay.settings import Data, Events, Limits, RelayServe, RelaySettings, UpstreamLink
from relay.sync.backoff import Backoff
from relay.sync.follow import Follower, FollowSettings
from relay.sync.store import Store
from relay.workers import desk as desk_module
from relay.workers import remote as remote_module
from relay.workers.desk import Batches
from relay.workers.link import (
    BATCH_HEADER,
    FIGURES_PATH,
    RECORDS_PATH,
    SECRET_HEADER,
    SocketPlace,
    Start,
    decode_start,
)
from relay.workers.remote import ORIGIN, RemoteIntake, RemoteKill, RemoteSink
from tests.clocks import settle
from tests.relay.live import until
from tests.relay.office import SECRET, Office, opened
from tests.relay.world import call_asgi

EVENT = Event("a", "track", "user-1", name="purchase", at_ms=1_790_000_000_000)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    async with opened(tmp_path) as made:
        yield made


@pytest.mark.parametrize("headers", [{}, {SECRET_HEADER: "x" * 64}, {SECRET_HEADER: ""}])
async def test_a_stranger_gets_nothing(office: Office, headers: dict[str, str]) -> None:
    """Without the secret of this start every path is refused, those that do not exist too."""
    for path in (RECORDS_PATH, FIGURES_PATH, "/api/v2/stream", "/nowhere"):
        answer = await call_asgi(office.desk.app, "POST", path, b"{}", headers)
        assert (answer.status, answer.json["code"]) == (403, "not_a_worker")
    assert office.reports == []


async def test_events_are_kept_before_they_are_acknowledged(office: Office) -> None:
    """They are in the spool of worker 0 as they were sent, and its refusal is the worker's."""
    intake = RemoteIntake(office.session, office.world.clock)
    assert await intake.accept(office.world.ref.id, [EVENT]) == Accepted(1, 0)
    assert await intake.accept(office.world.ref.id, [EVENT]) == Accepted(0, 1)
    assert office.world.shelf.events == [(office.world.ref.id, EVENT)]
    office.world.shelf.refusal = Problem(503, "spool_full", "No room.", headers={"Retry-After": "5"})
    with pytest.raises(Problem) as refused:
        await intake.accept(office.world.ref.id, [EVENT])
    assert (refused.value.status, refused.value.code) == (503, "spool_full")
    assert refused.value.headers == {"Retry-After": "5"}


async def test_without_worker_0_nothing_is_acknowledged(office: Office, tmp_path: Path) -> None:
    """503 with Retry-After: the client sends its events again."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "nobody"))) as session:
        with pytest.raises(Problem) as refused:
            await RemoteIntake(session, office.world.clock).accept(office.world.ref.id, [EVENT])
    assert (refused.value.status, refused.value.code) == (503, "worker_0_away")
    assert refused.value.headers == {"Retry-After": "1"}


async def test_counts_go_into_the_spool_of_worker_0(office: Office) -> None:
    """With all that the key of a row says."""
    sink = RemoteSink(office.session, office.world.clock)
    counters = Counters(sink, Events(), office.world.clock)
    counters.count(office.world.ref.id, "flag-1", "on", "RULE", "single", 3)
    assert await counters.flush()
    (record,) = await office.records()
    assert (record["flag"], record["variation"], record["count"]) == ("flag-1", "on", 3)


async def test_a_batch_that_comes_twice_is_kept_once(office: Office) -> None:
    """At the same time or later: the id tells."""

    async def send(batch_id: str) -> int:
        url = ORIGIN + RECORDS_PATH
        async with office.session.post(url, data=b'{"n":1}', headers={BATCH_HEADER: batch_id}) as answer:
            return answer.status

    assert list(await asyncio.gather(send("one"), send("one"), send("one"))) == [204, 204, 204]
    assert await send("one") == 204
    assert len(await office.records()) == 1
    assert await send("two") == 204


async def test_a_batch_that_was_refused_may_come_again() -> None:
    """Nothing of it was kept, so its id is not remembered; the worker keeps the counts until then."""
    sent: list[Sequence[bytes]] = []

    class Shelf:
        is_full = True

        async def append(self, records: Sequence[bytes]) -> None:
            if self.is_full:
                raise SpoolError("full")
            sent.append(records)

    shelf = Shelf()
    batches = Batches(shelf)
    with pytest.raises(Problem) as refused:
        await batches.keep("one", [b"a"])
    assert refused.value.status == 503
    shelf.is_full = False
    await batches.keep("one", [b"a"])
    await batches.keep("one", [b"a"])
    assert sent == [[b"a"]]


async def test_a_batch_that_failed_in_any_way_may_come_again() -> None:
    """Only what was kept is remembered."""
    sent: list[Sequence[bytes]] = []

    class Shelf:
        is_broken = True

        async def append(self, records: Sequence[bytes]) -> None:
            if self.is_broken:
                raise RuntimeError
            sent.append(records)

    shelf = Shelf()
    batches = Batches(shelf)
    with pytest.raises(RuntimeError):
        await batches.keep("one", [b"a"])
    shelf.is_broken = False
    await batches.keep("one", [b"a"])
    assert sent == [[b"a"]]


async def test_a_batch_that_is_being_written_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come meanwhile: its repetition must not be written as well."""
    monkeypatch.setattr(desk_module, "MAX_REMEMBERED_BATCHES", 1)
    sent: list[Sequence[bytes]] = []
    may_end = asyncio.Event()

    class Shelf:
        async def append(self, records: Sequence[bytes]) -> None:
            sent.append(records)
            await may_end.wait()

    batches = Batches(Shelf())
    waiting = [asyncio.create_task(batches.keep(name, [name.encode()])) for name in ("one", "two", "three", "one")]
    await settle()
    assert sent == [[b"one"], [b"two"], [b"three"]]
    may_end.set()
    await asyncio.gather(*waiting)


async def test_counts_that_nobody_will_send_again_are_told_of(
    office: Office, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused after the flush was cancelled by the drain, they are lost; the log says so."""

    async def refused(*_: object) -> tuple[int, dict[str, str], bytes]:
        return 400, {}, b"no"

    monkeypatch.setattr(remote_module, "_ask", refused)
    sink = RemoteSink(office.session, office.world.clock)
    delivering = asyncio.ensure_future(sink.append([b"{}"]))
    await asyncio.sleep(0)
    delivering.cancel()
    await sink.settled()
    assert "evaluation counts were lost" in caplog.text


async def test_the_memory_of_batches_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest ids are known; a worker repeats none but its last."""
    monkeypatch.setattr(desk_module, "MAX_REMEMBERED_BATCHES", 2)
    sent: list[Sequence[bytes]] = []

    class Shelf:
        async def append(self, records: Sequence[bytes]) -> None:
            sent.append(records)

    batches = Batches(Shelf())
    for batch_id in ("one", "two", "three", "two", "one"):
        await batches.keep(batch_id, [batch_id.encode()])
    assert sent == [[b"one"], [b"two"], [b"three"], [b"one"]]


async def test_a_worker_that_is_stopped_loses_no_count_under_way(office: Office) -> None:
    """The flush that is cancelled by the drain has been sent, and is waited for."""
    sink = RemoteSink(office.session, office.world.clock)
    counters = Counters(sink, Events(), office.world.clock)
    counters.count(office.world.ref.id, "flag-1", "on", "RULE", "single")
    flushing = asyncio.create_task(counters.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    await counters.flush()
    await sink.settled()
    assert sum(record["count"] for record in await office.records()) == 1


async def test_a_worker_follows_and_obeys(office: Office) -> None:
    """It gets everything and needs no key for it; a kill that it passes on holds here when it is answered."""
    world, store = office.world, Store(office.world.clock)
    settings = FollowSettings(upstream_url=ORIGIN, relay_key="worker", backoff=Backoff(0.01, 0.01))
    follower = Follower(settings, store, office.session, world.clock)
    following = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.first_sync.wait(), 5)
    held = store.get(world.ref.id)
    assert held is not None
    assert held.state == world.configuration().state
    kill = RemoteKill(office.session, store.overlays, Limits())
    path = "/api/v2/projects/shop/flags/beta:kill"
    app = route(kill.routes())
    answer = await call_asgi(
        app, "POST", path, b'{"environment":"production"}', {"authorization": "Bearer t", "cookie": "no"}
    )
    assert (answer.status, answer.json) == (202, {"id": "kill-beta"})
    assert office.kills == [("Bearer t", {"environment": "production"})]
    off = store.get(world.ref.id)
    assert off is not None
    assert not off.environment.flags["beta"].enabled
    world.store.overlays.hold(world.ref.id, [])
    await until(lambda: "kill-beta" not in store.overlays)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_report_is_taken_and_answered_with_what_is_held(office: Office) -> None:
    """Once nothing is held any more, no stream could tell."""
    async with office.session.post(ORIGIN + FIGURES_PATH, data=b'{"number":1}') as answer:
        assert await answer.json() == {"environments": [office.world.ref.id]}
    office.world.store.remove(office.world.ref.id)
    async with office.session.post(ORIGIN + FIGURES_PATH, data=b'{"number":1}') as answer:
        assert await answer.json() == {"environments": []}
    assert office.reports == [{"number": 1}] * 2


def test_the_socket_is_for_its_owner_alone_and_never_too_long(tmp_path: Path) -> None:
    """In the data directory with mode 0700, or in a temporary one of that mode when the path is too long."""
    place = SocketPlace(tmp_path)
    place.prepare()
    assert (place.path.parent, place.path.parent.stat().st_mode & 0o777) == (tmp_path / "workers", 0o700)
    place.path.touch()
    place.prepare()
    assert not place.path.exists()
    deep = SocketPlace(tmp_path / ("x" * 100))
    deep.prepare()
    assert len(os.fsencode(deep.path)) < 100
    assert deep.path.parent.stat().st_mode & 0o777 == 0o700
    deep.remove()
    assert not deep.path.parent.exists()


def test_a_worker_is_told_everything_but_the_key() -> None:
    """Settings as they are, without what opens the upstream; the secret is in no representation."""
    settings = RelaySettings(
        upstream=UpstreamLink(url="http://10.0.0.1:1", key=SecretStr(mint(Kind.RELAY, bytes(32))), key_file=Path("/k")),
        serve=RelayServe(workers=3, trusted_proxies=("10.0.0.7",)),
        data=Data(dir=Path("/var/lib/halyard")),
    )
    start = Start(1, "instance", "/run/x.sock", SECRET, settings)
    line = start.encode()
    assert b"\n" not in line
    assert b"hal_relay_" not in line
    told = decode_start(line)
    assert told.settings.upstream.key is None
    assert told.settings.model_copy(update={"upstream": settings.upstream}) == settings
    assert SECRET not in repr(start)
