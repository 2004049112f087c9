"""`halyard flags`: what flags are in every environment; `show` has all environments at a glance."""

from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import typer

from upstream.console import flag_page
from upstream.console.asking import confirm
from upstream.console.command import command, group
from upstream.console.environments import Switch
from upstream.console.failures import Exit, Failed
from upstream.console.moments import moment
from upstream.console.options import (
    USUAL_ROWS,
    Data,
    Described,
    Expires,
    FlagName,
    Force,
    Limit,
    Named,
    NewKey,
    Search,
    body_of,
    given,
    value_of,
)
from upstream.console.output import Column
from upstream.console.session import AtEnvironment, AtProject, Editing, Writing
from upstream.console.stale import show_stale
from upstream.console.writes import carry_out

app = group("Flags: what they are in every environment, and what they do in each.")


class FlagType(StrEnum):
    """What values a flag has."""

    BOOLEAN = "boolean"
    STRING = "string"
    NUMBER = "number"
    JSON = "json"


class FlagKind(StrEnum):
    """What a flag is for."""

    RELEASE = "release"
    EXPERIMENT = "experiment"
    OPS = "ops"
    PERMISSION = "permission"


class Template(StrEnum):
    """What a flag can be made of."""

    KILL_SWITCH = "kill_switch"
    GRADUAL_ROLLOUT = "gradual_rollout"
    AB_TEST = "ab_test"


Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; again for more.")]
Owner = Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Who looks after it.")]
Kind = Annotated[FlagKind | None, typer.Option("--kind", help="What it is for.")]
ClientSide = Annotated[
    bool | None, typer.Option("--client-side/--server-side", help="Whether browsers and apps may evaluate it.")
]
Requires = Annotated[
    list[str] | None, typer.Option("--requires", metavar="FLAG", help="A flag that must be on; again for more.")
]


@command(app, "list")
async def list_flags(
    at: AtEnvironment,
    search: Search = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag; again for more.")
    ] = None,
    state: Annotated[Switch | None, typer.Option("--state", help="Only those on, or off, in the environment.")] = None,
    type: Annotated[FlagType | None, typer.Option("--type", help="Only of this type.")] = None,  # noqa: A002 - the API's name
    kind: Annotated[FlagKind | None, typer.Option("--kind", help="Only for this.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones instead.")] = False,
    stale: Annotated[bool, typer.Option("--stale", help="Those that may go, and why, as `halyard stale`.")] = False,
    limit: Limit = USUAL_ROWS,
) -> None:
    """List the flags of a project, with their switch in each environment."""
    filters: dict[str, Any] = {"search": search, "tag": tag, "type": type, "kind": kind, "archived": archived or None}
    if state is not None:
        filters |= {"environment": at.environment_key, "enabled": state is Switch.ON}
    if stale:
        if any(value is not None for value in filters.values()):
            raise Failed(Exit.USAGE, "--stale goes with --limit alone: it is a list of its own.")
        await show_stale(at, limit)
        return
    page = await at.listed(at.path("flags"), limit, **filters)
    names = list(dict.fromkeys(name for row in page["data"] for name in row["environments"]))
    switches = [Column(name, partial(_switch, name)) for name in names]
    columns = [Column("key", "key"), Column("type", "type"), *switches, Column("tags", "tags"), Column("name", "name")]
    at.out.rows(page, columns, nothing="There is no such flag. Make one with: halyard flags create KEY")


def _switch(environment: str, row: Mapping[str, Any]) -> str | None:
    if row["archived_at"] is not None:
        return "archived"
    found = row["environments"].get(environment)
    if found is None:
        return None
    return "on" if found["enabled"] and row["is_active"] else "off"


@command(app, "show")
async def show_flag(at: AtProject, flag: FlagName) -> None:
    """Show one flag: what it is, and what it does in each environment, in words."""
    found = await at.get(at.path("flags", flag))
    if at.quiet:
        at.out.said(found, "", found["key"])
        return
    configs = await at.get(at.path("flags", flag, "environments"))
    if at.as_json:
        at.out.document({**found, "environments": {each["environment"]: each for each in configs["data"]}})
        return
    flag_page.show(found, configs["data"])


@command(app, "create")
async def create_flag(
    at: AtProject,
    how: Writing,
    key: NewKey,
    name: Named = None,
    description: Described = None,
    type: Annotated[FlagType | None, typer.Option("--type", help="What values it has; boolean by default.")] = None,  # noqa: A002 - the API's name
    kind: Kind = None,
    template: Annotated[Template | None, typer.Option("--template", help="Make it of a template.")] = None,
    flavor: Annotated[str | None, typer.Option("--flavor", help="Of ab_test: string, number or json.")] = None,
    variation: Annotated[
        list[str] | None,
        typer.Option("--variation", metavar="KEY=VALUE", help="A value that it can serve; again for more."),
    ] = None,
    tag: Tags = None,
    owner: Owner = None,
    client_side: ClientSide = None,
    requires: Requires = None,
    expires: Expires = None,
    on: Annotated[bool, typer.Option("--on", help="Switch it on in every environment at once.")] = False,
    data: Data = None,
) -> None:
    """Create a flag in every environment, switched off."""
    is_boolean = type is None and template is None and variation is None and data is None
    body = body_of(
        data,
        key=key,
        name=name,
        description=description,
        type=FlagType.BOOLEAN if is_boolean else type,
        kind=kind,
        template=template,
        flavor=flavor,
        variations=_variations(variation, type),
        tags=tag or None,
        owner=owner,
        client_side_enabled=client_side,
        prerequisites=requires or None,
        expires_at=expires and moment("--expires", expires),
        enabled=on or None,
    )
    if on:
        await at.ask_where_critical(how, f"Create {key} and switch it on everywhere?")
    path = at.path("flags")
    await carry_out(at, how, "POST", path, body, done=lambda made: f"Created the flag {made['key']}.")


def _variations(texts: list[str] | None, type_of_values: FlagType | None) -> list[dict[str, Any]] | None:
    found = []
    for text in texts or ():
        key, is_named, value = text.partition("=")
        if not is_named:
            raise Failed(Exit.USAGE, f"--variation takes KEY=VALUE, such as large=500; {text!r} is not that.")
        found.append({"key": key, "value": value if type_of_values is FlagType.STRING else value_of(value)})
    return found or None


@command(app, "update")
async def update_flag(
    at: AtProject,
    how: Editing,
    flag: FlagName,
    name: Named = None,
    description: Described = None,
    kind: Kind = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="TAG", help="Its tags from now on; again for more.")
    ] = None,
    owner: Owner = None,
    active: Annotated[
        bool | None, typer.Option("--active/--inactive", help="Its switch above those of all environments.")
    ] = None,
    client_side: ClientSide = None,
    requires: Requires = None,
    expires: Expires = None,
    data: Data = None,
) -> None:
    """Change what a flag is in every environment; `flags configure` changes what it does in one."""
    body = body_of(
        data,
        name=name,
        description=description,
        kind=kind,
        tags=tag or None,
        owner=owner,
        is_active=active,
        client_side_enabled=client_side,
        prerequisites=requires or None,
        expires_at=expires and moment("--expires", expires),
    )
    if not body:
        raise Failed(Exit.USAGE, f"What is to change of {flag}? See: halyard flags update --help")
    if body.keys() - _ONLY_FOR_PEOPLE:
        await at.ask_where_critical(how, f"Change {flag} in every environment?")
    path = at.path("flags", flag)
    await carry_out(at, how, "PATCH", path, body, done=lambda now: f"Changed {now['key']}: version {now['version']}.")


_ONLY_FOR_PEOPLE = frozenset({"name", "description", "kind", "tags", "owner", "expires_at", "metadata"})


@command(app, "configure")
async def configure_flag(
    at: AtEnvironment,
    how: Editing,
    flag: FlagName,
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="FILE",
            help="JSON with what is to change: enabled, off, fallthrough, rules, targets; - is stdin.",
        ),
    ],
) -> None:
    """Change what a flag does in one environment: rules, targets, what is served."""
    environment = at.environment_key
    body = body_of(data)
    await at.ask_where_critical(how, f"Change {flag} there?", environment)
    path = at.path("flags", flag, "environments", environment)
    await carry_out(
        at,
        how,
        "PATCH",
        path,
        body,
        done=lambda now: f"Changed {now['flag']} in {now['environment']}: version {now['version']}.",
        key=flag,
    )


@command(app, "archive")
async def archive_flag(at: AtProject, how: Editing, flag: FlagName, force: Force = False) -> None:
    """Hide a flag and stop serving it; `restore` brings it back."""
    await at.ask_where_critical(how, f"Archive {flag}? It is served no longer anywhere.")
    path = at.path("flags", flag, ":archive")
    await carry_out(at, how, "POST", path, {"force": force}, done=lambda now: f"Archived {now['key']}.")


@command(app, "restore")
async def restore_flag(at: AtProject, how: Editing, flag: FlagName) -> None:
    """Bring an archived flag back as it was."""
    await at.ask_where_critical(how, f"Restore {flag}? It is served as before.")
    path = at.path("flags", flag, ":restore")
    await carry_out(at, how, "POST", path, done=lambda now: f"Restored {now['key']}.")


@command(app, "delete")
async def delete_flag(at: AtProject, how: Editing, flag: FlagName, force: Force = False) -> None:
    """Delete a flag for good; its key is free at once."""
    confirm(f"Delete the flag {flag} of {at.project_key} for good?", is_agreed=how.yes or how.is_harmless)
    path = at.path("flags", flag) + ("?force=true" if force else "")
    await carry_out(at, how, "DELETE", path, done=lambda _: f"Deleted {flag}.", key=flag)


@command(app, "copy")
async def copy_flag(
    at: AtProject,
    how: Writing,
    flag: FlagName,
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="The copy's key; made up by default.")] = None,
    name: Named = None,
) -> None:
    """Make a new flag like another one, switched off."""
    path = at.path("flags", flag, ":copy")
    body = given(key=key, name=name)
    await carry_out(at, how, "POST", path, body, done=lambda made: f"Copied {flag} as {made['key']}.")
