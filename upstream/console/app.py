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


def add_to(halyard: typer.Typer) -> None:
    """Add them."""
    flags.app.add_typer(history.app)
    for verbs in (signing_in, switching, audit, transfer, stale, explaining):
        halyard.add_typer(verbs.app)
    for name, resource in _GROUPS.items():
        halyard.add_typer(resource.app, name=name, rich_help_panel=_RESOURCES)
