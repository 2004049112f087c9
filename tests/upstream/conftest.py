"""The management API in process, for every test that asks for `world`."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.upstream.management import Template, World, open_world, populated


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
