"""Every route of the OpenAPI document and every way to send it something wrong: a 4xx problem that names the fault."""

from dataclasses import dataclass
from itertools import cycle
from typing import Any

import pytest

from tests.upstream.management import Template, World
from upstream.api.docs_page import page
from upstream.api.document import OPEN_PATHS

NAMES = {"p": "shop", "e": "production", "f": "checkout", "s": "testers"}
READS_BY_POST = ("/api/v2/explain",)
WRITE_BYTES, IMPORT_BYTES = 262_144, 16_777_216
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Route:
    """One operation of the document."""

    method: str
    template: str
    takes_body: bool
    ids: dict[str, str]

    @property
    def path(self) -> str:
        path = self.template
        for name, value in NAMES.items():
            path = path.replace("{" + name + "}", value)
        resource = self.template.split("/")[3]
        return path.replace("{id}", self.ids.get(resource, UNKNOWN_ID))

    @property
    def is_open(self) -> bool:
        return self.template in OPEN_PATHS


@pytest.fixture(scope="session")
def routes(populated_database: Template) -> list[Route]:
    """Every operation of the document."""
    found = [
        Route(method.upper(), template, "requestBody" in operation, populated_database.ids)
        for template, operations in populated_database.document["paths"].items()
        for method, operation in operations.items()
    ]
    assert len(found) > 45
    return found


@pytest.fixture(scope="session")
def writes(routes: list[Route]) -> list[Route]:
    """Those that take a body."""
    found = [route for route in routes if route.takes_body]
    assert len(found) > 20
    return found


def nested(depth: int) -> bytes:
    return b'{"name":' + b"[" * depth + b"]" * depth + b"}"


MALFORMED = {
    "malformed": b'{"name":',
    "not JSON at all": b"name=x",
    "not a number": b'{"name":NaN}',
    "infinity": b'{"name":1e999}',
    "lone surrogate": b'{"name":"\\ud800"}',
    "not UTF-8": b'{"name":"\xff"}',
    "UTF-16": '{"name":"x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"name":"x"}',
    "duplicate key": b'{"name":"x","name":"y"}',
    "integer beyond 64 bits": b'{"name":18446744073709551616}',
    "too deep": nested(40),
    "far too deep": nested(100_000),
    "two documents": b'{"name":"x"}{}',
    "blank": b" \n",
}
NO_OBJECTS = {"list": b"[]", "text": b'"x"', "number": b"1", "null": b"null", "true": b"true"}
UNKNOWN_FIELD = {"nonsense_field": 1, "\u0000": 2, "x" * 10_000: 3}


async def test_malformed_bodies_are_400_on_every_write(world: World, writes: list[Route]) -> None:
    """What is no JSON document is a 400 with the reason, on every write."""
    for route in writes:
        for name in ("malformed", "not a number", "lone surrogate", "duplicate key"):
            reply = await world.owner.call(route.method, route.path, MALFORMED[name])
            assert (reply.status, reply.code) == (400, "malformed_json"), (route, reply.raw)


async def test_everything_malformed_is_400(world: World) -> None:
    """Everything that is no JSON document, or that parsers disagree about, is a 400 with the reason."""
    for name, raw in MALFORMED.items():
        reply = await world.owner.post("/api/v2/projects", raw)
        assert (reply.status, reply.code) == (400, "malformed_json"), (name, reply.raw)


async def test_bodies_that_are_no_objects_are_422(world: World, writes: list[Route]) -> None:
    """A JSON document that is no object is a 422 on every write."""
    for route, raw in zip(writes, cycle(NO_OBJECTS.values()), strict=False):
        reply = await world.owner.call(route.method, route.path, raw)
        assert (reply.status, reply.code) == (422, "invalid_body"), (route, reply.raw)
        assert reply.body["errors"] == {"": ["This must be an object."]}


async def test_unknown_fields_are_422_on_every_write(world: World, writes: list[Route]) -> None:
    """Each unknown field is named, shortened where it is long."""
    for route in writes:
        reply = await world.owner.call(route.method, route.path, UNKNOWN_FIELD)
        assert (reply.status, reply.code) == (422, "invalid_body"), (route, reply.raw)
        assert {"nonsense_field", "x" * 64 + "…"} <= set(reply.body["errors"])
        assert len(reply.raw) < 5_000


async def test_wrong_types_are_422_on_every_write(
    world: World, writes: list[Route], populated_database: Template
) -> None:
    """Every field that has a value of the wrong type is named, all of them in one answer."""
    document = populated_database.document
    checked = 0
    for route in writes:
        body = document["paths"][route.template][route.method.lower()]["requestBody"]
        reference = body["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        members = schema.get("properties", {})
        wrong = {
            name: "x" if member.get("type") == "number" else 1.5
            for name, member in members.items()
            if {"type", "anyOf", "$ref"} & member.keys()
        }
        if wrong:
            reply = await world.owner.call(route.method, route.path, wrong)
            assert (reply.status, reply.code) == (422, "invalid_body")
            assert set(reply.body["errors"]) == {*wrong, *schema.get("required", ())}, route
            checked += len(wrong)
    assert checked > 80


async def test_long_bodies_are_413_and_not_read_to_the_end(world: World, writes: list[Route]) -> None:
    """A body over its limit is refused by its announced length, or as soon as more has come, and never kept whole."""
    for route in writes:
        limit = IMPORT_BYTES if route.template.endswith("import") else WRITE_BYTES
        announced = {"Content-Length": str(limit + 1)}
        reply = await world.owner.call(route.method, route.path, headers=announced, receive=_must_not_be_called)
        assert (reply.status, reply.code) == (413, "body_too_long")
        endless = _Endless()
        reply = await world.owner.call(route.method, route.path, receive=endless)
        assert (reply.status, reply.code) == (413, "body_too_long")
        assert endless.sent == limit / 65_536 + 1


async def _must_not_be_called() -> dict[str, Any]:
    raise AssertionError("the body was read")


class _Endless:
    """A body of 64 KiB parts without end."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self) -> dict[str, Any]:
        self.sent += 1
        return {"type": "http.request", "body": b" " * 65_536, "more_body": True}


async def test_other_media_types_and_encodings_are_415(world: World, writes: list[Route]) -> None:
    """A body that says it is something else than plain JSON is a 415."""
    for route in writes:
        form = await world.owner.call(route.method, route.path, b"{}", headers={"Content-Type": "text/plain"})
        assert (form.status, form.code) == (415, "unsupported_media_type")
    gzip = await world.owner.post("/api/v2/projects", b"{}", Content_Encoding="gzip")
    assert (gzip.status, gzip.code) == (415, "unsupported_encoding")


NO_KEYS = ("nonsense", "", "a.b.c", "é\x80", "hal_token_" + "0" * 38, "hal_token_0", "hal_")


async def test_without_a_valid_key_nothing_is_read(world: World, routes: list[Route]) -> None:
    """No key, or one that is none, is a 401 on every route but signing in, before any body is read."""
    for route, key in zip(routes, cycle(NO_KEYS), strict=False):
        if route.is_open:
            continue
        none = await world.nobody.call(route.method, route.path, receive=_must_not_be_called)
        assert (none.status, none.code) == (401, "key_missing"), (route, none.raw)
        wrong = {"Authorization": f"Bearer {key}"}
        reply = await world.nobody.call(route.method, route.path, headers=wrong, receive=_must_not_be_called)
        assert (reply.status, reply.code) == (401, "key_malformed"), (route, reply.raw)
        assert reply.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("kind", ["server", "client", "relay"])
async def test_environment_keys_open_no_management_route(world: World, routes: list[Route], kind: str) -> None:
    """A key of an application is a 403 that says what to use instead, on every route."""
    for route in routes:
        if not route.is_open:
            reply = await world.caller(kind).call(route.method, route.path, receive=_must_not_be_called)
            assert (reply.status, reply.code) == (403, "key_kind"), (route, reply.raw)


async def test_another_organisations_things_are_404(world: World, routes: list[Route]) -> None:
    """Every route below a project of another organisation is a 404, by its key and by its id alike."""
    lab = (await world.caller("rival").shown("/api/v2/projects/lab"))["id"]
    below = [route for route in routes if "{p}" in route.template]
    assert len(below) > 25
    for route, reference in zip(below, cycle(("lab", lab)), strict=False):
        path = route.path.replace("/shop", f"/{reference}").replace("checkout", "secret")
        reply = await world.api.call(route.method, path, {})
        assert (reply.status, reply.code) == (404, "project_not_found"), (route, reply.raw)


async def test_projects_that_a_token_is_not_for_are_403(world: World, routes: list[Route]) -> None:
    """A token limited to other projects is refused on every route below a project, if not for its scope."""
    for route in routes:
        if "{p}" in route.template:
            reply = await world.caller("limited").call(route.method, route.path, {})
            assert reply.status == 403, (route, reply.raw)
            assert reply.code in {"wrong_project", "permission_denied"}


async def test_reading_tokens_change_nothing(world: World, routes: list[Route]) -> None:
    """A token with flags:read is a 403 on every route that is no GET, before any body is read."""
    for route in routes:
        if route.method != "GET" and "/auth/" not in route.path and route.template not in READS_BY_POST:
            reply = await world.caller("read").call(route.method, route.path, receive=_must_not_be_called)
            assert (reply.status, reply.code) == (403, "permission_denied"), (route, reply.raw)


HOSTILE = ("\x00", "..", "x" * 300, "é", "'; DROP TABLE flags; --", "{f}", "a b", "0", "-1", "\ufffd", "a:toggle")


async def test_strange_references_are_404(world: World, routes: list[Route]) -> None:
    """Whatever stands where an id or key belongs is a 404, or a fault of the rest of the request, never a 5xx."""
    for route, reference in zip((r for r in routes if "{" in r.template), cycle(HOSTILE), strict=False):
        path = route.template
        for name in (*NAMES, "id"):
            path = path.replace("{" + name + "}", reference)
        reply = await world.api.call(route.method, path, {})
        assert reply.status in {404, 405, 422}, (route, reply.raw)
    for reference in HOSTILE:
        reply = await world.api.get(f"/api/v2/projects/shop/flags/{reference}")
        assert (reply.status, reply.code) == (404, "flag_not_found"), reply.raw


BAD_QUERIES = {
    "limit=0": "limit",
    "limit=-1": "limit",
    "limit=x": "limit",
    "limit=1e3": "limit",
    "offset=-1": "offset",
    "offset=99999999999999999999": "offset",
    "page=0": "page",
    "dir=sideways": "dir",
    "sort=password_hash": "sort",
    "search=" + "x" * 201: "search",
}


async def test_bad_list_parameters_are_422(world: World) -> None:
    """A parameter that cannot be used is a 422 that names it, on every list."""
    for path, (query, name) in [
        *((LISTS[0], item) for item in BAD_QUERIES.items()),
        *((path, ("sort=password_hash&limit=5", "sort")) for path in LISTS),
    ]:
        reply = await world.api.get(f"{path}?{query}")
        assert (reply.status, reply.code) == (422, "invalid_parameters"), (path, reply.raw)
        assert list(reply.body["errors"]) == [name]


LISTS = (
    "/api/v2/projects",
    "/api/v2/projects/shop/environments",
    "/api/v2/projects/shop/flags",
    "/api/v2/projects/shop/segments",
    "/api/v2/projects/shop/schedules",
    "/api/v2/projects/shop/change-requests",
    "/api/v2/projects/shop/audit",
    "/api/v2/keys",
    "/api/v2/tokens",
    "/api/v2/members",
)


async def test_lists_have_one_shape(world: World) -> None:
    """Every list answers data, total, limit, offset and has_more; a limit over 100 is taken as 100."""
    for path in LISTS:
        body = await world.api.shown(f"{path}?limit=1000&search=nothing-like-it")
        assert body == {"data": [], "total": 0, "limit": 100, "offset": 0, "has_more": False}, path


def test_the_document_has_no_loose_ends(populated_database: Template) -> None:
    """Each reference in the OpenAPI document leads somewhere, and operation ids are unique."""
    document = populated_database.document
    for reference in _references(document):
        part: Any = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    ids = [operation["operationId"] for operations in document["paths"].values() for operation in operations.values()]
    assert len(ids) == len(set(ids))


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for inner in part.values() for found in _references(inner)]
    return [found for inner in part for found in _references(inner)] if isinstance(part, list) else []


def test_the_docs_page_shows_every_route_and_loads_nothing(populated_database: Template, routes: list[Route]) -> None:
    """The page names every path and refers to nothing outside, so that it works offline."""
    shown = page(populated_database.document)
    assert all(route.template in shown for route in routes)
    assert "//" not in shown
    assert "<script" not in shown
