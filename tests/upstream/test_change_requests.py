"""Change requests: proposed, reviewed by another person, bound to what both saw, applied in one transaction."""

from typing import Any

import pytest

from relay.clock import rfc3339
from tests.upstream.management import Caller, P, World
from upstream.domain.access_commands import (
    CreateToken,
)
from upstream.scheduler import Scheduler

F = f"{P}/flags/checkout"
R = f"{P}/change-requests"
ON = {"environment": "production", "enabled": True}
ENABLED = {
    "target": {"type": "flag", "key": "checkout"}, "environment": "production",
    "path": "enabled", "before": False, "after": True,
}  # fmt: skip


@pytest.fixture(name="author")
def author_fixture(world: World) -> Caller:
    """Olga, who proposes."""
    return world.owner


@pytest.fixture(name="reviewer")
def reviewer_fixture(world: World) -> Caller:
    """Somebody else, who may write flags."""
    return world.caller("write")


async def proposed(author: Caller, path: str = f"{F}:toggle", body: object = ON, title: str = "Launch") -> Any:
    method = "PATCH" if path == F else "POST"
    reply = await author.call(method, f"{path}?propose={title}", body)
    assert reply.status == 202, reply.raw
    return reply.body


async def done(caller: Caller, request: Any, verb: str, body: object = None, **headers: str) -> Any:
    reply = await caller.post(f"{R}/{request['id']}:{verb}", body, **headers)
    assert reply.status == 200, reply.raw
    return reply.body


async def is_on(world: World) -> bool:
    return bool((await world.api.shown(f"{F}/environments/production"))["enabled"])


async def newest(world: World, limit: int = 1) -> list[Any]:
    return list((await world.api.shown(f"{P}/audit?limit={limit}"))["data"])


async def test_a_write_can_be_proposed_instead(world: World, author: Caller) -> None:
    """202 with the request: what it would do, and the versions that it is bound to; nothing changes."""
    reply = await author.post(f"{F}:toggle?propose=Launch", ON)
    assert reply.status == 202
    request = reply.body
    assert (request["title"], request["status"], request["author"]["name"]) == ("Launch", "open", "Olga")
    assert request["preview"]["changes"] == [ENABLED]
    assert [(each["type"], each["key"], each["version"]) for each in request["bound"]] == [
        ("config", "checkout", 1), ("flag", "checkout", 1),
    ]  # fmt: skip
    assert not await is_on(world)
    shown = await author.shown(reply.headers["location"])
    assert [each["holds"] for each in shown["bound"]] == [True, True]
    assert shown["preview"] == request["preview"]
    entry = (await newest(world))[0]
    assert (entry["action"], entry["target"]["key"]) == ("change_request.created", "Launch")


async def test_an_approved_request_is_applied_in_one_transaction(
    world: World, author: Caller, reviewer: Caller
) -> None:
    """The audit log names author, reviewer and the request; the request says what became of it."""
    request = await proposed(author)
    approved = await done(reviewer, request, "approve", {"comment": "Looks right."})
    assert (approved["status"], approved["reviews"][0]["comment"]) == ("approved", "Looks right.")
    assert approved["reviews"][0]["by"]["name"] == "write"
    assert not await is_on(world)
    applied = await done(author, request, "apply")
    assert applied["status"] == "applied"
    assert list(applied["revisions"].values()) == [(await world.api.shown(f"{P}/environments/production"))["revision"]]
    assert await is_on(world)
    toggled, closed = await newest(world, 2)
    assert (toggled["action"], closed["action"]) == ("flag.toggled", "change_request.applied")
    assert toggled["request_id"] == closed["request_id"]
    for word in (request["id"], "Olga", "write"):
        assert word in toggled["reason"]
    again = await author.post(f"{R}/{request['id']}:apply")
    assert (again.status, again.code) == (409, "request_closed")


async def test_nobody_reviews_their_own_request(world: World, author: Caller) -> None:
    """Neither as they are nor through a token that they made, nor through one that such a token made."""
    request = await proposed(author)
    own = await author.post(f"{R}/{request['id']}:approve")
    assert (own.status, own.code) == (403, "own_request")
    made = await author.made("/api/v2/tokens", {"name": "t", "scopes": ["flags:write", "keys:write"]})
    world.keys["by olga"] = made["token"]
    made = await world.caller("by olga").made("/api/v2/tokens", {"name": "u", "scopes": ["flags:write"]})
    world.keys["by her token"] = made["token"]
    for name in ("by olga", "by her token"):
        reply = await world.caller(name).post(f"{R}/{request['id']}:approve")
        assert (reply.status, reply.code) == (403, "own_request"), name
    through = await proposed(world.caller("by her token"))
    reply = await author.post(f"{R}/{through['id']}:approve")
    assert (reply.status, reply.code) == (403, "own_request")


async def test_what_is_not_approved_is_not_applied(author: Caller, reviewer: Caller, world: World) -> None:
    """An open request waits, a rejected or withdrawn one has ended, and strangers apply none."""
    request = await proposed(author)
    early = await author.post(f"{R}/{request['id']}:apply")
    assert (early.status, early.code) == (409, "request_not_approved")
    await done(reviewer, request, "approve")
    twice = await reviewer.post(f"{R}/{request['id']}:approve")
    assert (twice.status, twice.code) == (409, "request_not_open")
    stranger = await world.api.post(f"{R}/{request['id']}:apply")
    assert (stranger.status, stranger.code) == (403, "not_your_request")
    await done(reviewer, request, "reject", {"comment": "On second thought, no."})
    late = await author.post(f"{R}/{request['id']}:apply")
    assert (late.status, late.code) == (409, "request_closed")
    world.clock.jump_wall(1)
    other = await proposed(author, title="Again")
    taken = await reviewer.post(f"{R}/{other['id']}:withdraw")
    assert (taken.status, taken.code) == (403, "not_your_request")
    assert (await done(author, other, "withdraw"))["status"] == "withdrawn"
    assert not await is_on(world)
    listed = await world.api.shown(f"{R}?status=withdrawn")
    assert [row["id"] for row in listed["data"]] == [other["id"]]
    assert [row["id"] for row in (await world.api.shown(R))["data"]] == [other["id"], request["id"]]


async def test_an_edit_of_what_a_request_is_bound_to_voids_it(world: World, author: Caller, reviewer: Caller) -> None:
    """In the same transaction, whoever made it, also a kill; edits elsewhere do not touch it."""
    request = await proposed(author)
    await done(reviewer, request, "approve")
    await world.api.patch(f"{F}/environments/staging", {"enabled": True})
    await world.api.patch(f"{P}/segments/testers", {"name": "Other"})
    assert (await world.api.shown(f"{R}/{request['id']}"))["status"] == "approved"
    await world.api.patch(F, {"description": "edited"})
    voided = await world.api.shown(f"{R}/{request['id']}")
    assert voided["status"] == "voided"
    assert {each["type"]: each["holds"] for each in voided["bound"]} == {"config": True, "flag": False}
    first, second = await newest(world, 2)
    assert {first["action"], second["action"]} == {"change_request.voided", "flag.updated"}
    assert first["request_id"] == second["request_id"]
    reply = await author.post(f"{R}/{request['id']}:apply")
    assert (reply.status, reply.code) == (409, "request_closed")


async def test_deleting_an_environment_voids_what_is_bound_to_it(world: World, author: Caller) -> None:
    """There is nothing left to change there."""
    request = await proposed(author)
    await world.api.delete(f"{P}/environments/production")
    shown = await world.api.shown(f"{R}/{request['id']}")
    assert shown["status"] == "voided"


async def test_applying_one_request_voids_others_on_the_same_flag(
    world: World, author: Caller, reviewer: Caller
) -> None:
    """What was approved beside it was approved for another state."""
    first, second = await proposed(author), await proposed(author, F, {"name": "New"}, "Rename")
    for request in (first, second):
        await done(reviewer, request, "approve")
    await done(author, second, "apply")
    assert (await world.api.shown(f"{R}/{first['id']}"))["status"] == "voided"
    assert (await world.api.shown(f"{R}/{second['id']}"))["status"] == "applied"


async def test_a_request_grows_and_loses_its_approval(world: World, author: Caller, reviewer: Caller) -> None:
    """All of it is tried together: what comes later sees what came before; only its author adds."""
    made = await author.post(f"{P}/flags?propose=New", {"key": "fresh"})
    request = made.body
    assert request["bound"] == []
    await done(reviewer, request, "approve")
    foreign = await reviewer.post(f"{F}:toggle?propose_to={request['id']}", ON)
    assert (foreign.status, foreign.code) == (403, "not_your_request")
    added = await author.patch(f"{F}?propose_to={request['id']}", {"prerequisites": ["fresh"]}, if_match='"v1"')
    assert added.status == 202, added.raw
    assert (added.body["status"], added.body["reviews"], len(added.body["commands"])) == ("open", [], 2)
    assert added.body["preview"]["warnings"] == [], "the flag that it requires is there by then"
    twice = await author.patch(f"{F}?propose_to={request['id']}", {"name": "New"}, if_match='"v1"')
    assert twice.status == 202, twice.raw
    stale = await author.patch(f"{F}?propose_to={request['id']}", {"name": "New"}, if_match='"v7"')
    assert (stale.status, stale.code) == (412, "version_conflict")
    await done(reviewer, request, "approve")
    await done(author, request, "apply")
    shown = await world.api.shown(F)
    assert (shown["name"], [each["flag"] for each in shown["prerequisites"]]) == ("New", ["fresh"])
    entries = await newest(world, 4)
    assert [entry["action"] for entry in entries] == [
        "flag.updated", "flag.updated", "flag.created", "change_request.applied",
    ]  # fmt: skip
    assert len({str(entry["revisions"]) for entry in entries}) == 1, "one revision for all of it"


async def test_a_request_that_cannot_be_carried_out_stays_as_it_is(
    world: World, author: Caller, reviewer: Caller
) -> None:
    """All of it or nothing: the reason is answered, and the request can be withdrawn."""
    made = await author.post(f"{P}/flags?propose=New", {"key": "fresh"})
    await author.post(f"{F}:toggle?propose_to={made.body['id']}", ON)
    await done(reviewer, made.body, "approve")
    await world.api.made(f"{P}/flags", {"key": "fresh"})
    reply = await author.post(f"{R}/{made.body['id']}:apply")
    assert (reply.status, reply.code) == (409, "key_taken")
    assert (await world.api.shown(f"{R}/{made.body['id']}"))["status"] == "approved"
    assert not await is_on(world)


async def test_a_reviewer_approves_what_they_saw(author: Caller, reviewer: Caller) -> None:
    """With If-Match, a request that has grown since is not approved by mistake."""
    request = await proposed(author)
    seen = f'"v{request["version"]}"'
    await author.patch(f"{F}?propose_to={request['id']}", {"name": "New"})
    reply = await reviewer.post(f"{R}/{request['id']}:approve", None, if_match=seen)
    assert (reply.status, reply.code, reply.body["current"]["version"]) == (412, "version_conflict", 2)


async def test_its_author_describes_a_request(author: Caller, reviewer: Caller) -> None:
    """Title and description change without another review; others change neither."""
    request = await proposed(author)
    await done(reviewer, request, "approve")
    changed = await author.patch(f"{R}/{request['id']}", {"title": "Go", "description": "Because."})
    assert (changed.body["title"], changed.body["description"], changed.body["status"]) == (
        "Go",
        "Because.",
        "approved",
    )
    empty = await author.patch(f"{R}/{request['id']}", {"title": " "})
    assert (empty.status, list(empty.body["errors"])) == (422, ["title"])
    foreign = await reviewer.patch(f"{R}/{request['id']}", {"title": "Mine"})
    assert (foreign.status, foreign.code) == (403, "not_your_request")


async def test_what_would_be_refused_is_not_proposed(author: Caller, world: World) -> None:
    """The same answer as without a proposal; an empty title, and requests about requests, are refused too."""
    reply = await author.patch(f"{F}?propose=New", {"name": ""})
    assert (reply.status, list(reply.body["errors"])) == (422, ["name"])
    untitled = await author.post(f"{F}:toggle?propose=%20", ON)
    assert (untitled.status, list(untitled.body["errors"])) == (422, ["title"])
    request = await proposed(author)
    nested = await author.post(f"{R}/{request['id']}:withdraw?propose=No")
    assert (nested.status, nested.code) == (422, "cannot_wait")
    nowhere = await author.post(f"{F}:toggle?propose_to=nothing", ON)
    assert (nowhere.status, nowhere.code) == (404, "change_request_not_found")
    elsewhere = await author.post(f"/api/v2/projects/other/flags?propose_to={request['id']}", {"key": "x"})
    assert (elsewhere.status, elsewhere.code) == (404, "change_request_not_found")
    project = await author.post(f"/api/v2/projects?propose_to={request['id']}", {"name": "x"})
    assert (project.status, project.code) == (422, "cannot_wait")
    assert (await world.api.shown(R))["total"] == 1


async def test_a_dry_run_of_applying_shows_what_it_would_do(author: Caller, reviewer: Caller, world: World) -> None:
    """And changes nothing."""
    request = await proposed(author)
    await done(reviewer, request, "approve")
    tried = await author.post(f"{R}/{request['id']}:apply?dry_run=1")
    assert tried.status == 200
    assert ENABLED in tried.body["changes"]
    assert not await is_on(world)


async def test_an_approved_request_can_be_applied_at_a_time(author: Caller, reviewer: Caller, world: World) -> None:
    """The review comes first; when the time comes everything must still hold."""
    request = await proposed(author)
    at = rfc3339(world.clock.wall_ms() + 60_000)
    early = await author.post(f"{R}/{request['id']}:apply?schedule_at={at}")
    assert (early.status, early.code) == (409, "request_not_approved")
    await done(reviewer, request, "approve")
    kept = await author.post(f"{R}/{request['id']}:apply?schedule_at={at}")
    assert kept.status == 202, kept.raw
    world.clock.jump_wall(60_000)
    await Scheduler(world.database, world.authority, world.clock).carry_out_due()
    assert (await world.api.shown(f"{R}/{request['id']}"))["status"] == "applied"
    assert await is_on(world)
    assert (await newest(world))[0]["via"] == "schedule"


async def test_applying_needs_the_permission_for_each_change(world: World, author: Caller, reviewer: Caller) -> None:
    """Who approved a deletion without being permitted to delete cannot carry it out; its author can."""
    reply = await author.delete(f"{F}?propose=Remove")
    await done(reviewer, reply.body, "approve")
    refused = await reviewer.post(f"{R}/{reply.body['id']}:apply")
    assert (refused.status, refused.code) == (403, "permission_missing")
    await done(author, reply.body, "apply")
    assert (await world.api.get(F)).status == 404


async def test_two_tokens_of_the_installation_are_two_people(world: World) -> None:
    """Nobody stands behind them, so each stands for itself."""
    for name in ("one", "two"):
        world.keys[name] = (await world.do(CreateToken(name=name, scopes=("flags:write",)))).secret
    request = await proposed(world.caller("one"))
    assert (await done(world.caller("two"), request, "approve"))["status"] == "approved"
