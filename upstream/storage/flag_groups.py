"""What the flags of a project have in common: their tags, and the exclusion groups of which a unit gets one flag.

Reads only, in a bounded number of statements; archived flags do not count.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from upstream.domain.entities import Flag, FlagConfig
from upstream.storage import tables
from upstream.storage.reads import FlagRow
from upstream.storage.records import find_all


@dataclass(frozen=True, slots=True)
class Group:
    """A mutual exclusion group and its members by key."""

    name: str
    members: tuple[FlagRow, ...]


def count_tags(connection: Connection, project_id: str) -> Mapping[str, int]:
    """Return how many flags have each tag, in the tags' order."""
    query = select(tables.flags.c.tags).where(*_live(project_id))
    counts = Counter(tag for tags in connection.execute(query).scalars() for tag in tags)
    return dict(sorted(counts.items()))


def list_groups(connection: Connection, project_id: str) -> list[Group]:
    """Return the exclusion groups of a project by name."""
    flags = tables.flags
    grouped = (*_live(project_id), flags.c.mutual_exclusion_group.is_not(None))
    members = find_all(connection, Flag, *grouped, order=flags.c.key)
    configs: dict[str, dict[str, FlagConfig]] = {flag.id: {} for flag in members}
    theirs = select(flags.c.id).where(*grouped)
    for config in find_all(connection, FlagConfig, tables.flag_configs.c.flag_id.in_(theirs)):
        configs[config.flag_id][config.environment_id] = config
    groups: dict[str, list[FlagRow]] = {}
    for flag in members:
        groups.setdefault(str(flag.mutual_exclusion_group), []).append(FlagRow(flag, configs[flag.id]))
    return [Group(name, tuple(rows)) for name, rows in sorted(groups.items())]


def _live(project_id: str) -> tuple[ColumnElement[bool], ...]:
    flags: Any = tables.flags.c
    return flags.project_id == project_id, flags.deleted_at.is_(None), flags.archived_at.is_(None)
