"""Which published objects a command may concern, and how each is rendered from what is stored now.

Errs on the side of too many: `publication` compares every draft with what was published and drops those that are equal.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from upstream.domain.entities import Credential, Entity, Environment, Flag, FlagConfig, Project, Segment
from upstream.domain.facts import Decision
from upstream.domain.snapshot import credential_object, flag_object, limits_object, secrets_object, segment_object
from upstream.storage import tables
from upstream.storage.publication import Name, Render
from upstream.storage.records import columns, every, find_all, made, pair

Drafts = dict[str, dict[Name, Render]]


def drafts_of(connection: Connection, decision: Decision, now_ms: int) -> Drafts:
    """Return the drafts of a decision that has been written."""
    save, remove = decision.save, decision.remove
    drafts: Drafts = {}
    fresh = [entity for entity in save if isinstance(entity, Environment) and entity.version == 1]
    for environment in fresh:
        drafts[environment.id] = _whole(connection, environment, now_ms)
    _draft_flags(connection, save, decision.target, drafts)
    for entity in save:
        match entity:
            case Segment():
                _draft_everywhere(
                    connection,
                    entity.project_id,
                    ("segment", entity.key),
                    partial(segment_object, entity),
                    drafts,
                )
            case Credential():
                _draft_credential(connection, entity, now_ms, drafts)
            case Project() if entity.version > 1:
                _draft_everywhere(connection, entity.id, ("limits", ""), _constant(limits_object(entity)), drafts)
    for entity in remove:
        if isinstance(entity, Segment):
            _draft_everywhere(connection, entity.project_id, ("segment", entity.key), _constant(None), drafts)
    return drafts


def drafts_of_expired(connection: Connection, now_ms: int) -> Drafts:
    """Return the drafts that take expired keys, which are still published, out of their environments."""
    objects, credentials = tables.environment_objects, tables.credentials
    query = (
        select(objects.c.environment_id, objects.c.key)
        .join(credentials, credentials.c.id == objects.c.key)
        .where(objects.c.kind == "credential", credentials.c.expires_at <= now_ms)
        # A key whose time is being prolonged now is looked at again once that has happened.
        .with_for_update(of=credentials, key_share=True)
    )
    drafts: Drafts = {}
    for row in connection.execute(query):
        drafts.setdefault(row.environment_id, {})["credential", row.key] = _constant(None)
    return drafts


def still_there(connection: Connection, drafts: Drafts) -> Drafts:
    """Return the drafts of those environments that the transaction has not deleted after drafting them."""
    if not drafts:
        return drafts
    table = tables.environments
    found = set(connection.execute(select(table.c.id).where(table.c.id.in_(drafts))).scalars())
    return {environment_id: names for environment_id, names in drafts.items() if environment_id in found}


def _constant(rendered: dict[str, Any] | None) -> Render:
    return lambda _version: rendered


def _flag_render(flag: Flag, config: FlagConfig) -> Render:
    return partial(flag_object, flag, config)


def _draft_flags(connection: Connection, save: Iterable[Entity], target: Entity | None, drafts: Drafts) -> None:
    """Draft each saved flag in all environments, and the flag of each other saved config in that one."""
    whole = frozenset(drafts)
    saved = {entity.id: entity for entity in save if isinstance(entity, Flag)}
    known = saved | ({target.id: target} if isinstance(target, Flag) else {})
    configs = [each for each in save if isinstance(each, FlagConfig) and each.flag_id not in saved]
    for flag in saved.values():
        configs += every(connection, FlagConfig, flag_id=flag.id)
    for config in configs:
        if config.environment_id not in whole:
            flag = known[config.flag_id]
            drafts.setdefault(config.environment_id, {})["flag", flag.key] = _flag_render(flag, config)


def _flags_with_configs(connection: Connection, *where: Any) -> Iterable[tuple[Flag, FlagConfig]]:
    query = (
        select(*columns(Flag), *columns(FlagConfig))
        .join(tables.flag_configs, tables.flag_configs.c.flag_id == tables.flags.c.id)
        .where(*where)
    )
    return (pair(row, Flag, FlagConfig) for row in connection.execute(query))


def _draft_everywhere(connection: Connection, project_id: str, name: Name, render: Render, drafts: Drafts) -> None:
    table = tables.environments
    for environment_id in connection.execute(select(table.c.id).where(table.c.project_id == project_id)).scalars():
        drafts.setdefault(environment_id, {})[name] = render


def _draft_credential(connection: Connection, credential: Credential, now_ms: int, drafts: Drafts) -> None:
    environments, projects = tables.environments, tables.projects
    query = (
        select(*columns(Environment))
        .join(projects, projects.c.id == environments.c.project_id)
        .where(projects.c.organisation_id == credential.organisation_id)
    )
    if credential.environment_id is not None:
        query = query.where(environments.c.id == credential.environment_id)
    for row in connection.execute(query):
        environment = made(Environment, row)
        if credential.covers(environment):
            render = _constant(credential_object(credential, now_ms))
            drafts.setdefault(environment.id, {})["credential", credential.id] = render


def _whole(connection: Connection, environment: Environment, now_ms: int) -> dict[Name, Render]:
    """Draft everything that a new environment publishes."""
    (project,) = every(connection, Project, id=environment.project_id)
    drafts: dict[Name, Render] = {
        ("limits", ""): _constant(limits_object(project)),
        ("secrets", ""): _constant(secrets_object(environment)),
    }
    here = tables.flag_configs.c.environment_id == environment.id
    for flag, config in _flags_with_configs(connection, here, tables.flags.c.deleted_at.is_(None)):
        drafts["flag", flag.key] = _flag_render(flag, config)
    for segment in every(connection, Segment, project_id=project.id):
        drafts["segment", segment.key] = partial(segment_object, segment)
    mine = tables.credentials.c.organisation_id == project.organisation_id
    for credential in find_all(connection, Credential, mine, tables.credentials.c.revoked_at.is_(None)):
        if credential.covers(environment):
            drafts["credential", credential.id] = _constant(credential_object(credential, now_ms))
    return drafts
