"""What flags have to do with each other: `/groups` and `/tags` of a project, `/dependencies` of a flag."""

from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import Connection

from upstream.api.answers import Json, whole
from upstream.api.flag_states import environment_keys
from upstream.api.places import FlagRef, ProjectRead
from upstream.api.services import Served
from upstream.domain.dependencies import Dependencies, dependencies_of
from upstream.domain.lookup import flag_of
from upstream.storage.flag_groups import count_tags, list_groups
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}", tags=["flags"])


@router.get("/groups")
async def read_groups(at: ProjectRead, services: Served) -> Response:
    """Return the mutual exclusion groups of a project, with where each of their flags is enabled."""

    def look(connection: Connection) -> list[dict[str, Any]]:
        names = environment_keys(connection, at.project.id)
        return [
            {
                "name": group.name,
                "members": [
                    {
                        "flag": row.flag.key,
                        "is_active": row.flag.is_active,
                        "environments": {
                            key: row.configs[each].enabled for each, key in names.items() if each in row.configs
                        },
                    }
                    for row in group.members
                ],
            }
            for group in list_groups(connection, at.project.id)
        ]

    return whole(await services.database.read(look))


@router.get("/tags")
async def read_tags(at: ProjectRead, services: Served) -> Response:
    """Return the tags of a project's flags, and how many flags have each; archived flags do not count."""
    counts = await services.database.read(lambda connection: count_tags(connection, at.project.id))
    return whole([{"tag": tag, "flags": count} for tag, count in counts.items()])


@router.get("/flags/{f}/dependencies")
async def read_dependencies(at: ProjectRead, f: FlagRef, services: Served) -> Response:
    """Return the flags that a flag requires and those that require it, however far, and the segments in its rules."""

    def look(connection: Connection) -> Dependencies:
        view = StoredView(connection)
        return dependencies_of(flag_of(view, at.project, f), view)

    found = await services.database.read(look)
    return Json({"requires": found.requires, "required_by": found.required_by, "segments": found.segments})
