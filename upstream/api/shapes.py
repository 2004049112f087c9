"""How stored things look in answers: one function per entity, times as RFC 3339, no secret ever.

The names are the API's promise; that they mostly equal the entities' fields is convenience, so each is written out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from relay.clock import rfc3339
from upstream.domain.diff import patch_of
from upstream.domain.entities import (
    AuditEntry,
    Change,
    ChangeRequest,
    Credential,
    Entity,
    Environment,
    Flag,
    FlagConfig,
    Member,
    OneTimeToken,
    Organisation,
    Project,
    Rule,
    Schedule,
    Segment,
    Variation,
)

Shape: TypeAlias = dict[str, Any]


def moment(wall_ms: int | None) -> str | None:
    """Return a time as answers show it."""
    return None if wall_ms is None else rfc3339(wall_ms)


def _edited(
    entity: Organisation | Member | Project | Environment | Flag | Segment | Credential | Schedule | ChangeRequest,
) -> Shape:
    return {
        "version": entity.version,
        "created_at": moment(entity.created_at),
        "updated_at": moment(entity.updated_at),
    }


def organisation(entity: Organisation) -> Shape:
    """Return an organisation as answers show it."""
    return {"id": entity.id, "name": entity.name, **_edited(entity)}


def project(entity: Project) -> Shape:
    """Return a project as answers show it."""
    return {
        "id": entity.id,
        "key": entity.key,
        "name": entity.name,
        "description": entity.description,
        "mau_limit": entity.mau_limit,
        **_edited(entity),
    }


def environment(entity: Environment) -> Shape:
    """Return an environment as answers show it; its secrets go to relays only."""
    return {
        "id": entity.id,
        "key": entity.key,
        "name": entity.name,
        "sort": entity.sort,
        "critical": entity.critical,
        "require_review": entity.require_review,
        "revision": entity.revision,
        **_edited(entity),
    }


def flag(entity: Flag) -> Shape:
    """Return what a flag is in every environment."""
    return {
        "id": entity.id,
        "key": entity.key,
        "name": entity.name,
        "description": entity.description,
        "type": entity.type,
        "number_format": entity.number_format,
        "kind": entity.kind,
        "tags": entity.tags,
        "metadata": entity.metadata,
        "is_active": entity.is_active,
        "client_side_enabled": entity.client_side_enabled,
        "analytics_enabled": entity.analytics_enabled,
        "prerequisites": entity.prerequisites,
        "mutual_exclusion_group": entity.mutual_exclusion_group,
        "variations": entity.variations,
        "owner": entity.owner,
        "expires_at": moment(entity.expires_at),
        "archived_at": moment(entity.archived_at),
        **_edited(entity),
    }


def config(entity: FlagConfig) -> Shape:
    """Return a flag's configuration in one environment."""
    return {
        "flag_id": entity.flag_id,
        "environment_id": entity.environment_id,
        "enabled": entity.enabled,
        "enabled_at": moment(entity.enabled_at),
        "off": entity.off,
        "fallthrough": entity.fallthrough,
        "rules": entity.rules,
        "targets": entity.targets,
        "version": entity.version,
        "updated_at": moment(entity.updated_at),
    }


def rule(entity: Rule) -> Shape:
    """Return a rule of a flag's configuration."""
    return {
        "id": entity.id,
        "name": entity.name,
        "when": entity.when,
        "serve": entity.serve,
        "is_active": entity.is_active,
    }


def variation(entity: Variation) -> Shape:
    """Return one of a flag's variations."""
    return {"key": entity.key, "name": entity.name, "value": entity.value}


def segment(entity: Segment) -> Shape:
    """Return a segment as answers show it."""
    return {
        "id": entity.id,
        "key": entity.key,
        "name": entity.name,
        "description": entity.description,
        "include": entity.include,
        "exclude": entity.exclude,
        "when": entity.when,
        **_edited(entity),
    }


def credential(entity: Credential) -> Shape:
    """Return a key or token as answers show it: never its text or hash, only the hint."""
    return {
        "id": entity.id,
        "kind": entity.kind,
        "name": entity.name,
        "hint": entity.hint,
        "scopes": entity.scopes,
        "projects": entity.projects,
        "environments": entity.environments,
        "environment_id": entity.environment_id,
        "origins": entity.origins,
        "expires_at": moment(entity.expires_at),
        "last_used_at": moment(entity.last_used_at),
        "revoked_at": moment(entity.revoked_at),
        "created_by": entity.created_by,
        "replaces": entity.replaces,
        **_edited(entity),
    }


def member(entity: Member) -> Shape:
    """Return a member as answers show it."""
    return {
        "id": entity.id,
        "email": entity.email,
        "name": entity.name,
        "role": entity.role,
        "projects": entity.projects,
        "status": "invited" if entity.password_hash is None else "active",
        **_edited(entity),
    }


def handed_out(token: OneTimeToken, raw: str | None) -> Shape:
    """Return an invitation or reset in the one answer that shows its text."""
    return {"token": raw, "expires_at": moment(token.expires_at)}


def audit_entry(entity: AuditEntry) -> Shape:
    """Return an audit entry as answers show it."""
    return {
        "id": entity.id,
        "at": moment(entity.at),
        "actor": {"type": entity.actor_type, "id": entity.actor_id, "name": entity.actor_name},
        "action": entity.action,
        "target": {"type": entity.target_type, "id": entity.target_id, "key": entity.target_key},
        "project_id": entity.project_id,
        "environment_id": entity.environment_id,
        "changes": shown_changes(entity.changes),
        "patch": patch_of(entity.changes),
        "reason": entity.reason,
        "edge_at": moment(entity.edge_at),
        "request_id": entity.request_id,
        "via": entity.via,
        "address": entity.address,
        "revisions": entity.revisions,
    }


def shown_changes(changes: Sequence[Change]) -> list[Shape]:
    """Return differences as answers show them."""
    return [{"path": each.path, "before": each.before, "after": each.after} for each in changes]


def schedule(entity: Schedule) -> Shape:
    """Return a scheduled change as answers show it."""
    return {
        "id": entity.id,
        "project_id": entity.project_id,
        "run_at": moment(entity.run_at),
        "status": entity.status,
        "actor": entity.actor,
        "reason": entity.reason,
        "commands": entity.commands,
        "preview": entity.preview,
        "result": entity.result,
        **_edited(entity),
    }


def change_request(entity: ChangeRequest) -> Shape:
    """Return a change request as answers show it."""
    return {
        "id": entity.id,
        "project_id": entity.project_id,
        "title": entity.title,
        "description": entity.description,
        "status": entity.status,
        "author": {name: entity.author[name] for name in ("type", "id", "name")},
        "commands": entity.commands,
        "preview": entity.preview,
        "bound": entity.bound,
        "reviews": [
            {"by": each["by"], "verdict": each["verdict"], "comment": each["comment"], "at": moment(each["at"])}
            for each in entity.reviews
        ],
        **_edited(entity),
    }


_BY_KIND: Final[Mapping[type, Callable[[Any], Shape]]] = {
    Organisation: organisation,
    Member: member,
    Project: project,
    Environment: environment,
    Flag: flag,
    FlagConfig: config,
    Segment: segment,
    Credential: credential,
    Schedule: schedule,
    ChangeRequest: change_request,
}


def shape(entity: Entity) -> Shape:
    """Return what a command is about as answers show it."""
    return _BY_KIND[type(entity)](entity)
