"""Commands through the authority reach the store in process at once, and nothing is ever lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from relay.engine.evaluate import evaluate
from relay.engine.parse import InvalidConfig
from relay.sync.store import Origin, Store
from tests.clocks import FakeClock, settle
from tests.upstream.databases import copy_of, url_of
from tests.upstream.rig import SeededEntropy, template_fixture  # noqa: F401 - used by name
from upstream.authority import Authority, Outcome, SystemEntropy
from upstream.domain.access_commands import (
    CreateKey,
)
from upstream.domain.commands import (
    Command,
    CreateEnvironment,
    CreateFlag,
    DeleteEnvironment,
    DeleteProject,
    ToggleFlag,
    UpdateEnvironment,
)
from upstream.domain.entities import CredentialKind, Environment
from upstream.domain.errors import Rejected
from upstream.domain.permissions import system_actor
from upstream.notifier import POLL_S, Feed, Notifier, StoredHistory
from upstream.storage import tables
from upstream.storage.database import Database, Unavailable
from upstream.storage.history import lineage, renew_lineage
from upstream.storage.view import StoredView

DEADLINE_S = 5


@dataclass
class Upstream:
    """The authority with its store in process; the clock stands still, so nothing ever arrives by the poll."""

    database: Database
    clock: FakeClock
    notifier: Notifier
    store: Store
    feed: Feed
    authority: Authority
    organisation_id: str

    async def do(self, command: Command) -> Outcome:
        return await self.authority.execute(command, system_actor(self.organisation_id))

    async def environment(self, key: str = "production") -> Environment:
        def find(view: StoredView) -> Environment:
            project = view.project(self.organisation_id, "shop")
            assert project is not None
            return next(each for each in view.environments(project.id) if each.key == key)

        return await self.database.read(lambda connection: find(StoredView(connection)))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for the store, which tells of every swap."""
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda _: changed.set())
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not holds():
                    await changed.wait()
                    changed.clear()
        finally:
            unsubscribe()

    async def poll_until(self, holds: Callable[[], bool]) -> None:
        """Let time pass, one poll after the other: the feed may be busy with the last one when the next is due."""
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                await self.clock.advance(POLL_S)


@asynccontextmanager
async def opened(path: Path, *, max_environments: int = 256) -> AsyncIterator[Upstream]:
    database = Database(url_of(path))
    clock, notifier = FakeClock(), Notifier()
    store = Store(clock, max_environments=max_environments)
    feed = Feed(database, store, notifier, clock)
    organisation_id = await database.read(
        lambda connection: str(connection.execute(text("SELECT id FROM organisations")).scalar_one()),
    )
    authority = Authority(database, clock, SeededEntropy(7), notifier)
    await feed.load()
    task = asyncio.create_task(feed.run())
    try:
        yield Upstream(database, clock, notifier, store, feed, authority, organisation_id)
    finally:
        task.cancel()
        await asyncio.wait({task})
        database.close()
        assert task.cancelled()


def damage(connection: Connection, written: str, found: str) -> None:
    """Replace a text in every entry of the change log."""
    table = tables.change_log
    for row in connection.execute(table.select()).all():
        its = (table.c.environment_id == row.environment_id, table.c.revision == row.revision)
        body = row.body.replace(written.encode(), found.encode())
        connection.execute(table.update().where(*its).values(body=body))


@pytest.fixture
async def upstream(template: Path, tmp_path: Path) -> AsyncIterator[Upstream]:
    """A running authority on a database of its own."""
    async with opened(copy_of(template, tmp_path)) as running:
        yield running


async def test_a_commit_is_served_without_waiting_for_the_poll(upstream: Upstream) -> None:
    """The wake-up alone brings a change into the store: no time passes here."""
    outcome = await upstream.do(CreateFlag(project="shop", key="x"))
    await upstream.do(ToggleFlag(project="shop", flag="x", environment="production"))
    environment = await upstream.environment()
    assert outcome.revisions[environment.id] == 2
    await upstream.until(lambda: upstream.store.configurations[environment.id].revision == 3)
    assert upstream.clock.monotonic() == 0
    configuration = upstream.store.configurations[environment.id]
    assert evaluate(configuration.environment, "x", {"targetingKey": "u"}, 0).value is True
    changes = upstream.store.recent(environment.id, 1)
    assert changes is not None
    assert [change.revision for change in changes] == [2, 3]


async def test_a_lost_wake_up_costs_one_poll(upstream: Upstream) -> None:
    """A commit that nobody was told of is found by the next look."""
    environment = await upstream.environment()
    silent = Authority(upstream.database, upstream.clock, SystemEntropy(), Notifier())
    await silent.execute(CreateFlag(project="shop", key="x"), system_actor(upstream.organisation_id))
    assert upstream.store.configurations[environment.id].revision == 1
    await upstream.poll_until(lambda: upstream.store.configurations[environment.id].revision == 2)


async def test_environments_come_and_go_and_are_renamed(upstream: Upstream) -> None:
    """The store follows the set of environments, its keys included."""
    await upstream.do(CreateEnvironment(project="shop", key="qa"))
    environment = await upstream.environment("qa")
    await upstream.until(lambda: upstream.store.get(environment.id) is not None)
    await upstream.do(UpdateEnvironment(project="shop", environment="qa", name="Quality"))
    await upstream.until(lambda: upstream.store.configurations[environment.id].ref.name == "Quality")
    await upstream.do(DeleteEnvironment(project="shop", environment="qa"))
    await upstream.until(lambda: upstream.store.get(environment.id) is None)
    await upstream.do(DeleteProject(project="shop"))
    await upstream.until(lambda: not upstream.store.configurations)


async def test_keys_are_known_to_the_store_as_soon_as_they_exist(upstream: Upstream) -> None:
    """A new key authenticates in its environment, and is gone after its time."""
    expires_at = upstream.clock.wall_ms() + 1000
    made = await upstream.do(
        CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production", expires_at=expires_at),
    )
    fingerprint = getattr(made.entity, "hash", "")
    await upstream.until(lambda: len(upstream.store.credential(fingerprint)) == 1)
    upstream.clock.jump_wall(1000)
    await upstream.authority.keep_house()
    await upstream.until(lambda: upstream.store.credential(fingerprint) == [])


async def test_what_memory_lacks_is_read_whole(upstream: Upstream) -> None:
    """When the log no longer reaches back to what the store holds, the whole environment is read."""
    environment = await upstream.environment()
    silent = Authority(upstream.database, upstream.clock, SystemEntropy(), Notifier())
    for number in range(3):
        await silent.execute(CreateFlag(project="shop", key=f"f{number}"), system_actor(upstream.organisation_id))
    await upstream.authority.keep_house(keep_revisions=1)
    upstream.notifier.wake(environment.id, 4)
    await upstream.until(lambda: upstream.store.configurations[environment.id].revision == 4)
    assert upstream.store.recent(environment.id, 1) is None


async def test_a_restored_database_is_taken_up_with_its_epoch(upstream: Upstream) -> None:
    """Another lineage replaces what the store holds, even at a lower revision."""
    await upstream.do(CreateFlag(project="shop", key="x"))
    environment = await upstream.environment()
    await upstream.until(lambda: upstream.store.configurations[environment.id].revision == 2)
    before = await upstream.database.read(lineage)
    await upstream.database.write(lambda connection: renew_lineage(connection, "ffff", 1))
    after = await upstream.database.read(lineage)
    await upstream.poll_until(lambda: upstream.store.configurations[environment.id].state.epoch == after)
    assert (after != before, after.partition("-")[0]) == (True, "ffff")


async def test_a_diverged_store_is_led_back(upstream: Upstream) -> None:
    """The same revision with another hash is replaced by what is stored."""
    environment = await upstream.environment()
    change = "UPDATE environments SET content_hash = '00000000000000000000000000000001' WHERE id = :id"
    await upstream.database.write(lambda connection: connection.execute(text(change), {"id": environment.id}))
    wanted = "00000000000000000000000000000001"
    await upstream.poll_until(lambda: upstream.store.configurations[environment.id].state.content_hash == wanted)


async def test_the_store_is_confirmed_by_each_look(upstream: Upstream) -> None:
    """Its age is counted from the last comparison with the database."""
    assert upstream.store.origin is Origin.UPSTREAM
    assert upstream.store.age_s() == 0
    before = upstream.store.last_bookmark
    assert before is not None
    await upstream.poll_until(lambda: upstream.store.last_bookmark != before)


async def test_endless_wake_ups_do_not_keep_the_floor_away(upstream: Upstream) -> None:
    """When the floor is due, a wake-up of one environment looks at everything, and the store is confirmed."""
    before = upstream.store.last_bookmark
    environment = await upstream.environment()
    upstream.clock._monotonic += POLL_S  # time passes, but no sleeper is woken
    upstream.notifier.wake(environment.id, 1)
    async with asyncio.timeout(DEADLINE_S):
        while upstream.store.last_bookmark == before:
            await settle()


async def test_what_the_store_cannot_take_is_noted(template: Path, tmp_path: Path) -> None:
    """An environment beyond the store's limit is refused with the reason, and the others are served."""
    async with opened(copy_of(template, tmp_path), max_environments=2) as running:
        assert len(running.store.configurations) == 2
        assert [refused.path for refused in running.feed.refused.values()] == ["environment"]
        assert running.store.age_s() == 0


async def test_the_feed_outlives_a_database_that_is_away(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database cannot be read the feed waits; the next look finds everything."""
    environment = await upstream.environment()
    read = upstream.database.read
    failed = asyncio.Event()

    async def away(_: object) -> None:
        failed.set()
        raise Unavailable("away")

    monkeypatch.setattr(upstream.database, "read", away)
    await upstream.do(CreateFlag(project="shop", key="x"))
    await asyncio.wait_for(failed.wait(), DEADLINE_S)
    monkeypatch.setattr(upstream.database, "read", read)
    await upstream.poll_until(lambda: upstream.store.configurations[environment.id].revision == 2)


async def test_history_gives_exactly_what_was_asked_for_or_nothing(upstream: Upstream) -> None:
    """A follower that was away longer than memory reaches gets its missing revisions from the log."""
    for number in range(4):
        await upstream.do(CreateFlag(project="shop", key=f"f{number}"))
    environment = await upstream.environment()
    history = StoredHistory(upstream.database)
    kept = await history.changes(environment.id, 2, 4)
    assert kept is not None
    assert [change.revision for change in kept] == [3, 4]
    assert await history.changes(environment.id, 5, 5) == ()
    assert await history.changes(environment.id, 0, 5) is None
    assert await history.changes(environment.id, 4, 9) is None


async def test_a_refused_command_wakes_nobody(upstream: Upstream) -> None:
    """Rejection is raised to the caller, and no wake-up is sent."""
    with pytest.raises(Rejected):
        await upstream.do(CreateFlag(project="nowhere", key="x"))
    assert upstream.notifier.take() == ({}, False)


async def test_a_command_that_changes_nothing_has_no_audit_entry(upstream: Upstream) -> None:
    """The outcome still shows the entity."""
    await upstream.do(CreateFlag(project="shop", key="x"))
    toggle = ToggleFlag(project="shop", flag="x", environment="production", enabled=False)
    outcome = await upstream.do(toggle)
    assert (outcome.audit_id, dict(outcome.revisions), outcome.entities) == (None, {}, ())
    assert getattr(outcome.entity, "enabled", None) is False


@pytest.mark.parametrize(("written", "found"), [('"from":1', '"from":0'), ('"hash":"', '"hash":"0000'), ('"to":2', "")])
async def test_a_damaged_log_entry_is_replaced_by_the_whole(upstream: Upstream, written: str, found: str) -> None:
    """What cannot be read, or cannot follow what is held, is not applied; the environment is read instead."""
    environment = await upstream.environment()
    silent = Authority(upstream.database, upstream.clock, SystemEntropy(), Notifier())
    await silent.execute(CreateFlag(project="shop", key="x"), system_actor(upstream.organisation_id))
    await upstream.database.write(lambda connection: damage(connection, written, found))
    upstream.notifier.wake(environment.id, 2)
    await upstream.until(lambda: upstream.store.configurations[environment.id].revision == 2)
    assert upstream.store.recent(environment.id, 1) is None
    assert await StoredHistory(upstream.database).changes(environment.id, 1, 2) is None


async def test_a_log_of_another_content_is_not_applied(upstream: Upstream) -> None:
    """An entry whose hash is not what it leads to asks for the whole environment."""
    environment = await upstream.environment()
    silent = Authority(upstream.database, upstream.clock, SystemEntropy(), Notifier())
    await silent.execute(CreateFlag(project="shop", key="x"), system_actor(upstream.organisation_id))
    await upstream.database.write(lambda connection: damage(connection, "false", "true"))
    upstream.notifier.wake(environment.id, 2)
    await upstream.until(lambda: upstream.store.configurations[environment.id].revision == 2)
    assert upstream.store.configurations[environment.id].environment.flags["x"].enabled is False


async def test_what_the_engine_refuses_is_noted_and_the_last_good_is_served(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A committed flag that cannot be parsed changes nothing in the store, and is taken once it can be."""
    environment = await upstream.environment()

    def refuse(key: str, _: object) -> None:
        raise InvalidConfig(f"flags.{key}", "is too new")

    with monkeypatch.context() as patched:
        patched.setattr("relay.sync.configuration.parse_flag", refuse)
        await upstream.do(CreateFlag(project="shop", key="x"))
        async with asyncio.timeout(DEADLINE_S):
            while environment.id not in upstream.feed.refused:
                await settle()
        assert upstream.feed.refused[environment.id].reason == "is too new"
        assert upstream.store.configurations[environment.id].revision == 1
    await upstream.poll_until(lambda: not upstream.feed.refused)
    assert upstream.store.configurations[environment.id].revision == 2


async def test_an_environment_deleted_during_a_look_is_no_fault(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when the look began and is gone when it is read: the next look finds out."""
    await upstream.do(CreateEnvironment(project="shop", key="qa"))
    environment = await upstream.environment("qa")
    await upstream.until(lambda: upstream.store.get(environment.id) is not None)
    before = upstream.store.last_bookmark
    with monkeypatch.context() as patched:
        patched.setattr("upstream.notifier.read_snapshot", lambda _connection, environment_id: environment_id and None)
        upstream.store.remove(environment.id)
        upstream.clock._monotonic += POLL_S
        await upstream.feed.load()
        assert upstream.store.last_bookmark == before
    await upstream.poll_until(lambda: upstream.store.get(environment.id) is not None)
