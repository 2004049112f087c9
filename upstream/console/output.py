"""What a command prints: tables and sentences for people, the API's own JSON for programs, keys for `--quiet`.

Answers go to stdout, everything about them to stderr. On a terminal tables are coloured unless NO_COLOR is set;
elsewhere each row is one line of aligned columns, never cut. Whatever came from the API is printed without control
characters, as a name must not be able to steer somebody's terminal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row: TypeAlias = Mapping[str, Any]

_STYLES = {
    **dict.fromkeys(("on", "active", "applied", "approved", "done", "create", "✓"), "green"),
    **dict.fromkeys(("off", "archived", "revoked", "expired", "withdrawn", "cancelled", "unchanged", "-"), "dim"),
    **dict.fromkeys(("failed", "rejected", "voided", "delete", "✗"), "red"),
    **dict.fromkeys(("open", "pending", "invited", "update"), "yellow"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, and what of a row stands in it; the name of a member, or a function."""

    title: str
    cell: str | Callable[[Row], Any]

    def of(self, row: Row) -> str:
        """Return the cell of a row."""
        found = row.get(self.cell) if isinstance(self.cell, str) else self.cell(row)
        if found is None or found in ([], ""):
            return "-"
        if isinstance(found, list | tuple):
            return ", ".join(plain(str(each)) for each in found)
        return plain(str(found))


@dataclass(frozen=True, slots=True)
class Output:
    """How one command prints."""

    as_json: bool = False
    quiet: bool = False

    def document(self, body: Any) -> None:
        """Print JSON, as one document."""
        typer.echo(orjson.dumps(body, option=orjson.OPT_INDENT_2).decode())

    def said(self, body: Any, text: str, key: str | None = None) -> None:
        """Print an answer: as JSON, as its key alone, or as a text."""
        if self.as_json:
            self.document(body)
        elif self.quiet:
            if key is not None:
                typer.echo(plain(key))
        else:
            self.text(text)

    def text(self, text: str | Text) -> None:
        """Print lines for people."""
        console().print(text if isinstance(text, Text) else Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Print a line beside the answer."""
        if not self.quiet:
            typer.echo(text, err=True)

    def rows(self, page: Row, columns: Sequence[Column], *, key: str = "key", nothing: str) -> None:
        """Print a list; `nothing` is what is said when it is empty."""
        data: Sequence[Row] = page["data"]
        if self.as_json:
            self.document(page)
        elif self.quiet:
            for row in data:
                typer.echo(plain(str(row.get(key))))
        elif not data:
            self.note(nothing)
        else:
            table([each.title for each in columns], [[column.of(row) for column in columns] for row in data])
        if page.get("has_more"):
            total = page.get("total", "more")
            self.note(f"{len(data)} of {total} are shown; --limit {total} shows all.")


def console() -> Console:
    """Return the terminal, or whatever stdout is now."""
    return Console(highlight=False, markup=False, emoji=False)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    screen = console()
    if not screen.is_terminal:
        for line in _aligned([[title.upper() for title in titles], *rows]):
            typer.echo(line)
        return
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold dim")
    for title in titles:
        made.add_column(title.upper(), overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    screen.print(made)


def fields(pairs: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one pair a line; what has no value is left out."""
    known = [(name, value) for name, value in pairs if value not in (None, "", [], ())]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        line = Text.assemble((f"{name:<{width}}  ", "dim"), (plain(text), _STYLES.get(text, "")))
        console().print(line, soft_wrap=True)


def heading(text: str) -> None:
    """Print a line that stands over others."""
    console().print(Text(f"\n{plain(text)}", style="bold"), soft_wrap=True)


def plain(text: str) -> str:
    """Return a text in one line that does nothing to a terminal."""
    return "".join(each if each.isprintable() else " " if each.isspace() else "�" for each in text)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
