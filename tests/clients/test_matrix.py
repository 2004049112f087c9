"""Published OpenFeature clients read what Halyard means, or deviate as written down; the document says the same."""

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version

import pytest
import pytest_asyncio

from tests.clients import node_program
from tests.clients.conftest import Column, Columns
from tests.clients.matrix import DOCUMENT, ROWS, Client, Scene, clients, document_part, document_table, is_same
from tests.clients.scenes import opened
from tests.stack import Running

PYTHON_PACKAGES = ("openfeature-provider-ofrep", "openfeature-sdk", "httpx-sse", "launchdarkly-eventsource")
NPM_PACKAGES = {
    "server": ("@openfeature/ofrep-provider", "@openfeature/server-sdk"),
    "web": ("@openfeature/ofrep-web-provider", "@openfeature/web-sdk"),
    "sse": ("eventsource", "launchdarkly-eventsource"),
}

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def places(stack: Running) -> AsyncIterator[Mapping[Scene, Running]]:
    """Set every scene, once for all clients."""
    async with AsyncExitStack() as scenes:
        yield {scene: await scenes.enter_async_context(opened(stack, scene)) for scene in Scene}


@pytest.mark.parametrize("client", clients(), ids=lambda client: client.name)
async def test_a_client_reads_what_is_written_down(
    places: Mapping[Scene, Running], client: Client, columns: Columns
) -> None:
    """Value, variant, reason, error code and metadata of every question, as the client's own API gives them."""
    why = client.missing()
    if why is not None:
        pytest.skip(why)
    seen: Column = {}
    for scene in Scene:
        asked = [place for place, row in enumerate(ROWS) if row.scene is scene and row.asks(client.name)]
        if asked:
            outcomes = await client.driver(places[scene], [ROWS[place].case for place in asked])
            seen |= dict(zip(asked, outcomes, strict=True))
    columns[client.name] = seen
    wrong = {
        f"{ROWS[place].scene}: {ROWS[place].case.name}": (outcome, ROWS[place].outcome(client.name))
        for place, outcome in seen.items()
        if not is_same(outcome, ROWS[place].outcome(client.name), one_number=client.one_number)
    }
    assert not wrong


async def test_a_deviation_is_one() -> None:
    """What is written down as a client's deviation differs from the answer: no client is accused of nothing."""
    accused = [
        (row.case.name, client.name)
        for row in ROWS
        for client in clients()
        if client.name in row.but and is_same(row.but[client.name].outcome, row.expected, one_number=client.one_number)
    ]
    assert accused == []


async def test_the_document_shows_the_matrix() -> None:
    """The table in docs/clients.md is the one these tests hold; `python -m tests.clients.matrix --write` makes it."""
    assert document_part(DOCUMENT.read_text()) == document_table()


async def test_the_document_names_the_versions_that_are_tested() -> None:
    """Every client that is installed here or locked for npm stands in docs/clients.md with its version."""
    text = DOCUMENT.read_text()
    named = {name: version(name) for name in PYTHON_PACKAGES}
    for folder, names in NPM_PACKAGES.items():
        locked = json.loads((node_program.FOLDER / folder / "package.json").read_text())["dependencies"]
        named |= {f"npm {name}": locked[name] for name in names}
    for name, number in named.items():
        shown = re.escape(name.removeprefix("npm "))
        assert re.search(rf"`{shown}`(?: \|)? {re.escape(number)}\b", text), f"{name} {number}"
