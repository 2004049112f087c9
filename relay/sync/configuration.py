"""One environment as the relay serves it: the state that came over the stream, and what was parsed from it.

A `Configuration` is immutable and whole: evaluation, access and streams read one pointer and see one revision. Building
the next one parses only the objects that changed, shares the rest, and pauses as it goes, so that 10,000 flags never
hold the event loop. What cannot be used is raised, and nothing of it is kept.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, TypeVar

import orjson

from relay.clock import parse_rfc3339_ms
from relay.engine.environment import amend, assemble
from relay.engine.model import Environment, Flag
from relay.engine.parse import parse_flag, parse_segment
from relay.engine.program import Program, build, build_steps, compile_steps
from relay.protocol.fields import Fields
from relay.protocol.hashing import diff_objects
from relay.protocol.keys import Kind
from relay.protocol.state import ChangeSet, EnvironmentRef, State

INTERPRETED_AT_MOST = 8
"""Chunks that are served without having been compiled: a small change is served at once, and compiled afterwards."""
_OBJECTS_PER_STEP = 16
_FLAGS_PER_AMENDMENT = 1_000
_KINDS = frozenset(Kind)

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a key may do in one environment. `projects` None = all; `origins` of `*` = every origin."""

    id: str
    fingerprint: str
    kind: Kind
    scopes: frozenset[str]
    projects: frozenset[str] | None
    expires_at_ms: int | None
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One environment at one revision, ready to serve. `credentials` is keyed by fingerprint.

    `program` is what is evaluated, the compiled form of `environment`. That is `published`, the authority's, unless
    flags are forced off at this relay; `overlay_version` then names what differs, and is empty as long as nothing does.
    """

    state: State = field(repr=False)
    program: Program = field(repr=False)
    published: Environment = field(repr=False)
    credentials: Mapping[str, Credential] = field(repr=False)
    limits: Mapping[str, Any]
    stream_secret: str | None = field(repr=False)
    secure_mode_secret: str | None = field(repr=False)
    overlay_version: str = ""

    @property
    def environment(self) -> Environment:
        """What is evaluated."""
        return self.program.environment

    @property
    def ref(self) -> EnvironmentRef:
        """What names the environment."""
        return self.state.ref

    @property
    def revision(self) -> int:
        """The revision served."""
        return self.state.revision


def configure(
    before: Configuration | None, state: State, change: ChangeSet | None, *, ahead: bool = True
) -> Generator[None, None, Configuration]:
    """Build the configuration of `state`, pausing (`yield`) after every few objects parsed or compiled.

    Args:
        before: what is served now; its parsed objects are used again.
        state: what shall be served.
        change: the change set that leads from one to the other; None after a snapshot, where both are compared.
        ahead: compile what answers all flags before it is served, where it is much.

    Raises:
        InvalidConfig: a flag or segment cannot be used.
        BadMessage: a credential, the limits or the secrets cannot be used.
    """
    base = _unconfigured(state) if before is None else _renamed(before.published, state.ref)
    flags, removed_flags, segments, removed_segments = _differences(before, state, change)
    parsed_flags = yield from _parse_each(flags, parse_flag)
    parsed_segments = yield from _parse_each(segments, parse_segment)
    first, *more = _batches(parsed_flags)
    environment = amend(
        base,
        revision=state.revision,
        upsert_flags=first,
        remove_flags=removed_flags,
        upsert_segments=parsed_segments,
        remove_segments=removed_segments,
    )
    for batch in more:
        yield
        environment = amend(environment, revision=state.revision, upsert_flags=batch)
    program = yield from build_steps(environment, None if before is None else before.program)
    if ahead and sum(chunk.function is None for chunk in program.chunks) > INTERPRETED_AT_MOST:
        yield from compile_steps(program)
    secrets = _object(state.secrets)
    return Configuration(
        state=state,
        program=program,
        published=environment,
        credentials=_credentials(before, state),
        limits=_object(state.limits),
        stream_secret=_secret(secrets, "stream_secret"),
        secure_mode_secret=_secret(secrets, "secure_mode_secret"),
    )


def rename(configuration: Configuration, ref: EnvironmentRef) -> Configuration:
    """Return the same revision under other names of the environment and its project."""
    return replace(
        configuration,
        state=replace(configuration.state, ref=ref),
        program=build(_renamed(configuration.environment, ref), configuration.program),
        published=_renamed(configuration.published, ref),
    )


def force_off(configuration: Configuration, flags: Collection[str]) -> Configuration:
    """Return the same revision with exactly these flags served as switched off; the very same if that is so already.

    The version depends on nothing but the flags that differ, so it is the same at every relay and after a restart.
    """
    published = configuration.published
    differing = {key: flag for key in flags if (flag := published.flags.get(key)) is not None and flag.enabled}
    version = blake2b("\n".join(sorted(differing)).encode(), digest_size=8).hexdigest() if differing else ""
    if version == configuration.overlay_version:
        return configuration
    off = {key: replace(flag, enabled=False) for key, flag in differing.items()}
    environment = amend(published, revision=published.revision, upsert_flags=off) if off else published
    return replace(configuration, program=build(environment, configuration.program), overlay_version=version)


def _differences(
    before: Configuration | None, state: State, change: ChangeSet | None
) -> tuple[Mapping[str, bytes], tuple[str, ...], Mapping[str, bytes], tuple[str, ...]]:
    if change is not None:
        return change.upsert_flags, change.remove_flags, change.upsert_segments, change.remove_segments
    if before is None:
        return state.flags, (), state.segments, ()
    flags = diff_objects(before.state.flags, state.flags)
    return *flags, *diff_objects(before.state.segments, state.segments)


def _parse_each(
    objects: Mapping[str, bytes], parse: Callable[[str, Any], _Parsed]
) -> Generator[None, None, dict[str, _Parsed]]:
    parsed: dict[str, _Parsed] = {}
    for key, raw in objects.items():
        parsed[key] = parse(key, orjson.loads(raw))
        if len(parsed) % _OBJECTS_PER_STEP == 0:
            yield
    return parsed


def _batches(flags: dict[str, Flag]) -> list[dict[str, Flag]]:
    """Cut many flags into portions that the engine takes up within a few milliseconds each; at least one portion."""
    if len(flags) <= _FLAGS_PER_AMENDMENT:
        return [flags]
    items = list(flags.items())
    starts = range(0, len(items), _FLAGS_PER_AMENDMENT)
    return [dict(items[start : start + _FLAGS_PER_AMENDMENT]) for start in starts]


def _unconfigured(state: State) -> Environment:
    ref = state.ref
    return assemble(
        environment_id=ref.id,
        key=ref.key,
        project_id=ref.project_id,
        project_key=ref.project_key,
        revision=state.revision,
        flags={},
        segments={},
    )


def _renamed(environment: Environment, ref: EnvironmentRef) -> Environment:
    return replace(environment, key=ref.key, project_id=ref.project_id, project_key=ref.project_key)


def _credentials(before: Configuration | None, state: State) -> Mapping[str, Credential]:
    if before is not None and before.state.credentials is state.credentials:
        return before.credentials
    parsed = (_credential(key, orjson.loads(raw)) for key, raw in state.credentials.items())
    return {credential.fingerprint: credential for credential in parsed if credential is not None}


def _credential(credential_id: str, obj: Any) -> Credential | None:
    fields = Fields(obj, f"credentials.{credential_id}.")
    kind = fields.text("kind")
    if kind not in _KINDS:
        # A newer authority's kind: no key of it can be presented here, and it must not cost the others theirs.
        return None
    return Credential(
        id=credential_id,
        fingerprint=fields.text("hash"),
        kind=Kind(kind),
        scopes=frozenset(fields.texts("scopes")),
        projects=None if obj.get("projects") is None else frozenset(fields.texts("projects")),
        expires_at_ms=None if obj.get("expires_at") is None else _moment(fields, "expires_at"),
        origins=fields.texts("origins"),
    )


def _moment(fields: Fields, name: str) -> int:
    try:
        return parse_rfc3339_ms(fields.text(name))
    except ValueError:
        raise fields.bad(name, "must be an RFC 3339 time") from None


def _object(raw: bytes | None) -> dict[str, Any]:
    obj: dict[str, Any] = {} if raw is None else orjson.loads(raw)
    return obj


def _secret(secrets: dict[str, Any], name: str) -> str | None:
    return None if secrets.get(name) is None else Fields(secrets, "secrets.").text(name)
