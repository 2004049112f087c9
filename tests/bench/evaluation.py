"""The hot lane beside nginx: CPU per request for one flag and for 350 flags, for contexts that come once or again.

nginx answers single evaluations with `return 200` of the same bytes, and sends the bulk answer as a file from the page
cache; relay and nginx take turns on one core, the load has the other. `python -m tests.bench.evaluation` runs it alone.
"""

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.measure import SERVER_CORE, Figures, Nginx, missing, pin, post_script, wrk
from tests.faults.pair import Pair
from tests.stack import until

ROUNDS = 5
SECONDS = 2
FLAGS = 350
BULK = "/ofrep/v1/evaluate/flags"
CONTEXT = {"targetingKey": "user-1", "country": "NL", "plan": "free", "age": 17, "version": "1.9.3"}


def simple(number: int) -> dict[str, Any]:
    """Return a flag that serves the same to everybody."""
    return {"key": f"simple-{number}", "name": f"Simple {number}", "type": "boolean", "enabled": True}


def heavy(number: int) -> dict[str, Any]:
    """Return a flag of three rules with two clauses each, one of which serves a split, and a split for all others.

    What they ask differs from flag to flag, but not from all others, as in a real project.
    """
    half = {"split": {"by": "targetingKey", "weights": [["on", 50_000], ["off", 50_000]]}}
    rules = [
        {
            "when": {
                "all": [clause("country", "in", "DE", f"X{number % 7}"), clause("plan", "equals", f"pro-{number % 3}")]
            },
            "variation": "on",
        },
        {
            "when": {
                "any": [clause("age", "gte", 18 + number % 5), clause("email", "ends_with", f"@{number % 4}.example")]
            },
            "variation": "on",
        },
        {
            "when": {"all": [clause("version", "semver_gte", f"1.{number % 6}.0"), clause("plan", "exists")]},
            "serve": half,
        },
    ]
    config = {"enabled": True, "rules": rules, "fallthrough": half}
    return {"key": f"heavy-{number}", "name": f"Heavy {number}", "type": "boolean", **config}


def clause(attribute: str, op: str, *values: Any) -> dict[str, Any]:
    """Return one condition."""
    return {"attribute": attribute, "op": op, "values": list(values)}


def new_context_script(key: str) -> str:
    """Return wrk's program for a POST whose targeting key nobody has sent before."""
    body = json.dumps({"context": CONTEXT}).replace("user-1", "user-%.0f")
    return (
        post_script(key, body) + "local number = os.time() * 100000\n"
        "local body = wrk.body\n"
        "request = function()\n"
        "  number = number + 1\n"
        "  return wrk.format(nil, nil, nil, string.format(body, number))\n"
        "end\n"
    )


async def make_flags(pair: Pair) -> None:
    """Add flags, half of them simple and half heavy, until there are 350."""
    status, page = await pair.manage.get(f"{pair.project_path}/flags?limit=1")
    assert status == 200, page
    for number in range(FLAGS - page["total"]):
        body = (simple if number % 2 else heavy)(number)
        status, made = await pair.manage.post(f"{pair.project_path}/flags", body)
        assert status == 201, made
    await pair.settled()


class FileNginx(Nginx):
    """nginx that sends the answer as a file, also to a POST; its configuration takes no text of that length."""

    def __init__(self, directory: Path, answer: bytes, path: str, more: str = "") -> None:
        file = directory / "www" / path.lstrip("/")
        file.parent.mkdir(parents=True)
        file.write_bytes(answer)
        super().__init__(
            directory, b"unused", f"root {directory}/www; open_file_cache max=10; error_page 405 =200 $uri; {more}"
        )


async def answering(pair: Pair, nginx: Nginx, path: str) -> str:
    """Wait until nginx answers, and return the URL."""
    url = f"http://127.0.0.1:{nginx.port}{path}"

    async def answers() -> bool:
        assert pair.session is not None
        with contextlib.suppress(OSError):
            async with pair.session.post(url, data=b"{}") as reply:
                return reply.status == 200
        return False

    await until("nginx answers", answers)
    return url


def compared(url: str, pid: int, relay_url: str, relay_pid: int, scripts: dict[str, str]) -> Figures:
    """Load nginx and then the relay with each script, by turns; return medians and ratios."""
    cached = scripts["cached"]
    rounds: list[dict[str, Figures]] = []
    for _ in range(ROUNDS):
        round_ = {"nginx": wrk(url, cached, pid, SECONDS)}
        round_ |= {name: wrk(relay_url, script, relay_pid, SECONDS) for name, script in scripts.items()}
        rounds.append(round_)

    def median(name: str) -> float:
        return float(statistics.median(round_[name]["cpu_us"] for round_ in rounds))

    figures: Figures = {"nginx_cpu_us": median("nginx")}
    for name in scripts:
        figures[f"{name}_cpu_us"] = median(name)
        figures[f"{name}_ratio"] = round(
            statistics.median(round_["nginx"]["cpu_us"] / round_[name]["cpu_us"] for round_ in rounds), 3
        )
    figures["bad"] = [note for round_ in rounds for side in round_.values() for note in side["bad"]]
    return figures


async def bench_evaluation(pair: Pair) -> Figures:
    """CPU per request for one flag and for all."""
    if left_out := missing("wrk", "nginx", "taskset"):
        return left_out
    assert pair.relay_process is not None
    await make_flags(pair)
    key, relay_pid = pair.demo["server_key"], pair.relay_process.popen.pid
    pin(relay_pid, SERVER_CORE)
    scripts = {"cached": post_script(key, json.dumps({"context": CONTEXT})), "new_context": new_context_script(key)}
    figures: Figures = {}
    for name, path in (("single", f"{BULK}/heavy-0"), ("bulk", BULK)):
        status, answer = await pair.relay().post(path, {"context": CONTEXT})
        assert status == 200, answer
        raw = json.dumps(answer, separators=(",", ":")).encode()
        with tempfile.TemporaryDirectory() as directory:
            where = Path(directory)
            with FileNginx(where, raw, BULK) if name == "bulk" else Nginx(where, raw) as nginx:
                pin(nginx.pid, SERVER_CORE)
                url = await answering(pair, nginx, path)
                figures[name] = compared(url, nginx.pid, pair.relay_url + path, relay_pid, scripts)
                figures[name]["answer_bytes"] = len(raw)
    return figures


async def main() -> None:
    """Run it."""
    with tempfile.TemporaryDirectory() as directory:
        async with Pair.started(Path(directory)) as pair:
            sys.stdout.write(json.dumps(await bench_evaluation(pair), indent=2) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
