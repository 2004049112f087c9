"""The schema, for SQLite and PostgreSQL alike. The migrations create it; a test compares the two.

Times are epoch milliseconds, ids UUID texts, JSON parts canonical text (sorted keys), published bytes binary. What an
environment publishes is kept twice on purpose: as entities, and as the very bytes that were published
(`environment_objects`), so that the hash of a revision never depends on the code that reads it.
"""

from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData()


def json_text(value: Any) -> str:
    """Return the canonical text of a JSON value, as it stands in a JSON column."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class JsonText(TypeDecorator[Any]):
    """JSON kept as canonical text: keys sorted, no spaces. None is NULL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - fixed by SQLAlchemy
        """Render for the database."""
        return None if value is None else json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - fixed by SQLAlchemy
        """Read from the database."""
        return None if value is None else orjson.loads(value)


def _reference(name: str, target: str, *, cascade: bool = False, nullable: bool = False) -> Column[str]:
    return Column(name, Text, ForeignKey(target, ondelete="CASCADE" if cascade else None), nullable=nullable)


def _edited() -> list[Column[int]]:
    """Return the columns that every edited entity has."""
    names = ("version", "created_at", "updated_at")
    return [Column(name, BigInteger, nullable=False) for name in names]


lineage = Table(
    "lineage",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
)

organisations = Table(
    "organisations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    *_edited(),
)

members = Table(
    "members",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("organisation_id", "organisations.id"),
    Column("email", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("projects", JsonText),
    *_edited(),
    Index("ix_members_organisation", "organisation_id"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("member_id", "members.id", cascade=True),
    Column("family", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("revoked_at", BigInteger),
    Index("ix_refresh_tokens_member", "member_id"),
    Index("ix_refresh_tokens_family", "family"),
)

# What a person gets by another way than signing in: an invitation, or the permission to choose a new password.
one_time_tokens = Table(
    "one_time_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("member_id", "members.id", cascade=True),
    Column("kind", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("created_by", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index("ix_one_time_tokens_member", "member_id"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("organisation_id", "organisations.id"),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("mau_limit", BigInteger),
    *_edited(),
    UniqueConstraint("organisation_id", "key", name="uq_projects_key"),
)

environments = Table(
    "environments",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("project_id", "projects.id", cascade=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sort", Integer, nullable=False),
    Column("critical", Boolean, nullable=False),
    Column("stream_secret", Text, nullable=False),
    Column("secure_mode_secret", Text, nullable=False),
    Column("require_review", Boolean, nullable=False, server_default=false()),
    Column("revision", BigInteger, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("credentials_hash", Text, nullable=False),
    *_edited(),
    UniqueConstraint("project_id", "key", name="uq_environments_key"),
)

flags = Table(
    "flags",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("project_id", "projects.id", cascade=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("type", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tags", JsonText, nullable=False),
    Column("metadata", JsonText, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("client_side_enabled", Boolean, nullable=False),
    Column("analytics_enabled", Boolean, nullable=False),
    Column("prerequisites", JsonText, nullable=False),
    Column("mutual_exclusion_group", Text),
    Column("variations", JsonText, nullable=False),
    Column("owner", Text),
    Column("expires_at", BigInteger),
    Column("archived_at", BigInteger),
    Column("deleted_at", BigInteger),
    Column("number_format", Text),
    *_edited(),
)
# A deleted flag keeps its row for the history but not its key.
Index(
    "uq_flags_key",
    flags.c.project_id,
    flags.c.key,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)

flag_configs = Table(
    "flag_configs",
    metadata,
    _reference("flag_id", "flags.id", cascade=True),
    _reference("environment_id", "environments.id", cascade=True),
    Column("enabled", Boolean, nullable=False),
    Column("enabled_at", BigInteger, nullable=False),
    Column("off", Text),
    Column("fallthrough", JsonText, nullable=False),
    Column("rules", JsonText, nullable=False),
    Column("targets", JsonText, nullable=False),
    Column("salt", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("flag_id", "environment_id"),
    Index("ix_flag_configs_environment", "environment_id"),
)

segments = Table(
    "segments",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("project_id", "projects.id", cascade=True),
    Column("key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("include", JsonText, nullable=False),
    Column("exclude", JsonText, nullable=False),
    Column("when", JsonText),
    *_edited(),
    UniqueConstraint("project_id", "key", name="uq_segments_key"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("organisation_id", "organisations.id"),
    Column("kind", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    Column("h2", Text, nullable=False),
    Column("hint", Text, nullable=False),
    Column("scopes", JsonText, nullable=False),
    Column("projects", JsonText),
    Column("environments", JsonText),
    _reference("environment_id", "environments.id", cascade=True, nullable=True),
    Column("origins", JsonText, nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("created_by", Text),
    Column("replaces", Text),
    *_edited(),
    Index("ix_credentials_organisation", "organisation_id"),
    Index("ix_credentials_environment", "environment_id"),
    Index("ix_credentials_expiry", "expires_at"),
)

# The audit names things by id without foreign keys: it outlives what it tells of.
audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("organisation_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("actor_type", Text, nullable=False),
    Column("actor_id", Text),
    Column("actor_name", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target_type", Text, nullable=False),
    Column("target_id", Text, nullable=False),
    Column("target_key", Text),
    Column("project_id", Text),
    Column("environment_id", Text),
    Column("changes", JsonText, nullable=False),
    Column("reason", Text),
    Column("edge_at", BigInteger),
    Column("request_id", Text),
    Column("via", Text, nullable=False),
    Column("address", Text),
    Column("revisions", JsonText, nullable=False),
    Index("ix_audit_organisation", "organisation_id", "seq"),
    Index("ix_audit_project", "project_id", "seq"),
    Index("ix_audit_target", "target_id", "seq"),
)

# The chain over an organisation's audit entries, sealed after their commit so that writers do not wait for each other.
audit_seals = Table(
    "audit_seals",
    metadata,
    Column("organisation_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("audit_id", Text, nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    PrimaryKeyConstraint("organisation_id", "number"),
)

# Every version that a flag, a config or a segment had. Like the audit it outlives them, and is never compacted.
# `environment_id` is empty but for configs; `revisions` are those that published this version, by environment id.
entity_history = Table(
    "entity_history",
    metadata,
    Column("entity_id", Text, nullable=False),
    Column("environment_id", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("audit_id", Text),
    Column("revisions", JsonText, nullable=False),
    Column("body", JsonText, nullable=False),
    PrimaryKeyConstraint("entity_id", "environment_id", "version"),
    Index("ix_entity_history_project", "project_id"),
)

# Commands as JSON (`domain.command_codec`), to be carried out later: at a time, or after a review.
schedules = Table(
    "schedules",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("project_id", "projects.id", cascade=True),
    Column("commands", JsonText, nullable=False),
    Column("run_at", BigInteger, nullable=False),
    Column("preview", JsonText, nullable=False),
    Column("status", Text, nullable=False),
    Column("actor", JsonText, nullable=False),
    Column("reason", Text),
    Column("result", JsonText),
    *_edited(),
    Index("ix_schedules_due", "status", "run_at"),
    Index("ix_schedules_project", "project_id"),
)

change_requests = Table(
    "change_requests",
    metadata,
    Column("id", Text, primary_key=True),
    _reference("project_id", "projects.id", cascade=True),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("commands", JsonText, nullable=False),
    Column("bound", JsonText, nullable=False),
    Column("preview", JsonText, nullable=False),
    Column("status", Text, nullable=False),
    Column("author", JsonText, nullable=False),
    Column("reviews", JsonText, nullable=False),
    *_edited(),
    Index("ix_change_requests_project", "project_id", "status"),
)

environment_objects = Table(
    "environment_objects",
    metadata,
    _reference("environment_id", "environments.id", cascade=True),
    Column("kind", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("environment_id", "kind", "key"),
)

change_log = Table(
    "change_log",
    metadata,
    _reference("environment_id", "environments.id", cascade=True),
    Column("revision", BigInteger, nullable=False),
    Column("committed_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("credentials_hash", Text, nullable=False),
    PrimaryKeyConstraint("environment_id", "revision"),
    Index("ix_change_log_committed", "committed_at"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("principal", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("body_hash", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("principal", "key"),
    Index("ix_idempotency_at", "at"),
)

ingest_batches = Table(
    "ingest_batches",
    metadata,
    Column("organisation_id", Text, nullable=False),
    Column("relay_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("body_hash", Text, nullable=False),
    Column("credential_id", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("organisation_id", "relay_id", "id"),
    Index("ix_ingest_batches_received", "received_at"),
)

events = Table(
    "events",
    metadata,
    Column("environment_id", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("name", Text),
    Column("flag_id", Text),
    Column("flag_key", Text),
    Column("unit", Text),
    Column("value", Float),
    Column("at", BigInteger, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("properties", JsonText),
    PrimaryKeyConstraint("environment_id", "id"),
    Index("ix_events_at", "environment_id", "at"),
    Index("ix_events_received", "received_at"),
)

evaluation_counters = Table(
    "evaluation_counters",
    metadata,
    Column("environment_id", Text, nullable=False),
    Column("flag_id", Text, nullable=False),
    Column("variation", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("hour_ms", BigInteger, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("errors", BigInteger, nullable=False),
    PrimaryKeyConstraint("environment_id", "flag_id", "hour_ms", "variation", "reason", "source"),
)
