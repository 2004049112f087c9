"""One OFREP evaluation over keep-alive connections, beside nginx answering the same bytes with `return 200`."""

import json
import statistics
import tempfile
from pathlib import Path

from tests.bench.measure import SERVER_CORE, Figures, Nginx, missing, pin, post_script, wrk
from tests.faults.pair import Pair
from tests.stack import until

ROUNDS = 3
SECONDS = 5


async def bench_evaluation(pair: Pair) -> Figures:
    """CPU per OFREP evaluation beside nginx."""
    if left_out := missing("wrk", "nginx", "taskset"):
        return left_out
    assert pair.relay_process is not None
    path = f"/ofrep/v1/evaluate/flags/{pair.demo['flag']}"
    body = json.dumps({"context": {"targetingKey": "user-1", "country": "NL", "plan": "pro"}})
    status, answer = await pair.relay().post(path, body.encode())
    assert status == 200, answer
    script = post_script(pair.demo["server_key"], body)
    relay_pid = pair.relay_process.popen.pid
    with (
        tempfile.TemporaryDirectory() as directory,
        Nginx(Path(directory), json.dumps(answer, separators=(",", ":")).encode()) as nginx,
    ):
        pin(relay_pid, SERVER_CORE)
        pin(nginx.pid, SERVER_CORE)
        url = f"http://127.0.0.1:{nginx.port}{path}"

        async def answers() -> bool:
            assert pair.session is not None
            async with pair.session.post(url, data=body) as reply:
                return reply.status == 200

        await until("nginx answers", answers)
        rounds = [
            (wrk(url, script, nginx.pid, SECONDS), wrk(pair.relay_url + path, script, relay_pid, SECONDS))
            for _ in range(ROUNDS)
        ]
    reference = statistics.median(round_[0]["cpu_us"] for round_ in rounds)
    own = statistics.median(round_[1]["cpu_us"] for round_ in rounds)
    return {
        "nginx_cpu_us": reference,
        "relay_cpu_us": own,
        "relay_requests_per_s": statistics.median(round_[1]["requests_per_s"] for round_ in rounds),
        "ratio_to_nginx": round(reference / own, 3),
        "bad": [note for round_ in rounds for side in round_ for note in side["bad"]],
    }
