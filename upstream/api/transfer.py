"""`/projects/{p}/export` and `/import`, and `/projects:import`: a whole project as one JSON document."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, warnings_of
from upstream.api.caller import FlagWriter, ProjectWriter
from upstream.api.doing import Doing
from upstream.api.places import ProjectRead, ProjectWrite
from upstream.api.project_document import DocumentBody, ImportBody, NewProjectBody
from upstream.api.services import Served
from upstream.authority import Outcome
from upstream.domain.commands import ImportProject
from upstream.domain.transfer import project_document
from upstream.storage.view import StoredView

router = APIRouter(tags=["transfer"])


@router.get("/projects/{p}/export")  # noqa: FAST003 - `ProjectRead` takes it
async def export_project(at: ProjectRead, services: Served) -> Response:
    """Return the whole project as one document, without ids, keys and secrets.

    Importing it into an empty project gives the same project: salts and the ids of rules are in it, so every unit is
    served what it was served.
    """
    project = at.project

    def look(connection: Connection) -> dict[str, Any]:
        view = StoredView(connection)
        return project_document(
            project=project,
            environments=view.environments(project.id),
            segments=view.segments(project.id),
            flags=view.flags(project.id),
            configs=view.project_configs(project.id),
            now_ms=services.clock.wall_ms(),
        )

    document = await services.database.read(look)
    # A large document takes a while to be written, for which the event loop must not stand still.
    answer = await asyncio.to_thread(Json, document)
    answer.headers["Content-Disposition"] = f'attachment; filename="{project.key}.halyard.json"'
    return answer


@router.post("/projects/{p}/import")
async def import_project(
    at: ProjectWrite, body: Annotated[ImportBody, Depends(DocumentBody(ImportBody))], doing: Doing
) -> Response:
    """Make the project equal to a document, in one transaction; with `dry_run` show the plan.

    Changing the project or its environments needs `projects:write`, pruning needs `flags:delete`.
    """
    command = ImportProject(
        project=at.project.id,
        document=body.document(),
        prune=body.prune,
        create_environments=body.create_environments,
        confirm_type_change=body.confirm_type_change,
    )
    return _imported(await doing(command, at.actor))


@router.post("/projects:import", status_code=201)
async def import_new_project(
    actor: FlagWriter,
    _: ProjectWriter,
    body: Annotated[NewProjectBody, Depends(DocumentBody(NewProjectBody))],
    doing: Doing,
) -> Response:
    """Make a new project of a document, under the key that it names; with `dry_run` show the plan."""
    outcome = await doing(ImportProject(project=None, document=body.document()), actor)
    answer = _imported(outcome, 201)
    answer.headers["Location"] = f"/api/v2/projects/{shapes.shape(outcome.entity)['key']}"
    return answer


def _imported(outcome: Outcome, status: int = 200) -> Json:
    shown = {
        "project": shapes.shape(outcome.entity),
        **(outcome.report or {}),
        "revisions": outcome.revisions,
        **warnings_of(outcome),
    }
    return Json(shown, status)
