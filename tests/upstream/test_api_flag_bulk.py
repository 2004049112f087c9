"""Many flags at once: switched, archived, tagged; and what flags have to do with each other."""

from typing import Any

import pytest

from tests.upstream.management import P, World

FLAGS = f"{P}/flags"


async def made(world: World, *keys: str, **fields: Any) -> None:
    for key in keys:
        await world.api.made(FLAGS, {"key": key, **fields})


async def revision(world: World) -> int:
    return int((await world.api.shown(f"{P}/environments/production"))["revision"])


async def test_many_flags_are_switched_as_one_revision(world: World) -> None:
    """By keys and ids, each once; the answer has every version, also of those that were on already."""
    await made(world, "a", "b")
    await world.api.post(f"{FLAGS}/b:toggle", {"environment": "production", "enabled": True})
    before, id_of_a = await revision(world), (await world.api.shown(f"{FLAGS}/a"))["id"]
    body = {"flags": ["checkout", id_of_a, "b", "a"], "environment": "production", "enabled": True, "reason": "launch"}
    reply = await world.api.post(f"{FLAGS}:toggle", body)
    assert reply.status == 200
    assert reply.body == {
        "data": [
            {"flag": key, "environment": "production", "enabled": True, "version": 2} for key in ("checkout", "a", "b")
        ],
        "total": 3,
    }
    assert await revision(world) == before + 1
    entries = (await world.api.shown(f"{P}/audit?action=flag.toggled"))["data"]
    assert [(entry["target"]["key"], entry["reason"]) for entry in entries] == [
        ("a", "launch"), ("checkout", "launch"), ("b", None),
    ]  # fmt: skip


async def test_a_dry_run_of_many_shows_all_of_them(world: World) -> None:
    """One difference for each flag, which it names, and nothing changes."""
    await made(world, "a")
    body = {"flags": ["checkout", "a"], "environment": "staging", "enabled": True}
    reply = await world.api.post(f"{FLAGS}:toggle?dry_run=1", body)
    assert [(each["target"]["key"], each["environment"], each["path"]) for each in reply.body["changes"]] == [
        ("checkout", "staging", "enabled"), ("a", "staging", "enabled"),
    ]  # fmt: skip
    assert reply.body["affected"]["flags"] == ["a", "checkout"]
    assert (await world.api.shown(f"{FLAGS}/a/environments/staging"))["enabled"] is False


VERBS: dict[str, dict[str, Any]] = {
    "toggle": {"environment": "production", "enabled": True},
    "archive": {},
    "tag": {"add": ["new"]},
}


@pytest.mark.parametrize("verb", VERBS)
async def test_every_flag_that_is_not_there_is_named(world: World, verb: str) -> None:
    """All unknown ones in one 422, all archived ones in one 409; nothing happens to the others."""
    await made(world, "a", "b")
    before = await world.api.shown(f"{FLAGS}/checkout")
    unknown = await world.api.post(f"{FLAGS}:{verb}", {"flags": ["x", "checkout", "y"], **VERBS[verb]})
    assert (unknown.status, set(unknown.body["errors"])) == (422, {"flags[0]", "flags[2]"})
    for key in ("a", "b"):
        await world.api.post(f"{FLAGS}/{key}:archive")
    archived = await world.api.post(f"{FLAGS}:{verb}", {"flags": ["b", "checkout", "a"], **VERBS[verb]})
    assert (archived.status, archived.code, archived.body["flags"]) == (409, "flag_archived", ["a", "b"])
    assert await world.api.shown(f"{FLAGS}/checkout") == before


@pytest.mark.parametrize("verb", VERBS)
async def test_there_is_a_limit_to_many(world: World, verb: str) -> None:
    """At least one flag, at most a hundred."""
    for flags in ([], ["checkout"] * 101):
        refused = await world.api.post(f"{FLAGS}:{verb}", {"flags": flags, **VERBS[verb]})
        assert (refused.status, set(refused.body["errors"])) == (422, {"flags"})


async def test_flags_that_only_require_each_other_are_archived_together(world: World) -> None:
    """In whatever order they are listed; others that require them need force."""
    await made(world, "b", prerequisites=["checkout"])
    await made(world, "c", prerequisites=["b"])
    refused = await world.api.post(f"{FLAGS}:archive", {"flags": ["checkout", "b"]})
    assert (refused.status, refused.code, refused.body["used_by"]) == (409, "in_use", ["c"])
    reply = await world.api.post(f"{FLAGS}:archive", {"flags": ["checkout", "b", "c"]})
    assert reply.status == 200
    assert {flag["key"]: flag["archived_at"] is not None for flag in reply.body["data"]} == {
        "c": True, "b": True, "checkout": True,
    }  # fmt: skip
    await made(world, "d")
    await made(world, "e", prerequisites=["d"])
    forced = await world.api.post(f"{FLAGS}:archive", {"flags": ["d"], "force": True})
    assert [flag["key"] for flag in forced.body["data"]] == ["d"]


async def test_many_flags_are_tagged_and_untagged(world: World) -> None:
    """Other tags stay; a flag that has them already gets no new version; a tag cannot come and go at once."""
    await made(world, "a", tags=["old", "kept"])
    await made(world, "b", tags=["new"])
    reply = await world.api.post(f"{FLAGS}:tag", {"flags": ["a", "b"], "add": ["new"], "remove": ["old"]})
    assert [(flag["key"], flag["tags"], flag["version"]) for flag in reply.body["data"]] == [
        ("a", ["kept", "new"], 2),
        ("b", ["new"], 1),
    ]
    refused = await world.api.post(f"{FLAGS}:tag", {"flags": ["a"], "add": ["x", " "], "remove": ["x"]})
    assert (refused.status, len(refused.body["errors"])) == (422, 2)
    listed = await world.api.shown(f"{P}/tags")
    assert listed["data"] == [{"tag": "kept", "flags": 1}, {"tag": "new", "flags": 2}]


async def test_groups_show_where_their_members_are_on(world: World) -> None:
    """By name, without archived flags and flags of no group."""
    await made(world, "b", "a", "gone", mutual_exclusion_group="checkout page")
    await made(world, "c", mutual_exclusion_group="banner", environments={"staging": {"enabled": True}})
    await world.api.post(f"{FLAGS}/gone:archive")
    off = {"development": False, "staging": False, "production": False}
    assert (await world.api.shown(f"{P}/groups"))["data"] == [
        {"name": "banner", "members": [{"flag": "c", "is_active": True, "environments": {**off, "staging": True}}]},
        {
            "name": "checkout page",
            "members": [{"flag": key, "is_active": True, "environments": off} for key in ("a", "b")],
        },
    ]


async def test_dependencies_are_followed_to_their_end(world: World) -> None:
    """What a flag requires, what requires it, and the segments that its rules name, missing ones too."""
    await made(world, "b", prerequisites=[{"flag": "checkout", "variations": ["on"]}, "missing"])
    await made(world, "c", prerequisites=["b"])
    rules = [{"when": {"any": [{"segment": "testers"}, {"segment": "nobody"}]}, "value": True}]
    await made(world, "d", prerequisites=["c", "b"], environments={"staging": {"rules": rules}})
    await world.api.post(f"{FLAGS}/c:archive", {"force": True})
    found = await world.api.shown(f"{FLAGS}/d/dependencies")
    assert found["requires"] == [
        {"flag": "c", "state": "archived", "distance": 1, "via": "d", "variations": None},
        {"flag": "b", "state": "live", "distance": 1, "via": "d", "variations": None},
        {"flag": "checkout", "state": "live", "distance": 2, "via": "b", "variations": ["on"]},
        {"flag": "missing", "state": "missing", "distance": 2, "via": "b", "variations": None},
    ]
    assert found["required_by"] == []
    assert found["segments"] == [
        {"segment": "nobody", "exists": False, "environments": ["staging"]},
        {"segment": "testers", "exists": True, "environments": ["staging"]},
    ]
    below = await world.api.shown(f"{FLAGS}/checkout/dependencies")
    assert [(link["flag"], link["distance"], link["via"]) for link in below["required_by"]] == [
        ("b", 1, "checkout"), ("c", 2, "b"), ("d", 2, "b"),
    ]  # fmt: skip
    assert (below["requires"], below["segments"]) == ([], [])


async def test_flags_are_filtered_by_where_they_are_on_and_whose_they_are(world: World) -> None:
    """Environment and switch, owner, expiry, several tags; each half of a pair alone is refused."""
    await made(world, "a", owner="ann", tags=["ui", "web"], environments={"staging": {"enabled": True}})
    await made(world, "b", owner="bob", tags=["ui"], expires_at="2020-01-01T00:00:00Z")
    await made(world, "c", expires_at="2099-01-01T00:00:00Z")

    async def keys(query: str) -> list[str]:
        return [flag["key"] for flag in (await world.api.shown(f"{FLAGS}?{query}"))["data"]]

    assert await keys("environment=staging&enabled=true") == ["a"]
    assert await keys("environment=staging&enabled=false") == ["b", "c", "checkout"]
    assert await keys("environment=production&enabled=true") == []
    assert await keys("owner=bob") == ["b"]
    assert await keys("tag=ui&tag=web") == ["a"]
    assert await keys("tag=ui") == ["a", "b"]
    assert await keys("expired=true") == ["b"]
    assert await keys("expired=false") == ["a", "c", "checkout"]
    for query, status in {"environment=staging": 422, "enabled=true": 422, "environment=x&enabled=true": 404}.items():
        assert (await world.api.get(f"{FLAGS}?{query}")).status == status, query
    refused = await world.api.get(f"{FLAGS}?{'&'.join(['tag=x'] * 51)}")
    assert (refused.status, list(refused.body["errors"])) == (422, ["tag"])
