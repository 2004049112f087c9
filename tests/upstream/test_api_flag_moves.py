"""Flags from place to place: promoted into another environment, copied as new flags, made from templates."""

from typing import Any

import pytest

from tests.upstream.management import P, World

FLAGS = f"{P}/flags"
FLAG = f"{FLAGS}/checkout"
STAGING = f"{FLAG}/environments/staging"
PRODUCTION = f"{FLAG}/environments/production"
PRO = {"attribute": "plan", "op": "equals", "values": ["pro"]}
HALF = {"attribute": "account", "op": "percentage_of", "values": [50_000]}
PROMOTE = {"from": "staging", "to": "production"}


async def configured(world: World) -> Any:
    """Give the flag in staging something of every part."""
    reply = await world.api.patch(
        STAGING,
        {
            "enabled": True,
            "off": "on",
            "fallthrough": {"split": {"weights": [["on", 50_000], ["off", 50_000]]}},
            "rules": [{"name": "Pros", "when": PRO, "value": True}, {"name": "Half", "when": HALF, "value": True}],
            "targets": [{"variation": "on", "units": ["ada"]}],
        },
    )
    assert reply.status == 200, reply.raw
    return reply.body


PARTS = ("enabled", "off", "fallthrough", "rules", "targets")


def parts_of(config: Any) -> dict[str, Any]:
    return {part: config[part] for part in PARTS}


async def test_promoting_copies_every_part(world: World) -> None:
    """The target is as the source, in one new version; the audit names where it came from."""
    source = await configured(world)
    before = await world.api.shown(PRODUCTION)
    reply = await world.api.post(f"{FLAG}:promote", {**PROMOTE, "reason": "tested"}, If_Match='"v1"')
    assert (reply.status, reply.headers["etag"]) == (200, '"v2"')
    assert (reply.body["flag"], reply.body["environment"]) == ("checkout", "production")
    assert parts_of(reply.body) == parts_of(source)
    assert parts_of(await world.api.shown(PRODUCTION)) == parts_of(source) != parts_of(before)
    (entry,) = (await world.api.shown(f"{P}/audit?action=flag.promoted"))["data"]
    assert (entry["target"]["key"], entry["reason"]) == ("checkout", "tested")
    assert {"path": "promoted_from", "before": None, "after": "staging"} in entry["changes"]
    assert {change["path"] for change in entry["changes"]} >= {"enabled", "off", "rules", "targets"}


async def test_a_dry_promotion_shows_the_difference(world: World) -> None:
    """Nothing changes, and the answer says what would."""
    await configured(world)
    reply = await world.api.post(f"{FLAG}:promote?dry_run=1", {**PROMOTE, "parts": ["enabled", "off"]})
    here = {"target": {"type": "flag", "key": "checkout"}, "environment": "production"}
    assert reply.body["changes"] == [
        {**here, "path": "enabled", "before": False, "after": True},
        {**here, "path": "off", "before": "off", "after": "on"},
        {**here, "path": "promoted_from", "before": None, "after": "staging"},
    ]
    assert reply.body["affected"]["environments"] == ["production"]
    assert (await world.api.shown(PRODUCTION))["version"] == 1


async def test_only_the_named_parts_are_promoted(world: World) -> None:
    """What is not named stays as it is there."""
    source = await configured(world)
    before = await world.api.shown(PRODUCTION)
    reply = await world.api.post(f"{FLAG}:promote", {**PROMOTE, "parts": ["rules"]})
    assert parts_of(reply.body) == {**parts_of(before), "rules": source["rules"]}


async def test_promoting_again_changes_nothing(world: World) -> None:
    """No new version and no audit entry when both are equal."""
    await configured(world)
    for _ in range(2):
        reply = await world.api.post(f"{FLAG}:promote", PROMOTE)
        assert (reply.status, reply.headers["etag"]) == (200, '"v2"')
    assert (await world.api.shown(f"{P}/audit?action=flag.promoted"))["total"] == 1


async def test_rules_that_are_there_already_keep_their_ids(world: World) -> None:
    """By its id, or else by its condition; a new one brings its own, so that the next promotion finds it."""
    source = await configured(world)
    there = {"rules": [{"id": "mine", "name": "Old name", "when": HALF, "value": False}]}
    await world.api.patch(PRODUCTION, there)
    pros, half = (await world.api.post(f"{FLAG}:promote", PROMOTE)).body["rules"]
    assert (pros["id"], pros["name"]) == (source["rules"][0]["id"], "Pros")
    assert (half["id"], half["name"], half["serve"]) == ("mine", "Half", {"variation": "on"})
    await world.api.patch(f"{STAGING}/rules/{pros['id']}", {"when": {"all": []}})
    again = (await world.api.post(f"{FLAG}:promote", PROMOTE)).body["rules"]
    assert [(rule["id"], rule["when"]) for rule in again] == [(pros["id"], {"all": []}), ("mine", HALF)]


async def test_a_ramp_that_runs_already_is_promoted_with_a_warning(world: World) -> None:
    """It is as far where it goes as where it comes from, which may be too far; one that waits needs no warning."""
    await world.api.post(f"{STAGING}:ramp", {"to": "on"})
    warned = await world.api.post(f"{FLAG}:promote", PROMOTE)
    assert [warning["code"] for warning in warned.body["warnings"]] == ["ramp_running"]
    await world.api.post(f"{STAGING}:ramp", {"to": "on", "start_at": None})
    assert "warnings" not in (await world.api.post(f"{FLAG}:promote", PROMOTE)).body


@pytest.mark.parametrize(
    ("body", "status", "paths"),
    [
        ({"from": "staging", "to": "staging", "parts": ["salt", "rules"]}, 422, {"to", "parts[0]"}),
        ({"from": "staging", "to": "production", "parts": []}, 422, {"parts"}),
        ({"from": "nowhere", "to": "production"}, 404, set()),
        ({"from": "staging", "to": "nowhere"}, 404, set()),
        ({"to": "production", "fron": "staging"}, 422, {"from", "fron"}),
    ],
)
async def test_a_promotion_that_makes_no_sense_is_refused(
    world: World, body: dict[str, Any], status: int, paths: set[str]
) -> None:
    """Onto itself, of unknown parts, between unknown environments."""
    refused = await world.api.post(f"{FLAG}:promote", body)
    assert (refused.status, set(refused.body.get("errors", ()))) == (status, paths)


async def test_a_copy_is_a_new_flag_that_is_off(world: World) -> None:
    """Everything is as in the original but key, name, switches and what people are divided by."""
    source = await configured(world)
    await world.api.patch(FLAG, {"tags": ["ui"], "owner": "ann", "metadata": {"team": "web"}})
    original = await world.api.shown(FLAG)
    reply = await world.api.post(f"{FLAG}:copy", {"name": "Second checkout"})
    assert (reply.status, reply.headers["location"]) == (201, f"{FLAGS}/second_checkout")
    copy = reply.body
    assert copy["id"] != original["id"]
    same = ("type", "kind", "tags", "owner", "metadata", "variations", "description")
    assert {name: copy[name] for name in same} == {name: original[name] for name in same}
    assert [state["enabled"] for state in copy["environments"].values()] == [False] * 3
    copied = await world.api.shown(f"{FLAGS}/second_checkout/environments/staging")
    assert parts_of(copied) == {**parts_of(source), "enabled": False, "rules": copied["rules"]}
    ids = [rule.pop("id") for rule in source["rules"]]
    assert [rule.pop("id") in ids for rule in copied["rules"]] == [False, False]
    assert copied["rules"] == source["rules"]
    (entry,) = (await world.api.shown(f"{P}/audit?action=flag.copied"))["data"]
    assert entry["target"]["key"] == "second_checkout"
    origin = {"project": "shop", "flag": "checkout"}
    assert {"path": "copied_from", "before": None, "after": origin} in entry["changes"]


async def test_a_copy_gets_a_key_of_its_own(world: World) -> None:
    """As named, made from the name, or from the original's key; one that is taken is a 409."""
    assert (await world.api.made(f"{FLAG}:copy", {"key": "twin"}))["name"] == "Checkout"
    assert (await world.api.made(f"{FLAG}:copy", {}))["key"] == "checkout_2"
    assert (await world.api.post(f"{FLAG}:copy")).body["key"] == "checkout_3"
    assert (await world.api.post(f"{FLAG}:copy", {"key": "twin"})).code == "key_taken"
    refused = await world.api.post(f"{FLAG}:copy", {"key": "Bad Key", "name": " "})
    assert (refused.status, set(refused.body["errors"])) == (422, {"key", "name"})


async def test_a_copy_goes_to_another_project(world: World) -> None:
    """Under the same key, by the environments' keys; what has no place there, or is missing there, is a warning."""
    await configured(world)
    await world.api.patch(STAGING, {"rules": [{"when": {"segment": "testers"}, "value": True}]})
    await world.api.made(f"{P}/environments", {"key": "qa"})
    reply = await world.api.post(f"{FLAG}:copy", {"project": "other", "keep_enabled": True})
    assert (reply.status, reply.headers["location"]) == (201, "/api/v2/projects/other/flags/checkout")
    assert [key for key, state in reply.body["environments"].items() if state["enabled"]] == ["staging"]
    assert {warning["code"] for warning in reply.body["warnings"]} == {"missing_segment", "environment_missing"}
    assert (await world.api.shown("/api/v2/projects/other/flags/checkout"))["key"] == "checkout"


async def test_a_copy_needs_permission_where_it_goes(world: World) -> None:
    """A token for one project cannot copy into another, and another organisation's project does not exist."""
    await world.api.made("/api/v2/projects/other/flags", {"key": "mine"})
    mine = "/api/v2/projects/other/flags/mine"
    refused = await world.caller("limited").post(f"{mine}:copy", {"project": "shop"})
    assert (refused.status, refused.code) == (403, "wrong_project")
    refused = await world.api.post(f"{FLAG}:copy", {"project": "lab"})
    assert (refused.status, refused.code) == (404, "project_not_found")


async def test_an_archived_flag_can_be_copied(world: World) -> None:
    """Nothing of it changes, and the copy is not archived."""
    await world.api.post(f"{FLAG}:archive")
    copy = await world.api.made(f"{FLAG}:copy", {"key": "again"})
    assert copy["archived_at"] is None
    assert (await world.api.shown(FLAG))["archived_at"] is not None


async def everywhere(world: World, key: str) -> list[dict[str, Any]]:
    return [parts_of(each) for each in (await world.api.shown(f"{FLAGS}/{key}/environments"))["data"]]


async def test_a_kill_switch_is_on_for_everybody(world: World) -> None:
    """Active and enabled in every environment, serving Enabled; switched off it serves Disabled."""
    flag = await world.api.made(FLAGS, {"name": "Payment Processing", "template": "kill_switch"})
    assert (flag["key"], flag["type"], flag["is_active"]) == ("payment_processing", "boolean", True)
    assert flag["variations"] == [
        {"key": "enabled", "value": True, "name": "Enabled"},
        {"key": "disabled", "value": False, "name": "Disabled"},
    ]
    assert flag["metadata"] == {"flag_template": "kill_switch"}
    config = {"enabled": True, "off": "disabled", "fallthrough": {"variation": "enabled"}, "rules": [], "targets": []}
    assert await everywhere(world, "payment_processing") == [config] * 3


async def test_a_gradual_rollout_waits_for_its_start(world: World) -> None:
    """Inactive; a ramp in every environment that has not begun: 10 % a day up to 100 %."""
    keys = [
        (await world.api.made(FLAGS, {"name": "New Dashboard", "template": "gradual_rollout"}))["key"] for _ in range(2)
    ]
    assert keys == ["new_dashboard", "new_dashboard_2"]
    flag = await world.api.shown(f"{FLAGS}/new_dashboard")
    assert (flag["type"], flag["is_active"], flag["metadata"]["flag_template"]) == ("boolean", False, "gradual_rollout")
    assert [(each["key"], each["value"]) for each in flag["variations"]] == [("disabled", False), ("enabled", True)]
    ramp = {
        "to": "enabled", "else": "disabled", "start_at": None, "increment": 10_000, "every_s": 86_400,
        "target": 100_000, "by": "targetingKey",
    }  # fmt: skip
    for config in await everywhere(world, "new_dashboard"):
        assert (config["off"], config["fallthrough"]) == ("disabled", {"ramp": ramp})


@pytest.mark.parametrize(("flavor", "kind"), [("string", str), ("number", int), ("json", dict)])
async def test_an_ab_test_divides_equally(world: World, flavor: str, kind: type) -> None:
    """Inactive; three variations of the flavor's type in equal shares in every environment."""
    flag = await world.api.made(FLAGS, {"name": "Wording", "template": "ab_test", "flavor": flavor})
    assert (flag["type"], flag["is_active"], flag["kind"]) == (flavor, False, "experiment")
    assert [each["key"] for each in flag["variations"]] == ["control", "variant_a", "variant_b"]
    assert {type(each["value"]) for each in flag["variations"]} == {kind}
    weights = [["control", 33_334], ["variant_a", 33_333], ["variant_b", 33_333]]
    for config in await everywhere(world, "wording"):
        assert config["fallthrough"]["split"]["weights"] == weights
        assert config["off"] == "control"


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"template": "ab_test"}, {"flavor"}),
        ({"template": "kill_switch", "flavor": "json"}, {"flavor"}),
        ({"flavor": "json"}, {"flavor"}),
        ({"template": "kill_switch", "type": "json", "default_value": {}}, {"type", "default_value"}),
        ({"template": "kill_switch", "variations": [], "number_format": "float"}, {"variations", "number_format"}),
        ({"template": "launch"}, {"template"}),
        ({"template": "ab_test", "flavor": "boolean"}, {"flavor"}),
    ],
)
async def test_what_a_template_makes_cannot_be_given_beside_it(
    world: World, body: dict[str, Any], paths: set[str]
) -> None:
    """An ab_test needs a flavor, and nothing else takes one."""
    refused = await world.api.post(FLAGS, {"name": "New", **body})
    assert (refused.status, set(refused.body["errors"])) == (422, paths)
    assert (await world.api.shown(FLAGS))["total"] == 1


async def test_what_else_is_named_holds_on_top_of_a_template(world: World) -> None:
    """Switches, kind, metadata, and configs of single environments."""
    body = {
        "name": "Careful",
        "template": "gradual_rollout",
        "is_active": True,
        "kind": "ops",
        "metadata": {"team": "web"},
        "enabled": False,
        "environments": {"staging": {"enabled": True, "off_value": True, "fallthrough": {"variation": "enabled"}}},
    }
    flag = await world.api.made(FLAGS, body)
    assert (flag["is_active"], flag["kind"]) == (True, "ops")
    assert flag["metadata"] == {"team": "web", "flag_template": "gradual_rollout"}
    development, staging, _ = await everywhere(world, "careful")
    assert (development["enabled"], "ramp" in development["fallthrough"]) == (False, True)
    assert (staging["enabled"], staging["off"], staging["fallthrough"]) == (True, "enabled", {"variation": "enabled"})


async def test_the_templates_are_listed(world: World) -> None:
    """Each with what it makes; whoever may read flags may read them."""
    listed = await world.caller("read").shown("/api/v2/flag-templates")
    assert [(each["template"], each["flavors"]) for each in listed["data"]] == [
        ("kill_switch", []),
        ("gradual_rollout", []),
        ("ab_test", ["string", "number", "json"]),
    ]
    assert listed["data"][2]["variations"]["number"][1] == {"key": "variant_a", "name": "Variant A", "value": 1}
