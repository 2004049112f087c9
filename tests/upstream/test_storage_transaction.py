"""One command is one transaction: everything it writes, or nothing."""

import asyncio
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import orjson
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from relay.protocol.decode import BadMessage
from relay.protocol.state import advance
from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, dump, url_of
from tests.upstream.rig import (
    Bang,
    Rig,
    SeededEntropy,
    failing_at,
    rig_fixture,  # noqa: F401 - the fixtures are used by name
    template_fixture,  # noqa: F401
)
from upstream.domain.access_commands import (
    CreateKey,
)
from upstream.domain.commands import (
    Batch,
    ConfigFields,
    CreateEnvironment,
    CreateFlag,
    CreateProject,
    ToggleFlag,
    UpdateFlag,
)
from upstream.domain.entities import CredentialKind, Flag
from upstream.domain.facts import Facts
from upstream.domain.permissions import system_actor
from upstream.storage import database as database_module
from upstream.storage import tables
from upstream.storage.database import ATTEMPTS, Database, Unavailable, open_database
from upstream.storage.errors import Stale
from upstream.storage.history import compact, heads, lineage, read_changes, read_snapshot
from upstream.storage.locks import is_of_one_project
from upstream.storage.records import save
from upstream.storage.transaction import carry_out, expire_credentials

COMMANDS = (
    CreateFlag(project="shop", key="x", config=ConfigFields(enabled=True)),
    CreateEnvironment(project="shop", key="qa"),
    CreateKey(kind=CredentialKind.RELAY),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_fault_at_any_statement_leaves_nothing(rig: Rig, command: CreateFlag) -> None:
    """Whichever statement fails, the database is as it was; without a fault the command goes through."""
    before = rig.dump()
    for statement in range(1000):
        heal = failing_at(rig.engine, statement)
        try:
            rig.do(command)
        except Bang:
            assert rig.dump() == before
        else:
            break
        finally:
            heal()
    assert statement > 5
    assert rig.dump() != before


def test_a_command_writes_entity_revision_change_and_audit_together(rig: Rig) -> None:
    """After one command all four can be read, and they name each other."""
    done = rig.do(CreateFlag(project="shop", key="x"))
    environment = rig.environment()
    changes = rig.look(lambda connection: read_changes(connection, environment.id, 1))
    assert done.audit is not None
    assert done.audit.revisions[environment.id] == environment.revision == 2
    assert changes is not None
    assert [(change.from_revision, change.revision) for change in changes] == [(1, 2)]
    assert changes[0].upsert_flags == dict(rig.state().flags)
    assert changes[0].content_hash == environment.content_hash
    assert changes[0].epoch == rig.look(lineage)


def test_invisible_changes_make_no_revision_and_keep_the_object(rig: Rig) -> None:
    """A description is audited, but not published; the object's version is the revision of its last visible change."""
    rig.do(CreateFlag(project="shop", key="x"))
    rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    before = rig.state()
    done = rig.do(UpdateFlag(project="shop", flag="x", description="new", tags=["t"], owner="me"))
    assert (done.revisions, done.audit is not None) == ({}, True)
    assert rig.state() == before
    assert [orjson.loads(rig.state(key).flags["x"])["version"] for key in ("production", "staging")] == [3, 2]


def test_changes_lead_from_any_kept_revision_to_the_head(rig: Rig) -> None:
    """The log is exact: applying it to an old state gives the new one, hash included."""
    rig.do(CreateFlag(project="shop", key="x"))
    before = rig.state()
    for _ in range(5):
        rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    rig.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    changes = rig.look(lambda connection: read_changes(connection, before.ref.id, before.revision))
    assert changes is not None
    state = before
    for change in changes:
        state = advance(state, change)
    assert state == rig.state()
    part = rig.look(lambda connection: read_changes(connection, before.ref.id, 3, 5))
    assert part is not None
    assert [change.revision for change in part] == [4, 5]


def test_the_log_answers_none_beyond_its_window(rig: Rig) -> None:
    """Compaction keeps a dense end; what is older, ahead of the head or unknown is None, the head itself is empty."""
    rig.do(CreateFlag(project="shop", key="x"))
    for _ in range(10):
        rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    environment = rig.environment()

    def after(revision: int) -> int | None:
        found = rig.look(lambda connection: read_changes(connection, environment.id, revision))
        return None if found is None else len(found)

    assert environment.revision == 12
    assert (after(0), after(1), after(12), after(13)) == (None, 11, 0, None)
    assert rig.look(lambda connection: compact(connection, rig.clock.wall_ms(), keep_revisions=4)) == 7
    assert (after(7), after(8), after(12)) == (None, 4, 0)
    assert rig.look(lambda connection: read_changes(connection, "nowhere", 0)) is None


def test_old_changes_are_compacted_by_age(rig: Rig) -> None:
    """A change set older than the window goes; what stays is dense, also after the clock jumped back."""
    toggle = ToggleFlag(project="shop", flag="x", environment="production")
    rig.do(CreateFlag(project="shop", key="x"))
    rig.clock.jump_wall(1000)
    rig.do(toggle)

    def kept(now_ms: int) -> list[int]:
        rig.look(lambda connection: compact(connection, now_ms, keep_ms=200))
        revisions = text("SELECT revision FROM change_log WHERE environment_id = :id ORDER BY revision")
        production = {"id": rig.environment().id}
        return rig.look(lambda connection: list(connection.execute(revisions, production).scalars()))

    assert kept(rig.clock.wall_ms()) == [3]
    rig.clock.jump_wall(-5000)
    rig.do(toggle)
    # Revision 4 is older by the clock than revision 3: keeping 3 alone would leave a log that ends before the head.
    assert kept(rig.clock.wall_ms() + 5000) == []


def test_expired_keys_leave_the_stream(rig: Rig) -> None:
    """Once its time has come a key is taken out of every environment, once."""
    expires_at = rig.clock.wall_ms() + 1000
    for _ in range(25):
        rig.do(CreateKey(kind=CredentialKind.RELAY, expires_at=expires_at))
    assert rig.look(lambda connection: expire_credentials(connection, expires_at - 1)) == {}
    assert len(rig.look(lambda connection: expire_credentials(connection, expires_at))) == 3
    assert rig.state().credentials == {}
    assert rig.look(lambda connection: expire_credentials(connection, expires_at)) == {}


def test_damage_in_the_database_is_named(rig: Rig) -> None:
    """A log entry that is no change set, and a flag without its config, are told and not guessed at."""
    rig.do(CreateFlag(project="shop", key="x"))
    environment = rig.environment()
    assert rig.look(lambda connection: read_snapshot(connection, "nowhere")) is None
    rig.look(lambda connection: connection.execute(tables.change_log.update().values(body=b"{}")))
    with pytest.raises(BadMessage):
        rig.look(lambda connection: read_changes(connection, environment.id, 1))
    rig.look(lambda connection: connection.execute(text("DELETE FROM flag_configs")))
    rejected = rig.refused(ToggleFlag(project="shop", flag="x", environment="production"))
    assert rejected.code == "flag_not_found"


def test_two_writers_of_one_version_cannot_both_win(rig: Rig) -> None:
    """Writing an entity whose stored version has moved on is refused by the statement itself."""
    flag = rig.make(CreateFlag(project="shop", key="x"))
    assert isinstance(flag, Flag)
    rig.do(UpdateFlag(project="shop", flag="x", name="Y"))
    with pytest.raises(Stale):
        rig.look(lambda connection: save(connection, [replace(flag, version=2)]))


async def test_fifty_writers_make_dense_revisions(template: Path, tmp_path: Path) -> None:
    """Concurrent commands on one environment take one revision each, in order, without a hole."""
    database = Database(url_of(copy_of(template, tmp_path)))
    clock, entropy = FakeClock(), SeededEntropy(5)
    organisation_id = await database.read(
        lambda connection: str(connection.execute(text("SELECT id FROM organisations")).scalar_one()),
    )

    facts = Facts(now_ms=clock.wall_ms(), entropy=entropy, actor=system_actor(organisation_id))
    commands = [CreateFlag(project="shop", key=f"f{number}") for number in range(50)]

    try:
        await asyncio.gather(
            *(database.write(partial(carry_out, command=command, facts=facts)) for command in commands),
        )
        found = await database.read(heads)
        assert {head.revision for head in found} == {51}
        log = await database.read(
            lambda connection: connection.execute(
                text("SELECT environment_id, revision FROM change_log ORDER BY environment_id, revision"),
            ).all(),
        )
        for head in found:
            assert [revision for environment_id, revision in log if environment_id == head.ref.id] == list(range(2, 52))
    finally:
        database.close()


async def test_a_restart_keeps_everything(template: Path, tmp_path: Path) -> None:
    """Opening the same file again finds the same content and the same lineage."""
    url = url_of(copy_of(template, tmp_path))
    dumps = []
    for seed in (1, 2):
        database = open_database(url, clock=FakeClock(), entropy=SeededEntropy(seed))
        dumps.append(await database.read(dump))
        database.close()
    assert dumps[0] == dumps[1]


async def test_too_many_waiting_calls_are_refused(template: Path, tmp_path: Path) -> None:
    """The queue in front of the writer is bounded; what is refused was never started."""
    database = Database(url_of(copy_of(template, tmp_path)), max_waiting=2)
    try:
        results = await asyncio.gather(*(database.write(lambda _: None) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [type(None), type(None), *[Unavailable] * 3]
        await database.write(lambda _: None)
    finally:
        database.close()


async def test_readers_cannot_write(template: Path, tmp_path: Path) -> None:
    """The read side refuses a write, whoever made the mistake."""
    database = Database(url_of(copy_of(template, tmp_path)))
    try:
        with pytest.raises(Unavailable, match=r"read-?only"):
            await database.read(lambda connection: connection.execute(tables.lineage.delete()))
    finally:
        database.close()


async def test_whoever_commits_is_told_even_when_nobody_waits(template: Path, tmp_path: Path) -> None:
    """A caller that went away after its transaction began does not take the wake-up along."""
    database = Database(url_of(copy_of(template, tmp_path)))
    told, began, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(_: Connection) -> None:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(timeout=5)

    try:
        caller = asyncio.create_task(database.write(work, lambda _: told.set()))
        await began.wait()
        caller.cancel()
        go_on.set()
        await asyncio.wait_for(told.wait(), timeout=5)
    finally:
        database.close()


async def test_work_that_never_goes_through_is_given_up(
    template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded number of attempts the caller is told to come back later."""
    monkeypatch.setattr(database_module, "_PAUSE_S", 0)
    attempts: list[Connection] = []

    def stale(connection: Connection) -> None:
        attempts.append(connection)
        raise Stale("moved on")

    with closing(Database(url_of(copy_of(template, tmp_path)))) as database:
        with pytest.raises(Unavailable):
            await database.write(stale)
        assert len(attempts) == ATTEMPTS
        # What is no race is not tried again, and not called one.
        with pytest.raises(IntegrityError):
            await database.write(lambda c: c.execute(text("INSERT INTO projects (id) VALUES (NULL)")))


def test_which_commands_have_the_organisation_alone() -> None:
    """What names its project shares the organisation; anything else, alone or in a batch, has it alone."""
    toggle = ToggleFlag(project="shop", flag="x", environment="qa")
    key = CreateKey(kind=CredentialKind.SERVER, project="shop", environment="qa")
    relay = replace(key, kind=CredentialKind.RELAY, project=None, environment=None)
    assert is_of_one_project(Batch(commands=[toggle, key]))
    assert not is_of_one_project(Batch(commands=[toggle, relay]))
    assert not is_of_one_project(CreateProject(key="x"))
