"""Flags through the API: created, changed, switched, killed, archived, deleted; versions in headers."""

from dataclasses import fields

from tests.upstream.management import P, World
from upstream.api.flags import CreateFlagBody, UpdateFlagBody
from upstream.domain.entities import Flag
from upstream.domain.merging import FLAG_FIELDS

FLAGS = f"{P}/flags"
FLAG = f"{FLAGS}/checkout"
PRODUCTION = f"{FLAG}/environments/production"


async def test_a_flag_is_created_read_changed_and_deleted(world: World) -> None:
    """The whole life of a flag: 201 with Location and ETag, partial changes by PUT and PATCH, 204, then 404."""
    body = {
        "name": "Banner",
        "type": "string",
        "variations": [{"key": "plain", "value": "Hi"}, {"key": "warm", "value": "Hello"}],
        "tags": ["ui"],
        "metadata": {"team": "web"},
        "expires_at": "2027-01-01T00:00:00+01:00",
        "off": "plain",
        "environments": {"production": {"enabled": True, "fallthrough": {"variation": "warm"}}},
    }
    made = await world.api.post(FLAGS, body)
    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, f"{FLAGS}/banner", '"v1"')
    assert made.body["expires_at"] == "2026-12-31T23:00:00.000Z"
    assert [(key, state["enabled"]) for key, state in made.body["environments"].items()] == [
        ("development", False),
        ("staging", False),
        ("production", True),
    ]
    read = await world.api.get(made.headers["location"])
    assert (read.body, read.headers["etag"]) == (made.body, '"v1"')
    put = await world.api.call("PUT", f"{FLAGS}/banner", {"description": "Above the fold"})
    patched = await world.api.patch(f"{FLAGS}/{made.body['id']}", {"tags": [], "expires_at": None})
    assert (put.status, put.headers["etag"], patched.headers["etag"]) == (200, '"v2"', '"v3"')
    changed: dict[str, object] = {"description": "Above the fold", "tags": [], "expires_at": None}
    assert patched.body.items() >= {**changed, "name": "Banner", "metadata": {"team": "web"}}.items()
    assert (await world.api.delete(f"{FLAGS}/banner")).status == 204
    assert (await world.api.get(f"{FLAGS}/banner")).code == "flag_not_found"


async def test_a_config_is_read_and_changed(world: World) -> None:
    """PATCH of a config changes the named fields in that environment only; raw values become variations."""
    rule = {"when": {"attribute": "plan", "op": "eq", "value": "pro"}, "value": True}
    reply = await world.api.patch(PRODUCTION, {"enabled": True, "rules": [rule]})
    assert (reply.status, reply.headers["etag"]) == (200, '"v2"')
    assert (
        reply.body.items() >= {"flag": "checkout", "environment": "production", "enabled": True, "off": "off"}.items()
    )
    assert reply.body["rules"][0]["when"] == {"attribute": "plan", "op": "equals", "values": ["pro"]}
    assert (await world.api.shown(PRODUCTION)) == reply.body
    listed = await world.api.shown(f"{FLAG}/environments")
    assert [(each["environment"], each["enabled"]) for each in listed["data"]] == [
        ("development", False),
        ("staging", False),
        ("production", True),
    ]
    missing = await world.api.get(f"{FLAG}/environments/nowhere")
    assert (missing.status, missing.code) == (404, "environment_not_found")


async def test_off_null_leaves_the_value_to_the_code(world: World) -> None:
    """`off: null` clears the off variation, in a new flag and an old one; a body without `off` leaves it as it is."""
    for method in ("PATCH", "PUT"):
        cleared = await world.api.call(method, PRODUCTION, {"off": None})
        kept = await world.api.call(method, PRODUCTION, {"enabled": method == "PATCH"})
        assert (cleared.status, cleared.body["off"], kept.body["off"]) == (200, None, None)
        assert (await world.api.shown(PRODUCTION))["off"] is None
        back = await world.api.call(method, PRODUCTION, {"off": "off"})
        assert (back.status, back.body["off"]) == (200, "off")
    body = {"key": "quiet", "type": "boolean", "off": None, "environments": {"staging": {"off": "off"}}}
    await world.api.made(FLAGS, body)
    listed = await world.api.shown(f"{FLAGS}/quiet/environments")
    assert [each["off"] for each in listed["data"]] == [None, "off", None]
    refused = await world.api.patch(PRODUCTION, {"off": False})
    assert (refused.status, list(refused.body["errors"])) == (422, ["off"])


async def test_a_number_format_is_declared_shown_and_cleared(world: World) -> None:
    """Whole values of a flag that is declared float; null infers again; what does not fit is a 422 that says why."""
    body = {"key": "share", "type": "number", "number_format": "float", "variations": [{"key": "one", "value": 1}]}
    made = await world.api.post(FLAGS, body)
    assert (made.status, made.body["number_format"]) == (201, "float")
    assert (await world.api.shown(f"{FLAGS}/share"))["number_format"] == "float"
    assert (await world.api.shown(FLAG))["number_format"] is None
    kept = await world.api.patch(f"{FLAGS}/share", {"name": "Share"})
    cleared = await world.api.patch(f"{FLAGS}/share", {"number_format": None})
    assert (kept.body["number_format"], cleared.body["number_format"]) == ("float", None)
    entry = (await world.api.shown(f"{P}/audit?action=flag.updated"))["data"][0]
    assert {"path": "number_format", "before": "float", "after": None} in entry["changes"]
    word = await world.api.patch(f"{FLAGS}/share", {"number_format": "double"})
    assert word.body["errors"] == {"number_format": ["This must be one of 'integer' or 'float'."]}
    other = await world.api.patch(FLAG, {"number_format": "float"})
    sentence = "Only a number flag has a number_format; this is a boolean flag."
    assert (other.status, other.body["errors"]) == (422, {"number_format": [sentence]})
    await world.api.patch(f"{FLAGS}/share", {"variations": [{"key": "one", "value": 1.5}]})
    whole = await world.api.patch(f"{FLAGS}/share", {"number_format": "integer"})
    sentence = "The variation 'one' is 1.5, which cannot be kept as integer."
    assert (whole.status, whole.body["errors"]) == (422, {"number_format": [sentence]})


async def test_toggle_switches_and_says_the_new_version(world: World) -> None:
    """`:toggle` switches to the side that is named, or to the other one; the same side again changes nothing."""
    toggle = f"{FLAG}:toggle"
    on = await world.api.post(toggle, {"environment": "production", "enabled": True, "reason": "launch"})
    again = await world.api.post(toggle, {"environment": "production", "enabled": True})
    off = await world.api.post(toggle, {"environment": "production"})
    assert [(reply.status, reply.body["enabled"], reply.headers["etag"]) for reply in (on, again, off)] == [
        (200, True, '"v2"'),
        (200, True, '"v2"'),
        (200, False, '"v3"'),
    ]
    unknown = await world.api.post(toggle, {"environment": "nowhere"})
    assert (unknown.status, unknown.code) == (404, "environment_not_found")


async def test_kill_switches_off_and_is_always_audited(world: World) -> None:
    """`:kill` switches off at once, works on what is off already, and stands in the audit log with its reason."""
    await world.api.post(f"{FLAG}:toggle", {"environment": "production", "enabled": True})
    for _ in range(2):
        killed = await world.api.post(f"{FLAG}:kill", {"environment": "production", "reason": "errors"})
        assert (killed.status, killed.body["enabled"]) == (200, False)
    entries = await world.api.shown(f"{P}/audit?action=flag.killed")
    assert [(entry["reason"], entry["actor"]["name"]) for entry in entries["data"]] == [("errors", "all")] * 2


async def test_verbs_work_on_keys_with_dots_and_dashes(world: World) -> None:
    """A key that looks like a file name or holds dashes goes through every verb; an unknown verb is a 405."""
    for key in ("a.b-c_d", "v1.2.3", "x-"):
        await world.api.made(FLAGS, {"key": key, "type": "boolean"})
        path = f"{FLAGS}/{key}"
        assert (await world.api.post(f"{path}:toggle", {"environment": "staging"})).body["enabled"] is True
        assert (await world.api.post(f"{path}:kill", {"environment": "staging"})).body["enabled"] is False
        assert (await world.api.post(f"{path}:archive")).body["archived_at"] is not None
        assert (await world.api.post(f"{path}:restore", {})).body["archived_at"] is None
        assert (await world.api.post(f"{path}:explode")).code == "method_not_allowed"


async def test_archived_flags_are_hidden_and_immutable(world: World) -> None:
    """An archived flag leaves the list, can be listed on request, refuses changes with 409, and comes back."""
    assert (await world.api.post(f"{FLAG}:archive")).status == 200
    assert (await world.api.shown(FLAGS))["total"] == 0
    assert [flag["key"] for flag in (await world.api.shown(f"{FLAGS}?archived=true"))["data"]] == ["checkout"]
    refused = await world.api.patch(FLAG, {"name": "New"})
    assert (refused.status, refused.code) == (409, "flag_archived")
    assert (await world.api.post(f"{FLAG}:restore")).status == 200
    assert (await world.api.shown(FLAGS))["total"] == 1


async def test_flags_that_others_require_need_force(world: World) -> None:
    """Deleting or archiving a flag that another one requires is a 409 with the list, unless forced."""
    await world.api.made(FLAGS, {"key": "needs-it", "type": "boolean", "prerequisites": ["checkout"]})
    refused = await world.api.delete(FLAG)
    assert (refused.status, refused.code, refused.body["used_by"]) == (409, "in_use", ["needs-it"])
    assert (await world.api.post(f"{FLAG}:archive", {"force": True})).status == 200
    assert (await world.api.delete(f"{FLAG}?force=true")).status == 204


async def test_a_stale_version_is_412_with_both_sides(world: World) -> None:
    """If-Match with an old version changes nothing and shows what was expected and what is there."""
    await world.api.patch(FLAG, {"name": "First"}, If_Match='"v1"')
    refused = await world.api.patch(FLAG, {"name": "Second"}, If_Match='"v1"')
    assert (refused.status, refused.code, refused.headers["etag"]) == (412, "version_conflict", '"v2"')
    assert refused.body["expected_version"] == 1
    assert refused.body["current"].items() >= {"key": "checkout", "name": "First", "version": 2}.items()
    for path, body in [
        (f"{FLAG}:archive", {}),
        (f"{FLAG}:toggle", {"environment": "production"}),
    ]:
        assert (await world.api.post(path, body, If_Match='"v9"')).code == "version_conflict"
    assert (await world.api.delete(FLAG, If_Match='"v1"')).code == "version_conflict"
    assert (await world.api.patch(PRODUCTION, {"enabled": True}, If_Match='"v2"')).code == "version_conflict"
    assert (await world.api.shown(FLAG))["name"] == "First"


async def test_if_match_takes_our_tags_only(world: World) -> None:
    """A weakened tag and `*` are understood; anything that is no tag of ours is a 400."""
    for tag in ('W/"v1"', "*", ' "v2" '):
        assert (await world.api.patch(FLAG, {"description": tag}, If_Match=tag)).status in {200, 412}
    for tag in ("v1", '"1"', '"v1", "v2"', '"v' + "9" * 40 + '"', ""):
        refused = await world.api.patch(FLAG, {"name": "x"}, If_Match=tag)
        assert (refused.status, refused.code) == (400, "invalid_if_match"), tag


async def test_every_problem_of_a_body_is_named_at_once(world: World) -> None:
    """Wrong types, bad choices and unknown fields come in one answer, with their paths and the nearest known name."""
    body = {
        "nme": "X",
        "type": "bool",
        "tags": ["a", 1],
        "expires_at": "tomorrow",
        "environments": {"production": {"enabeld": True, "rules": {}}},
    }
    refused = await world.api.post(FLAGS, body)
    assert (refused.status, refused.code) == (422, "invalid_body")
    assert refused.body["errors"] == {
        "nme": ["There is no such field; did you mean 'name'?"],
        "type": ["This must be one of 'boolean', 'string', 'number' or 'json'."],
        "tags[1]": ["This must be a text."],
        "expires_at": ["This must be an RFC 3339 time such as 2026-11-21T06:30:00Z."],
        "environments.production.enabeld": ["There is no such field; did you mean 'enabled'?"],
        "environments.production.rules": ["This must be a list."],
    }


async def test_what_the_domain_refuses_is_422_with_paths(world: World) -> None:
    """Faults that only the domain can see are answered in the same shape."""
    refused = await world.api.post(FLAGS, {"key": "Bad Key", "type": "boolean", "name": " "})
    assert (refused.status, refused.code) == (422, "invalid")
    assert {"key", "name"} == set(refused.body["errors"])
    taken = await world.api.post(FLAGS, {"key": "checkout", "type": "boolean"})
    assert (taken.status, taken.code, list(taken.body["errors"])) == (409, "key_taken", ["key"])


async def test_warnings_are_answered_beside_the_flag(world: World) -> None:
    """A flag that requires one which does not exist yet is made, with a warning."""
    made = await world.api.made(FLAGS, {"key": "early", "type": "boolean", "prerequisites": ["later"]})
    assert [warning["code"] for warning in made["warnings"]] != []


async def test_times_beyond_what_can_be_written_are_refused(world: World) -> None:
    """Moments before 1970 or after 9999 are a 422, also where only the offset puts them there."""
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "1969-12-31T23:59:59Z", "2026-01-01T00:00:00"):
        refused = await world.api.patch(FLAG, {"expires_at": text})
        assert (refused.status, list(refused.body["errors"])) == (422, ["expires_at"]), text


async def test_flags_are_paged_searched_sorted_and_filtered(world: World) -> None:
    """Pages by offset or number cover the list once; search, sort and filters narrow and order it."""
    for number in range(4):
        kind = "ops" if number % 2 else "release"
        body = {
            "key": f"f{number}",
            "name": f"Name {9 - number}",
            "default_value": "x",
            "kind": kind,
            "tags": [f"t{number}"],
        }
        await world.api.made(FLAGS, body)

    async def keys(query: str) -> list[str]:
        return [flag["key"] for flag in (await world.api.shown(f"{FLAGS}?{query}"))["data"]]

    first = await world.api.shown(f"{FLAGS}?limit=2")
    assert (first["total"], first["limit"], first["offset"], first["has_more"]) == (5, 2, 0, True)
    last = await world.api.shown(f"{FLAGS}?limit=2&page=3")
    assert (last["offset"], last["has_more"], len(last["data"])) == (4, False, 1)
    pages = [*await keys("limit=2"), *await keys("limit=2&offset=2"), *await keys("limit=2&page=3")]
    assert pages == await keys("") == ["checkout", "f0", "f1", "f2", "f3"]
    assert await keys("sort=name&dir=asc&search=name") == ["f3", "f2", "f1", "f0"]
    assert await keys("dir=desc&limit=1") == ["f3"]
    assert await keys("search=100%25_") == []
    assert await keys("type=boolean") == ["checkout"]
    assert await keys("kind=ops") == ["f1", "f3"]
    assert await keys("tag=t2") == ["f2"]
    assert await keys("offset=1000") == []


async def test_every_field_of_a_flag_is_shown_and_can_be_set(world: World) -> None:
    """A field that is added to flags is in answers, bodies and merges, or is written by the authority alone."""
    names = {each.name for each in fields(Flag)}
    shown = set(await world.api.shown(FLAG))
    assert names - shown == {"project_id", "deleted_at"}
    own = {"id", "project_id", "archived_at", "deleted_at", "version", "created_at", "updated_at"}
    settable = names - own - {"key"}
    assert settable | {"key"} <= set(CreateFlagBody.model_fields)
    assert settable == set(FLAG_FIELDS) == set(UpdateFlagBody.model_fields) - {"confirm_type_change", "base_version"}
