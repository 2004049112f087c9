"""Scheduled changes: kept with a preview, carried out once at their time, cancelled, or failed with a reason."""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from relay.clock import rfc3339
from tests.relay.live import until
from tests.upstream.databases import url_of
from tests.upstream.management import P, World
from tests.upstream.rig import Bang, SeededEntropy, failing_at
from upstream.authority import Authority
from upstream.domain.access_commands import (
    CreateToken,
    DeleteMember,
    RevokeToken,
    UpdateMember,
)
from upstream.domain.entities import Role
from upstream.notifier import Notifier
from upstream.scheduler import POLL_S, Scheduler
from upstream.storage import schedules
from upstream.storage.database import Database
from upstream.storage.errors import Stale, Unavailable
from upstream.storage.view import StoredView

F = f"{P}/flags/checkout"
ON = {"environment": "production", "enabled": True}
ENABLED = {
    "target": {"type": "flag", "key": "checkout"}, "environment": "production",
    "path": "enabled", "before": False, "after": True,
}  # fmt: skip
HOUR_S = 3_600.0


def at(world: World, in_s: float = HOUR_S) -> str:
    return f"schedule_at={rfc3339(world.clock.wall_ms() + round(in_s * 1_000))}"


async def scheduled(
    world: World, path: str = f"{F}:toggle", body: object = ON, in_s: float = HOUR_S, **more: Any
) -> Any:
    method = more.pop("method", "POST")
    caller = more.pop("caller", world.api)
    reply = await caller.call(method, f"{path}?{at(world, in_s)}", body, **more)
    assert reply.status == 202, reply.raw
    return reply.body


def scheduler(world: World) -> Scheduler:
    return Scheduler(world.database, world.authority, world.clock)


async def run_in(world: World, seconds: float = HOUR_S) -> int:
    world.clock.jump_wall(round(seconds * 1_000))
    return await scheduler(world).carry_out_due()


async def is_on(world: World) -> bool:
    return bool((await world.api.shown(f"{F}/environments/production"))["enabled"])


async def actions(world: World, limit: int = 10) -> list[str]:
    return [row["action"] for row in (await world.api.shown(f"{P}/audit?limit={limit}"))["data"]]


async def test_a_write_with_a_time_is_kept_and_shows_what_it_would_do(world: World) -> None:
    """202 with the schedule and its preview, and where it is; nothing changes before its time."""
    reply = await world.api.post(f"{F}:toggle?{at(world)}", {**ON, "reason": "launch"})
    assert reply.status == 202
    assert reply.body["status"] == "pending"
    assert reply.body["preview"]["changes"] == [ENABLED]
    assert reply.body["preview"]["affected"]["environments"] == ["production"]
    assert (reply.body["reason"], reply.body["actor"]["name"]) == ("launch", "all")
    assert not await is_on(world)
    shown = await world.api.get(reply.headers["location"])
    assert {**shown.body, "preview": reply.body["preview"]} == reply.body
    assert shown.headers["etag"] == reply.headers["etag"]
    assert (await actions(world))[0] == "schedule.created"
    assert await scheduler(world).carry_out_due() == 0


async def test_it_is_carried_out_when_its_time_comes_and_says_so(world: World) -> None:
    """In the name of whoever scheduled it, via schedule; the schedule names the audit entries and revisions."""
    made = await scheduled(world)
    assert await run_in(world) == 1
    assert await is_on(world)
    entries = (await world.api.shown(f"{P}/audit?limit=2"))["data"]
    assert [entry["action"] for entry in entries] == ["flag.toggled", "schedule.done"]
    assert {entry["via"] for entry in entries} == {"schedule"}
    assert [entry["actor"]["name"] for entry in entries] == ["all", "system"]
    assert made["id"] in entries[0]["reason"]
    done = await world.api.shown(f"{P}/schedules/{made['id']}")
    assert done["status"] == "done"
    assert done["result"] == {"audit_ids": [entries[0]["id"]], "revisions": entries[0]["revisions"]}
    assert await run_in(world) == 0, "once only"


async def test_what_became_due_while_nobody_ran_is_done_once_in_order(world: World) -> None:
    """The last of three has the last word, however long the authority was away."""
    for in_s, name in ((300, "third"), (100, "first"), (200, "second")):
        await scheduled(world, F, {"name": name}, in_s, method="PATCH")
    assert await run_in(world, 86_400) == 3
    assert (await world.api.shown(F))["name"] == "third"
    versions = (await world.api.shown(f"{F}/history"))["data"]
    names = [(await world.api.shown(f"{F}/history/{row['version']}"))["content"]["name"] for row in versions]
    assert names == ["third", "second", "first", "Checkout"]


async def test_a_schedule_is_listed_and_can_be_cancelled(world: World) -> None:
    """Soonest first, filtered by status; a cancelled one stays to be seen and is not carried out."""
    late, soon = await scheduled(world, in_s=200), await scheduled(world, in_s=100)
    listed = await world.api.shown(f"{P}/schedules")
    assert [row["id"] for row in listed["data"]] == [soon["id"], late["id"]]
    stale = await world.api.delete(f"{P}/schedules/{soon['id']}", if_match='"v9"')
    assert (stale.status, stale.code) == (412, "version_conflict")
    cancelled = await world.api.delete(f"{P}/schedules/{soon['id']}")
    assert (cancelled.status, cancelled.body["status"]) == (200, "cancelled")
    again = await world.api.delete(f"{P}/schedules/{soon['id']}")
    assert (again.status, again.code) == (409, "schedule_not_pending")
    pending = await world.api.shown(f"{P}/schedules?status=pending")
    assert [row["id"] for row in pending["data"]] == [late["id"]]
    assert (await actions(world))[0] == "schedule.cancelled"
    assert await run_in(world, 150) == 0
    unknown = await world.api.get(f"{P}/schedules/nothing")
    assert (unknown.status, unknown.code) == (404, "schedule_not_found")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("schedule_at=2020-01-01T00:00:00Z", "not in the future"),
        ("schedule_at=2099-01-01T00:00:00Z", "one year"),
        ("schedule_at=tomorrow", "RFC 3339"),
        ("schedule_at=2026-11-21T06:30:00", "RFC 3339"),
        ("schedule_at=2099-01-01T00:00:00Z&propose=New", "only one"),
    ],
)
async def test_times_that_cannot_be_kept_are_refused(world: World, query: str, sentence: str) -> None:
    """422 that names the parameter."""
    reply = await world.api.post(f"{F}:toggle?{query}", ON)
    assert reply.status == 422
    assert sentence in reply.body["errors"]["schedule_at"][0]


async def test_a_change_that_would_be_refused_now_is_not_kept(world: World) -> None:
    """The same answer as without a time, dry runs included; nothing is stored."""
    for query in (at(world), f"{at(world)}&dry_run=1"):
        reply = await world.api.patch(f"{F}?{query}", {"name": ""})
        assert (reply.status, list(reply.body["errors"])) == (422, ["name"])
    tried = await world.api.patch(f"{F}?{at(world)}&dry_run=1", {"name": "New"})
    assert (tried.status, tried.body["dry_run"]) == (200, True)
    assert (await world.api.shown(f"{P}/schedules"))["total"] == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v2/tokens", {"name": "t", "scopes": ["flags:read"]}),
        ("/api/v2/keys", {"kind": "server", "project": "shop", "environment": "production"}),
        ("/api/v2/members", {"email": "new@acme.example", "role": "viewer"}),
        ("/api/v2/projects", {"name": "Later"}),
    ],
)
async def test_what_gives_secrets_or_is_no_change_in_a_project_cannot_wait(
    world: World, path: str, body: dict[str, Any]
) -> None:
    """422: nobody would be there to take the secret, and a project that is not there has no schedules."""
    for query in (at(world), "propose=Later"):
        reply = await world.owner.post(f"{path}?{query}", body)
        assert (reply.status, reply.code) == (422, "cannot_wait"), reply.raw


async def test_a_schedule_cannot_schedule_governance(world: World) -> None:
    """Cancelling, approving and the like are done at once."""
    made = await scheduled(world)
    reply = await world.api.delete(f"{P}/schedules/{made['id']}?{at(world)}")
    assert (reply.status, reply.code) == (422, "cannot_wait")


async def test_a_change_that_is_refused_at_its_time_fails_with_the_reason(world: World) -> None:
    """Everything is judged anew: what is stored is the code and the sentence, and nothing else happens."""
    made = await scheduled(world, F, {"name": "New"}, method="PATCH")
    await world.api.post(f"{F}:archive")
    before = await world.api.shown(F)
    assert await run_in(world) == 1
    failed = await world.api.shown(f"{P}/schedules/{made['id']}")
    assert (failed["status"], failed["result"]["code"]) == ("failed", "flag_archived")
    assert "archived" in failed["result"]["detail"]
    assert await world.api.shown(F) == before
    entry = (await world.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert (entry["action"], entry["reason"]) == ("schedule.failed", failed["result"]["detail"])
    assert await run_in(world) == 0


async def test_if_match_holds_when_the_time_comes(world: World) -> None:
    """Whoever schedules for a version wants it for that one; an edit in between makes it fail."""
    made = await scheduled(world, F, {"name": "New"}, method="PATCH", headers={"If-Match": '"v1"'})
    await world.api.patch(F, {"description": "edited"})
    await run_in(world)
    failed = await world.api.shown(f"{P}/schedules/{made['id']}")
    assert failed["result"]["code"] == "version_conflict"


async def test_a_key_that_comes_to_mean_another_flag_is_not_followed(world: World) -> None:
    """What is kept names things by id: the flag that was meant is gone, and its successor stays as it is."""
    made = await scheduled(world, F, {"name": "New"}, method="PATCH")
    await world.api.delete(F)
    await world.api.made(f"{P}/flags", {"key": "checkout", "name": "Another"})
    await run_in(world)
    assert (await world.api.shown(F))["name"] == "Another"
    assert (await world.api.shown(f"{P}/schedules/{made['id']}"))["result"]["code"] == "flag_not_found"


async def test_a_list_of_things_is_kept_by_id_as_well(world: World) -> None:
    """An order of environments that waits holds when its time comes."""
    keys = [row["key"] for row in (await world.api.shown(f"{P}/environments"))["data"]]
    await scheduled(world, f"{P}/environments:reorder", {"environments": keys[::-1]})
    assert await run_in(world) == 1
    assert [row["key"] for row in (await world.api.shown(f"{P}/environments"))["data"]] == keys[::-1]


async def test_a_member_who_is_gone_or_may_no_longer_changes_nothing(world: World) -> None:
    """What they may do is looked up when the time comes."""
    dave = await world.api.made(
        "/api/v2/members", {"email": "dave@acme.example", "role": "developer", "password": "x" * 12}
    )
    member_id = dave["id"]
    world.keys["dave"] = (await world.sign_in("dave@acme.example", "x" * 12))["access_token"]
    first = await scheduled(world, in_s=100, caller=world.caller("dave"))
    second = await scheduled(world, in_s=200, caller=world.caller("dave"))
    await world.do(UpdateMember(member=member_id, role=Role.VIEWER))
    await run_in(world, 100)
    assert (await world.api.shown(f"{P}/schedules/{first['id']}"))["result"]["code"] == "permission_missing"
    await world.do(DeleteMember(member=member_id))
    await run_in(world, 100)
    assert (await world.api.shown(f"{P}/schedules/{second['id']}"))["result"]["code"] == "actor_gone"
    assert not await is_on(world)


async def test_a_token_must_live_when_the_time_comes(world: World) -> None:
    """Revoked or expired, its schedules fail."""
    made = await world.do(CreateToken(name="brief", scopes=("flags:write",)))
    world.keys["brief"] = made.secret
    kept = await scheduled(world, caller=world.caller("brief"))
    await world.do(RevokeToken(credential=made.entity.id))
    await run_in(world)
    failed = await world.api.shown(f"{P}/schedules/{kept['id']}")
    assert (failed["status"], failed["result"]["code"]) == ("failed", "actor_gone")


async def test_deleting_a_project_at_a_time_takes_its_schedules_along(world: World) -> None:
    """The schedule that did it goes with the rest; the audit log keeps it."""
    await scheduled(world, P, None, method="DELETE")
    assert await run_in(world) == 1
    assert (await world.api.get(P)).status == 404
    entries = (await world.api.shown("/api/v2/audit?limit=2"))["data"]
    assert {entry["action"] for entry in entries} == {"project.deleted", "schedule.done"}


async def test_the_effect_and_its_being_done_are_one(world: World) -> None:
    """A fault at any statement leaves the schedule pending and the flag as it was; afterwards it is done once."""
    made = await scheduled(world)
    world.clock.jump_wall(3_600_000)
    run = partial(schedules.run, schedule_id=made["id"], now_ms=world.clock.wall_ms(), entropy=world.authority._entropy)
    engine = world.database._writers._engine
    for statement in range(3, 60, 3):
        mend = failing_at(engine, statement)
        try:
            await world.database.write(run)
            break
        except Bang:
            assert (await world.api.shown(f"{P}/schedules/{made['id']}"))["status"] == "pending"
            assert not await is_on(world)
        finally:
            mend()
    else:
        raise AssertionError("never got to the end")
    assert await is_on(world)
    assert (await world.api.shown(f"{P}/schedules/{made['id']}"))["status"] == "done"


async def test_of_two_processes_one_is_first(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever read the row before the first one committed finds that it has gone on, and changes nothing."""
    made = await scheduled(world)
    project = (await world.api.shown(P))["id"]
    world.clock.jump_wall(3_600_000)
    before = await world.database.read(lambda c: StoredView(c).schedule(project, made["id"]))
    await world.authority.run_schedule(made["id"])
    assert await world.authority.run_schedule(made["id"]) is None
    await world.api.post(f"{F}:toggle", {**ON, "enabled": False})
    # What a second process on PostgreSQL would have seen.
    monkeypatch.setattr(schedules, "_place", lambda *_: (project, world.acme))
    monkeypatch.setattr(StoredView, "schedule", lambda *_: before)
    with pytest.raises(Stale):
        await world.authority.run_schedule(made["id"])
    assert not await is_on(world)


async def test_one_that_cannot_be_carried_out_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the authority's own is noted as such, and the next one has its turn."""
    broken, good = await scheduled(world, in_s=1), await scheduled(world, F, {"name": "New"}, 2, method="PATCH")
    real = schedules.run

    def run(connection: Any, schedule_id: str, **facts: Any) -> Any:
        if schedule_id == broken["id"]:
            raise Bang
        return real(connection, schedule_id, **facts)

    monkeypatch.setattr(schedules, "run", run)
    assert await run_in(world, 10) == 2
    failed = await world.api.shown(f"{P}/schedules/{broken['id']}")
    assert (failed["status"], failed["result"]["code"]) == ("failed", "internal_error")
    assert (await world.api.shown(f"{P}/schedules/{good['id']}"))["status"] == "done"


async def test_the_task_wakes_for_the_next_one_and_for_new_ones(world: World) -> None:
    """It sleeps until the next is due, at most `POLL_S`, and looks at once when one is scheduled."""
    task = asyncio.create_task(scheduler(world).run())
    try:
        await until(lambda: world.clock.slept == [POLL_S])
        await scheduled(world, in_s=2)
        await until(lambda: world.clock.slept[-1] == 2.0)
        await world.clock.advance(2)
        await until(lambda: len(world.clock.slept) >= 3)
        assert await is_on(world)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_several_changes_at_once_wait_as_one(world: World) -> None:
    """A bulk write is one schedule; all of it or nothing."""
    await world.api.made(f"{P}/flags", {"key": "second"})
    body = {"flags": ["checkout", "second"], "environment": "production", "enabled": True}
    made = await scheduled(world, f"{P}/flags:toggle", body)
    assert [each["command"] for each in made["commands"]] == ["ToggleFlag", "ToggleFlag"]
    await run_in(world)
    done = await world.api.shown(f"{P}/schedules/{made['id']}")
    assert len(done["result"]["audit_ids"]) == 2
    assert (await world.api.shown(f"{P}/flags/second/environments/production"))["enabled"]


async def test_a_repeated_request_schedules_once(world: World) -> None:
    """With an Idempotency-Key the same schedule is answered again, and there is one."""
    path, headers = f"{F}:toggle?{at(world)}", {"Idempotency-Key": "once"}
    first = await world.api.call("POST", path, ON, headers=headers)
    again = await world.api.call("POST", path, ON, headers=headers)
    assert (first.status, again.status) == (202, 202)
    assert again.body == first.body
    assert again.headers["location"] == first.headers["location"]
    assert (await world.api.shown(f"{P}/schedules"))["total"] == 1


async def test_the_task_outlives_a_database_that_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again after `POLL_S`, and what was due is done then."""
    await scheduled(world, in_s=1)
    world.clock.jump_wall(1_000)
    real = schedules.run

    def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(schedules, "run", away)
    task = asyncio.create_task(scheduler(world).run())
    try:
        await until(lambda: world.clock.slept == [POLL_S])
        monkeypatch.setattr(schedules, "run", real)
        await world.clock.advance(POLL_S)
        await until(lambda: len(world.clock.slept) >= 2)
        assert await is_on(world)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_two_upstreams_on_one_database_carry_it_out_once(world: World, tmp_path: Path) -> None:
    """Both take it up at the same moment: a switch to the other side is made once, and done once."""
    made = await scheduled(world, body={"environment": "production"})
    world.clock.jump_wall(3_600_000)
    other = Database(url_of(tmp_path / "halyard.db"))
    try:
        second = Authority(other, world.clock, SeededEntropy(9), Notifier())
        await asyncio.gather(*(each.run_schedule(made["id"]) for each in (world.authority, second)))
    finally:
        other.close()
    assert await is_on(world)
    ours = [each for each in await actions(world) if each.startswith("schedule.")]
    assert sorted(ours) == ["schedule.created", "schedule.done"]
