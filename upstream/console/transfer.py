"""`halyard export` and `import`: a whole project as one JSON document."""

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from upstream.console import changes
from upstream.console.asking import confirm
from upstream.console.command import EVERY_DAY, command
from upstream.console.failures import Exit, Failed
from upstream.console.options import read_json
from upstream.console.output import Output
from upstream.console.session import AtProject, Writing
from upstream.console.writes import show_postponed

app = typer.Typer()


@command(app, "export", panel=EVERY_DAY)
async def export_project(
    at: AtProject, file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout.")]
) -> None:
    """Write a whole project as one JSON document: environments, segments, flags; no keys, no secrets."""
    document = await at.get(at.path("export"))
    if file == "-":
        at.out.document(document)
        return
    _write(file, document)
    counts = ", ".join(_several(len(document[f"{name}s"]), name) for name in ("environment", "segment", "flag"))
    at.out.said({"file": file}, f"Wrote {at.project_key} to {file}: {counts}.", file)


def _write(file: str, document: Mapping[str, Any]) -> None:
    try:
        Path(file).write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise Failed(Exit.USAGE, f"{file}: {error.strerror}.") from error


@command(app, "import", panel=EVERY_DAY)
async def import_project(
    at: AtProject,
    how: Writing,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A document of `halyard export`; - is stdin.")],
    new: Annotated[bool, typer.Option("--new", help="Make a new project, under the key in the document.")] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the flags and segments that the document does not name.")
    ] = False,
    confirm_type_change: Annotated[
        bool, typer.Option("--confirm-type-change", help="Replace flags that are of another type.")
    ] = False,
) -> None:
    """Make a project equal to a document; shows the plan, and asks."""
    if new and prune:
        raise Failed(Exit.USAGE, "--new and --prune exclude each other: a new project has nothing to delete.")
    document = read_json("FILE", file)
    path = "/projects:import" if new else at.path("import")
    options = {"prune": prune, "confirm_type_change": confirm_type_change}
    body = {**document, **{name: True for name, is_set in options.items() if is_set}}
    if how.dry_run or not how.yes:
        plan = (await at.client.call("POST", path, body, query={"dry_run": True})).body
        if how.dry_run:
            _show_plan(at.out, plan)
            return
        if not how.is_harmless:
            _show_plan(Output(quiet=at.quiet), plan, is_beside=True)
            confirm(f"Import {file}?", is_agreed=False)
    answer = await at.call("POST", path, body, how)
    if answer.status == HTTPStatus.ACCEPTED:
        show_postponed(at.out, answer.body)
        return
    at.out.said(answer.body, _done(answer.body), answer.body["project"]["key"])
    changes.warn(at.out, answer.body)


def _several(count: int, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"


def _show_plan(out: Output, plan: Mapping[str, Any], *, is_beside: bool = False) -> None:
    """Print what an import would do; beside the answer when it is to be carried out after that."""
    if out.as_json:
        out.document(plan)
        return
    changes.show([*changes.of_plan(plan["plan"]), _counted(plan["counts"])], indent="", is_beside=is_beside)
    changes.warn(out, plan)


def _counted(counts: Mapping[str, int]) -> str:
    words = {"create": "to create", "update": "to change", "delete": "to delete", "unchanged": "as they are"}
    return ", ".join(f"{counts.get(name, 0)} {word}" for name, word in words.items()) + "."


def _done(answer: Mapping[str, Any]) -> str:
    counts = answer["counts"]
    names = {"create": "created", "update": "changed", "delete": "deleted", "unchanged": "as they were"}
    told = ", ".join(f"{counts.get(name, 0)} {word}" for name, word in names.items())
    return f"Imported into {answer['project']['key']}: {told}."
