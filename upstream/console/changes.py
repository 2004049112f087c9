"""What changed, or would change, line by line: `-` as it was, `+` as it is then."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.text import Text

from upstream.console import words
from upstream.console.output import Output, console, fields, plain

_SHOWN = 200
_STYLES: Mapping[str, str] = {"+": "green", "-": "red", "~": "yellow"}
_MARKS: Mapping[str, str] = {"create": "+", "update": "~", "delete": "-"}
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


def of_things(changes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines that show differences of several things, each thing over its own."""
    for place, found in groupby(changes, _place):
        yield place
        for line in lines(list(found)):
            yield f"  {line}"


def of_plan(plan: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines that show what an import would do."""
    for step in plan:
        if step["action"] in _MARKS:
            yield f"{_MARKS[step['action']]} {step['thing']} {step['key']}"
            for line in lines(step["changes"]):
                yield f"    {line}"


def of_preview(preview: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that show what something would do."""
    yield from of_things(preview["changes"])
    yield from of_plan(preview.get("plan") or ())


def _place(change: Mapping[str, Any]) -> str:
    """Return which thing a difference is one of, and where."""
    target, environment = change["target"], change["environment"]
    name = f"{target['type']} {target['key'] or ''}".rstrip()
    return name if environment is None or target["type"] == "environment" else f"{name} in {environment}"


def show(found: Iterable[str], indent: str = "  ", *, is_beside: bool = False) -> None:
    """Print lines; on stderr for somebody who is asked whether they want what these say."""
    screen = console()
    screen.stderr = is_beside
    for line in found:
        screen.print(Text(indent + plain(line), style=_STYLES.get(line.lstrip()[:1], "")), soft_wrap=True)


def show_preview(out: Output, body: Mapping[str, Any]) -> None:
    """Print what a dry run answered."""
    if out.as_json:
        out.document(body)
        return
    if body["changes"]:
        out.text("This would change (nothing was changed yet):")
        show(of_things(body["changes"]))
        fields([(f"  {name}", keys) for name, keys in body["affected"].items()])
    else:
        out.text("Nothing would change.")
    warn(out, body)


def warn(out: Output, body: Any) -> None:
    """Print the warnings that came with an answer."""
    for each in body.get("warnings") or () if isinstance(body, Mapping) else ():
        out.note(f"warning: {plain(str(each.get('detail', each)))}")
