"""`halyard stale`: flags that may go, and why."""

from collections.abc import Mapping
from typing import Any

import typer

from upstream.console.command import EVERY_DAY, command
from upstream.console.options import USUAL_ROWS, Limit
from upstream.console.output import Column
from upstream.console.session import AtProject

app = typer.Typer()


@command(app, "stale", panel=EVERY_DAY)
async def stale(at: AtProject, limit: Limit = USUAL_ROWS) -> None:
    """List the flags that may go, and why."""
    await show_stale(at, limit)


async def show_stale(at: AtProject, limit: int) -> None:
    """Print the stale flags."""
    page = await at.listed(at.path("stale-flags"), limit)
    at.out.rows(page, _COLUMNS, nothing="No flag is stale.")


def _reasons(row: Mapping[str, Any]) -> str:
    return "; ".join(f"{each['reason'].replace('_', ' ')} since {each['since'][:10]}" for each in row["stale"])


_COLUMNS = (
    Column("key", "key"),
    Column("kind", "kind"),
    Column("owner", "owner"),
    Column("why", _reasons),
)
