"""Projects, environments, segments, keys, tokens, members and the audit log through the API."""

import pytest

from relay.protocol.keys import Kind, kind_of
from tests.upstream.management import P, World
from upstream.domain.permissions import SCOPES

V2 = "/api/v2"


async def test_a_project_lives(world: World) -> None:
    """A project is made with three environments unless others are named, changed in part, and deleted as a whole."""
    made = await world.api.post(f"{V2}/projects", {"name": "Mobile App"})
    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, f"{V2}/projects/mobile_app", '"v1"')
    environments = await world.api.shown(f"{V2}/projects/mobile_app/environments")
    assert [each["key"] for each in environments["data"]] == ["development", "staging", "production"]
    changed = await world.api.patch(f"{V2}/projects/{made.body['id']}", {"mau_limit": 5, "description": "Both"})
    assert (changed.status, changed.body["mau_limit"], changed.body["name"]) == (200, 5, "Mobile App")
    cleared = await world.api.call("PUT", f"{V2}/projects/mobile_app", {"mau_limit": None})
    assert (cleared.body["mau_limit"], cleared.body["description"]) == (None, "Both")
    assert (await world.api.delete(f"{V2}/projects/mobile_app")).status == 204
    assert (await world.api.get(f"{V2}/projects/mobile_app")).code == "project_not_found"
    single = {"key": "tiny", "environments": [{"key": "live", "critical": True}]}
    await world.api.made(f"{V2}/projects", single)
    listed = await world.api.shown(f"{V2}/projects/tiny/environments")
    assert [(each["key"], each["critical"]) for each in listed["data"]] == [("live", True)]


async def test_what_is_made_needs_a_name_or_a_key(world: World) -> None:
    """Nothing is made of an empty object."""
    for path in (f"{V2}/projects", f"{P}/environments", f"{P}/flags", f"{P}/segments"):
        refused = await world.api.post(path, {})
        assert (refused.status, refused.code) == (422, "invalid_body"), path


async def test_unknown_fields_inside_lists_are_named(world: World) -> None:
    """A misspelt field of an environment that is made with its project is named with its place in the list."""
    refused = await world.api.post(
        f"{V2}/projects", {"name": "X", "environments": [{"key": "a"}, {"key": "b", "nam": 1}]}
    )
    assert refused.body["errors"] == {"environments[1].nam": ["There is no such field; did you mean 'name'?"]}


async def test_an_environment_lives(world: World) -> None:
    """An environment is added, changed, shown without its secrets, and deleted."""
    made = await world.api.post(f"{P}/environments", {"name": "Canary", "critical": True})
    assert (made.status, made.headers["location"]) == (201, f"{P}/environments/canary")
    assert not [name for name in made.body if "secret" in name]
    changed = await world.api.patch(f"{P}/environments/canary", {"name": "Canaries", "sort": -1}, If_Match='"v1"')
    assert (changed.body["name"], changed.headers["etag"]) == ("Canaries", '"v2"')
    assert (await world.api.shown(f"{P}/environments"))["data"][0]["key"] == "canary"
    assert (await world.api.shown(f"{P}/environments/{made.body['id']}"))["name"] == "Canaries"
    assert (await world.api.delete(f"{P}/environments/canary", If_Match='"v1"')).status == 412
    assert (await world.api.delete(f"{P}/environments/canary")).status == 204
    assert (await world.api.get(f"{P}/environments/canary")).code == "environment_not_found"


async def test_a_segment_lives(world: World) -> None:
    """A segment is made, changed, and deleted; one that rules name needs force."""
    body = {"name": "Staff", "include": ["ada", 7], "when": {"attribute": "email", "op": "endsWith", "value": "@x.io"}}
    made = await world.api.post(f"{P}/segments", body)
    assert (made.status, made.headers["location"], made.body["include"]) == (201, f"{P}/segments/staff", ["ada", "7"])
    changed = await world.api.patch(f"{P}/segments/staff", {"exclude": ["bob"], "when": None})
    assert (changed.body["exclude"], changed.body["when"], changed.headers["etag"]) == (["bob"], None, '"v2"')
    rules = [{"when": {"segment": "staff"}, "variation": "on"}]
    await world.api.patch(f"{P}/flags/checkout/environments/staging", {"rules": rules})
    assert (await world.api.delete(f"{P}/segments/staff")).code == "in_use"
    assert (await world.api.delete(f"{P}/segments/staff?force=true")).status == 204
    assert (await world.api.get(f"{P}/segments/staff")).code == "segment_not_found"
    assert (await world.api.patch(f"{P}/segments/testers", {"include": [1.5]})).body["errors"].keys() == {"include[0]"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"kind": "server", "project": "shop", "environment": "staging"}, Kind.SERVER),
        ({"kind": "client", "project": "shop", "environment": "staging", "origins": ["*"]}, Kind.CLIENT),
        ({"kind": "relay", "projects": ["shop"], "environments": ["shop/staging"]}, Kind.RELAY),
    ],
)
async def test_a_key_is_shown_once(world: World, body: dict[str, object], kind: Kind) -> None:
    """The raw key is in the answer that makes it and in no other; revoking takes it out of the list."""
    made = await world.api.post(f"{V2}/keys", body)
    assert made.status == 201, made.raw
    raw = made.body["key"]
    assert kind_of(raw) is kind
    shown = await world.api.get(made.headers["location"])
    listed = await world.api.get(f"{V2}/keys")
    audit = await world.api.get(f"{P}/audit")
    for reply in (shown, listed, audit):
        assert reply.status == 200
        assert raw.encode() not in reply.raw
        assert b'"hash"' not in reply.raw
    assert (await world.api.delete(made.headers["location"])).status == 204
    assert made.body["id"] not in [key["id"] for key in (await world.api.shown(f"{V2}/keys"))["data"]]
    assert (await world.api.shown(made.headers["location"]))["revoked_at"] is not None


async def test_keys_are_listed_by_kind_and_environment(world: World) -> None:
    """The list narrows by kind, by an environment's id, and by its key beside its project."""
    production = await world.api.shown(f"{P}/environments/production")

    async def kinds(query: str) -> list[str]:
        return sorted(key["kind"] for key in (await world.api.shown(f"{V2}/keys?{query}"))["data"])

    assert await kinds("") == ["client", "relay", "server"]
    assert await kinds("kind=relay") == ["relay"]
    assert await kinds("environment=production&project=shop") == ["client", "server"]
    assert await kinds(f"environment={production['id']}") == ["client", "server"]
    assert await kinds("environment=staging&project=shop") == []
    assert (await world.api.get(f"{V2}/keys?environment=x&project=shop")).code == "environment_not_found"


async def test_keys_of_other_projects_and_organisations_do_not_exist(world: World) -> None:
    """A token limited to projects sees no key of others; another organisation's key or token is a 404."""
    limited, rival = world.caller("limited"), world.caller("rival")
    key = (await world.api.shown(f"{V2}/keys?kind=server"))["data"][0]["id"]
    token = (await world.api.shown(f"{V2}/tokens?search=read"))["data"][0]["id"]
    assert (await limited.shown(f"{V2}/keys"))["data"] == []
    assert [each["name"] for each in (await limited.shown(f"{V2}/tokens"))["data"]] == ["limited"]
    for caller in (limited, rival):
        for path, code in ((f"{V2}/keys/{key}", "key_not_found"), (f"{V2}/tokens/{token}", "token_not_found")):
            assert (await caller.get(path)).code == code
            assert (await caller.delete(path)).code == code
    assert (await world.api.get(f"{V2}/keys/{token}")).code == "key_not_found"
    assert (await world.api.get(f"{V2}/tokens/{key}")).code == "token_not_found"


async def test_keys_that_cannot_be_are_422(world: World) -> None:
    """A key of no known kind, without its environment, or for the past is refused with the field."""
    for body, field in [
        ({"kind": "token"}, "kind"),
        ({"kind": "server", "project": "shop"}, "environment"),
        ({"kind": "relay", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"kind": "client", "project": "shop", "environment": "staging", "origins": ["nowhere"]}, "origins[0]"),
    ]:
        refused = await world.api.post(f"{V2}/keys", body)
        assert (refused.status, list(refused.body["errors"])) == (422, [field]), refused.raw


async def test_a_token_lives(world: World) -> None:
    """A token works as soon as it is made, for its scopes and projects, and not after it is revoked."""
    body = {"name": "ci", "scopes": ["flags:write"], "projects": ["shop"]}
    made = await world.api.post(f"{V2}/tokens", body)
    assert (made.status, made.body["scopes"]) == (201, ["flags:write"])
    world.keys["ci"] = made.body["token"]
    toggle = f"{P}/flags/checkout:toggle"
    assert (await world.caller("ci").post(toggle, {"environment": "staging"})).status == 200
    assert (await world.caller("ci").get(f"{V2}/projects/other")).code == "wrong_project"
    assert [each["key"] for each in (await world.caller("ci").shown(f"{V2}/projects"))["data"]] == ["shop"]
    assert (await world.api.delete(made.headers["location"])).status == 204
    assert (await world.caller("ci").post(toggle, {"environment": "staging"})).code == "key_revoked"


async def test_nobody_gives_more_than_they_have(world: World) -> None:
    """A token cannot make one with scopes that it lacks."""
    refused = await world.caller("limited").post(f"{V2}/tokens", {"name": "x", "scopes": ["members:write"]})
    assert (refused.status, list(refused.body["errors"])) == (422, ["scopes[0]"])
    assert (await world.caller("limited").post(f"{V2}/keys", {"kind": "relay", "projects": ["shop"]})).status == 403


async def test_a_member_lives(world: World) -> None:
    """A member is added with a password, signs in, is changed, and removed; e-mail addresses are unique."""
    body = {"email": "Dora@acme.example", "name": "Dora", "role": "developer", "password": "long enough, surely"}
    made = await world.api.post(f"{V2}/members", body)
    # A token may not do all that a developer may unless it has every scope; this one has.
    assert (made.status, made.body["email"], made.body["role"]) == (201, "dora@acme.example", "developer"), made.raw
    assert b"password" not in made.raw
    assert (await world.sign_in("dora@acme.example", "long enough, surely"))["token_type"] == "Bearer"
    assert (await world.api.post(f"{V2}/members", body)).code == "email_taken"
    path = made.headers["location"]
    changed = await world.api.patch(path, {"role": "viewer", "projects": ["shop"]})
    assert (changed.status, changed.body["role"], len(changed.body["projects"])) == (200, "viewer", 1)
    assert (await world.api.shown(f"{V2}/members/dora@acme.example"))["id"] == made.body["id"]
    assert (await world.api.delete(path)).status == 204
    assert (await world.api.get(path)).code == "member_not_found"


async def test_members_passwords_have_a_length(world: World) -> None:
    """A password of fewer than twelve or more than a thousand characters is refused."""
    for password in ("x" * 11, "x" * 1001, 1234567890, None):
        refused = await world.api.post(f"{V2}/members", {"email": "d@acme.example", "password": password})
        assert refused.status == (201 if password is None else 422), password


async def test_rivals_members_do_not_exist(world: World) -> None:
    """Another organisation's member is a 404 by id and by e-mail address."""
    rival = world.caller("rival")
    member = (await world.api.shown(f"{V2}/members"))["data"][0]
    for reference in (member["id"], member["email"]):
        path = f"{V2}/members/{reference}"
        assert (await rival.get(path)).code == "member_not_found"
        assert (await rival.patch(path, {"name": "x"})).code == "member_not_found"
        assert (await rival.delete(path)).code == "member_not_found"
    assert (await rival.shown(f"{V2}/members"))["data"] == []


async def test_the_audit_log_says_who_did_what(world: World) -> None:
    """Each change is an entry with actor, door, request id, both sides and revisions; filters and pages narrow it."""
    flag = await world.api.shown(f"{P}/flags/checkout")
    await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"}, X_Request_Id="req-1")
    await world.api.made(f"{P}/flags", {"key": "two", "type": "boolean"})
    entries = (await world.api.shown(f"{P}/audit?flag=checkout&environment=production"))["data"]
    assert len(entries) == 1
    entry = entries[0]
    assert entry["action"] == "flag.toggled"
    assert entry["actor"] == {"type": "token", "id": entry["actor"]["id"], "name": "all"}
    assert (entry["request_id"], entry["via"], entry["target"]["key"]) == ("req-1", "api", "checkout")
    assert entry["changes"] == [{"path": "enabled", "before": False, "after": True}]
    assert list(entry["revisions"]) == [entry["environment_id"]]

    async def actions(query: str) -> list[str]:
        return [each["action"] for each in (await world.api.shown(f"{P}/audit?{query}"))["data"]]

    assert await actions("limit=2") == ["flag.created", "flag.toggled"]
    assert await actions(f"flag={flag['id']}") == ["flag.toggled", "flag.created"]
    assert await actions("action=flag.created&flag=two") == ["flag.created"]
    assert await actions("flag=nothing") == []
    assert await actions("environment=nothing") == []


async def test_the_audit_log_of_the_organisation(world: World) -> None:
    """What belongs to no project is there too; filters narrow it, and a limited caller sees its projects' entries."""
    other = (await world.api.shown(f"{V2}/projects/other"))["id"]
    await world.api.made(f"{V2}/projects/other/flags", {"key": "theirs", "type": "boolean"})

    async def actions(query: str = "", caller: str = "all") -> list[str]:
        return [each["action"] for each in (await world.caller(caller).shown(f"{V2}/audit?{query}"))["data"]]

    assert set(await actions("limit=100")) >= {"member.created", "token.created", "flag.created", "project.created"}
    assert await actions("limit=1") == ["flag.created"]
    assert await actions("action=member.created") == ["member.created"] * 2
    assert await actions("project=other&flag=theirs") == await actions("project=other&action=flag.created")
    assert await actions("project=shop&environment=production") == await actions("action=key.created&project=shop")
    assert await actions("flag=theirs") == []
    seen = (await world.caller("limited").shown(f"{V2}/audit"))["data"]
    assert {each["project_id"] for each in seen} == {other}
    assert (await world.caller("limited").get(f"{V2}/audit?project=shop")).code == "wrong_project"
    assert (await world.caller("read").get(f"{V2}/audit")).code == "permission_denied"
    assert await actions("action=member.created", "rival") == []


async def test_the_audit_log_outlives_its_project(world: World) -> None:
    """Entries of a deleted project are found by its id."""
    other = (await world.api.shown(f"{V2}/projects/other"))["id"]
    assert (await world.api.delete(f"{V2}/projects/other")).status == 204
    newest = (await world.api.shown(f"{V2}/audit?project={other}&limit=1"))["data"]
    assert [each["action"] for each in newest] == ["project.deleted"]


async def test_a_limited_caller_meets_the_members_within_its_projects(world: World) -> None:
    """Members who reach farther are not listed or shown to it, and not changed by it."""
    body = {"scopes": list(SCOPES), "projects": ["other"], "name": "clerk"}
    world.keys["clerk"] = (await world.api.made(f"{V2}/tokens", body))["token"]
    clerk = world.caller("clerk")
    for name, projects in {"in": ["other"], "out": ["shop"], "both": ["shop", "other"]}.items():
        await world.api.made(f"{V2}/members", {"email": f"{name}@acme.example", "projects": projects})
    listed = await clerk.shown(f"{V2}/members")
    assert ([each["email"] for each in listed["data"]], listed["total"]) == (["in@acme.example"], 1)
    assert (await clerk.shown(f"{V2}/members?search=out"))["data"] == []
    assert (await clerk.get(f"{V2}/members/in@acme.example")).status == 200
    for email in ("out@acme.example", "both@acme.example", "vera@acme.example"):
        path = f"{V2}/members/{email}"
        assert (await clerk.get(path)).code == "member_not_found"
        assert (await clerk.patch(path, {"password": "taken over now"})).code == "member_not_found"
        assert (await clerk.post(f"{path}:reset-password")).code == "member_not_found"
        assert (await clerk.delete(path)).code == "member_not_found"


async def test_a_token_with_an_end_makes_nothing_that_outlives_it(world: World) -> None:
    """What it makes without an expiry ends with it; a later one is refused with the field."""
    end = {"expires_at": "2099-01-01T00:00:00.000Z"}
    made = await world.api.made(f"{V2}/tokens", {"name": "short", "scopes": ["keys:write", "flags:read"], **end})
    world.keys["short"] = made["token"]
    short = world.caller("short")
    heir = await short.made(f"{V2}/tokens", {"name": "heir", "scopes": ["flags:read"]})
    assert heir["expires_at"] == made["expires_at"]
    late = {"kind": "relay", "expires_at": "2100-01-01T00:00:00Z"}
    refused = await short.post(f"{V2}/keys", late)
    assert (refused.status, list(refused.body["errors"])) == (422, ["expires_at"])


async def test_each_organisation_sees_its_own(world: World) -> None:
    """Lists hold nothing of another organisation."""
    rival = world.caller("rival")
    for path, names in [("projects", ["lab"]), ("keys", []), ("members", [])]:
        listed = await rival.shown(f"{V2}/{path}")
        assert [each.get("key") for each in listed["data"]] == names
    assert [each["name"] for each in (await rival.shown(f"{V2}/tokens"))["data"]] == ["rival"]
