"""`docs/cli.md`: its session is what happens, and its reference is what the commands say."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.reference import DOCUMENT, written
from tests.docs.test_documents import Reader
from upstream.console.failures import Exit


def test_every_command_and_option_is_documented() -> None:
    """The reference is up to date; if not: `python -m tests.console.reference --write`."""
    text = DOCUMENT.read_text()
    assert text == written(text)


def test_every_exit_status_is_documented() -> None:
    """The table has a row for each, and no other."""
    rows = re.findall(r"^\| (\d) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == list(Exit)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Somebody with `halyard` in their path."""
    program = tmp_path / "bin/halyard"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m upstream "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(DOCUMENT.parents[1]))
    opened = Reader(tmp_path)
    try:
        yield opened
    finally:
        opened.leave()


@pytest.mark.system
def test_the_session_works_as_it_stands(reader: Reader) -> None:
    """Every command of the page prints what is shown after it."""
    reader.follow(DOCUMENT)
