"""The first owner, invitations, resets, one's own password and name: how people get in, and what never leaks."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from relay.clock import rfc3339
from relay.protocol.keys import fingerprint
from tests.upstream.management import EMAIL, PASSWORD, Reply, Template, World, open_world
from tests.upstream.rig import make_template
from upstream.api.accounts import SetupToken
from upstream.api.app import SignInLimits
from upstream.domain.access_commands import (
    ChoosePassword,
    CreateMember,
)
from upstream.domain.entities import Role
from upstream.domain.errors import Rejected
from upstream.domain.permissions import system_actor
from upstream.storage import tables

AUTH, MEMBERS = "/api/v2/auth", "/api/v2/members"
NEW = "a rather long password"
SETUP_TOKEN = "s" * 43


@dataclass
class Setup:
    """The setup token of an empty authority, and whether it was let go of."""

    discarded: list[bool] = field(default_factory=list)
    on_discard: Callable[[], None] | None = None

    @property
    def token(self) -> SetupToken:
        return SetupToken(SETUP_TOKEN, self.on_discard or (lambda: self.discarded.append(True)))


@asynccontextmanager
async def empty(
    template: Template, folder: Path, setup: Setup, tries: SignInLimits | None = None
) -> AsyncIterator[World]:
    """Open an authority without any member."""
    path = make_template(folder / "empty.db")
    async with open_world(replace(template, path=path), folder, tries, setup.token) as world:
        yield world


OWNER = {"setup_token": SETUP_TOKEN, "organisation": "Acme", "email": "Olga@acme.example", "password": NEW}


async def test_the_first_owner_sets_the_authority_up_once(populated_database: Template, tmp_path: Path) -> None:
    """With the setup token somebody founds the organisation and is signed in as its owner; then that door is shut."""
    setup = Setup()
    async with empty(populated_database, tmp_path, setup) as world:
        made = await world.nobody.post(f"{AUTH}/setup", {**OWNER, "name": "Olga"})
        assert made.status == 201, made.raw
        world.keys["first"] = made.body["access_token"]
        me = await world.caller("first").shown(f"{AUTH}/me")
        assert (me["name"], me["role"], me["organisation"]["name"]) == ("Olga", "owner", "Acme")
        await world.sign_in("olga@acme.example", NEW)
        assert setup.discarded == [True]
        again = await world.nobody.post(f"{AUTH}/setup", {**OWNER, "email": "second@acme.example"})
        assert (again.status, again.code) == (409, "already_set_up")
        (entry,) = (await world.caller("first").shown("/api/v2/audit?action=organisation.founded"))["data"]
        assert (entry["actor"]["type"], entry["actor"]["name"]) == ("system", "setup")
        assert b"argon2" not in (await world.caller("first").get("/api/v2/audit")).raw


async def test_setting_up_needs_the_token_of_the_data_directory(populated_database: Template, tmp_path: Path) -> None:
    """Another token is a 401, and after some attempts from one address even the right one is a 429."""
    setup = Setup()
    async with empty(populated_database, tmp_path, setup, SignInLimits(attempts=3, window_s=60.0)) as world:
        for wrong in ("", "x" * 43, "é" * 43):
            refused = await world.nobody.post(f"{AUTH}/setup", {**OWNER, "setup_token": wrong})
            assert (refused.status, refused.code) == (401, "setup_token_wrong")
        assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).code == "too_many_attempts"
        await world.clock.advance(60.0)
        assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).status == 201


async def test_a_setup_file_that_cannot_be_removed_does_no_harm(
    populated_database: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The owner is made and signed in all the same, the log says so, and the token opens nothing any more."""

    def fail() -> None:
        raise OSError("read-only")

    async with empty(populated_database, tmp_path, Setup(on_discard=fail)) as world:
        assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).status == 201
        assert "cannot be removed" in caplog.text
        assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).code == "already_set_up"


async def test_a_dry_run_of_setting_up_founds_nothing(populated_database: Template, tmp_path: Path) -> None:
    """Everything is checked, and the setup token is as good as before."""
    setup = Setup()
    async with empty(populated_database, tmp_path, setup) as world:
        tried = await world.nobody.post(f"{AUTH}/setup?dry_run=1", OWNER)
        assert (tried.status, tried.body["dry_run"]) == (200, True)
        for fields, named in [
            ({"organisation": " ", "email": "nobody"}, {"organisation", "email"}),
            ({"password": "short"}, {"password"}),
            ({"password": "OLGA@acme.example "}, {"password"}),
        ]:
            refused = await world.nobody.post(f"{AUTH}/setup", {**OWNER, **fields})
            assert (refused.status, set(refused.body["errors"])) == (422, named), refused.raw
        assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).status == 201
        assert setup.discarded == [True]


async def test_where_somebody_is_there_is_nothing_to_set_up(world: World) -> None:
    """With members the answer is 409 whatever the token is."""
    assert (await world.nobody.post(f"{AUTH}/setup", OWNER)).code == "already_set_up"


async def invited(world: World, **fields: Any) -> Any:
    return await world.owner.made(MEMBERS, {"email": "dora@acme.example", "role": "developer", **fields})


async def accept(world: World, token: str, **fields: Any) -> Reply:
    return await world.nobody.post(f"{AUTH}/accept", {"token": token, "password": NEW, **fields})


async def test_an_invited_member_joins_with_the_token(world: World) -> None:
    """Without a password a member is invited; the token is shown once, opens the account once, and is good for 72 h."""
    made = await invited(world)
    assert (made["status"], made["invitation"]["expires_at"]) == ("invited", _in(world, 72 * 3600))
    token = made["invitation"]["token"]
    for path in (f"{MEMBERS}/{made['id']}", MEMBERS, "/api/v2/audit?limit=100"):
        assert token.encode() not in (await world.owner.get(path)).raw
    wrong = await world.nobody.post(f"{AUTH}/login", {"email": "dora@acme.example", "password": NEW})
    assert wrong.status == 401
    joined = await accept(world, token, name="Dora")
    assert joined.status == 200, joined.raw
    world.keys["dora"] = joined.body["access_token"]
    me = await world.caller("dora").shown(f"{AUTH}/me")
    assert (me["name"], me["role"]) == ("Dora", "developer")
    await world.sign_in("dora@acme.example", NEW)
    assert (await world.owner.shown(f"{MEMBERS}/{made['id']}"))["status"] == "active"
    actions = [each["action"] for each in (await world.owner.shown("/api/v2/audit?limit=3"))["data"]]
    assert actions == ["member.joined", "member.invited", "member.created"]


def _in(world: World, seconds: int) -> str:
    return rfc3339(world.clock.wall_ms() + seconds * 1000)


async def test_used_expired_and_unknown_tokens_are_the_same_answer(world: World) -> None:
    """Nobody learns whether a token was ever one."""
    used, late = (await invited(world))["invitation"]["token"], (await invited(world, email="late@acme.example"))
    assert (await accept(world, used)).status == 200
    await world.clock.advance(72 * 3600.0)
    answers = [await accept(world, token) for token in (used, late["invitation"]["token"], "0" * 64, "")]
    for reply in answers:
        assert (reply.status, reply.code) == (401, "one_time_token_invalid")
    assert len({reply.body["detail"] for reply in answers}) == 1


async def test_tokens_are_stored_as_hashes(world: World) -> None:
    """What the database holds opens nothing."""
    token = (await invited(world))["invitation"]["token"]
    table = tables.one_time_tokens
    (row,) = await world.database.read(lambda connection: connection.execute(table.select()).all())
    assert token not in str(row)
    assert (await accept(world, row.hash)).status == 401


async def test_a_newer_invitation_ends_the_older_one(world: World) -> None:
    """Only the last token that was handed out is good; somebody who has joined is not invited again."""
    made = await invited(world)
    again = await world.owner.post(f"{MEMBERS}/{made['id']}:invite")
    assert (again.status, set(again.body)) == (200, {"token", "expires_at"})
    assert (await accept(world, made["invitation"]["token"])).status == 401
    assert (await accept(world, again.body["token"])).status == 200
    refused = await world.owner.post(f"{MEMBERS}/{made['id']}:invite")
    assert (refused.status, refused.code) == (409, "already_joined")


async def test_attempts_to_use_a_token_are_limited(populated_database: Template, tmp_path: Path) -> None:
    """After so many attempts from an address even a good token is a 429."""
    async with open_world(populated_database, tmp_path, SignInLimits(attempts=3)) as world:
        token = (await invited(world))["invitation"]["token"]
        for _ in range(3):
            assert (await accept(world, "0" * 64)).status == 401
        assert (await accept(world, token)).code == "too_many_attempts"


async def test_two_who_use_one_token_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second finds it used, although it was there when they asked: the answer is the usual one."""
    token = (await invited(world))["invitation"]["token"]
    hashing = type(world.app.state.services.passwords).hash
    raced: list[Reply] = []

    async def hash_slowly(self: Any, password: str) -> str:
        if not raced:
            monkeypatch.undo()
            raced.append(await accept(world, token))
        hashed: str = await hashing(self, password)
        return hashed

    monkeypatch.setattr(type(world.app.state.services.passwords), "hash", hash_slowly)
    second = await accept(world, token, password="another long password")
    assert [raced[0].status, second.status, second.code] == [200, 401, "one_time_token_invalid"]
    await world.sign_in("dora@acme.example", NEW)


async def test_a_reset_ends_nothing_until_it_is_used(world: World) -> None:
    """The old password holds until the new one is chosen; then it and every sign-in end."""
    world.keys["vera"] = (await world.sign_in("vera@acme.example"))["access_token"]
    reset = await world.owner.post(f"{MEMBERS}/vera@acme.example:reset-password")
    assert (reset.status, reset.body["expires_at"]) == (200, _in(world, 24 * 3600))
    assert (await world.caller("vera").get(f"{AUTH}/me")).status == 200
    await world.sign_in("vera@acme.example")
    assert (await accept(world, reset.body["token"])).status == 200
    assert (await world.caller("vera").get(f"{AUTH}/me")).code == "key_ended"
    old = await world.nobody.post(f"{AUTH}/login", {"email": "vera@acme.example", "password": PASSWORD})
    assert old.status == 401
    await world.sign_in("vera@acme.example", NEW)
    actions = [each["action"] for each in (await world.owner.shown("/api/v2/audit?limit=2"))["data"]]
    assert actions == ["member.password_changed", "member.password_reset"]


async def test_who_has_not_joined_has_no_password_to_reset(world: World) -> None:
    """The answer says what to do instead."""
    made = await invited(world)
    refused = await world.owner.post(f"{MEMBERS}/{made['id']}:reset-password")
    assert (refused.status, refused.code) == (409, "not_joined")


async def test_nobody_resets_the_password_of_who_may_do_more(world: World) -> None:
    """An admin cannot take over an owner: neither by a reset, nor by an invitation, nor by a password."""
    made = await invited(world, email="ada@acme.example", role="admin")
    world.keys["admin"] = (await accept(world, made["invitation"]["token"])).body["access_token"]
    admin = world.caller("admin")
    pending = await world.owner.made(MEMBERS, {"email": "boss@acme.example", "role": "owner"})
    for reply in (
        await admin.post(f"{MEMBERS}/{EMAIL}:reset-password"),
        await admin.post(f"{MEMBERS}/{pending['id']}:invite"),
        await admin.patch(f"{MEMBERS}/{EMAIL}", {"password": NEW}),
        await admin.patch(f"{MEMBERS}/{EMAIL}", {"role": "viewer"}),
        await admin.delete(f"{MEMBERS}/{EMAIL}"),
        await admin.post(MEMBERS, {"email": "x@acme.example", "role": "owner"}),
        await admin.patch(f"{MEMBERS}/vera@acme.example", {"role": "owner"}),
    ):
        assert (reply.status, reply.code) == (403, "role_too_high")


async def test_a_token_does_not_outlive_a_promotion(world: World) -> None:
    """Who made an invitation must not hold the way into an account that may do more since; a rename leaves it."""
    made = await invited(world, role="viewer")
    path, token = f"{MEMBERS}/{made['id']}", made["invitation"]["token"]
    assert "warnings" not in (await world.owner.patch(path, {"name": "Dora"})).body
    promoted = await world.owner.patch(path, {"role": "admin"})
    assert [each["code"] for each in promoted.body["warnings"]] == ["invitation_ended"]
    assert (await accept(world, token)).status == 401


async def test_a_password_set_by_an_admin_ends_a_reset(world: World) -> None:
    """A token that was handed out before is no second way in."""
    token = (await world.owner.post(f"{MEMBERS}/vera@acme.example:reset-password")).body["token"]
    await world.owner.patch(f"{MEMBERS}/vera@acme.example", {"password": NEW})
    assert (await accept(world, token)).status == 401


async def test_an_owner_who_has_not_joined_is_no_successor(world: World) -> None:
    """The last owner who can sign in stays, until another one can."""
    made = await invited(world, role="owner")
    for reply in (
        await world.owner.delete(f"{MEMBERS}/{EMAIL}"),
        await world.owner.patch(f"{MEMBERS}/{EMAIL}", {"role": "admin"}),
    ):
        assert (reply.status, reply.code) == (409, "last_owner")
    assert (await accept(world, made["invitation"]["token"])).status == 200
    assert (await world.owner.patch(f"{MEMBERS}/{EMAIL}", {"role": "admin"})).status == 200


async def test_an_owner_has_all_projects(world: World) -> None:
    """Whoever shut themselves out of a project as an owner could be let in again by nobody."""
    for reply in (
        await world.owner.post(MEMBERS, {"email": "x@acme.example", "role": "owner", "projects": ["shop"]}),
        await world.owner.patch(f"{MEMBERS}/{EMAIL}", {"projects": ["shop"]}),
    ):
        assert (reply.status, list(reply.body["errors"])) == (422, ["projects"])


async def test_one_changes_ones_own_password(world: World) -> None:
    """The right current password sets a new one; the other sign-ins and a pending reset end, this sign-in goes on."""
    world.keys["here"] = (await world.sign_in("vera@acme.example"))["access_token"]
    world.keys["there"] = (await world.sign_in("vera@acme.example"))["access_token"]
    reset = (await world.owner.post(f"{MEMBERS}/vera@acme.example:reset-password")).body["token"]
    here = world.caller("here")
    wrong = await here.post(f"{AUTH}/password", {"current": "not it", "new": NEW})
    assert (wrong.status, wrong.code, list(wrong.body["errors"])) == (422, "wrong_password", ["current"])
    weak = await here.post(f"{AUTH}/password", {"current": PASSWORD, "new": "Vera@acme.example"})
    assert (weak.status, list(weak.body["errors"])) == (422, ["new"])
    assert (await here.post(f"{AUTH}/password", {"current": PASSWORD, "new": NEW})).status == 204
    assert (await here.get(f"{AUTH}/me")).status == 200
    assert (await world.caller("there").get(f"{AUTH}/me")).code == "key_ended"
    assert (await accept(world, reset)).status == 401
    await world.sign_in("vera@acme.example", NEW)


async def test_guessing_ones_own_password_is_limited(populated_database: Template, tmp_path: Path) -> None:
    """Whoever finds a browser signed in does not get to try passwords without end."""
    async with open_world(populated_database, tmp_path, SignInLimits(attempts=2)) as world:
        for _ in range(2):
            assert (await world.owner.post(f"{AUTH}/password", {"current": "x", "new": NEW})).status == 422
        assert (await world.owner.post(f"{AUTH}/password", {"current": PASSWORD, "new": NEW})).status == 429


async def test_a_password_that_was_changed_meanwhile_is_not_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever verified the old one, before it was reset, does not set the next one."""
    token = (await world.owner.post(f"{MEMBERS}/{EMAIL}:reset-password")).body["token"]
    verifying = type(world.app.state.services.passwords).verify

    async def verified_then(self: Any, stored: str | None, password: str) -> bool:
        is_right: bool = await verifying(self, stored, password)
        monkeypatch.undo()
        assert (await accept(world, token)).status == 200
        return is_right

    monkeypatch.setattr(type(world.app.state.services.passwords), "verify", verified_then)
    late = await world.owner.post(f"{AUTH}/password", {"current": PASSWORD, "new": "the thief's password"})
    assert (late.status, late.code) == (409, "password_changed_meanwhile")
    await world.sign_in(EMAIL, NEW)


async def test_one_changes_ones_own_name_and_nothing_else(world: World) -> None:
    """A name is one's own business, a role is not."""
    world.keys["vera"] = (await world.sign_in("vera@acme.example"))["access_token"]
    renamed = await world.caller("vera").patch(f"{AUTH}/me", {"name": "Vera V."})
    assert (renamed.status, renamed.body["name"], renamed.body["role"]) == (200, "Vera V.", "viewer")
    assert (await world.caller("vera").patch(f"{AUTH}/me", {"role": "owner"})).status == 422
    assert (await world.caller("vera").patch(f"{AUTH}/me", {"name": "x" * 300})).status == 422


async def test_a_member_may_use_only_their_own_token(world: World) -> None:
    """The command that uses a token belongs to the member it was made for, whoever brings it before the authority."""
    token = (await invited(world))["invitation"]["token"]
    other = await world.do(CreateMember(email="other@acme.example", role=Role.VIEWER))
    actor = replace(system_actor(world.acme), type="member", id=other.entity.id)
    with pytest.raises(Rejected, match="was used before, has expired, or never was"):
        await world.authority.execute(ChoosePassword(token_hash=fingerprint(token), password_hash="x"), actor)


async def test_the_organisation_is_renamed_by_its_owners(world: World) -> None:
    """Everybody of it reads its name, an owner changes it against the version they saw."""
    shown = await world.caller("read").get("/api/v2/organisation")
    assert (shown.body["id"], shown.body["name"], shown.headers["etag"]) == (world.acme, "Acme", '"v1"')
    assert (await world.api.patch("/api/v2/organisation", {"name": "Apex"})).code == "permission_denied"
    renamed = await world.owner.patch("/api/v2/organisation", {"name": "Apex"}, If_Match='"v1"')
    assert (renamed.status, renamed.body["name"], renamed.headers["etag"]) == (200, "Apex", '"v2"')
    assert (await world.owner.patch("/api/v2/organisation", {"name": "Ape"}, If_Match='"v1"')).status == 412
    assert (await world.owner.patch("/api/v2/organisation", {"name": ""})).status == 422
    assert (await world.caller("rival").shown("/api/v2/organisation"))["name"] == "Rival"
    (entry,) = (await world.owner.shown("/api/v2/audit?action=organisation.updated"))["data"]
    assert entry["changes"] == [{"path": "name", "before": "Acme", "after": "Apex"}]
