"""How a flag stands in each environment, in short: what answers about whole flags show beside them."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from sqlalchemy import Connection

from upstream.api.services import Services
from upstream.authority import Outcome
from upstream.domain.entities import Flag, FlagConfig
from upstream.storage.view import StoredView

EnvironmentKeys: TypeAlias = Mapping[str, str]
"""Environment id -> key, in the environments' order."""


async def states_after(services: Services, outcome: Outcome) -> dict[str, Any]:
    """Return how the flag that was changed stands in each environment of its project."""
    flag = outcome.entity
    assert isinstance(flag, Flag)  # noqa: S101 - for commands about whole flags only

    def look(connection: Connection) -> dict[str, Any]:
        return states(StoredView(connection).configs(flag.id), environment_keys(connection, flag.project_id))

    return await services.database.read(look)


def environment_keys(connection: Connection, project_id: str) -> EnvironmentKeys:
    """Return the keys of a project's environments."""
    return {each.id: each.key for each in StoredView(connection).environments(project_id)}


def states(configs: Mapping[str, FlagConfig], keys: EnvironmentKeys) -> dict[str, Any]:
    """Return the summary by environment; the whole of it is at `/flags/{f}/environments`."""
    known = {key: configs[environment_id] for environment_id, key in keys.items() if environment_id in configs}
    return {
        "environments": {key: {"enabled": config.enabled, "version": config.version} for key, config in known.items()}
    }
