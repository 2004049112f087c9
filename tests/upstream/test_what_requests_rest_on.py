"""What a change request is bound to beside what it changes: what it copies from, and what it would leave as it is."""

from typing import Any

from sqlalchemy import Engine, event

from tests.upstream.management import P, World

F = f"{P}/flags/checkout"
R = f"{P}/change-requests"
STAGING, PRODUCTION = f"{F}/environments/staging", f"{F}/environments/production"
PROMOTED = {"from": "staging", "to": "production"}


async def approved(world: World, path: str, body: object) -> Any:
    reply = await world.api.post(f"{path}?propose=Please", body)
    assert reply.status == 202, reply.raw
    review = await world.owner.post(f"{R}/{reply.body['id']}:approve")
    assert review.status == 200, review.raw
    return reply.body


async def test_an_edit_of_what_is_promoted_voids_the_request(world: World) -> None:
    """Else what nobody has reviewed would reach production, where reviews are required."""
    await world.api.patch(f"{P}/environments/production", {"require_review": True})
    await world.api.patch(STAGING, {"off": "on"})
    request = await approved(world, f"{F}:promote", PROMOTED)
    assert {(each["type"], each["key"], each["version"]) for each in request["bound"]} == {
        ("config", "checkout", 1), ("config", "checkout", 2), ("flag", "checkout", 1),
    }  # fmt: skip
    await world.api.patch(STAGING, {"enabled": True})
    assert (await world.api.shown(f"{R}/{request['id']}"))["status"] == "voided"
    reply = await world.api.post(f"{R}/{request['id']}:apply")
    assert (reply.status, reply.code) == (409, "request_closed")
    assert not (await world.api.shown(PRODUCTION))["enabled"]


async def test_what_would_change_nothing_is_bound_all_the_same(world: World) -> None:
    """A promotion between equals, or switching off what is off, was approved as nothing and must stay that."""
    promoted = await approved(world, f"{F}:promote", PROMOTED)
    switched = await approved(world, f"{F}:toggle", {"environment": "production", "enabled": False})
    assert promoted["preview"]["changes"] == switched["preview"]["changes"] == []
    await world.api.patch(PRODUCTION, {"enabled": True})
    for request in (promoted, switched):
        assert (await world.api.shown(f"{R}/{request['id']}"))["status"] == "voided"


async def test_an_edit_of_what_is_copied_voids_the_request(world: World) -> None:
    """The flag and what it does in each environment."""
    first, second = [
        await approved(world, f"{F}:copy", {"key": key, "keep_enabled": True}) for key in ("first", "second")
    ]
    assert {each["key"] for each in first["bound"]} == {"checkout"}
    await world.api.patch(STAGING, {"enabled": True})
    assert (await world.api.shown(f"{R}/{first['id']}"))["status"] == "voided"
    assert (await world.api.shown(f"{R}/{second['id']}"))["status"] == "voided"


async def test_a_copy_into_another_project_cannot_wait(world: World) -> None:
    """The request would be about that project, in which the original is not the flag of that name."""
    await world.api.made("/api/v2/projects/other/flags", {"key": "checkout"})
    for query in ("propose=Please", "schedule_at=2026-12-01T00:00:00Z"):
        reply = await world.api.post(f"{F}:copy?{query}", {"project": "other", "key": "copied"})
        assert (reply.status, reply.code) == (422, "cannot_wait")


async def test_what_waits_is_not_longer_than_lists_can_show(world: World) -> None:
    """A project's document may have 16 MiB; it would come back with every page of requests, and of the audit log."""
    units = [f"user-{number:06}" for number in range(10_000)]
    segments = [{"key": f"s{number}", "include": units} for number in range(8)]
    document = {"format": "halyard.project", "format_version": 1, "segments": segments}
    for query in ("propose=Please", "schedule_at=2026-12-01T00:00:00Z"):
        reply = await world.api.post(f"{P}/import?{query}", document)
        assert (reply.status, reply.code) == (422, "too_long_to_wait")
    assert (await world.api.shown(R))["total"] == 0


async def test_a_write_does_not_read_what_waiting_requests_hold(world: World) -> None:
    """Only what they are bound to: else many long ones would slow down every write of the project."""
    await approved(world, f"{F}:toggle", {"environment": "staging", "enabled": True})
    read: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM change_requests" in statement:
            read.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await world.api.patch(PRODUCTION, {"enabled": True})
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert len(read) == 1
    assert "commands" not in read[0]


async def test_making_a_segment_that_a_request_names_voids_it(world: World) -> None:
    """Whoever makes it says whom the approved rule is for. One that the request itself makes is no matter."""
    rules = [{"when": {"segment": "vip"}, "variation": "on"}]
    reply = await world.api.patch(f"{PRODUCTION}?propose=Please", {"rules": rules})
    assert {each["key"]: each["version"] for each in reply.body["bound"]} == {"vip": 0, "checkout": 1}
    both = await world.api.post(f"{P}/segments?propose=Both", {"key": "vip"})
    path = f"{F}/environments/staging?propose_to={both.body['id']}"
    assert {each["key"] for each in (await world.api.patch(path, {"rules": rules})).body["bound"]} == {"checkout"}
    await world.api.made(f"{P}/segments", {"key": "others"})
    assert [each["holds"] for each in (await world.api.shown(f"{R}/{reply.body['id']}"))["bound"]] == [True] * 3
    await world.api.made(f"{P}/segments", {"key": "vip", "include": ["mallory"]})
    assert (await world.api.shown(f"{R}/{reply.body['id']}"))["status"] == "voided"
