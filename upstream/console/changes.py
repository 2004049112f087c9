"""What changed, or would change, line by line: `-` as it was, `+` as it is then."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer
from rich.text import Text

from upstream.console import words
from upstream.console.output import Output, console, fields, plain

_SHOWN = 200
_IN_WORDS: Mapping[str, Callable[[Any], str]] = {
    "fallthrough": words.serve,
    "serve": words.serve,
    "split": lambda split: words.serve({"split": split}),
    "ramp": lambda ramp: words.serve({"ramp": ramp}),
    "variation": str,
    "off": str,
    "when": words.condition,
}
_LISTS: Mapping[str, Callable[[Any], str]] = {
    "rules": words.rule,
    "targets": words.target,
    "weights": words.share,
}


def lines(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines that show differences."""
    for each in changes:
        path, before, after = each["path"], each.get("before"), each.get("after")
        name = path.rpartition(".")[2]
        if isinstance(before, list) or isinstance(after, list):
            yield from _listed(path, name, before or [], after or [])
        elif before is None:
            yield f"+ {path}: {_word(name, after)}"
        elif after is None:
            yield f"- {path}: {_word(name, before)}"
        else:
            yield f"~ {path}: {_word(name, before)} → {_word(name, after)}"


def _listed(path: str, name: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    """Yield which entries went and which came; the order alone, where it is only that."""
    show = _LISTS.get(name, _entry)
    left, right = [_short(show(each)) for each in before], [_short(show(each)) for each in after]
    gone = [f"- {path}[{index}]: {text}" for index, text in enumerate(left, 1) if text not in right]
    came = [f"+ {path}[{index}]: {text}" for index, text in enumerate(right, 1) if text not in left]
    if gone or came:
        yield from gone
        yield from came
    elif len(left) > 1 or len(right) > 1:
        yield f"~ {path}: in another order: {'; '.join(right)}"
    else:
        yield f"~ {path}: changed in what is not shown here; --json has it"


def _entry(found: Any) -> str:
    return found if isinstance(found, str) else words.value(found)


def _word(name: str, found: Any) -> str:
    return _short(_IN_WORDS[name](found) if name in _IN_WORDS else words.value(found))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def show(changes: Sequence[Mapping[str, Any]], indent: str = "  ") -> None:
    """Print differences."""
    styles = {"+": "green", "-": "red", "~": "yellow"}
    for line in lines(changes):
        console().print(Text(indent + plain(line), style=styles[line[0]]), soft_wrap=True)


def show_beside(changes: Sequence[Mapping[str, Any]]) -> None:
    """Print differences on stderr, for somebody who is asked whether they want them."""
    for line in lines(changes):
        typer.echo(f"  {plain(line)}", err=True)


def show_preview(out: Output, body: Mapping[str, Any]) -> None:
    """Print what a dry run answered."""
    if out.as_json:
        out.document(body)
        return
    if body["changes"]:
        out.text("This would change (nothing was changed yet):")
        show(body["changes"])
        fields([(f"  {name}", keys) for name, keys in body["affected"].items()])
    else:
        out.text("Nothing would change.")
    warn(out, body)


def warn(out: Output, body: Any) -> None:
    """Print the warnings that came with an answer."""
    for each in body.get("warnings") or () if isinstance(body, Mapping) else ():
        out.note(f"warning: {plain(str(each.get('detail', each)))}")
