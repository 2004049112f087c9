"""The access matrix: every route that the router knows, asked by everybody, for one's own things and for strangers'.

`NEEDED` says what each route needs, and a route that is missing there fails by name: add a row when you add a route.
What each caller must get follows from that and from `upstream.domain.permissions`. Writes are sent with a body that is
no JSON and `dry_run=1`, so that what is permitted ends as a 4xx or in nothing. Where a request must be refused, reading
its body would fail the test: scope comes first, then the place, then the body.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import Connection, select

from relay.protocol.changes import Snapshot
from relay.protocol.keys import Kind
from relay.serve.access import Access
from relay.sync.store import Store
from tests.upstream.management import CHEAP, PASSWORD, Caller, Reply, Template, World, open_world
from upstream.app import relay_routes
from upstream.domain.access_commands import (
    CreateMember,
    CreateToken,
    RevokeToken,
)
from upstream.domain.entities import Role
from upstream.domain.permissions import BY_ROLE, BY_SCOPE, SCOPES, Action
from upstream.ingest import Ingest
from upstream.settings import UpstreamLimits
from upstream.storage import tables
from upstream.storage.history import read_snapshot

V2 = "/api/v2"
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"


class Anybody(Enum):
    """Who may use a route that needs no permission."""

    OPEN = "everybody, without a credential too"
    SIGNED_IN = "every member and every API token"
    PERSON = "every member who has signed in, and no API token"


Needed: TypeAlias = Action | tuple[Action, ...] | Anybody | frozenset[Kind]
OPEN, SIGNED_IN, PERSON = Anybody.OPEN, Anybody.SIGNED_IN, Anybody.PERSON
READ, WRITE, REMOVE, MANAGE = (
    Action.FLAGS_READ,
    Action.FLAGS_WRITE,
    Action.FLAGS_DELETE,
    Action.PROJECTS_WRITE,
)

# Methods and path below /api/v2 -> what it needs; a tuple needs all of them, a set of kinds is for keys of these alone.
NEEDED: dict[str, Needed] = {
    "GET /openapi.json": OPEN,
    "GET /docs": OPEN,
    "POST /auth/login": OPEN,
    "POST /auth/refresh": OPEN,
    "POST /auth/setup": OPEN,
    "POST /auth/accept": OPEN,
    "POST /auth/logout": PERSON,
    "POST /auth/password": PERSON,
    "GET /auth/me": SIGNED_IN,
    "PATCH /auth/me": PERSON,
    "GET /organisation": SIGNED_IN,
    "PATCH /organisation": Action.ORGANISATION_WRITE,
    "GET /projects": READ,
    "POST /projects:import": (MANAGE, WRITE),
    "GET /projects/{p}/export": READ,
    "POST /projects/{p}/import": WRITE,
    "GET /projects/{p}/stale-flags": READ,
    "POST /explain": READ,
    "POST /projects": MANAGE,
    "GET /projects/{p}": READ,
    "PUT PATCH DELETE /projects/{p}": MANAGE,
    "GET /projects/{p}/environments": READ,
    "POST /projects/{p}/environments": MANAGE,
    "POST /projects/{p}/environments:reorder": MANAGE,
    "GET /projects/{p}/environments/{e}": READ,
    "PUT PATCH DELETE /projects/{p}/environments/{e}": MANAGE,
    "POST /projects/{p}/environments/{e}:clone": MANAGE,
    "GET /projects/{p}/flags": READ,
    "POST /projects/{p}/flags": WRITE,
    "GET /projects/{p}/flags/{f}": READ,
    "PUT PATCH /projects/{p}/flags/{f}": WRITE,
    "DELETE /projects/{p}/flags/{f}": REMOVE,
    "POST /projects/{p}/flags/{f}:archive": WRITE,
    "POST /projects/{p}/flags/{f}:restore": WRITE,
    "POST /projects/{p}/flags/{f}:toggle": WRITE,
    "POST /projects/{p}/flags/{f}:kill": WRITE,
    "GET /projects/{p}/flags/{f}/environments": READ,
    "GET /projects/{p}/flags/{f}/environments/{e}": READ,
    "PUT PATCH /projects/{p}/flags/{f}/environments/{e}": WRITE,
    "GET /projects/{p}/flags/{f}/environments/{e}/rules": READ,
    "POST /projects/{p}/flags/{f}/environments/{e}/rules": WRITE,
    "POST /projects/{p}/flags/{f}/environments/{e}/rules:reorder": WRITE,
    "GET /projects/{p}/flags/{f}/environments/{e}/rules/{id}": READ,
    "PATCH DELETE /projects/{p}/flags/{f}/environments/{e}/rules/{id}": WRITE,
    "POST /projects/{p}/flags/{f}/environments/{e}/targets:add": WRITE,
    "POST /projects/{p}/flags/{f}/environments/{e}/targets:remove": WRITE,
    "POST /projects/{p}/flags/{f}/environments/{e}:rollout": WRITE,
    "POST /projects/{p}/flags/{f}/environments/{e}:ramp": WRITE,
    "GET /projects/{p}/flags/{f}/variations": READ,
    "POST /projects/{p}/flags/{f}/variations": WRITE,
    "PATCH DELETE /projects/{p}/flags/{f}/variations/{key}": WRITE,
    "GET /projects/{p}/flags/{f}/dependencies": READ,
    "POST /projects/{p}/flags/{f}:copy": WRITE,
    "POST /projects/{p}/flags/{f}:promote": WRITE,
    "POST /projects/{p}/flags:archive": WRITE,
    "POST /projects/{p}/flags:tag": WRITE,
    "POST /projects/{p}/flags:toggle": WRITE,
    "GET /projects/{p}/groups": READ,
    "GET /projects/{p}/tags": READ,
    "GET /flag-templates": READ,
    "GET /projects/{p}/segments": READ,
    "POST /projects/{p}/segments": WRITE,
    "GET /projects/{p}/segments/{s}": READ,
    "PUT PATCH /projects/{p}/segments/{s}": WRITE,
    "DELETE /projects/{p}/segments/{s}": REMOVE,
    "GET /projects/{p}/flags/{f}/history": READ,
    "GET /projects/{p}/flags/{f}/history/{version}": READ,
    "GET /projects/{p}/flags/{f}/history:at": READ,
    "GET /projects/{p}/flags/{f}/history:compare": READ,
    "POST /projects/{p}/flags/{f}:revert": WRITE,
    "GET /projects/{p}/segments/{s}/history": READ,
    "GET /projects/{p}/segments/{s}/history/{version}": READ,
    "GET /projects/{p}/segments/{s}/history:compare": READ,
    "POST /projects/{p}/segments/{s}:revert": WRITE,
    "GET /projects/{p}/schedules": READ,
    "GET /projects/{p}/schedules/{id}": READ,
    "DELETE /projects/{p}/schedules/{id}": WRITE,
    "GET /projects/{p}/change-requests": READ,
    "GET /projects/{p}/change-requests/{id}": READ,
    "PATCH /projects/{p}/change-requests/{id}": WRITE,
    "POST /projects/{p}/change-requests/{id}:approve": WRITE,
    "POST /projects/{p}/change-requests/{id}:reject": WRITE,
    "POST /projects/{p}/change-requests/{id}:withdraw": WRITE,
    "POST /projects/{p}/change-requests/{id}:apply": WRITE,
    "GET /projects/{p}/metrics": READ,
    "GET /projects/{p}/events": READ,
    "GET /projects/{p}/audit": Action.AUDIT_READ,
    "GET /audit": Action.AUDIT_READ,
    "GET /audit:verify": Action.AUDIT_READ,
    "GET /keys": Action.KEYS_READ,
    "POST /keys": Action.KEYS_WRITE,
    "GET /keys/{id}": Action.KEYS_READ,
    "PUT PATCH DELETE /keys/{id}": Action.KEYS_WRITE,
    "POST /keys/{id}:rotate": Action.KEYS_WRITE,
    "GET /tokens": Action.KEYS_READ,
    "POST /tokens": Action.KEYS_WRITE,
    "GET /tokens/{id}": Action.KEYS_READ,
    "PUT PATCH DELETE /tokens/{id}": Action.KEYS_WRITE,
    "POST /tokens/{id}:rotate": Action.KEYS_WRITE,
    "GET /members": Action.MEMBERS_READ,
    "POST /members": Action.MEMBERS_WRITE,
    "GET /members/{id}": Action.MEMBERS_READ,
    "PUT PATCH DELETE /members/{id}": Action.MEMBERS_WRITE,
    "POST /members/{id}:invite": Action.MEMBERS_WRITE,
    "POST /members/{id}:reset-password": Action.MEMBERS_WRITE,
    "POST /ingest": frozenset({Kind.RELAY, Kind.SERVER}),
    "POST /changes": frozenset({Kind.RELAY}),
}

# What stands in a path: things of Acme's project `shop`. Others (`{id}`) are found by the resource that they belong to.
NAMES = {"p": "shop", "e": "production", "f": "checkout", "s": "testers"}


@dataclass(frozen=True)
class Route:
    """One method of one path, and what it needs."""

    method: str
    template: str
    needed: Needed
    ids: dict[str, str]

    @property
    def path(self) -> str:
        """The path of a thing that there is, as far as its kind is known here."""
        path = self._filled(NAMES, self.ids.get(self._resource, UNKNOWN_ID))
        return path if self.method == "GET" else f"{path}?dry_run=1"

    @property
    def path_to_nothing(self) -> str:
        """A path on which nothing is."""
        return self._filled(dict.fromkeys(NAMES, "nothing"), UNKNOWN_ID)

    @property
    def is_in_project(self) -> bool:
        return "{p}" in self.template

    @property
    def is_of_one(self) -> bool:
        """Whether it is about one key, token or member."""
        return "{id}" in self.template and self._resource in self.ids

    @property
    def _resource(self) -> str:
        return self.template.split("/")[1]

    def _filled(self, names: dict[str, str], other: str) -> str:
        parts = self.template
        for name, value in names.items():
            parts = parts.replace("{" + name + "}", value)
        while "{" in parts:
            parts = parts[: parts.index("{")] + other + parts[parts.index("}") + 1 :]
        return f"{V2}{parts}"

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def served(app: FastAPI) -> set[str]:
    """Return every method and path that the router knows, as `NEEDED` writes them."""
    return {
        f"{method} {context.path_format.removeprefix(V2)}"
        for context in iter_route_contexts(app.routes)
        if context.path_format is not None
        for method in context.methods or ()
        if method != "HEAD"
    }


def listed() -> dict[str, Needed]:
    """Return `NEEDED` with one method a row."""
    rows: dict[str, Needed] = {}
    for row, needed in NEEDED.items():
        *methods, template = row.split(" ")
        rows |= {f"{method} {template}": needed for method in methods}
    return rows


def _parted(name: str) -> tuple[str, str]:
    method, _, template = name.partition(" ")
    return method, template


@dataclass(frozen=True)
class Who:
    """Somebody who asks. `actions` are None for whoever is nobody here, `kind` is that of an environment key."""

    key: str | None
    actions: frozenset[Action] | None = None
    is_person: bool = False
    kind: Kind | None = None

    def refusal(self, needed: Needed) -> int | None:
        """Return with what status they are refused, whatever they ask about; None = they pass."""
        if needed is OPEN:
            return None
        if isinstance(needed, frozenset):
            return None if self.kind in needed else 403 if self.kind else 401
        if self.actions is None:
            return 403 if self.kind else 401
        if isinstance(needed, Action | tuple):
            every = needed if isinstance(needed, tuple) else (needed,)
            return None if self.actions.issuperset(every) else 403
        return None if needed is SIGNED_IN or self.is_person else 403


ROLES = {f"role-{role}": Who(f"role-{role}", BY_ROLE[role], is_person=True) for role in Role}
LONE = {f"scope-{scope}": Who(f"scope-{scope}", BY_SCOPE[scope]) for scope in SCOPES}
EVERY_SCOPE = frozenset[Action]().union(*BY_SCOPE.values())
KEYS = {f"key-{kind}": Who(str(kind), kind=kind) for kind in (Kind.SERVER, Kind.CLIENT, Kind.RELAY)}
NOBODY = {name: Who(name) for name in ("expired", "revoked", "garbage")} | {"nobody": Who(None)}
OWN = {**ROLES, **LONE, "all-scopes": Who("all", EVERY_SCOPE)}
FOREIGN = {
    "foreign-token": Who("rival", EVERY_SCOPE),
    "foreign-owner": Who("foreign-owner", BY_ROLE[Role.OWNER], is_person=True),
}
LIMITED = {
    "limited-token": Who("limited-all", EVERY_SCOPE),
    "limited-admin": Who("limited-admin", BY_ROLE[Role.ADMIN], is_person=True),
}


@dataclass(frozen=True)
class Stage:
    """The template with everybody of the matrix in it, and what is Acme's."""

    template: Template
    acme_ids: frozenset[str]
    shop_ids: frozenset[str]
    routes: list[Route] = field(default_factory=list)


@pytest.fixture(scope="session")
def stage(populated_database: Template, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Everybody, made once, in a thread because it needs a loop of its own."""
    folder = tmp_path_factory.mktemp("matrix")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(_staged(populated_database, folder))).result()


async def _staged(template: Template, folder: Path) -> Stage:
    async with open_world(replace(template, app=None), folder, seed=9) as world:
        await _add_members(world)
        await _add_tokens(world)
        world.app.include_router(await _routes_of_relays(world))
        rows = listed()
        names = sorted(served(world.app) & rows.keys())
        routes = [Route(*_parted(name), rows[name], world.ids) for name in names]
        # Signing out ends what the other requests are sent with.
        routes.sort(key=lambda route: route.template == "/auth/logout")
        acme, shop = await world.database.read(lambda c: (_ids(c, world.acme), _ids_of_project(c, "shop")))
        made = replace(template, path=folder / "halyard.db", keys=world.keys, app=world.app)
    return Stage(made, acme, shop, routes)


async def _add_members(world: World) -> None:
    hashed = CHEAP.hash(PASSWORD)

    async def add(key: str, organisation_id: str, role: Role, projects: list[str] | None = None) -> None:
        email = f"{key}@matrix.example"
        member = CreateMember(email=email, name=key, role=role, password_hash=hashed, projects=projects)
        await world.do(member, organisation_id)
        world.keys[key] = (await world.sign_in(email))["access_token"]

    for role in Role:
        await add(f"role-{role}", world.acme, role)
    await add("limited-admin", world.acme, Role.ADMIN, ["other"])
    await add("foreign-owner", world.rival, Role.OWNER)


async def _add_tokens(world: World) -> None:
    async def add(key: str, **fields: Any) -> str:
        made = await world.do(CreateToken(name=key, **{"scopes": SCOPES, **fields}))
        world.keys[key] = made.secret
        return str(made.entity.id)

    for scope in SCOPES:
        await add(f"scope-{scope}", scopes=(scope,))
    await add("limited-all", projects=["other"])
    await world.do(RevokeToken(credential=await add("revoked")))
    # A world opens at the same moment, to which this one's clock is turned back in effect; so it must be over by then.
    now_ms = world.clock.wall_ms()
    world.clock.jump_wall(-60_000)
    await add("expired", expires_at=now_ms)
    world.clock.jump_wall(60_000)
    world.keys["garbage"] = "hal_token_0"


async def _routes_of_relays(world: World) -> Any:
    def published(connection: Connection) -> list[Any]:
        ids = connection.execute(select(tables.environments.c.id)).scalars().all()
        return [read_snapshot(connection, each) for each in ids]

    store = Store(world.clock)
    for state in await world.database.read(published):
        store.apply(Snapshot(state, "start"))
    access = Access(store, world.clock, world.metrics)
    return relay_routes(access, Ingest(world.database, world.clock, UpstreamLimits()))


def _ids(connection: Connection, organisation_id: str) -> frozenset[str]:
    """Return the id of the organisation and of all that is directly its own."""
    found = {organisation_id}
    for table in (tables.members, tables.projects, tables.credentials):
        found |= set(connection.execute(select(table.c.id).where(table.c.organisation_id == organisation_id)).scalars())
    return frozenset(found)


def _ids_of_project(connection: Connection, key: str) -> frozenset[str]:
    project_id = connection.execute(select(tables.projects.c.id).where(tables.projects.c.key == key)).scalar_one()
    below = (tables.environments, tables.flags, tables.segments)
    found = [connection.execute(select(each.c.id).where(each.c.project_id == project_id)).scalars() for each in below]
    return frozenset({project_id}).union(*found)


@pytest.fixture
async def world(stage: Stage, tmp_path: Path) -> AsyncIterator[World]:
    """The API with everybody, as the stage was set."""
    async with open_world(stage.template, tmp_path) as opened:
        yield opened


async def _must_not_be_read() -> dict[str, Any]:
    raise AssertionError("the body was read")


async def refused(caller: Caller, route: Route, path: str, code: str | None = None) -> Reply:
    """Send a request that must be refused before its body is read."""
    reply = await caller.call(route.method, path, receive=_must_not_be_read)
    assert code is None or reply.code == code, (str(route), reply.raw)
    return reply


# Permitted, but not about somebody, or a key, that may do more than the caller.
BEYOND_ONES_OWN = {"role_too_high", "permission_missing"}


async def passed(caller: Caller, route: Route) -> Reply:
    """Send a request that is permitted, and must get beyond that; what is known to be there must be shown."""
    reply = await caller.call(route.method, route.path, None if route.method == "GET" else b"{")
    assert reply.status != 401, (str(route), reply.raw)
    assert reply.status != 403 or reply.code in BEYOND_ONES_OWN, (str(route), reply.raw)
    assert reply.status < 500, (str(route), reply.raw)
    if route.method == "GET" and UNKNOWN_ID not in route.path:
        # 422: a parameter is required that is not sent here.
        assert reply.status in {200, 422}, (str(route), reply.raw)
    return reply


def test_every_route_says_what_it_needs(stage: Stage) -> None:
    """Each route of the router has a row in `NEEDED`, and each row a route."""
    routes = served(_app(stage))
    missing, stale = sorted(routes - listed().keys()), sorted(listed().keys() - routes)
    assert not missing, f"add to NEEDED what is needed for: {missing}"
    assert not stale, f"take out of NEEDED what is served no more: {stale}"
    assert len(stage.routes) == len(routes) > 70


def _app(stage: Stage) -> FastAPI:
    assert stage.template.app is not None
    return stage.template.app


@pytest.mark.parametrize("name", [*OWN, *KEYS, *NOBODY])
async def test_ones_own_organisation(world: World, stage: Stage, name: str) -> None:
    """Every caller gets 401, 403 or further on every route, exactly as role, scopes or kind of key say."""
    who = {**OWN, **KEYS, **NOBODY}[name]
    caller = world.caller(who.key)
    for route in stage.routes:
        status = who.refusal(route.needed)
        if status is None:
            await passed(caller, route)
        else:
            reply = await refused(caller, route, route.path)
            wanted = {401, 403} if isinstance(route.needed, frozenset) else {status}
            assert reply.status in wanted, (str(route), reply.raw)


@pytest.mark.parametrize("name", FOREIGN)
async def test_another_organisation(world: World, stage: Stage, name: str) -> None:
    """What is Acme's is a 404 to whoever may do everything elsewhere, its body unread; lists show none of it."""
    who = FOREIGN[name]
    caller = world.caller(who.key)
    for route in stage.routes:
        if who.refusal(route.needed) is not None:
            await refused(caller, route, route.path)
        elif route.is_in_project:
            assert (await refused(caller, route, route.path, "project_not_found")).status == 404
        elif route.is_of_one:
            assert (await refused(caller, route, route.path)).status == 404, str(route)
        else:
            reply = await passed(caller, route)
            _shows_none(reply, stage.acme_ids | stage.shop_ids, route)


@pytest.mark.parametrize("name", LIMITED)
async def test_whoever_is_limited_to_another_project(world: World, stage: Stage, name: str) -> None:
    """A project beyond the limit is a 403 on every route, what reaches beyond it a 404; lists show none of it."""
    who = LIMITED[name]
    caller = world.caller(who.key)
    for route in stage.routes:
        if who.refusal(route.needed) is not None:
            await refused(caller, route, route.path)
        elif route.is_in_project:
            assert (await refused(caller, route, route.path, "wrong_project")).status == 403
        elif route.is_of_one:
            assert (await refused(caller, route, route.path)).status == 404, str(route)
        else:
            _shows_none(await passed(caller, route), stage.shop_ids, route)


def _shows_none(reply: Reply, ids: Collection[str], route: Route) -> None:
    assert not [each for each in ids if each.encode() in reply.raw], (str(route), reply.raw)


@pytest.mark.parametrize("name", LONE)
async def test_scope_comes_before_place_and_body(world: World, stage: Stage, name: str) -> None:
    """Without the scope nobody learns whether something is there: 403 for what is not, without reading a body."""
    who = LONE[name]
    for route in stage.routes:
        if isinstance(route.needed, Action) and who.refusal(route.needed):
            reply = await refused(world.caller(who.key), route, route.path_to_nothing, "permission_denied")
            assert reply.status == 403


async def test_the_place_comes_before_the_body(world: World, stage: Stage) -> None:
    """Whoever may do everything gets a 404 for a project, key, token or member that is not there, its body unread."""
    checked = 0
    for route in stage.routes:
        if route.is_in_project or route.is_of_one:
            reply = await refused(world.caller("role-owner"), route, route.path_to_nothing)
            assert reply.status == 404, (str(route), reply.raw)
            checked += 1
    assert checked > 45


async def test_the_matrix_changes_nothing(world: World, stage: Stage) -> None:
    """Every route asked by an owner leaves the database as it was, but for the end of the owner's sign-in."""

    def counts(connection: Connection) -> dict[str, int]:
        return {table.name: len(connection.execute(table.select()).all()) for table in tables.metadata.sorted_tables}

    before = await world.database.read(counts)
    for route in stage.routes:
        if ROLES["role-owner"].refusal(route.needed) is None:
            await passed(world.caller("role-owner"), route)
    assert await world.database.read(counts) == before
