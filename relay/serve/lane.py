"""Answers evaluation requests straight from their bytes, for `relay.serve.hot_lane`: one call, no task, no routing.

`answer` returns the whole response exactly as the app behind the server would give it, or None, and then the app is
asked. Every refusal and every error is the app's to tell, so nothing of that kind exists twice. A credential is looked
up anew whenever any configuration has changed, and its expiry is looked at in every request. What is remembered
between requests has its maxima in `[relay.lane]` and is never older than the configuration in use.
"""

from collections.abc import Sequence
from typing import Final

from relay.events.counters import Counters
from relay.protocol import strict_json
from relay.protocol.keys import fingerprint, kind_of
from relay.serve.access import OF_MANY, Terms
from relay.serve.answers import Context
from relay.serve.etags import is_named
from relay.serve.event_streams import EventStreams
from relay.serve.guard import request_count
from relay.serve.kept_answers import KeptAnswers
from relay.serve.packing import Form, Packing
from relay.serve.prepared import Prepared
from relay.serve.request_head import END, LONGEST, Head, Route, parse
from relay.serve.served import Answer, Served, not_modified
from relay.serve.services import Services
from relay.settings import Lane as LaneSettings
from relay.sync.store import Configuration, Swap

_TERMS: Final = Terms()
_NEVER_MS: Final = 1 << 63
_LONG_BYTES: Final = 16_384
"""A body from this length on is handed to the transport as it is; a shorter one is cheaper to copy."""
_MAX_FLAG_CHARACTERS: Final = 512
_NATIVE: Final = {Route.EVALUATE: {"flag", "context"}, Route.BOOTSTRAP: {"context"}}


class Target:
    """What a request is about beside its body: a key's fingerprint, a route, a flag. And what that opens by now.

    `form` is that of the answers; a long one of all flags is `PACKED` then.
    """

    __slots__ = ("expires_ms", "fingerprint", "flag", "form", "route", "seen", "served")

    def __init__(self, key_fingerprint: str, route: Route, flag: str, form: Form) -> None:
        self.fingerprint = key_fingerprint
        self.route = route
        self.flag = flag
        self.form = form
        self.seen: object = None
        self.served: Served | None = None
        self.expires_ms = _NEVER_MS


class _Environment:
    """What is held of one environment. `configuration` None = it is to be looked at anew."""

    __slots__ = ("configuration", "prepared", "served")

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.configuration: Configuration | None = None
        self.served: dict[bool, Served] = {}


class Lane:
    """The hot lane of one process; for one event loop."""

    def __init__(self, services: Services, counters: Counters, settings: LaneSettings) -> None:
        self._store = services.store
        self._access = services.access
        self._metrics = services.metrics
        self._limits = services.settings.limits
        self._wall_ms = services.clock.wall_ms
        self._settings = settings
        self._counters = counters
        self._streams = EventStreams(services.settings)
        # With each head the target of who is not offered packed answers, and of who is.
        self._heads: dict[bytes, tuple[Head, Target, Target]] = {}
        self._targets: dict[tuple[str, Route, str, Form], Target] = {}
        self._environments: dict[str, _Environment] = {}
        self._kept = KeptAnswers(settings.answers, settings.answer_bytes)
        self._date_headers: object = None
        self._starts = {200: b"", 304: b""}
        self.packing = Packing(services.settings)
        self._store.subscribe(self._swapped)

    def answer(  # noqa: PLR0911 - one per reason to let others decide
        self, data: bytes, date_headers: Sequence[tuple[bytes, bytes]], *, is_offered_gzip: bool
    ) -> Sequence[bytes] | None:
        """Return the response to a request that `data` holds whole, in pieces; None: somebody else has to decide.

        `date_headers` are the server's own header fields, another list whenever they change; `is_offered_gzip` tells
        whether who asks may get packed answers.
        """
        end = data.find(END, 0, LONGEST)
        if end < 0:
            return None
        raw_head = data[:end]
        known = self._heads.get(raw_head) or self._read(raw_head)
        if known is None:
            return None
        head, target, offered = known
        if is_offered_gzip:
            target = offered
        body = data[end + 4 :]
        if len(body) != head.content_length:
            return None
        now_ms = self._wall_ms()
        if target.seen is not self._store.configurations:
            self._look_up(target)
        served = target.served
        if served is None or now_ms >= target.expires_ms:
            return None
        if date_headers is not self._date_headers:
            self._begin_with(date_headers)
        kept = self._kept.get((target, body), served, now_ms)
        if kept is not None:
            return self._again(head, target, served, kept)
        if head.route is Route.SINGLE or head.route is Route.EVALUATE:
            return self._one(target, served, body, now_ms)
        return self._all(head, target, served, body, now_ms)

    def _again(self, head: Head, target: Target, served: Served, kept: Answer) -> Sequence[bytes]:
        if kept.etag is None:
            served.prepared.single.count(kept.answers.answers[0])
            return self._sent(target.route, "cached", "single", kept)
        if is_named(kept.etag, head.if_none_match):
            return self._unchanged(target, kept.etag)
        served.prepared.bulk.repeat(kept.answers)
        served.prepared.bulk.repeat(kept.fixed)
        return self._sent(target.route, "cached", "bulk", kept)

    def _one(self, target: Target, served: Served, body: bytes, now_ms: int) -> Sequence[bytes] | None:
        asked = self._asked(target, body)
        if asked is None:
            return None
        answer = served.one(target.route, asked[0], asked[1], now_ms)
        if answer is None:
            return None
        served.prepared.single.count(answer.answers.answers[0])
        self._keep(target, served, body, now_ms, answer)
        return self._sent(target.route, "evaluated", "single", answer)

    def _all(self, head: Head, target: Target, served: Served, body: bytes, now_ms: int) -> Sequence[bytes] | None:
        asked = self._asked(target, body)
        if asked is None:
            return None
        context = asked[1]
        etag = served.etag(target.route, target.fingerprint, context, now_ms)
        if is_named(etag, head.if_none_match):
            return self._unchanged(target, etag)
        answer = served.all(target.route, target.fingerprint, context, now_ms, etag)
        if target.form is not Form.BARE:
            is_packed = target.form is Form.PACKED and self.packing.pays(answer.body)
            answer = served.varied(target.route, answer, is_packed=is_packed)
        served.prepared.bulk.count_all(answer.answers.answers)
        served.prepared.bulk.repeat(answer.fixed)
        self._keep(target, served, body, now_ms, answer)
        return self._sent(target.route, "evaluated", "bulk", answer)

    def _asked(self, target: Target, body: bytes) -> tuple[str, Context] | None:
        """Return the flag and the context that a body names, unless there is anything else to say about it."""
        try:
            said = strict_json.loads(body, max_depth=self._limits.json_depth)
        except strict_json.BadJson:
            return None
        if not isinstance(said, dict):
            return None
        context, flag = said.get("context"), target.flag
        native = _NATIVE.get(target.route)
        if native is None:
            context = {} if context is None else context
        elif said.keys() != native:
            return None
        elif target.route is Route.EVALUATE:
            flag = said["flag"]
            if not isinstance(flag, str) or len(flag) > _MAX_FLAG_CHARACTERS:
                return None
        return (flag, context) if isinstance(context, dict) else None

    def _sent(self, route: Route, outcome: str, source: str, answer: Answer) -> Sequence[bytes]:
        metrics, body = self._metrics, answer.body
        metrics.requests.add(_CLASSES[route], "200")
        metrics.evaluations.add(source, n=answer.flags)
        metrics.lane_answers.add(route, outcome)
        if len(body) < _LONG_BYTES:
            return (b"%b%b%x\r\n\r\n%b" % (self._starts[200], answer.head, next(request_count), body),)
        return b"%b%b%x\r\n\r\n" % (self._starts[200], answer.head, next(request_count)), body

    def _unchanged(self, target: Target, etag: str) -> Sequence[bytes]:
        self._metrics.requests.add(_CLASSES[target.route], "304")
        self._metrics.lane_answers.add(target.route, "unchanged")
        return (b"%b%b%x\r\n\r\n" % (self._starts[304], not_modified(etag, target.form), next(request_count)),)

    def _begin_with(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        fields = b"".join(b"%b: %b\r\n" % field for field in headers)
        self._date_headers = headers
        self._starts = {200: b"HTTP/1.1 200 OK\r\n" + fields, 304: b"HTTP/1.1 304 Not Modified\r\n" + fields}

    # --- what is remembered -----------------------------------------------------------------------------------------

    def _read(self, raw: bytes) -> tuple[Head, Target, Target] | None:
        """Read a head that is not known, and remember it if its key opens something."""
        head = parse(raw, self._limits)
        if head is None or head.raw_key is None or kind_of(head.raw_key) is None:
            return None
        names = [(fingerprint(head.raw_key), head.route, head.flag, form) for form in (Form.BARE, head.form)]
        targets = {name: self._targets.get(name) or Target(*name) for name in names}
        self._look_up(targets[names[0]])
        if targets[names[0]].served is None:
            return None
        if len(self._heads) >= self._settings.heads:
            del self._heads[next(iter(self._heads))]
        if len(self._targets) >= self._settings.heads:
            self._targets.clear()
        self._targets |= targets
        known = self._heads[raw] = head, targets[names[0]], targets[names[1]]
        return known

    def _look_up(self, target: Target) -> None:
        """Note what a key opens by now, if that is one environment beyond doubt."""
        target.seen, target.served, target.expires_ms = self._store.configurations, None, _NEVER_MS
        grant = self._access.lookup(target.fingerprint)
        if grant is None or len(self._store.credential(target.fingerprint)) != 1:
            return
        credential = grant.credential
        if credential.kind in OF_MANY or _TERMS.breach(credential) is not None:
            return
        if credential.expires_at_ms is not None:
            target.expires_ms = credential.expires_at_ms
        target.served = self._served(grant.configurations[0], client_side_only=grant.client_side_only)

    def _served(self, configuration: Configuration, *, client_side_only: bool) -> Served:
        environment_id = configuration.ref.id
        held = self._environments.get(environment_id)
        if held is None:
            held = self._environments[environment_id] = _Environment(Prepared(environment_id, self._counters))
        if held.configuration is not configuration:
            held.configuration, held.served = configuration, {}
            held.prepared.begin_revision()
        served = held.served.get(client_side_only)
        if served is None:
            served = Served(configuration, held.prepared, self._streams, client_side_only=client_side_only)
            held.served[client_side_only] = served
        return served

    def _keep(self, target: Target, served: Served, body: bytes, now_ms: int, answer: Answer) -> None:
        self._kept.offer((target, body), answer, served, now_ms)
        if len(served.prepared) > self._settings.prepared:
            self._let_go(served.configuration.ref.id)

    def _swapped(self, swap: Swap) -> None:
        """Hold nothing of the configuration that was in use until now; a key that is never used again would keep it."""
        self._kept.clear()
        for target in (*self._targets.values(), *(each for _, *both in self._heads.values() for each in both)):
            target.seen = target.served = None
        if swap.before is None:
            return
        held = self._environments.get(swap.before.ref.id)
        if swap.after is None:
            self._let_go(swap.before.ref.id)
        elif held is not None:
            held.configuration, held.served = None, {}

    def _let_go(self, environment_id: str) -> None:
        held = self._environments.pop(environment_id, None)
        if held is not None:
            held.prepared.close()
            # Whoever still refers to what is closed would count where nobody looks.
            self._kept.clear()
            self._heads.clear()
            self._targets.clear()


_CLASSES: Final = {
    Route.SINGLE: "ofrep", Route.BULK: "ofrep", Route.EVALUATE: "native", Route.BOOTSTRAP: "native"
}  # fmt: skip
