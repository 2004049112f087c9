"""Several writers on PostgreSQL: what one decides by is not changed under it, and the second is told the truth."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, text

from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, engine_at, postgresql_only, url_of
from tests.upstream.rig import SeededEntropy, template_fixture  # noqa: F401 - used by name
from upstream.api import sign_in_store
from upstream.authority import Authority
from upstream.domain.access_commands import (
    CreateKey,
    CreateMember,
    CreateOrganisation,
    DeleteMember,
    Found,
    RevokeKey,
    UpdateMember,
)
from upstream.domain.commands import (
    Command,
    CreateEnvironment,
    CreateFlag,
    CreateProject,
    CreateSegment,
    DeleteEnvironment,
    DeleteProject,
    UpdateFlag,
)
from upstream.domain.entities import CredentialKind, RefreshToken, Role
from upstream.domain.errors import Kind, Rejected
from upstream.domain.facts import Facts
from upstream.domain.permissions import system_actor
from upstream.notifier import Notifier
from upstream.storage.database import Database, bring_up_to_date
from upstream.storage.history import read_snapshot
from upstream.storage.transaction import carry_out, expire_credentials
from upstream.storage.view import StoredView

T = TypeVar("T")
Work = Callable[[Connection], T]
DEADLINE_S = 10.0

pytestmark = postgresql_only("SQLite has one writer")


class Crossing:
    """Two transactions of which the second begins when the first has done all but commit."""

    def __init__(self, path: Path) -> None:
        self.engine = engine_at(path)
        self.database = Database(url_of(path))
        self.clock = FakeClock()
        self._entropy = SeededEntropy(11)
        with self.engine.begin() as connection:
            found = connection.execute(text("SELECT id FROM organisations")).scalar_one_or_none()
            self.organisation_id = found or ""

    def close(self) -> None:
        self.database.close()
        self.engine.dispose()

    def work(self, command: Command, organisation_id: str | None = None) -> Work[Any]:
        actor = system_actor(organisation_id or self.organisation_id)
        facts = Facts(now_ms=self.clock.wall_ms(), entropy=self._entropy, actor=actor)
        return lambda connection: carry_out(connection, command, facts).decision.entity

    async def do(self, command: Command, organisation_id: str | None = None) -> Any:
        return await self.database.write(self.work(command, organisation_id))

    async def cross(self, first: Command | Work[Any], second: Command | Work[T]) -> Any:
        """Return what the second comes to, which waits for the first."""
        works = [each if callable(each) else self.work(each) for each in (first, second)]
        with self.engine.begin() as connection:
            works[0](connection)
            later = asyncio.ensure_future(self.database.write(works[1]))
            await self._until_waiting(later)
        return await asyncio.wait_for(later, DEADLINE_S)

    async def refused(self, first: Command | Work[Any], second: Command | Work[Any]) -> Rejected:
        with pytest.raises(Rejected) as caught:
            await self.cross(first, second)
        return caught.value

    async def _until_waiting(self, later: "asyncio.Future[Any]") -> None:
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
        async with asyncio.timeout(DEADLINE_S):
            while not await self.database.read(lambda c: c.execute(text(waiting)).scalar_one()):
                assert not later.done(), f"it did not wait: {later!r}"
                await asyncio.sleep(0.001)

    async def see(self, work: Callable[[StoredView], T]) -> T:
        return await self.database.read(lambda connection: work(StoredView(connection)))

    async def environment_id(self, key: str) -> str:
        def find(view: StoredView) -> str:
            project = view.project(self.organisation_id, "shop")
            assert project is not None
            return next(each.id for each in view.environments(project.id) if each.key == key)

        return await self.see(find)

    async def published(self, environment: str) -> Any:
        environment_id = await self.environment_id(environment)
        return await self.database.read(lambda connection: read_snapshot(connection, environment_id))


@pytest.fixture
async def crossing(template: Path, tmp_path: Path) -> AsyncIterator[Crossing]:
    """Two transactions on a database of their own."""
    with closing(Crossing(copy_of(template, tmp_path))) as made:
        yield made


@pytest.mark.parametrize("is_flag_first", [True, False])
async def test_a_new_flag_and_a_new_environment_have_their_config(crossing: Crossing, *, is_flag_first: bool) -> None:
    """Neither overlooks the other: the flag has a config in every environment, and is published there."""
    both: tuple[Command, Command] = CreateFlag(project="shop", key="x"), CreateEnvironment(project="shop", key="qa")
    await crossing.cross(*(both if is_flag_first else both[::-1]))

    def configured(view: StoredView) -> tuple[int, int]:
        project = view.project(crossing.organisation_id, "shop")
        assert project is not None
        flag = view.flag(project.id, "x")
        assert flag is not None
        return len(view.environments(project.id)), len(view.configs(flag.id))

    assert await crossing.see(configured) == (4, 4)
    assert set((await crossing.published("qa")).flags) == {"x"}


@pytest.mark.parametrize("is_key_first", [True, False])
async def test_a_new_relay_key_and_a_new_environment_know_each_other(crossing: Crossing, *, is_key_first: bool) -> None:
    """A key of the whole organisation is published in an environment that is made at the same moment."""
    both: tuple[Command, Command] = CreateKey(kind=CredentialKind.RELAY), CreateEnvironment(project="shop", key="qa")
    await crossing.cross(*(both if is_key_first else both[::-1]))
    assert len((await crossing.published("qa")).credentials) == 1


async def test_what_was_deleted_meanwhile_is_not_found(crossing: Crossing) -> None:
    """A command on something that is being deleted waits, and then says that it is not there."""
    key = await crossing.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="staging"))
    gone = await crossing.refused(
        DeleteEnvironment(project="shop", environment="staging"), RevokeKey(credential=key.id)
    )
    assert gone.kind is Kind.NOT_FOUND
    gone = await crossing.refused(DeleteProject(project="shop"), CreateFlag(project="shop", key="x"))
    assert gone.code == "project_not_found"


async def test_of_two_who_saw_one_version_the_second_is_told(crossing: Crossing) -> None:
    """If-Match holds also when the other commits in between: 412 with what is there now."""
    await crossing.do(CreateFlag(project="shop", key="x"))
    refused = await crossing.refused(
        UpdateFlag(project="shop", flag="x", name="First", if_match=1),
        UpdateFlag(project="shop", flag="x", name="Second", if_match=1),
    )
    assert (refused.kind, refused.expected, getattr(refused.current, "name", "")) == (Kind.PRECONDITION, 1, "First")


async def test_no_update_is_lost(crossing: Crossing) -> None:
    """Without If-Match both count: the second changes what the first has left."""
    await crossing.do(CreateFlag(project="shop", key="x"))
    flag = await crossing.cross(
        UpdateFlag(project="shop", flag="x", name="First"), UpdateFlag(project="shop", flag="x", tags=["second"])
    )
    assert (flag.name, flag.tags, flag.version) == ("First", ("second",), 3)


@pytest.mark.parametrize(
    "command",
    [
        CreateFlag(project="shop", key="x"),
        CreateSegment(project="shop", key="x", name="X"),
        CreateEnvironment(project="shop", key="x"),
        CreateProject(key="x"),
    ],
)
async def test_of_two_who_take_one_key_the_second_is_told(crossing: Crossing, command: Command) -> None:
    """An explicit duplicate is a conflict also when both ask at once; nobody sees an error of the database."""
    refused = await crossing.refused(command, command)
    assert (refused.kind, refused.code) == (Kind.CONFLICT, "key_taken")


async def test_a_generated_key_gives_way(crossing: Crossing) -> None:
    """Two flags of one name at once: the second's key is the next free one."""
    flag = await crossing.cross(CreateFlag(project="shop", name="Big"), CreateFlag(project="shop", name="Big"))
    assert flag.key == "big_2"


async def test_an_address_is_unique_over_organisations_which_share_no_lock(crossing: Crossing) -> None:
    """Where only the unique index tells, the command is decided again, and refused as it would have been later."""
    rival = await crossing.do(CreateOrganisation(name="Rival"))
    member = CreateMember(email="ada@acme.example")
    refused = await crossing.refused(member, crossing.work(member, rival.id))
    assert refused.code == "email_taken"


async def test_the_last_owner_stays(crossing: Crossing) -> None:
    """Of two owners who are removed at once, one remains."""
    for name in "ab":
        await crossing.do(CreateMember(email=f"{name}@acme.example", role=Role.OWNER))
    refused = await crossing.refused(DeleteMember(member="a@acme.example"), DeleteMember(member="b@acme.example"))
    assert refused.code == "last_owner"
    assert len(await crossing.see(lambda view: view.owners(crossing.organisation_id))) == 1


async def test_one_owner_is_the_first(tmp_path: Path) -> None:
    """Two who set up an empty installation at once: the second is told that somebody is here."""
    bring_up_to_date(url_of(tmp_path / "empty.db"), clock=FakeClock(), entropy=SeededEntropy())
    with closing(Crossing(tmp_path / "empty.db")) as crossing:
        found = Found(organisation="Acme", email="ada@acme.example", name="Ada", password_hash="hash")
        refused = await crossing.refused(found, found)
        assert refused.code == "already_set_up"


def token_of(member_id: str, name: str) -> RefreshToken:
    return RefreshToken(
        id=name, member_id=member_id, family="family", hash=name, issued_at=1, expires_at=1 << 50, used_at=None,
        revoked_at=None,
    )  # fmt: skip


async def test_a_refresh_token_is_used_once(crossing: Crossing) -> None:
    """Two who present it at once: one is renewed, then the other ends the whole sign-in."""
    member = await crossing.do(CreateMember(email="ada@acme.example", password_hash="old"))
    await crossing.database.write(lambda c: sign_in_store.begin(c, member, token_of(member.id, "first")))

    def renew(name: str) -> Work[Any]:
        return lambda c: sign_in_store.renew(c, "first", token_of(member.id, name), 2)

    assert await crossing.cross(renew("second"), renew("third")) is None
    assert not await crossing.database.read(lambda c: sign_in_store.is_open(c, "family", member.id))


@pytest.mark.parametrize("is_change_first", [True, False])
async def test_no_sign_in_outlives_the_password(crossing: Crossing, *, is_change_first: bool) -> None:
    """Whoever signs in, or renews, while the password is changed is signed out, whoever commits first."""
    member = await crossing.do(CreateMember(email="ada@acme.example", password_hash="old"))
    change = crossing.work(UpdateMember(member=member.id, password_hash="new"))

    def begin(connection: Connection) -> bool:
        return sign_in_store.begin(connection, member, token_of(member.id, "first"))

    await crossing.cross(*((change, begin) if is_change_first else (begin, change)))
    assert not await crossing.database.read(lambda c: sign_in_store.is_open(c, "family", member.id))


@pytest.mark.parametrize("ends", ["signing out", "the password"])
async def test_a_renewal_does_not_survive_the_end_of_its_sign_in(crossing: Crossing, ends: str) -> None:
    """What a renewal adds while the sign-in ends is ended with it."""
    member = await crossing.do(CreateMember(email="ada@acme.example", password_hash="old"))
    await crossing.database.write(lambda c: sign_in_store.begin(c, member, token_of(member.id, "first")))
    end: Work[Any] = (
        (lambda c: sign_in_store.end(c, "family", 3))
        if ends == "signing out"
        else crossing.work(UpdateMember(member=member.id, password_hash="new"))
    )
    await crossing.cross(lambda c: sign_in_store.renew(c, "first", token_of(member.id, "second"), 2), end)
    assert not await crossing.database.read(lambda c: sign_in_store.is_open(c, "family", member.id))


async def test_a_key_that_is_prolonged_stays_in_the_streams(crossing: Crossing) -> None:
    """Housekeeping of any upstream looks again at a key whose time is being changed."""
    now_ms = crossing.clock.wall_ms()
    key = await crossing.do(CreateKey(kind=CredentialKind.RELAY, expires_at=now_ms + 1000))
    prolong = text("UPDATE credentials SET expires_at = expires_at + 1000000")
    revisions = await crossing.cross(
        lambda connection: connection.execute(prolong), lambda connection: expire_credentials(connection, now_ms + 1000)
    )
    assert revisions == {}
    assert set((await crossing.published("production")).credentials) == {key.id}


async def test_the_housekeeping_of_two_upstreams_takes_out_a_key_once(crossing: Crossing) -> None:
    """The second finds what the first has left: nothing to do."""
    expires_at = crossing.clock.wall_ms() + 1000
    await crossing.do(CreateKey(kind=CredentialKind.RELAY, expires_at=expires_at))
    found = await crossing.cross(
        lambda connection: expire_credentials(connection, expires_at),
        lambda connection: expire_credentials(connection, expires_at),
    )
    assert found == {}
    assert (await crossing.published("production")).revision == 3


async def test_who_waits_for_each_other_is_done_again(crossing: Crossing) -> None:
    """PostgreSQL ends one of two that locked in opposite order; both come to their end all the same."""
    for key in ("a", "b"):
        await crossing.do(CreateProject(key=key))
    met = asyncio.Barrier(2)
    loop = asyncio.get_running_loop()
    began = {"a": 0, "b": 0}

    def locking(first: str, second: str) -> Work[None]:
        def work(connection: Connection) -> None:
            began[first] += 1
            view = StoredView(connection, is_deciding=True)
            view.project(crossing.organisation_id, first)
            if began[first] == 1:
                asyncio.run_coroutine_threadsafe(_passed(met), loop).result(DEADLINE_S)
            view.project(crossing.organisation_id, second)

        return work

    await asyncio.gather(crossing.database.write(locking("a", "b")), crossing.database.write(locking("b", "a")))
    assert sorted(began.values()) == [1, 2]


async def _passed(barrier: asyncio.Barrier) -> None:
    await barrier.wait()


async def test_a_preview_takes_nothing_from_anybody(crossing: Crossing) -> None:
    """A dry run waits its turn, as it shows what would be done in the state that it finds, and leaves nothing."""
    authority = Authority(crossing.database, crossing.clock, SeededEntropy(3), Notifier())
    actor = system_actor(crossing.organisation_id)
    preview = await authority.preview(CreateFlag(project="shop", key="x"), actor)
    assert await crossing.do(CreateFlag(project="shop", key="x"))
    assert preview.done.revisions
