"""The change stream (`GET /api/v2/stream`), on the relay and on the upstream: who may follow, and from where.

Takes a follower's resume token and works out what it lacks, from the store's window or from an authority's change log;
`relay.serve.change_stream` then carries it. A follower that has seen more than this process waits a moment for it, and
is then sent elsewhere: revisions never go down.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final

from relay.errors import Problem
from relay.protocol.changes import MAX_ENVIRONMENTS, ChangeSet, Mark, State, mark_of
from relay.protocol.keys import Kind
from relay.protocol.resume import BadToken, Plan, Replay, ResumeToken, SendSnapshot, Wait, parse_token, plan_resume
from relay.serve.access import Grant
from relay.serve.change_stream import ChangeStream, Debt, chosen, names_of
from relay.serve.frames import Frames
from relay.serve.guard import Receive, Scope, Send, header
from relay.serve.problems import unavailable
from relay.serve.query import parameter
from relay.serve.services import Services
from relay.sync.store import Configuration

KINDS: Final = frozenset({Kind.RELAY, Kind.SERVER})
PATIENCE_S: Final = 5.0
"""How long a follower that is ahead of this process is kept waiting before it is sent elsewhere."""


class ChangeStreamRoute:
    """ASGI app of `GET /api/v2/stream`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._frames = Frames()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open a change stream."""
        services = self._services
        grant = services.access.authenticate(scope, kinds=KINDS)
        services.streams.admit(grant.fingerprint)
        listed = parameter(scope, "environments")
        names = None if listed is None else frozenset(name.strip() for name in listed.split(",") if name.strip())
        token = _token(header(scope, b"last-event-id"))
        grant, debts = await self._owed(scope, grant, names, token)
        stream = ChangeStream(
            grant,
            debts=debts,
            names=names,
            remembered=frozenset() if token is None else frozenset(token.positions),
            store=services.store,
            frames=self._frames,
            settings=services.settings.streams,
            clock=services.clock,
        )
        await services.streams.serve(stream, scope, receive, send)

    async def _owed(
        self, scope: Scope, grant: Grant, names: frozenset[str] | None, token: ResumeToken | None
    ) -> tuple[Grant, Mapping[str, Debt]]:
        """Work out what a follower lacks of every environment that it may follow once all of it is known.

        Environments may come and go while others are waited for, and the stream hears of that only once it is open. So
        the grant is renewed after every wait, until it opens nothing that has not been looked into.
        """
        debts: dict[str, Debt] = {}
        while True:
            asked = {each.ref.id: each for each in self._asked(grant, names)}
            lacking = [each for each in asked.values() if each.ref.id not in debts]
            if not lacking:
                return grant, {each: debts[each] for each in asked}
            found = await _together([self._debt(each, token) for each in lacking])
            debts |= dict(zip((each.ref.id for each in lacking), found, strict=True))
            grant = self._services.access.renew(scope, grant)

    def _asked(self, grant: Grant, names: frozenset[str] | None) -> list[Configuration]:
        configurations = chosen(grant, names)
        missing = sorted((names or frozenset()) - {name for each in configurations for name in names_of(each)})
        if missing or not configurations:
            self._services.access.expect_complete()
            choices = sorted(f"{each.ref.project_key}/{each.ref.key}" for each in grant.configurations)
            detail = f"This key does not open {', '.join(missing)[:200]}. Choices: {', '.join(choices[:20])}."
            raise Problem(
                422, "environment_unclear", detail, errors={"environments": ["names what this key does not open"]}
            )
        if len(configurations) > MAX_ENVIRONMENTS:
            detail = f"One stream carries at most {MAX_ENVIRONMENTS} environments; choose with ?environments=."
            raise Problem(422, "too_many_environments", detail, errors={"environments": ["too many"]})
        return configurations

    async def _debt(self, configuration: Configuration, token: ResumeToken | None) -> Debt:
        """Work out what a follower lacks of one environment; waits for what other replicas have shown it already."""
        environment_id, history = configuration.ref.id, self._services.history
        plan = self._plan(configuration, token)
        if isinstance(plan, Wait):
            wanted = plan.revision
            newer = await self._services.streams.arrivals.wait_for(
                environment_id, lambda held: held.revision >= wanted, PATIENCE_S
            )
            if newer is None:
                raise unavailable("configuration_behind", "This replica is behind what the follower has seen already.")
            configuration = newer
            plan = self._plan(configuration, token)
        if isinstance(plan, SendSnapshot) and plan.reason in {"expired", "gap"} and history is not None:
            plan = await self._plan_from_history(configuration, token)
        return _as_debt(plan, configuration.state, token)

    def _plan(self, configuration: Configuration, token: ResumeToken | None) -> Plan:
        environment_id = configuration.ref.id
        return plan_resume(
            token,
            configuration.state,
            lambda after: self._services.store.recent(environment_id, after),
            authoritative=self._services.history is not None,
        )

    async def _plan_from_history(self, configuration: Configuration, token: ResumeToken | None) -> Plan:
        environment_id, head = configuration.ref.id, configuration.state
        position = None if token is None else token.position(environment_id)
        history = self._services.history
        if position is None or history is None:
            return SendSnapshot("start")
        # One revision more proves that the follower's position is part of this history, where it is still kept.
        changes = await history.changes(environment_id, max(0, position.revision - 1), head.revision)
        if changes is None:
            changes = await history.changes(environment_id, position.revision, head.revision)

        def lookup(after: int) -> tuple[ChangeSet, ...] | None:
            if changes is None or (changes and changes[0].from_revision > after):
                return None
            return tuple(change for change in changes if change.revision > after)

        return plan_resume(token, head, lookup)


async def _together(waits: Sequence[Coroutine[Any, Any, Debt]]) -> list[Debt]:
    """Return what all of them do; the failure of one ends the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _token(raw: bytes | None) -> ResumeToken | None:
    try:
        return None if raw is None else parse_token(raw.decode("latin-1"))
    except BadToken:
        # Whatever it was, it proves nothing: the follower starts anew.
        return None


def _as_debt(plan: Plan, head: State, token: ResumeToken | None) -> Debt:
    position = None if token is None else token.position(head.ref.id)
    if not isinstance(plan, Replay) or position is None:
        return Debt(None, reason=plan.reason if isinstance(plan, SendSnapshot) else "resync")
    if not plan.changes:
        return Debt(mark_of(head))
    return Debt(Mark(head.epoch, position.revision, position.hash8), plan.changes)
