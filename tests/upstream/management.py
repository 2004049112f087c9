"""The management API in process, on a real database: two organisations, callers, a clock to turn."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from argon2 import PasswordHasher
from fastapi import FastAPI

from relay.metrics import RelayMetrics
from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, url_of
from tests.upstream.honest import honest
from tests.upstream.rig import SeededEntropy, make_template
from upstream.api.accounts import SetupToken
from upstream.api.app import SignInLimits, connected, create_api
from upstream.api.passwords import Passwords
from upstream.authority import Authority
from upstream.domain.access_commands import (
    CreateKey,
    CreateMember,
    CreateOrganisation,
    CreateToken,
)
from upstream.domain.commands import (
    Command,
    CreateFlag,
    CreateProject,
    CreateSegment,
)
from upstream.domain.entities import CredentialKind, FlagType, Role
from upstream.domain.permissions import SCOPES, system_actor
from upstream.settings import UpstreamSettings
from upstream.storage.database import Database

EMAIL, PASSWORD = "owner@acme.example", "correct horse battery"
SIGNING_KEY = "k" * 32
P = "/api/v2/projects/shop"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return orjson.loads(self.raw)

    @property
    def code(self) -> str:
        """The code of a problem, after checking that it is one in every respect."""
        assert self.headers["content-type"] == "application/problem+json", self.raw
        body = self.body
        assert {"type", "title", "status", "code", "detail", "request_id"} <= set(body)
        assert body["status"] == self.status
        assert body["request_id"] == self.headers["x-request-id"]
        assert body["detail"]
        return str(body["code"])


@dataclass
class Caller:
    """Sends requests with one credential; `address` is where they seem to come from.

    Every answer of the management API is held against the OpenAPI document (`tests.upstream.honest`).
    """

    app: FastAPI
    key: str | None
    address: str = "192.0.2.1"

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        receive: Callable[[], Any] | None = None,
    ) -> Reply:
        parts = urlsplit(path)
        raw = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.send(method, parts.path, parts.query, raw, headers=headers, receive=receive)

    async def send(
        self,
        method: str,
        path: str,
        query: str,
        raw: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        receive: Callable[[], Any] | None = None,
    ) -> Reply:
        """Send a request whose path is as a server hands it on, unquoted, and may hold anything."""
        fields = {name.lower(): value for name, value in (headers or {}).items()}
        if raw:
            fields.setdefault("content-type", "application/json")
        if self.key is not None:
            fields.setdefault("authorization", f"Bearer {self.key}")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in fields.items()],
            "client": (self.address, 50_000),
            "server": ("127.0.0.1", 8700),
            "state": {},
        }
        sent: list[Any] = []

        async def whole_body() -> dict[str, Any]:
            return {"type": "http.request", "body": raw, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive or whole_body, send)
        headers_out = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        reply = Reply(sent[0]["status"], headers_out, b"".join(message.get("body", b"") for message in sent[1:]))
        if isinstance(self.app, FastAPI):  # not the whole upstream, which has the relay's routes before it
            honest(self.app).check(method, path, reply.status, headers_out.get("content-type", ""), reply.raw)
        return reply

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.call("GET", path, headers=_dashed(headers))

    async def post(self, path: str, body: object = None, **headers: str) -> Reply:
        return await self.call("POST", path, body, headers=_dashed(headers))

    async def patch(self, path: str, body: object, **headers: str) -> Reply:
        return await self.call("PATCH", path, body, headers=_dashed(headers))

    async def delete(self, path: str, **headers: str) -> Reply:
        return await self.call("DELETE", path, headers=_dashed(headers))

    async def made(self, path: str, body: object) -> Any:
        """Create something and return it."""
        reply = await self.post(path, body)
        assert reply.status == 201, reply.raw
        return reply.body

    async def shown(self, path: str) -> Any:
        """Return what is at a path."""
        reply = await self.get(path)
        assert reply.status == 200, reply.raw
        return reply.body


def _dashed(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Wakes:
    """A waker that notes what it is told."""

    woken: list[tuple[str, int | None]] = field(default_factory=list)

    def wake(self, environment_id: str, revision: int | None) -> None:
        self.woken.append((environment_id, revision))


@dataclass
class World:
    """Acme with the project `shop`, Rival with `lab`; raw tokens by what they are good for.

    `ids` are those of a key, a token and a member of Acme, by the part of the path below which they are found.
    """

    app: FastAPI
    authority: Authority
    database: Database
    clock: FakeClock
    metrics: RelayMetrics
    acme: str
    rival: str
    keys: dict[str, str]
    ids: dict[str, str]

    def caller(self, key: str | None) -> Caller:
        """Return a caller by the name of a key in `keys`, or without one."""
        return Caller(self.app, None if key is None else self.keys[key])

    @property
    def api(self) -> Caller:
        """Somebody of Acme who may do everything."""
        return self.caller("all")

    @property
    def owner(self) -> Caller:
        """Olga, signed in; for an hour of the clock."""
        return self.caller("owner")

    @property
    def nobody(self) -> Caller:
        return self.caller(None)

    async def do(self, command: Command, organisation_id: str | None = None) -> Any:
        return await self.authority.execute(command, system_actor(organisation_id or self.acme))

    async def sign_in(self, email: str = EMAIL, password: str = PASSWORD) -> Any:
        reply = await self.nobody.post("/api/v2/auth/login", {"email": email, "password": password})
        assert reply.status == 200, reply.raw
        return reply.body


async def _populate(world: World) -> None:
    hashed = CHEAP.hash(PASSWORD)
    await world.do(CreateMember(email=EMAIL, name="Olga", role=Role.OWNER, password_hash=hashed))
    vera = await world.do(CreateMember(email="vera@acme.example", role=Role.VIEWER, password_hash=hashed))
    world.ids["members"] = vera.entity.id
    world.keys["owner"] = (await world.sign_in())["access_token"]
    for name, scopes in {"all": SCOPES, "read": ("flags:read",), "write": ("flags:write",)}.items():
        token = await world.do(CreateToken(name=name, scopes=scopes))
        world.keys[name], world.ids["tokens"] = token.secret, token.entity.id
    await world.do(CreateProject(name="Other", key="other"))
    limited = CreateToken(name="limited", scopes=("flags:write", "keys:write", "audit:read"), projects=["other"])
    world.keys["limited"] = (await world.do(limited)).secret
    for kind in (CredentialKind.SERVER, CredentialKind.CLIENT):
        made = await world.do(CreateKey(kind=kind, project="shop", environment="production"))
        world.keys[str(kind)], world.ids["keys"] = made.secret, made.entity.id
    world.keys["relay"] = (await world.do(CreateKey(kind=CredentialKind.RELAY))).secret
    await world.do(CreateFlag(project="shop", key="checkout", name="Checkout", type=FlagType.BOOLEAN))
    await world.do(CreateSegment(project="shop", key="testers", name="Testers", include=["ada"]))
    await world.do(CreateProject(name="Lab", key="lab"), world.rival)
    await world.do(CreateFlag(project="lab", key="secret", name="Secret", type=FlagType.BOOLEAN), world.rival)
    world.keys["rival"] = (await world.do(CreateToken(name="rival", scopes=SCOPES), world.rival)).secret


@dataclass(frozen=True)
class Template:
    """A populated database, to be copied, and what only its maker knows of it."""

    path: Path
    acme: str
    rival: str
    keys: dict[str, str]
    ids: dict[str, str] = field(default_factory=dict)
    app: FastAPI | None = None
    document: Any = None


async def populated(folder: Path) -> Template:
    """Make the template."""
    empty = make_template(folder / "template.db")
    database = Database(url_of(empty))
    acme: str = await database.read(lambda c: c.exec_driver_sql("SELECT id FROM organisations").scalar_one())
    async with _opened(Template(empty, acme, "", {}), empty, seed=7) as world:
        founded = await world.do(CreateOrganisation(name="Rival"))
        world.rival = founded.entity.id
        await _populate(world)
        document = await world.nobody.shown("/api/v2/openapi.json")
    database.close()
    return Template(empty, acme, world.rival, world.keys, world.ids, world.app, document)


@asynccontextmanager
async def open_world(
    template: Template,
    folder: Path,
    tries: SignInLimits | None = None,
    setup: SetupToken | None = None,
    *,
    seed: int = 8,
) -> AsyncIterator[World]:
    """Open a copy of the template; with another seed than the template's, or new things get the ids of old ones."""
    async with _opened(template, Path(copy_of(template.path, folder)), seed=seed, tries=tries, setup=setup) as world:
        yield world


@asynccontextmanager
async def _opened(
    template: Template,
    path: Path,
    *,
    seed: int,
    tries: SignInLimits | None = None,
    setup: SetupToken | None = None,
) -> AsyncIterator[World]:
    clock, metrics = FakeClock(), RelayMetrics()
    database = Database(url_of(path))
    authority = Authority(database, clock, SeededEntropy(seed), Wakes())
    passwords = Passwords(CHEAP)
    try:
        parts: dict[str, Any] = {
            "authority": authority,
            "database": database,
            "clock": clock,
            "settings": UpstreamSettings(),
            "signing_key": SIGNING_KEY,
            "metrics_of": metrics,
            "passwords": passwords,
        }
        # Building routes is most of what a test would cost, so one app serves all of them, one after the other.
        app = template.app or create_api(**parts)
        app.state.services = connected(**parts, setup=setup, tries=tries)
        yield World(
            app,
            authority,
            database,
            clock,
            metrics,
            template.acme,
            template.rival,
            dict(template.keys),
            dict(template.ids),
        )
    finally:
        passwords.close()
        database.close()
