"""Chromium's own EventSource on the stream of evaluated values, from a page of another origin than the relay."""

import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
from playwright.async_api import Page

from tests.clients.web.driver import browser, new_client_key, page_app
from tests.clients.web.page_server import page_server
from tests.clients.web.programs import chromium, node
from tests.clients.web.proxy import Proxy
from tests.stack import Json, Running, until

pytestmark = pytest.mark.system

PATH: Final = "/api/v2/client/stream"
_LISTEN: Final = """url => {
  window.heard = [];
  const stream = new EventSource(url);
  stream.onopen = () => heard.push({ name: 'open' });
  stream.onerror = () => heard.push({ name: 'error', state: stream.readyState });
  for (const name of ['put', 'patch', 'delete', 'goodbye', 'message']) {
    stream.addEventListener(name, (event) => {
      heard.push({ name, id: event.lastEventId, data: JSON.parse(event.data) });
    });
  }
}"""


@dataclass
class Listening:
    """A page that listens, through a proxy."""

    stack: Running
    proxy: Proxy
    page: Page

    async def heard(self, number: int) -> list[Json]:
        """Wait for so many happenings in all and return the last of them."""

        async def enough() -> list[Json] | None:
            all_of_them: list[Json] = await self.page.evaluate("heard")
            return all_of_them if len(all_of_them) >= number else None

        return await until(f"{number} happenings", enough)


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[Listening]:
    """Open the stream with the key and the context in its URL, as EventSource cannot send headers."""
    node()
    chromium()
    async with Running.up(tmp_path) as stack, page_server() as origin, Proxy.to(stack.relay_url) as proxy:
        key = await new_client_key(stack, origin)
        context = urlsafe_b64encode(json.dumps({"targetingKey": "ada", "country": "FR"}).encode()).rstrip(b"=")
        async with browser() as started, page_app(started, origin) as app:
            query = urlencode({"key": key, "context": context.decode()})
            await app.page.evaluate(_LISTEN, f"{proxy.origin}{PATH}?{query}")
            yield Listening(stack, proxy, app.page)


async def test_put_then_patches_with_names_ids_and_data(listening: Listening) -> None:
    """Everything once, then only what changed for this context."""
    opened, put = await listening.heard(2)
    assert opened == {"name": "open"}
    revision = put["data"]["revision"]
    assert (put["name"], put["id"].rpartition(":")[2]) == ("put", str(revision))
    assert {key: flag["value"] for key, flag in put["data"]["flags"].items()} == {
        "new-checkout": True,
        "dark-mode": False,
        "search-index-v2": put["data"]["flags"]["search-index-v2"]["value"],
        "banner-text": put["data"]["flags"]["banner-text"]["value"],
        "max-upload-mb": 500,
        "search-settings": {"page_size": 50, "fuzzy": True, "boost": {"title": 3}},
        "one-click-buy": True,
    }
    assert put["data"]["flags"]["new-checkout"] == {"value": True, "variation": "on", "reason": "STATIC"}

    # Off for this context before and after: nobody is told.
    await listening.stack.toggle(flag="dark-mode", enabled=False)
    await listening.stack.toggle(enabled=False)
    patch = (await listening.heard(3))[2]
    off = {"value": False, "variation": "off", "reason": "DISABLED"}
    assert patch["name"] == "patch"
    assert patch["data"] == {"flags": {"new-checkout": off}, "revision": revision + 2}
    assert patch["id"] == f"{put['id'].rpartition(':')[0]}:{revision + 2}"


async def test_it_comes_back_by_itself_and_says_what_it_has(listening: Listening) -> None:
    """After a cut the browser reconnects with the last id, and gets everything as it is by then."""
    put = (await listening.heard(2))[1]
    await listening.proxy.go_away()
    assert (await listening.heard(3))[2] == {"name": "error", "state": 0}
    await listening.stack.toggle(enabled=False)
    await listening.stack.settled()
    await listening.proxy.listen()

    async def back() -> Any:
        return next((each for each in (await listening.heard(3))[3:] if each["name"] == "put"), None)

    again = await until("a second put", back)
    assert again["data"]["flags"]["new-checkout"]["value"] is False
    assert again["data"]["revision"] == put["data"]["revision"] + 1
    assert [(each.method, each.status, each.last_event_id) for each in listening.proxy.passed] == [
        ("GET", 200, None),
        ("GET", 200, put["id"]),
    ]
