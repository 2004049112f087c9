"""`POST /api/v2/projects/{p}/flags/{f}:kill` on the relay: who may, what is answered, and what it does at once."""

from pathlib import Path
from typing import Any

import pytest

from relay.changes.kills import Kills, Serving
from relay.changes.outbox import Outbox
from relay.changes.overlay import Position
from relay.protocol.hashing import canonical
from relay.protocol.keys import Kind
from relay.serve.app import build_app
from relay.serve.kill import RETRY_AFTER_S, kill_routes
from relay.settings import Changes
from tests.clocks import settle
from tests.relay.live import SlowRequest, context_parameter
from tests.relay.objects import credential, flag, new_key, reference
from tests.relay.world import Answer, World

PATH = "/api/v2/projects/shop/flags/beta:kill"
BODY = {"environment": "production", "reason": "fire"}
WRITE = ["flags:read", "flags:write"]


class Operator:
    """A world with the kill route, and a token that may write."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.token = new_key(Kind.TOKEN)
        self.outbox = Outbox.open(path / "outbox", 2)
        serving = Serving(world.store.overlays.hold, self._served, self._served)
        self.kills = Kills(
            self.outbox,
            serving,
            relay_id="r",
            settings=Changes(max_kills=2),
            clock=world.clock,
            authority_ms=world.clock.wall_ms,
            metrics=world.metrics,
        )
        self.app = build_app(world.services, more_routes=kill_routes(world.services, self.kills))
        world.app = self.app
        self.flags = {"beta": flag(), "gamma": flag(), "delta": flag()}
        self.open("production", WRITE)

    def open(self, environment: str, scopes: list[str], number: int = 1, project: str = "shop") -> None:
        """Let the token, with these scopes, into an environment."""
        objects = [credential(self.token, Kind.TOKEN, scopes=scopes)]
        objects += [credential(raw, kind) for kind, raw in self.world.keys.items() if kind is not Kind.TOKEN]
        self.world.snapshot(
            self.flags,
            ref=reference(number, environment, project),
            credentials={each["id"]: canonical(each) for each in objects},
            revision=2,
        )

    def _served(self, environment_id: str) -> Position | None:
        configuration = self.world.store.get(environment_id)
        return None if configuration is None else Position(configuration.state.epoch, configuration.revision)

    async def kill(self, path: str = PATH, body: Any = BODY, *, key: Kind | str | None = "") -> Answer:
        return await self.world.call("POST", path, body, key=self.token if key == "" else key)


@pytest.fixture
def operator(world: World, tmp_path: Path) -> Operator:
    return Operator(world, tmp_path)


async def test_a_kill_is_accepted_and_the_flag_is_off(operator: Operator) -> None:
    """202 with id, names, time and state; the next evaluation answers off."""
    answer = await operator.kill()
    assert answer.status == 202
    body = answer.json
    assert body | {"id": "", "at": ""} == {
        "id": "",
        "flag": "beta",
        "environment": "production",
        "at": "",
        "status": "pending",
    }
    assert list(operator.outbox.records) == [body["id"]]
    value = (await operator.world.evaluate("beta")).json
    assert (value["value"], value["reason"]) == (False, "DISABLED")
    assert (await operator.kill()).json == body


async def test_open_streams_are_told_at_once(operator: Operator) -> None:
    """One patch with the one flag."""
    world = operator.world
    async with world.running():
        stream = world.connect(f"/api/v2/client/stream?context={context_parameter()}")
        await settle()
        assert (await operator.kill()).status == 202
        await settle()
        assert [event.event for event in stream.events] == ["put", "patch"]
        assert b'"beta"' in stream.events[1].data
        assert b'"gamma"' not in stream.events[1].data
        await stream.leave()


async def test_ids_are_as_good_as_keys(operator: Operator) -> None:
    """Of the project, the flag and the environment."""
    ref = operator.world.ref
    path = f"/api/v2/projects/{ref.project_id}/flags/{operator.flags['gamma']['id']}:kill"
    answer = await operator.kill(path, {"environment": ref.id})
    assert (answer.status, answer.json["flag"], answer.json["environment"]) == (202, "gamma", "production")


@pytest.mark.parametrize("kind", [Kind.SERVER, Kind.CLIENT, Kind.RELAY])
async def test_keys_of_applications_kill_nothing(operator: Operator, kind: Kind) -> None:
    """403, whatever they may read."""
    answer = await operator.kill(key=kind)
    assert (answer.status, answer.json["code"]) == (403, "key_kind")


@pytest.mark.parametrize("key", [None, "nonsense", new_key(Kind.TOKEN)])
async def test_whoever_is_not_known_kills_nothing(operator: Operator, key: str | None) -> None:
    """401."""
    assert (await operator.kill(key=key)).status == 401


@pytest.mark.parametrize("scopes", [["flags:read"], ["flags:read", "flags:delete"], ["keys:write"]])
async def test_a_token_needs_the_scope(operator: Operator, scopes: list[str]) -> None:
    """403 without flags:write, as on the upstream."""
    operator.world.store.remove(operator.world.ref.id)
    operator.open("production", scopes)
    answer = await operator.kill()
    assert (answer.status, answer.json["code"]) == (403, "key_scope")


async def test_a_token_kills_in_its_own_projects_only(operator: Operator) -> None:
    """403 for a project that it is not for, 404 for one that nobody knows here."""
    operator.world.snapshot({"beta": flag()}, ref=reference(2, "production", "other"))
    answer = await operator.kill("/api/v2/projects/other/flags/beta:kill")
    assert (answer.status, answer.json["code"]) == (403, "wrong_project")
    answer = await operator.kill("/api/v2/projects/nowhere/flags/beta:kill")
    assert (answer.status, answer.json["code"]) == (404, "project_not_found")


async def test_a_token_that_is_revoked_while_the_body_is_under_way_kills_nothing(operator: Operator) -> None:
    """What the token opens is asked again when the body is there."""
    request = SlowRequest(operator.world, PATH, BODY, operator.token)
    await settle()
    operator.world.commit(credentials=operator.world.credentials())
    await request.complete()
    await request.task
    assert request.status == 401
    assert not operator.outbox.records


@pytest.mark.parametrize(
    ("path", "environment", "code"),
    [
        ("/api/v2/projects/shop/flags/nothing:kill", "production", "flag_not_found"),
        (PATH, "nowhere", "environment_not_found"),
    ],
)
async def test_what_is_not_there_is_404(operator: Operator, path: str, environment: str, code: str) -> None:
    """With the upstream's codes."""
    answer = await operator.kill(path, {"environment": environment})
    assert (answer.status, answer.json["code"]) == (404, code)


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        (b"{", 400, set()),
        (b'{"environment":NaN}', 400, set()),
        ([], 422, {""}),
        ({}, 422, {"environment"}),
        ({"environment": 7, "reason": 7, "reson": 7}, 422, {"environment", "reason", "reson"}),
        ({"environment": "production", "reason": "x" * 1_001}, 422, {"reason"}),
        (b'"' + b"x" * 70_000 + b'"', 413, set()),
    ],
)
async def test_bodies_that_cannot_be_used(operator: Operator, body: Any, status: int, fields: set[str]) -> None:
    """Every fault by its path, as on the other native routes."""
    answer = await operator.kill(body=body)
    assert (answer.status, set(answer.json.get("errors", {}))) == (status, fields)
    assert not operator.outbox.records


async def test_a_full_outbox_is_503(operator: Operator) -> None:
    """With a time to come back; what is killed already can still be asked for, and be killed anew."""
    for name in ("beta", "gamma"):
        assert (await operator.kill(f"/api/v2/projects/shop/flags/{name}:kill")).status == 202
    answer = await operator.kill("/api/v2/projects/shop/flags/delta:kill")
    assert (answer.status, answer.json["code"]) == (503, "outbox_full")
    assert answer.headers["retry-after"] == str(RETRY_AFTER_S)
    assert (await operator.kill()).status == 202
    await operator.world.fake.advance(1)
    assert (await operator.kill()).status == 202


async def test_a_disk_that_refuses_is_503(operator: Operator, tmp_path: Path) -> None:
    """Nothing is switched off that a restart would forget."""
    (tmp_path / "outbox").rmdir()
    answer = await operator.kill()
    assert (answer.status, answer.json["code"]) == (503, "outbox_unavailable")
    assert (await operator.world.evaluate("beta")).json["value"] is True


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_post_kills(operator: Operator, method: str) -> None:
    """405, and not 404."""
    assert (await operator.world.call(method, PATH, key=operator.token)).status == 405


async def test_the_upstreams_app_has_no_such_route(world: World) -> None:
    """It has one of its own, which asks the database."""
    assert (await world.call("POST", PATH, BODY, app=build_app(world.services))).status == 404
