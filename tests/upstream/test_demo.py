"""The demo is made once, completed when it was interrupted, and never overwritten."""

import json
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from relay.clock import SystemClock
from relay.engine.evaluate import evaluate_all
from relay.protocol.keys import Kind, kind_of
from relay.sync.store import Store
from tests.upstream.databases import url_of
from upstream.api.passwords import Passwords
from upstream.authority import Authority, SystemEntropy
from upstream.demo import EMAIL, FILE, Demo, Seed, Urls, banner
from upstream.demo_project import ENVIRONMENT, FLAG, FLAGS, PROJECT, SEGMENT
from upstream.domain.access_commands import (
    RevokeKey,
)
from upstream.domain.commands import (
    DeleteFlag,
    DeleteProject,
    ToggleFlag,
)
from upstream.domain.entities import Credential
from upstream.domain.permissions import SCOPES, Actor, system_actor
from upstream.notifier import Feed, Notifier
from upstream.storage import tables
from upstream.storage.database import open_database
from upstream.storage.records import find_all
from upstream.storage.view import StoredView

URLS = Urls("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")


class Place:
    """A data directory with its open database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SystemClock()
        self.database = open_database(url_of(path / "halyard.db"), clock=self.clock, entropy=SystemEntropy())
        self.authority = Authority(self.database, self.clock, SystemEntropy(), Notifier())
        self.passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))

    async def plant(self, urls: Urls = URLS) -> Demo:
        return await Seed(self.database, self.authority, self.passwords).plant(self.path, urls)

    async def actor(self) -> Actor:
        member = await self.database.read(lambda connection: StoredView(connection).member_by_email(EMAIL))
        assert member is not None
        return system_actor(member.organisation_id)

    async def flag_keys(self) -> set[str]:
        actor = await self.actor()

        def look(view: StoredView) -> set[str]:
            project = view.project(actor.organisation_id, PROJECT)
            return set() if project is None else {flag.key for flag in view.flags(project.id)}

        return await self.database.read(lambda connection: look(StoredView(connection)))

    async def credentials(self) -> list[Credential]:
        return await self.database.read(
            lambda connection: list(find_all(connection, Credential, tables.credentials.c.name == "demo"))
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Return an empty place, closed afterwards."""
    made = Place(tmp_path)
    yield made
    made.database.close()
    made.passwords.close()


async def test_first_start(place: Place) -> None:
    """demo.json names everything a script needs, is readable by its owner only, and holds working kinds of keys."""
    demo = await place.plant()
    path = place.path / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == asdict(demo)
    assert (demo.project, demo.environment, demo.flag) == (PROJECT, ENVIRONMENT, FLAG)
    kinds = [kind_of(raw) for raw in (demo.server_key, demo.client_key, demo.relay_key, demo.token)]
    assert kinds == [Kind.SERVER, Kind.CLIENT, Kind.RELAY, Kind.TOKEN]
    by_kind = {credential.kind: credential for credential in await place.credentials()}
    assert by_kind[Kind.CLIENT].origins == ("*",)
    assert set(by_kind[Kind.TOKEN].scopes) == set(SCOPES)
    assert await place.flag_keys() == {flag.key for flag in FLAGS}


async def test_every_demo_flag_evaluates(place: Place) -> None:
    """Flags of all four types serve a value without an error, and rule, segment and prerequisite do what they say."""
    await place.plant()
    store = Store(place.clock)
    await Feed(place.database, store, Notifier(), place.clock).load()
    (configuration,) = store.by_key(ENVIRONMENT)
    assert SEGMENT in configuration.environment.segments

    def values(**context: object) -> dict[str, object]:
        found = evaluate_all(configuration.environment, context, place.clock.wall_ms())
        assert all(evaluation.error_code is None for evaluation in found.values()), found
        return {key: evaluation.value for key, evaluation in found.items()}

    plain = values(targetingKey="user-1")
    assert plain[FLAG] is True
    assert {type(value) for value in plain.values()} >= {bool, str, int, dict}
    assert (plain["dark-mode"], values(targetingKey="user-1", country="AT")["dark-mode"]) == (False, True)
    assert (plain["max-upload-mb"], values(targetingKey="ada")["max-upload-mb"]) == (25, 500)
    assert plain["one-click-buy"] is True


async def test_second_start_keeps_everything_but_the_addresses(place: Place) -> None:
    """Credentials stay; flags that were edited or deleted stay so; ports may change."""
    first = await place.plant()
    actor = await place.actor()
    await place.authority.execute(DeleteFlag(project=PROJECT, flag="banner-text"), actor)
    await place.authority.execute(ToggleFlag(project=PROJECT, flag=FLAG, environment=ENVIRONMENT, enabled=False), actor)
    credentials = await place.credentials()
    second = await place.plant(replace(URLS, relay_url="http://127.0.0.1:9"))
    assert second == replace(first, relay_url="http://127.0.0.1:9")
    assert json.loads((place.path / FILE).read_text())["relay_url"] == "http://127.0.0.1:9"
    assert await place.credentials() == credentials
    assert "banner-text" not in await place.flag_keys()


async def test_a_lost_file_gets_new_credentials(place: Place) -> None:
    """The authority has hashes only, so what is lost is made anew; the flags stay as they are."""
    first = await place.plant()
    (place.path / FILE).unlink()
    second = await place.plant()
    for member in ("token", "server_key", "client_key", "relay_key", "password"):
        assert getattr(second, member) != getattr(first, member)
    account = await place.database.read(lambda connection: StoredView(connection).member_by_email(EMAIL))
    assert account is not None
    assert await place.passwords.verify(account.password_hash, second.password)


async def test_a_damaged_file_counts_as_lost(place: Place) -> None:
    """Half a file is not trusted."""
    await place.plant()
    (place.path / FILE).write_text('{"token": "hal_tok')
    assert kind_of((await place.plant()).token) is Kind.TOKEN


async def test_an_interrupted_first_start_is_completed(place: Place) -> None:
    """Without demo.json whatever is missing is made, and what is there is left alone."""
    await place.plant()
    (place.path / FILE).unlink()
    await place.authority.execute(DeleteFlag(project=PROJECT, flag="banner-text"), await place.actor())
    await place.plant()
    assert await place.flag_keys() == {flag.key for flag in FLAGS}


async def test_a_file_of_another_database_gives_keys_that_work(place: Place) -> None:
    """When the database was removed but demo.json was not, the project is made again and dead keys are replaced."""
    first = await place.plant()
    actor = await place.actor()
    await place.authority.execute(DeleteProject(project=PROJECT), actor)
    relay_key = next(each for each in await place.credentials() if each.kind is Kind.RELAY)
    await place.authority.execute(RevokeKey(credential=relay_key.id), actor)
    second = await place.plant()
    assert second.server_key != first.server_key
    assert second.relay_key != first.relay_key
    assert second.token == first.token
    assert await place.flag_keys() == {flag.key for flag in FLAGS}


def test_banner() -> None:
    """What is printed has the addresses, the keys and a request that can be pasted."""
    demo = Demo(**asdict(URLS), email="e", password="p", token="t", server_key="s", client_key="c", relay_key="r")
    text = banner(demo, Path("/data"))
    assert "curl -s http://127.0.0.1:2/ofrep/v1/evaluate/flags/new-checkout" in text
    assert "Bearer s" in text
    assert "/data/demo.json" in text
