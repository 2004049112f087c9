"""F01, F02: the authority is killed again and again while clients write; each write has its effect once.

The clients send each write with its own Idempotency-Key until it is answered. Afterwards the answers, the audit log and
its chain, the change log and what the stream replays all tell of the same writes.
"""

import asyncio
import random
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.faults.pair import Pair
from tests.stack import Client, new_session, until

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

WRITES = 500
CLIENTS = 8
KILLS = 8
DEADLINE_S = 120


@dataclass(frozen=True)
class Write:
    """One write, and the audit entry that it is to leave: its action, and what the entry says of this write alone."""

    number: int
    method: str
    path: str
    body: Any
    status: int
    action: str

    @property
    def key(self) -> str:
        return f"write-{self.number}-5d1f4c"


@dataclass
class Answered:
    """The answers by number of their write, and how often one came from the record."""

    answers: dict[int, Any] = field(default_factory=dict)
    replayed: int = 0


def writes(project: str, flag_path: str, environment: str) -> Iterator[Write]:
    """Yield writes of which each would show if it had its effect twice, or could not be done twice."""
    for number in range(WRITES):
        match number % 5:
            case 0:
                body: Any = {"key": f"made-{number}", "name": f"Made {number}"}
                yield Write(number, "POST", f"{project}/flags", body, 201, "flag.created")
            case 1:
                # Without a side it switches to the other one: twice is nothing.
                body = {"environment": environment, "reason": f"write {number}"}
                yield Write(number, "POST", f"{flag_path}:toggle", body, 200, "flag.toggled")
            case 2:
                body = {"name": f"Name {number}"}
                yield Write(number, "PATCH", flag_path, body, 200, "flag.updated")
            case 3:
                body = {"name": f"key {number}", "scopes": ["flags:read"]}
                yield Write(number, "POST", "/api/v2/tokens", body, 201, "token.created")
            case _:
                # What is to be deleted is made beforehand.
                yield Write(number, "DELETE", f"{project}/flags/doomed-{number}", None, 204, "flag.deleted")


class Writer:
    """Sends writes until they are answered, whatever becomes of the authority meanwhile."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str, token: str) -> None:
        self._session = session
        self._base_url = base_url
        self._token = token
        self.answered = Answered()

    async def send(self, write: Write) -> None:
        """Send one write until its answer is there."""
        headers = {"Authorization": f"Bearer {self._token}", "Idempotency-Key": write.key}
        while True:
            try:
                async with self._session.request(
                    write.method, self._base_url + write.path, json=write.body, headers=headers
                ) as reply:
                    raw = await reply.read()
                    # 409: the request that nobody waits for any more is still under way.
                    if reply.status not in {409, 503}:
                        assert reply.status == write.status, (write, raw)
                        self.answered.answers[write.number] = await reply.json() if raw else None
                        self.answered.replayed += reply.headers.get("Idempotent-Replayed") == "true"
                        return
            except (aiohttp.ClientError, ConnectionError):
                pass
            await asyncio.sleep(0.02)


@pytest_asyncio.fixture(loop_scope="session")
async def alone(tmp_path: Path) -> AsyncIterator[Pair]:
    """The demo installation with its upstream alone."""
    async with new_session() as session:
        pair = Pair(tmp_path, session=session)
        try:
            pair.main = pair.together()
            await pair.ready()
            pair.main.stop()
            pair.start_upstream()
            await pair.upstream_ready()
            yield pair
        finally:
            await pair.close()


async def killed_at_random(pair: Pair, writer: Writer, chance: random.Random) -> None:
    """Kill the authority at random moments, and start it again."""
    answers = writer.answered.answers
    for kill in range(KILLS):
        at = (kill + 1) * WRITES // (KILLS + 1)

        async def reached(at: int = at) -> bool:
            return len(answers) >= at

        await until(f"{at} writes answered", reached, DEADLINE_S)
        await asyncio.sleep(chance.uniform(0, 0.05))
        await pair.kill_upstream()
        pair.start_upstream()
        await pair.upstream_ready()


async def test_five_hundred_writes_under_kills_have_their_effect_once(alone: Pair) -> None:
    """Every retry finds its result, revisions are dense, the audit chain verifies."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # noqa: T201 - to see it again with the same kills
    pair = alone
    assert pair.session is not None
    demo = pair.demo
    planned = list(writes(pair.project_path, pair.flag_path, demo["environment"]))
    for write in planned:
        if write.action == "flag.deleted":
            key = write.path.rpartition("/")[2]
            status, body = await pair.manage.post(f"{pair.project_path}/flags", {"key": key})
            assert status == 201, body
    before, start = await entries(pair.manage), await position(pair)
    writer = Writer(pair.session, pair.upstream_url, demo["token"])
    waiting = iter(planned)

    async def client() -> None:
        for write in waiting:
            await writer.send(write)

    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(killed_at_random(pair, writer, random.Random(seed)), *(client() for _ in range(CLIENTS)))
    assert len(writer.answered.answers) == WRITES
    print(f"{writer.answered.replayed} answers came from the record")  # noqa: T201 - what the kills have hit

    made = (await entries(pair.manage))[: -len(before) or None]
    check_effects(planned, made)
    for number in (write.number for write in planned if write.action == "token.created"):
        token = writer.answered.answers[number]["token"]
        status, _ = await Client(pair.session, pair.upstream_url, token).get(pair.flag_path)
        assert status == 200, number
    await check_repetitions(writer, planned)
    assert len(await entries(pair.manage)) == len(before) + WRITES
    await check_revisions(pair, start)
    check_chain(pair)


async def entries(manage: Client) -> list[Any]:
    """Return the whole audit log, newest first."""
    found: list[Any] = []
    while True:
        status, page = await manage.get(f"/api/v2/audit?limit=100&offset={len(found)}")
        assert status == 200, page
        found += page["data"]
        if not page["has_more"]:
            return found


def check_effects(planned: list[Write], made: list[Any]) -> None:
    """Each write left one audit entry, which names it, and nothing else left any."""
    assert len(made) == len(planned)
    told = [told_of(entry) for entry in made]
    assert sorted(told) == sorted(told_by(write) for write in planned)


def told_of(entry: Any) -> tuple[str, str]:
    """Return what an audit entry tells of the write that made it."""
    after = {change["path"]: change["after"] for change in entry["changes"]}
    match entry["action"]:
        case "flag.toggled":
            return entry["action"], entry["reason"]
        case "flag.deleted" | "flag.created":
            return entry["action"], entry["target"]["key"]
        case _:
            return entry["action"], after["name"]


def told_by(write: Write) -> tuple[str, str]:
    """Return what the audit entry of a write is to tell."""
    if write.action == "flag.deleted":
        return write.action, write.path.rpartition("/")[2]
    member = {"flag.toggled": "reason", "flag.created": "key"}.get(write.action, "name")
    return write.action, write.body[member]


async def check_repetitions(writer: Writer, planned: list[Write]) -> None:
    """Every write, sent once more, is answered from the record as it was answered then."""
    first, writer.answered = writer.answered, Answered()
    for write in planned:
        await writer.send(write)
    assert writer.answered.replayed == WRITES
    assert writer.answered.answers == first.answers


async def position(pair: Pair) -> tuple[str, int]:
    """Return where a follower of the demo environment stands now: the id to resume with, and the revision."""
    async with pair.upstream("server_key").stream("/api/v2/stream") as stream:
        snapshot = await stream.next_named("snapshot")
    assert snapshot.id is not None
    return snapshot.id, snapshot.data["revision"]


async def check_revisions(pair: Pair, start: tuple[str, int]) -> None:
    """The change log holds every revision up to each head, and the stream replays those of the test, one by one."""
    with closing(sqlite3.connect(f"file:{pair.data_dir / 'halyard.db'}?mode=ro", uri=True)) as database:
        for environment, head in database.execute("SELECT id, revision FROM environments").fetchall():
            query = "SELECT revision FROM change_log WHERE environment_id = ? ORDER BY revision"
            revisions = [revision for (revision,) in database.execute(query, (environment,))]
            assert revisions == list(range(revisions[0], head + 1)), environment
    last_id, reached = start
    _, head = await position(pair)
    assert head > reached + WRITES // 5
    async with pair.upstream("server_key").stream("/api/v2/stream", last_id) as stream:
        while reached < head:
            change = (await stream.next_named("changes")).data
            assert (change["from"], change["to"]) == (reached, reached + 1)
            reached += 1


def check_chain(pair: Pair) -> None:
    """`halyard upstream audit verify` has nothing to name."""
    halyard = str(Path(sys.executable).parent / "halyard")
    command = [halyard, "upstream", "audit", "verify", "--data-dir", str(pair.data_dir)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "intact" in done.stdout
