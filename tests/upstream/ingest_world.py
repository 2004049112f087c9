"""A database with two organisations, and the routes of ingest and metrics on it, for tests of both."""

import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import orjson
from fastapi import FastAPI
from sqlalchemy import Connection

from relay.metrics import RelayMetrics
from relay.protocol.changes import Snapshot
from relay.protocol.keys import Kind, fingerprint, mint
from relay.protocol.state import EnvironmentRef, build_state
from relay.serve.access import Access
from relay.serve.guard import Guard
from relay.settings import Limits
from relay.sync.store import Store
from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, engine_at, keep, url_of
from upstream.api import errors, metrics
from upstream.api import ingest as ingest_route
from upstream.domain.entities import Credential, CredentialKind
from upstream.domain.permissions import Actor
from upstream.domain.snapshot import credential_object
from upstream.ingest import Ingest
from upstream.settings import UpstreamLimits
from upstream.storage import tables
from upstream.storage.database import Database, open_database

START_MS = 1_790_000_100_000
ORG, OTHER_ORG = "org-1", "org-2"
PROJECT, OTHER_PROJECT = "10000000-0000-4000-8000-000000000001", "10000000-0000-4000-8000-000000000002"
PRODUCTION, STAGING, FOREIGN = (f"20000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3))
CHECKOUT, DELETED = (f"30000000-0000-4000-8000-00000000000{n}" for n in (1, 2))
MAX_BYTES = 65_536


class NoEntropy:
    """Random bytes that are always the same."""

    def token(self, size: int) -> bytes:
        return b"\x07" * size


def raw_key(kind: Kind, number: int = 1) -> str:
    return mint(kind, bytes([number]) * 32)


def credential(kind: Kind, number: int = 1, **changes: Any) -> Credential:
    raw = raw_key(kind, number)
    values = {
        "id": f"credential-{kind}-{number}", "organisation_id": ORG, "kind": CredentialKind(str(kind)), "name": "key",
        "hash": fingerprint(raw), "h2": "", "hint": "", "scopes": ("flags:read",), "projects": None,
        "environments": None, "environment_id": None, "origins": (), "expires_at": None, "last_used_at": None,
        "revoked_at": None, "created_by": None, "version": 1, "created_at": 0, "updated_at": 0,
    }  # fmt: skip
    return Credential(**cast("Any", values | changes))


CREDENTIALS = (
    credential(Kind.RELAY),
    credential(Kind.RELAY, 2, environments=(STAGING,)),
    credential(Kind.RELAY, 3, organisation_id=OTHER_ORG),
    credential(Kind.SERVER, environment_id=PRODUCTION),
    credential(Kind.CLIENT, environment_id=PRODUCTION),
)


@cache
def _prepared() -> Path:
    """Return a filled database; migrating one for each test would take longer than the tests."""
    path = Path(mkdtemp(prefix="halyard-ingest-")) / "template.db"
    atexit.register(rmtree, path.parent)
    open_database(url_of(path), clock=FakeClock(START_MS), entropy=NoEntropy()).close()
    engine = engine_at(path)
    with engine.begin() as connection:
        fill(connection)
    engine.dispose()
    return keep(path)


def fill(connection: Connection) -> None:
    edited = {"version": 1, "created_at": 0, "updated_at": 0}
    connection.execute(
        tables.organisations.insert(), [{"id": name, "name": name, **edited} for name in (ORG, OTHER_ORG)]
    )
    projects = [(PROJECT, ORG, "shop"), (OTHER_PROJECT, OTHER_ORG, "foreign")]
    connection.execute(
        tables.projects.insert(),
        [{"id": key, "organisation_id": org, "key": name, "name": name, **edited} for key, org, name in projects],
    )
    environments = [
        (PRODUCTION, PROJECT, "production"), (STAGING, PROJECT, "staging"), (FOREIGN, OTHER_PROJECT, "production"),
    ]  # fmt: skip
    connection.execute(
        tables.environments.insert(),
        [
            {
                "id": key, "project_id": project, "key": name, "name": name, "sort": 0, "critical": False,
                "stream_secret": "", "secure_mode_secret": "", "revision": 1, "content_hash": "",
                "credentials_hash": "", **edited,
            }
            for key, project, name in environments
        ],
    )  # fmt: skip
    connection.execute(
        tables.flags.insert(),
        [
            {
                "id": key, "project_id": PROJECT, "key": "checkout", "name": "Checkout", "type": "boolean",
                "kind": "release", "tags": [], "metadata": {}, "is_active": True, "client_side_enabled": True,
                "analytics_enabled": True, "prerequisites": [], "variations": [], "deleted_at": deleted_at, **edited,
            }
            for key, deleted_at in ((CHECKOUT, None), (DELETED, 1))
        ],
    )  # fmt: skip
    rows = [{name: getattr(each, name) for name in Credential.__slots__} for each in CREDENTIALS]
    connection.execute(tables.credentials.insert(), rows)


@dataclass(frozen=True)
class Answer:
    """What a request was answered."""

    status: int
    headers: dict[str, str]
    body: Any


async def call(  # noqa: PLR0917 - a request has as many parts
    app: Any,
    method: str,
    path: str,
    query: str = "",
    headers: dict[str, str] | None = None,
    parts: tuple[bytes, ...] = (),
) -> Answer:
    """Send one request to an ASGI app, its body in as many parts as given."""
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "root_path": "", "scheme": "http", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("h", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()], "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], names, orjson.loads(body) if body else None)


@dataclass
class World:
    """The routes, and the database under them."""

    app: Any
    api: FastAPI
    ingest: Ingest
    database: Database
    clock: FakeClock
    actor: Actor

    async def send(
        self, records: list[Any] | bytes, batch: str = "batch-0001", key: str = raw_key(Kind.RELAY), **headers: str
    ) -> Answer:
        """Send a batch as a relay does, compressed only if the caller has done so."""
        body = records if isinstance(records, bytes) else b"\n".join(map(orjson.dumps, records))
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Authorization": f"Bearer {key}", "Batch-Id": batch, **named}
        kept = {name: value for name, value in sent.items() if value}
        middle = len(body) // 2
        return await call(self.app, "POST", "/api/v2/ingest", "", kept, (body[:middle], body[middle:]))

    async def rows(self, name: str) -> list[dict[str, Any]]:
        table = tables.metadata.tables[name]
        return await self.database.read(
            lambda connection: [dict(row) for row in connection.execute(table.select()).mappings()]
        )

    async def get(self, path: str, expected: int = 200, **query: Any) -> Any:
        answer = await call(self.app, "GET", f"/api/v2/projects/{path}", urlencode(query))
        assert answer.status == expected, answer
        return answer.body

    async def revoke(self, credential_id: str) -> None:
        table = tables.credentials
        statement = table.update().where(table.c.id == credential_id).values(revoked_at=1)
        await self.database.write(lambda connection: connection.execute(statement).rowcount)


def _store(clock: FakeClock) -> Store:
    """Return what the upstream's own evaluation plane holds: here, one environment that knows all keys."""
    store = Store(clock)
    objects = {each.id: orjson.dumps(credential_object(each, START_MS)) for each in CREDENTIALS}
    ref = EnvironmentRef(PRODUCTION, "production", "Production", PROJECT, "shop")
    store.apply(Snapshot(build_state(ref, "epoch", 1, flags={}, segments={}, credentials=objects), "start"))
    return store


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    clock, relay_metrics, limits = FakeClock(START_MS), RelayMetrics("upstream"), Limits()
    database = Database(url_of(copy_of(_prepared(), directory)))
    actor = Actor(type="member", id="m", name="m", organisation_id=ORG, scopes=frozenset({"flags:read"}))
    ingest = Ingest(database, clock, UpstreamLimits(ingest_bytes=MAX_BYTES))
    app = FastAPI()
    made = World(None, app, ingest, database, clock, actor)

    async def authenticate(_scope: Any) -> Actor:
        return made.actor

    errors.install(app)
    app.state.services = SimpleNamespace(
        database=database, clock=clock, authenticator=SimpleNamespace(authenticate=authenticate, note_refusal=print)
    )
    access = Access(_store(clock), clock, relay_metrics)
    app.include_router(ingest_route.router(access, ingest), prefix="/api/v2")
    app.include_router(metrics.router, prefix="/api/v2")
    made.app = Guard(cast("Any", app), limits, relay_metrics)
    try:
        yield made
    finally:
        database.close()
