"""Edits that start from an older version: `base_version` merges what is independent and refuses what is not."""

from typing import Any

import pytest

from tests.upstream.management import P, World

FLAG = f"{P}/flags/checkout"
PRODUCTION = f"{FLAG}/environments/production"
SEGMENT = f"{P}/segments/testers"


async def test_independent_fields_of_a_flag_merge(world: World) -> None:
    """What others changed meanwhile stays, also where the edit repeats the value that it started from."""
    await world.api.patch(FLAG, {"name": "Theirs", "tags": ["ui"]})
    reply = await world.api.patch(FLAG, {"base_version": 1, "name": "Checkout", "tags": ["ui"], "description": "Mine"})
    assert (reply.status, reply.headers["etag"]) == (200, '"v3"')
    assert reply.body.items() >= {"name": "Theirs", "tags": ["ui"], "description": "Mine"}.items()


async def test_independent_parts_of_a_config_merge(world: World) -> None:
    """enabled, off, fallthrough, rules and targets are parts; a switch that others made keeps its time."""
    await world.clock.advance(60)
    theirs = await world.api.patch(PRODUCTION, {"enabled": True, "off": "on"})
    await world.clock.advance(60)
    mine = {"base_version": 1, "enabled": False, "targets": [{"variation": "on", "units": ["ada"]}]}
    reply = await world.api.call("PUT", PRODUCTION, mine)
    assert (reply.status, reply.headers["etag"]) == (200, '"v3"')
    assert (reply.body["enabled"], reply.body["off"]) == (True, "on")
    assert reply.body["enabled_at"] == theirs.body["enabled_at"]
    assert reply.body["targets"] == [{"variation": "on", "units": ["ada"]}]


async def test_independent_fields_of_a_segment_merge(world: World) -> None:
    """Lists are wholes."""
    await world.api.patch(SEGMENT, {"include": ["ada", "bob"]})
    reply = await world.api.patch(SEGMENT, {"base_version": 1, "exclude": ["cy"]})
    assert (reply.body["include"], reply.body["exclude"], reply.body["version"]) == (["ada", "bob"], ["cy"], 3)


CONFLICTS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        FLAG,
        {"name": "Theirs", "owner": "ann", "tags": ["a"]},
        {"name": "Mine", "owner": "bob", "tags": ["a"]},
        {
            "name": {"base": "Checkout", "theirs": "Theirs", "yours": "Mine"},
            "owner": {"base": None, "theirs": "ann", "yours": "bob"},
        },
    ),
    (
        PRODUCTION,
        {"targets": [{"variation": "on", "units": ["a"]}], "enabled": True},
        {"targets": [{"variation": "on", "units": ["b"]}], "enabled": True},
        {
            "targets": {
                "base": [],
                "theirs": [{"variation": "on", "units": ["a"]}],
                "yours": [{"variation": "on", "units": ["b"]}],
            }
        },
    ),
    (
        SEGMENT,
        {"include": ["a"], "name": "Same"},
        {"include": ["b"], "name": "Same"},
        {"include": {"base": ["ada"], "theirs": ["a"], "yours": ["b"]}},
    ),
]


@pytest.mark.parametrize(("path", "theirs", "mine", "conflicts"), CONFLICTS, ids=["flag", "config", "segment"])
async def test_a_field_that_both_changed_is_412_with_both_sides(
    world: World, path: str, theirs: dict[str, Any], mine: dict[str, Any], conflicts: dict[str, Any]
) -> None:
    """Every such field is named with base, theirs and yours; the same change on both sides is none. Nothing happens."""
    await world.api.patch(path, theirs)
    before = await world.api.shown(path)
    refused = await world.api.patch(path, {**mine, "base_version": 1})
    assert (refused.status, refused.code, refused.headers["etag"]) == (412, "merge_conflict", '"v2"')
    assert refused.body["conflicts"] == conflicts
    assert refused.body["expected_version"] == 1
    assert refused.body["current"].items() <= before.items()
    assert await world.api.shown(path) == before


@pytest.mark.parametrize("path", [FLAG, PRODUCTION, SEGMENT])
async def test_a_base_that_cannot_be_used_is_refused(world: World, path: str) -> None:
    """A version that never was, and a base beside If-Match."""
    for version in (0, 9, -1):
        refused = await world.api.patch(path, {"base_version": version})
        assert (refused.status, refused.code) == (422, "base_version_unknown")
        assert list(refused.body["errors"]) == ["base_version"]
    for tag in ('"v1"', '"v9"'):
        both = await world.api.patch(path, {"base_version": 1}, If_Match=tag)
        assert (both.status, list(both.body["errors"])) == (422, ["base_version"])
    assert (await world.api.shown(path))["version"] == 1


async def test_a_merge_that_does_not_hold_together_is_refused(world: World) -> None:
    """Each side may be right for itself: what comes out is looked at as a whole."""
    await world.api.made(f"{P}/flags", {"key": "size", "variations": [{"key": "one", "value": 1}]})
    size = f"{P}/flags/size"
    await world.api.patch(size, {"variations": [{"key": "one", "value": 1.5}]})
    refused = await world.api.patch(size, {"base_version": 1, "number_format": "integer"})
    assert (refused.status, list(refused.body["errors"])) == (422, ["number_format"])


async def test_a_change_of_type_does_not_merge_with_new_variations(world: World) -> None:
    """The type goes with the variations, which both sides changed."""
    await world.api.patch(
        FLAG, {"variations": [{"key": "off", "value": False}, {"key": "on", "value": True, "name": "On"}]}
    )
    body = {"base_version": 1, "type": "string", "confirm_type_change": True}
    refused = await world.api.patch(FLAG, body)
    assert (refused.status, set(refused.body["conflicts"])) == (412, {"variations"})


LOST = (
    "In production the new type removed rules (1), targets (2), the split of the fallthrough; the flag is switched off"
    " there."
)


async def test_a_change_of_type_says_what_it_removed(world: World) -> None:
    """The variations of the flag, and in each environment rules, targets, splits and the switch."""
    await world.api.patch(
        PRODUCTION,
        {
            "enabled": True,
            "fallthrough": {"split": {"weights": [["on", 1], ["off", 99_999]]}},
            "rules": [{"when": {"all": []}, "value": True}],
            "targets": [{"variation": "on", "units": ["ada", "bob"]}],
        },
    )
    reply = await world.api.patch(FLAG, {"type": "json", "confirm_type_change": True})
    assert [warning["detail"] for warning in reply.body["warnings"]] == [
        "The type is json instead of boolean: the variations 'on', 'off' are gone.",
        "In development the new type's default is served.",
        "In staging the new type's default is served.",
        LOST,
    ]
    assert reply.body["environments"]["production"]["enabled"] is False
