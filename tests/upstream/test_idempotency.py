"""`Idempotency-Key`: a write that is sent again has its effect once and is answered as the first time."""

import asyncio
import hmac
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import orjson
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from sqlalchemy import Connection, select

from tests.upstream.management import P, Reply, Template, World
from upstream.api.attempts import Attempt
from upstream.api.doing import asked_performance
from upstream.api.paths import takes_idempotency_key
from upstream.authority import Authority, Once, Outcome
from upstream.domain.commands import Command
from upstream.domain.permissions import Actor
from upstream.storage import tables
from upstream.storage.database import Database, Unavailable
from upstream.storage.errors import KeyTaken
from upstream.storage.idempotency import Claim, claim

KEY = "2f1c0f0e-8e0d-4c36-9a55-1c1b7e0a4d11"

RULE = {"when": {"attribute": "country", "op": "in", "values": ["NL"]}, "serve": {"value": True}}
HEAD = {"format": "halyard.project", "format_version": 1}
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/api/v2/projects", {"name": "Another"}),
    ("PATCH", P, {"name": "Shop 2"}),
    ("POST", f"{P}/environments", {"name": "QA"}),
    ("PATCH", f"{P}/environments/production", {"name": "Prod"}),
    ("DELETE", f"{P}/environments/staging", None),
    ("POST", f"{P}/flags", {"key": "fresh", "prerequisites": ["checkout"]}),
    ("PATCH", f"{P}/flags/checkout", {"name": "Cart"}),
    ("PATCH", f"{P}/flags/checkout/environments/production", {"enabled": True}),
    ("POST", f"{P}/flags/checkout:toggle", {"environment": "production"}),
    ("POST", f"{P}/flags/checkout:kill", {"environment": "production"}),
    ("POST", f"{P}/flags/checkout:archive", None),
    ("DELETE", f"{P}/flags/checkout", None),
    ("POST", f"{P}/segments", {"key": "fresh"}),
    ("PATCH", f"{P}/segments/testers", {"include": ["bob"]}),
    ("DELETE", f"{P}/segments/testers", None),
    ("POST", "/api/v2/keys", {"kind": "server", "project": "shop", "environment": "production"}),
    ("POST", "/api/v2/tokens", {"name": "ci", "scopes": ["flags:read"]}),
    ("POST", "/api/v2/members", {"email": "new@acme.example", "password": "long enough, is it"}),
    ("DELETE", "/api/v2/members/vera@acme.example", None),
    ("POST", "/api/v2/members", {"email": "invited@acme.example"}),
    ("POST", "/api/v2/members/vera@acme.example:reset-password", None),
    ("POST", f"{P}/environments/production:clone", {"key": "canary"}),
    ("POST", f"{P}/environments:reorder", {"environments": ["production", "staging", "development"]}),
    ("POST", f"{P}/flags/checkout:copy", {"key": "copied"}),
    ("POST", f"{P}/flags/checkout/environments/production/rules", RULE),
    ("POST", f"{P}/flags:toggle", {"flags": ["checkout"], "environment": "production", "enabled": True}),
    ("POST", f"{P}/import", {**HEAD, "flags": [{"key": "brought"}], "prune": True}),
    ("POST", "/api/v2/projects:import", {**HEAD, "project": {"key": "brought"}, "environments": [{"key": "live"}]}),
    ("DELETE", P, None),
]


def of_answer(reply: Reply) -> tuple[Any, ...]:
    """Return what of an answer must be the same when it is given again."""
    return reply.status, reply.raw, *(reply.headers.get(name) for name in ("content-type", "etag", "location"))


async def stored(world: World) -> list[Any]:
    """Return the rows that are kept."""
    return list(await world.database.read(lambda c: c.execute(select(tables.idempotency)).all()))


async def audited(world: World) -> int:
    total: int = (await world.api.shown("/api/v2/audit"))["total"]
    return total


async def test_no_plain_hash_of_a_request_is_stored(world: World) -> None:
    """It may hold a password, which is guessed at such a hash a million times faster than at the one of argon2."""
    body = orjson.dumps({"email": "new@acme.example", "password": "long enough, is it"})
    reply = await world.api.call("POST", "/api/v2/members", body, headers={"Idempotency-Key": KEY})
    assert reply.status == 201, reply.raw
    (row,) = await stored(world)
    request = b"POST\n/api/v2/members\n\n" + body
    assert row.body_hash != sha256(request).hexdigest()
    assert row.body_hash != hmac.new(bytes.fromhex(row.key), request, sha256).hexdigest()


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=lambda value: value if isinstance(value, str) else "")
async def test_a_repeated_write_is_answered_as_the_first_time(world: World, method: str, path: str, body: Any) -> None:
    """Status, headers that matter and body are the same, byte for byte, and there is one effect."""
    before = await audited(world)
    headers = {"Idempotency-Key": KEY}
    first = await world.api.call(method, path, body, headers=headers)
    assert first.status in {200, 201, 204}, first.raw
    assert (after := await audited(world)) > before
    assert "idempotent-replayed" not in first.headers
    for _ in range(2):
        again = await world.api.call(method, path, body, headers=headers)
        assert of_answer(again) == of_answer(first)
        assert again.headers["idempotent-replayed"] == "true"
    assert await audited(world) == after


def not_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whatever takes the outcome's place be lost, as when the process dies before that."""
    write = Database.write

    async def lost(self: Database, work: Any, committed: Any = None) -> Any:
        if "response" in getattr(work, "keywords", {}):
            raise Unavailable("disk full")
        return await write(self, work, committed)

    monkeypatch.setattr(Database, "write", lost)


@pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=lambda value: value if isinstance(value, str) else "")
async def test_what_is_stored_with_the_write_gives_the_same_answer(
    world: World, method: str, path: str, body: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies between commit and answer leaves what the answer is made of."""
    headers = {"Idempotency-Key": KEY}
    not_keeping(monkeypatch)
    first = await world.api.call(method, path, body, headers=headers)
    assert first.status in {200, 201, 204}, first.raw
    after = await audited(world)
    monkeypatch.undo()
    for _ in range(2):
        again = await world.api.call(method, path, body, headers=headers)
        assert of_answer(again) == of_answer(first)
        assert again.headers["idempotent-replayed"] == "true"
    assert await audited(world) == after


async def test_a_write_that_died_before_its_answer_is_answered_from_the_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies right after the commit: the retry gets the new key's text and makes no second key."""
    execute = Authority.execute

    async def dying(self: Authority, command: Command, actor: Actor, once: Once | None = None) -> Outcome:
        await execute(self, command, actor, once)
        raise Unavailable("the process is gone")

    monkeypatch.setattr(Authority, "execute", dying)
    body = {"name": "ci", "scopes": ["flags:read"]}
    died = await world.api.post("/api/v2/tokens", body, Idempotency_Key=KEY)
    assert died.status == 503
    monkeypatch.undo()
    again = await world.api.post("/api/v2/tokens", body, Idempotency_Key=KEY)
    assert (again.status, again.headers["idempotent-replayed"]) == (201, "true")
    world.keys["ci"] = again.body["token"]
    assert (await world.caller("ci").get(f"{P}/flags")).status == 200
    assert (await world.api.get(again.headers["location"])).body["name"] == "ci"


async def test_a_write_that_could_not_be_stored_leaves_no_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Effect and record are one transaction: neither is there without the other."""

    def failing(*_: object, **__: object) -> None:
        raise Unavailable("disk full")

    monkeypatch.setattr("upstream.authority.keep", failing)
    path = f"{P}/flags/checkout:toggle"
    before = await audited(world)
    assert (await world.api.post(path, {"environment": "production"}, Idempotency_Key=KEY)).status == 503
    assert (await stored(world), await audited(world)) == ([], before)
    monkeypatch.undo()
    reply = await world.api.post(path, {"environment": "production"}, Idempotency_Key=KEY)
    assert (reply.status, reply.body["enabled"], "idempotent-replayed" in reply.headers) == (200, True, False)


async def test_a_key_stands_for_one_request(world: World) -> None:
    """Another body, path, query or method under the same key is refused and does nothing."""
    path = f"{P}/flags/checkout:toggle"
    first = await world.api.post(path, {"environment": "production"}, Idempotency_Key=KEY)
    assert first.status == 200
    before = await audited(world)
    headers = {"Idempotency-Key": KEY}
    for method, other, body in (
        ("POST", path, {"environment": "staging"}),
        ("POST", f"{P}/flags/checkout:kill", {"environment": "production"}),
        ("POST", f"{path}?dry_run=1", {"environment": "production"}),
        ("DELETE", f"{P}/flags/checkout", None),
    ):
        reply = await world.api.call(method, other, body, headers=headers)
        assert (reply.status, reply.code) == (422, "idempotency_key_reused"), (method, other)
    assert await audited(world) == before


async def test_keys_of_different_callers_do_not_meet(world: World) -> None:
    """The same key of another token, or of a person, is another write."""
    path, body = f"{P}/flags/checkout:toggle", {"environment": "production"}
    replies = [await world.caller(name).post(path, body, Idempotency_Key=KEY) for name in ("all", "write")]
    session = await world.sign_in()
    person = {"Authorization": f"Bearer {session['access_token']}", "Idempotency-Key": KEY}
    replies.append(await world.nobody.call("POST", path, body, headers=person))
    assert [(reply.status, reply.body["enabled"]) for reply in replies] == [(200, True), (200, False), (200, True)]
    assert len(await stored(world)) == 3


async def test_refusals_and_dry_runs_are_not_kept(world: World) -> None:
    """A write that was refused can be sent again, mended, under its key; so can one that was only tried."""
    path = f"{P}/flags/checkout:toggle"
    for query, body, status in (
        ("", {"environment": "nowhere"}, 404),
        ("", {"nonsense": 1}, 422),
        ("?dry_run=1", {"environment": "production"}, 200),
    ):
        reply = await world.api.post(path + query, body, Idempotency_Key=KEY)
        assert reply.status == status
        assert await stored(world) == []
    stale = await world.api.post(path, {"environment": "production"}, Idempotency_Key=KEY, If_Match='"v99"')
    assert stale.status == 412
    done = await world.api.post(path, {"environment": "production"}, Idempotency_Key=KEY)
    assert (done.status, "idempotent-replayed" in done.headers) == (200, False)


async def test_a_repetition_while_the_first_is_under_way_is_409(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told to come back, and then gets the answer."""
    under_way, may_go = asyncio.Event(), asyncio.Event()
    execute = Authority.execute

    async def slow(self: Authority, command: Command, actor: Actor, once: Once | None = None) -> Outcome:
        under_way.set()
        await may_go.wait()
        return await execute(self, command, actor, once)

    monkeypatch.setattr(Authority, "execute", slow)
    path, body = f"{P}/flags/checkout:toggle", {"environment": "production"}
    first = asyncio.create_task(world.api.post(path, body, Idempotency_Key=KEY))
    await under_way.wait()
    early = await world.api.post(path, body, Idempotency_Key=KEY)
    assert (early.status, early.code, early.headers["retry-after"]) == (409, "idempotency_key_in_use", "1")
    may_go.set()
    answered = await first
    assert of_answer(await world.api.post(path, body, Idempotency_Key=KEY)) == of_answer(answered)


async def test_a_key_that_another_process_has_just_used_is_409(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process commits between the look and the write: nothing happens twice, and the retry finds it."""
    path, body = f"{P}/flags/checkout:toggle", {"environment": "production"}
    read = Database.read

    async def looked_too_early(self: Database, work: Callable[[Connection], Any]) -> Any:
        return None if "principal" in getattr(work, "keywords", {}) else await read(self, work)

    first = await world.api.post(path, body, Idempotency_Key=KEY)
    before = await audited(world)
    monkeypatch.setattr(Database, "read", looked_too_early)
    late = await world.api.post(path, body, Idempotency_Key=KEY)
    assert (late.status, late.code) == (409, "idempotency_key_in_use")
    monkeypatch.undo()
    assert await audited(world) == before
    assert of_answer(await world.api.post(path, body, Idempotency_Key=KEY)) == of_answer(first)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "a\tb", "schlüssel"])
async def test_bad_keys_are_400(world: World, key: str) -> None:
    """Empty, too long, control characters, not ASCII."""
    reply = await world.api.post("/api/v2/projects", {"name": "x"}, Idempotency_Key=key)
    assert (reply.status, reply.code) == (400, "invalid_idempotency_key")
    assert (await world.nobody.post("/api/v2/projects", {"name": "x"}, Idempotency_Key=key)).status == 401
    assert (await world.api.get("/api/v2/projects", Idempotency_Key=key)).status == 200


async def test_neither_the_key_nor_a_secret_is_readable_in_the_database(world: World) -> None:
    """What is kept is encrypted with the key of which only a hash is there."""
    reply = await world.api.post("/api/v2/tokens", {"name": "ci", "scopes": ["flags:read"]}, Idempotency_Key=KEY)
    (row,) = await stored(world)
    everything = b"".join(part if isinstance(part, bytes) else str(part).encode() for part in row)
    for secret in (reply.body["token"], KEY, reply.body["id"]):
        assert secret.encode() not in everything


async def test_kept_answers_are_let_go_after_a_day(world: World) -> None:
    """Then the key can be used for another write."""
    path, body = f"{P}/flags/checkout:toggle", {"environment": "production"}
    await world.api.post(path, body, Idempotency_Key=KEY)
    await world.clock.advance(86_399)
    await world.authority.keep_house()
    assert "idempotent-replayed" in (await world.api.post(path, body, Idempotency_Key=KEY)).headers
    await world.clock.advance(2)
    await world.authority.keep_house()
    assert await stored(world) == []
    assert "idempotent-replayed" not in (await world.api.post(path, body, Idempotency_Key=KEY)).headers


async def test_the_first_answer_of_something_that_is_gone_since_is_what_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process died before it answered, and then somebody removed what was made: the retry still learns of it."""
    not_keeping(monkeypatch)
    for path, body, status in (
        (f"{P}/flags", {"key": "fleeting"}, 201),
        (f"{P}/flags/checkout:toggle", {"environment": "production"}, 200),
    ):
        first = await world.api.post(path, body, Idempotency_Key=f"{KEY}{status}")
        assert first.status == status
    assert (await world.api.delete(P)).status == 204
    made = await world.api.post(f"{P}/flags", {"key": "fleeting"}, Idempotency_Key=f"{KEY}201")
    assert (made.status, made.body["key"], made.headers["idempotent-replayed"]) == (201, "fleeting", "true")
    on = await world.api.post(f"{P}/flags/checkout:toggle", {"environment": "production"}, Idempotency_Key=f"{KEY}200")
    assert (on.status, on.body["enabled"], on.headers["etag"]) == (200, True, '"v2"')


def test_one_request_carries_out_one_command() -> None:
    """What a second one did would not be kept, so a route that does two is refused when it is written."""
    attempt = Attempt("api:org:token:1", KEY, Claim("p", "k", "h"))
    with pytest.raises(RuntimeError, match="one command"):
        attempt.once("h")


async def test_a_claim_is_of_one_principal_and_key(world: World) -> None:
    """The table's key is what keeps two processes apart."""
    await world.database.write(lambda c: claim(c, Claim("p", "k", "h"), 1))
    with pytest.raises(KeyTaken):
        await world.database.write(lambda c: claim(c, Claim("p", "k", "h"), 1))


def test_every_write_can_be_repeated(populated_database: Template) -> None:
    """Each management write carries out its command through `Doing`, and its key is in the OpenAPI document."""
    assert populated_database.app is not None
    document, found = populated_database.document["paths"], 0
    for route in iter_route_contexts(populated_database.app.routes):
        dependant = getattr(route, "dependant", None)
        if not isinstance(dependant, Dependant) or route.path_format is None or route.path_format not in document:
            continue
        for method in route.methods or ():
            parameters = document[route.path_format][method.lower()].get("parameters", ())
            is_told = any(parameter["name"] == "Idempotency-Key" for parameter in parameters)
            is_repeatable = takes_idempotency_key(method, route.path_format)
            assert is_told == is_repeatable, (method, route.path_format)
            if is_repeatable:
                assert asked_performance in set(_calls(dependant)), (method, route.path_format)
                found += 1
    assert found >= 30


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for inner in dependant.dependencies:
        yield from _calls(inner)
