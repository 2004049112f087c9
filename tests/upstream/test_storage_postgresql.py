"""What a PostgreSQL can do to its upstream: be away, be slow, be somebody else's; and what the upstream says then."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, make_url, text

from relay.errors import BadSettings
from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, engine_at, postgresql_only, url_of
from tests.upstream.rig import SeededEntropy, template_fixture  # noqa: F401 - used by name
from upstream import data_dir
from upstream.settings import Auth, UpstreamSettings
from upstream.settings import Database as DatabaseSettings
from upstream.storage.database import Database, Unavailable, bring_up_to_date, open_database
from upstream.storage.history import lineage
from upstream.storage.view import StoredView

pytestmark = postgresql_only("it is about connections to a server")


def settings(url: str, **auth: Any) -> UpstreamSettings:
    return UpstreamSettings(database=DatabaseSettings(url=SecretStr(url)), auth=Auth(**auth))


@pytest.fixture
async def database(template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A database of its own, with little patience."""
    with closing(Database(url_of(copy_of(template, tmp_path)), busy_timeout_s=0.2)) as opened:
        yield opened


def kill_others(connection: Connection) -> None:
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
    connection.execute(text(f"{others} pg_backend_pid()"))


async def test_cut_connections_are_replaced_before_they_are_used(database: Database, tmp_path: Path) -> None:
    """After a restart of the server nobody's request meets a connection of before."""
    before = await database.read(lineage)
    await database.write(lambda _: None)
    engine = engine_at(tmp_path / "halyard.db")
    with engine.begin() as connection:
        kill_others(connection)
    engine.dispose()
    assert await database.read(lineage) == before
    assert await database.write(lineage) == before


async def test_a_connection_that_is_cut_at_work_is_told_once(database: Database) -> None:
    """The write that loses its connection is refused, and nothing of it is stored; the next one goes through."""

    def cut(connection: Connection) -> None:
        connection.execute(text("UPDATE organisations SET name = 'Lost'"))
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        await database.write(cut)
    name = await database.write(lambda c: c.execute(text("SELECT name FROM organisations")).scalar_one())
    assert name == "Acme"


async def test_nobody_waits_for_ever(database: Database, tmp_path: Path) -> None:
    """A lock that somebody holds on to is waited for as long as the settings say."""
    engine = engine_at(tmp_path / "halyard.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE organisations SET name = 'Held'"))
        with pytest.raises(Unavailable, match="lock timeout"):
            await database.write(lambda c: c.execute(text("UPDATE organisations SET name = 'Wanted'")))
    engine.dispose()


async def test_writers_work_at_the_same_time(database: Database) -> None:
    """As many as there are threads for: each waits for the others to have begun."""
    met, loop = asyncio.Barrier(4), asyncio.get_running_loop()

    async def arrive() -> None:
        await met.wait()

    def work(_: Connection) -> None:
        asyncio.run_coroutine_threadsafe(arrive(), loop).result(10)

    await asyncio.gather(*(database.write(work) for _ in range(4)))


async def test_a_read_sees_one_moment(database: Database) -> None:
    """What commits while a read goes on is not seen by its second half."""
    loop = asyncio.get_running_loop()
    name = text("SELECT name FROM organisations")
    rename = text("UPDATE organisations SET name = 'Other'")

    async def renamed() -> None:
        await database.write(lambda c: c.execute(rename).rowcount)

    def read(connection: Connection) -> list[str]:
        first = connection.execute(name).scalar_one()
        asyncio.run_coroutine_threadsafe(renamed(), loop).result(10)
        return [first, connection.execute(name).scalar_one()]

    assert await database.read(read) == ["Acme", "Acme"]
    assert await database.read(lambda c: c.execute(name).scalar_one()) == "Other"


async def test_a_reference_with_nul_is_not_found(database: Database) -> None:
    """PostgreSQL has no such character, so that nothing can be named by it; it is no error either."""
    assert await database.read(lambda c: StoredView(c).project("x\x00", "shop\x00")) is None


def test_processes_that_start_at_once_migrate_once(tmp_path: Path) -> None:
    """One makes the schema, the others wait and find it; all see the same lineage."""
    url = url_of(tmp_path / "new.db")

    def start(seed: int) -> str:
        return bring_up_to_date(url, clock=FakeClock(), entropy=SeededEntropy(seed))

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(start, range(4))) == {"0003"}
    engine = engine_at(tmp_path / "new.db")
    with engine.begin() as connection:
        assert len(connection.execute(text("SELECT id FROM lineage")).all()) == 1
    engine.dispose()


async def test_the_owner_of_the_database_needs_no_more_rights(tmp_path: Path) -> None:
    """A role that owns its database and is nothing else can migrate, write and tell the epoch."""
    empty = make_url(url_of(tmp_path / "owned.db"))
    engine = engine_at(tmp_path / "owned.db")
    role = f"r_{empty.database}"
    try:
        with engine.begin() as connection:
            connection.execute(text(f"CREATE ROLE {role} LOGIN NOSUPERUSER"))
            connection.execute(text(f"ALTER DATABASE {empty.database} OWNER TO {role}"))
        mine = empty.set(username=role).render_as_string(hide_password=False)
        with closing(open_database(mine, clock=FakeClock(), entropy=SeededEntropy())) as opened:
            assert (await opened.write(lineage)).endswith("-00000001")
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"REASSIGN OWNED BY {role} TO CURRENT_USER"))
            connection.execute(text(f"DROP ROLE {role}"))
        engine.dispose()


def test_one_process_founds_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else wants to waits until it has, or gives up after its patience."""
    ours = settings(url_of(tmp_path / "new.db"))
    monkeypatch.setattr(data_dir, "INSTALLING_S", 0.05)
    with data_dir.installing(ours), pytest.raises(BadSettings, match="lock timeout"), data_dir.installing(ours):
        pass
    with data_dir.installing(ours):
        pass
