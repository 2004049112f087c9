"""History of every version, sealed audit, scheduled changes, change requests, invitations, rotation of keys.

A migration is history: it is never edited once released, and does not import the tables as they are today.
"""

from collections.abc import Mapping
from typing import Any

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = {
    "tags",
    "metadata",
    "prerequisites",
    "variations",
    "fallthrough",
    "rules",
    "targets",
    "include",
    "exclude",
    "when",
}
_FLAGS = {"is_active", "client_side_enabled", "analytics_enabled", "enabled"}


def upgrade() -> None:
    """Add the tables and columns, and begin the history with what there is."""
    op.add_column("environments", sa.Column("require_review", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("credentials", sa.Column("replaces", sa.Text(), nullable=True))
    op.add_column("audit", sa.Column("address", sa.Text(), nullable=True))
    _create_history()
    _create_governance()
    _begin_history()


def _create_history() -> None:
    op.create_table(
        "entity_history",
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("environment_id", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("audit_id", sa.Text(), nullable=True),
        sa.Column("revisions", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("entity_id", "environment_id", "version"),
    )
    op.create_index("ix_entity_history_project", "entity_history", ["project_id"])
    op.create_table(
        "audit_seals",
        sa.Column("organisation_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("organisation_id", "number"),
        sa.UniqueConstraint("audit_id"),
    )


def _edited() -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "created_at", "updated_at")]


def _create_governance() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("commands", sa.Text(), nullable=False),
        sa.Column("run_at", sa.BigInteger(), nullable=False),
        sa.Column("preview", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), nullable=True),
        *_edited(),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_schedules_due", "schedules", ["status", "run_at"])
    op.create_index("ix_schedules_project", "schedules", ["project_id"])
    op.create_table(
        "change_requests",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("commands", "bound", "preview", "status")),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("reviews", sa.Text(), nullable=False),
        *_edited(),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_change_requests_project", "change_requests", ["project_id", "status"])
    op.create_table(
        "one_time_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("member_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["members.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("hash"),
    )
    op.create_index("ix_one_time_tokens_member", "one_time_tokens", ["member_id"])


def _begin_history() -> None:
    """Note every flag, config and segment as it is now: the versions before were not kept."""
    connection = op.get_bind()
    queries = {
        "flag": "SELECT flags.id AS entity_id, '' AS of_environment, flags.* FROM flags",
        "config": (
            "SELECT flag_id AS entity_id, environment_id AS of_environment, flags.project_id AS project_id,"
            " flag_configs.* FROM flag_configs JOIN flags ON flags.id = flag_configs.flag_id"
        ),
        "segment": "SELECT segments.id AS entity_id, '' AS of_environment, segments.* FROM segments",
    }
    insert = sa.text(
        "INSERT INTO entity_history (entity_id, environment_id, version, kind, project_id, at, revisions, body)"
        " VALUES (:entity_id, :of_environment, :version, :kind, :project_id, :updated_at, '{}', :body)"
    )
    for kind, query in queries.items():
        # Read whole first: one connection carries one statement at a time.
        for row in connection.execute(sa.text(query)).mappings().all():
            connection.execute(insert, {**_key(row), "kind": kind, "body": _body(kind, row)})


def _key(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("entity_id", "of_environment", "version", "project_id", "updated_at")}


def _body(kind: str, row: Mapping[Any, Any]) -> str:
    without = {"entity_id", "of_environment"} | ({"project_id"} if kind == "config" else set())
    return orjson.dumps(
        {name: _value(name, value) for name, value in row.items() if name not in without}, option=orjson.OPT_SORT_KEYS
    ).decode()


def _value(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return orjson.loads(value)
    return bool(value) if name in _FLAGS else value
