"""Keys and tokens after they are made: edited, rotated with an overlap, revoked; and that relays hear of it."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from relay.clock import rfc3339
from relay.protocol.keys import Kind, kind_of
from tests.upstream.management import P, World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.access_commands import (
    CreateKey,
    CreateToken,
    RotateKey,
    RotateToken,
    UpdateKey,
    UpdateToken,
)
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.permissions import SCOPES, Actor
from upstream.storage.transaction import expire_credentials

KEYS, TOKENS = "/api/v2/keys", "/api/v2/tokens"
DAY_MS = 86_400_000


async def client_key(world: World, **fields: Any) -> Any:
    body = {"kind": "client", "project": "shop", "environment": "staging", "name": "web", "origins": ["https://a.test"]}
    return await world.api.made(KEYS, {**body, **fields})


async def test_a_rotated_key_has_a_successor_that_reads_the_same(world: World) -> None:
    """The new text is shown once; kind, environment, origins and name are the old one's, which ends after a day."""
    old = await client_key(world)
    made = await world.api.post(f"{KEYS}/{old['id']}:rotate")
    assert made.status == 201, made.raw
    new = made.body
    assert kind_of(new["key"]) is Kind.CLIENT
    assert new["key"] != old["key"]
    assert (new["replaces"], made.headers["location"]) == (old["id"], f"{KEYS}/{new['id']}")
    for name in ("kind", "name", "scopes", "projects", "environment_id", "origins", "expires_at"):
        assert new[name] == old[name], name
    left = await world.api.shown(f"{KEYS}/{old['id']}")
    assert (left["expires_at"], left["revoked_at"]) == (rfc3339(world.clock.wall_ms() + DAY_MS), None)
    (entry,) = (await world.api.shown(f"{P}/audit?action=key.rotated"))["data"]
    assert entry["target"]["id"] == new["id"]
    assert {"path": "replaced.expires_at", "before": None, "after": world.clock.wall_ms() + DAY_MS} in entry["changes"]
    assert new["key"].encode() not in (await world.api.get(f"{P}/audit")).raw


async def test_without_an_overlap_the_old_one_is_revoked(world: World) -> None:
    """0 ends it at once; more than thirty days, less than nothing and what has ended are refused."""
    old = await client_key(world)
    assert (await world.api.post(f"{KEYS}/{old['id']}:rotate", {"overlap_s": 0})).status == 201
    assert (await world.api.shown(f"{KEYS}/{old['id']}"))["revoked_at"] is not None
    for request in (
        await world.api.post(f"{KEYS}/{old['id']}:rotate"),
        await world.api.patch(f"{KEYS}/{old['id']}", {"name": "x"}),
    ):
        assert (request.status, request.code) == (409, "key_ended")
    for wrong in (-1, 30 * 86_400 + 1, 1.5, "1"):
        refused = await world.api.post(f"{KEYS}/{world.ids['keys']}:rotate", {"overlap_s": wrong})
        assert (refused.status, list(refused.body["errors"])) == (422, ["overlap_s"])


async def test_a_token_rotates_for_whoever_may_do_as_much(world: World) -> None:
    """The old text works beside the new one for the overlap; a clerk who manages keys alone gets no stronger one."""
    made = await world.owner.made(TOKENS, {"name": "ci", "scopes": ["flags:write"], "projects": ["shop"]})
    clerk = await world.owner.made(TOKENS, {"name": "clerk", "scopes": ["keys:write"]})
    world.keys["clerk"], world.keys["ci"] = clerk["token"], made["token"]
    refused = await world.caller("clerk").post(f"{TOKENS}/{made['id']}:rotate")
    assert (refused.status, refused.code, refused.body["needed"]) == (403, "permission_missing", ["flags:write"])
    new = (await world.owner.post(f"{TOKENS}/{made['id']}:rotate", {"overlap_s": 60})).body
    world.keys["new"] = new["token"]
    assert (new["scopes"], new["projects"]) == (made["scopes"], made["projects"])
    assert [(await world.caller(name).get(P)).status for name in ("ci", "new")] == [200, 200]
    await world.clock.advance(60.0)
    assert (await world.caller("ci").get(P)).code == "key_expired"
    assert (await world.caller("new").get(P)).status == 200
    assert (await world.caller("clerk").delete(f"{TOKENS}/{new['id']}")).status == 204


async def test_a_key_is_edited_against_its_version(world: World) -> None:
    """Name, origins and end change; the rest does not, and another version is a 412."""
    key = await client_key(world)
    path, end = f"{KEYS}/{key['id']}", "2099-01-01T00:00:00.000Z"
    changed = await world.api.patch(
        path, {"name": "site", "origins": ["https://B.test/"], "expires_at": end}, If_Match='"v1"'
    )
    assert (changed.status, changed.headers["etag"]) == (200, '"v2"'), changed.raw
    assert [changed.body[name] for name in ("name", "origins", "expires_at")] == ["site", ["https://b.test"], end]
    assert (await world.api.patch(path, {"name": "late"}, If_Match='"v1"')).code == "version_conflict"
    assert (await world.api.patch(path, {"expires_at": None})).body["expires_at"] is None
    for body, field in [
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"origins": ["nowhere"]}, "origins[0]"),
        ({"name": "x" * 300}, "name"),
        ({"kind": "relay"}, "kind"),
    ]:
        refused = await world.api.patch(path, body)
        assert (refused.status, list(refused.body["errors"])) == (422, [field]), refused.raw
    server = (await world.api.shown(f"{KEYS}?kind=server"))["data"][0]["id"]
    refused = await world.api.patch(f"{KEYS}/{server}", {"origins": ["*"]})
    assert (refused.status, list(refused.body["errors"])) == (422, ["origins"])


async def test_a_token_is_renamed_and_ended(world: World) -> None:
    """Its scopes and projects are fixed."""
    made = await world.api.made(TOKENS, {"name": "ci", "scopes": ["flags:read"]})
    path, end = f"{TOKENS}/{made['id']}", "2099-01-01T00:00:00.000Z"
    changed = await world.api.patch(path, {"name": "build", "expires_at": end})
    assert (changed.body["name"], changed.body["expires_at"]) == ("build", end)
    assert list((await world.api.patch(path, {"scopes": ["flags:write"]})).body["errors"]) == ["scopes"]


async def test_lists_narrow_by_project_and_show_revoked_ones_when_asked(world: World) -> None:
    """`project` keeps those that are for it by name; `include_revoked` shows what has ended."""
    key = await client_key(world)
    await world.api.made(KEYS, {"kind": "relay", "projects": ["other"]})
    await world.api.delete(f"{KEYS}/{key['id']}")

    async def kinds(query: str) -> list[str]:
        return sorted(each["kind"] for each in (await world.api.shown(f"{KEYS}?{query}"))["data"])

    assert await kinds("project=shop") == ["client", "server"]
    assert await kinds("project=other") == ["relay"]
    assert await kinds("project=shop&include_revoked=true") == ["client", "client", "server"]
    assert await kinds("project=shop&environment=staging&include_revoked=true&kind=client") == ["client"]
    assert (await world.api.get(f"{KEYS}?project=nothing")).code == "project_not_found"
    assert [each["name"] for each in (await world.api.shown(f"{TOKENS}?project=other"))["data"]] == ["limited"]
    limited = world.caller("limited")
    assert [each["kind"] for each in (await limited.shown(f"{KEYS}?sort=kind"))["data"]] == ["relay"]
    assert (await limited.shown(f"{KEYS}?search=nothing"))["data"] == []
    assert (await limited.get(f"{KEYS}?project=shop")).code == "wrong_project"


def published(rig: Rig, key: str = "production") -> dict[str, Any]:
    return {each: orjson.loads(raw) for each, raw in rig.state(key).credentials.items()}


def test_relays_hear_of_a_rotation_as_a_revision(rig: Rig) -> None:
    """One revision brings the successor and the old one's end; when that has come, another one takes it out."""
    old = rig.make(CreateKey(kind=CredentialKind.SERVER, project="shop", environment="production"))
    done = rig.do(RotateKey(credential=old.id, overlap_ms=60_000))
    new: Any = done.decision.entity
    assert list(done.revisions) == [rig.environment().id]
    assert set(published(rig)) == {old.id, new.id}
    assert published(rig)[old.id]["expires_at"] == rfc3339(rig.clock.wall_ms() + 60_000)
    assert published(rig)[new.id]["expires_at"] is None
    assert published(rig)[new.id]["hash"] != published(rig)[old.id]["hash"]
    rig.clock.jump_wall(60_000)
    assert list(rig.look(lambda c: expire_credentials(c, rig.clock.wall_ms()))) == [rig.environment().id]
    assert set(published(rig)) == {new.id}


def test_relays_hear_of_a_rotation_without_overlap(rig: Rig) -> None:
    """The same revision that brings the successor takes the old one out, everywhere."""
    old = rig.make(CreateKey(kind=CredentialKind.RELAY))
    done = rig.do(RotateKey(credential=old.id, overlap_ms=0))
    new: Any = done.decision.entity
    assert len(done.revisions) == 3
    for key in ("development", "staging", "production"):
        assert set(published(rig, key)) == {new.id}


def test_relays_hear_of_edits(rig: Rig) -> None:
    """A new origin or end is a revision, a new name is none."""
    key = rig.make(CreateKey(kind=CredentialKind.CLIENT, project="shop", environment="production"))
    assert rig.do(UpdateKey(credential=key.id, name="web")).revisions == {}
    assert len(rig.do(UpdateKey(credential=key.id, origins=["*"])).revisions) == 1
    assert published(rig)[key.id]["origins"] == ["*"]
    assert rig.do(UpdateKey(credential=key.id, origins=["*"])).audit is None


def token_of(rig: Rig, *scopes: str, **fields: Any) -> Actor:
    actor = Actor(type="token", id="t", name="ci", organisation_id=rig.organisation_id, scopes=frozenset(scopes))
    return replace(actor, **fields)


def test_an_old_end_is_never_put_off_by_a_rotation(rig: Rig) -> None:
    """A key that would end before the overlap does ends then; its successor lives as long as it was given."""
    now_ms = rig.clock.wall_ms()
    old = rig.make(CreateToken(name="short", scopes=["flags:read"], expires_at=now_ms + 1_000))
    rig.clock.jump_wall(400)
    new = rig.do(RotateToken(credential=old.id, overlap_ms=DAY_MS)).decision.entity
    assert isinstance(new, Credential)
    left = rig.view(lambda view: view.credential(rig.organisation_id, old.id))
    assert left is not None
    assert (left.expires_at, new.expires_at) == (now_ms + 1_000, now_ms + 1_400)


def test_nothing_that_a_token_makes_outlives_it(rig: Rig) -> None:
    """Neither a successor nor a longer life for another key goes beyond the end of the token that asks for it."""
    now_ms = rig.clock.wall_ms()
    ending = token_of(rig, *SCOPES, expires_at=now_ms + 5_000)
    for_ever = rig.make(CreateToken(name="ever", scopes=["flags:read"]))
    short = rig.make(CreateToken(name="short", scopes=["flags:read"], expires_at=now_ms + 1_000))
    successor = rig.do(RotateToken(credential=for_ever.id, overlap_ms=DAY_MS), ending).decision.entity
    assert isinstance(successor, Credential)
    assert successor.expires_at == now_ms + 5_000
    assert list(rig.refused(UpdateToken(credential=short.id, expires_at=now_ms + 5_001), ending).errors) == [
        "expires_at"
    ]
    assert rig.do(UpdateToken(credential=short.id, expires_at=now_ms + 5_000), ending).audit is not None
    # Shortening is a kind of ending, whoever does it.
    late = rig.make(CreateToken(name="late", scopes=["flags:read"], expires_at=now_ms + 9_000))
    assert rig.do(UpdateToken(credential=late.id, expires_at=now_ms + 8_000), ending).audit is not None


@pytest.mark.parametrize("scopes", [("keys:write",), ("keys:write", "flags:read")])
def test_only_whoever_may_as_much_lengthens_a_life(rig: Rig, scopes: tuple[str, ...]) -> None:
    """Managing keys is enough to shorten the life of a stronger token, and not to lengthen it or take it over."""
    now_ms = rig.clock.wall_ms()
    clerk = token_of(rig, *scopes)
    strong = rig.make(CreateToken(name="strong", scopes=["members:write"], expires_at=now_ms + 2_000))
    assert rig.refused(UpdateToken(credential=strong.id, expires_at=now_ms + 3_000), clerk).code == "permission_missing"
    assert rig.refused(UpdateToken(credential=strong.id, expires_at=None), clerk).code == "permission_missing"
    assert rig.refused(RotateToken(credential=strong.id, overlap_ms=0), clerk).code == "permission_missing"
    assert rig.do(UpdateToken(credential=strong.id, expires_at=now_ms + 1_000), clerk).audit is not None


def test_a_key_beyond_ones_projects_is_not_touched(rig: Rig) -> None:
    """Limits by project hold for edits and rotations, too; a token is no key and the other way round."""
    key = rig.make(CreateKey(kind=CredentialKind.RELAY))
    limited = token_of(rig, *SCOPES, projects=frozenset({rig.project.id}))
    for command in (UpdateKey(credential=key.id, name="x"), RotateKey(credential=key.id, overlap_ms=0)):
        assert rig.refused(command, limited).code == "wrong_project"
    assert rig.refused(RotateToken(credential=key.id, overlap_ms=0)).code == "token_not_found"
    assert rig.refused(UpdateToken(credential=key.id, name="x")).code == "token_not_found"
