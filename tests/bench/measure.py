"""What every part of the bench measures with: CPU from /proc, pinned cores, wrk, nginx as the reference, spreads."""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Self

from tests.stack import free_port

SERVER_CORE = 0
CLIENT_CORE = 1
CONNECTIONS = 64
Figures = dict[str, Any]


def missing(*programs: str) -> Figures | None:
    """Return what a part reports that cannot run here, None if all programs are there."""
    absent = [program for program in programs if not shutil.which(program)]
    return {"left_out": f"not on this machine: {', '.join(absent)}"} if absent else None


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process, without its children, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(fields[index]) for index in (11, 12)) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB, from /proc."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20), 1)


def pin(pid: int, core: int) -> None:
    """Pin every thread of a process to one core, where there is more than one."""
    if (os.cpu_count() or 1) > 1:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


def wrk(url: str, script: str, pid: int, seconds: float) -> Figures:
    """Load one URL from the client's core.

    Returns:
        Requests per second, CPU microseconds of process `pid` per request, and wrk's lines about anything that was not
        answered 2xx.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        core = ["taskset", "-c", str(CLIENT_CORE)] if (os.cpu_count() or 1) > 1 else []
        command = [*core, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", file.name, url]
        before = cpu_seconds(pid)
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        spent = cpu_seconds(pid) - before
    total = int(next(line for line in out.splitlines() if "requests in" in line).split()[0])
    bad = [line.strip() for line in out.splitlines() if "Non-2xx" in line or "Socket errors" in line]
    return {"requests_per_s": round(total / seconds), "cpu_us": round(spent / total * 1e6, 2), "bad": bad}


class Nginx:
    """nginx with one worker that answers every request with the same bytes, kept in memory."""

    def __init__(self, directory: Path, answer: bytes, location: str | None = None) -> None:
        self.port = free_port()
        quoted = answer.decode().replace("\\", "\\\\").replace("'", "\\'").replace("$", "${dollar}")
        answering = location or f"return 200 '{quoted}';"
        (directory / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;\n"
            "events { worker_connections 1024; }\n"
            'http { geo $dollar { default "$"; }\n'
            " access_log off; keepalive_requests 100000000; default_type application/json;\n"
            f" client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};\n"
            f" uwsgi_temp_path {directory}; scgi_temp_path {directory};\n"
            f" server {{ listen 127.0.0.1:{self.port}; location / {{ {answering} }} }} }}\n"
        )
        self.popen = subprocess.Popen(["nginx", "-p", str(directory), "-c", str(directory / "nginx.conf")])
        self.pid = self.popen.pid

    def __enter__(self) -> Self:
        """Run until the block ends."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.popen.terminate()
        self.popen.wait()


def post_script(key: str, body: str) -> str:
    """Return wrk's program for one repeated POST."""
    return (
        'wrk.method = "POST"\n'
        f"wrk.body = {json.dumps(body)}\n"
        f'wrk.headers["Authorization"] = "Bearer {key}"\n'
        'wrk.headers["Content-Type"] = "application/json"\n'
    )


def spread(times_ms: Collection[float]) -> Figures:
    """Return median, 99th percentile and maximum."""
    ordered = sorted(times_ms)
    return {
        "p50_ms": round(statistics.median(ordered), 2),
        "p99_ms": round(ordered[max(0, round(len(ordered) * 0.99) - 1)], 2),
        "max_ms": round(ordered[-1], 2),
        "n": len(ordered),
    }
