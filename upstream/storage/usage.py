"""When flags were last evaluated by somebody who asked for them.

Answers to questions for all flags at once, and pushed values, tell nothing about a single flag, so their counts are
left out. Counts are kept by the hour, so a moment here is the beginning of one.
"""

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, select

from upstream.storage import tables

ASKED_FOR: Final = ("single", "sdk")
"""The sources of counts that say that somebody wanted this very flag."""


def last_evaluated(
    connection: Connection, project_id: str, flag_ids: Collection[str] | None = None
) -> Mapping[tuple[str, str], int]:
    """Return (flag id, environment id) -> the hour of its last evaluation, of these flags or all of the project.

    One statement, which looks each flag and environment up in the counters' primary key.
    """
    flags, configs, counters = tables.flags, tables.flag_configs, tables.evaluation_counters
    last = (
        select(counters.c.hour_ms)
        .where(
            counters.c.environment_id == configs.c.environment_id,
            counters.c.flag_id == configs.c.flag_id,
            counters.c.source.in_(ASKED_FOR),
        )
        .order_by(counters.c.hour_ms.desc())
        .limit(1)
        .scalar_subquery()
    )
    query = (
        select(configs.c.flag_id, configs.c.environment_id, last.label("hour_ms"))
        .join(flags, flags.c.id == configs.c.flag_id)
        .where(flags.c.project_id == project_id, flags.c.deleted_at.is_(None))
    )
    if flag_ids is not None:
        query = query.where(flags.c.id.in_(flag_ids))
    rows = connection.execute(query)
    return {(row.flag_id, row.environment_id): row.hour_ms for row in rows if row.hour_ms is not None}
