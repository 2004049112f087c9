"""Forwarding to a real HTTP server that answers as a test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from relay.events.forward import Action, Forwarder, Verdict, judge
from relay.events.spool import Spool
from relay.metrics import RelayMetrics
from relay.settings import Events, UpstreamLink
from tests.clocks import FakeClock, settle

ACCEPTED = b'{"status":"accepted","events":1,"duplicates":0,"counters":0}'
PROBLEM = {"Content-Type": "application/problem+json; charset=utf-8"}
Answer = tuple[int, bytes, dict[str, str]]


@dataclass
class Authority:
    """Receives batches. `answer` decides what is said to each; None breaks the connection without an answer."""

    answer: Callable[[list[bytes]], Answer | None] = lambda _records: (200, ACCEPTED, {})
    batches: list[tuple[str, list[bytes]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        # aiohttp has undone the gzip already.
        records = (await request.read()).splitlines()
        self.batches.append((request.headers["Batch-Id"], records))
        self.headers.append(dict(request.headers))
        answer = self.answer(records)
        if answer is None:
            assert request.transport is not None
            request.transport.close()
            answer = (500, b"", {})
        status, body, headers = answer
        return web.Response(status=status, body=body, headers=headers)

    @property
    def records(self) -> list[list[bytes]]:
        return [records for _, records in self.batches]


@dataclass
class Relay:
    """A spool with its forwarder, both on a clock that the test turns."""

    spool: Spool
    forwarder: Forwarder
    clock: FakeClock
    metrics: RelayMetrics
    authority: Authority

    async def step(self) -> float | None:
        """Send one batch; return the pause that the forwarder wants before the next."""
        return await self.forwarder._step()

    async def steps(self) -> None:
        while await self.step() is not None:
            pass


@asynccontextmanager
async def relaying(directory: Path, url: str | None = None, **changes: Any) -> AsyncIterator[Relay]:
    authority = Authority()
    app = web.Application()
    app.router.add_post("/base/api/v2/ingest", authority.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    settings = Events.model_validate({"commit_s": 0, **changes})
    link = UpstreamLink.model_validate({"url": url or f"http://127.0.0.1:{port}/base/", "request_timeout_s": 5})
    clock, metrics = FakeClock(), RelayMetrics()
    spool = await Spool.open(directory, settings, clock, metrics)
    async with aiohttp.ClientSession() as session:
        forwarder = Forwarder(
            spool,
            session,
            link,
            key=lambda: "hal_relay_x",
            relay_id="relay-1",
            settings=settings,
            clock=clock,
            metrics=metrics,
            jitter=lambda _low, high: high,
        )
        try:
            yield Relay(spool, forwarder, clock, metrics, authority)
        finally:
            await spool.close()
            await runner.cleanup()


async def test_a_batch_is_ndjson_in_gzip_with_its_id(tmp_path: Path) -> None:
    """The request has one record per line, gzip, the batch's id, the relay key and the relay's id."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b'{"a":1}', b'{"b":2}'])
        batch = await relay.spool.peek()
        assert batch is not None
        await relay.steps()
        assert relay.authority.batches == [(batch.id, [b'{"a":1}', b'{"b":2}'])]
        sent = relay.authority.headers[0]
        assert (sent["Content-Type"], sent["Content-Encoding"]) == ("application/x-ndjson", "gzip")
        assert (sent["Authorization"], sent["Relay-Id"]) == ("Bearer hal_relay_x", "relay-1")
        assert relay.spool.stats().records == 0
        assert relay.metrics.events_forwarded.total() == 2


async def test_a_lost_answer_leads_to_the_same_batch_again(tmp_path: Path) -> None:
    """F05: when the answer is lost the batch is sent again under its id, and "duplicate" confirms it."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        relay.authority.answer = lambda _records: None
        assert await relay.step() == 0.5
        relay.authority.answer = lambda _records: (200, b'{"status":"duplicate"}', {})
        await relay.steps()
        assert relay.authority.batches[0] == relay.authority.batches[1]
        assert len(relay.authority.batches) == 2
        assert relay.spool.stats().records == 0


async def test_a_200_that_is_not_the_authoritys_confirms_nothing(tmp_path: Path) -> None:
    """What a proxy or a captive portal answers does not take a batch out of the spool."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        bodies = [b"<html>Welcome</html>", b'{"status":"ok"}', b"[]", b""]
        relay.authority.answer = lambda _records: (200, bodies.pop(), {})
        while bodies:
            assert await relay.step()
        assert relay.spool.stats().records == 1


@pytest.mark.parametrize("status", [400, 422, 413])
async def test_a_bad_record_is_isolated_and_quarantined(tmp_path: Path, status: int) -> None:
    """A refused batch is halved until the bad record stands alone; it is set aside, all others are forwarded."""
    stored: list[bytes] = []

    def answer(records: list[bytes]) -> Answer:
        if b'"bad"' in records:
            return status, b'{"code":"unstorable","detail":"Line 1 cannot be stored."}', PROBLEM
        stored.extend(records)
        return 200, ACCEPTED, {}

    async with relaying(tmp_path) as relay:
        relay.authority.answer = answer
        await relay.spool.append([b"%d" % number for number in range(5)] + [b'"bad"'] + [b"9"])
        await relay.steps()
        assert stored == [b"0", b"1", b"2", b"3", b"4", b"9"]
        assert relay.metrics.events_quarantined.value("rejected") == 1
        assert relay.spool.stats().records == 0
    kept = (tmp_path / "quarantine" / "rejected.ndjson").read_bytes()
    assert b"Line 1 cannot be stored" in kept
    assert b'"record":"bad"' in kept


async def test_halves_keep_their_ids_over_retries(tmp_path: Path) -> None:
    """A half whose answer was lost is sent again under the same id."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1", b"2"])
        relay.authority.answer = lambda records: (413, b"", {}) if len(records) > 1 else None
        await relay.step()
        await relay.step()
        await relay.step()
        (_, first, again) = relay.authority.batches
        assert first == again
        assert first[1] == [b"1"]


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>400</html>", "text/html"),
        (b"Invalid HTTP request received.", "text/plain"),
        (b'{"code":"unstorable"}', "application/json"),
        (b'{"title":"Bad Request"}', "application/problem+json"),
        (b"not json", "application/problem+json"),
        (b"[]", "application/problem+json"),
    ],
)
async def test_only_the_authoritys_own_words_are_a_refusal(
    tmp_path: Path, status: int, body: bytes, content_type: str
) -> None:
    """A proxy's own 400, as for plain HTTP sent to a TLS port, sets no event aside and is an alarm."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1", b"2"])
        relay.authority.answer = lambda _records: (status, body, {"Content-Type": content_type})
        assert await relay.step() == 60
        assert await relay.step() == 60
        assert relay.authority.batches[0] == relay.authority.batches[1]
        assert relay.spool.stats().records == 2


async def test_a_proxys_limit_halves_a_batch_but_condemns_no_record(tmp_path: Path) -> None:
    """A 413 that is not the authority's may be passed by halves; a single record that is still too long is kept."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1", b"2", b"a long one"])
        relay.authority.answer = lambda records: (
            (413, b"<html>", {"Content-Type": "text/html"}) if sum(map(len, records)) > 1 else (200, ACCEPTED, {})
        )
        pauses = [await relay.step() for _ in range(6)]
        assert pauses[-1] == 60
        assert relay.spool.stats().records == 1
        assert relay.metrics.events_quarantined.total() == 0


def test_what_is_wrong_with_the_request_is_not_blamed_on_its_records() -> None:
    """A body that was cut off on the way is sent again whole."""
    assert judge(400, PROBLEM, b'{"code":"incomplete_body"}').action is Action.FAILED
    assert judge(400, PROBLEM, b'{"code":"malformed_json"}').action is Action.REFUSED


@pytest.mark.parametrize("status", [401, 403, 404, 302])
async def test_a_denied_key_or_address_keeps_everything(
    tmp_path: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A denial keeps the batch, is tried again slowly, and is an alarm in the log with the answer."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        relay.authority.answer = lambda _records: (status, b"because", {"Location": "/elsewhere"})
        assert await relay.step() == 60
        assert await relay.step() == 60
        assert relay.spool.stats().records == 1
        assert len(relay.authority.batches) == 2
        assert {record.levelname for record in caplog.records if "denies" in record.message} == {"CRITICAL"}


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [(429, "7", 7), (503, "120", 120), (503, "999999", 3600), (503, "soon", 0.5), (503, None, 0.5), (500, "9", 0.5)],
)
async def test_retry_after_is_obeyed(tmp_path: Path, status: int, retry_after: str | None, pause_s: float) -> None:
    """A busy authority says when to come back; without a usable time the wait is the usual one."""
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        relay.authority.answer = lambda _records: (status, b"", headers)
        assert await relay.step() == pause_s


async def test_waits_grow_up_to_a_limit_and_start_again_after_success(tmp_path: Path) -> None:
    """F30: repeated failures wait up to twice as long each time, at most a minute; a success resets that."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        relay.authority.answer = lambda _records: (500, b"", {})
        assert [await relay.step() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
        relay.authority.answer = lambda _records: (200, ACCEPTED, {})
        await relay.steps()
        await relay.spool.append([b"2"])
        relay.authority.answer = lambda _records: (500, b"", {})
        assert await relay.step() == 0.5
        assert relay.metrics.forward_attempts.value(Action.FAILED) == 10


async def test_nobody_there_is_a_failure_like_others(tmp_path: Path) -> None:
    """A refused connection keeps the batch and waits."""
    async with relaying(tmp_path, url="http://127.0.0.1:9") as relay:
        await relay.spool.append([b"1"])
        assert await relay.step() == 0.5
        assert relay.spool.stats().records == 1


async def test_a_disk_error_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the spool cannot be read the forwarder waits and tries again instead of ending."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])

        async def unreadable() -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(relay.spool, "peek", unreadable)
        assert await relay.step() == 0.5
        monkeypatch.undo()
        await relay.steps()
        assert relay.authority.records == [[b"1"]]


async def test_the_rate_after_an_outage_is_capped(tmp_path: Path) -> None:
    """Batches are followed by a pause that holds the average to the configured rate."""
    async with relaying(tmp_path, forward_per_s=20, forward_batch_events=10) as relay:
        await relay.spool.append([b"%d" % number for number in range(20)])
        assert await relay.step() == 0.5
        assert await relay.step() == 0.5
        assert await relay.step() is None


async def test_run_forwards_what_is_appended(tmp_path: Path) -> None:
    """The task waits for the first record, gives others a moment to join it, and forwards them as one batch."""
    async with relaying(tmp_path) as relay:
        task = asyncio.create_task(relay.forwarder.run())
        await settle()
        await relay.spool.append([b"1"])
        await relay.spool.append([b"2"])
        forwarded = asyncio.create_task(_forwarded(relay, 2))
        while not forwarded.done():
            await relay.clock.advance(1)
            await asyncio.to_thread(lambda: None)
        assert relay.authority.records == [[b"1", b"2"]]
        task.cancel()
        await asyncio.wait({task})


async def _forwarded(relay: Relay, count: int) -> None:
    async with asyncio.timeout(10):
        while relay.metrics.events_forwarded.total() < count:
            await asyncio.to_thread(lambda: None)


async def test_flush_sends_everything_without_a_rate(tmp_path: Path) -> None:
    """At shutdown everything is sent at once; nothing is left."""
    async with relaying(tmp_path, forward_per_s=1, forward_batch_events=1) as relay:
        await relay.spool.append([b"1", b"2", b"3"])
        assert await relay.forwarder.flush(5) == 0
        assert relay.authority.records == [[b"1"], [b"2"], [b"3"]]
        assert await relay.forwarder.flush(5) == 0


async def test_flush_gives_up_at_the_first_failure(tmp_path: Path) -> None:
    """Without an authority the shutdown is not held up: what is left stays on disk for the next start."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        relay.authority.answer = lambda _records: (500, b"", {})
        assert await relay.forwarder.flush(5) == 1
        assert len(relay.authority.batches) == 1


async def test_flush_ends_in_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An authority that does not answer holds the shutdown up no longer than the deadline."""
    async with relaying(tmp_path) as relay:
        await relay.spool.append([b"1"])
        assert await relay.forwarder.flush(0) == 1
        assert "stays on disk" in caplog.text


def test_other_answers_are_judged() -> None:
    """Statuses without a meaning of their own: 4xx is for an operator, timeouts and 5xx are tried again."""
    assert judge(408, {}, b"").action is Action.FAILED
    assert judge(504, {}, b"\xff") == Verdict(Action.FAILED, "504: \ufffd")
    assert judge(418, {}, b"teapot") == Verdict(Action.DENIED, "418: teapot")
    assert judge(200, {}, b'{"status":[]}').action is Action.FAILED
    assert judge(400, PROBLEM, b'{"code":"bad_request"}').action is Action.FAILED
