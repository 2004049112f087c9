"""Makes typer commands of coroutines: shared options from dataclasses, one event loop, failures as exit statuses."""

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from upstream.console.failures import Failed
from upstream.console.output import Output, plain

if TYPE_CHECKING:
    from upstream.console.session import AtAuthority

EVERY_DAY, SIGNING_IN = "Every day", "Signing in"

C = TypeVar("C", bound=Callable[..., Awaitable[None]])


def group(summary: str) -> typer.Typer:
    """Return a group of commands."""
    return typer.Typer(help=summary, no_args_is_help=True)


def command(into: typer.Typer, name: str, *, panel: str | None = None) -> Callable[[C], C]:
    """Return a decorator that adds a coroutine function to a group; `panel` is where the list of commands has it.

    Its first parameter is an `AtAuthority` or a narrower one. Each parameter that is a dataclass becomes one option per
    field, behind the function's own.
    """

    def register(work: C) -> C:
        text = inspect.getdoc(work) or ""
        summary = re.split(r"[.;:]( |$)", text, maxsplit=1)[0] + "."
        into.command(name, help=text, short_help=summary, rich_help_panel=panel)(_runnable(work))
        return work

    return register


def _runnable(work: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    own: list[inspect.Parameter] = []
    shared: list[inspect.Parameter] = []
    made: dict[str, tuple[type, tuple[str, ...]]] = {}
    for parameter in inspect.signature(work, eval_str=True).parameters.values():
        kind = parameter.annotation
        if isinstance(kind, type) and is_dataclass(kind):
            options = inspect.signature(kind, eval_str=True).parameters
            made[parameter.name] = (kind, tuple(options))
            shared += options.values()
        else:
            own.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(work)
    def run(**given: Any) -> None:
        arguments = {
            name: kind(**{field: given.pop(field) for field in fields}) for name, (kind, fields) in made.items()
        }
        _carry_out(work, arguments | given)

    signature = inspect.Signature([*own, *shared])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    return run


def _carry_out(work: Callable[..., Awaitable[None]], arguments: dict[str, Any]) -> None:
    at: AtAuthority = arguments["at"]

    async def inside() -> None:
        async with at:
            await work(**arguments)

    try:
        asyncio.run(inside())
    except Failed as failed:
        _tell(failed, at.out)
        raise typer.Exit(failed.status) from None


def _tell(failed: Failed, out: Output) -> None:
    """Print what went wrong, with every field that is at fault."""
    if out.as_json and failed.problem is not None:
        out.document(failed.problem)
    problem = failed.problem or {}
    typer.echo(f"halyard: {plain(failed.sentence)}", err=True)
    for path, sentences in problem.get("errors", {}).items():
        for sentence in sentences:
            typer.echo(f"  {plain(path or 'the whole body')}: {plain(sentence)}", err=True)
    if "request_id" in problem:
        typer.echo(f"  request {plain(str(problem['request_id']))}", err=True)
