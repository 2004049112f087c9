"""The chain over the audit log: whatever is done to what was sealed is named, and whatever is not is left alone."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from typer.testing import CliRunner

from tests.clocks import settle
from tests.stack import until
from tests.upstream.databases import sqlite_only, url_of
from tests.upstream.management import P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.cli import app
from upstream.domain.access_commands import (
    CreateOrganisation,
)
from upstream.domain.audit_chain import FaultKind, Mark, Report, Seal, Verifier, genesis, link, parse_mark
from upstream.domain.commands import (
    CreateFlag,
    ToggleFlag,
)
from upstream.domain.facts import Facts
from upstream.domain.permissions import system_actor
from upstream.sealing import FLOOR_S, PAUSE_S, Sealer, verified
from upstream.storage import audit_chain
from upstream.storage.database import Database, Unavailable
from upstream.storage.transaction import carry_out


def chain(count: int = 5) -> list[tuple[Seal, dict[str, Any]]]:
    """Return a chain of so many entries."""
    made: list[tuple[Seal, dict[str, Any]]] = []
    previous = genesis("org")
    for number in range(1, count + 1):
        row: dict[str, Any] = {
            "seq": number,
            "id": f"entry-{number}",
            "at": number * 1_000,
            "reason": None,
            "action": "flag.toggled",
        }
        previous = link(previous, row)
        made.append((Seal(number, row["id"], previous), row))
    return made


def report_of(links: list[Any], unsealed: tuple[Any, ...] = (), expected: Mark | None = None) -> Report:
    verifier = Verifier("org", expected)
    for seal, row in links:
        verifier.take(seal, row)
    return verifier.finish(unsealed)


def faults_of(links: list[Any], unsealed: tuple[Any, ...] = (), expected: Mark | None = None) -> list[Any]:
    return [(fault.kind, fault.number, fault.audit_id) for fault in report_of(links, unsealed, expected).faults]


def test_an_untouched_chain_is_intact() -> None:
    """New entries without a seal are counted, and are no fault."""
    links = chain()
    report = report_of(links, ({"id": "entry-6", "seq": 6, "at": 6_000},))
    assert report.is_intact
    assert (report.sealed, report.unsealed, report.head) == (5, 1, links[-1][0])
    assert report_of([]) == Report(sealed=0, unsealed=0, head=None, faults=())


def test_a_column_that_is_added_later_changes_no_hash() -> None:
    """As long as it has no value, which it cannot have in entries from before."""
    _, row = chain(1)[0]
    assert link(genesis("org"), {**row, "added_later": None}) == link(genesis("org"), row)
    assert link(genesis("org"), {**row, "added_later": ""}) != link(genesis("org"), row)
    assert link(genesis("other"), row) != link(genesis("org"), row)


@pytest.mark.parametrize("column", ["seq", "id", "at", "reason", "action"])
def test_a_changed_entry_is_named(column: str) -> None:
    """Whichever column it is; the entries around it are in order."""
    links = chain()
    seal, row = links[2]
    links[2] = seal, {**row, column: 99}
    assert faults_of(links) == [(FaultKind.CHANGED, 3, "entry-3")]


def test_a_removed_entry_is_named() -> None:
    """Its seal is left without an entry."""
    links: list[Any] = chain()
    links[2] = links[2][0], None
    assert faults_of(links) == [(FaultKind.REMOVED, 3, "entry-3")]


def test_an_entry_removed_with_its_seal_breaks_the_link() -> None:
    """The gap in the numbers shows; where they were closed, what follows does not fit."""
    links = chain()
    del links[2]
    assert faults_of(links) == [(FaultKind.BROKEN_LINK, 4, "entry-4")]
    closed = links[:2] + [(replace(seal, number=seal.number - 1), row) for seal, row in links[2:]]
    assert faults_of(closed) == [(FaultKind.CHANGED, 3, "entry-4")]


def test_exchanged_entries_are_named() -> None:
    """Both places are named, with what belongs there."""
    links = chain()
    (second, two), (fourth, four) = links[1], links[3]
    links[1] = replace(second, audit_id=fourth.audit_id), four
    links[3] = replace(fourth, audit_id=second.audit_id), two
    assert faults_of(links) == [(FaultKind.REORDERED, 2, "entry-4"), (FaultKind.REORDERED, 4, "entry-2")]
    assert "entry-2 belongs here" in report_of(links).faults[0].detail


def test_an_inserted_link_is_named() -> None:
    """Whoever puts an entry with a seal of its own between two others breaks the link to what follows."""
    links = chain()
    forged = {"seq": 3, "id": "forged", "at": 2_500, "action": "flag.killed"}
    moved = [(replace(seal, number=seal.number + 1), row) for seal, row in links[2:]]
    links[2:] = [(Seal(3, "forged", link(links[1][0].hash, forged)), forged), *moved]
    assert faults_of(links) == [(FaultKind.CHANGED, 4, "entry-3")]


def test_an_entry_put_among_sealed_ones_without_a_seal_is_named() -> None:
    """It stands before the newest sealed one and is much older; one that was slow to commit is none."""
    links = chain()
    links[-1][1]["at"] = 2_000_000
    links[-1] = Seal(5, "entry-5", link(links[-2][0].hash, links[-1][1])), links[-1][1]
    slipped = {"id": "slipped", "seq": 4, "at": 1_399_999}
    slow = {"id": "slow", "seq": 4, "at": 1_400_000}
    assert faults_of(links, (slipped, slow)) == [(FaultKind.INSERTED, None, "slipped")]


def test_a_forged_seal_is_named_with_the_link_that_it_breaks() -> None:
    """A seal's hash was changed: it fits neither its entry nor what follows."""
    links = chain()
    seal, row = links[2]
    links[2] = replace(seal, hash="0" * 64), row
    assert faults_of(links) == [(FaultKind.CHANGED, 3, "entry-3"), (FaultKind.BROKEN_LINK, 4, "entry-4")]


def test_a_cut_end_shows_against_a_mark() -> None:
    """By itself a chain that was cut is a shorter chain; a mark that was kept elsewhere tells."""
    links = chain()
    mark = Mark(5, links[-1][0].hash)
    assert report_of(links, expected=mark).is_intact
    assert report_of(chain(6), expected=mark).is_intact
    assert report_of(links[:3]).is_intact
    assert faults_of(links[:3], expected=mark) == [(FaultKind.UNEXPECTED_END, 5, None)]
    assert "cut off" in report_of(links[:3], expected=mark).faults[0].detail
    assert "made anew" in report_of(links, expected=Mark(5, "0" * 64)).faults[0].detail


def test_faults_are_named_up_to_a_limit() -> None:
    """Of a log that was destroyed as a whole, a hundred faults are named, and that there are more."""
    links: list[Any] = [(seal, None) for seal, _ in chain(150)]
    report = report_of(links)
    assert (len(report.faults), report.is_complete) == (100, False)
    changed = [(seal, {**row, "action": "x"}) for seal, row in chain(150)]
    assert (len(report_of(changed).faults), report_of(changed).is_complete) == (100, False)


@pytest.mark.parametrize("mark", ["", "1", "1:", ":" + "0" * 64, "x:" + "0" * 64, "1:" + "0" * 63, "1:" + "G" * 64])
def test_a_mark_is_a_number_and_a_hash(mark: str) -> None:
    """Anything else is refused with what it should be."""
    with pytest.raises(ValueError, match="NUMBER:HASH"):
        parse_mark(mark)
    assert parse_mark(f" 7:{'a' * 64}\n") == Mark(7, "a" * 64)


# In the database.


async def sealed(world: World) -> Report:
    """Seal everything of Acme, and verify it."""
    await Sealer(world.database, world.clock).seal()
    return await verified(world.database, world.acme)


async def tampered(world: World, statement: str, **values: Any) -> list[tuple[FaultKind, int | None]]:
    """Return what is wrong after somebody with access to the database did this to it."""
    await world.database.write(lambda c: c.execute(text(statement), values))
    report = await verified(world.database, world.acme)
    return [(fault.kind, fault.number) for fault in report.faults]


async def test_everything_that_was_committed_is_sealed_and_verifies(world: World) -> None:
    """Each organisation has a chain of its own, dense from 1 on."""
    before = await verified(world.database, world.acme)
    assert (before.sealed, before.head) == (0, None)
    report = await sealed(world)
    assert report.is_intact
    assert (report.sealed, report.unsealed) == (before.unsealed, 0)
    assert report.head is not None
    assert report.head.number == report.sealed
    rival = await verified(world.database, world.rival)
    assert rival.is_intact
    assert rival.sealed > 0
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    assert (await verified(world.database, world.acme)).unsealed == 1
    again = await sealed(world)
    assert again.is_intact
    assert again.sealed == report.sealed + 1


COLUMNS = [column.name for column in audit_chain._AUDIT.c]


@pytest.mark.parametrize("column", COLUMNS)
async def test_every_column_is_covered(world: World, column: str) -> None:
    """Whatever of an entry is changed in the database, the entry is named."""
    await sealed(world)
    value = 99_999 if column in {"seq", "at", "edge_at"} else '{"x": 1}' if column in {"changes", "revisions"} else "x"
    where = "id = (SELECT audit_id FROM audit_seals WHERE organisation_id = :org AND number = 3)"
    found = await tampered(world, f"UPDATE audit SET {column} = :value WHERE {where}", value=value, org=world.acme)
    assert found[0] == ((FaultKind.REMOVED if column == "id" else FaultKind.CHANGED), 3)
    assert len(found) == 1


async def test_what_is_done_to_seals_is_named(world: World) -> None:
    """Removed entries, removed seals, entries removed with their seals at the end."""
    report = await sealed(world)
    mine = "organisation_id = :org"
    number = "(SELECT audit_id FROM audit_seals WHERE organisation_id = :org AND number = 2)"
    assert await tampered(world, f"DELETE FROM audit WHERE id = {number}", org=world.acme) == [(FaultKind.REMOVED, 2)]
    assert await tampered(world, f"DELETE FROM audit_seals WHERE {mine} AND number IN (2, 3)", org=world.acme) == [
        (FaultKind.BROKEN_LINK, 4)
    ]
    assert report.sealed > 10


async def test_the_end_removed_with_its_seal_is_missed_by_the_history(world: World) -> None:
    """Every version of a flag names its audit entry, so that a cut end shows where it is about flags and segments."""
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    report = await sealed(world)
    assert report.head is not None
    cut = report.head
    await tampered(world, "DELETE FROM audit_seals WHERE audit_id = :id", id=cut.audit_id)
    assert await tampered(world, "DELETE FROM audit WHERE id = :id", id=cut.audit_id) == [(FaultKind.REMOVED, None)]
    against = await verified(world.database, world.acme, Mark(cut.number, cut.hash))
    assert FaultKind.UNEXPECTED_END in {fault.kind for fault in against.faults}


INSERT = """INSERT INTO audit (seq, id, organisation_id, at, actor_type, actor_name, action, target_type, target_id,
 changes, via, revisions) VALUES (:seq, 'forged', :org, :at, 'member', 'Olga', 'flag.killed', 'flag', 'x', '[]', 'api',
 '{}')"""


async def test_an_entry_put_in_later_is_never_sealed(world: World) -> None:
    """It stays without a seal and is named, also after the next start; what it takes the place of is named, too."""
    await world.clock.advance(3_600)
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    await sealed(world)
    second = "id = (SELECT audit_id FROM audit_seals WHERE organisation_id = :org AND number = 2)"
    seq = await world.database.read(
        lambda c: c.execute(text(f"SELECT seq FROM audit WHERE {second}"), {"org": world.acme}).scalar_one()
    )
    await tampered(world, f"DELETE FROM audit WHERE {second}", org=world.acme)
    at = world.clock.wall_ms() - 3_000_000
    found = [(FaultKind.REMOVED, 2), (FaultKind.INSERTED, None)]
    assert await tampered(world, INSERT, seq=seq, org=world.acme, at=at) == found
    report = await sealed(world)
    assert [(fault.kind, fault.number) for fault in report.faults] == found
    assert (report.faults[1].audit_id, report.unsealed) == ("forged", 1)


async def test_the_chain_goes_on_after_an_entry_was_removed(world: World) -> None:
    """Its newest entry is gone and is named; what comes later is sealed all the same."""
    report = await sealed(world)
    assert report.head is not None
    await tampered(world, "DELETE FROM audit WHERE id = :id", id=report.head.audit_id)
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    after = await sealed(world)
    assert after.sealed == report.sealed + 1
    assert [(fault.kind, fault.number) for fault in after.faults] == [(FaultKind.REMOVED, report.head.number)]


async def test_long_logs_are_sealed_and_verified_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction reads or writes more than a limited number of entries."""
    monkeypatch.setattr(audit_chain, "AT_ONCE", 3)
    report = await sealed(world)
    assert report.is_intact
    assert report.unsealed == 0
    assert report.sealed > 9


async def test_two_processes_seal_without_harm(world: World) -> None:
    """Both find the same entries; one of them is late, leaves nothing, and looks again."""
    one, other = Sealer(world.database, world.clock), Sealer(world.database, world.clock)
    await asyncio.gather(*(sealer.seal() for sealer in (one, other, one, other)))
    report = await verified(world.database, world.acme)
    assert report.is_intact
    assert report.unsealed == 0


async def asleep(world: World, seconds: float, times: int) -> None:
    """Wait until the sealer has gone to sleep for so long that often."""

    async def enough() -> bool:
        return world.clock.slept.count(seconds) >= times

    await until(f"{times} sleeps of {seconds} s", enough)


async def unsealed(world: World) -> int:
    return (await verified(world.database, world.acme)).unsealed


async def test_commits_wake_the_sealer_and_every_few_seconds_it_looks_by_itself(world: World) -> None:
    """What this process commits is sealed after a second at most, what another one commits a few seconds later."""
    sealer = Sealer(world.database, world.clock)
    task = asyncio.create_task(sealer.run())
    try:
        await asleep(world, PAUSE_S, 1)
        assert await unsealed(world) == 0
        await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
        sealer.wake()
        await settle()
        assert await unsealed(world) == 1
        await world.clock.advance(PAUSE_S)
        await asleep(world, PAUSE_S, 2)
        assert await unsealed(world) == 0
        await world.clock.advance(PAUSE_S)
        await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
        assert await unsealed(world) == 1
        await world.clock.advance(FLOOR_S)
        await asleep(world, PAUSE_S, 3)
        assert await unsealed(world) == 0
    finally:
        task.cancel()


async def test_settled_entries_are_not_looked_at_again(world: World) -> None:
    """After half a minute nothing before can be under way, so that a look costs what is new and not the whole log."""
    sealer = Sealer(world.database, world.clock)
    await sealer.seal()
    await world.clock.advance(31)
    await sealer.seal()
    newest = await world.database.read(lambda c: c.execute(text("SELECT max(seq) FROM audit")).scalar_one())
    assert sealer._settled == newest
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    await sealer.seal()
    assert (await verified(world.database, world.acme)).unsealed == 0


async def test_a_database_that_cannot_be_written_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The task goes on, and says why it waits."""
    sealer, write = Sealer(world.database, world.clock), Database.write

    async def full(*_: object) -> None:
        raise Unavailable("disk full")

    monkeypatch.setattr(Database, "write", full)
    task = asyncio.create_task(sealer.run())
    try:
        await asleep(world, PAUSE_S, 1)
        monkeypatch.setattr(Database, "write", write)
        assert "cannot be sealed now" in caplog.text
        await world.clock.advance(PAUSE_S + FLOOR_S)
        await asleep(world, PAUSE_S, 2)
        assert await unsealed(world) == 0
    finally:
        task.cancel()


async def test_the_end_of_the_chain_is_logged_now_and_then(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """At the first seal after a start, and then once an hour: log keeping elsewhere thus keeps a mark."""
    caplog.set_level("INFO", "upstream.sealing")
    sealer = Sealer(world.database, world.clock)
    for _ in range(3):
        await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
        await sealer.seal()
    marks = [record.__dict__["mark"] for record in caplog.records if record.__dict__.get("organisation") == world.acme]
    assert len(marks) == 1
    assert (await verified(world.database, world.acme, parse_mark(marks[0]))).is_intact
    await world.clock.advance(3_600)
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"})
    await sealer.seal()
    assert len([record for record in caplog.records if record.__dict__.get("organisation") == world.acme]) == 2


async def test_authority_tells_of_commits_that_were_audited(world: World) -> None:
    """Each once; a command that changes nothing, or is refused, tells nobody."""
    told: list[int] = []
    world.authority._on_audited = lambda: told.append(1)
    toggle = {"environment": "production", "enabled": True}
    for expected in (200, 200):
        assert (await world.api.post(f"{P}/flags/checkout:toggle", toggle)).status == expected
    assert (await world.api.post(f"{P}/flags/nowhere:toggle", toggle)).status == 404
    await settle()
    assert told == [1]


# Through the API and on the command line.


async def test_the_api_verifies_the_callers_own_log(world: World) -> None:
    """With the mark to keep, and against one that was kept; a fault is named with its entry."""
    await sealed(world)
    answer = await world.api.shown("/api/v2/audit:verify")
    assert answer["is_intact"] is True
    assert (answer["faults"], answer["unsealed"], answer["all_faults_named"]) == ([], 0, True)
    assert (await world.api.shown(f"/api/v2/audit:verify?expect={answer['mark']}"))["is_intact"] is True
    await tampered(world, "UPDATE audit SET actor_name = 'Mallory' WHERE action = 'flag.created'")
    found = await world.api.shown(f"/api/v2/audit:verify?expect=999:{'0' * 64}")
    assert found["is_intact"] is False
    assert [fault["kind"] for fault in found["faults"]] == ["changed", "unexpected_end"]
    entry = (await world.api.shown("/api/v2/audit?action=flag.created"))["data"][0]
    assert found["faults"][0]["audit_id"] == entry["id"]


async def test_verifying_takes_the_permission_and_a_mark(world: World) -> None:
    """audit:read; what is shown tells nothing of any project; a mark that is none is a 422."""
    assert (await world.caller("read").get("/api/v2/audit:verify")).status == 403
    assert (await world.caller("limited").shown("/api/v2/audit:verify"))["is_intact"] is True
    bad = await world.api.get("/api/v2/audit:verify?expect=1")
    assert (bad.status, bad.code, list(bad.body["errors"])) == (422, "invalid_parameters", ["expect"])


def seal_all(rig: Rig) -> None:
    """Seal what is in the rig's database."""

    def work(connection: Connection) -> None:
        audit_chain.seal(connection, audit_chain.unsealed_after(connection, 0).rows)

    rig.look(work)


@pytest.fixture
def verify(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """`halyard upstream audit verify` on the rig's database, with a second organisation in it."""
    facts = Facts(now_ms=rig.clock.wall_ms(), entropy=rig.entropy, actor=system_actor())
    rig.look(lambda connection: carry_out(connection, CreateOrganisation(name="Rival"), facts))
    rig.do(CreateFlag(project="shop", key="x"))
    rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    seal_all(rig)
    monkeypatch.setenv("HALYARD_UPSTREAM_DATABASE__URL", url_of(rig.path))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["upstream", "audit", "verify", *arguments])
        return done.exit_code, done.output

    return run


def test_the_command_line_prints_each_organisations_mark(verify: Callable[..., tuple[int, str]]) -> None:
    """Exit status 0, and the mark can be given back."""
    status, output = verify()
    assert status == 0
    assert output.count("intact") == 2
    _, output = verify("--organisation", "Acme")
    mark = next(line.split()[1] for line in output.splitlines() if line.strip().startswith("mark"))
    assert verify("--organisation", "Acme", "--expect", mark)[0] == 0
    assert "sealed   4 entries\n" in verify("--organisation", "Acme")[1]


def test_the_command_line_names_faults(rig: Rig, verify: Callable[..., tuple[int, str]]) -> None:
    """Exit status 1; a shorter log than the one that was noted is one."""
    rig.do(ToggleFlag(project="shop", flag="x", environment="production"))
    assert "1 not sealed yet" in verify()[1]
    status, output = verify("--organisation", "Acme", "--expect", f"9:{'0' * 64}")
    assert (status, "unexpected_end: seal 9: The chain ends before seal 9" in output) == (1, True)
    rig.look(lambda c: c.execute(text("UPDATE audit SET reason = 'x' WHERE action = 'flag.created'")))
    status, output = verify()
    assert (status, "changed: seal 3 entry " in output, output.count("intact")) == (1, True, 1)
    rig.look(lambda c: c.execute(text("UPDATE audit_seals SET hash = number")))
    for number in range(110):
        rig.do(CreateFlag(project="shop", key=f"f{number}"))
    seal_all(rig)
    rig.look(lambda c: c.execute(text("UPDATE audit SET reason = 'x'")))
    assert "more faults" in verify()[1]


def test_the_command_line_refuses_what_it_cannot_verify(
    tmp_path: Path, verify: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 2: no such organisation, no mark, a mark of nobody in particular, no database; none is made."""
    for arguments, sentence in (
        (("--organisation", "Nobody"), "there is none with the id or name"),
        (("--expect", "1"), "NUMBER:HASH"),
        (("--expect", f"1:{'0' * 64}"), "name it with --organisation"),
    ):
        status, output = verify(*arguments)
        assert (status, sentence in output) == (2, True), output
    monkeypatch.delenv("HALYARD_UPSTREAM_DATABASE__URL")
    status, output = verify("--data-dir", str(tmp_path / "nothing"))
    assert (status, "there is no database" in output) == (2, True)
    assert not (tmp_path / "nothing").exists()


@sqlite_only("plans as SQLite tells them")
def test_the_look_for_unsealed_entries_uses_the_keys(rig: Rig) -> None:
    """What is settled is not read again, whatever the length of the log."""
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT audit.seq"):
            plan = connection.connection.execute("EXPLAIN QUERY PLAN " + statement, parameters)
            plans.extend(row[3] for row in plan)

    event.listen(rig.engine, "before_cursor_execute", explain)
    try:
        rig.look(lambda connection: audit_chain.unsealed_after(connection, 3))
    finally:
        event.remove(rig.engine, "before_cursor_execute", explain)
    assert plans
    assert not [plan for plan in plans if plan.startswith("SCAN")], plans
