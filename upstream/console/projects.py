"""`halyard projects`."""

from typing import Annotated

import typer

from upstream.console.asking import confirm
from upstream.console.client import path_of
from upstream.console.command import command, group
from upstream.console.moments import shown
from upstream.console.options import USUAL_ROWS, Described, Limit, Named, NewKey, ProjectName, Search, given
from upstream.console.output import Column, fields
from upstream.console.session import AtAuthority, Trying
from upstream.console.writes import carry_out

app = group("Projects: the things that own environments, flags and segments.")

_COLUMNS = (Column("key", "key"), Column("name", "name"), Column("description", "description"))


@command(app, "list")
async def list_projects(at: AtAuthority, search: Search = None, limit: Limit = USUAL_ROWS) -> None:
    """List the projects that one may use."""
    page = await at.listed("/projects", limit, search=search)
    at.out.rows(page, _COLUMNS, nothing="There is no project yet. Make one with: halyard projects create KEY")


@command(app, "show")
async def show_project(at: AtAuthority, project: ProjectName) -> None:
    """Show one project with its environments."""
    found = await at.get(path_of("projects", project))
    if at.as_json or at.quiet:
        at.out.said(found, "", found["key"])
        return
    environments = await at.listed(path_of("projects", project, "environments"), USUAL_ROWS)
    fields(
        [
            ("key", found["key"]),
            ("name", found["name"]),
            ("description", found["description"]),
            ("environments", [each["key"] for each in environments["data"]]),
            ("monthly users", found["mau_limit"] and f"at most {found['mau_limit']}"),
            ("changed", shown(found["updated_at"])),
            ("version", found["version"]),
            ("id", found["id"]),
        ]
    )


@command(app, "create")
async def create_project(
    at: AtAuthority,
    how: Trying,
    key: NewKey,
    name: Named = None,
    description: Described = None,
    environment: Annotated[
        list[str] | None,
        typer.Option(
            "--environment",
            "-e",
            metavar="KEY",
            help="An environment of it; again for more. Else development, staging and production.",
        ),
    ] = None,
) -> None:
    """Create a project."""
    environments = [{"key": each} for each in environment] if environment else None
    body = given(key=key, name=name, description=description, environments=environments)
    await carry_out(at, how, "POST", "/projects", body, done=lambda made: f"Created the project {made['key']}.")


@command(app, "update")
async def update_project(
    at: AtAuthority, how: Trying, project: ProjectName, name: Named = None, description: Described = None
) -> None:
    """Change a project's name or description."""
    body = given(name=name, description=description)
    path = path_of("projects", project)
    await carry_out(at, how, "PATCH", path, body, done=lambda now: f"Changed the project {now['key']}.")


@command(app, "delete")
async def delete_project(at: AtAuthority, how: Trying, project: ProjectName) -> None:
    """Delete a project with all that it owns: flags, environments, keys."""
    question = f"Delete the project {project} with all its flags, environments and keys?"
    confirm(question, is_agreed=how.yes or how.is_harmless)
    path = path_of("projects", project)
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Deleted the project {project}.", key=project)
