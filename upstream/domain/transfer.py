"""A whole project as one JSON document: what there is to know of it, without ids, versions, secrets and bookkeeping.

Renders; `importing` reads it back. Lossless: a document that is imported into an empty project and exported again is
equal, and evaluates the same, because salts and rule ids are in it. Things are listed by key, and stand in a stable
order, so that two documents can be compared as text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from relay.clock import rfc3339
from upstream.domain.entities import Environment, Flag, FlagConfig, JsonObject, Project, Segment

FORMAT: Final = "halyard.project"
FORMAT_VERSION: Final = 1

PROJECT_FIELDS: Final = ("name", "description", "mau_limit")
ENVIRONMENT_FIELDS: Final = ("name", "sort", "critical", "require_review")
SEGMENT_FIELDS: Final = ("name", "description", "include", "exclude", "when")
FLAG_FIELDS: Final = (
    "name",
    "description",
    "type",
    "number_format",
    "kind",
    "tags",
    "metadata",
    "is_active",
    "client_side_enabled",
    "analytics_enabled",
    "mutual_exclusion_group",
    "owner",
)
CONFIG_FIELDS: Final = ("enabled", "off", "fallthrough", "salt")


def project_document(  # noqa: PLR0913 - the parts of a project, one by one
    *,
    project: Project,
    environments: Sequence[Environment],
    segments: Sequence[Segment],
    flags: Sequence[Flag],
    configs: Sequence[FlagConfig],
    now_ms: int,
) -> dict[str, Any]:
    """Return a project as it is exported."""
    keys = {environment.id: environment.key for environment in environments}
    by_flag: dict[str, dict[str, JsonObject]] = {flag.id: {} for flag in flags}
    for config in configs:
        if config.flag_id in by_flag and config.environment_id in keys:
            by_flag[config.flag_id][keys[config.environment_id]] = _config(config)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "exported_at": rfc3339(now_ms),
        "project": {"key": project.key, **_fields(project, PROJECT_FIELDS)},
        "environments": [{"key": each.key, **_fields(each, ENVIRONMENT_FIELDS)} for each in environments],
        "segments": [{"key": each.key, **_fields(each, SEGMENT_FIELDS)} for each in sorted(segments, key=_key)],
        "flags": [_flag(each, by_flag[each.id]) for each in sorted(flags, key=_key)],
    }


def _key(entity: Segment | Flag) -> str:
    return entity.key


def _fields(entity: Any, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(entity, name) for name in names}


def _flag(flag: Flag, configs: Mapping[str, JsonObject]) -> dict[str, Any]:
    return {
        "key": flag.key,
        **_fields(flag, FLAG_FIELDS),
        "expires_at": None if flag.expires_at is None else rfc3339(flag.expires_at),
        "archived": flag.archived_at is not None,
        "prerequisites": [asdict(each) for each in flag.prerequisites],
        "variations": [asdict(each) for each in flag.variations],
        "configs": dict(sorted(configs.items())),
    }


def _config(config: FlagConfig) -> JsonObject:
    return {
        **_fields(config, CONFIG_FIELDS),
        "rules": [asdict(each) for each in config.rules],
        "targets": [asdict(each) for each in config.targets],
    }
