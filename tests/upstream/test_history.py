"""What flags, configs and segments were: listed, shown, compared, and restored as new versions."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from tests.upstream.management import P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import ConfigFields as Fields
from upstream.domain.commands import CreateFlag, UpdateConfig, UpdateFlag
from upstream.domain.diff import document
from upstream.domain.entities import FlagType
from upstream.domain.governance_commands import RevertFlag
from upstream.storage import tables

F = f"{P}/flags/checkout"
IN_PRODUCTION = "environment=production"


async def toggled(world: World, *, enabled: bool) -> Any:
    reply = await world.api.post(f"{F}:toggle", {"environment": "production", "enabled": enabled})
    assert reply.status == 200, reply.raw
    return reply.body


async def test_the_history_of_a_flag_says_who_made_which_version(world: World) -> None:
    """Newest first, each with its audit entry and the paths that differ from the version before; in pages."""
    await world.api.patch(F, {"name": "Till", "tags": ["money"]})
    await world.owner.patch(F, {"description": "Where people pay."})
    listed = await world.api.shown(f"{F}/history")
    assert [row["version"] for row in listed["data"]] == [3, 2, 1]
    assert [row["changed"] for row in listed["data"]] == [["description"], ["name", "tags"], []]
    assert [row["action"] for row in listed["data"]] == ["flag.updated", "flag.updated", "flag.created"]
    assert [row["actor"]["name"] for row in listed["data"]] == ["Olga", "all", "system"]
    entry = (await world.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert listed["data"][0]["audit_id"] == entry["id"]
    assert listed["data"][1]["revisions"], "a name is published"
    assert listed["data"][0]["revisions"] == {}, "a description is not"
    page = await world.api.shown(f"{F}/history?limit=1&offset=1")
    assert page == {"data": [listed["data"][1]], "total": 3, "limit": 1, "offset": 1, "has_more": True}


async def test_an_environment_has_a_history_of_its_own(world: World) -> None:
    """With `environment`, by key or id, it is the config's there."""
    config = await toggled(world, enabled=True)
    listed = await world.api.shown(f"{F}/history?{IN_PRODUCTION}")
    assert [(row["version"], row["action"], row["changed"]) for row in listed["data"]] == [
        (2, "flag.toggled", ["enabled"]), (1, "flag.created", []),
    ]  # fmt: skip
    by_id = await world.api.shown(f"{F}/history?environment={config['environment_id']}")
    assert by_id == listed
    nowhere = await world.api.get(f"{F}/history?environment=nowhere")
    assert (nowhere.status, nowhere.code) == (404, "environment_not_found")


async def test_a_whole_version_is_shown_as_the_thing_was(world: World) -> None:
    """The content has the shape that the thing itself has."""
    first = await world.api.shown(f"{F}/environments/production")
    await toggled(world, enabled=True)
    shown = await world.api.shown(f"{F}/history/1?{IN_PRODUCTION}")
    assert shown["version"] == 1
    assert shown["content"] == {name: first[name] for name in shown["content"]}
    missing = await world.api.get(f"{F}/history/9?{IN_PRODUCTION}")
    assert (missing.status, missing.code) == (404, "version_not_found")
    strange = await world.api.get(f"{F}/history/latest")
    assert (strange.status, strange.code) == (422, "invalid_parameters")


async def test_two_versions_are_compared_in_both_directions(world: World) -> None:
    """The differences have the form that the audit log has."""
    await world.api.patch(F, {"name": "Till"})
    compared = await world.api.shown(f"{F}/history:compare?from=1&to=2")
    assert compared["changes"] == [{"path": "name", "before": "Checkout", "after": "Till"}]
    assert (compared["from"]["version"], compared["to"]["version"]) == (1, 2)
    back = await world.api.shown(f"{F}/history:compare?from=2&to=1")
    assert back["changes"] == [{"path": "name", "before": "Till", "after": "Checkout"}]
    missing = await world.api.get(f"{F}/history:compare?from=1&to=7")
    assert (missing.status, missing.code) == (404, "version_not_found")


async def test_a_flag_can_be_seen_as_it_was_at_a_revision(world: World) -> None:
    """Flag and config, each in the version that was in force at that revision of the environment."""
    before = (await world.api.shown(f"{P}/environments/production"))["revision"]
    await toggled(world, enabled=True)
    await world.api.patch(F, {"name": "Till"})
    at = f"{F}/history:at?{IN_PRODUCTION}&revision="
    shown = [await world.api.shown(f"{at}{before + number}") for number in range(3)]
    assert [each["config"]["content"]["enabled"] for each in shown] == [False, True, True]
    assert [each["flag"]["content"]["name"] for each in shown] == ["Checkout", "Checkout", "Till"]
    for revision in (0, before + 3):
        missing = await world.api.get(f"{at}{revision}")
        assert (missing.status, missing.code) == (404, "version_not_found"), revision


async def test_reverting_restores_a_version_as_a_new_one(world: World) -> None:
    """The content is the earlier one, the version goes on, and the audit log says so."""
    await world.api.patch(F, {"name": "Till", "tags": ["a"], "metadata": {"team": "pay"}})
    reply = await world.api.post(f"{F}:revert", {"version": 1, "reason": "wrong flag"}, if_match='"v2"')
    assert reply.status == 200, reply.raw
    assert (reply.body["version"], reply.body["name"], reply.body["tags"]) == (3, "Checkout", [])
    assert reply.headers["etag"] == '"v3"'
    entry = (await world.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert (entry["action"], entry["reason"]) == ("flag.reverted", "wrong flag")
    assert {change["path"] for change in entry["changes"]} == {"name", "tags", "metadata.team"}
    assert (await world.api.shown(f"{F}/history:compare?from=1&to=3"))["changes"] == []
    again = await world.api.post(f"{F}:revert", {"version": 1})
    assert again.body["version"] == 3, "nothing to change"


async def test_reverting_a_config_counts_as_a_deliberate_switch(world: World) -> None:
    """A kill at the edge that was made before the revert must not undo it."""
    await toggled(world, enabled=True)
    await toggled(world, enabled=False)
    await world.clock.advance(60)
    reply = await world.api.post(f"{F}:revert", {"version": 2, "environment": "production"})
    assert (reply.status, reply.body["enabled"], reply.body["version"]) == (200, True, 4)
    assert reply.body["enabled_at"] == reply.body["updated_at"]
    entry = (await world.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert (entry["action"], entry["reason"]) == ("flag.reverted", "Back to version 2.")
    assert entry["revisions"]


async def test_a_config_can_be_restored_by_revision(world: World) -> None:
    """The revision that worked yesterday is what people know, not the version."""
    await toggled(world, enabled=True)
    revision = (await world.api.shown(f"{P}/environments/production"))["revision"]
    await world.api.patch(f"{F}/environments/production", {"enabled": False, "fallthrough": {"variation": "off"}})
    reply = await world.api.post(f"{F}:revert", {"revision": revision, "environment": "production"})
    assert (reply.status, reply.body["enabled"], reply.body["fallthrough"]) == (200, True, {"variation": "on"})
    early = await world.api.post(f"{F}:revert", {"revision": 0, "environment": "production"})
    assert (early.status, early.code) == (404, "version_not_found")
    future = await world.api.post(f"{F}:revert", {"revision": 999, "environment": "production"})
    assert (future.status, future.code) == (404, "version_not_found")


async def test_a_config_that_serves_a_variation_which_is_gone_is_not_restored(world: World) -> None:
    """409, with each place that names one."""
    made = {"key": "colour", "type": "string", "variations": [{"key": key, "value": key} for key in ("red", "blue")]}
    await world.api.made(f"{P}/flags", made)
    colour = f"{P}/flags/colour"
    rule = {"when": {"all": []}, "serve": {"split": {"weights": [["red", 50_000], ["blue", 50_000]]}}}
    serving = {
        "fallthrough": {"variation": "blue"},
        "rules": [rule],
        "targets": [{"variation": "blue", "units": ["u"]}],
    }
    assert (await world.api.patch(f"{colour}/environments/production", serving)).status == 200
    plain = {"fallthrough": {"variation": "red"}, "rules": [], "targets": []}
    assert (await world.api.patch(f"{colour}/environments/production", plain)).status == 200
    assert (await world.api.patch(colour, {"variations": [{"key": "red", "value": "red"}]})).status == 200
    reply = await world.api.post(f"{colour}:revert", {"version": 2, "environment": "production"})
    assert (reply.status, reply.code) == (409, "revert_conflict")
    assert set(reply.body["errors"]) == {"fallthrough", "rules[0].serve", "targets[0]"}
    assert "'blue'" in reply.body["errors"]["fallthrough"][0]


async def test_a_flag_whose_version_lacks_what_is_served_now_is_not_restored(world: World) -> None:
    """409 with the environment; once the serve has changed it goes through."""
    made = {"key": "colour", "type": "string", "variations": [{"key": "red", "value": "red"}]}
    await world.api.made(f"{P}/flags", made)
    colour = f"{P}/flags/colour"
    await world.api.patch(f"{colour}/environments/staging", {"fallthrough": {"value": "blue"}})
    reply = await world.api.post(f"{colour}:revert", {"version": 1})
    assert (reply.status, reply.code) == (409, "revert_conflict")
    assert list(reply.body["errors"]) == ["environments.staging.fallthrough"]
    await world.api.patch(f"{colour}/environments/staging", {"fallthrough": {"variation": "red"}})
    assert (await world.api.post(f"{colour}:revert", {"version": 1})).status == 200


async def test_a_revert_must_say_what_it_means(world: World) -> None:
    """Exactly one of version and revision, a revision with its environment; also If-Match and archived flags hold."""
    for body, fields in (
        ({}, ["version"]),
        ({"version": 1, "revision": 1}, ["version", "environment"]),
        ({"revision": 1}, ["environment"]),
    ):
        reply = await world.api.post(f"{F}:revert", body)
        assert (reply.status, list(reply.body["errors"])) == (422, fields)
    stale = await world.api.post(f"{F}:revert", {"version": 1}, if_match='"v9"')
    assert (stale.status, stale.code) == (412, "version_conflict")
    unknown = await world.api.post(f"{F}:revert", {"version": 5})
    assert (unknown.status, unknown.code) == (404, "version_not_found")
    await world.api.post(f"{F}:archive")
    archived = await world.api.post(f"{F}:revert", {"version": 1})
    assert (archived.status, archived.code) == (409, "flag_archived")


async def test_segments_have_a_history_too(world: World) -> None:
    """Listed, shown, compared and restored like flags."""
    path = f"{P}/segments/testers"
    await world.api.patch(path, {"include": ["ada", "bob"]})
    listed = await world.api.shown(f"{path}/history")
    assert [(row["version"], row["changed"]) for row in listed["data"]] == [(2, ["include"]), (1, [])]
    assert (await world.api.shown(f"{path}/history/1"))["content"]["include"] == ["ada"]
    compared = await world.api.shown(f"{path}/history:compare?from=1&to=2")
    assert compared["changes"] == [{"path": "include", "before": ["ada"], "after": ["ada", "bob"]}]
    reply = await world.api.post(f"{path}:revert", {"version": 1})
    assert (reply.status, reply.body["include"], reply.body["version"]) == (200, ["ada"], 3)
    entry = (await world.api.shown(f"{P}/audit?limit=1"))["data"][0]
    assert (entry["action"], entry["target"]["key"]) == ("segment.reverted", "testers")
    missing = await world.api.post(f"{path}:revert", {"version": 9})
    assert (missing.status, missing.code) == (404, "version_not_found")


async def test_a_flag_that_is_older_than_its_history_was_there_at_every_revision(world: World) -> None:
    """What a migration noted has no revision; it is what was in force before all that are kept."""
    table = tables.entity_history
    await world.database.write(
        lambda connection: connection.execute(
            update(table).where(table.c.version == 1).values(audit_id=None, revisions={})
        )
    )
    shown = await world.api.shown(f"{F}/history:at?{IN_PRODUCTION}&revision=0")
    assert shown["flag"]["version"] == 1
    row = (await world.api.shown(f"{F}/history"))["data"][0]
    assert (row["audit_id"], row["actor"], row["action"]) == (None, None, None)


NAMES = st.text("abcxyz", min_size=1, max_size=5)
EDITS: st.SearchStrategy[Any] = st.one_of(
    st.builds(dict, name=NAMES),
    st.builds(dict, tags=st.lists(NAMES, max_size=3)),
    st.builds(dict, is_active=st.booleans()),
    st.builds(dict, metadata=st.dictionaries(NAMES, st.integers(0, 9), max_size=2)),
)
SERVES = st.one_of(
    st.sampled_from([{"variation": "on"}, {"variation": "off"}]),
    st.integers(0, 100_000).map(lambda on: {"split": {"weights": [["on", on], ["off", 100_000 - on]]}}),
)
CONFIG_EDITS = st.one_of(
    st.builds(Fields, enabled=st.booleans()),
    st.builds(Fields, fallthrough=SERVES),
    st.builds(Fields, off=st.sampled_from(["on", "off", None])),
    st.builds(
        Fields, rules=st.lists(st.builds(lambda serve: {"when": {"all": []}, "serve": serve}, SERVES), max_size=2)
    ),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.one_of(EDITS, CONFIG_EDITS), min_size=1, max_size=8), data=st.data())
def test_reverting_to_any_version_gives_its_content(rig: Rig, edits: list[Any], data: st.DataObject) -> None:
    """Whatever was edited in between: the flag itself or its config in an environment."""
    key = f"f{rig.clock.wall_ms()}"
    rig.clock.jump_wall(1)
    flag = rig.make(CreateFlag(project="shop", key=key, type=FlagType.BOOLEAN))
    environment = rig.environment()
    contents: dict[tuple[str, int], Any] = {}

    def note() -> None:
        now = rig.view(lambda view: (view.flag(flag.project_id, flag.id), view.config(flag.id, environment.id)))
        for place, entity in zip(("", environment.id), now, strict=True):
            assert entity is not None
            contents[place, entity.version] = document(entity)

    note()
    for edit in edits:
        command: Any = (
            UpdateConfig(project="shop", flag=key, environment="production", fields=edit)
            if isinstance(edit, Fields)
            else UpdateFlag(project="shop", flag=key, **edit)
        )
        rig.do(command)
        note()
    place, version = data.draw(st.sampled_from(sorted(contents)))
    reverted = rig.make(RevertFlag(project="shop", flag=key, environment=place or None, version=version))
    assert document(reverted) == contents[place, version]


async def test_a_page_beyond_the_end_is_empty(world: World) -> None:
    """As in every list."""
    for path in ("flags/checkout", "segments/testers"):
        page = await world.api.shown(f"{P}/{path}/history?page=9")
        assert (page["data"], page["total"], page["has_more"]) == ([], 1, False)
