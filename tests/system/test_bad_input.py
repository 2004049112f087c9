"""Bad input on every route of both services over real HTTP: a clear JSON error that names the fault, never a 5xx."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.stack import Running

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


MANAGEMENT_METHODS = ("post", "put", "patch")


async def test_every_management_route_refuses_bad_bodies_and_keys(running: Running) -> None:
    """Each write in the OpenAPI document answers malformed, NaN, wrong-typed and over-long bodies with a clear 4xx."""
    status, document = await running.upstream(None).get("/api/v2/openapi.json")
    assert status == 200
    status, project = await running.manage.post("/api/v2/projects", {"key": "walked", "name": "Walked"})
    assert status == 201, project
    status, flag = await running.manage.post("/api/v2/projects/walked/flags", {"key": "walked", "type": "boolean"})
    assert status == 201, flag
    names = {
        "p": "walked",
        "project": "walked",
        "e": "staging",
        "environment": "staging",
        "f": "walked",
        "flag": "walked",
    }
    checked = 0
    for template, operations in document["paths"].items():
        path = template
        for name in [part.split("}")[0] for part in template.split("{")[1:]]:
            path = path.replace("{" + name + "}", names.get(name, "unknown-thing"))
        for method in operations:
            if method == "get":
                status, body = await running.upstream(None).get(path)
                assert status in {200, 401} or template.endswith("openapi.json"), (template, body)
            if method not in MANAGEMENT_METHODS:
                continue
            body_is = operations[method].get("requestBody")
            for bad in BODIES if body_is else []:
                if bad.name == "empty" and not body_is.get("required", False):
                    continue
                status, body = await running.manage.call(method.upper(), path, bad.body)
                assert 400 <= status < 500, (method, template, bad.name, body)
                assert is_clear(body), (method, template, bad.name, body)
            checked += 1
    assert checked > 15
    status, body = await running.manage.call("DELETE", "/api/v2/projects/walked")
    assert status == 204, body


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
