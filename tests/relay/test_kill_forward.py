"""Handing kills over to a real HTTP server that answers as a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from relay.changes.forward import Action, KillForwarder, judge
from relay.changes.overlay import Position
from relay.settings import UpstreamLink
from tests.clocks import settle
from tests.relay.edge_world import ENVIRONMENT, ORDER, OTHER, Edge
from tests.relay.live import until

PROBLEM = {"Content-Type": "application/problem+json"}
CONFIRMED = orjson.dumps({"epoch": "e1", "revisions": {ENVIRONMENT: 5}})
Answer = tuple[int, bytes, dict[str, str]]


def problem(code: str, detail: str = "No.") -> bytes:
    return orjson.dumps({"code": code, "detail": detail})


@dataclass
class Authority:
    """Receives changes; None as an answer breaks the connection."""

    answer: Callable[[], Answer | None] = lambda: (200, CONFIRMED, {})
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        answer = self.answer()
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            answer = (500, b"", {})
        status, body, headers = answer
        return web.Response(status=status, body=body, headers=headers)


@dataclass
class Way:
    """The kills of a relay, the way to the authority, and the authority."""

    edge: Edge
    forwarder: KillForwarder
    authority: Authority

    async def attempt(self) -> float:
        """Hand the oldest kill over; return the pause that follows."""
        record = self.edge.kills.next_pending()
        assert record is not None
        return await self.forwarder._hand_over(record)


@asynccontextmanager
async def way(path: Path, **link: Any) -> AsyncIterator[Way]:
    authority = Authority()
    app = web.Application()
    app.router.add_post("/base/api/v2/changes", authority.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/base/"
    edge = Edge(path / "outbox")
    async with aiohttp.ClientSession() as session:
        forwarder = KillForwarder(
            edge.kills,
            session,
            UpstreamLink.model_validate({"url": url, "request_timeout_s": 5, **link}),
            key=lambda: "hal_relay_x",
            clock=edge.clock,
            metrics=edge.metrics,
            jitter=lambda _low, high: high,
        )
        yield Way(edge, forwarder, authority)
    await runner.cleanup()


async def test_a_kill_is_sent_as_it_is_kept_with_the_relays_own_key(tmp_path: Path) -> None:
    """The very bytes of the record; the confirmation makes it committed from that revision on."""
    async with way(tmp_path) as here:
        overlay = await here.edge.kills.kill(ORDER)
        assert await here.attempt() == 0
        assert here.authority.bodies == [here.edge.outbox.records[overlay.id].body]
        sent = here.authority.headers[0]
        assert (sent["Authorization"], sent["Content-Type"]) == ("Bearer hal_relay_x", "application/json")
        assert here.edge.shown == [("beta", "committed")]
        here.edge.served = Position("e1", 5)
        await here.edge.kills.settle()
        assert here.edge.shown == []


async def test_a_lost_answer_leads_to_the_same_change_again(tmp_path: Path) -> None:
    """F05 for kills: the same bytes and so the same idempotency key, until there is an answer."""
    async with way(tmp_path) as here:
        await here.edge.kills.kill(ORDER)
        here.authority.answer = lambda: None
        assert await here.attempt() == 0.5
        assert await here.attempt() == 1
        here.authority.answer = lambda: (200, CONFIRMED, {})
        assert await here.attempt() == 0
        assert len(set(here.authority.bodies)) == 1
        assert here.edge.metrics.kill_attempts.value("failed") == 2


async def test_waits_grow_to_their_maximum_and_begin_anew_after_an_answer(tmp_path: Path) -> None:
    """However often it failed."""
    async with way(tmp_path, backoff_max_s=4) as here:
        await here.edge.kills.kill(ORDER)
        here.authority.answer = lambda: (502, b"<html>", {})
        assert [await here.attempt() for _ in range(5)] == [0.5, 1, 2, 4, 4]
        here.authority.answer = lambda: (200, CONFIRMED, {})
        await here.attempt()
        await here.edge.kills.kill(OTHER)
        here.authority.answer = lambda: (502, b"", {})
        assert await here.attempt() == 0.5


async def test_retry_after_is_obeyed(tmp_path: Path) -> None:
    """Of 429 and 503, up to the longest wait: an hour is too much for a flag that has to be off."""
    async with way(tmp_path, backoff_max_s=30) as here:
        await here.edge.kills.kill(ORDER)
        here.authority.answer = lambda: (503, b"", {"Retry-After": "7"})
        assert await here.attempt() == 7
        here.authority.answer = lambda: (429, b"", {"Retry-After": "3600"})
        assert await here.attempt() == 30


async def test_a_refusal_takes_the_kill_back_and_the_next_one_is_sent(tmp_path: Path) -> None:
    """Only this kill is concerned."""
    async with way(tmp_path) as here:
        await here.edge.kills.kill(ORDER)
        await here.edge.kills.kill(OTHER)
        here.authority.answer = lambda: (403, problem("origin_revoked", "Revoked."), PROBLEM)
        assert await here.attempt() == 0
        assert here.edge.off == {"gamma"}
        refusal = here.edge.kills.last_refusal
        assert refusal is not None
        assert (refusal.code, refusal.reason) == ("origin_revoked", "Revoked.")
        here.authority.answer = lambda: (200, CONFIRMED, {})
        assert await here.attempt() == 0
        assert here.edge.shown == [("gamma", "committed")]


async def test_a_wrong_key_or_address_keeps_the_kill_with_an_alarm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They say nothing about the kill; the flag stays off and the longest wait is made."""
    async with way(tmp_path) as here:
        await here.edge.kills.kill(ORDER)
        here.authority.answer = lambda: (401, problem("key_unknown"), PROBLEM)
        assert await here.attempt() == 60
        assert (here.edge.shown, caplog.records[-1].levelname) == ([("beta", "pending")], "CRITICAL")


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, b"", {}),
        (403, b"<html>blocked</html>", {"Content-Type": "text/html"}),
        (503, b"", {"Retry-After": "3600"}),
    ],
)
async def test_a_kill_that_cannot_be_delivered_keeps_no_other_from_it(
    tmp_path: Path, status: int, body: bytes, headers: dict[str, str]
) -> None:
    """Whatever answers so, for ever: the next attempt is the next kill's, and it comes soon enough."""
    async with way(tmp_path, backoff_max_s=10) as here:
        await here.edge.kills.kill(ORDER)
        await here.edge.kills.kill(OTHER)

        def answer() -> Answer:
            is_first = b"flag-beta" in here.authority.bodies[-1]
            return (status, body, headers) if is_first else (200, CONFIRMED, {})

        here.authority.answer = answer
        assert 0 < await here.attempt() <= 10
        assert await here.attempt() == 0
        assert here.edge.shown == [("beta", "pending"), ("gamma", "committed")]
        assert 0 < await here.attempt() <= 10


@pytest.mark.parametrize(
    ("superseded", "outcome"),
    [(["beta"], "superseded"), (["other", 7, "beta"], "superseded"), (["other"], "committed"), ("beta", "committed")],
)
async def test_a_superseded_kill_is_not_taken_for_a_committed_one(
    tmp_path: Path, superseded: Any, outcome: str
) -> None:
    """The authority says which flags stay on; an answer that has the list in another form says nothing."""
    async with way(tmp_path) as here:
        await here.edge.kills.kill(ORDER)
        here.authority.answer = lambda: (200, orjson.dumps({**orjson.loads(CONFIRMED), "superseded": superseded}), {})
        assert await here.attempt() == 0
        assert here.edge.metrics.kills.value(outcome) == 1
        assert here.edge.kills.next_pending() is None


@pytest.mark.parametrize(
    ("status", "body", "headers", "action"),
    [
        (200, CONFIRMED, {}, Action.CONFIRMED),
        (200, b"<html>Sign in to the hotel's network", {}, Action.FAILED),
        (200, b"[]", {}, Action.FAILED),
        (200, b'{"epoch":"e1","revisions":{}}', {}, Action.FAILED),
        (200, b'{"epoch":7,"revisions":[]}', {}, Action.FAILED),
        (400, problem("malformed_json"), PROBLEM, Action.REFUSED),
        (400, problem("bad_request"), PROBLEM, Action.FAILED),
        (400, problem("invalid_header"), PROBLEM, Action.FAILED),
        (400, problem("incomplete_body"), PROBLEM, Action.FAILED),
        (403, problem("wrong_project"), PROBLEM, Action.REFUSED),
        (404, problem("flag_not_found"), PROBLEM, Action.REFUSED),
        (409, problem("conflict"), PROBLEM, Action.REFUSED),
        (422, problem("idempotency_key_reused"), PROBLEM, Action.REFUSED),
        (403, problem("key_revoked"), PROBLEM, Action.DENIED),
        (404, problem("not_found"), PROBLEM, Action.DENIED),
        (404, problem("flag_not_found"), {"Content-Type": "application/problem+json; charset=utf-8"}, Action.REFUSED),
        (404, problem("flag_not_found"), {"Content-Type": "application/problem+jsonp"}, Action.DENIED),
        (404, b"<html>nothing here", {"Content-Type": "text/html"}, Action.DENIED),
        (403, b'{"code":"blocked"}', {"Content-Type": "application/json"}, Action.DENIED),
        (301, b"", {"Location": "/"}, Action.DENIED),
        (405, problem("method_not_allowed"), PROBLEM, Action.DENIED),
        (429, b"", {}, Action.BUSY),
        (503, b"", {}, Action.BUSY),
        (408, b"", {}, Action.FAILED),
        (500, b"", {}, Action.FAILED),
    ],
)
def test_only_the_authoritys_word_about_the_kill_ends_it(
    status: int, body: bytes, headers: dict[str, str], action: Action
) -> None:
    """A proxy's page, a hotel's network, a wrong key and an older upstream do not."""
    assert judge(status, headers, body, ENVIRONMENT).action is action


async def test_kills_are_forwarded_as_they_come(tmp_path: Path) -> None:
    """The loop waits for kills, sends them in order, and waits between attempts."""
    async with way(tmp_path) as here:
        running = asyncio.create_task(here.forwarder.run())
        await settle()
        here.authority.answer = lambda: (500, b"", {})
        await here.edge.kills.kill(ORDER)
        await until(lambda: here.edge.clock.slept == [0.5])
        here.authority.answer = lambda: (200, CONFIRMED, {})
        await here.edge.kills.kill(OTHER)
        await here.edge.clock.advance(0.5)
        await until(lambda: here.edge.shown == [("beta", "committed"), ("gamma", "committed")])
        sent = [orjson.loads(body)["ops"][0]["flag"] for body in here.authority.bodies]
        assert sent == ["flag-beta", "flag-gamma", "flag-beta"]
        running.cancel()
