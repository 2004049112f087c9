"""Signing in, staying signed in, signing out; tokens and what is logged of refused ones."""

from typing import Any

import jwt
import pytest

from relay.protocol.keys import Kind, mint
from tests.upstream.management import CHEAP, EMAIL, PASSWORD, SIGNING_KEY, P, Template, World, open_world
from tests.upstream.rig import Bang
from upstream.api.app import SignInLimits
from upstream.api.passwords import Passwords
from upstream.domain.access_commands import (
    CreateToken,
    DeleteMember,
    UpdateMember,
)
from upstream.storage import transaction
from upstream.storage.database import Database

AUTH = "/api/v2/auth"


async def test_sign_in_opens_what_the_role_allows(world: World) -> None:
    """E-mail (in any case) and password give an access token that does what the role may, for an hour."""
    tokens = await world.sign_in(EMAIL.upper())
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    world.keys["owner"] = tokens["access_token"]
    me = await world.caller("owner").shown(f"{AUTH}/me")
    assert me.items() >= {"type": "member", "name": "Olga", "role": "owner", "projects": None}.items()
    assert me["organisation"]["name"] == "Acme"
    assert "organisation:write" in me["permissions"]
    assert (await world.caller("owner").post(f"{P}/flags", {"name": "X", "type": "boolean"})).status == 201
    world.keys["viewer"] = (await world.sign_in("vera@acme.example"))["access_token"]
    refused = await world.caller("viewer").post(f"{P}/flags", {"name": "X"})
    assert (refused.status, refused.code) == (403, "permission_denied")
    assert "flags:write" in refused.body["detail"]


async def test_wrong_e_mail_and_wrong_password_are_the_same_answer(world: World) -> None:
    """Neither the answer nor the work done tells whether an e-mail address is known."""
    details = set()
    for email, password in ((EMAIL, "wrong"), ("nobody@acme.example", PASSWORD), ("", "")):
        refused = await world.nobody.post(f"{AUTH}/login", {"email": email, "password": password})
        assert (refused.status, refused.code) == (401, "wrong_credentials")
        details.add(refused.body["detail"])
    assert len(details) == 1


async def test_an_unknown_e_mail_costs_one_verification(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is hashed and compared also when there is nobody to compare it with."""
    verified: list[str] = []
    matches = Passwords._matches

    def noting(self: Passwords, stored: str, password: str) -> bool:
        verified.append(stored)
        return matches(self, stored, password)

    monkeypatch.setattr(Passwords, "_matches", noting)
    await world.nobody.post(f"{AUTH}/login", {"email": "nobody@acme.example", "password": "x"})
    await world.nobody.post(f"{AUTH}/login", {"email": EMAIL, "password": "x"})
    assert len(verified) == 2
    assert verified[0].split("$")[:4] == verified[1].split("$")[:4]


async def test_attempts_are_limited_by_address_and_e_mail(
    populated_database: Template, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After so many attempts even the right password is a 429 with Retry-After, elsewhere and later it is not."""
    tries = SignInLimits(attempts=3, window_s=60.0)
    async with open_world(populated_database, tmp_path_factory.mktemp("limited"), tries) as world:
        for _ in range(3):
            assert (await world.nobody.post(f"{AUTH}/login", {"email": EMAIL, "password": "x"})).status == 401
        right = {"email": EMAIL.upper() + " ", "password": PASSWORD}
        limited = await world.nobody.post(f"{AUTH}/login", right)
        assert (limited.status, limited.code, limited.headers["retry-after"]) == (429, "too_many_attempts", "60")
        elsewhere = world.caller(None)
        elsewhere.address = "192.0.2.99"
        assert (await elsewhere.post(f"{AUTH}/login", right)).status == 200
        await world.clock.advance(59.0)
        assert (await world.nobody.post(f"{AUTH}/login", right)).headers["retry-after"] == "1"
        await world.clock.advance(1.0)
        assert (await world.nobody.post(f"{AUTH}/login", right)).status == 200


async def test_a_success_starts_the_count_afresh(
    populated_database: Template, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Who signs in in the end has all attempts again."""
    async with open_world(populated_database, tmp_path_factory.mktemp("afresh"), SignInLimits(attempts=2)) as world:
        for _ in range(3):
            assert (await world.nobody.post(f"{AUTH}/login", {"email": EMAIL, "password": "x"})).status == 401
            await world.sign_in()


async def test_too_many_at_once_are_503() -> None:
    """Passwords are verified a few at a time; who would wait behind too many is sent away."""
    passwords = Passwords(CHEAP, max_waiting=0)
    try:
        with pytest.raises(Exception, match="503 sign_in_busy"):
            await passwords.verify(None, "x")
    finally:
        passwords.close()


async def test_access_tokens_expire_and_are_renewed(world: World) -> None:
    """After an hour the access token is refused; the refresh token gives a new pair, once."""
    first = await world.sign_in()
    world.keys["owner"] = first["access_token"]
    await world.clock.advance(3600.0)
    assert (await world.caller("owner").get(f"{AUTH}/me")).code == "key_expired"
    renewed = await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": first["refresh_token"]})
    assert renewed.status == 200
    assert renewed.body["refresh_token"] != first["refresh_token"]
    world.keys["owner"] = renewed.body["access_token"]
    assert (await world.caller("owner").get(f"{AUTH}/me")).status == 200


async def test_a_refresh_token_used_twice_ends_the_sign_in(world: World) -> None:
    """When a used refresh token comes back, the newest one and the access tokens of that sign-in die with it."""
    first, other = await world.sign_in(), await world.sign_in()
    second = (await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": first["refresh_token"]})).body
    stolen = await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": first["refresh_token"]})
    assert (stolen.status, stolen.code) == (401, "refresh_token_invalid")
    refused = await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": second["refresh_token"]})
    assert (refused.status, refused.code) == (401, "refresh_token_invalid")
    world.keys["thief"], world.keys["other"] = second["access_token"], other["access_token"]
    assert (await world.caller("thief").get(f"{AUTH}/me")).code == "key_ended"
    assert (await world.caller("other").get(f"{AUTH}/me")).status == 200


async def test_refresh_tokens_expire(world: World) -> None:
    """A refresh token that was not used for thirty days is refused, and so is one that never was."""
    tokens = await world.sign_in()
    await world.clock.advance(30 * 86_400.0)
    for raw in (tokens["refresh_token"], "", "x" * 512, "é"):
        refused = await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": raw})
        assert (refused.status, refused.code) == (401, "refresh_token_invalid")


async def test_signing_out_ends_both_tokens_at_once(world: World) -> None:
    """After signing out neither the access token nor the refresh token works; other sign-ins go on."""
    tokens, other = await world.sign_in(), await world.sign_in()
    world.keys["owner"], world.keys["other"] = tokens["access_token"], other["access_token"]
    assert (await world.caller("owner").post(f"{AUTH}/logout")).status == 204
    assert (await world.caller("owner").get(f"{AUTH}/me")).code == "key_ended"
    refreshed = await world.nobody.post(f"{AUTH}/refresh", {"refresh_token": tokens["refresh_token"]})
    assert refreshed.code == "refresh_token_invalid"
    assert (await world.caller("other").get(f"{AUTH}/me")).status == 200
    refused = await world.api.post(f"{AUTH}/logout")
    assert (refused.status, refused.code) == (403, "key_not_a_person")


async def test_a_demotion_or_removal_holds_at_once(world: World) -> None:
    """What a member may do is read with every request, not from the token."""
    made = await world.api.made(
        "/api/v2/members", {"email": "dev@acme.example", "role": "developer", "password": "long enough, surely"}
    )
    world.keys["dev"] = (await world.sign_in("dev@acme.example", "long enough, surely"))["access_token"]
    toggle = (f"{P}/flags/checkout:toggle", {"environment": "staging"})
    assert (await world.caller("dev").post(*toggle)).status == 200
    await world.do(UpdateMember(member=made["id"], projects=["other"]))
    assert (await world.caller("dev").post(*toggle)).code == "wrong_project"
    await world.api.patch(f"/api/v2/members/{made['id']}", {"role": "viewer"})
    assert (await world.caller("dev").post(*toggle)).code == "permission_denied"
    await world.api.delete(f"/api/v2/members/{made['id']}")
    assert (await world.caller("dev").post(*toggle)).code == "key_ended"


async def test_a_new_password_ends_the_sign_ins(world: World) -> None:
    """Whoever holds tokens of the old password is signed out when it changes."""
    made = await world.api.made(
        "/api/v2/members", {"email": "dev@acme.example", "role": "viewer", "password": "long enough, surely"}
    )
    world.keys["dev"] = (await world.sign_in("dev@acme.example", "long enough, surely"))["access_token"]
    changed = await world.api.patch(f"/api/v2/members/{made['id']}", {"password": "another long one"})
    assert changed.status == 200
    assert (await world.caller("dev").get(f"{AUTH}/me")).code == "key_ended"
    await world.sign_in("dev@acme.example", "another long one")


async def test_a_new_password_and_the_end_of_the_sign_ins_are_one_transaction(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the sign-ins cannot be ended the password stays, too; what has committed has done both."""
    member = (await world.api.shown("/api/v2/members?search=vera"))["data"][0]
    world.keys["vera"] = (await world.sign_in("vera@acme.example"))["access_token"]
    writes: list[str] = []
    write = Database.write

    async def counting(self: Database, *work: Any) -> Any:
        writes.append("write")
        return await write(self, *work)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "write", counting)
        await world.do(UpdateMember(member=member["id"], password_hash=CHEAP.hash("another long one")))
    assert writes == ["write"]
    assert (await world.caller("vera").get(f"{AUTH}/me")).code == "key_ended"

    def fail(*_: object, **__: object) -> None:
        raise Bang

    world.keys["vera"] = (await world.sign_in("vera@acme.example", "another long one"))["access_token"]
    monkeypatch.setattr(transaction, "_sign_out", fail)
    with pytest.raises(Bang):
        await world.do(UpdateMember(member=member["id"], password_hash=CHEAP.hash("a third long one")))
    await world.sign_in("vera@acme.example", "another long one")


@pytest.mark.parametrize("meanwhile", ["changed", "deleted"])
async def test_a_password_verified_before_it_changed_opens_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """A sign-in whose password is replaced, or whose member is deleted, after it was verified is a 401."""
    member = (await world.api.shown("/api/v2/members?search=vera"))["data"][0]
    verify = Passwords.verify

    async def verified_then(self: Passwords, stored: str | None, password: str) -> bool:
        is_right = await verify(self, stored, password)
        assert is_right
        if meanwhile == "changed":
            await world.do(UpdateMember(member=member["id"], password_hash=CHEAP.hash("another long one")))
        else:
            await world.do(DeleteMember(member=member["id"]))
        return is_right

    monkeypatch.setattr(Passwords, "verify", verified_then)
    refused = await world.nobody.post(f"{AUTH}/login", {"email": "vera@acme.example", "password": PASSWORD})
    assert (refused.status, refused.code) == (401, "wrong_credentials")


async def test_forged_access_tokens_are_refused(world: World) -> None:
    """A token signed with another key, with none, by somebody else or without its claims is a 401."""
    good = jwt.decode(
        (await world.sign_in())["access_token"], SIGNING_KEY, algorithms=["HS256"], options={"verify_exp": False}
    )
    without = {name: value for name, value in good.items() if name != "sid"}
    for payload, key, algorithm in [
        (good, "x" * 32, "HS256"),
        (good, "", "none"),
        ({**good, "iss": "somebody"}, SIGNING_KEY, "HS256"),
        ({**good, "sid": 7}, SIGNING_KEY, "HS256"),
        ({**good, "exp": "never"}, SIGNING_KEY, "HS256"),
        ({**good, "org": world.rival}, SIGNING_KEY, "HS256"),
        ({**good, "sid": "another"}, SIGNING_KEY, "HS256"),
        (without, SIGNING_KEY, "HS256"),
    ]:
        world.keys["forged"] = jwt.encode(payload, key, algorithm=algorithm)
        refused = await world.caller("forged").get(f"{AUTH}/me")
        assert refused.status == 401, payload
        assert refused.code in {"key_signature", "key_malformed", "key_ended"}


async def test_unknown_tokens_are_401(world: World) -> None:
    """A token of the right shape that was never given out here is a 401."""
    world.keys["foreign"] = mint(Kind.TOKEN, b"\x01" * 32)
    refused = await world.caller("foreign").get(P)
    assert (refused.status, refused.code) == (401, "key_unknown")


async def test_api_tokens_expire(world: World) -> None:
    """A token is refused from its expiry on, with that as the reason."""
    expires_at = world.clock.wall_ms() + 60_000
    made = await world.do(CreateToken(name="short", scopes=("flags:read",), expires_at=expires_at))
    world.keys["short"] = made.secret
    assert (await world.caller("short").get(P)).status == 200
    await world.clock.advance(60.0)
    assert (await world.caller("short").get(P)).code == "key_expired"


async def test_x_api_key_takes_tokens_too(world: World) -> None:
    """`X-API-Key` is as good as `Authorization: Bearer`, whatever the case of the word."""
    raw = world.keys["read"]
    assert (await world.nobody.get(P, X_API_Key=raw)).status == 200
    assert (await world.nobody.get(P, Authorization=f"bearer {raw}")).status == 200
    assert (await world.nobody.get(P, Authorization=f"Basic {raw}")).code == "key_missing"


async def test_the_use_of_a_token_is_noted_at_most_once_a_minute(world: World) -> None:
    """`last_used_at` moves with the first use of each minute only."""

    async def last_used() -> str:
        found = await world.api.shown("/api/v2/tokens?search=read")
        return str(found["data"][0]["last_used_at"])

    await world.caller("read").get(P)
    first = await last_used()
    await world.clock.advance(59.0)
    await world.caller("read").get(P)
    assert await last_used() == first
    await world.clock.advance(1.0)
    await world.caller("read").get(P)
    assert await last_used() > first


async def test_refused_keys_are_logged_with_the_reason_and_never_the_key(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal is one log line with reason and hint; the same one again is not logged for a minute, but counted."""
    token = await world.do(CreateToken(name="old", scopes=("flags:read",)))
    world.keys["old"] = token.secret
    await world.api.delete(f"/api/v2/tokens/{token.entity.id}")
    caplog.clear()
    for _ in range(3):
        assert (await world.caller("old").get(P)).code == "key_revoked"
    records = [record.__dict__ for record in caplog.records]
    assert [(record["reason"], record["key"]) for record in records] == [("revoked", token.entity.hint)]
    assert token.secret not in caplog.text
    assert world.metrics.refused_keys.value("revoked") == 3


async def test_refusals_cannot_flood_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """However many different bad keys come in one second, ten lines are logged."""
    caplog.clear()
    for number in range(30):
        bad = f"a.b.{number:04}"
        assert (await world.nobody.get(P, Authorization=f"Bearer {bad}")).status == 401
    assert len(caplog.records) == 10
