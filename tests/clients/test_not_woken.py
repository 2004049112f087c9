"""A change wakes the clients whose own values it changes, and leaves every other one asleep."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.clients.flags import caught_up
from tests.stack import Client, Json, Message, Running, SseReader

pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="session")]

CLIENTS = 200
PLANS = ("free", "pro", "team", "enterprise")
# Those whose value the change gives another: of every plan but one, and of that one not those who are targeted.
CHANGED_PLAN, TARGETED = "pro", ("client-1", "client-5")
FLAG = "not-woken"
BULK = "/ofrep/v1/evaluate/flags"


def contexts() -> list[Json]:
    """Return as many contexts as there are clients, of all plans."""
    return [{"targetingKey": f"client-{n}", "plan": PLANS[n % len(PLANS)]} for n in range(CLIENTS)]


def concerned(context: Json) -> bool:
    """Tell whether the change of this test gives a context another value."""
    return context["plan"] == CHANGED_PLAN and context["targetingKey"] not in TARGETED


@pytest_asyncio.fixture(loop_scope="session")
async def flag(stack: Running) -> AsyncIterator[str]:
    """Return the path of a flag that says `calm` to everybody, in the demo environment."""
    body = {
        "key": FLAG, "name": FLAG, "type": "string", "enabled": True, "off": "calm",
        "variations": [{"key": word, "value": word} for word in ("calm", "new", "all")],
        "fallthrough": {"variation": "calm"},
        "targets": [{"variation": "calm", "units": list(TARGETED)}],
    }  # fmt: skip
    status, made = await stack.manage.post(f"{stack.project_path}/flags", body)
    assert status == 201, made
    await caught_up(stack)
    yield f"{stack.project_path}/flags/{FLAG}/environments/{stack.demo['environment']}"
    status, gone = await stack.manage.call("DELETE", f"{stack.project_path}/flags/{FLAG}")
    assert status == 204, gone


async def change(stack: Running, path: str, **config: Any) -> int:
    """Change the flag's configuration, wait until the relay has it, and return the revision."""
    status, body = await stack.manage.patch(path, config)
    assert status == 200, body
    return await caught_up(stack)


def rule() -> Json:
    return {
        "when": {"attribute": "plan", "op": "equals", "values": [CHANGED_PLAN]},
        "variation": "new",
    }


@asynccontextmanager
async def opened(stack: Running, key: str, paths: Sequence[str]) -> AsyncIterator[list[SseReader]]:
    """Open a stream for each path, in a session that may have as many connections as that takes."""
    connector = aiohttp.TCPConnector(limit=0)
    async with AsyncExitStack() as open_streams:
        session = await open_streams.enter_async_context(aiohttp.ClientSession(connector=connector))
        client = Client(session, stack.relay_url, stack.demo[key])
        yield [await open_streams.enter_async_context(client.stream(path)) for path in paths]


async def next_of(readers: Sequence[SseReader]) -> list[Message]:
    """Read the next message of every stream."""
    return await asyncio.gather(*(reader.next() for reader in readers))


def revision_of(event_id: str | None) -> int:
    """Return the revision that an event id of an evaluated stream names."""
    assert event_id is not None
    return int(event_id.split(":")[1])


async def test_only_clients_whose_values_changed_are_told_to_ask_again(stack: Running, flag: str) -> None:
    """200 OFREP streams: a change for some is told to exactly them; then one for all shows that nothing else came."""
    everybody = contexts()
    before: list[Json] = []
    paths: list[str] = []
    for context in everybody:
        status, body = await stack.relay().post(BULK, {"context": context})
        assert status == 200, body
        before.append({each["key"]: each.get("value") for each in body["flags"]})
        paths.append(body["eventStreams"][0]["endpoint"]["requestUri"])
    async with opened(stack, "server_key", paths) as readers:
        # A client that has shown no id is told to ask once.
        await next_of(readers)

        for_some = await change(stack, flag, rules=[rule()])
        changed = []
        for context, values in zip(everybody, before, strict=True):
            _, body = await stack.relay().post(BULK, {"context": context})
            changed.append({each["key"]: each.get("value") for each in body["flags"]} != values)
        assert changed == [concerned(context) for context in everybody]
        assert sum(changed) == CLIENTS // len(PLANS) - len(TARGETED)
        woken = await next_of([reader for reader, is_changed in zip(readers, changed, strict=True) if is_changed])
        assert {revision_of(message.id) for message in woken} == {for_some}
        assert {message.data["type"] for message in woken} == {"refetchEvaluation"}

        for_all = await change(stack, flag, rules=[], targets=[], fallthrough={"variation": "all"})
        # Whoever had been told of the first change in vain would read of that now.
        assert [revision_of(message.id) for message in await next_of(readers)] == [for_all] * CLIENTS


async def test_only_clients_whose_values_changed_are_patched(stack: Running, flag: str) -> None:
    """200 client streams: the same, and the patch holds the one flag that changed."""
    everybody = contexts()
    paths = [
        "/api/v2/client/stream?context=" + base64.urlsafe_b64encode(json.dumps(context).encode()).decode().rstrip("=")
        for context in everybody
    ]
    async with opened(stack, "client_key", paths) as readers:
        assert {message.event for message in await next_of(readers)} == {"put"}

        for_some = await change(stack, flag, rules=[rule()])
        patched = await next_of([reader for reader, one in zip(readers, everybody, strict=True) if concerned(one)])
        assert len(patched) == CLIENTS // len(PLANS) - len(TARGETED)
        assert all(
            (message.event, message.data["revision"], list(message.data["flags"])) == ("patch", for_some, [FLAG])
            for message in patched
        )

        for_all = await change(stack, flag, rules=[], targets=[], fallthrough={"variation": "all"})
        assert all(
            (message.event, message.data["revision"], list(message.data["flags"])) == ("patch", for_all, [FLAG])
            for message in await next_of(readers)
        )
