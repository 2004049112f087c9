"""Keys of projects, environments, flags and segments for the shell to complete, asked from the API.

Whoever presses TAB waits for it and can read no errors: there is one short request, and on any failure nothing is
offered and nothing is said.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import typer

from upstream.console.client import MAX_PAGE, Client, chosen_url, entry_at, path_of

TIMEOUT_S = 1.5
Completions: TypeAlias = list[tuple[str, str]]
"""What can stand there, and what it is called."""


def projects(context: typer.Context, incomplete: str) -> Completions:
    """Return projects."""
    return _offered(context, incomplete, lambda _: path_of("projects"))


def environments(context: typer.Context, incomplete: str) -> Completions:
    """Return environments of the project."""
    return _offered(context, incomplete, lambda project: path_of("projects", project, "environments"))


def flags(context: typer.Context, incomplete: str) -> Completions:
    """Return flags of the project."""
    return _offered(context, incomplete, lambda project: path_of("projects", project, "flags"))


def segments(context: typer.Context, incomplete: str) -> Completions:
    """Return segments of the project."""
    return _offered(context, incomplete, lambda project: path_of("projects", project, "segments"))


def _offered(context: typer.Context, incomplete: str, path: Callable[[str], str]) -> Completions:
    given = context.params
    try:
        url = chosen_url(given.get("url"))
        project = given.get("project") or entry_at(url).project or ""
        found = asyncio.run(_asked(url, given.get("token"), path(project), incomplete))
        return [(key, name) for key, name in _names(found) if key.startswith(incomplete)]
    except Exception:  # noqa: BLE001 - whatever it is, a shell that completes a word must not be told
        return []


async def _asked(url: str, token: str | None, path: str, incomplete: str) -> Mapping[str, Any]:
    async with asyncio.timeout(TIMEOUT_S), Client(url, token, TIMEOUT_S) as client:
        page: Mapping[str, Any] = await client.get(path, limit=MAX_PAGE, search=incomplete or None)
        return page


def _names(page: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return ((str(each["key"]), str(each["name"])) for each in page["data"])
