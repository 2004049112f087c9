"""`halyard environments`."""

from enum import StrEnum
from typing import Annotated

import typer

from upstream.console import completion
from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.options import USUAL_ROWS, EnvironmentName, Limit, Named, NewKey, given
from upstream.console.output import Column
from upstream.console.session import AtProject, Editing, Writing
from upstream.console.writes import carry_out

app = group("Environments: the places where flags are evaluated.")

_COLUMNS = (
    Column("key", "key"),
    Column("name", "name"),
    Column("critical", lambda row: "yes" if row["critical"] else None),
    Column("review", lambda row: "required" if row["require_review"] else None),
    Column("revision", "revision"),
    Column("version", "version"),
)
Critical = Annotated[
    bool | None, typer.Option("--critical/--not-critical", help="Whether changes in it are asked about.")
]


class Switch(StrEnum):
    """A side."""

    ON = "on"
    OFF = "off"


@command(app, "list")
async def list_environments(at: AtProject, limit: Limit = USUAL_ROWS) -> None:
    """List the environments of a project in their order."""
    page = await at.listed(at.path("environments"), limit)
    at.out.rows(page, _COLUMNS, nothing="There is no environment yet: halyard environments create KEY")


@command(app, "create")
async def create_environment(
    at: AtProject, how: Writing, key: NewKey, name: Named = None, critical: Critical = None
) -> None:
    """Create an environment in which every flag is there, switched off."""
    body = given(key=key, name=name, critical=critical)
    path = at.path("environments")
    await carry_out(at, how, "POST", path, body, done=lambda made: f"Created the environment {made['key']}.")


@command(app, "clone")
async def clone_environment(
    at: AtProject, how: Writing, environment: EnvironmentName, key: NewKey, name: Named = None
) -> None:
    """Create an environment in which every flag is as in another one."""
    path = at.path("environments", environment, ":clone")
    body = given(key=key, name=name)
    await carry_out(at, how, "POST", path, body, done=lambda made: f"Cloned {environment} as {made['key']}.")


@command(app, "update")
async def update_environment(
    at: AtProject, how: Editing, environment: EnvironmentName, name: Named = None, critical: Critical = None
) -> None:
    """Change an environment's name, or whether it is critical."""
    await at.ask_where_critical(how, f"Change {environment}?", environment)
    path = at.path("environments", environment)
    body = given(name=name, critical=critical)
    await carry_out(at, how, "PATCH", path, body, done=lambda now: f"Changed the environment {now['key']}.")


@command(app, "reorder")
async def reorder_environments(
    at: AtProject,
    how: Writing,
    environments: Annotated[
        list[str],
        typer.Argument(
            metavar="ENVIRONMENT...", help="All of them, in their new order.", autocompletion=completion.environments
        ),
    ],
) -> None:
    """Put the environments of a project into another order."""
    path = at.path("environments:reorder")
    body = {"environments": environments}
    await carry_out(at, how, "POST", path, body, done=lambda _: f"The order is now {', '.join(environments)}.")


@command(app, "review")
async def review_environment(
    at: AtProject,
    how: Editing,
    environment: EnvironmentName,
    switch: Annotated[Switch, typer.Argument(metavar="on|off", help="Whether changes need a review.")],
) -> None:
    """Let flags change in an environment through approved change requests only, or again without."""
    await at.ask_where_critical(how, f"Switch reviews {switch} in {environment}?", environment)
    path = at.path("environments", environment)
    state = "need a review" if switch is Switch.ON else "need no review"
    await carry_out(
        at,
        how,
        "PATCH",
        path,
        {"require_review": switch is Switch.ON},
        done=lambda now: f"Changes in {now['key']} {state} from now on.",
    )


@command(app, "delete")
async def delete_environment(at: AtProject, how: Editing, environment: EnvironmentName) -> None:
    """Delete an environment: its keys die, its streams end."""
    question = f"Delete the environment {environment} of {at.project_key}, with what every flag does there?"
    confirm(question, is_agreed=how.yes or how.is_harmless)
    path = at.path("environments", environment)
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Deleted the environment {environment}.", key=environment)
