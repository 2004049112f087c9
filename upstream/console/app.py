"""Adds the commands of the daily work to `halyard`: groups by resource, and the verbs that everybody types."""

import typer

from upstream.console import (
    audit,
    environments,
    explaining,
    flags,
    history,
    keys,
    members,
    projects,
    requests,
    schedules,
    segments,
    signing_in,
    stale,
    switching,
    tokens,
    transfer,
)

_RESOURCES = "Resources"
_GROUPS = {
    "projects": projects,
    "environments": environments,
    "flags": flags,
    "segments": segments,
    "keys": keys,
    "tokens": tokens,
    "members": members,
    "schedules": schedules,
    "requests": requests,
}


_VERBS = (signing_in, switching, audit, transfer, stale, explaining)


def names() -> set[str]:
    """Return the first words of all of these commands."""
    verbs = {each.name for module in _VERBS for each in module.app.registered_commands if each.name is not None}
    return verbs | _GROUPS.keys()


def new_program() -> typer.Typer:
    """Return `halyard` without any command."""
    return typer.Typer(
        name="halyard",
        help="Feature flags in two services: an upstream authority and a relay beside your application.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )


def add_to(halyard: typer.Typer) -> None:
    """Add them."""
    flags.app.add_typer(history.app)
    for module in _VERBS:
        halyard.add_typer(module.app)
    for name, resource in _GROUPS.items():
        halyard.add_typer(resource.app, name=name, rich_help_panel=_RESOURCES)
