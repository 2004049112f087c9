"""An outcome as text and back: from it a route makes the answer that a process which died could not give any more."""

from typing import Any

import orjson

from upstream.authority import Outcome
from upstream.domain.entities import Change
from upstream.domain.facts import Notice
from upstream.storage.records import TABLES, entity_of, values_of

_KINDS = {kind.__name__: kind for kind in TABLES}


def encoded(outcome: Outcome) -> bytes:
    """Return an outcome as text."""
    return orjson.dumps(
        {
            "entity": _written(outcome.entity),
            "entities": [_written(entity) for entity in outcome.entities],
            "revisions": outcome.revisions,
            "changes": outcome.changes,
            "warnings": outcome.warnings,
            "audit_id": outcome.audit_id,
            "secret": outcome.secret,
            "report": outcome.report,
        }
    )


def decoded(text: bytes) -> Outcome:
    """Return the outcome that `encoded` wrote."""
    kept = orjson.loads(text)
    return Outcome(
        entity=_read(kept["entity"]),
        entities=tuple(_read(entity) for entity in kept["entities"]),
        revisions=kept["revisions"],
        changes=tuple(Change(**change) for change in kept["changes"]),
        warnings=tuple(Notice(**notice) for notice in kept["warnings"]),
        audit_id=kept["audit_id"],
        secret=kept["secret"],
        report=kept.get("report"),
    )


def _written(entity: Any) -> dict[str, Any]:
    return {"of": type(entity).__name__, "values": values_of(entity)}


def _read(written: dict[str, Any]) -> Any:
    return entity_of(_KINDS[written["of"]], written["values"])
