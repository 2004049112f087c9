"""What an operator can decide about the upstream: one typed tree, read once at start.

The tables `[upstream.…]` of the TOML file, `HALYARD_UPSTREAM_…` variables and the command line fill it
(`relay.settings_reader`). What both services have is defined in `relay.settings`.
"""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from relay.settings import KIB, MIB, Drain, Limits, Log, Port, Serve, Window
from relay.settings_reader import Group, Source, read

SQLITE = re.compile(r"sqlite:///.+")
POSTGRESQL = re.compile(r"postgres(ql)?(\+psycopg)?://.+")
REDIS = re.compile(r"(rediss?|unix)://.+")


def _database_url(url: SecretStr | None) -> SecretStr | None:
    if url is None:
        return None
    if not any(form.fullmatch(url.get_secret_value()) for form in (SQLITE, POSTGRESQL)):
        raise ValueError("must be sqlite:///path/to/halyard.db or postgresql://user:password@host/database")
    return url


def _redis_url(url: SecretStr | None) -> SecretStr | None:
    if url is not None and not REDIS.fullmatch(url.get_secret_value()):
        raise ValueError("must be redis://host:6379/0, rediss://… or unix://path")
    return url


class UpstreamLimits(Limits):
    """`[upstream.serve.limits]`: what one request may cost."""

    flag_bytes: int = Field(default=256 * KIB, ge=1 * KIB, description="Largest body of a management write.")
    import_bytes: int = Field(
        default=16 * MIB, ge=1 * KIB, description="Largest document of a whole project that is imported."
    )
    ingest_bytes: int = Field(
        default=8 * MIB, ge=64 * KIB, description="Largest batch of events from a relay, after decompression."
    )


class UpstreamServe(Serve):
    """`[upstream.serve]`: the one listener for API, streams, evaluation and probes."""

    port: Port = Field(default=8700, description="Port to listen on; 0 takes a free one.")
    limits: UpstreamLimits = UpstreamLimits()


class Data(Group):
    """`[upstream.data]`: what the upstream keeps over a restart."""

    dir: Path = Field(default=Path("halyard-data"), description="Directory for the database and the token signing key.")


class Database(Group):
    """`[upstream.database]`: where everything is stored."""

    url: Annotated[SecretStr | None, AfterValidator(_database_url)] = Field(
        default=None,
        description="SQLite file, or PostgreSQL as `postgresql://user:password@host/database`; by default SQLite in"
        " the data directory.",
        examples=["sqlite:////var/lib/halyard/halyard.db"],
    )
    url_file: Path | None = Field(
        default=None, description="File that holds it, instead of `url`.", examples=["/run/secrets/database-url"]
    )
    writers: int = Field(
        default=4, ge=1, le=64, description="Transactions that write at a time on PostgreSQL; on SQLite always one."
    )
    readers: int = Field(default=2, ge=1, le=64, description="Transactions that read at a time, beside those.")
    busy_timeout_s: float = Field(
        default=10, gt=0, le=300, description="Longest wait for another process or transaction that holds something."
    )


class Redis(Group):
    """`[upstream.redis]`: how several upstreams on one PostgreSQL tell each other of changes at once, not after 2 s."""

    url: Annotated[SecretStr | None, AfterValidator(_redis_url)] = Field(
        default=None,
        description="Redis that all of them use; without one, each looks into the database every 2 s.",
        examples=["redis://:password@redis:6379/0"],
    )
    url_file: Path | None = Field(
        default=None, description="File that holds it, instead of `url`.", examples=["/run/secrets/redis-url"]
    )
    channel: str = Field(
        default="halyard", min_length=1, max_length=128, description="Channel; another one for each installation."
    )


class Auth(Group):
    """`[upstream.auth]`: how people sign in."""

    access_token_s: int = Field(default=3_600, ge=60, description="Time for which a sign-in answers requests.")
    refresh_token_s: int = Field(
        default=30 * 86_400, ge=3_600, description="Time within which a sign-in can be renewed without the password."
    )
    invitation_s: int = Field(
        default=72 * 3_600, ge=300, le=30 * 86_400, description="Time within which an invited member can join."
    )
    password_reset_s: int = Field(
        default=24 * 3_600, ge=300, le=30 * 86_400, description="Time within which a password reset can be used."
    )
    signing_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Key that signs access tokens. On SQLite a random one is made and kept in the data directory by"
        " default; on PostgreSQL set it, the same for all upstreams.",
        examples=["at least 32 random characters"],
    )
    signing_key_file: Path | None = Field(
        default=None, description="File that holds it, instead of `signing_key`.", examples=["/run/secrets/signing-key"]
    )


class RateLimits(Group):
    """`[upstream.rate_limits]`: requests to the management API a minute; each process counts for itself."""

    reads: int = Field(default=6_000, ge=0, description="Reads a minute of one token or person; 0 for no limit.")
    writes: int = Field(default=1_200, ge=0, description="Writes a minute of one token or person; 0 for no limit.")
    unauthenticated: int = Field(
        default=600, ge=0, description="Requests a minute without a valid credential from one address; 0 for no limit."
    )
    remembered: int = Field(
        default=10_000, ge=1, description="Most tokens and people, and most addresses, that are counted at a time."
    )


class Retention(Group):
    """`[upstream.retention]`: how long history is kept beyond the current state."""

    stream_revisions: int = Field(
        default=10_000, ge=1, description="Changes per environment from which a follower can resume."
    )
    stream_days: float = Field(default=7, gt=0, description="Age up to which a follower can resume.")
    idempotency_s: int = Field(default=86_400, ge=60, description="Time for which a repeated write is recognised.")
    batches_days: float = Field(
        default=45, ge=1, description="Time for which a batch of events that a relay sends again is recognised."
    )
    events_days: float = Field(default=400, ge=1, description="Age up to which tracked events are kept.")


class StaleAfter(Group):
    """Days after which a flag of one kind is stale; 0 = never."""

    not_evaluated_days: float = Field(
        default=30, ge=0, description="Days without an evaluation after which a flag is stale; 0 is never."
    )
    rolled_out_days: float = Field(
        default=30, ge=0, description="Days for which everybody gets the same before a flag is stale; 0 is never."
    )
    unchanged_days: float = Field(
        default=90, ge=0, description="Days without a change after which a flag is stale; 0 is never."
    )


class StaleRelease(StaleAfter):
    """`[upstream.stale.release]`: when flags that bring something out have had their day."""


class StaleExperiment(StaleAfter):
    """`[upstream.stale.experiment]`: when flags of experiments have had their day."""


class StaleOps(StaleAfter):
    """`[upstream.stale.ops]`: when switches for operators have had their day; they are meant to rest."""

    not_evaluated_days: float = Field(
        default=90, ge=0, description="Days without an evaluation after which a flag is stale; 0 is never."
    )
    rolled_out_days: float = Field(
        default=0, ge=0, description="Days for which everybody gets the same before a flag is stale; 0 is never."
    )
    unchanged_days: float = Field(
        default=0, ge=0, description="Days without a change after which a flag is stale; 0 is never."
    )


class StalePermission(StaleOps):
    """`[upstream.stale.permission]`: when flags that grant something have had their day; they are meant to stay."""


class Stale(Group):
    """`[upstream.stale]`: when flags are listed as stale, by what they are for."""

    release: StaleRelease = StaleRelease()
    experiment: StaleExperiment = StaleExperiment()
    ops: StaleOps = StaleOps()
    permission: StalePermission = StalePermission()


class Metrics(Group):
    """`[upstream.metrics]`: what the upstream shows of itself."""

    enabled: bool = Field(default=True, description="Answer `/metrics` on the service's port.")


class UpstreamWindow(Window):
    """`[upstream.window]`: what is held in memory for evaluation and streams."""

    environments: int = Field(default=10_000, ge=1, description="Most environments held and served.")


class UpstreamSettings(Group):
    """`[upstream]`: everything."""

    serve: UpstreamServe = UpstreamServe()
    data: Data = Data()
    database: Database = Database()
    redis: Redis = Redis()
    auth: Auth = Auth()
    rate_limits: RateLimits = RateLimits()
    retention: Retention = Retention()
    window: UpstreamWindow = UpstreamWindow()
    stale: Stale = Stale()
    metrics: Metrics = Metrics()
    drain: Drain = Drain()
    log: Log = Log()

    @property
    def database_url(self) -> str:
        """Return where the database is, with the default filled in; it may hold a password."""
        url = self.database.url
        return f"sqlite:///{self.data.dir / 'halyard.db'}" if url is None else url.get_secret_value()

    @property
    def is_postgresql(self) -> bool:
        """Tell whether other machines may use the same database."""
        return POSTGRESQL.fullmatch(self.database_url) is not None


def load(source: Source) -> UpstreamSettings:
    """Return the upstream's settings.

    Raises:
        BadSettings: with every problem that was found.
    """
    return read(UpstreamSettings, "upstream", source)
