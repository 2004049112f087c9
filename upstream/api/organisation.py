"""`/organisation`: the one that the caller belongs to."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from upstream.api.answers import changed, one
from upstream.api.body import Body, JsonBody, absent
from upstream.api.caller import OrganisationWriter, SignedIn
from upstream.api.doing import Doing
from upstream.api.etags import IfMatch
from upstream.api.services import Served
from upstream.domain.access_commands import (
    UpdateOrganisation,
)
from upstream.domain.errors import not_found
from upstream.storage import reads

router = APIRouter(prefix="/organisation", tags=["organisation"])


class UpdateOrganisationBody(Body):
    """What to change of the organisation."""

    name: str = absent()


@router.get("")
async def read_organisation(actor: SignedIn, services: Served) -> Response:
    """Return the organisation that the caller belongs to."""
    mine = actor.organisation_id
    organisation = await services.database.read(lambda connection: reads.get_organisation(connection, mine))
    if organisation is None:
        raise not_found("organisation", mine)
    return one(organisation)


@router.patch("")
async def update_organisation(
    actor: OrganisationWriter,
    if_match: IfMatch,
    body: Annotated[UpdateOrganisationBody, Depends(JsonBody(UpdateOrganisationBody))],
    doing: Doing,
) -> Response:
    """Change the organisation; its owners may."""
    return changed(await doing(UpdateOrganisation(if_match=if_match, **body.given()), actor))
