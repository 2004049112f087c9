"""Makes the demo project and its credentials, once, and keeps `demo.json` beside the data.

Everything is made through the authority's commands, so the demo is as audited and streamed as anything else. What is
there already is never changed: a flag that was edited stays edited, and one that was deleted stays deleted as long as
`demo.json` says that the demo was made. Keys are kept in that file (mode 0600) because the authority only has hashes;
if it is lost, new ones are made and the old ones go on working until they are revoked.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from relay.protocol.keys import Kind
from upstream.api.passwords import Passwords
from upstream.authority import Authority, Outcome
from upstream.data_dir import write_private
from upstream.demo_project import ENVIRONMENT, FLAG, FLAGS, PROJECT, PROJECT_NAME, SEGMENTS
from upstream.domain.access_commands import (
    CreateKey,
    CreateMember,
    CreateOrganisation,
    CreateToken,
    UpdateMember,
)
from upstream.domain.commands import (
    Command,
    CreateFlag,
    CreateProject,
    CreateSegment,
)
from upstream.domain.entities import Member, Organisation, Role
from upstream.domain.permissions import SCOPES, system_actor
from upstream.first_start import is_alive
from upstream.storage.database import Database
from upstream.storage.view import StoredView

T = TypeVar("T")

FILE = "demo.json"
EMAIL = "demo@halyard.example"
ORGANISATION = "Demo"


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the services can be reached; ports may differ from start to start."""

    upstream_url: str
    relay_url: str
    relay_admin_url: str


@dataclass(frozen=True, slots=True)
class Demo:
    """What `demo.json` holds, member by member."""

    upstream_url: str
    relay_url: str
    relay_admin_url: str
    email: str
    password: str
    token: str
    server_key: str
    client_key: str
    relay_key: str
    project: str = PROJECT
    environment: str = ENVIRONMENT
    flag: str = FLAG


class Seed:
    """Carries out what is missing.

    Args:
        database: to see what is there.
        authority: to make what is not.
        passwords: to hash and check the demo account's password.
    """

    def __init__(self, database: Database, authority: Authority, passwords: Passwords) -> None:
        self._database = database
        self._authority = authority
        self._passwords = passwords
        self._organisation_id = ""

    async def plant(self, data_dir: Path, urls: Urls) -> Demo:
        """Return the demo of this directory, made or completed as far as necessary, and write `demo.json`."""
        path = data_dir / FILE
        known = read(path)
        password = known.get("password") or secrets.token_urlsafe(12)
        await self._account(password)
        await self._project(is_made=bool(known))
        demo = Demo(
            **asdict(urls),
            email=EMAIL,
            password=password,
            token=await self._key(known.get("token"), CreateToken(name="demo", scopes=SCOPES)),
            server_key=await self._key(known.get("server_key"), _environment_key(Kind.SERVER)),
            client_key=await self._key(known.get("client_key"), replace(_environment_key(Kind.CLIENT), origins=("*",))),
            relay_key=await self._key(known.get("relay_key"), CreateKey(kind=Kind.RELAY, name="demo")),
        )
        write_private(path, json.dumps(asdict(demo), indent=2) + "\n")
        return demo

    async def _account(self, password: str) -> None:
        """Make sure that the demo account exists and opens with the password."""
        member = await self._look(lambda view: view.member_by_email(EMAIL))
        if member is None:
            founded = await self._authority.execute(CreateOrganisation(name=ORGANISATION), system_actor())
            assert isinstance(founded.entity, Organisation)  # noqa: S101 - what the command makes
            self._organisation_id = founded.entity.id
            hashed = await self._passwords.hash(password)
            await self._do(CreateMember(email=EMAIL, name="Demo owner", role=Role.OWNER, password_hash=hashed))
            return
        self._organisation_id = member.organisation_id
        await self._set_password(member, password)

    async def _set_password(self, member: Member, password: str) -> None:
        if not await self._passwords.verify(member.password_hash, password):
            hashed = await self._passwords.hash(password)
            await self._do(UpdateMember(member=member.id, password_hash=hashed))

    async def _project(self, *, is_made: bool) -> None:
        """Make the project with its segments and flags; in one that was made already nothing is added again."""
        project = await self._look(lambda view: view.project(self._organisation_id, PROJECT))
        if project is None:
            await self._do(CreateProject(key=PROJECT, name=PROJECT_NAME))
        elif is_made:
            return
        commands: list[CreateSegment | CreateFlag] = [*SEGMENTS, *FLAGS]
        for command in commands:
            if not await self._look(partial(_is_there, organisation_id=self._organisation_id, command=command)):
                await self._do(command)

    async def _key(self, raw: str | None, make: CreateKey | CreateToken) -> str:
        """Return a credential: the known one if the authority knows it too, else a new one."""
        if raw is not None and await self._database.read(lambda connection: is_alive(connection, raw)):
            return raw
        secret = (await self._do(make)).secret
        assert secret is not None  # noqa: S101 - the outcome of making a credential always has it
        return secret

    async def _look(self, look: Callable[[StoredView], T]) -> T:
        return await self._database.read(lambda connection: look(StoredView(connection)))

    async def _do(self, command: Command) -> Outcome:
        return await self._authority.execute(command, system_actor(self._organisation_id, via="demo"))


def _environment_key(kind: Kind) -> CreateKey:
    return CreateKey(kind=kind, name="demo", project=PROJECT, environment=ENVIRONMENT)


def _is_there(view: StoredView, organisation_id: str, command: CreateSegment | CreateFlag) -> bool:
    project = view.project(organisation_id, PROJECT)
    if project is None or command.key is None:
        return False
    find_one = view.segment if isinstance(command, CreateSegment) else view.flag
    return find_one(project.id, command.key) is not None


def read(path: Path) -> dict[str, str]:
    """Return the texts in a `demo.json`; nothing if there is none, or it is no longer whole."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    names = {field.name for field in fields(Demo)}
    if not isinstance(found, dict) or not names <= found.keys():
        return {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def banner(demo: Demo, data_dir: Path) -> str:
    """Return what a newcomer is shown: where everything is, the keys, and a request to try."""
    return f"""
  Halyard is starting with the demo project.

    upstream      {demo.upstream_url}   API at /api/v2, its description at /api/v2/docs
    relay         {demo.relay_url}
    relay admin   {demo.relay_admin_url}   probes, metrics, status
    sign in       {demo.email}   {demo.password}
    API token     {demo.token}
    server key    {demo.server_key}
    client key    {demo.client_key}
    relay key     {demo.relay_key}
    all of it     {data_dir / FILE}

  Ask the relay for a flag:

    curl -s {demo.relay_url}/ofrep/v1/evaluate/flags/{demo.flag} \\
      -H 'Authorization: Bearer {demo.server_key}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"context": {{"targetingKey": "user-1"}}}}'

  Switch it off at the authority, and ask again:

    curl -s {demo.upstream_url}/api/v2/projects/{demo.project}/flags/{demo.flag}:toggle \\
      -H 'Authorization: Bearer {demo.token}' \\
      -H 'Content-Type: application/json' \\
      -d '{{"environment": "{demo.environment}", "enabled": false}}'

  Ctrl-C stops both.

"""
