"""What an environment publishes: the objects that relays hold, hash and evaluate.

Pure renderings of entities; None means that the entity is not published (archived, deleted, revoked, expired). The
`version` of a flag or segment object is the environment's revision at which that object last changed, so that it
grows whatever happened to the entity in between and stays when nothing visible changed.
"""

from typing import Any

from relay.clock import rfc3339
from upstream.domain.entities import Credential, Environment, Flag, FlagConfig, FlagType, Prerequisite, Project, Segment
from upstream.domain.values import number_format


def flag_object(flag: Flag, config: FlagConfig, version: int) -> dict[str, Any] | None:
    """Return a flag as one environment publishes it."""
    if flag.archived_at is not None or flag.deleted_at is not None:
        return None
    published: dict[str, Any] = {
        "id": flag.id,
        "name": flag.name,
        "type": str(flag.type),
        "version": version,
        "salt": config.salt,
        "enabled": flag.is_active and config.enabled,
        "variations": [{"key": variation.key, "value": variation.value} for variation in flag.variations],
        "off": config.off,
        "fallthrough": config.fallthrough,
        "rules": [{"id": rule.id, "when": rule.when, "serve": rule.serve} for rule in config.rules if rule.is_active],
        "targets": [{"variation": target.variation, "units": target.units} for target in config.targets],
        "prerequisites": [_prerequisite(prerequisite) for prerequisite in flag.prerequisites],
        "client_side": flag.client_side_enabled,
        "analytics": flag.analytics_enabled,
        "metadata": flag.metadata,
    }
    if flag.type is FlagType.NUMBER:
        published["number_format"] = flag.number_format or number_format(flag.variations)
    if flag.mutual_exclusion_group is not None:
        published["group"] = flag.mutual_exclusion_group
    return published


def _prerequisite(prerequisite: Prerequisite) -> dict[str, Any]:
    if prerequisite.variations is None:
        return {"flag": prerequisite.flag}
    return {"flag": prerequisite.flag, "variations": prerequisite.variations}


def segment_object(segment: Segment, version: int) -> dict[str, Any]:
    """Return a segment as its project's environments publish it."""
    return {
        "version": version,
        "name": segment.name,
        "include": segment.include,
        "exclude": segment.exclude,
        "when": segment.when,
    }


def credential_object(credential: Credential, now_ms: int) -> dict[str, Any] | None:
    """Return a key as the environments that it covers publish it."""
    if not credential.is_alive(now_ms):
        return None
    return {
        "id": credential.id,
        "hash": credential.hash,
        "kind": str(credential.kind),
        "scopes": credential.scopes,
        "projects": credential.projects,
        "expires_at": None if credential.expires_at is None else rfc3339(credential.expires_at),
        "origins": credential.origins,
    }


def limits_object(project: Project) -> dict[str, Any]:
    """Return the limits that relays enforce in a project's environments."""
    return {} if project.mau_limit is None else {"mau": project.mau_limit}


def secrets_object(environment: Environment) -> dict[str, Any]:
    """Return what relays of an environment share with the authority and nobody else."""
    return {"stream_secret": environment.stream_secret, "secure_mode_secret": environment.secure_mode_secret}
