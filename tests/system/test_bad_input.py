"""Bad input on every route of both services over real HTTP: a clear JSON error that names the fault, never a 5xx."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.stack import Client, Json, Running
from upstream.api.document import OPEN_PATHS

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

EVALUATION = (
    "/ofrep/v1/evaluate/flags",
    "/ofrep/v1/evaluate/flags/{flag}",
    "/api/v2/evaluate",
    "/api/v2/bootstrap",
    "/api/v2/track",
    "/api/v2/client/stream",
)


@dataclass(frozen=True)
class Bad:
    """One way to send a wrong body, with the statuses that are a right answer."""

    name: str
    body: bytes
    statuses: frozenset[int]


BODIES = [
    Bad("malformed", b'{"context":', frozenset({400})),
    Bad("empty", b"", frozenset({400})),
    Bad("nan", b'{"context":{"targetingKey":NaN}}', frozenset({400})),
    Bad("infinity", b'{"context":{"n":1e999}}', frozenset({400})),
    Bad("lone surrogate", b'{"context":{"targetingKey":"\\ud800"}}', frozenset({400})),
    Bad("not utf-8", b'{"context":{"targetingKey":"\xff"}}', frozenset({400})),
    Bad("utf-16", '{"context":{}}'.encode("utf-16"), frozenset({400})),
    Bad("byte order mark", b'\xef\xbb\xbf{"context":{}}', frozenset({400})),
    Bad("wrong top-level type", b"[]", frozenset({400, 422})),
    Bad("wrong member type", b'{"context":7,"events":7,"flag":7}', frozenset({400, 422})),
    Bad("too deep", b'{"context":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", frozenset({400})),
    Bad("too long", b'{"context":{"a":"' + b"x" * 1_200_000 + b'"}}', frozenset({413})),
]


def is_clear(body: Any) -> bool:
    """Return whether an error body is of one of the two documented shapes, with a sentence in it."""
    problem = isinstance(body, dict) and {"status", "code", "detail", "title"} <= set(body) and bool(body["detail"])
    ofrep = isinstance(body, dict) and "errorCode" in body and bool(body.get("errorDetails"))
    return problem or ofrep


@pytest.mark.parametrize("bad", BODIES, ids=lambda bad: bad.name)
@pytest.mark.parametrize("route", EVALUATION)
@pytest.mark.parametrize("service", ["upstream", "relay"])
async def test_evaluation_routes_refuse_bad_bodies(running: Running, service: str, route: str, bad: Bad) -> None:
    """Every route that takes a context or events, on relay and upstream, refuses what is no valid body for it."""
    client = getattr(running, service)("server_key")
    status, body = await client.post(route.format(flag=running.demo["flag"]), bad.body)
    assert status in bad.statuses, body
    assert is_clear(body), body


@pytest.mark.parametrize("key", [None, "nonsense", "hal_server_" + "0" * 38, "hal_server_é"])
@pytest.mark.parametrize("route", EVALUATION)
async def test_missing_and_wrong_keys_are_401(running: Running, route: str, key: str | None) -> None:
    """No key, or one that is not known, is a 401 with a JSON body."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = running.relay(None)
    status, body = await client.call(
        "POST", route.format(flag=running.demo["flag"]), {"context": {"targetingKey": "u"}}, **headers
    )
    assert status == 401
    assert is_clear(body), body


async def test_unknown_flag_and_missing_targeting_key(running: Running) -> None:
    """An unknown flag is 404 FLAG_NOT_FOUND; a split without its unit is TARGETING_KEY_MISSING; both say what to do."""
    status, body = await running.relay().post("/ofrep/v1/evaluate/flags/nowhere", {"context": {"targetingKey": "u"}})
    assert (status, body["key"], body["errorCode"]) == (404, "nowhere", "FLAG_NOT_FOUND")
    status, body = await running.relay().post("/api/v2/evaluate", {"flag": "nowhere", "context": {}})
    assert (status, body["code"]) == (404, "flag_not_found")
    status, listed = await running.manage.get(f"{running.project_path}/flags?limit=100")
    assert status == 200
    split = None
    for flag in listed["data"]:
        status, body = await running.relay().post(f"/ofrep/v1/evaluate/flags/{flag['key']}", {"context": {}})
        assert status in {200, 400}, body
        if status == 400:
            assert (body["errorCode"], bool(body["errorDetails"])) == ("TARGETING_KEY_MISSING", True)
            split = flag
    assert split is not None, "the demo project has a flag that needs the targeting key"


async def test_unknown_fields_are_named_with_the_nearest_known_one(running: Running) -> None:
    """A misspelt field is a 422 that names it and what was probably meant, on relay and upstream."""
    status, body = await running.relay().post("/api/v2/evaluate", {"flg": "x", "context": {}})
    assert status == 422
    assert "flag" in json.dumps(body["errors"])
    status, body = await running.manage.post(f"{running.project_path}/flags", {"nme": "X", "type": "boolean"})
    assert status == 422
    assert "name" in json.dumps(body["errors"])


WRITES = ("post", "put", "patch", "delete")
WITHOUT_A_KEY = OPEN_PATHS
TAKES_A_RELAY_KEY = ("/api/v2/ingest", "/api/v2/changes")


UNKNOWN = "unknown-thing"


async def _made(running: Running) -> dict[str, str]:
    """Make a token, a key and a member, for routes that look for these before they look at the body."""
    person = await signed_in(running)
    bodies: dict[str, Json] = {
        "tokens": {"name": "walked", "scopes": ["flags:read"]},
        "keys": {"kind": "relay", "name": "walked"},
        "members": {"email": "walked@example.com"},
    }
    ids = {}
    for thing, body in bodies.items():
        status, made = await person.post(f"/api/v2/{thing}", body)
        assert status == 201, made
        ids[thing] = str(made["id"])
    return ids


@pytest_asyncio.fixture(loop_scope="session")
async def writes(running: Running) -> AsyncIterator[list[tuple[str, str, Json]]]:
    """Return method, path and description of every write in the OpenAPI document, on a project of its own."""
    status, document = await running.upstream(None).get("/api/v2/openapi.json")
    assert status == 200
    status, project = await running.manage.post("/api/v2/projects", {"key": "walked", "name": "Walked"})
    assert status == 201, project
    status, flag = await running.manage.post("/api/v2/projects/walked/flags", {"key": "walked", "type": "boolean"})
    assert status == 201, flag
    names = dict.fromkeys(("p", "project", "f", "flag"), "walked") | dict.fromkeys(("e", "environment"), "staging")
    ids = await _made(running)

    def filled(template: str) -> str:
        own = ids.get(template.split("/")[3], UNKNOWN)
        return re.sub(r"{(\w+)}", lambda match: names.get(match[1], own), template)

    found = [
        (method, filled(template), operation)
        for template, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in WRITES
    ]
    assert len(found) > 20
    yield found
    person = await signed_in(running)
    for path in ("projects/walked", *(f"{thing}/{made}" for thing, made in ids.items())):
        status, body = await person.call("DELETE", f"/api/v2/{path}")
        assert status == 204, body


async def signed_in(running: Running) -> Client:
    """Return the demo's owner, who may do everything; what people do about themselves takes no API token."""
    asked = {"email": running.demo["email"], "password": running.demo["password"]}
    status, body = await running.upstream(None).post("/api/v2/auth/login", asked)
    assert status == 200, body
    assert running.session is not None
    return Client(running.session, running.upstream_url, body["access_token"])


async def test_every_management_write_refuses_bad_bodies(running: Running, writes: list[tuple[str, str, Json]]) -> None:
    """Malformed, NaN, wrongly typed, too deep and over-long bodies get a clear 4xx; the body is looked at last."""
    person = await signed_in(running)
    for method, path, operation in writes:
        body_is: Json | None = operation.get("requestBody")
        if body_is is None:
            continue
        client = running.upstream("relay_key") if path in TAKES_A_RELAY_KEY else person
        for bad in BODIES:
            if bad.name == "empty" and not body_is.get("required", False):
                continue
            # A body that is JSON but not this route's is 422; ingest takes gzip, which none of these is.
            right = bad.statuses | {422} if path not in TAKES_A_RELAY_KEY else {400, 413, 415, 422}
            if UNKNOWN in path:
                right |= {404}
            status, body = await client.call(method.upper(), path, bad.body)
            assert status in right, (method, path, bad.name, body)
            assert is_clear(body), (method, path, bad.name, body)


@pytest.mark.parametrize("key", [None, "nonsense", "hal_token_" + "0" * 38])
async def test_every_management_write_needs_a_key(
    running: Running, writes: list[tuple[str, str, Json]], key: str | None
) -> None:
    """Without a key, or with a wrong one, each write is 401, whatever else is wrong with it."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    for method, path, _ in writes:
        if path not in WITHOUT_A_KEY:
            status, body = await running.upstream(None).call(method.upper(), path, {}, **headers)
            assert (method, path, status) == (method, path, 401), body
            assert is_clear(body), body


@pytest.mark.parametrize("service", ["upstream_url", "relay_url"])
async def test_unknown_paths_wrong_methods_and_long_paths(running: Running, service: str) -> None:
    """Unknown path 404, wrong method 405 with Allow, path over 2 KiB 414, query over 8 KiB 414: all in JSON."""
    base = running.demo[service]
    assert running.session is not None
    for method, path, expected in [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v2/evaluate", 405),
        ("GET", "/" + "a" * 3000, 414),
        ("GET", "/api/v2/stream?x=" + "a" * 9000, 414),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "//api//v2/evaluate", 404),
    ]:
        async with running.session.request(method, base + path) as answer:
            assert answer.status == expected, (path[:40], await answer.text())
            assert is_clear(json.loads(await answer.read()))


async def test_too_many_or_too_long_headers_are_refused(running: Running) -> None:
    """More than 64 headers, or more than 16 KiB of them, are answered 431."""
    for base in (running.demo["relay_url"], running.demo["upstream_url"]):
        for headers in ({f"x-{n}": "v" for n in range(100)}, {"x-long": "v" * 20_000}):
            async with aiohttp.ClientSession() as session, session.get(base + "/livez", headers=headers) as answer:
                assert answer.status == 431
