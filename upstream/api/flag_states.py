"""How a flag stands in each environment, in short: what answers about whole flags show beside them."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection

from relay.clock import rfc3339
from upstream.api.services import Services
from upstream.authority import Outcome
from upstream.domain.entities import Flag, FlagConfig
from upstream.storage.usage import last_evaluated
from upstream.storage.view import StoredView

EnvironmentKeys: TypeAlias = Mapping[str, str]
"""Environment id -> key, in the environments' order."""
Hours: TypeAlias = Mapping[tuple[str, str], int]
"""(Flag id, environment id) -> hour of the last evaluation."""


async def states_after(services: Services, outcome: Outcome) -> dict[str, Any]:
    """Return how the flag that was changed stands in each environment of its project."""
    flag = outcome.entity
    assert isinstance(flag, Flag)  # noqa: S101 - for commands about whole flags only

    def look(connection: Connection) -> dict[str, Any]:
        hours = last_evaluated(connection, flag.project_id, [flag.id])
        return states(StoredView(connection).configs(flag.id), environment_keys(connection, flag.project_id), hours)

    return await services.database.read(look)


def environment_keys(connection: Connection, project_id: str) -> EnvironmentKeys:
    """Return the keys of a project's environments."""
    return {each.id: each.key for each in StoredView(connection).environments(project_id)}


def states(configs: Mapping[str, FlagConfig], keys: EnvironmentKeys, evaluated: Hours) -> dict[str, Any]:
    """Return the summary by environment; the whole of it is at `/flags/{f}/environments`."""
    known = {key: configs[environment_id] for environment_id, key in keys.items() if environment_id in configs}
    return {"environments": {key: _state(config, evaluated) for key, config in known.items()}}


def _state(config: FlagConfig, evaluated: Hours) -> dict[str, Any]:
    hour = evaluated.get((config.flag_id, config.environment_id))
    return {
        "enabled": config.enabled,
        "version": config.version,
        "last_evaluated_at": None if hour is None else rfc3339(hour),
    }
