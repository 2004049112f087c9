"""How the program starts: what it imports, what the shell completes, what a terminal shows."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console.terminal import StandIn, halyard, page
from upstream import __main__ as program
from upstream.console import app as console
from upstream.console import sign_ins

ROOT = Path(__file__).parents[2]
HEAVY = ("sqlalchemy", "fastapi", "aiohttp", "relay.serve", "upstream.api", "upstream.domain")


def started(*words: str, code: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own; `code` runs after it has ended."""
    script = f"import sys\nfrom upstream.__main__ import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n{code}"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_daily_commands_start_without_the_services(home: Path) -> None:
    """Neither the database nor the API, and no HTTP client before a request, is imported for one of them."""
    code = f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    assert started("toggle", "--help", code=code).stderr.strip() == "[]"
    assert home.exists()


@pytest.mark.parametrize(
    ("words", "environ", "is_daily"),
    [
        (["toggle", "x", "on"], {}, True),
        (["flags"], {}, True),
        (["up"], {}, False),
        ([], {}, False),
        (["--help"], {}, False),
        ([], {"_HALYARD_COMPLETE": "complete_bash", "COMP_WORDS": "halyard flags sh"}, True),
        ([], {"_HALYARD_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "halyard up "}, False),
    ],
)
def test_the_first_word_tells_what_is_needed(
    words: list[str], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, *, is_daily: bool
) -> None:
    """It is the word behind `halyard`, also in a line that is to be completed."""
    monkeypatch.setattr(sys, "argv", ["halyard", *words])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert (program._first_word() in console.names()) is is_daily


def completed(line: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what zsh is offered for a line."""
    monkeypatch.setenv("_HALYARD_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    typed = halyard()
    assert typed.err == ""
    return typed.out


@pytest.mark.usefixtures("signed_in")
def test_keys_are_completed_from_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags, environments, projects and segments, with their names; where the line names another project, its own."""
    assert '"payments":"Payments"' in completed("halyard toggle pay", monkeypatch)
    assert "dark-mode" not in completed("halyard toggle pay", monkeypatch)
    assert '"staging":"Staging"' in completed("halyard toggle payments -e ", monkeypatch)
    assert '"demo":"Demo"' in completed("halyard use d", monkeypatch)
    assert '"beta-testers"' in completed("halyard segments show ", monkeypatch)
    assert "payments" not in completed("halyard toggle -p nowhere pay", monkeypatch)


def test_completion_is_silent_whatever_happens(home: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, nonsense answered, or no usable file: nothing is offered and nothing is said."""
    stand_in.routes["GET /projects/shop/flags"] = page({"odd": 1})
    assert completed("halyard toggle x", monkeypatch) == "_files\n"
    stand_in.routes["GET /projects/shop/flags"] = (500, b"<html>")
    assert completed("halyard toggle x", monkeypatch) == "_files\n"
    monkeypatch.setenv("HALYARD_URL", "http://127.0.0.1:9")
    assert completed("halyard toggle x", monkeypatch) == "_files\n"
    folder = sign_ins.directory()
    folder.mkdir(parents=True)
    (folder / sign_ins.FILE).write_text("{")
    monkeypatch.delenv("HALYARD_URL")
    assert completed("halyard toggle x", monkeypatch) == "_files\n"
    assert home.exists()


def on_a_terminal(*words: str, **environ: str) -> str:
    """Return what a terminal gets to see."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "upstream", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100", **environ}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as popen:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65_536)
            except OSError:
                # The end of a terminal, on Linux.
                break
            if not part:
                break
            seen += part
        popen.wait(30)
    os.close(ours)
    return seen.decode()


@pytest.mark.usefixtures("signed_in")
def test_a_terminal_is_shown_colours_unless_it_wants_none() -> None:
    """Tables are the same without them."""
    assert "\x1b[32mon" in on_a_terminal("flags", "list")
    plain = on_a_terminal("flags", "list", NO_COLOR="1")
    assert "\x1b[3" not in plain
    assert "payments" in plain
