"""The programs that the tests of the web provider need; a test is skipped with the reason where one is missing."""

import asyncio
import shutil
from enum import StrEnum
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent / "node" / "web"
_MODULES = PROJECT / "node_modules"


class Where(StrEnum):
    """What runs the JavaScript."""

    NODE = "node"
    CHROMIUM = "chromium"


def node() -> str:
    """Return the path of Node; skip the test if it, or what npm installs, is not there."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not on this machine")
    if not _MODULES.is_dir():
        pytest.skip("tests/clients/node/web/node_modules is missing: run `make test-system`, or `npm ci` there")
    return program


def chromium() -> str:
    """Return the path of Chromium; skip the test if it is not there."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not on this machine")
    return program


async def bundle(entry: str) -> bytes:
    """Return one of the project's sources with all that it imports, as a browser's script."""
    node()
    process = await asyncio.create_subprocess_exec(
        str(_MODULES / ".bin" / "esbuild"), str(PROJECT / "src" / entry), "--bundle", "--format=iife",
        "--log-level=error", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    script, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return script
