"""What the documents show is what happens: their commands are run, their outputs compared, their links followed.

The word after a block's language says how it is run. ```sh runs in one shell, ```sh repeat is run until its output is
as shown, ```sh terminal-N stays running in a terminal of its own, whose output ```text terminal-N waits for; `^C`
there ends it. The ```text or ```json block after a command is its output. `…` stands for anything; in JSON,
`"…": "…"` for further members and a `"…"` element for further elements. Only ports and `make run` are replaced.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.docs.metrics_table import rows, with_tables
from tests.stack import DEADLINE_S, free_port

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
NODE_MODULES = ROOT / "tests/clients/node/server/node_modules"
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ANY = "…"
POLL_S = 0.05


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the word after it, and its text."""

    language: str
    how: str
    text: str


def blocks_of(document: Path) -> list[Block]:
    """Return the fenced blocks of a document in order."""
    return [Block(*found) for found in BLOCK.findall(document.read_text())]


def until(what: str, attempt: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Call `attempt` until it is true."""
    end = time.monotonic() + DEADLINE_S
    while not attempt():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S} s; seen:\n{seen()}"
        time.sleep(POLL_S)  # between two looks at the condition


def pattern_of(text: str) -> str:
    """Return the pattern of a text in which `…` stands for anything."""
    return ".*?".join(re.escape(part) for part in text.split(ANY))


def is_like(shown: Any, seen: Any) -> bool:
    """Compare a JSON value with the one that a document shows."""
    if shown == ANY:
        return True
    if isinstance(shown, dict):
        named = {name: value for name, value in shown.items() if name != ANY}
        is_whole = ANY in shown or (isinstance(seen, dict) and seen.keys() == named.keys())
        return (
            isinstance(seen, dict)
            and is_whole
            and all(name in seen and is_like(value, seen[name]) for name, value in named.items())
        )
    if isinstance(shown, list):
        listed = [each for each in shown if each != ANY]
        if not isinstance(seen, list) or len(seen) < len(listed) or (len(listed) == len(shown) != len(seen)):
            return False
        return all(is_like(one, other) for one, other in zip(listed, seen, strict=False))
    if isinstance(shown, str) and isinstance(seen, str):
        return re.fullmatch(pattern_of(shown), seen, re.DOTALL) is not None
    return type(shown) is type(seen) and bool(shown == seen)


def is_shown(block: Block, seen: str) -> bool:
    """Tell whether a command printed what the block after it shows."""
    if block.language == "text":
        return re.fullmatch(pattern_of(block.text.strip()), seen.strip(), re.DOTALL) is not None
    try:
        return is_like(json.loads(block.text), json.loads(seen))
    except ValueError:
        return False


@dataclass
class Terminal:
    """A terminal in which something stays running, and how much of its output has been looked at."""

    popen: subprocess.Popen[bytes]
    output: Path
    looked_at: int = 0

    def wait_for(self, text: str) -> None:
        """Wait until the lines have appeared, after those that were waited for before."""
        pattern = re.compile(pattern_of(text.strip()), re.DOTALL)

        def has_come() -> bool:
            found = pattern.search(self.output.read_text(), self.looked_at)
            self.looked_at = found.end() if found else self.looked_at
            return found is not None

        until(f"{text!r} in a terminal", has_come, self.output.read_text)

    def interrupt(self) -> None:
        """Press Ctrl-C and wait for the end."""
        os.killpg(self.popen.pid, signal.SIGINT)
        assert self.popen.wait(DEADLINE_S) == 0, self.output.read_text()


@dataclass
class Reader:
    """Somebody who follows a document in an empty directory, with ports of their own."""

    directory: Path
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in ("8700", "8701", "8702")})
    terminals: dict[str, Terminal] = field(default_factory=dict)
    variables: str = ""

    def here(self, text: str) -> str:
        """Return the text with the ports of this installation, and without the installation step of `make run`."""
        for usual, ours in self.ports.items():
            text = re.sub(rf"\b{usual}\b", ours, text)
        upstream, relay, admin = self.ports.values()
        ports = f"--upstream-port {upstream} --relay-port {relay} --admin-port {admin}"
        return text.replace(
            "make run", f"exec {sys.executable} -P -m upstream up --data-dir halyard-data --demo {ports}"
        )

    def follow(self, document: Path) -> None:
        """Run the document's commands, and compare their outputs."""
        blocks = [Block(each.language, each.how, self.here(each.text)) for each in blocks_of(document)]
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            shown = after if after is not None and after.language in {"text", "json"} and not after.how else None
            if block.how.startswith("terminal-"):
                self._at_terminal(block)
            elif block.language == "sh":
                self._run(block, shown, ["bash", "-e", "-c"])
            elif block.language == "python":
                self._run(block, shown, [sys.executable, "-c"])
            elif block.language == "js" and not node_is_missing():
                (self.directory / "node_modules").symlink_to(NODE_MODULES)
                self._run(block, shown, ["node", "--input-type=module", "-e"])

    def _run(self, block: Block, shown: Block | None, command: list[str]) -> None:
        # Shell variables live on, as in a terminal: whatever only sets them is put before each later block.
        text = self.variables + block.text if block.language == "sh" else block.text
        if block.language == "sh" and shown is None:
            self.variables += block.text
        last: list[str] = []

        def attempt() -> bool:
            ran = subprocess.run(
                [*command, text], cwd=self.directory, capture_output=True, text=True, timeout=DEADLINE_S, check=False
            )
            assert ran.returncode == 0, f"{block.text}\n{ran.stdout}\n{ran.stderr}"
            last[:] = [ran.stdout]
            return shown is None or is_shown(shown, ran.stdout)

        if block.how == "repeat":
            until(block.text, attempt, lambda: last)
        else:
            assert attempt(), f"{block.text}\nshown: {shown and shown.text}\nprinted: {last[0]}"

    def _at_terminal(self, block: Block) -> None:
        if block.language == "sh":
            output = self.directory / f"{block.how}.txt"
            with output.open("wb") as sink:
                popen = subprocess.Popen(
                    ["bash", "-e", "-c", block.text],
                    cwd=self.directory,
                    env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.terminals[block.how] = Terminal(popen, output)
        elif block.text.strip() == "^C":
            self.terminals[block.how].interrupt()
        else:
            self.terminals[block.how].wait_for(block.text)

    def leave(self) -> None:
        """End what still runs."""
        for terminal in self.terminals.values():
            if terminal.popen.poll() is None:
                os.killpg(terminal.popen.pid, signal.SIGTERM)
                terminal.popen.wait(DEADLINE_S)


def node_is_missing() -> bool:
    """Tell whether the Node example cannot be run here."""
    return shutil.which("node") is None or not NODE_MODULES.is_dir()


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Return a reader whose programs are ended afterwards."""
    reader = Reader(tmp_path)
    try:
        yield reader
    finally:
        reader.leave()


@pytest.mark.parametrize(
    ("shown", "seen", "is_same"),
    [
        ('{"a": "…", "…": "…"}', '{"a": 1, "b": 2}', True),
        ('{"a": "…"}', '{"a": 1, "b": 2}', False),
        ('{"a": true}', '{"a": 1}', False),
        ('{"a": "x…"}', '{"a": "yx"}', False),
        ('[1, "…"]', "[1, 2, 3]", True),
        ("[1]", "[1, 2]", False),
        ('{"b": 1, "…": "…"}', '{"a": 1}', False),
        ("{}", "no JSON", False),
    ],
)
def test_outputs_are_compared_strictly_but_for_what_is_left_out(shown: str, seen: str, *, is_same: bool) -> None:
    """Only what a document marks with `…` may differ from what was printed."""
    assert is_shown(Block("json", "", shown), seen) is is_same


@pytest.mark.parametrize("name", ["quickstart.md", "ofrep.md", "flags.md", "governance.md", "management-api.md"])
def test_no_shown_output_is_passed_over(name: str) -> None:
    """Each output without a terminal's name stands right after the command that prints it."""
    blocks = blocks_of(ROOT / "docs" / name)
    runnable = {"sh", "python", "js"}
    for before, block in pairwise(blocks):
        if block.language in {"text", "json"} and not block.how:
            assert before.language in runnable, block.text
            assert not before.how.startswith("terminal-"), block.text


def test_the_quickstart_works_as_it_stands(reader: Reader) -> None:
    """Every command of the quickstart prints what is shown after it."""
    reader.follow(ROOT / "docs/quickstart.md")


@pytest.fixture
def demo(reader: Reader) -> Reader:
    """Return a reader who has started the demo project."""
    start = reader.directory / "start.md"
    start.write_text("```sh terminal-1\nmake run\n```\n\n```text terminal-1\nReady.\n```\n")
    reader.follow(start)
    return reader


def test_the_management_page_works_as_it_stands(demo: Reader) -> None:
    """Every example of the page about the management API prints what is shown after it."""
    demo.follow(ROOT / "docs/management-api.md")


def test_the_page_on_flags_works_as_it_stands(demo: Reader) -> None:
    """Every command of the page on flags prints what is shown after it."""
    demo.follow(ROOT / "docs/flags.md")


def test_the_page_on_governance_works_as_it_stands(demo: Reader) -> None:
    """Every command of the page on history, schedules and reviews prints what is shown after it."""
    demo.follow(ROOT / "docs/governance.md")


def test_the_ofrep_page_works_as_it_stands(demo: Reader) -> None:
    """Every shell, Python and Node example of the OFREP page prints what is shown after it."""
    demo.follow(ROOT / "docs/ofrep.md")
    if node_is_missing():
        pytest.skip("the Node example was not run: node or tests/clients/node/server/node_modules is missing")


def test_every_page_is_in_the_index() -> None:
    """Nobody has to know the name of a page to find it."""
    index = (ROOT / "docs/README.md").read_text()
    pages = {document.name for document in DOCUMENTS if document.parent.name == "docs"} - {"README.md"}
    assert set(re.findall(r"\]\((.+?\.md)\)", index)) == pages


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    """Each relative link names a file that exists, and each anchor a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", document.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
        assert not anchor or anchor in slugs, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_setting_that_is_named_exists(document: Path) -> None:
    """Each `relay.x.y` or `upstream.x.y` in a code span is a setting, a table of settings, or something in the code."""
    known: set[str] = set()
    table = ""
    for line in (ROOT / "config.example.toml").read_text().splitlines():
        if found := re.fullmatch(r"\[(.+)\]", line):
            table = found[1]
            known.add(table)
        elif setting := re.match(r"#(\w+) = ", line):
            known.add(f"{table}.{setting[1]}")
    named = re.findall(r"`((?:relay|upstream)(?:\.\w+)+)(?: = [^`]*)?`", document.read_text())
    assert [each for each in named if each not in known and not is_code(each)] == []


def is_code(dotted: str) -> bool:
    """Tell whether a dotted name is a module, or a name that stands in one."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module = path.parent.with_suffix(".py")
    return module.exists() and re.search(rf"\b{path.name}\b", module.read_text()) is not None


def test_every_metric_has_its_row() -> None:
    """The tables of docs/metrics.md are as `python -m tests.docs.metrics_table` writes them: no row more, none less."""
    page = (ROOT / "docs/metrics.md").read_text()
    assert with_tables(page) == page
    listed = re.findall(r"^\| `(\w+)` \| (?:counter|gauge|histogram) \|", page, re.MULTILINE)
    assert listed == [name for name, *_ in rows("relay")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_route_and_metric_that_is_named_exists(document: Path) -> None:
    """Each path of the API and each metric in a code span stands in the code of one of the services."""
    text = document.read_text()
    code = "\n".join(path.read_text() for part in ("relay", "upstream") for path in (ROOT / part).rglob("*.py"))
    known = {name for service in ("relay", "upstream") for name, *_ in rows(service)}
    assert set(re.findall(r"`(halyard_(?:relay|upstream)_[a-z_]+)", text)) <= known
    for route in re.findall(r"`(?:[A-Z]+ )?(/(?:api/v2|ofrep)/[^`?…\s]*)", text):
        # The upstream's routers have their own prefixes, so each fixed part is looked for by itself.
        fixed = [part for part in re.split(r"[/:]", re.sub(r"\{[^}]*\}", "", route)) if part]
        assert [part for part in fixed if not re.search(rf"[/:]{re.escape(part)}\b", code)] == [], route
