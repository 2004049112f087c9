"""One installation with the flags of `tests.clients.flags`, shared by the tests of this folder; and the matrix."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.clients import flags
from tests.clients.cases import Outcome
from tests.clients.matrix import ROWS, seen_table
from tests.stack import Running

Column = dict[int, Outcome]
Columns = dict[str, Column]
COLUMNS = pytest.StashKey[Columns]()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """Return the shared installation; its `of-…` flags are left as they were found."""
    async with Running.up(tmp_path_factory.mktemp("clients")) as running:
        await flags.create(running)
        yield running


@pytest.fixture
def columns(pytestconfig: pytest.Config) -> Columns:
    """Return where each client's outcomes are noted for the summary."""
    return pytestconfig.stash.setdefault(COLUMNS, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what the clients of this run were seen to read, whatever became of the tests."""
    columns = config.stash.get(COLUMNS, {})
    if columns:
        terminalreporter.section("OpenFeature clients")
        for line in seen_table(ROWS, columns):
            terminalreporter.write_line(line)
