"""`/projects/{p}/stale-flags`: flags that have had their day, with the reasons; and the same for the list of flags."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Query, Response
from sqlalchemy import Connection

from relay.clock import rfc3339
from upstream.api import shapes
from upstream.api.answers import Json
from upstream.api.flag_states import EnvironmentKeys, Hours
from upstream.api.paging import Found, Paged
from upstream.api.places import ProjectRead
from upstream.api.services import Served, Services
from upstream.domain.entities import Flag, FlagConfig, FlagKind
from upstream.domain.stale import Stale, StaleReason, Thresholds, Usage, reasons_of
from upstream.storage import reads
from upstream.storage.reads import FlagFilter, FlagRow
from upstream.storage.usage import last_evaluated
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}", tags=["flags"])

Reasons: TypeAlias = Mapping[str, tuple[Stale, ...]]
"""Flag id -> why it is stale."""


@router.get("/stale-flags")
async def list_stale_flags(
    at: ProjectRead,
    page: Paged,
    services: Served,
    reason: Annotated[StaleReason | None, Query(description="Only flags that are stale for this reason.")] = None,
    kind: Annotated[FlagKind | None, Query(description="Only flags of this kind.")] = None,
) -> Response:
    """List the flags that can probably be removed, with the reasons, since when, and what they were told from.

    Evaluations count where a client asked for the single flag. The thresholds are the installation's settings; 0 days
    are never over.
    """
    query = page.query(Flag)

    def look(connection: Connection) -> tuple[reads.Page[FlagRow], Reasons]:
        stale = stale_of_project(connection, services, at.project.id)
        chosen = [flag_id for flag_id, found in stale.items() if _is_meant(found, reason)]
        wanted = FlagFilter(kind=kind, ids=chosen)
        return reads.list_flags(connection, at.project.id, query, wanted), stale

    read, stale = await services.database.read(look)
    shown = Found.of(read).shown(
        page, lambda row: {**shapes.flag(row.flag), "stale": shown_reasons(stale[row.flag.id])}
    )
    return Json({**shown, "thresholds": {str(each): asdict(after) for each, after in services.stale.items()}})


def _is_meant(found: Sequence[Stale], reason: StaleReason | None) -> bool:
    return bool(found) if reason is None else any(each.reason is reason for each in found)


def stale_of_project(connection: Connection, services: Services, project_id: str) -> Reasons:
    """Return why each live flag of the project is stale, in four statements."""
    view = StoredView(connection)
    configs: dict[str, dict[str, FlagConfig]] = {}
    for config in view.project_configs(project_id):
        configs.setdefault(config.flag_id, {})[config.environment_id] = config
    rows = [FlagRow(flag, configs.get(flag.id, {})) for flag in view.flags(project_id) if flag.archived_at is None]
    environments = {each.id: each.key for each in view.environments(project_id)}
    return stale_of(
        rows, environments, last_evaluated(connection, project_id), services.stale, services.clock.wall_ms()
    )


def stale_of(
    rows: Collection[FlagRow],
    environments: EnvironmentKeys,
    evaluated: Hours,
    thresholds: Mapping[FlagKind, Thresholds],
    now_ms: int,
) -> Reasons:
    """Return why each of these flags is stale; `environments` are their keys by id, in order."""
    found: dict[str, tuple[Stale, ...]] = {}
    for row in rows:
        usage = Usage(
            flag=row.flag,
            configs={key: row.configs[each] for each, key in environments.items() if each in row.configs},
            evaluated={key: evaluated.get((row.flag.id, each)) for each, key in environments.items()},
        )
        found[row.flag.id] = reasons_of(usage, thresholds[row.flag.kind], now_ms)
    return found


def shown_reasons(found: Sequence[Stale]) -> list[dict[str, Any]]:
    """Return reasons as answers show them."""
    return [{"reason": each.reason, "since": rfc3339(each.since), "evidence": each.evidence} for each in found]
