"""What was counted and tracked, for people: `/projects/{p}/metrics` and `/projects/{p}/events`.

Counts are rows by flag, environment, variation, reason, source and hour, oldest hour first, of the last seven days
unless `from` and `to` say otherwise. Events are listed in the order in which they arrived, so that pages stay where
they are while more arrive. Reads only.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from sqlalchemy import Connection, Row, Select, func, select

from relay.clock import rfc3339
from relay.errors import Problem
from relay.protocol.moments import moment_ms
from upstream.api.paging import Found, Page
from upstream.api.places import ProjectRead
from upstream.api.services import Served
from upstream.domain.entities import Project
from upstream.domain.errors import not_found
from upstream.domain.lookup import environment_of
from upstream.storage import tables
from upstream.storage.view import StoredView, named

HOUR_MS: Final = 3_600_000
DEFAULT_RANGE_MS: Final = 7 * 24 * HOUR_MS
DEFAULT_ROWS: Final = 1_000
MAX_ROWS: Final = 10_000
DEFAULT_EVENTS: Final = 50
MAX_EVENTS: Final = 100
SHOWN: Final = 64

router = APIRouter(prefix="/projects/{p}", tags=["metrics"])

Limit = Annotated[int | None, Query(ge=1, description="Most rows; a number over the maximum is taken as the maximum.")]
Offset = Annotated[int, Query(ge=0, le=2**31)]
Name = Annotated[str | None, Query(max_length=256)]


@router.get("/metrics", summary="Evaluation counts by flag, environment, variation and hour")
async def counts(
    found: ProjectRead,
    services: Served,
    flag: Name = None,
    environment: Name = None,
    start: Annotated[
        str | None, Query(alias="from", description="RFC 3339; the hour that holds it is included.")
    ] = None,
    end: Annotated[str | None, Query(alias="to", description="RFC 3339; the hour that begins then is not.")] = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> dict[str, Any]:
    """Return the rows that fulfil every condition."""
    to_ms = services.clock.wall_ms() + HOUR_MS if end is None else _moment("to", end)
    from_ms = to_ms - DEFAULT_RANGE_MS if start is None else _moment("from", start)
    page = _asked(limit, offset, DEFAULT_ROWS, MAX_ROWS)
    project = found.project

    def look(connection: Connection) -> dict[str, Any]:
        table = tables.evaluation_counters
        where = [table.c.hour_ms > from_ms - HOUR_MS, table.c.hour_ms < to_ms]
        if environment is not None:
            where.append(table.c.environment_id == environment_of(StoredView(connection), project, environment).id)
        if flag is not None:
            where.append(table.c.flag_id.in_(_flag_ids(connection, project, flag)))
        return _page(connection, _counts_of(project).where(*where), page, _count)

    return await services.database.read(look)


@router.get("/events", summary="Tracked events in the order of arrival")
async def events(
    found: ProjectRead,
    services: Served,
    environment: Name = None,
    name: Name = None,
    unit: Name = None,
    limit: Limit = None,
    offset: Offset = 0,
) -> dict[str, Any]:
    """Return the events that fulfil every condition."""
    page = _asked(limit, offset, DEFAULT_EVENTS, MAX_EVENTS)
    project = found.project

    def look(connection: Connection) -> dict[str, Any]:
        table = tables.events
        where = [column == value for column, value in ((table.c.name, name), (table.c.unit, unit)) if value is not None]
        if environment is not None:
            where.append(table.c.environment_id == environment_of(StoredView(connection), project, environment).id)
        return _page(connection, _events_of(project).where(*where), page, _event)

    return await services.database.read(look)


def _counts_of(project: Project) -> Select[Any]:
    table, environments, flags = tables.evaluation_counters, tables.environments, tables.flags
    return (
        select(
            table,
            # A row has a method of this name.
            table.c.count.label("counted"),
            environments.c.key.label("environment"),
            flags.c.key.label("flag"),
        )
        .join(environments, environments.c.id == table.c.environment_id)
        .join(flags, flags.c.id == table.c.flag_id)
        .where(environments.c.project_id == project.id, flags.c.project_id == project.id)
        .order_by(
            *(table.c[name] for name in ("hour_ms", "flag_id", "environment_id", "variation", "reason", "source"))
        )
    )


def _events_of(project: Project) -> Select[Any]:
    table, environments = tables.events, tables.environments
    return (
        select(table, environments.c.key.label("environment"))
        .join(environments, environments.c.id == table.c.environment_id)
        .where(environments.c.project_id == project.id)
        .order_by(table.c.received_at, table.c.environment_id, table.c.id)
    )


def _count(row: Row[Any]) -> dict[str, Any]:
    return {
        "flag": row.flag,
        "flag_id": row.flag_id,
        "environment": row.environment,
        "variation": row.variation or None,
        "reason": row.reason,
        "source": row.source,
        "hour": rfc3339(row.hour_ms),
        "count": row.counted,
        "errors": row.errors,
    }


def _event(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": row.type,
        "environment": row.environment,
        "name": row.name,
        "flag": row.flag_key,
        "unit": row.unit,
        "value": row.value,
        "at": rfc3339(row.at),
        "received_at": rfc3339(row.received_at),
        "properties": row.properties,
    }


def _page(
    connection: Connection, query: Select[Any], page: Page, shape: Callable[[Row[Any]], dict[str, Any]]
) -> dict[str, Any]:
    counted = query.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
    total = connection.execute(counted).scalar_one()
    rows = connection.execute(query.limit(page.limit).offset(page.offset)).all()
    return Found(rows, total).shown(page, shape)


def _asked(limit: int | None, offset: int, usual: int, most: int) -> Page:
    return Page(limit=min(limit or usual, most), offset=offset, search=None, sort=None, direction=None)


def _moment(name: str, text: str) -> int:
    try:
        return moment_ms(text)
    except ValueError as error:
        sentence = f"{error}, not {text[:SHOWN]!r} (a + must be sent as %2B)"
        raise Problem(422, "invalid_parameters", f"{name}: {sentence}.", errors={name: [sentence]}) from None


def _flag_ids(connection: Connection, project: Project, reference: str) -> list[str]:
    """Return every flag that has, or before its deletion had, this id or key: their counts are still of interest."""
    table = tables.flags
    query = select(table.c.id).where(table.c.project_id == project.id, named(table, reference))
    found = list(connection.execute(query).scalars())
    if not found:
        raise not_found("flag", reference)
    return found
