"""One installation started by `halyard up`, shared by the tests that do not break it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.stack import Running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Return the shared installation; its flags are left as they were found."""
    async with Running.up(tmp_path_factory.mktemp("shared")) as stack:
        yield stack
