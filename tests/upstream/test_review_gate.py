"""An environment with `require_review`: what it publishes changes through approved requests only, and by kills."""

from typing import Any

import pytest

from relay.clock import rfc3339
from tests.upstream.management import P, World
from upstream.scheduler import Scheduler

F = f"{P}/flags/checkout"
PRODUCTION = f"{F}/environments/production"


@pytest.fixture(name="guarded")
async def guarded_fixture(world: World) -> World:
    """The world with a production that asks for reviews."""
    reply = await world.api.patch(f"{P}/environments/production", {"require_review": True})
    assert (reply.status, reply.body["require_review"]) == (200, True)
    return world


RULES = [{"when": {"all": []}, "variation": "on"}]
REFUSED: list[tuple[str, str, Any]] = [
    ("POST", f"{F}:toggle", {"environment": "production", "enabled": True}),
    ("PATCH", PRODUCTION, {"rules": RULES}),
    ("PATCH", PRODUCTION, {"off": "on"}),
    ("POST", f"{PRODUCTION}/rules", RULES[0]),
    ("POST", f"{PRODUCTION}:rollout", {"percentage": 50}),
    ("POST", f"{P}/flags:toggle", {"flags": ["checkout"], "environment": "production", "enabled": True}),
    ("PATCH", F, {"name": "Till"}),
    ("PATCH", F, {"prerequisites": ["other"]}),
    ("PATCH", F, {"variations": [{"key": "on", "value": True}, {"key": "off", "value": False}, {"value": True}]}),
    ("POST", f"{F}:archive", None),
    ("DELETE", F, None),
    ("PATCH", f"{P}/segments/testers", {"include": ["eve"]}),
    ("DELETE", f"{P}/segments/testers", None),
    ("POST", f"{P}/flags", {"key": "fresh", "enabled": True}),
    ("POST", f"{P}/flags", {"key": "fresh", "environments": {"production": {"enabled": True}}}),
]


@pytest.mark.parametrize(("method", "path", "body"), REFUSED)
async def test_what_a_guarded_environment_publishes_needs_a_review(
    guarded: World, method: str, path: str, body: Any
) -> None:
    """409 with the environments and the remedy, tried, now or scheduled; proposed and approved it goes through."""
    revision = (await guarded.api.shown(f"{P}/environments/production"))["revision"]
    at = rfc3339(guarded.clock.wall_ms() + 60_000)
    for query in ("", "?dry_run=1", f"?schedule_at={at}"):
        reply = await guarded.api.call(method, path + query, body)
        assert (reply.status, reply.code) == (409, "review_required"), reply.raw
        assert reply.body["environments"] == ["production"]
        assert "?propose=" in reply.body["detail"]
    assert (await guarded.api.shown(f"{P}/environments/production"))["revision"] == revision
    proposed = await guarded.api.call(method, f"{path}?propose=Please", body)
    assert proposed.status == 202, proposed.raw
    approved = await guarded.owner.post(f"{P}/change-requests/{proposed.body['id']}:approve")
    assert approved.status == 200, approved.raw
    applied = await guarded.owner.post(f"{P}/change-requests/{proposed.body['id']}:apply")
    assert applied.status == 200, applied.raw
    assert (await guarded.api.shown(f"{P}/environments/production"))["revision"] == revision + 1


ALLOWED: list[tuple[str, str, Any]] = [
    ("POST", f"{F}:toggle", {"environment": "staging", "enabled": True}),
    ("PATCH", f"{F}/environments/staging", {"rules": RULES}),
    ("PATCH", F, {"description": "Where people pay.", "tags": ["money"], "owner": "pay"}),
    ("PATCH", PRODUCTION, {}),
    ("PATCH", F, {"is_active": False}),
    ("POST", f"{P}/flags", {"key": "fresh"}),
    ("POST", f"{P}/flags", {"key": "fresh", "environments": {"staging": {"enabled": True}}}),
    ("POST", f"{P}/segments", {"key": "fresh", "include": ["ada"]}),
    ("PATCH", f"{P}/segments/testers", {"description": "Who tests."}),
    ("POST", f"{P}/environments", {"key": "preview"}),
    ("POST", f"{P}/environments/production:clone", {"key": "preview"}),
]


@pytest.mark.parametrize(("method", "path", "body"), ALLOWED)
async def test_what_nobody_there_can_feel_needs_none(guarded: World, method: str, path: str, body: Any) -> None:
    """Other environments, what is not published, flags that are off anyway, new segments that nobody names."""
    reply = await guarded.api.call(method, path, body)
    assert reply.status in {200, 201}, reply.raw


async def test_a_new_segment_that_rules_wait_for_needs_a_review(world: World) -> None:
    """The rules that name it begin to match when it comes."""
    rule = {"when": {"segment": "later"}, "variation": "on"}
    assert (await world.api.patch(PRODUCTION, {"rules": [rule]})).status == 200
    await world.api.patch(f"{P}/environments/production", {"require_review": True})
    reply = await world.api.post(f"{P}/segments", {"key": "later"})
    assert (reply.status, reply.code) == (409, "review_required")


async def test_a_kill_needs_no_review(world: World) -> None:
    """An emergency waits for nobody; switching off in any other way does."""
    await world.api.post(f"{F}:toggle", {"environment": "production", "enabled": True})
    await world.api.patch(f"{P}/environments/production", {"require_review": True})
    off = await world.api.post(f"{F}:toggle", {"environment": "production", "enabled": False})
    assert (off.status, off.code) == (409, "review_required")
    killed = await world.api.post(f"{F}:kill", {"environment": "production", "reason": "on fire"})
    assert (killed.status, killed.body["enabled"]) == (200, False)


async def test_reverting_needs_a_review_as_well(world: World) -> None:
    """It changes what is served like any other edit."""
    await world.api.post(f"{F}:toggle", {"environment": "production", "enabled": True})
    await world.api.patch(f"{P}/environments/production", {"require_review": True})
    body = {"environment": "production", "version": 1}
    reply = await world.api.post(f"{F}:revert", body)
    assert (reply.status, reply.code) == (409, "review_required")
    assert (await world.api.post(f"{F}:revert?propose=Back", body)).status == 202


async def test_promoting_into_a_guarded_environment_needs_a_review(guarded: World) -> None:
    """Also where the change comes from another environment."""
    await guarded.api.post(f"{F}:toggle", {"environment": "staging", "enabled": True})
    body = {"from": "staging", "to": "production"}
    reply = await guarded.api.post(f"{F}:promote", body)
    assert (reply.status, reply.code) == (409, "review_required")
    back = await guarded.api.post(f"{F}:promote", {"from": "production", "to": "staging"})
    assert back.status == 200, back.raw


async def test_importing_needs_a_review_where_it_is_felt(guarded: World) -> None:
    """Each part of an import is looked at; what it does to other environments goes through, and a proposal is bound."""
    document = await guarded.api.shown(f"{P}/export")
    flag = next(each for each in document["flags"] if each["key"] == "checkout")
    flag["configs"]["staging"]["enabled"] = True
    assert (await guarded.api.post(f"{P}/import", document)).status == 200
    flag["configs"]["production"]["enabled"] = True
    for query in ("", "?dry_run=1"):
        reply = await guarded.api.post(f"{P}/import{query}", document)
        assert (reply.status, reply.code) == (409, "review_required")
    proposed = await guarded.api.post(f"{P}/import?propose=Import", document)
    assert proposed.status == 202, proposed.raw
    assert "production" in proposed.body["preview"]["affected"]["environments"]
    assert ("config", 1) in {(each["type"], each["version"]) for each in proposed.body["bound"]}
    request = f"{P}/change-requests/{proposed.body['id']}"
    assert (await guarded.owner.post(f"{request}:approve")).status == 200
    assert (await guarded.owner.post(f"{request}:apply")).status == 200
    assert (await guarded.api.shown(PRODUCTION))["enabled"]


async def test_a_schedule_from_before_is_judged_by_the_gate_of_its_time(world: World) -> None:
    """An environment that asks for reviews since then does not let it through."""
    at = rfc3339(world.clock.wall_ms() + 60_000)
    body = {"environment": "production", "enabled": True}
    kept = (await world.api.post(f"{F}:toggle?schedule_at={at}", body)).body
    await world.api.patch(f"{P}/environments/production", {"require_review": True})
    world.clock.jump_wall(60_000)
    await Scheduler(world.database, world.authority, world.clock).carry_out_due()
    failed = await world.api.shown(f"{P}/schedules/{kept['id']}")
    assert (failed["status"], failed["result"]["code"]) == ("failed", "review_required")


async def test_turning_the_gate_off_needs_projects_write_and_is_audited(guarded: World) -> None:
    """Whoever may only write flags cannot; the audit log shows it."""
    refused = await guarded.caller("write").patch(f"{P}/environments/production", {"require_review": False})
    assert (refused.status, refused.code) == (403, "permission_denied")
    reply = await guarded.api.patch(f"{P}/environments/production", {"require_review": False})
    assert reply.status == 200
    entry = (await guarded.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert entry["changes"] == [{"path": "require_review", "before": True, "after": False}]
    assert (await guarded.api.patch(PRODUCTION, {"enabled": True})).status == 200
