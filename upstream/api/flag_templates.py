"""`/flag-templates`: what a new flag can be made of."""

from fastapi import APIRouter, Response

from upstream.api.answers import whole
from upstream.api.caller import FlagReader
from upstream.domain.templates import TEMPLATES

router = APIRouter(prefix="/flag-templates", tags=["flags"])


@router.get("")
async def read_templates(actor: FlagReader) -> Response:  # noqa: ARG001 - checked
    """Return the templates, and what each makes in every environment."""
    return whole(
        [
            {
                "template": name,
                "description": template.description,
                "flavors": [flavor for flavor in template.variations if flavor is not None],
                "kind": template.kind,
                "is_active": template.is_active,
                "variations": {flavor or "boolean": entries for flavor, entries in template.variations.items()},
                "off": template.off,
                "fallthrough": template.fallthrough,
            }
            for name, template in TEMPLATES.items()
        ]
    )
