"""`POST /changes`: what relays hand over counts once, and only for tokens that may do it now."""

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection

from relay.clock import rfc3339
from relay.protocol.changes import Snapshot
from relay.protocol.edge import EdgeChange, Kill, edge_key, encode, proof_of
from relay.serve.access import Access
from relay.serve.guard import Guard
from relay.sync.store import Store
from tests.upstream.management import Caller, P, Reply, Wakes, World
from upstream.api import changes, errors
from upstream.domain.access_commands import (
    CreateKey,
    CreateToken,
    RevokeKey,
    RevokeToken,
)
from upstream.domain.commands import (
    ToggleFlag,
)
from upstream.domain.entities import CredentialKind
from upstream.storage.history import heads, lineage, read_snapshot

FLAG = f"{P}/flags/checkout"
AUDIT = f"{P}/audit?action=flag.killed"


@dataclass
class Edge:
    """The route, a token that may write, and a relay that hands over."""

    world: World
    app: Any
    token: str
    token_id: str
    relay: str

    def change(self, **members: Any) -> EdgeChange:
        """Return a kill of the flag, made a second ago."""
        usual = EdgeChange(
            idempotency_key="kill-0001",
            ops=(Kill(project="shop", environment="production", flag="checkout", reason="fire"),),
            relay="relay-1",
            at=rfc3339(self.world.clock.wall_ms() - 1_000),
            credential=self.token_id,
        )
        return replace(usual, **members)

    async def send(self, body: Any, key: str | None = None) -> Reply:
        return await Caller(self.app, key or self.relay).post("/api/v2/changes", body)

    async def hand_over(self, change: EdgeChange | None = None, *, token: str | None = None, key: str | None = None) -> Reply:  # fmt: skip  # noqa: E501
        """Send a change, proven by the token."""
        change = change or self.change()
        return await self.send(encode(change, proof_of(edge_key(token or self.token), change)), key)

    async def refused(self, change: EdgeChange | None = None, **by: Any) -> tuple[int, str]:
        """Return status and code of a refusal, after proving that it left nothing."""
        before = await self.state()
        reply = await self.hand_over(change, **by)
        assert await self.state() == before
        return reply.status, reply.code

    async def state(self) -> tuple[Any, int]:
        """Return whether the flag is on, and how many kills there were."""
        config = await self.world.api.shown(f"{FLAG}/environments/production")
        return config["enabled"], (await self.world.api.shown(AUDIT))["total"]

    async def switch_on(self) -> None:
        await self.world.do(ToggleFlag(project="shop", flag="checkout", environment="production", enabled=True))


async def _store(world: World) -> Store:
    def look(connection: Connection) -> list[Any]:
        return [read_snapshot(connection, head.ref.id) for head in heads(connection)]

    store = Store(world.clock)
    for state in await world.database.read(look):
        store.apply(Snapshot(state, "start"))
    return store


async def _route(world: World) -> Any:
    app = FastAPI()
    errors.install(app)
    app.state.services = world.app.state.services
    app.include_router(changes.router(Access(await _store(world), world.clock, world.metrics)), prefix="/api/v2")
    return Guard(cast("Any", app), app.state.services.limits, world.metrics)


@pytest.fixture
async def edge(world: World) -> Edge:
    made = await world.do(CreateToken(name="on call", scopes=["flags:write"]))
    here = Edge(world, await _route(world), made.secret, made.entity.id, world.keys["relay"])
    await here.switch_on()
    world.clock.jump_wall(60_000)
    return here


async def test_a_kill_is_carried_out_for_the_token_at_the_relay(edge: Edge) -> None:
    """The flag is off; the audit has actor, door, reason and the time at the edge; streams are woken."""
    reply = await edge.hand_over()
    assert reply.status == 200, reply.raw
    environment = await edge.world.api.shown(f"{P}/environments/production")
    epoch = await edge.world.database.read(lineage)
    revisions = {environment["id"]: environment["revision"]}
    assert reply.body == {"epoch": epoch, "revisions": revisions, "superseded": []}
    assert await edge.state() == (False, 1)
    (entry,) = (await edge.world.api.shown(AUDIT))["data"]
    assert entry["actor"] == {"type": "token", "id": edge.token_id, "name": "on call"}
    assert (entry["via"], entry["reason"], entry["address"]) == ("relay", "fire", "192.0.2.1")
    assert entry["edge_at"] == edge.change().at
    assert entry["request_id"] == reply.headers["x-request-id"]
    wakes = cast("Wakes", edge.world.authority._notifier)
    assert wakes.woken[-1] == (environment["id"], environment["revision"])


async def test_the_same_change_again_is_answered_as_before_and_does_nothing(edge: Edge) -> None:
    """Also when the flag was switched on since, and when the token was revoked since."""
    first = await edge.hand_over()
    change = edge.change()
    await edge.switch_on()
    await edge.world.do(RevokeToken(credential=edge.token_id))
    again = await edge.hand_over(change)
    assert (again.status, again.body) == (200, first.body)
    assert await edge.state() == (True, 1)


async def test_another_change_under_the_same_key_is_422(edge: Edge) -> None:
    """A key is a promise about the body; each relay has keys of its own."""
    await edge.hand_over()
    other = edge.change(at=rfc3339(edge.world.clock.wall_ms() - 2_000))
    assert await edge.refused(other) == (422, "idempotency_key_reused")
    assert (await edge.hand_over(replace(other, relay="relay-2"))).status == 200


async def test_a_new_relay_key_does_not_make_a_change_new(edge: Edge) -> None:
    """A key that is replaced while changes wait costs nothing."""
    first = await edge.hand_over()
    fresh = (await edge.world.do(CreateKey(kind=CredentialKind.RELAY))).secret
    edge.app = await _route(edge.world)
    again = await edge.hand_over(key=fresh)
    assert (again.status, again.body) == (200, first.body)
    assert (await edge.state())[1] == 1


async def test_a_newer_switch_on_wins_and_is_recorded_as_such(edge: Edge) -> None:
    """The kill is older than the last deliberate change of `enabled`: the relay is told, with the revision."""
    change = edge.change()
    await edge.world.do(ToggleFlag(project="shop", flag="checkout", environment="production", enabled=False))
    await edge.switch_on()
    reply = await edge.hand_over(change)
    environment = await edge.world.api.shown(f"{P}/environments/production")
    assert (reply.status, reply.body["revisions"]) == (200, {environment["id"]: environment["revision"]})
    assert reply.body["superseded"] == ["checkout"]
    assert (await edge.hand_over(change)).body == reply.body
    assert await edge.state() == (True, 0)
    assert (await edge.world.api.shown(f"{P}/audit?action=flag.kill_superseded"))["total"] == 1


async def test_a_clock_that_is_ahead_does_not_outlive_the_moment(edge: Edge) -> None:
    """A kill cannot be later than its arrival."""
    await edge.hand_over(edge.change(at=rfc3339(edge.world.clock.wall_ms() + 3_600_000)))
    (entry,) = (await edge.world.api.shown(AUDIT))["data"]
    assert entry["edge_at"] == rfc3339(edge.world.clock.wall_ms())


async def test_several_operations_are_one_change(edge: Edge) -> None:
    """All of them count, or none does."""
    staging = Kill(project="shop", environment="staging", flag="checkout")
    wrong = edge.change(ops=(staging, replace(staging, flag="nothing")))
    assert await edge.refused(wrong) == (404, "flag_not_found")
    assert (await edge.hand_over(edge.change(ops=(*edge.change().ops, staging)))).status == 200
    assert await edge.state() == (False, 2)


async def test_a_token_that_was_revoked_or_has_expired_is_refused(edge: Edge) -> None:
    """Permission is a matter of now."""
    soon = await edge.world.do(
        CreateToken(name="soon", scopes=["flags:write"], expires_at=edge.world.clock.wall_ms() + 1)
    )
    edge.world.clock.jump_wall(1)
    assert await edge.refused(edge.change(credential=soon.entity.id), token=soon.secret) == (403, "origin_revoked")
    await edge.world.do(RevokeToken(credential=edge.token_id))
    assert await edge.refused() == (403, "origin_revoked")


async def test_a_token_without_the_permission_is_refused(edge: Edge) -> None:
    """Its scopes and its projects are those of now."""
    reader = await edge.world.do(CreateToken(name="reader", scopes=["flags:read"]))
    refused = await edge.refused(edge.change(credential=reader.entity.id), token=reader.secret)
    assert refused == (403, "permission_missing")
    other = await edge.world.do(CreateToken(name="other", scopes=["flags:write"], projects=["other"]))
    refused = await edge.refused(edge.change(credential=other.entity.id), token=other.secret)
    assert refused == (403, "wrong_project")


async def test_whoever_cannot_prove_it_is_refused(edge: Edge) -> None:
    """Another token's proof, a token that is none, and one of another organisation."""
    assert await edge.refused(token="hal_token_of_somebody_else") == (403, "origin_unproven")
    unknown = edge.change(credential="00000000-0000-4000-8000-000000000000")
    assert await edge.refused(unknown) == (403, "origin_unknown")
    rival = await edge.world.do(CreateToken(name="rival", scopes=["flags:write"]), edge.world.rival)
    assert await edge.refused(edge.change(credential=rival.entity.id), token=rival.secret) == (403, "origin_unknown")
    key = await edge.world.do(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    assert await edge.refused(edge.change(credential=key.entity.id), token=key.secret) == (403, "origin_unknown")


async def test_a_relay_speaks_for_its_own_environments_only(edge: Edge) -> None:
    """403 for one that its key does not cover."""
    made = await edge.world.do(CreateKey(kind=CredentialKind.RELAY, environments=["shop/staging"]))
    edge.app = await _route(edge.world)
    assert await edge.refused(key=made.secret) == (403, "environment_not_covered")


async def test_a_relay_key_that_was_revoked_a_moment_ago_is_refused(edge: Edge) -> None:
    """The database decides; the code tells the relay that its own key is at fault, not the kill."""
    made = await edge.world.do(CreateKey(kind=CredentialKind.RELAY))
    edge.app = await _route(edge.world)
    await edge.world.do(RevokeKey(credential=made.entity.id))
    assert await edge.refused(key=made.secret) == (403, "key_revoked")


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"project": "nothing"}, "project_not_found"),
        ({"project": "lab"}, "project_not_found"),
        ({"environment": "nowhere"}, "environment_not_found"),
        ({"flag": "nothing"}, "flag_not_found"),
    ],
)
async def test_what_is_not_there_is_404(edge: Edge, part: dict[str, str], code: str) -> None:
    """Also what is another organisation's."""
    ops = (replace(edge.change().ops[0], **part),)
    assert await edge.refused(edge.change(ops=ops)) == (404, code)


@pytest.mark.parametrize("kind", ["server", "client", "all"])
async def test_only_relay_keys_hand_over(edge: Edge, kind: str) -> None:
    """Whatever else they may."""
    assert await edge.refused(key=edge.world.keys[kind]) == (403, "key_kind")
    reply = await edge.send({}, "nonsense")
    assert (reply.status, reply.code) == (401, "key_malformed")


async def test_every_fault_of_a_body_is_named(edge: Edge) -> None:
    """422 with all paths; an operation that is not known yet is one of them."""
    reply = await edge.send({"ops": [{"op": "toggle", "projct": "p"}], "origin": {"at": "now", "proof": "zz"}})
    assert (reply.status, reply.code) == (422, "invalid_body")
    assert {
        "idempotency_key",
        "ops[0].op",
        "ops[0].projct",
        "ops[0].flag",
        "origin.at",
        "origin.proof",
        "origin.relay",
        "origin.credential",
    } <= set(reply.body["errors"])
    assert (await edge.send(b"{")).code == "malformed_json"
    reply = await edge.send({"idempotency_key": "kill-0001", "ops": [], "origin": None})
    assert {"ops", "origin"} == set(reply.body["errors"])
