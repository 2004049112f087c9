"""Upstream and relay as two processes of their own, so that each can be killed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.faults.pair import Pair


@pytest_asyncio.fixture(loop_scope="session")
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with Pair.started(tmp_path) as pair:
        yield pair
