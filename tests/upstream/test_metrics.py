"""Reading what was counted and tracked."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.upstream.ingest_world import CHECKOUT, OTHER_PROJECT, PROJECT, STAGING, world
from tests.upstream.test_ingest import counters, event

HOUR_14 = "2026-09-21T14:00:00.000Z"


async def test_counts_can_be_read_by_flag_environment_variation_and_hour(tmp_path: Path) -> None:
    """A row names flag and environment by key and has variation, reason, source, hour and numbers."""
    async with world(tmp_path) as here:
        await here.send([counters(3), counters(2, variation=None, reason="ERROR", error_code="GENERAL")])
        answer = await here.get("shop/metrics", flag="checkout", environment="production")
        row = {
            "flag": "checkout",
            "flag_id": CHECKOUT,
            "environment": "production",
            "source": "single",
            "hour": HOUR_14,
        }
        assert answer["data"] == [
            {**row, "variation": None, "reason": "ERROR", "count": 2, "errors": 2},
            {**row, "variation": "on", "reason": "SPLIT", "count": 3, "errors": 0},
        ]
        assert (answer["total"], answer["offset"], answer["has_more"]) == (2, 0, False)


async def test_counts_are_narrowed(tmp_path: Path) -> None:
    """Flag and environment, by key or id, and a range of hours narrow the rows; unknown ones are 404."""
    late = counters(4, minute="2026-09-21T15:10:00.000Z")
    async with world(tmp_path) as here:
        await here.send([counters(1), counters(2, environment=STAGING), late])

        async def found(**query: Any) -> list[int]:
            return [row["count"] for row in (await here.get(f"{PROJECT}/metrics", **query))["data"]]

        assert await found() == [1, 2, 4]
        assert await found(environment=STAGING) == [2]
        assert await found(flag=CHECKOUT, environment="production") == [1, 4]
        assert await found(**{"from": "2026-09-21T15:59:00Z"}) == [4]
        assert await found(**{"from": "2026-09-21T14:00:00Z", "to": "2026-09-21T15:00:00Z"}) == [1, 2]
        assert await found(to="2020-01-01T00:00:00Z") == []
        assert (await here.get("shop/metrics", 404, flag="nowhere"))["code"] == "flag_not_found"
        assert (await here.get("shop/metrics", 404, environment="nowhere"))["code"] == "environment_not_found"


async def test_lists_are_paged(tmp_path: Path) -> None:
    """Limit and offset page through both lists; a limit over the maximum is taken as the maximum."""
    async with world(tmp_path) as here:
        await here.send([*(event(f"e{number}") for number in range(5)), counters(1), counters(2, source="bulk")])
        first = await here.get("shop/events", limit=3)
        rest = await here.get("shop/events", limit=3, offset=3)
        assert [row["id"] for row in first["data"] + rest["data"]] == ["e0", "e1", "e2", "e3", "e4"]
        assert (first["total"], first["has_more"], rest["has_more"]) == (5, True, False)
        assert (await here.get("shop/events", limit=10**6))["limit"] == 100
        counted = await here.get("shop/metrics", limit=1)
        assert (len(counted["data"]), counted["total"], counted["has_more"]) == (1, 2, True)


async def test_events_are_listed(tmp_path: Path) -> None:
    """An event is shown with all its fields, and found by environment, name and unit."""
    async with world(tmp_path) as here:
        await here.send(
            [
                event("a", name="purchase", value=2, flag="checkout", at="2026-09-21T14:00:00Z", properties={"x": 1}),
                event("b", STAGING, unit="somebody"),
            ]
        )
        listed = await here.get("shop/events", name="purchase")
        assert listed["data"] == [
            {
                "id": "a", "type": "track", "environment": "production", "name": "purchase", "flag": "checkout",
                "unit": "u", "value": 2.0, "at": "2026-09-21T14:00:00.000Z",
                "received_at": "2026-09-21T14:15:00.000Z", "properties": {"x": 1},
            }
        ]  # fmt: skip
        assert [row["id"] for row in (await here.get("shop/events", unit="somebody"))["data"]] == ["b"]
        assert [row["id"] for row in (await here.get("shop/events", environment="staging"))["data"]] == ["b"]
        assert (await here.get("shop/events", environment="staging", name="purchase"))["total"] == 0


async def test_other_tenants_see_nothing(tmp_path: Path) -> None:
    """F36: another organisation's project is 404, one that the caller is limited away from 403."""
    async with world(tmp_path) as here:
        for path in ("metrics", "events"):
            await here.get(f"foreign/{path}", 404)
            await here.get(f"{OTHER_PROJECT}/{path}", 404)
        here.actor = replace(here.actor, projects=frozenset({OTHER_PROJECT}))
        await here.get("shop/metrics", 403)
        here.actor = replace(here.actor, projects=None, scopes=frozenset())
        await here.get("shop/events", 403)


@pytest.mark.parametrize(
    "query",
    [{"from": "yesterday"}, {"to": "2026-09-21"}, {"from": "9999-99-99T00:00:00Z"},
     {"to": "9999-12-31T23:59:59-23:59"}, {"from": "0001-01-01T00:00:00+23:59"}, {"limit": 0}, {"offset": -1},
     {"limit": "x"}],
)  # fmt: skip
async def test_wrong_parameters_are_named(tmp_path: Path, query: dict[str, Any]) -> None:
    """A parameter that cannot be used is a 422 under its own name."""
    async with world(tmp_path) as here:
        answer = await here.get("shop/metrics", 422, **query)
        assert list(answer["errors"]) == list(query)
