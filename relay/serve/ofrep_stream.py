"""The OFREP event stream: tells a client to ask again, and only if one of its own values changed.

Carries no values and ends only when the process drains or the key is revoked, since the published web client never
recovers from a close. A client that cannot be shown to be current when it connects is told to ask once; one that asks
in vain gets a 304.

An expired URL is answered 401, which makes the published client fetch a new one, but without telling its application
what that fetch changed. So one that comes back with an expired URL and has missed a change is first told to ask, as
ever, in a stream that ends with this message; when it returns from there it has missed nothing and gets its 401.
"""

from collections.abc import Generator
from functools import lru_cache
from typing import ClassVar, Final

import orjson
from starlette.responses import Response

from relay.clock import Clock
from relay.errors import Problem
from relay.protocol.resume import short_id
from relay.protocol.sse import encode_event
from relay.serve import stream_token
from relay.serve.access import Grant, terms_of
from relay.serve.event_streams import slot_of
from relay.serve.freshness import config_etag, position_id, position_of
from relay.serve.guard import Receive, Scope, Send, header
from relay.serve.kept_context import KeptContext
from relay.serve.problems import unavailable
from relay.serve.query import parameter
from relay.serve.services import Services
from relay.serve.stream import Stream, only
from relay.serve.update import Update
from relay.serve.waiting import Arrivals
from relay.settings import Streams as StreamSettings
from relay.sync.store import Configuration, Store

_LONGEST_ID: Final = 128


class OfrepStream(Stream):
    """One client that asks again when told to."""

    kind: ClassVar[str] = "ofrep"
    has_a_lifetime: ClassVar[bool] = False
    makes_client_ask: ClassVar[bool] = True

    __slots__ = ("_arrivals", "_configuration", "_context", "_must_ask", "_seen_ms")

    def __init__(  # noqa: PLR0913 - one argument per thing that a client is
        self,
        grant: Grant,
        *,
        configuration: Configuration,
        context: KeptContext | None,
        arrivals: Arrivals,
        settings: StreamSettings,
        clock: Clock,
        is_current: bool,
    ) -> None:
        super().__init__(grant, only(configuration.ref.id), settings, clock)
        self._configuration = configuration
        self._context = context
        self._arrivals = arrivals
        self._seen_ms = clock.wall_ms()
        self._must_ask = not is_current

    def prepare(self, update: Update) -> Generator[None, None, object] | None:
        """Return the steps in which many flags are evaluated before `take` is called."""
        if self._must_ask or self._context is None:
            return None
        return update.prepare(self._configuration, self.grant, self._seen_ms, self._context)

    def take(self, update: Update) -> bool:
        """Find out whether the client would be answered otherwise now."""
        seen, self._configuration = self._configuration, update.after
        seen_ms, self._seen_ms = self._seen_ms, update.now_ms
        if self._must_ask or self.is_over:
            return False
        view = update.view(seen, self.grant, seen_ms)
        if self._context is None:  # it was too large for the token
            self._must_ask = view.may_concern
        else:
            self._must_ask = view.outcome(seen_ms, self._context) is not None
        return self._must_ask

    def over(self) -> None:
        """Let go of the context: timers may hold on to the stream for a while."""
        super().over()
        self._context = None

    def next_frame(self) -> bytes | None:
        """Return the one message there is, if it is due."""
        if not self._must_ask:
            return None
        self._must_ask = False
        return refetch(self._configuration, self._arrivals)

    def farewell(self, _reason: str, _retry_ms: int) -> bytes:
        """Return nothing: these clients know one message only."""
        return b""


def refetch(configuration: Configuration, arrivals: Arrivals) -> bytes:
    """Return the message that makes a client ask for this configuration."""
    modified_s = arrivals.modified_ms(configuration.ref.id) // 1000
    return _refetch(config_etag(configuration), modified_s, position_id(configuration))


@lru_cache(maxsize=256)
def _refetch(etag: str, modified_s: int, event_id: str) -> bytes:
    # Every client of an environment is sent the same bytes.
    data = orjson.dumps({"type": "refetchEvaluation", "etag": etag, "lastModified": modified_s})
    return encode_event(None, (data,), event_id=event_id)


class OfrepStreamRoute:
    """ASGI app of `GET /ofrep/v1/stream?token=…`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Open an OFREP event stream."""
        # Made apart, so that the token's context is not held here for as long as the stream lives.
        opened = self._stream(scope)
        if isinstance(opened, Response):
            await opened(scope, receive, send)
        else:
            await self._services.streams.serve(opened, scope, receive, send)

    def _stream(self, scope: Scope) -> OfrepStream | Response:
        services = self._services
        configuration, token = self._opened(parameter(scope, "token"))
        found = services.access.lookup(token.fingerprint)
        opened = () if found is None else {each.ref.id for each in found.configurations}
        if found is None or configuration.ref.id not in opened:
            raise Problem(401, "stream_token_revoked", "The key behind this stream URL is not valid any more.")
        grant = services.access.check(scope, found, terms_of(scope))
        services.streams.admit(grant.fingerprint)
        last_event_id = header(scope, b"last-event-id")
        slot = slot_of(services.clock.wall_ms(), services.settings.streams.ofrep_token_s)
        if not slot - 1 <= token.slot <= slot + 1:
            if last_event_id is None or not has_missed(services.store, configuration, last_event_id):
                raise Problem(
                    401, "stream_token_expired", "This stream URL has expired; evaluate in bulk for a new one."
                )
            message = refetch(configuration, services.streams.arrivals)
            return Response(message, headers={"Cache-Control": "no-store"}, media_type="text/event-stream")
        largest_bytes = services.settings.streams.context_bytes
        return OfrepStream(
            grant,
            configuration=configuration,
            context=None if token.context is None else KeptContext(token.context, largest_bytes),
            arrivals=services.streams.arrivals,
            settings=services.settings.streams,
            clock=services.clock,
            is_current=is_current(services.store, configuration, last_event_id),
        )

    def _opened(self, text: str | None) -> tuple[Configuration, stream_token.StreamToken]:
        configurations = self._services.store.configurations
        if not configurations:
            raise unavailable("no_configuration", "This service has no configuration yet; try again.")
        if text is None:
            raise Problem(
                401, "stream_token_missing", "The URL lacks its token; use one from eventStreams as it stands."
            )
        short = stream_token.short_id_of(text)
        for environment_id, configuration in configurations.items():
            if short_id(environment_id) != short or configuration.stream_secret is None:
                continue
            try:
                token = stream_token.read(text, configuration.stream_secret)
            except stream_token.BadToken:
                continue
            return configuration, token
        # An environment that is lacking may have made it, and the published client fares better with a 503.
        self._services.access.expect_complete()
        raise Problem(401, "stream_token_invalid", "This stream URL was not made by this service.")


def is_current(store: Store, configuration: Configuration, last_event_id: bytes | None) -> bool:
    """Tell whether it is proven that a client with this last event id would be answered the same now."""
    if last_event_id is None or configuration.environment.ramps:
        return False
    return not has_missed(store, configuration, last_event_id)


def has_missed(store: Store, configuration: Configuration, last_event_id: bytes) -> bool:
    """Tell whether a configuration may differ from the one that an event id names; one that is no id names another."""
    position = None if len(last_event_id) > _LONGEST_ID else position_of(last_event_id.decode("latin-1"))
    if position is None or position.epoch != configuration.state.epoch or position.revision > configuration.revision:
        return True
    if position.overlay_version != configuration.overlay_version:
        return True
    missed = store.recent(configuration.ref.id, position.revision)
    return missed is None or any(
        change.upsert_flags or change.remove_flags or change.upsert_segments or change.remove_segments
        for change in missed
    )
