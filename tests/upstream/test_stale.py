"""Flags that have had their day: each reason, what keeps a flag from it, and how the answer says so."""

from typing import Any

import pytest
from sqlalchemy import event, insert

from relay.clock import rfc3339
from tests.upstream.management import P, World
from upstream.storage import tables

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
EVERYWHERE = ("development", "staging", "production")


def later(world: World, days: float) -> None:
    world.clock.jump_wall(round(days * DAY_MS))


async def stale(world: World, query: str = "") -> dict[str, dict[str, Any]]:
    """Return the reasons of each stale flag by their names, with since and evidence."""
    body = await world.api.shown(f"{P}/stale-flags{query}")
    return {each["key"]: {one["reason"]: one for one in each["stale"]} for each in body["data"]}


async def reasons(world: World, key: str) -> set[str]:
    return set((await stale(world)).get(key, {}))


async def count(world: World, key: str, environment: str, source: str) -> str:
    """Let one evaluation be counted now; returns the hour as it is shown."""
    flag = (await world.api.shown(f"{P}/flags/{key}"))["id"]
    place = (await world.api.shown(f"{P}/environments/{environment}"))["id"]
    hour_ms = world.clock.wall_ms() // HOUR_MS * HOUR_MS
    row = {
        "environment_id": place, "flag_id": flag, "variation": "on", "reason": "STATIC", "source": source,
        "hour_ms": hour_ms, "count": 1, "errors": 0,
    }  # fmt: skip
    await world.database.write(lambda connection: connection.execute(insert(tables.evaluation_counters), row))
    return rfc3339(hour_ms)


async def switch_on(world: World, key: str, *environments: str, **config: object) -> None:
    for environment in environments or EVERYWHERE:
        reply = await world.api.patch(f"{P}/flags/{key}/environments/{environment}", {"enabled": True, **config})
        assert reply.status == 200, reply.raw


async def test_a_flag_that_nobody_asked_for_is_stale(world: World) -> None:
    """Since its creation, after the days of its kind; answers for all flags at once and pushed values are no asking."""
    created = (await world.api.shown(f"{P}/flags/checkout"))["created_at"]
    later(world, 29)
    await count(world, "checkout", "production", "bulk")
    await count(world, "checkout", "production", "stream")
    assert await stale(world) == {}
    later(world, 1)
    (found,) = (await stale(world)).values()
    assert found == {
        "never_evaluated": {
            "reason": "never_evaluated",
            "since": created,
            "evidence": {"last_evaluated_at": dict.fromkeys(EVERYWHERE)},
        }
    }


@pytest.mark.parametrize("source", ["single", "sdk"])
async def test_a_flag_that_nobody_asks_for_any_more_is_stale(world: World, source: str) -> None:
    """Since the hour of the last evaluation, which the flag's page and the list show for each environment."""
    later(world, 31)
    hour = await count(world, "checkout", "staging", source)
    assert await reasons(world, "checkout") == set()
    shown = await world.api.shown(f"{P}/flags/checkout")
    (listed,) = (await world.api.shown(f"{P}/flags"))["data"]
    for flag in (shown, listed):
        assert {key: each["last_evaluated_at"] for key, each in flag["environments"].items()} == {
            "development": None,
            "staging": hour,
            "production": None,
        }
    later(world, 31)
    found = (await stale(world))["checkout"]["not_evaluated_lately"]
    assert (found["since"], found["evidence"]["last_evaluated_at"]["staging"]) == (hour, hour)


async def test_without_counts_nothing_is_told_of_evaluations(world: World) -> None:
    """A flag with analytics off is never said not to be evaluated."""
    await world.api.patch(f"{P}/flags/checkout", {"analytics_enabled": False})
    later(world, 89)
    assert await reasons(world, "checkout") == set()


async def test_a_flag_that_serves_all_the_same_is_rolled_out(world: World) -> None:
    """On everywhere, one variation, unchanged for the days of its kind."""
    rules = [{"when": {"all": []}, "variation": "on"}, {"when": {"all": []}, "variation": "off", "is_active": False}]
    split = {"split": {"weights": [["on", 100_000], ["off", 0]]}}
    await switch_on(world, "checkout", rules=rules, fallthrough=split)
    since = (await world.api.shown(f"{P}/flags/checkout/environments/production"))["updated_at"]
    later(world, 30)
    found = (await stale(world))["checkout"]["fully_rolled_out"]
    assert found["since"] == since
    assert found["evidence"] == {"variation": "on", "environments": list(EVERYWHERE)}
    await world.api.patch(f"{P}/flags/checkout", {"description": "Touched"})
    assert "fully_rolled_out" not in await reasons(world, "checkout")


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": False},
        {"fallthrough": {"variation": "off"}},
        {"fallthrough": {"split": {"weights": [["on", 99_999], ["off", 1]]}}},
        {"rules": [{"when": {"attribute": "a", "op": "exists"}, "variation": "off"}]},
        {"targets": [{"variation": "off", "units": ["ada"]}]},
    ],
)
async def test_a_flag_that_somebody_may_get_otherwise_is_not_rolled_out(world: World, change: dict[str, Any]) -> None:
    """In one environment, for one unit or one rule."""
    await switch_on(world, "checkout")
    await world.api.patch(f"{P}/flags/checkout/environments/staging", change)
    later(world, 60)
    assert await reasons(world, "checkout") == {"never_evaluated"}


@pytest.mark.parametrize(
    "change", [{"is_active": False}, {"prerequisites": ["other"]}, {"mutual_exclusion_group": "group"}]
)
async def test_a_flag_that_others_hold_back_is_not_rolled_out(world: World, change: dict[str, Any]) -> None:
    """Switched off as a whole, or off for some because of another flag."""
    await switch_on(world, "checkout")
    await world.api.patch(f"{P}/flags/checkout", change)
    later(world, 60)
    assert await reasons(world, "checkout") == {"never_evaluated"}


async def test_a_ramp_is_rolled_out_when_it_has_reached_all(world: World) -> None:
    """The days are counted from its end, not from the change that started it."""
    start = rfc3339(world.clock.wall_ms())
    ramp = {"to": "on", "else": "off", "start_at": start, "increment": 10_000, "every_s": 86_400}
    await switch_on(world, "checkout", fallthrough={"ramp": ramp})
    later(world, 35)
    assert "fully_rolled_out" not in await reasons(world, "checkout")
    later(world, 5)
    found = (await stale(world))["checkout"]["fully_rolled_out"]
    assert found["since"] == rfc3339(world.clock.wall_ms() - 30 * DAY_MS)
    for unfinished in ({**ramp, "target": 50_000}, {**ramp, "start_at": None}):
        await switch_on(world, "checkout", fallthrough={"ramp": unfinished})
        later(world, 60)
        assert "fully_rolled_out" not in await reasons(world, "checkout")


async def test_expired_and_unchanged_flags_are_stale(world: World) -> None:
    """Expired from its moment on, whatever its kind; unchanged since the last change in any environment."""
    end = rfc3339(world.clock.wall_ms() + 50 * DAY_MS)
    await world.api.patch(f"{P}/flags/checkout", {"expires_at": end, "kind": "permission"})
    later(world, 50)
    found = await stale(world)
    assert found["checkout"] == {"expired": {"reason": "expired", "since": end, "evidence": {"expires_at": end}}}
    await world.api.patch(f"{P}/flags/checkout", {"expires_at": None, "kind": "release"})
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "staging"})
    changed = (await world.api.shown(f"{P}/flags/checkout/environments/staging"))["updated_at"]
    later(world, 90)
    assert (await stale(world))["checkout"]["unchanged"]["evidence"] == {"changed_at": changed}


async def test_the_list_has_thresholds_pages_and_filters(world: World) -> None:
    """By reason and kind; kinds that are meant to rest take longer, or never are stale; archived flags are not."""
    for key, kind in (("a", "release"), ("b", "ops"), ("c", "experiment")):
        await world.api.made(f"{P}/flags", {"key": key, "kind": kind})
    later(world, 100)
    await world.api.post(f"{P}/flags/c:archive")
    body = await world.api.shown(f"{P}/stale-flags?limit=2&sort=key&dir=desc")
    assert ([each["key"] for each in body["data"]], body["total"], body["has_more"]) == (["checkout", "b"], 3, True)
    assert body["thresholds"]["ops"] == {"not_evaluated_days": 90.0, "rolled_out_days": 0.0, "unchanged_days": 0.0}
    assert set(await stale(world, "?reason=unchanged")) == {"a", "checkout"}
    assert set(await stale(world, "?kind=ops")) == {"b"}
    await world.api.made(f"{P}/flags", {"key": "fresh"})
    listed = (await world.api.shown(f"{P}/flags?stale=true"))["data"]
    assert {each["key"]: [one["reason"] for one in each["stale"]] for each in listed} == {
        "a": ["never_evaluated", "unchanged"],
        "b": ["never_evaluated"],
        "checkout": ["never_evaluated", "unchanged"],
    }
    (fresh,) = (await world.api.shown(f"{P}/flags?stale=false"))["data"]
    assert (fresh["key"], fresh["stale"]) == ("fresh", [])
    (archived,) = (await world.api.shown(f"{P}/flags?archived=true"))["data"]
    assert archived["stale"] == []


async def test_reading_stale_flags_takes_a_bounded_number_of_statements(world: World) -> None:
    """As many for forty flags as for one."""

    async def statements() -> int:
        seen: list[str] = []
        engine = world.database._readers._engine

        def note(_c: object, _k: object, statement: str, *_: object) -> None:
            seen.append(statement)

        event.listen(engine, "before_cursor_execute", note)
        await stale(world)
        event.remove(engine, "before_cursor_execute", note)
        return len(seen)

    later(world, 100)
    one = await statements()
    for number in range(40):
        await world.api.made(f"{P}/flags", {"key": f"flag-{number}"})
    later(world, 100)
    assert await statements() == one
