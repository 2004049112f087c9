"""Ten thousand event streams on one relay: how soon all of them hear of a change, beside nginx with nchan.

    fanout  a flag is toggled and every client's value changes; the same `patch` is published to nchan's subscribers.
            Both have 10,000 clients at once, the rounds alternate, both servers are pinned to core 0 and the clients
            to core 1. Two times of each: `request`, from the moment at which the change is asked for (the toggle at
            the upstream, which first commits it to disk and streams it to the relay; the POST to nchan) to a client's
            receipt; and `spread`, from the first client's receipt to a client's. The ratio is that of the spreads'
            medians of the rounds' p99, as what comes before the first write is another thing in the two servers.
            Memory of the relay before, and with its clients.
    stuck   the same rounds with 100 clients that read nothing and 100 that read a byte a second, all of whose buffers
            are full: what the others notice, and how long after its buffer filled each of them was cut.
    storm   all 10,000 connections break and come back at once: until all are served, the latency of a steady load of
            evaluations meanwhile beside the same load alone, and memory afterwards.

Run with `python -m tests.bench.streams [part …]`.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.measure import CLIENT_CORE, SERVER_CORE, Figures, pin, rss_mib
from tests.bench.steady_load import SteadyLoad
from tests.bench.streams_world import FLAG, MODULE, Clients, Nchan, Relay, is_there
from tests.faults.pair import Pair

CLIENTS = int(os.environ.get("HALYARD_BENCH_STREAMS", "10000"))
ROUNDS = 5
BAD = 100
AT_ONCE = 400


async def heard(clients: Clients, change: Any) -> Figures:
    """Make a change and return in milliseconds when all clients heard of it."""
    await clients.do("collect", marker="patch")
    start = time.perf_counter()
    await change
    found = await clients.answer()
    assert found["heard"] == CLIENTS, found
    return {
        "request_p99_ms": (found["p99_at"] - start) * 1000,
        "first_ms": (found["first_at"] - start) * 1000,
        "p50_ms": (found["p50_at"] - found["first_at"]) * 1000,
        "p99_ms": (found["p99_at"] - found["first_at"]) * 1000,
        "last_ms": (found["last_at"] - found["first_at"]) * 1000,
    }


def medians(rounds: list[Figures]) -> Figures:
    """Return the median of each figure over the rounds."""
    return {name: round(statistics.median(each[name] for each in rounds), 1) for name in rounds[0]}


async def fanout(relay: Relay) -> Figures:
    """Measure rounds of relay and nchan in turn."""
    if not is_there(MODULE):
        return {"left_out": f"not on this machine: {MODULE}"}
    base = rss_mib(relay.pid)
    with tempfile.TemporaryDirectory() as directory:
        nchan = Nchan(Path(directory))
        async with Clients.started() as own, Clients.started() as others, nchan.running(relay.pair):
            nchan_base = rss_mib(nchan.pid)
            opened = await own.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
            subscribed = await others.do("open", count=CLIENTS, at_once=AT_ONCE, **nchan.target)
            assert (opened["opened"], subscribed["opened"]) == (CLIENTS, CLIENTS), (opened, subscribed)
            held, nchan_held = rss_mib(relay.pid), rss_mib(nchan.pid)
            flags = {FLAG: {"value": True, "variation": "on", "reason": "STATIC"}}
            data = json.dumps({"flags": flags, "revision": 123}, separators=(",", ":"))
            await heard(own, relay.change())  # not counted: what is used for the first time
            await heard(others, nchan.publish(relay.pair, data))
            pairs = [
                (await heard(own, relay.change()), await heard(others, nchan.publish(relay.pair, data)))
                for _ in range(ROUNDS)
            ]
            after = rss_mib(relay.pid)
            await own.do("close")
            await others.do("close")
    relay_rounds, nchan_rounds = (list(each) for each in zip(*pairs, strict=True))
    ours, theirs = medians(relay_rounds), medians(nchan_rounds)
    return {
        "relay": ours,
        "nchan": theirs,
        "relay_p99_rounds_ms": [round(each["p99_ms"], 1) for each in relay_rounds],
        "nchan_p99_rounds_ms": [round(each["p99_ms"], 1) for each in nchan_rounds],
        "ratio_p99": round(ours["p99_ms"] / theirs["p99_ms"], 3),
        "opening_s": opened["seconds"],
        "relay_rss_mib": {"base": base, "open": held, "after": after},
        "relay_kib_per_stream": round((after - base) * 1024 / CLIENTS, 2),
        "nchan_kib_per_stream": round((nchan_held - nchan_base) * 1024 / CLIENTS, 2),
    }


async def stuck(relay: Relay) -> Figures:
    """Measure rounds without and with clients that take nothing."""
    async with Clients.started() as good, Clients.started() as bad:
        await good.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
        await heard(good, relay.change())
        alone = [await heard(good, relay.change()) for _ in range(ROUNDS)]
        await bad.do("open_bad", never=BAD, slow=BAD, **relay.target)
        await relay.fill()
        filled = time.perf_counter()
        before = rss_mib(relay.pid)
        watching = asyncio.create_task(bad.do("watch", seconds=30))
        beside = [await heard(good, relay.change()) for _ in range(ROUNDS)]
        rounds_s = time.perf_counter() - filled
        ends = await watching
        await good.do("close")
    gone = [at - filled for at in ends["gone_at"]]
    return {
        "alone": medians(alone),
        "beside": medians(beside),
        "moved": round(medians(beside)["p99_ms"] / medians(alone)["p99_ms"] - 1, 3),
        "rounds_took_s": round(rounds_s, 2),
        "cut": len(gone),
        "left": ends["left"],
        "first_gone_s": round(min(gone, default=0), 2),
        "last_gone_s": round(max(gone, default=0), 2),
        "rss_mib_when_full": before,
    }


async def storm(relay: Relay) -> Figures:
    """Let everybody come back at once, beside a steady load of evaluations."""
    path = f"/ofrep/v1/evaluate/flags/{relay.pair.demo['flag']}"
    load = SteadyLoad(relay.pair.relay_port, path, relay.pair.demo["server_key"], CLIENT_CORE)
    async with Clients.started() as clients, load.running():
        await clients.do("open", count=CLIENTS, at_once=AT_ONCE, **relay.target)
        await heard(clients, relay.change())
        before = rss_mib(relay.pid)
        await load.measured(1)
        alone = await load.measured(5)
        delays = await relay.loop_delays()
        await load.begin()
        await clients.do("close")
        opened = await clients.do("open", count=CLIENTS, at_once=CLIENTS, **relay.target)
        meanwhile = await load.end()
        delayed = {bound: n - delays[bound] for bound, n in (await relay.loop_delays()).items()}
        await heard(clients, relay.change())
        after = rss_mib(relay.pid)
        await clients.do("close")
    return {
        "served_s": opened["seconds"],
        "opened": opened["opened"],
        "refused_and_came_back": opened["refused"],
        "broken_and_came_back": opened["broken"],
        "evaluation_alone": alone,
        "evaluation_meanwhile": meanwhile,
        "ratio_p99": round(meanwhile["p99_ms"] / alone["p99_ms"], 2),
        "loop_delays_up_to_s": delayed,
        "rss_mib": {"before": before, "after": after},
    }


PARTS = {"fanout": fanout, "stuck": stuck, "storm": storm}


async def bench_streams(pair: Pair, *parts: str) -> Figures:
    """Measure the parts, all by default. The pair must have been started for this and nothing else."""
    relay = Relay(pair)
    assert pair.upstream_process is not None
    pin(relay.pid, SERVER_CORE)
    pin(pair.upstream_process.popen.pid, CLIENT_CORE)
    await relay.prepare()
    return {name: await PARTS[name](relay) for name in parts or PARTS}


async def main() -> None:
    """Run the parts named on the command line, each against a relay of its own."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as directory:
            async with Pair.started(Path(directory)) as pair:
                sys.stdout.write(json.dumps(await bench_streams(pair, part), indent=2) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
