"""What the audit log tells: who, what, when, from where, through what; the difference as a JSON patch; filters."""

from typing import Any
from urllib.parse import quote

import pytest

from relay.clock import rfc3339
from tests.upstream.management import EMAIL, Caller, P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import ConfigFields, CreateFlag, DeleteFlag, UpdateConfig, UpdateFlag
from upstream.domain.diff import patch_of
from upstream.domain.entities import Change

AUDIT = "/api/v2/audit"
TOGGLE = f"{P}/flags/checkout:toggle"
IN_PRODUCTION = {"environment": "production"}


async def actions(world: World, query: str, path: str = AUDIT) -> list[str]:
    return [entry["action"] for entry in (await world.api.shown(f"{path}?{query}"))["data"]]


async def newest(world: World) -> Any:
    return (await world.api.shown(f"{AUDIT}?limit=1"))["data"][0]


async def test_an_entry_says_from_where_and_through_what(world: World) -> None:
    """The network address, the request, and the door that the client says it is."""
    caller = Caller(world.app, world.keys["all"], address="198.51.100.7")
    await caller.post(TOGGLE, IN_PRODUCTION, X_Request_Id="req-1", Halyard_Client="cli")
    entry = await newest(world)
    assert (entry["address"], entry["via"], entry["request_id"]) == ("198.51.100.7", "cli", "req-1")
    session = await world.sign_in()
    person = {"Authorization": f"Bearer {session['access_token']}", "Halyard-Client": "dashboard"}
    await Caller(world.app, None, address="2001:db8::1").call("POST", TOGGLE, IN_PRODUCTION, headers=person)
    entry = await newest(world)
    assert (entry["address"], entry["via"], entry["actor"]["name"]) == ("2001:db8::1", "dashboard", "Olga")


@pytest.mark.parametrize("said", ["relay", "schedule", "system", "CLI", "", "é"])
async def test_a_client_cannot_say_that_it_is_the_authority_itself(world: World, said: str) -> None:
    """Relays and schedules are known by other means; whatever else is said is the API."""
    await world.api.post(TOGGLE, IN_PRODUCTION, Halyard_Client=said)
    assert (await newest(world))["via"] == "api"


async def test_the_log_is_filtered(world: World) -> None:
    """By action, flag, environment, actor, door and time, on both routes, all at once and with paging."""
    await world.clock.advance(60)
    since = rfc3339(world.clock.wall_ms())
    await world.api.post(TOGGLE, IN_PRODUCTION, Halyard_Client="cli")
    await world.clock.advance(60)
    until = rfc3339(world.clock.wall_ms())
    await world.caller("write").patch(f"{P}/flags/checkout", {"name": "Cart"})
    session = await world.sign_in()
    person = {"Authorization": f"Bearer {session['access_token']}"}
    await world.nobody.call("DELETE", f"{P}/segments/testers", headers=person)
    for path in (AUDIT, f"{P}/audit"):
        assert await actions(world, f"after={since}", path) == ["segment.deleted", "flag.updated", "flag.toggled"]
        assert await actions(world, f"after={since}&before={until}", path) == ["flag.toggled"]
        assert await actions(world, f"after={until}&actor=write", path) == ["flag.updated"]
        assert await actions(world, "actor=WRITE", path) == ["flag.updated"]
        assert await actions(world, f"actor={EMAIL}", path) == ["segment.deleted"]
        assert await actions(world, "actor=olga", path) == ["segment.deleted"]
        assert await actions(world, "actor=nobody", path) == []
        assert await actions(world, "via=cli&actor=all", path) == ["flag.toggled"]
        assert await actions(world, f"via=cli&action=flag.updated&after={since}", path) == []
    entry = (await world.api.shown(f"{AUDIT}?via=cli&action=flag.toggled"))["data"][0]
    assert await actions(world, f"actor={entry['actor']['id']}") == ["flag.toggled"]
    assert await actions(world, f"project=shop&flag=checkout&environment=production&after={since}") == ["flag.toggled"]
    page = await world.api.shown(f"{AUDIT}?after={since}&limit=1&offset=1")
    assert (page["total"], page["has_more"], page["data"][0]["action"]) == (3, True, "flag.updated")


async def test_times_have_an_offset(world: World) -> None:
    """Also one whose plus sign a query turns into a space; anything else is a 422 that names the parameter."""
    await world.api.post(TOGGLE, IN_PRODUCTION)
    for time in ("2026-01-01T00:00:00+01:00", quote("2026-01-01T00:00:00+01:00"), "2026-01-01T00:00:00-01:00"):
        assert await actions(world, f"after={time}&action=flag.toggled") == ["flag.toggled"]
    for time in ("2026-01-01T00:00:00", "yesterday", "", "1790000000000"):
        for name in ("after", "before"):
            reply = await world.api.get(f"{AUDIT}?{name}={time}")
            assert (reply.status, reply.code, list(reply.body["errors"])) == (422, "invalid_parameters", [name]), time


async def test_changes_come_with_their_patch(world: World) -> None:
    """`changes` is for people, `patch` for programs."""
    await world.api.patch(f"{P}/flags/checkout", {"description": "The cart", "metadata": {"a.b/c~": 1}})
    entry = await newest(world)
    assert entry["changes"] == [
        {"path": "description", "before": None, "after": "The cart"},
        {"path": "metadata.a.b/c~", "before": None, "after": 1},
    ]
    assert entry["patch"] == [
        {"op": "add", "path": "/description", "value": "The cart"},
        {"op": "add", "path": "/metadata/a.b~1c~0", "value": 1},
    ]
    await world.api.patch(f"{P}/flags/checkout", {"description": None, "metadata": {"a.b/c~": 2}})
    assert (await newest(world))["patch"] == [
        {"op": "remove", "path": "/description"},
        {"op": "replace", "path": "/metadata/a.b~1c~0", "value": 2},
    ]


def test_entries_from_before_there_were_pointers_have_a_patch_too() -> None:
    """Made from their dotted paths, as well as these tell."""
    changes = [Change(path="metadata.team", before="a", after="b")]
    assert patch_of(changes) == [{"op": "replace", "path": "/metadata/team", "value": "b"}]


def apply(document: Any, patch: list[dict[str, Any]]) -> None:
    """Apply a patch as RFC 6902 says: parents must be there, and so must what is replaced or removed."""
    for operation in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        target = document
        for part in parents:
            target = target[part]
        if operation["op"] == "remove":
            del target[last]
        else:
            assert operation["op"] == "add" or last in target
            target[last] = operation["value"]


def test_patches_lead_from_each_state_to_the_next(rig: Rig) -> None:
    """Applied one after the other they give the flag as it is, whatever its keys look like; its end leaves nothing."""
    state: Any = {"environments": {each: {} for each in ("development", "staging", "production")}}

    def follow(command: Any, of: Any = None) -> None:
        target = state if of is None else state["environments"][of]
        (entry,) = rig.do(command).audits
        apply(target, patch_of(entry.changes))

    follow(CreateFlag(project="shop", key="x.y", name="X", metadata={"a/b": 1, "c~d": 1.5}, tags=["t"]))
    production = state["environments"]["production"]
    assert (state["metadata"], production["enabled"]) == ({"a/b": 1, "c~d": 1.5}, False)
    follow(UpdateFlag(project="shop", flag="x.y", metadata={"c~d": "x", "e.f": 0}, owner="ada"))
    assert (state["metadata"], state["owner"]) == ({"c~d": "x", "e.f": 0}, "ada")
    fields = ConfigFields(enabled=True, off=None)
    follow(UpdateConfig(project="shop", flag="x.y", environment="production", fields=fields), "production")
    assert (production["enabled"], "off" in production) == (True, False)
    follow(DeleteFlag(project="shop", flag="x.y"))
    assert state.keys() == {"environments"}
