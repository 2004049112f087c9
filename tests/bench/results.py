"""Results as JSON, one file per commit, so that a later run can be held against an earlier one."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.measure import Figures

DIRECTORY = Path(__file__).parent / "results"


def heading() -> Figures:
    """Return what a run is about: when, which commit, which machine."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
        "machine": f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def latest() -> Figures | None:
    """Return the newest results that were kept, None if there are none."""
    kept = [json.loads(path.read_text()) for path in DIRECTORY.glob("*.json")]
    found: Figures | None = max(kept, key=lambda results: str(results["at"]), default=None)
    return found


def keep(results: Figures) -> Path:
    """Write results under the name of their commit; parts that were measured before at this commit stay."""
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{results['commit']}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | results, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=False, capture_output=True, text=True).stdout.strip()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
