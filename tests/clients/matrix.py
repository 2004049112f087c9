"""What each published OpenFeature client must read for each question: the questions, the answers, the known deviations.

A question is a case in a scene: which relay is asked with which key. The expected outcome is what Halyard means;
where a client gives its caller something else, that is written beside it with the reason. The table of
`docs/clients.md` is made from these rows: `python -m tests.clients.matrix --write`.
"""

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from tests.clients import node_program, python_driver, server_driver
from tests.clients.cases import Case, Outcome, Type
from tests.clients.flags import LARGE, LIST, METADATA, OBJECT, TEXT
from tests.clients.web import driver as web_driver
from tests.stack import Running

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
_LONGEST_CELL: Final = 40

NO_VARIANT: Final = ""
"""The variant of an answer without a value."""

PYTHON, NODE, NODE_WEB, CHROMIUM = "Python", "Node", "Web in Node", "Web in Chromium"
WEB: Final = (NODE_WEB, CHROMIUM)

Driver = Callable[[Running, Sequence[Case]], Awaitable[Sequence[Outcome]]]


class Scene(StrEnum):
    """Which relay is asked, and with which key."""

    USUAL = "usual"
    CLIENT_KEY = "client key"
    REVOKED = "revoked key"
    MANY = "relay key"
    HELD = "upstream away"
    EMPTY = "relay without configuration"
    NOBODY = "nobody listens"


@dataclass(frozen=True, slots=True)
class Client:
    """A published client: its driver, whether it has JavaScript's one type of number, and why it cannot run here."""

    name: str
    driver: Driver
    one_number: bool
    missing: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class But:
    """What one client gives its caller instead, and why."""

    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """One question. `expected` is what Halyard means; `only` names the clients that are asked, all if it is empty."""

    case: Case
    expected: Outcome
    scene: Scene = Scene.USUAL
    but: Mapping[str, But] = field(default_factory=dict)
    only: tuple[str, ...] = ()

    def asks(self, client: str) -> bool:
        return not self.only or client in self.only

    def outcome(self, client: str) -> Outcome:
        return self.but[client].outcome if client in self.but else self.expected


def _found(value: Any, variant: str, reason: str, metadata: Mapping[str, Any] | None = None) -> Outcome:
    return Outcome(value, variant, reason, None, metadata or {})


_OFF: Final = False


def _off(metadata: Mapping[str, Any] | None = None, reason: str = "DEFAULT") -> Outcome:
    return _found(_OFF, "off", reason, metadata)


def _on(metadata: Mapping[str, Any] | None = None) -> Outcome:
    return _found(not _OFF, "on", "STATIC", metadata)


def _left(default: Any, reason: str, metadata: Mapping[str, Any] | None = None) -> Outcome:
    """Return the outcome of an answer without a value: the code's default, and the reason that the flag has."""
    return Outcome(default, NO_VARIANT, reason, None, metadata or {})


def _failed(code: str, default: Any, metadata: Mapping[str, Any] | None = None) -> Outcome:
    return Outcome(default, None, "ERROR", code, metadata or {})


def _web(outcome: Outcome, why: str) -> Mapping[str, But]:
    return {name: But(outcome, why) for name in WEB}


def _context(**attributes: Any) -> dict[str, Any]:
    return {"targetingKey": "user-1", **attributes}


_STRICT_NUMBERS: Final = (
    "the client takes only a float for a float: a whole number that was made without a point is an int"
)
_ONE_NUMBER: Final = "JavaScript has one type of number, and the client one method for it"
_BOOL_IS_INT: Final = "Python takes True for an int, and the client does not look twice"
_DOUBLE: Final = "JavaScript's numbers are doubles: from 2^53 on, neighbours look the same"
_NO_DATES: Final = "the client does not turn dates into JSON: hand over `.isoformat()`"
_NO_VALUE: Final = "Node's client takes an answer without a value for a broken one"
_GROUP: Final = "a public key is not told which group or which hidden flag blocks a flag"

_BLOCKED: Final = {"halyardReason": "PREREQUISITE_FAILED", "halyardBlockedBy": "of-disabled"}

_ERROR_METADATA: Final = "the web client keeps the flag's metadata on an error"
_SET_METADATA: Final = "where the web client has no flag it shows the metadata of the whole answer"

# The number itself depends on how often the environment was changed.
REVISION: Final = -1
SET_METADATA: Final = {"environment": "production", "revision": REVISION}
LONE_SURROGATE: Final = "\ud83d"

_TYPES: Final = (
    Row(Case("boolean", "of-boolean", Type.BOOLEAN, default=False), _on(METADATA)),
    Row(Case("string, any script, emoji", "of-string", Type.STRING, "code"), _found(TEXT, "hello", "STATIC")),
    Row(Case("empty string", "of-empty-string", Type.STRING, "code"), _found("", "none", "STATIC")),
    Row(Case("integer", "of-integer", Type.INTEGER, 7), _found(5, "few", "STATIC")),
    Row(Case("integer 0", "of-zero", Type.INTEGER, 7), _found(0, "zero", "STATIC")),
    Row(
        Case("integer beyond 2^53", "of-large-integer", Type.INTEGER, 7),
        _found(LARGE, "large", "STATIC"),
        but={name: But(_found(LARGE - 1, "large", "STATIC"), _DOUBLE) for name in (NODE, *WEB)},
    ),
    Row(Case("float", "of-float", Type.FLOAT, 7.5), _found(0.5, "half", "STATIC")),
    Row(Case("float 1.0", "of-whole-float", Type.FLOAT, 7.5), _found(1.0, "one", "STATIC")),
    Row(Case("1 of a flag with 0.5", "of-mixed-float", Type.FLOAT, 7.5), _found(1.0, "one", "STATIC")),
    Row(Case("1 of a flag declared float", "of-declared-float", Type.FLOAT, 7.5), _found(1.0, "one", "STATIC")),
    Row(Case("object, nested", "of-object", Type.OBJECT, {"code": True}), _found(OBJECT, "full", "STATIC")),
    Row(Case("list", "of-list", Type.OBJECT, ["code"]), _found(LIST, "full", "STATIC")),
)

_REASONS: Final = (
    Row(
        Case("no rule matches", "of-targeted", Type.STRING, "code", {"targetingKey": "user-2", "plan": "free"}),
        _found("rest", "rest", "DEFAULT"),
    ),
    Row(
        Case("a rule matches", "of-targeted", Type.STRING, "code", {"targetingKey": "user-2", "plan": "pro"}),
        _found("rule", "rule", "TARGETING_MATCH"),
    ),
    Row(Case("a single user", "of-targeted", Type.STRING, "code"), _found("target", "target", "TARGETING_MATCH")),
    Row(Case("a share", "of-split", Type.STRING, "code"), _found("left", "left", "SPLIT")),
    Row(
        Case("the other share", "of-split", Type.STRING, "code", {"targetingKey": "user-4"}),
        _found("right", "right", "SPLIT"),
    ),
    Row(
        Case("a share by a nested attribute", "of-split-by-company", Type.STRING, "code", {"company": {"id": 42}}),
        _found("left", "left", "SPLIT"),
    ),
    Row(Case("switched off", "of-disabled", Type.BOOLEAN, default=True), _off(reason="DISABLED")),
    Row(
        Case("switched off, off is null", "of-code-boolean", Type.BOOLEAN, default=True),
        _left(default=True, reason="DISABLED"),
        but={NODE: But(_failed("GENERAL", default=True), _NO_VALUE)},
    ),
    Row(
        Case("what it requires is off, off is null", "of-code-string", Type.STRING, "code"),
        _left("code", "DEFAULT", _BLOCKED),
        but={NODE: But(_failed("GENERAL", "code"), _NO_VALUE)},
    ),
    Row(
        Case("what it requires is off", "of-dependent", Type.BOOLEAN, default=True),
        _off(_BLOCKED),
    ),
    Row(Case("in the exclusion group, chosen", "of-first", Type.BOOLEAN, default=False), _on()),
    Row(
        Case("in the exclusion group, not chosen", "of-second", Type.BOOLEAN, default=True),
        _off({"halyardReason": "EXCLUDED", "halyardBlockedBy": "of-group"}),
        but=_web(_off({"halyardReason": "EXCLUDED"}), _GROUP),
    ),
)

_CONTEXTS: Final = (
    Row(Case("no context", "of-context", Type.STRING, "code", None), _found("rest", "rest", "DEFAULT")),
    Row(Case("an empty context", "of-context", Type.STRING, "code", {}), _found("rest", "rest", "DEFAULT")),
    Row(
        Case("a nested object", "of-context", Type.STRING, "code", _context(address={"city": "Zürich"})),
        _found("city", "city", "TARGETING_MATCH"),
    ),
    Row(
        Case("a list", "of-context", Type.STRING, "code", _context(tags=["alpha", "beta"])),
        _found("tags", "tags", "TARGETING_MATCH"),
    ),
    Row(
        Case("a number", "of-context", Type.STRING, "code", _context(age=18)),
        _found("age", "age", "TARGETING_MATCH"),
    ),
    Row(
        Case("a boolean", "of-context", Type.STRING, "code", _context(member=True)),
        _found("member", "member", "TARGETING_MATCH"),
    ),
    Row(
        Case("a date as text", "of-context", Type.STRING, "code", _context(signed_up="2026-05-01T12:00:00+02:00")),
        _found("date", "date", "TARGETING_MATCH"),
    ),
    Row(
        Case(
            "a date of the language", "of-context", Type.STRING, "code",
            _context(signed_up="2026-05-01T12:00:00+02:00"), frozenset({"signed_up"}),
        ),
        _found("date", "date", "TARGETING_MATCH"),
        but={PYTHON: But(_failed("GENERAL", "code"), _NO_DATES)},
    ),
    Row(
        Case("an emoji of three code points", "of-context", Type.STRING, "code", _context(mood="👩‍🚀 up")),
        _found("emoji", "emoji", "TARGETING_MATCH"),
    ),
    Row(
        Case("a targeting key in any script", "of-targeted", Type.STRING, "code", {"targetingKey": "用户 ü/?#"}),
        _found("rest", "rest", "DEFAULT"),
    ),
)  # fmt: skip

_WRONG_TYPES: Final = (
    Row(
        Case("boolean asked as string", "of-boolean", Type.STRING, "code"),
        _failed("TYPE_MISMATCH", "code"),
        but=_web(_failed("TYPE_MISMATCH", "code", METADATA), _ERROR_METADATA),
    ),
    Row(
        Case("boolean asked as integer", "of-boolean", Type.INTEGER, 7),
        _failed("TYPE_MISMATCH", 7),
        but={PYTHON: But(_on(METADATA), _BOOL_IS_INT), **_web(_failed("TYPE_MISMATCH", 7, METADATA), _ERROR_METADATA)},
    ),
    Row(
        Case("string asked as boolean", "of-string", Type.BOOLEAN, default=True), _failed("TYPE_MISMATCH", default=True)
    ),
    Row(
        Case("integer asked as float", "of-integer", Type.FLOAT, 7.5),
        _found(5, "few", "STATIC"),
        but={PYTHON: But(_failed("TYPE_MISMATCH", 7.5), _STRICT_NUMBERS)},
    ),
    Row(
        Case("float asked as integer", "of-float", Type.INTEGER, 7),
        _failed("TYPE_MISMATCH", 7),
        but={name: But(_found(0.5, "half", "STATIC"), _ONE_NUMBER) for name in (NODE, *WEB)},
    ),
    Row(Case("object asked as string", "of-object", Type.STRING, "code"), _failed("TYPE_MISMATCH", "code")),
    Row(Case("string asked as object", "of-string", Type.OBJECT, {"a": 1}), _failed("TYPE_MISMATCH", {"a": 1})),
)

_ERRORS: Final = (
    Row(
        Case("an unknown flag", "of-nowhere", Type.BOOLEAN, default=True),
        _failed("FLAG_NOT_FOUND", default=True),
        but=_web(_failed("FLAG_NOT_FOUND", default=True, metadata=SET_METADATA), _SET_METADATA),
    ),
    Row(
        Case("a key that no flag can have", "of/übel %2F", Type.STRING, "code"),
        _failed("FLAG_NOT_FOUND", "code"),
        but=_web(_failed("FLAG_NOT_FOUND", "code", SET_METADATA), _SET_METADATA),
    ),
    Row(
        Case("a share without a targeting key", "of-split", Type.STRING, "code", {}),
        _failed("TARGETING_KEY_MISSING", "code"),
    ),
    Row(
        Case("half an emoji in the context", "of-string", Type.STRING, "code", _context(mood=LONE_SURROGATE)),
        _failed("PARSE_ERROR", "code"),
        only=(PYTHON, NODE),
    ),
    Row(
        Case("a context of 70,000 letters", "of-string", Type.STRING, "code", _context(essay="x" * 70_000)),
        _failed("GENERAL", "code"),
        only=(PYTHON, NODE),
    ),
)

_KEYS: Final = (
    Row(
        Case("a flag for servers only", "of-server-only", Type.BOOLEAN, default=False),
        _on(),
        only=(PYTHON, NODE),
    ),
    Row(
        Case("a flag for browsers", "of-integer", Type.INTEGER, 7), _found(5, "few", "STATIC"), Scene.CLIENT_KEY,
    ),
    Row(
        Case("a flag for servers only", "of-server-only", Type.BOOLEAN, default=False),
        _failed("FLAG_NOT_FOUND", default=False),
        Scene.CLIENT_KEY,
        _web(_failed("FLAG_NOT_FOUND", default=False, metadata=SET_METADATA), _SET_METADATA),
    ),
    Row(
        Case("any flag", "of-integer", Type.INTEGER, 7), _failed("GENERAL", 7), Scene.REVOKED, only=(PYTHON, NODE),
    ),
    Row(Case("any flag", "of-integer", Type.INTEGER, 7), _failed("GENERAL", 7), Scene.MANY, only=(PYTHON, NODE)),
)  # fmt: skip

_TROUBLE: Final = tuple(
    Row(Case("any flag", "of-integer", Type.INTEGER, 7), expected, scene, only=only)
    for scene, expected, only in (
        # In Chromium the driver makes a key of its own, which needs the upstream.
        (Scene.HELD, _found(5, "few", "STATIC"), (PYTHON, NODE, NODE_WEB)),
        (Scene.EMPTY, _failed("GENERAL", 7), (PYTHON, NODE)),
        (Scene.NOBODY, _failed("GENERAL", 7), (PYTHON, NODE)),
    )
)

ROWS: Final[Sequence[Row]] = (*_TYPES, *_REASONS, *_CONTEXTS, *_WRONG_TYPES, *_ERRORS, *_KEYS, *_TROUBLE)


def clients() -> list[Client]:
    """Return every client; the web provider's drivers skip by themselves where a program is missing."""
    return [
        Client(PYTHON, python_driver.ask, one_number=False, missing=lambda: None),
        Client(NODE, server_driver.ask, one_number=True, missing=lambda: node_program.missing("server")),
        Client(NODE_WEB, web_driver.in_node, one_number=True, missing=lambda: None),
        Client(CHROMIUM, web_driver.in_chromium, one_number=True, missing=lambda: None),
    ]


def canonical(outcome: Outcome, *, one_number: bool) -> str:
    """Return an outcome as text in which 1, 1.0 and true differ; the first two only where a client can tell them."""
    metadata = dict(outcome.metadata)
    if isinstance(metadata.get("revision"), int):
        metadata["revision"] = REVISION
    members = {
        "value": outcome.value,
        "variant": outcome.variant,
        "reason": outcome.reason,
        "error_code": outcome.error_code,
        "metadata": metadata,
    }
    return json.dumps(_one_number(members) if one_number else members, sort_keys=True)


def _one_number(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _one_number(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_one_number(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_same(left: Outcome, right: Outcome, *, one_number: bool) -> bool:
    """Tell whether a client's caller gets the same in both."""
    return canonical(left, one_number=one_number) == canonical(right, one_number=one_number)


# --- tables ----------------------------------------------------------------------------------------------------------


def document_table(rows: Sequence[Row] = ROWS) -> str:
    """Return the table of docs/clients.md, with the reasons of the deviations below it."""
    names = [client.name for client in clients()]
    notes: list[str] = []
    lines = [_line("asked", "answer", *names), _line(*["---"] * (2 + len(names)))]
    scene = Scene.USUAL
    for row in rows:
        if row.scene is not scene:
            scene = row.scene
            lines.append(_line(f"**{scene}**", *[""] * (1 + len(names))))
        cells = [_document_cell(row, name, notes) for name in names]
        lines.append(_line(row.case.name, _said(row.expected), *cells))
    return "\n".join([*lines, "", *(f"{number}. {why[0].upper()}{why[1:]}." for number, why in enumerate(notes, 1))])


def _document_cell(row: Row, name: str, notes: list[str]) -> str:
    if not row.asks(name):
        return "-"
    if name not in row.but:
        return "same"
    but = row.but[name]
    if but.why not in notes:
        notes.append(but.why)
    return f"{_said(but.outcome)} ({notes.index(but.why) + 1})"


def seen_table(rows: Sequence[Row], columns: Mapping[str, Mapping[int, Outcome]]) -> list[str]:
    """Return, for people, what the clients of a run were seen to read; `columns` hold outcomes by the row's place."""
    lines = [_line("asked", "answer", *columns)]
    for place, row in enumerate(rows):
        cells = ["-" if place not in seen else _seen_cell(row, seen[place]) for seen in columns.values()]
        lines.append(_line(f"{row.scene}: {row.case.name}", _said(row.expected), *cells))
    return lines


def _seen_cell(row: Row, outcome: Outcome) -> str:
    return "same" if is_same(outcome, row.expected, one_number=True) else _said(outcome)


def _said(outcome: Outcome) -> str:
    more = f", {len(outcome.metadata)} metadata" if outcome.metadata else ""
    if outcome.error_code is not None:
        return f"code default, {outcome.error_code}{more}"
    if outcome.variant == NO_VARIANT:
        return f"code default {outcome.reason}{more}"
    value = json.dumps(outcome.value, ensure_ascii=False)
    shown = value if len(value) <= _LONGEST_CELL else value[:_LONGEST_CELL] + "…"
    return f"`{shown}` {outcome.reason}{more}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def document_part(text: str) -> str:
    """Return what stands between the markers of docs/clients.md."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()


def main() -> None:
    """Write the table into docs/clients.md with `--write`, or print it."""
    table = document_table()
    if sys.argv[1:] == ["--write"]:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}")
    else:
        sys.stdout.write(table + "\n")


if __name__ == "__main__":
    main()
