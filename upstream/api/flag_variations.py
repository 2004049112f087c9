"""`/projects/{p}/flags/{f}/variations`: what a flag can serve, one value at a time.

Variations belong to the flag in every environment, so versions in headers are the flag's.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from sqlalchemy import Connection

from upstream.api import shapes
from upstream.api.answers import Json, warnings_of, whole
from upstream.api.body import Body, JsonBody, absent
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch, etag
from upstream.api.places import FlagRef, ProjectRead, ProjectWrite
from upstream.api.services import Served
from upstream.authority import Outcome
from upstream.domain.entities import Flag
from upstream.domain.flag_commands import AddVariation, DeleteVariation, UpdateVariation
from upstream.domain.flag_variations import variation_of
from upstream.domain.lookup import flag_of
from upstream.storage.view import StoredView

router = APIRouter(prefix="/projects/{p}/flags/{f}/variations", tags=["flags"])

VariationRef = Annotated[str, Path(description="Key of the variation.")]


class NewVariationBody(Body):
    """A value of the flag's type; the key is made from the name or the value when it is left out."""

    key: str | None = None
    value: Any
    name: str | None = None


class UpdateVariationBody(Body):
    """What to change; wherever the variation is served, its new value is."""

    value: Any = absent()
    name: str | None = absent()


@router.get("")
async def list_variations(at: ProjectRead, f: FlagRef, services: Served) -> Response:
    """Return the variations of a flag, in their order."""

    def look(connection: Connection) -> Flag:
        return flag_of(StoredView(connection), at.project, f)

    flag = await services.database.read(look)
    return whole([shapes.variation(each) for each in flag.variations], flag)


@router.post("", status_code=201)
async def add_variation(
    at: ProjectWrite,
    f: FlagRef,
    if_match: IfMatch,
    body: Annotated[NewVariationBody, Depends(JsonBody(NewVariationBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Add a variation, which nothing serves yet."""
    command = AddVariation(project=at.project.id, flag=f, variation=body.given(), if_match=if_match)
    outcome = await doing(command, at.actor)
    flag = _flag(outcome)
    key = flag.variations[-1].key
    answer = _answer(outcome, key, 201)
    answer.headers["Location"] = f"/api/v2/projects/{at.project.key}/flags/{flag.key}/variations/{key}"
    return answer


@router.patch("/{key}")
async def update_variation(
    at: ProjectWrite,
    f: FlagRef,
    key: VariationRef,
    if_match: IfMatch,
    body: Annotated[UpdateVariationBody, Depends(JsonBody(UpdateVariationBody, is_judged_whole=True))],
    doing: Doing,
) -> Response:
    """Change the value or the name of a variation."""
    command = UpdateVariation(project=at.project.id, flag=f, variation=key, changes=body.given(), if_match=if_match)
    return _answer(await doing(command, at.actor), key)


@router.delete("/{key}", status_code=204)
async def delete_variation(
    at: ProjectWrite, f: FlagRef, key: VariationRef, if_match: IfMatch, doing: Doing
) -> Response:
    """Take away a variation that is served nowhere; the flag's new version is in the ETag."""
    command = DeleteVariation(project=at.project.id, flag=f, variation=key, if_match=if_match)
    return Response(status_code=204, headers={"ETag": etag((await doing(command, at.actor)).entity)})


def _flag(outcome: Outcome) -> Flag:
    assert isinstance(outcome.entity, Flag)  # noqa: S101 - what commands about variations are about
    return outcome.entity


def _answer(outcome: Outcome, key: str, status: int = 200) -> Json:
    """Return the answer that shows a variation; `version` is the flag's."""
    flag = _flag(outcome)
    shown = {**shapes.variation(variation_of(flag, key)), "flag": flag.key, "version": flag.version}
    return Json({**shown, **warnings_of(outcome)}, status, {"ETag": etag(flag)})
