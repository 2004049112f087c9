"""Probes, status and metrics: what makes a service not ready, what merely degrades it, and what is shown."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from relay.protocol.changes import Bookmark, Environments, mark_of
from relay.serve.health import Health, build_admin
from relay.settings import Limits
from relay.sync.store import Origin
from tests.clocks import FakeClock
from tests.relay.world import Answer, World, call_asgi


@pytest.fixture
def health(world: World) -> Health:
    """The health of a world that upstream has just confirmed."""
    confirm(world)
    return Health("1.2.3", world.store, world.services.streams, world.metrics, world.clock)


def confirm(world: World) -> None:
    assert not world.store.confirm(Bookmark({world.ref.id: mark_of(world.configuration().state)}, "now"))


async def ask(health: Health, path: str) -> Answer:
    return await call_asgi(build_admin(health, Limits()), "GET", path, b"", {})


async def test_a_relay_that_serves_fresh_configurations_is_well(health: Health) -> None:
    """All probes are 200, and ready is not degraded."""
    for path in ("/livez", "/readyz", "/startupz", "/status", "/metrics"):
        assert (await ask(health, path)).status == 200
    assert (await ask(health, "/readyz")).json == {"status": "ready", "degraded": False, "faults": {}}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"listener": lambda: "closed"}, "listener"),
        ({"spool": lambda: "disk full"}, "spool"),
        ({"is_draining": lambda: True}, "draining"),
        ({"expected": lambda: frozenset({"another"})}, "configuration"),
    ],
)
async def test_whatever_keeps_it_from_serving_makes_it_not_ready(
    health: Health, change: dict[str, Any], name: str
) -> None:
    """503, with the reason under its name; live is not concerned."""
    unwell = replace(health, **change)
    answer = await ask(unwell, "/readyz")
    assert (answer.status, list(answer.json["faults"])) == (503, [name])
    assert (await ask(unwell, "/livez")).status == 200


async def test_a_stale_configuration_is_ready_and_degraded(world: World, health: Health) -> None:
    """Serving the last known is the product; `max_stale` is for who wants it otherwise."""
    await world.fake.advance(60)
    answer = await ask(health, "/readyz")
    assert (answer.status, answer.json["degraded"], answer.json["stale"]) == (200, True, "confirmed 60 s ago")
    strict = replace(health, max_stale_s=30)
    assert list((await ask(strict, "/readyz")).json["faults"]) == ["max_stale"]


async def test_what_the_upstream_lacks_itself_is_told(world: World, health: Health) -> None:
    """Nothing is lacking here, so it is ready; but keys that are not known may be those of what upstream lacks."""
    world.store.cover(Environments((world.ref,), is_complete=False))
    answer = await ask(health, "/readyz")
    assert (answer.status, answer.json["degraded"]) == (200, True)
    assert answer.json["incomplete"] == "the upstream itself lacks environments still"


async def test_an_unknown_age_is_too_old_where_there_is_a_limit(world: World) -> None:
    """What upstream never confirmed is not served where the operator asked for no older than so."""
    health = Health("1", world.store, world.services.streams, world.metrics, world.clock)
    assert world.store.age_s() is None
    assert (await ask(health, "/readyz")).status == 200
    answer = await ask(replace(health, max_stale_s=30), "/readyz")
    assert (answer.status, list(answer.json["faults"])) == (503, ["max_stale"])


async def test_a_refused_configuration_is_ready_and_degraded(health: Health) -> None:
    """The last good one is served; the reason for the refusal is told."""
    answer = await ask(replace(health, refused=lambda: "environment x at flags.a: is bad"), "/readyz")
    assert (answer.status, answer.json["status"], answer.json["degraded"]) == (200, "ready", True)
    assert answer.json["refused"] == "environment x at flags.a: is bad"


async def test_a_configuration_from_the_file_is_ready_and_degraded(world: World) -> None:
    """However fresh it was when it was written: nobody has confirmed it to this process yet."""
    world.store.confirmed_at_ms = world.clock.wall_ms()
    world.snapshot({}, revision=2, origin=Origin.FILE)
    health = Health("1", world.store, world.services.streams, world.metrics, world.clock)
    answer = await ask(health, "/readyz")
    assert (answer.status, answer.json["degraded"]) == (200, True)
    confirm(world)
    assert (await ask(health, "/readyz")).json["degraded"] is False


async def test_without_a_configuration_it_is_neither_started_nor_ready() -> None:
    """But alive."""
    world = World(FakeClock())
    health = Health("1", world.store, world.services.streams, world.metrics, world.clock)
    assert [(await ask(health, path)).status for path in ("/livez", "/startupz", "/readyz")] == [200, 503, 503]


async def test_only_a_fault_of_the_process_makes_it_not_alive(health: Health) -> None:
    """The reason stands in the body."""
    answer = await ask(replace(health, live=lambda: "the loop stands still"), "/livez")
    assert (answer.status, answer.json["fault"]) == (503, "the loop stands still")


async def test_an_authority_is_never_stale(health: Health, world: World) -> None:
    """Its configuration is made here."""
    await world.fake.advance(1_000)
    authority = replace(health, is_authority=True)
    assert (await ask(authority, "/readyz")).json["degraded"] is False
    world.store.remove(world.ref.id)
    assert (await ask(authority, "/readyz")).status == (await ask(authority, "/startupz")).status == 200
    assert (await ask(authority, "/status")).json["origin"] == "authority"


async def test_status_shows_environments_streams_refusals_and_details_and_no_secret(
    health: Health, world: World
) -> None:
    """Revision, age, origin, epoch and hash of each environment; whatever else the process adds."""
    world.metrics.refused_keys.add("unknown")
    shown = await ask(replace(health, details={"spool": lambda: {"bytes": 7}}), "/status")
    body = shown.json
    assert body["environments"] == [
        {
            "id": world.ref.id,
            "key": "production",
            "project": "shop",
            "epoch": "e1",
            "revision": 1,
            "hash": world.configuration().state.content_hash,
            "flags": 1,
            "gaps": 0,
            "first_gaps": [],
        }
    ]
    assert (body["version"], body["origin"], body["age_s"]) == ("1.2.3", "upstream", 0)
    assert body["refusals"] == {"configurations": 0, "keys": 1, "connections": 0}
    assert body["spool"] == {"bytes": 7}
    assert body["streams"] == {}
    assert b"stream-secret" not in shown.body
    assert not any(each.fingerprint.encode() in shown.body for each in world.configuration().credentials.values())


async def test_metrics_are_prometheus_text_and_other_paths_are_problems(health: Health) -> None:
    """The admin port answers nothing but its own routes."""
    metrics = await ask(health, "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"halyard_relay_streams_open" in metrics.body
    answer = await ask(health, "/api/v2/evaluate")
    assert (answer.status, orjson.loads(answer.body)["code"]) == (404, "not_found")
