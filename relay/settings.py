"""What an operator can decide about a relay: one typed tree, read once at start.

The tables `[relay.…]` of the TOML file, `HALYARD_RELAY_…` variables and the command line fill it
(`relay.settings_reader`); `config.example.toml` and the documentation are generated from it
(`relay.settings_example`). Groups that both services have are defined here and reused by `upstream.settings`.
Every queue, cache and loop that outside input can fill has its maximum in this file.
"""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from relay.errors import BadSettings
from relay.protocol.keys import Kind, hint, kind_of
from relay.settings_reader import Group, Source, read

Port = Annotated[int, Field(ge=0, le=65_535)]


def _http_url(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+[^\s?#]*", text):
        message = "must be an http:// or https:// address without query"
        raise ValueError(message)
    return text.rstrip("/")


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/?#]+/?", text):
        message = "must be scheme, host and port only, such as https://flags.example.com"
        raise ValueError(message)
    return text.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Origin = Annotated[str, AfterValidator(_origin)]

KIB = 1_024
MIB = 1_024 * KIB


class UpstreamLink(Group):
    """`[relay.upstream]`: where the configuration comes from and how the relay holds on to it."""

    url: HttpUrl = Field(default="http://127.0.0.1:8700", description="Address of the upstream, or of another relay.")
    key: SecretStr | None = Field(default=None, description="Relay key (`hal_relay_…`).", examples=["hal_relay_…"])
    key_file: Path | None = Field(
        default=None,
        description="File that holds the relay key, instead of `key`.",
        examples=["/run/secrets/relay-key"],
    )
    connect_timeout_s: float = Field(default=5, gt=0, le=60, description="Time to open a connection.")
    request_timeout_s: float = Field(
        default=10, gt=0, le=300, description="Time for one whole request other than the stream."
    )
    dead_after_s: float = Field(
        default=45, gt=0, le=3_600, description="A stream without any message for so long is dead."
    )
    backoff_min_s: float = Field(
        default=0.5, gt=0, le=60, description="Upper end of the first random wait before reconnecting."
    )
    backoff_max_s: float = Field(default=60, gt=0, le=3_600, description="Upper end of every later wait.")
    max_message_bytes: int = Field(
        default=64 * MIB, ge=64 * KIB, description="Largest message taken from the stream; a snapshot is one message."
    )

    @model_validator(mode="after")
    def _waits_are_ordered(self) -> Self:
        if self.backoff_min_s > self.backoff_max_s:
            message = f"backoff_min_s ({self.backoff_min_s}) must not exceed backoff_max_s ({self.backoff_max_s})"
            raise ValueError(message)
        return self


class Limits(Group):
    """`[….serve.limits]`: what one request may cost."""

    path_bytes: int = Field(default=2 * KIB, ge=256, description="Longest path.")
    query_bytes: int = Field(default=8 * KIB, ge=0, description="Longest query.")
    header_count: int = Field(default=64, ge=8, description="Most header fields of one request.")
    header_bytes: int = Field(default=16 * KIB, ge=1 * KIB, description="All header fields of one request together.")
    header_s: float = Field(
        default=5, gt=0, le=300, description="Time from the first byte of a request to its last header."
    )
    body_s: float = Field(default=10, gt=0, le=300, description="Time for the rest of a request.")
    context_bytes: int = Field(default=64 * KIB, ge=256, description="Largest body of an evaluation.")
    events_bytes: int = Field(default=1 * MIB, ge=1 * KIB, description="Largest body of tracked events.")
    events_per_request: int = Field(default=1_000, ge=1, description="Most events in one request.")
    json_depth: int = Field(default=32, ge=4, le=256, description="Deepest nesting of JSON.")
    connections: int = Field(default=20_000, ge=16, description="Most open connections; more are answered 503.")


class Streams(Group):
    """`[….serve.streams]`: how many streams there may be and how one of them lives."""

    total: int = Field(default=15_000, ge=0, description="Most open streams; more are answered 503 with Retry-After.")
    per_key: int = Field(default=15_000, ge=0, description="Most open streams of one key.")
    lifetime_s: float = Field(
        default=600, gt=0, description="A stream is ended with `goodbye` after so long; OFREP ones are not."
    )
    lifetime_jitter: float = Field(
        default=0.2, ge=0, lt=1, description="Part of the lifetime that is random, both ways."
    )
    heartbeat_s: float = Field(default=15, gt=0, le=60, description="Longest silence on a stream.")
    send_deadline_s: float = Field(default=10, gt=0, description="A client that takes no byte for so long is cut.")
    retry_min_ms: int = Field(default=1_000, ge=0, description="Shortest `retry:` given to a client.")
    retry_max_ms: int = Field(
        default=5_000, ge=0, description="Longest `retry:` given to a client; the value is random."
    )
    send_buffer_bytes: int = Field(
        default=16 * KIB,
        ge=4 * KIB,
        description="SO_SNDBUF of a stream, so that the kernel cannot hide a client that stopped reading.",
    )
    waiting_bytes: int = Field(
        default=64 * MIB,
        ge=64 * KIB,
        description="Bytes written to streams and not taken by their clients; beyond it, new ones are answered 503.",
    )
    context_bytes: int = Field(
        default=8 * KIB, ge=256, description="Largest context of a stream, as JSON without spaces; larger ones are 413."
    )
    ofrep_token_s: int = Field(default=3_600, ge=60, description="Time for which an OFREP event stream's URL is valid.")
    refetch_window_s: float = Field(
        default=5, ge=0, description="Longest window over which refetches of OFREP clients are spread."
    )
    refetch_per_s: float = Field(
        default=1_000, gt=0, description="Refetches a second that are aimed at within that window."
    )

    @model_validator(mode="after")
    def _retries_are_ordered(self) -> Self:
        if self.retry_min_ms > self.retry_max_ms:
            message = f"retry_min_ms ({self.retry_min_ms}) must not exceed retry_max_ms ({self.retry_max_ms})"
            raise ValueError(message)
        return self


class Serve(Group):
    """`[….serve]`: the listener for applications and SDKs."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=8701, description="Port to listen on; 0 takes a free one.")
    public_origin: Origin | None = Field(
        default=None,
        description="Scheme, host and port under which clients reach this service; needed for absolute stream URLs.",
        examples=["https://flags.example.com"],
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="Addresses whose X-Forwarded-For and X-Forwarded-Proto are believed.",
        examples=[["10.0.0.7"]],
    )
    keep_alive_s: int = Field(default=75, ge=1, le=3_600, description="An idle connection is closed after so long.")
    backlog: int = Field(default=2_048, ge=16, description="Connections that the kernel holds until they are accepted.")
    compress_from_bytes: int = Field(
        default=1_400,
        ge=0,
        description="An answer with all flags is gzipped from this length on, for who accepts it; 0 is never.",
    )
    compress_loopback: bool = Field(
        default=False,
        description="Whether that holds for connections from this machine, too, such as those of a proxy beside it.",
    )
    limits: Limits = Limits()
    streams: Streams = Streams()


class Lane(Group):
    """`[relay.lane]`: the short way of evaluation requests past the application framework, and what it remembers."""

    enabled: bool = Field(default=True, description="Off, every request takes the long way; the answers are the same.")
    heads: int = Field(default=4_096, ge=1, description="Distinct request heads that are remembered.")
    answers: int = Field(default=10_000, ge=1, description="Finished answers kept for the same request, at most.")
    answer_bytes: int = Field(default=16 * MIB, ge=0, description="Bytes of finished answers kept, at most.")
    prepared: int = Field(
        default=100_000, ge=1, description="Serialised answers of single flags kept per environment, at most."
    )


class RelayServe(Serve):
    """`[relay.serve]`: the listener, and how many processes stand behind it."""

    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that serve this port together, one per core. Each holds the whole configuration, and "
        "each has its own `limits.connections`, `streams.total` and `streams.per_key`.",
    )


class Admin(Group):
    """`[relay.admin]`: probes, metrics and status, for operators only."""

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: Port = Field(default=8702, description="Port to listen on; 0 takes a free one.")
    max_stale_s: float | None = Field(
        default=None,
        gt=0,
        description="Not ready once the configuration is older; by default a stale relay stays ready and says so.",
        examples=[3600.0],
    )


class Data(Group):
    """`[relay.data]`: what the relay keeps over a restart."""

    dir: Path = Field(
        default=Path("halyard-data/relay"), description="Directory for snapshot, spool, outbox and relay id."
    )


class Events(Group):
    """`[relay.events]`: tracked events and evaluation counts on their way to the upstream."""

    spool_bytes: int = Field(
        default=1_024 * MIB, ge=1 * MIB, description="Disk space for events that wait; full means 503."
    )
    segment_bytes: int = Field(default=16 * MIB, ge=64 * KIB, description="Size at which a spool file is closed.")
    durability: Literal["disk", "memory"] = Field(
        default="disk",
        description="`disk`: acknowledged after fdatasync. `memory`: faster, lost when the process dies.",
    )
    shed: Literal["none", "oldest"] = Field(
        default="none",
        description="`oldest` gives up the oldest events when the spool is full, instead of refusing new ones.",
    )
    commit_s: float = Field(
        default=0.002, ge=0, le=1, description="Under load, longest wait for others to share one fdatasync."
    )
    commit_bytes: int = Field(default=256 * KIB, ge=1 * KIB, description="Bytes that end that wait at once.")
    pending_bytes: int = Field(
        default=16 * MIB, ge=256 * KIB, description="Events in memory on their way to the disk; more are answered 503."
    )
    flush_s: float = Field(
        default=10, gt=0, le=3_600, description="How often evaluation counts are put into the spool."
    )
    max_counters: int = Field(
        default=100_000, ge=100, description="Distinct counts held between two flushes; more flush early."
    )
    forward_batch_events: int = Field(default=1_000, ge=1, description="Most events in one batch.")
    forward_batch_bytes: int = Field(
        default=1 * MIB, ge=16 * KIB, description="Most bytes in one batch, before compression."
    )
    forward_per_s: float = Field(
        default=5_000, gt=0, description="Events a second that are forwarded at most, also after an outage."
    )
    forward_wait_s: float = Field(default=1, ge=0, le=60, description="Longest wait for a batch to fill.")

    @model_validator(mode="after")
    def _spool_holds_segments(self) -> Self:
        if self.segment_bytes * 2 > self.spool_bytes:
            message = f"segment_bytes ({self.segment_bytes}) must not exceed half of spool_bytes ({self.spool_bytes})"
            raise ValueError(message)
        return self


class Changes(Group):
    """`[relay.changes]`: flags killed at this relay, until the upstream has the kill."""

    overlay_ttl_s: float = Field(
        default=86_400, gt=0, description="Longest time for which a kill holds here without being in the configuration."
    )
    max_kills: int = Field(default=1_000, ge=1, description="Most kills that wait for the upstream; more are 503.")


class Window(Group):
    """`[relay.window]`: past changes kept in memory, so that a client that was away gets exactly what it lacks."""

    revisions: int = Field(default=1_000, ge=0, description="Changes kept per environment.")
    bytes: int = Field(default=8 * MIB, ge=0, description="Bytes of changes kept per environment.")


class Drain(Group):
    """`[….drain]`: how the service goes. The sum of the three is the grace period that it needs after SIGTERM."""

    accept_s: float = Field(
        default=5, ge=0, le=600, description="Not ready, but still accepting, until load balancers have noticed."
    )
    window_s: float = Field(default=30, ge=0, le=600, description="Streams are sent away one by one over this time.")
    forward_s: float = Field(default=10, ge=0, le=600, description="Time to hand events over; the rest stays on disk.")


class Log(Group):
    """`[….log]`: what is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is shown."
    )
    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="`auto` is human in a terminal, else JSON lines."
    )


def _header_list(text: SecretStr | None) -> SecretStr | None:
    if text is not None and not all(map(_HEADER.fullmatch, text.get_secret_value().split(","))):
        message = "must be name=value pairs, separated by commas"
        raise ValueError(message)
    return text


_HEADER = re.compile(r"\s*[A-Za-z0-9!#$%&'*+.^_`|~-]+\s*=[ -+\--~]*")


class Otel(Group):
    """`[relay.otel]`: OpenTelemetry over OTLP/HTTP, for whoever installs the extra `otel`; off without an endpoint."""

    endpoint: HttpUrl | None = Field(
        default=None,
        description="Address of an OTLP/HTTP receiver; /v1/traces and /v1/metrics are appended.",
        examples=["http://127.0.0.1:4318"],
    )
    headers: Annotated[SecretStr | None, AfterValidator(_header_list)] = Field(
        default=None,
        description="Headers for the receiver, as name=value pairs separated by commas.",
        examples=["api-key=secret"],
    )
    headers_file: Path | None = Field(
        default=None,
        description="File that holds these headers, instead of `headers`.",
        examples=["/run/secrets/otel-headers"],
    )
    service_name: str = Field(default="halyard-relay", min_length=1, max_length=255, description="Name of the service.")
    traces: bool = Field(default=True, description="Whether spans are exported.")
    sampling_ratio: float = Field(
        default=1, ge=0, le=1, description="Part of the traces that is kept; a caller that has decided is followed."
    )
    max_spans: int = Field(
        default=2_048, ge=512, le=65_536, description="Most spans that wait for the receiver; more are dropped."
    )
    metrics: bool = Field(default=True, description="Whether the metrics of /metrics are exported, too.")
    interval_s: float = Field(default=60, ge=1, le=3_600, description="Time between two exports of metrics.")


def otel_headers(settings: Otel) -> dict[str, str]:
    """Return the headers by name."""
    text = "" if settings.headers is None else settings.headers.get_secret_value()
    pairs = (each.partition("=") for each in text.split(",") if each.strip())
    return {name.strip(): value.strip() for name, _, value in pairs}


class RelaySettings(Group):
    """`[relay]`: everything."""

    upstream: UpstreamLink = UpstreamLink()
    serve: RelayServe = RelayServe()
    lane: Lane = Lane()
    admin: Admin = Admin()
    data: Data = Data()
    events: Events = Events()
    changes: Changes = Changes()
    window: Window = Window()
    drain: Drain = Drain()
    otel: Otel = Otel()
    log: Log = Log()

    @model_validator(mode="after")
    def _listeners_differ(self) -> Self:
        if self.admin.port == self.serve.port != 0:
            message = f"admin.port must not be {self.admin.port}, where serve listens"
            raise ValueError(message)
        return self


def load(source: Source) -> RelaySettings:
    """Return the relay's settings.

    Raises:
        BadSettings: with every problem that was found.
    """
    return read(RelaySettings, "relay", source)


def relay_key(settings: RelaySettings) -> str:
    """Return the key that opens upstream's stream.

    Raises:
        BadSettings: there is none, or what is set is no relay key.
    """
    if settings.upstream.key is None:
        raise BadSettings(["relay.upstream.key: is required; set it, relay.upstream.key_file or --upstream-key-file"])
    raw = settings.upstream.key.get_secret_value()
    kind = kind_of(raw)
    if kind is None:
        raise BadSettings(["relay.upstream.key: this is no key; expected is hal_relay_ with 38 letters and digits"])
    if kind is not Kind.RELAY:
        raise BadSettings([f"relay.upstream.key: {hint(raw)} is a {kind} key; a relay key (hal_relay_...) is needed"])
    return raw
