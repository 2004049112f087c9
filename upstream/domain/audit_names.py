"""What the thing that a decision is about is called, in the audit log and where somebody is shown what would change.

Pure. A name is for people: the key where there is one, else an address, a hint or a title. A flag's config has the
name of its flag, and the environment stands beside it.
"""

from upstream.domain.entities import Credential, Entity
from upstream.domain.facts import Decision

_NAMES = ("key", "email", "title")


def type_of_target(decision: Decision) -> str:
    """Return the kind of thing that a decision is about, which is how its action begins."""
    return decision.action.split(".", maxsplit=1)[0]


def name_of(entity: Entity) -> str | None:
    """Return what people call a thing; None where it has no name."""
    if isinstance(entity, Credential):
        return entity.hint
    return next((text for name in _NAMES if (text := getattr(entity, name, None))), None)
