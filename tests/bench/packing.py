"""Gzipped answers for all flags: what packing costs, what it saves, and how long a large one holds up the loop.

CPU per request for 350 flags beside nginx, which gzips the same bytes from a file for every request, at the same level;
plain and gzipped, for a context that comes again and for one that comes once. Then one answer of 10,000 flags in one
process: making it, and packing it. `python -m tests.bench.packing` runs it.
"""

import asyncio
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.serve.packing import Packer
from relay.serve.request_head import Route
from tests.bench.evaluation import BULK, CONTEXT, FileNginx, answering, compared, make_flags, new_context_script
from tests.bench.measure import SERVER_CORE, Figures, missing, pin, post_script
from tests.faults.pair import Pair
from tests.relay.objects import SPLIT, flag
from tests.relay.two_ways import START_MS, TwoWays, two_ways

LARGE = 10_000
ROUNDS = 7
ACCEPTING = 'wrk.headers["Accept-Encoding"] = "gzip"\n'
GZIP = "gzip on; gzip_comp_level 1; gzip_types *; gzip_min_length 1400;"


@dataclass
class Packing(Pair):
    """A relay that packs for its own machine, too."""

    relay_env: dict[str, str] = field(default_factory=lambda: {"HALYARD_RELAY_SERVE__COMPRESS_LOOPBACK": "true"})


async def bench_packing(pair: Packing) -> Figures:
    """CPU per request; the pair must be one of `Packing`."""
    if left_out := missing("wrk", "nginx", "taskset"):
        return left_out
    assert pair.relay_process is not None
    await make_flags(pair)
    key, relay_pid = pair.demo["server_key"], pair.relay_process.popen.pid
    pin(relay_pid, SERVER_CORE)
    again, once = post_script(key, json.dumps({"context": CONTEXT})), new_context_script(key)
    status, answer = await pair.relay().post(BULK, {"context": CONTEXT})
    assert status == 200, answer
    raw = json.dumps(answer, separators=(",", ":")).encode()
    # The script that is called "cached" is nginx's, too.
    scripts = {
        "cached": again + ACCEPTING,
        "plain_cached": again,
        "new_context": once + ACCEPTING,
        "plain_new_context": once,
    }
    with tempfile.TemporaryDirectory() as directory, FileNginx(Path(directory), raw, BULK, GZIP) as nginx:
        pin(nginx.pid, SERVER_CORE)
        url = await answering(pair, nginx, BULK)
        figures = compared(url, nginx.pid, pair.relay_url + BULK, relay_pid, scripts)
    return figures | {"answer_bytes": len(raw), "gzipped_bytes": len(gzip.compress(raw, 1))}


def bench_large() -> Figures:
    """How long the longest answer takes: made in full, and packed, whole and beside its beginning."""
    draw = random.Random(1)
    of_one_kind: dict[str, Callable[[int], dict[str, Any]]] = {
        "booleans": lambda number: flag(fallthrough=SPLIT, salt=str(number)) if number % 2 else flag(),
        "hardly_compressible": lambda number: flag(
            on=draw.randbytes(40).hex(), off="", **({"fallthrough": SPLIT, "salt": str(number)} if number % 2 else {})
        ),
    }
    return {
        name: _large(two_ways({f"flag-{number}": make(number) for number in range(LARGE)}))
        for name, make in of_one_kind.items()
    }


def _large(both: TwoWays) -> Figures:
    lane = both.hot.lane
    assert lane is not None
    served = lane._served(both.hot.world.configuration(), client_side_only=False)

    def make(number: int) -> Any:
        etag = served.etag(Route.BULK, "", {"targetingKey": f"u{number}"}, START_MS)
        return served.all(Route.BULK, "", {"targetingKey": f"u{number}"}, START_MS, etag)

    packed = served.varied(Route.BULK, make(0), is_packed=True)
    assert gzip.decompress(packed.body) == make(0).body
    answers = [make(number) for number in range(ROUNDS)]
    whole = Packer(b"")
    return {
        "answer_bytes": len(answers[0].body),
        "gzipped_bytes": len(packed.body),
        "make_ms": _median_ms(make, [*range(ROUNDS)]),
        "pack_ms": _median_ms(lambda answer: served.varied(Route.BULK, answer, is_packed=True), answers),
        "pack_whole_ms": _median_ms(lambda answer: whole.pack(answer.body), answers),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def _median_ms(call: Callable[[Any], object], given: list[Any]) -> float:
    times = []
    for each in given:
        began = time.perf_counter()
        call(each)
        times.append(time.perf_counter() - began)
    return round(statistics.median(times) * 1e3, 2)


async def main() -> None:
    """Run it."""
    figures: Figures = {"large": bench_large()}
    with tempfile.TemporaryDirectory() as directory:
        async with Packing.started(Path(directory)) as pair:
            figures["bulk"] = await bench_packing(pair)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
