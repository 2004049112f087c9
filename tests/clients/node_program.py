"""Finds Node and the locked packages of a client's folder, and runs its program with JSON in and JSON out."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "node"
DEADLINE_S = 60


def missing(folder: str) -> str | None:
    """Return why the programs of a folder cannot run here, or None if they can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (FOLDER / folder / "node_modules").is_dir():
        return f"tests/clients/node/{folder} has no node_modules: run npm ci there"
    return None


async def start(folder: str, program: str) -> asyncio.subprocess.Process:
    """Start a program with pipes to its input and output."""
    return await asyncio.create_subprocess_exec(
        "node", program, cwd=FOLDER / folder, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip


async def answer(folder: str, program: str, question: object) -> Any:
    """Run a program to its end and return the JSON that it prints."""
    process = await start(folder, program)
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate(json.dumps(question).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return json.loads(out)
