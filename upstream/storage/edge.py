"""What relays hand over, in one transaction: look whether it came before, carry it out, remember that it came.

A change that comes again under its key is answered as the first time and has no effect, whatever was lost on the way;
its permission is not asked again then, as it has taken effect already.
"""

from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any

import orjson
from sqlalchemy import Connection, insert, select

from relay.clock import parse_rfc3339_ms
from relay.protocol.edge import EdgeChange, encode
from upstream.domain.configs import KILL_SUPERSEDED
from upstream.domain.edge import kill_of, origin_of
from upstream.domain.entities import Credential, Environment, Flag
from upstream.domain.errors import Kind, Rejected, not_found
from upstream.domain.facts import Entropy, Facts
from upstream.storage import tables
from upstream.storage.history import lineage
from upstream.storage.records import one
from upstream.storage.transaction import Committed, carry_out
from upstream.storage.view import StoredView


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A change with its proof, the relay key (by its id) that brought it, and the request that it came in.

    `address` is the relay's network address.
    """

    change: EdgeChange
    proof: str
    credential_id: str
    request_id: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a change, as it is remembered.

    `revisions` are those from which on each environment contains the change; `superseded` are the keys of the flags
    that stay on, as they were switched on after the kill.
    """

    revisions: dict[str, int] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the relay is told (revisions are of `epoch`), and what was done: nothing when the change came before."""

    epoch: str
    answer: Answer
    done: tuple[Committed, ...] = ()


def take(connection: Connection, delivery: Delivery, now_ms: int, entropy: Entropy) -> Taken:
    """Carry out what a relay hands over.

    Raises:
        Rejected: it does not count, or cannot be done; nothing of it was.
    """
    relay = one(connection, Credential, id=delivery.credential_id)
    if relay is None or not relay.is_alive(now_ms):
        # The store that authenticated it may be a moment behind.
        raise Rejected(Kind.FORBIDDEN, "The relay's key was revoked or has expired.", code="key_revoked")
    # By relay and not by key, so that a key can be replaced while changes wait.
    principal = f"edge:{relay.organisation_id}:{delivery.change.relay}"
    digest = sha256(encode(delivery.change, delivery.proof)).hexdigest()
    answer = _answered(connection, principal, delivery.change.idempotency_key, digest)
    if answer is not None:
        return Taken(lineage(connection), answer)
    done, answer = _carry_out(connection, delivery, relay, now_ms, entropy)
    row = {
        "principal": principal, "key": delivery.change.idempotency_key, "body_hash": digest, "status": 200,
        "response": orjson.dumps(asdict(answer)), "at": now_ms,
    }  # fmt: skip
    connection.execute(insert(tables.idempotency), row)
    return Taken(lineage(connection), answer, done)


def _answered(connection: Connection, principal: str, key: str, digest: str) -> Answer | None:
    table = tables.idempotency
    query = select(table.c.body_hash, table.c.response).where(table.c.principal == principal, table.c.key == key)
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if row.body_hash != digest:
        errors = {"idempotency_key": ["This belongs to another change."]}
        raise Rejected(Kind.INVALID, "The idempotency key was used before.", errors, code="idempotency_key_reused")
    kept = orjson.loads(row.response)
    # The first answers were nothing but revisions by environment.
    return Answer(**kept) if "revisions" in kept else Answer(kept)


def _carry_out(
    connection: Connection, delivery: Delivery, relay: Credential, now_ms: int, entropy: Entropy
) -> tuple[tuple[Committed, ...], Answer]:
    view, change = StoredView(connection), delivery.change
    origin = origin_of(view, relay, change, delivery.proof, now_ms)
    actor = replace(origin, request_id=delivery.request_id, address=delivery.address)
    # A clock that is ahead must not let a kill win over what is switched on after it.
    edge_at_ms = min(parse_rfc3339_ms(change.at), now_ms)
    done: list[Committed] = []
    answer = Answer()
    for op in change.ops:
        project = view.project(relay.organisation_id, op.project)
        if project is None:
            raise not_found("project", op.project)
        environment, command = kill_of(view, relay, project, op, edge_at_ms)
        done.append(carry_out(connection, command, Facts(now_ms=now_ms, entropy=entropy, actor=actor)))
        answer.revisions[environment.id] = _revision(connection, environment)
        target = done[-1].decision.target
        if done[-1].decision.action == KILL_SUPERSEDED and isinstance(target, Flag):
            answer.superseded.append(target.key)
    return tuple(done), answer


def _revision(connection: Connection, environment: Environment) -> int:
    """Return where the environment stands, also after a change that published nothing."""
    table: Any = tables.environments
    return int(connection.execute(select(table.c.revision).where(table.c.id == environment.id)).scalar_one())
