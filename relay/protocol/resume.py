"""Resume tokens, and what a server owes to a client that presents one.

A token says where a follower stands in each of its environments: `1.{epoch}.{envshort}-{revision}-{hash8}[,…]`, ASCII,
at most 256 environments, all of one epoch (what stands in another epoch is left out and comes as a snapshot). It is
untrusted input: it selects from what the key may see anyway and grants nothing. The decision is pure; it promises
exactly the revisions after the token's, or a snapshot with the reason, and never a guess.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from relay.protocol.changes import MAX_ENVIRONMENTS, ChangeSet, State

_VERSION = "1"
_SHORT = 12
_HASH8 = 8
_TOKEN = re.compile(r"1\.([A-Za-z0-9_-]{1,64})\.([0-9a-f,-]*)", re.ASCII)
_POSITION = re.compile(r"([0-9a-f]{12})-([0-9]{1,19})-([0-9a-f]{8})", re.ASCII)

MAX_TOKEN_CHARACTERS = 2 + 64 + 1 + MAX_ENVIRONMENTS * (_SHORT + 1 + 19 + 1 + _HASH8 + 1)
"""No token is longer; what is, is refused unread."""


class BadToken(ValueError):
    """The text is no resume token."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a follower stands in one environment: its revision and the first 8 hex digits of its content hash."""

    revision: int
    hash8: str


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """A follower's positions by short environment id."""

    epoch: str
    positions: Mapping[str, Position]

    def position(self, environment_id: str) -> Position | None:
        """Return the position in one environment, None when the token does not know it."""
        return self.positions.get(short_id(environment_id))


def short_id(environment_id: str) -> str:
    """Return the first 12 hex digits of an environment's id."""
    return environment_id.replace("-", "")[:_SHORT]


def token_of(states: Iterable[State], epoch: str) -> str:
    """Return the resume token of a follower that holds these states; those of other epochs are left out."""
    positions = [
        f"{short_id(state.ref.id)}-{state.revision}-{state.content_hash[:_HASH8]}"
        for state in states
        if state.epoch == epoch
    ]
    return f"{_VERSION}.{epoch}.{','.join(positions[:MAX_ENVIRONMENTS])}"


def parse_token(text: str) -> ResumeToken:
    """Read a resume token.

    Raises:
        BadToken: the text is none.
    """
    if len(text) > MAX_TOKEN_CHARACTERS:
        raise BadToken(f"a resume token has at most {MAX_TOKEN_CHARACTERS} characters")
    token = _TOKEN.fullmatch(text)
    if token is None:
        raise BadToken("not a resume token of version 1")
    epoch, listed = token.groups()
    parts = listed.split(",") if listed else []
    if len(parts) > MAX_ENVIRONMENTS:
        raise BadToken(f"a resume token names at most {MAX_ENVIRONMENTS} environments")
    positions: dict[str, Position] = {}
    for part in parts:
        position = _POSITION.fullmatch(part)
        if position is None:
            raise BadToken("a position of the resume token is malformed")
        short, revision, hash8 = position.groups()
        if short in positions:
            raise BadToken("the resume token names an environment twice")
        positions[short] = Position(int(revision), hash8)
    return ResumeToken(epoch, positions)


@dataclass(frozen=True, slots=True)
class Replay:
    """Send exactly these, in this order; none when the follower is at the head."""

    changes: tuple[ChangeSet, ...]


@dataclass(frozen=True, slots=True)
class SendSnapshot:
    """Send the whole environment, with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Wait:
    """This replica is behind the follower: wait until it holds `revision`, else answer 503 with Retry-After."""

    revision: int


Plan = Replay | SendSnapshot | Wait

Lookup = Callable[[int], Sequence[ChangeSet] | None]
"""All change sets of the environment after a revision, in order; None when they do not reach back that far."""


def plan_resume(token: ResumeToken | None, head: State, lookup: Lookup, *, authoritative: bool = True) -> Plan:
    """Decide what a follower lacks of one environment.

    Args:
        token: what the follower presented; None = nothing.
        head: the newest state that this server holds.
        lookup: the change sets that this server can still send.
        authoritative: whether nobody can know more than `head`. A relay, or an upstream replica that has not asked
            its database, is not: a follower ahead of it is no proof of a diverged history.
    """
    position = None if token is None else token.position(head.ref.id)
    if token is None or position is None:
        return SendSnapshot("start")
    if token.epoch != head.epoch:
        return SendSnapshot("epoch")
    if position.revision > head.revision:
        return SendSnapshot("diverged") if authoritative else Wait(position.revision)
    if position.revision == head.revision:
        return Replay(()) if head.content_hash.startswith(position.hash8) else SendSnapshot("diverged")
    return _replay(position, head, lookup)


def _replay(position: Position, head: State, lookup: Lookup) -> Replay | SendSnapshot:
    # One revision more than needed: it carries the hash that proves that the position is part of this history.
    with_proof = lookup(position.revision - 1) if position.revision > 0 else None
    if with_proof and with_proof[0].revision == position.revision:
        proof, changes = with_proof[0], with_proof[1:]
        if not proof.content_hash.startswith(position.hash8):
            return SendSnapshot("diverged")
    else:
        available = lookup(position.revision)
        if available is None:
            return SendSnapshot("expired")
        changes = available
    wanted = tuple(change for change in changes if change.revision <= head.revision)
    return Replay(wanted) if _is_dense(wanted, position.revision, head) else SendSnapshot("gap")


def _is_dense(changes: Sequence[ChangeSet], after: int, head: State) -> bool:
    for change in changes:
        if change.epoch != head.epoch or change.from_revision != after:
            return False
        after = change.revision
    return after == head.revision
