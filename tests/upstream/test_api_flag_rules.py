"""Rules, variations, targets, rollouts and ramps of a flag through the API, one at a time."""

from typing import Any

import pytest

from tests.upstream.management import P, World

FLAG = f"{P}/flags/checkout"
PRODUCTION = f"{FLAG}/environments/production"
RULES = f"{PRODUCTION}/rules"
PRO = {"attribute": "plan", "op": "equals", "values": ["pro"]}


async def made(world: World, *names: str) -> list[str]:
    """Add a rule for each name; return their ids."""
    return [(await world.api.made(RULES, {"name": name, "when": PRO, "value": True}))["id"] for name in names]


async def order(world: World) -> list[str]:
    return [rule["name"] for rule in (await world.api.shown(RULES))["data"]]


async def test_a_rule_is_added_read_changed_and_removed(world: World) -> None:
    """Its whole life; Location leads to it, and the ETag is the config's version throughout."""
    added = await world.api.post(
        RULES, {"name": "Pros", "when": {"attribute": "plan", "op": "eq", "value": "pro"}, "value": True}
    )
    rule = added.body
    assert (added.status, added.headers["etag"]) == (201, '"v2"')
    assert added.headers["location"] == f"{RULES}/{rule['id']}"
    assert rule == {
        "id": rule["id"], "name": "Pros", "when": PRO, "serve": {"variation": "on"}, "is_active": True, "position": 0,
        "flag": "checkout", "environment": "production", "version": 2,
    }  # fmt: skip
    assert (await world.api.shown(added.headers["location"])) == rule
    changed = await world.api.patch(added.headers["location"], {"variation": "off", "name": None, "is_active": False})
    assert changed.body == {**rule, "serve": {"variation": "off"}, "name": None, "is_active": False, "version": 3}
    kept = await world.api.patch(added.headers["location"], {"when": {"all": []}})
    assert kept.body == {**changed.body, "when": {"all": []}, "version": 4}
    removed = await world.api.delete(added.headers["location"])
    assert (removed.status, removed.headers["etag"]) == (204, '"v5"')
    assert (await world.api.get(added.headers["location"])).code == "rule_not_found"
    assert (await world.api.delete(added.headers["location"])).code == "rule_not_found"
    assert (await world.api.shown(PRODUCTION))["rules"] == []


async def test_rules_are_put_where_they_belong(world: World) -> None:
    """At the end, or at a position; one that is no place is refused."""
    await made(world, "first", "second")
    first = await world.api.made(RULES, {"name": "new", "when": PRO, "value": True, "position": 1})
    assert first["position"] == 1
    assert await order(world) == ["first", "new", "second"]
    refused = await world.api.post(RULES, {"when": PRO, "value": True, "position": 4})
    assert (refused.status, list(refused.body["errors"])) == (422, ["position"])


async def test_rules_are_reordered_as_a_whole(world: World) -> None:
    """The list must name exactly the rules that are there; what is missing, unknown or twice is named."""
    first, second, third = await made(world, "first", "second", "third")
    reply = await world.api.post(f"{RULES}:reorder", {"rules": [third, first, second]})
    assert [rule["name"] for rule in reply.body["rules"]] == ["third", "first", "second"]
    refused = await world.api.post(f"{RULES}:reorder", {"rules": [first, "nowhere", first, second]})
    assert (refused.status, refused.body["errors"]) == (
        422,
        {
            "rules[1]": ["There is no rule 'nowhere' here."],
            "rules": [
                f"The rule {first!r} is listed 2 times.",
                f"The rule {third!r} is missing; list every rule that is here.",
            ],
        },
    )
    assert await order(world) == ["third", "first", "second"]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"when": PRO}, {""}),
        ({"value": True}, {"when"}),
        ({"when": PRO, "value": True, "variation": "on"}, {""}),
        ({"when": PRO, "variation": "blue"}, {"variation"}),
        (
            {"when": {"attribute": "a", "op": "eqals", "value": 1}, "serve": {}, "name": "x" * 201},
            {"when.op", "serve", "name"},
        ),
    ],
)
async def test_a_rule_that_says_nothing_is_refused(world: World, body: dict[str, Any], paths: set[str]) -> None:
    """Every problem at once, under the members of the body."""
    refused = await world.api.post(RULES, body)
    assert (refused.status, set(refused.body["errors"])) == (422, paths)
    (rule,) = await made(world, "there")
    changed = await world.api.patch(f"{RULES}/{rule}", {"when": {"attribute": "a"}, "variation": "blue"})
    assert (changed.status, set(changed.body["errors"])) == (422, {"when", "variation"})


async def test_a_raw_value_in_a_rule_makes_a_variation(world: World) -> None:
    """The flag grows by the variation, as everywhere where raw values are taken."""
    await world.api.made(f"{P}/flags", {"key": "title", "default_value": "Hi"})
    rule = await world.api.made(f"{P}/flags/title/environments/staging/rules", {"when": PRO, "value": "Hello"})
    flag = await world.api.shown(f"{P}/flags/title")
    assert rule["serve"] == {"variation": "hello"}
    assert [each["value"] for each in flag["variations"]] == ["Hi", "Hello"]


async def test_rules_of_missing_segments_are_made_with_a_warning(world: World) -> None:
    """Until there is such a segment, the rule is skipped."""
    rule = await world.api.made(RULES, {"when": {"segment": "nobody"}, "value": True})
    assert [warning["code"] for warning in rule["warnings"]] == ["missing_segment"]


async def test_variations_are_added_changed_and_removed(world: World) -> None:
    """Versions are the flag's; a new value is served wherever the variation is."""
    await world.api.made(f"{P}/flags", {"key": "title", "default_value": "Hi"})
    variations = f"{P}/flags/title/variations"
    added = await world.api.post(variations, {"value": "Good day", "name": "Formal"})
    assert (added.status, added.headers["etag"], added.headers["location"]) == (201, '"v2"', f"{variations}/formal")
    assert added.body == {"key": "formal", "name": "Formal", "value": "Good day", "flag": "title", "version": 2}
    changed = await world.api.patch(f"{variations}/formal", {"value": "Good evening"})
    assert (changed.status, changed.headers["etag"], changed.body["value"]) == (200, '"v3"', "Good evening")
    assert [each["key"] for each in (await world.api.shown(variations))["data"]] == ["default", "formal"]
    removed = await world.api.delete(f"{variations}/formal", If_Match='"v3"')
    assert (removed.status, removed.headers["etag"]) == (204, '"v4"')
    assert (await world.api.patch(f"{variations}/formal", {"name": "x"})).code == "variation_not_found"


async def test_a_variation_of_the_wrong_type_is_refused(world: World) -> None:
    """Added or changed: every problem at once, and nothing of the key can be changed."""
    refused = await world.api.post(f"{FLAG}/variations", {"value": "text", "key": "on"})
    assert (refused.status, set(refused.body["errors"])) == (422, {"value", "key"})
    refused = await world.api.patch(f"{FLAG}/variations/on", {"value": 1, "name": "x" * 201})
    assert (refused.status, set(refused.body["errors"])) == (422, {"value", "name"})
    refused = await world.api.patch(f"{FLAG}/variations/on", {"key": "yes"})
    assert refused.code == "invalid_body"


async def test_a_variation_that_is_used_stays(world: World) -> None:
    """409 with every place: serves, inactive rules, targets, and flags that wait for it."""
    await world.api.patch(
        PRODUCTION,
        {
            "fallthrough": {"split": {"weights": [["on", 50_000], ["off", 50_000]]}},
            "rules": [
                {"when": PRO, "variation": "on", "is_active": False},
                {"when": PRO, "serve": {"ramp": {"to": "on", "else": "off"}}},
            ],
            "targets": [{"variation": "on", "units": ["ada"]}],
        },
    )
    waiting = {"key": "needs", "prerequisites": [{"flag": "checkout", "variations": ["on"]}]}
    await world.api.made(f"{P}/flags", waiting)
    refused = await world.api.delete(f"{FLAG}/variations/on")
    assert (refused.status, refused.code) == (409, "in_use")
    assert refused.body["used_by"] == [
        "environments.development.fallthrough",
        "environments.staging.fallthrough",
        "environments.production.fallthrough",
        "environments.production.rules[0].serve",
        "environments.production.rules[1].serve",
        "environments.production.targets[0]",
        "prerequisites of the flag needs",
    ]


async def test_targets_are_added_moved_and_removed(world: World) -> None:
    """A unit has one variation: adding it to another one moves it; what is there or gone already does not matter."""

    async def after(verb: str, body: dict[str, Any]) -> list[tuple[str, list[str]]]:
        reply = await world.api.post(f"{PRODUCTION}/targets:{verb}", body)
        assert reply.status == 200, reply.raw
        return [(target["variation"], target["units"]) for target in reply.body["targets"]]

    assert await after("add", {"variation": "on", "units": ["ada", "bob", 7]}) == [("on", ["ada", "bob", "7"])]
    assert await after("add", {"variation": "off", "units": ["bob", "cy"]}) == [
        ("on", ["ada", "7"]),
        ("off", ["bob", "cy"]),
    ]
    assert (await world.api.shown(PRODUCTION))["version"] == 3
    again = await after("add", {"variation": "off", "units": ["cy"]})
    assert again == [("on", ["ada", "7"]), ("off", ["bob", "cy"])]
    assert (await world.api.shown(PRODUCTION))["version"] == 3
    assert await after("remove", {"variation": "on", "units": ["bob", "ada"]}) == [
        ("on", ["7"]),
        ("off", ["bob", "cy"]),
    ]
    assert await after("remove", {"units": ["7", "bob"]}) == [("off", ["cy"])]


async def test_targets_that_make_no_sense_are_refused(world: World) -> None:
    """No units, no such variation, no unit at all: everything at once."""
    refused = await world.api.post(f"{PRODUCTION}/targets:add", {"variation": "blue", "units": ["ada", "", True]})
    assert (refused.status, set(refused.body["errors"])) == (422, {"variation", "units[1]", "units[2]"})
    for verb in ("add", "remove"):
        refused = await world.api.post(f"{PRODUCTION}/targets:{verb}", {"variation": "on", "units": []})
        assert (refused.status, set(refused.body["errors"])) == (422, {"units"})


async def test_a_rollout_serves_true_to_a_share(world: World) -> None:
    """Up to three decimals of a percent; at 100 % everybody, units or not; growing keeps order, unit and salt."""

    async def fallthrough(body: dict[str, Any]) -> Any:
        reply = await world.api.post(f"{PRODUCTION}:rollout", body)
        assert reply.status == 200, reply.raw
        return reply.body["fallthrough"]

    assert await fallthrough({"percentage": 12.345}) == {
        "split": {"by": "targetingKey", "weights": [["on", 12_345], ["off", 87_655]]}
    }
    assert await fallthrough({"percentage": 0, "by": "account"}) == {
        "split": {"by": "account", "weights": [["on", 0], ["off", 100_000]]}
    }
    assert (await fallthrough({"percentage": 33.3}))["split"]["by"] == "account"
    assert await fallthrough({"percentage": 100}) == {"variation": "on"}
    split = {"weights": [["off", 75_000], ["on", 25_000]], "salt": "own", "by": "account"}
    await world.api.patch(PRODUCTION, {"fallthrough": {"split": split}})
    assert await fallthrough({"percentage": 50}) == {
        "split": {"weights": [["off", 50_000], ["on", 50_000]], "salt": "own", "by": "account"}
    }


async def test_a_rollout_of_other_types_keeps_its_variation(world: World) -> None:
    """Without a name it is about what the fallthrough serves beside the off variation."""
    variations = [{"key": key, "value": key} for key in ("old", "new", "newest")]
    await world.api.made(f"{P}/flags", {"key": "theme", "variations": variations})
    theme = f"{P}/flags/theme/environments/production"
    refused = await world.api.post(f"{theme}:rollout", {"percentage": 10})
    assert (refused.status, set(refused.body["errors"])) == (422, {"variation"})
    named = await world.api.post(f"{theme}:rollout", {"percentage": 10, "variation": "new"})
    grown = await world.api.post(f"{theme}:rollout", {"percentage": 20})
    assert named.body["fallthrough"]["split"]["weights"] == [["new", 10_000], ["old", 90_000]]
    assert grown.body["fallthrough"]["split"]["weights"] == [["new", 20_000], ["old", 80_000]]
    await world.api.patch(theme, {"off": None})
    refused = await world.api.post(f"{theme}:rollout", {"percentage": 30})
    assert (refused.status, set(refused.body["errors"])) == (422, {"percentage"})


@pytest.mark.parametrize("percentage", [-1, 100.5, 33.3333, 1e-9, 1e300])
async def test_what_is_no_percentage_is_refused(world: World, percentage: float) -> None:
    """Beyond 0 to 100, or finer than the engine's 100,000 buckets."""
    refused = await world.api.post(f"{PRODUCTION}:rollout", {"percentage": percentage, "variation": "blue"})
    assert (refused.status, set(refused.body["errors"])) == (422, {"percentage", "variation"})
    refused = await world.api.post(f"{PRODUCTION}:ramp", {"to": "on", "increment": percentage, "target": percentage})
    assert (refused.status, set(refused.body["errors"])) == (422, {"increment", "target"})


async def test_a_ramp_begins_now_unless_it_says_when(world: World) -> None:
    """The rest gets the off variation; null waits; percentages become buckets, and the unit stays as it was."""
    started = await world.api.post(f"{PRODUCTION}:ramp", {"to": "on"})
    moment = started.body["fallthrough"]["ramp"]["start_at"]
    assert started.body["fallthrough"] == {
        "ramp": {
            "to": "on", "else": "off", "start_at": moment, "increment": 10_000, "every_s": 86_400, "target": 100_000,
            "by": "targetingKey",
        }
    }  # fmt: skip
    assert moment == started.body["updated_at"]
    body = {"to": "on", "else": "off", "start_at": None, "increment": 0.5, "every_s": 60, "target": 50, "by": "account"}
    waiting = await world.api.post(f"{PRODUCTION}:ramp", body)
    assert waiting.body["fallthrough"]["ramp"] == {**body, "increment": 500, "target": 50_000}
    rolled = await world.api.post(f"{PRODUCTION}:rollout", {"percentage": 50})
    assert rolled.body["fallthrough"]["split"]["by"] == "account"


async def test_a_ramp_that_goes_nowhere_is_refused(world: World) -> None:
    """To an unknown variation, to the one that the rest has too, or without anything for the rest."""
    refused = await world.api.post(f"{PRODUCTION}:ramp", {"to": "blue", "start_at": "soon", "every_s": 0})
    assert (refused.status, set(refused.body["errors"])) == (422, {"to", "start_at", "every_s"})
    refused = await world.api.post(f"{PRODUCTION}:ramp", {"to": "off"})
    assert (refused.status, set(refused.body["errors"])) == (422, {"to"})
    await world.api.patch(PRODUCTION, {"off": None})
    refused = await world.api.post(f"{PRODUCTION}:ramp", {"to": "on"})
    assert (refused.status, set(refused.body["errors"])) == (422, {"else"})


WRITES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", f"{RULES}", {"when": PRO, "value": True}),
    ("PATCH", f"{RULES}/{{rule}}", {"name": "x"}),
    ("DELETE", f"{RULES}/{{rule}}", {}),
    ("POST", f"{RULES}:reorder", {"rules": []}),
    ("POST", f"{PRODUCTION}/targets:add", {"variation": "on", "units": ["ada"]}),
    ("POST", f"{PRODUCTION}/targets:remove", {"units": ["ada"]}),
    ("POST", f"{PRODUCTION}:rollout", {"percentage": 5}),
    ("POST", f"{PRODUCTION}:ramp", {"to": "on"}),
    ("POST", f"{FLAG}/variations", {"value": True}),
    ("PATCH", f"{FLAG}/variations/on", {"name": "x"}),
    ("DELETE", f"{FLAG}/variations/on", {}),
    ("POST", f"{FLAG}:promote", {"from": "staging", "to": "production"}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=lambda value: str(value).removeprefix(P))
async def test_versions_and_archives_hold_for_every_part(
    world: World, method: str, path: str, body: dict[str, Any]
) -> None:
    """A stale If-Match is 412 with both sides, an archived flag 409, and neither changes anything."""
    (rule,) = await made(world, "there")
    path = path.format(rule=rule)
    stale = await world.api.call(method, path, body or None, headers={"If-Match": '"v9"'})
    assert (stale.status, stale.code, stale.body["expected_version"]) == (412, "version_conflict", 9)
    assert (await world.api.post(f"{FLAG}:archive")).status == 200
    before = await world.api.shown(PRODUCTION), await world.api.shown(FLAG)
    archived = await world.api.call(method, path, body or None)
    assert (archived.status, archived.code) == (409, "flag_archived")
    assert (await world.api.shown(PRODUCTION), await world.api.shown(FLAG)) == before
