"""Writes the reference of `docs/cli.md` from the commands themselves: `python -m tests.console.reference --write`.

Every command stands in it with every argument and option of its own; options that many commands share are named there
and explained once, above.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from typer.main import get_command

from upstream.cli import app

DOCUMENT = Path(__file__).parents[2] / "docs/cli.md"
BEGIN = "<!-- From here on written by `python -m tests.console.reference --write`. -->\n"
PANELS = ("Where", "Output", "Care")


def reference() -> str:
    """Return everything below the marker."""
    commands = list(_commands(get_command(app), ("halyard",)))
    parts = ["\n## Shared options\n", *_shared(commands), "\n## All commands"]
    for words, command in commands:
        parts += _described(words, command)
    return "\n".join(parts) + "\n"


def written(document: str) -> str:
    """Return a document with the reference as it should be."""
    head, marker, _ = document.partition(BEGIN)
    assert marker, f"{DOCUMENT} has no line {BEGIN!r}"
    return head + marker + reference()


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, each in command.commands.items():
        yield from _commands(each, (*words, name))


def _described(words: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    own = [each for each in options if _panel(each) is None and each.name != "help"]
    shared = [each for each in options if _panel(each) is not None]
    yield f"\n### `{' '.join([words, *map(_argument, arguments)])}`\n"
    yield " ".join((command.help or "").split())
    if own or arguments:
        yield ""
    for each in arguments:
        yield f"- `{_name(each)}`: {each.help}"
    for each in own:
        required = " Required." if each.required else ""
        yield f"- `{_option(each)}`: {_sentence(each.help)}{required}"
    if shared:
        yield "\n" + "Also: " + ", ".join(f"`{each.opts[0]}`" for each in shared) + "."


def _shared(commands: list[tuple[str, Any]]) -> Iterator[str]:
    found: dict[str, dict[str, Any]] = {panel: {} for panel in PANELS}
    for _, command in commands:
        for each in command.params:
            if _panel(each) is not None:
                found[_panel(each) or ""].setdefault(each.opts[0], each)
    yield "| option | variable | what it does |\n|---|---|---|"
    for options in found.values():
        for each in options.values():
            variable = f"`{each.envvar}`" if each.envvar else ""
            yield f"| `{_option(each)}` | {variable} | {_sentence(each.help)} |"


def _panel(parameter: Any) -> str | None:
    panel = getattr(parameter, "rich_help_panel", None)
    return panel if panel in PANELS else None


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _argument(argument: Any) -> str:
    return _name(argument) if argument.required else f"[{_name(argument)}]"


def _option(option: Any) -> str:
    names = ", ".join([*option.opts[::-1], *option.secondary_opts])
    if option.is_flag:
        return names
    kind = option.type_descriptor.annotation
    is_choice = isinstance(kind, type) and issubclass(kind, Enum)
    value = option.metavar or ("|".join(str(each.value) for each in kind) if is_choice else "TEXT")
    return f"{names} {value}"


def _sentence(text: str | None) -> str:
    return (text or "").replace("|", "\\|").strip()


if __name__ == "__main__":
    now = written(DOCUMENT.read_text())
    if "--write" in sys.argv:
        DOCUMENT.write_text(now)
    else:
        sys.stdout.write(now)
