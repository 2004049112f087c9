"""Drives the application, in Node or in a page of Chromium, and resolves cases through the web SDK.

The page comes from another origin than the relay, and its client key lists that origin, so what the browser lets
through is what it would let through in production.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from playwright.async_api import Browser, Page, async_playwright

from tests.clients.cases import Case, Outcome
from tests.clients.web.page_server import page_server
from tests.clients.web.programs import PROJECT, Where, chromium, node
from tests.stack import DEADLINE_S, Running, until

_LINE_BYTES = 1 << 22
_ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


class App(Protocol):
    """The application: `call` runs one method of src/session.mjs."""

    async def call(self, method: str, *values: Any) -> Any:
        """Run a method and return what it returns."""


@dataclass(frozen=True)
class NodeApp:
    """The application as a process."""

    process: asyncio.subprocess.Process

    async def call(self, method: str, *values: Any) -> Any:
        reads, writes = self.process.stdout, self.process.stdin
        assert reads is not None
        assert writes is not None
        writes.write(json.dumps([method, *values]).encode() + b"\n")
        async with asyncio.timeout(DEADLINE_S):
            line = await reads.readline()
        assert line, "the application ended"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]


@dataclass(frozen=True)
class PageApp:
    """The application as a page."""

    page: Page

    async def call(self, method: str, *values: Any) -> Any:
        return await self.page.evaluate("([method, values]) => window.session[method](...values)", [method, values])


@asynccontextmanager
async def node_app() -> AsyncIterator[NodeApp]:
    """Run the application in a Node of its own."""
    process = await asyncio.create_subprocess_exec(
        node(), str(PROJECT / "src" / "node.mjs"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=_LINE_BYTES,
    )  # fmt: skip
    try:
        yield NodeApp(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Run Debian's Chromium without a window."""
    program = chromium()
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def page_app(started: Browser, origin: str) -> AsyncIterator[PageApp]:
    """Run the application in a page with a storage of its own."""
    context = await started.new_context()
    try:
        page = await context.new_page()
        await page.goto(origin)
        yield PageApp(page)
    finally:
        await context.close()


async def new_client_key(stack: Running, *origins: str) -> str:
    """Make a client key of the demo environment that lists these origins; return it once the relay knows it."""
    body = {
        "kind": "client",
        "name": "web tests",
        "project": stack.demo["project"],
        "environment": stack.demo["environment"],
        "origins": list(origins),
    }
    status, made = await stack.manage.post("/api/v2/keys", body)
    assert status == 201, made
    key: str = made["key"]

    async def known() -> bool:
        path = stack.relay_url + "/ofrep/v1/evaluate/flags"
        assert stack.session is not None
        async with stack.session.post(path, json={}, headers={"Authorization": f"Bearer {key}"}) as answer:
            return answer.status == 200

    await until("the relay knows the new key", known)
    return key


async def start(
    app: App,
    base_url: str,
    client_key: str,
    context: Mapping[str, Any] | None,
    *,
    poll_ms: int = 0,
    recovers: bool = False,
) -> str | None:
    """Let the application set its provider; return the error if that failed."""
    options = {"baseUrl": base_url, "clientKey": client_key, "context": context, "pollInterval": poll_ms}
    complaint: str | None = await app.call("start", {**options, "recovers": recovers})
    return complaint


async def resolve(app: App, case: Case) -> Outcome:
    """Resolve one case in an application that was started with its context."""
    answer = await app.call("resolve", {"flag": case.flag, "type": case.type, "fallback": case.default})
    return Outcome(answer["value"], answer["variant"], answer["reason"], answer["errorCode"], answer["metadata"])


async def in_node(stack: Running, cases: Sequence[Case]) -> list[Outcome]:
    """Resolve each case through the web SDK in Node."""
    outcomes: dict[int, Outcome] = {}
    for group in _by_context(cases):
        async with node_app() as app:
            await _resolve_group(app, stack.relay_url, stack.demo["client_key"], group, outcomes)
    return [outcomes[position] for position in range(len(cases))]


async def in_chromium(stack: Running, cases: Sequence[Case]) -> list[Outcome]:
    """Resolve each case through the web SDK in a page from another origin."""
    outcomes: dict[int, Outcome] = {}
    async with browser() as started, page_server() as origin:
        key = await new_client_key(stack, origin)
        for group in _by_context(cases):
            async with page_app(started, origin) as app:
                await _resolve_group(app, stack.relay_url, key, group, outcomes)
    return [outcomes[position] for position in range(len(cases))]


_Group = list[tuple[int, Case]]


def _by_context(cases: Sequence[Case]) -> list[_Group]:
    # The web SDK has one context at a time, and each group gets an application that never had another one.
    groups: dict[str, _Group] = {}
    for position, case in enumerate(cases):
        groups.setdefault(json.dumps(case.context, sort_keys=True), []).append((position, case))
    return list(groups.values())


async def _resolve_group(app: App, base_url: str, key: str, group: _Group, outcomes: dict[int, Outcome]) -> None:
    complaint = await start(app, base_url, key, group[0][1].context)
    assert complaint is None, complaint
    for position, case in group:
        outcomes[position] = await resolve(app, case)
    await app.call("stop")


@asynccontextmanager
async def app_in(where: Where, origin: str) -> AsyncIterator[App]:
    """Run the application where it is asked for; `origin` is the page's."""
    if where is Where.NODE:
        async with node_app() as app:
            yield app
    else:
        async with browser() as started, page_app(started, origin) as page:
            yield page
