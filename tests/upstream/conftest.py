"""The management API in process, for every test that asks for `world`; and the database server, started once a run."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.postgresql import Server
from tests.upstream.databases import IS_POSTGRESQL, SERVER, databases, forgetting
from tests.upstream.management import Template, World, open_world, populated

_STARTED = pytest.StashKey[Server]()


def pytest_configure(config: pytest.Config) -> None:
    """Start PostgreSQL before there are workers, which inherit where it is."""
    if IS_POSTGRESQL:
        if SERVER not in os.environ:
            config.stash[_STARTED] = server = Server.made()
            os.environ[SERVER] = str(server.directory)
        # Now, as some tests change the variables.
        databases()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what this process has started."""
    if _STARTED in config.stash:
        del os.environ[SERVER]
        config.stash[_STARTED].close()


@pytest.fixture(autouse=True)
def _no_database_left() -> Iterator[None]:
    # What fixtures of the whole session have made, they made before this.
    with forgetting():
        yield


@pytest.fixture(scope="session")
def populated_database(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A database with two organisations, to be copied; made once, in a thread because it needs a loop of its own."""
    folder = tmp_path_factory.mktemp("template")
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(populated(folder))).result()


@pytest.fixture
async def world(populated_database: Template, tmp_path: Path) -> AsyncIterator[World]:
    """The API with everything that tests talk about; each test has its own."""
    async with open_world(populated_database, tmp_path) as opened:
        yield opened
