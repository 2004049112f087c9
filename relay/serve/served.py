"""One revision of an environment as one kind of key is answered from it: what the hot lane sends, made from pieces.

Everything here comes out byte for byte as the app's routes (`relay.serve.ofrep`, `relay.serve.flags_api`) have it;
they stay the plain form of it, and a differential test holds the two equal. Refuses nothing: what is not answered with
a value is None, and the routes tell why. What time changes is looked up once for each slice of time in which it does
not.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

import orjson

from relay.engine.evaluate import next_change_at
from relay.engine.model import Evaluation, Flag
from relay.serve.answers import Context, native
from relay.serve.etags import EtagBase, etag_base, etag_of
from relay.serve.event_streams import EventStreams
from relay.serve.guard import DEFAULT_HEADERS, PROCESS
from relay.serve.ofrep import describe
from relay.serve.packing import CODED, VARY, Form, Packer
from relay.serve.prepared import NOTHING, Pieces, Prepared, Repeated
from relay.serve.relevance import is_visible
from relay.serve.request_head import Route
from relay.sync.configuration import Configuration

_DEFAULTS: Final = b"".join(b"%b: %b\r\n" % field for field in DEFAULT_HEADERS)
_LAST: Final = _DEFAULTS + b"x-request-id: %b-" % PROCESS.encode()
_NEVER_MS: Final = 1 << 63
_VARY: Final = b"%b: %b\r\n" % (VARY[0].lower().encode(), VARY[1].encode())
_CODED: Final = b"%b: %b\r\n" % (CODED[0].lower().encode(), CODED[1].encode())
_OPENINGS: Final = {Route.BULK: b'{"flags":[', Route.BOOTSTRAP: b'{"flags":{'}


class Answer:
    """A finished answer without its first two lines and its request id.

    `head` is followed by the number of the request, a blank line and the body. `answers` are those of this request
    alone, `fixed` those that everybody gets; `flags` is the number of both.
    """

    __slots__ = ("answers", "body", "etag", "fixed", "flags", "head")

    def __init__(
        self,
        body: bytes,
        answers: Sequence[Evaluation],
        etag: str | None = None,
        fixed: Repeated = NOTHING,
        coded: bytes = b"",
    ) -> None:
        named = coded if etag is None else b"%betag: %b\r\n" % (coded, etag.encode())
        self.head = b"%bcontent-length: %d\r\ncontent-type: application/json\r\n%b" % (named, len(body), _LAST)
        self.body = body
        self.etag = etag
        self.answers = Repeated(answers)
        self.fixed = fixed
        self.flags = len(answers) + len(fixed.answers)


def not_modified(etag: str, form: Form) -> bytes:
    """Return the head of a 304, as `Answer.head` is one of a 200."""
    return b"%betag: %b\r\n%b" % (b"" if form is Form.BARE else _VARY, etag.encode(), _LAST)


class Served:
    """Answers from one configuration to keys that see all flags or, `client_side_only`, those for browsers."""

    def __init__(
        self, configuration: Configuration, prepared: Prepared, streams: EventStreams, *, client_side_only: bool
    ) -> None:
        self.configuration = configuration
        self.prepared = prepared
        self.client_side_only = client_side_only
        self.since_ms = 0
        self.until_ms = 0
        self._streams = streams
        self._place = streams.place(configuration, "")
        self._heard_head, self._heard_tail = (
            b',"eventStreams":' + orjson.dumps(streams.described(f"{self._place}|"))
        ).rsplit(b"|", 1)
        self._bases: dict[Route, EtagBase] = {}
        self._firsts: dict[Route, tuple[Sequence[bytes], Repeated]] = {}
        self._packers: dict[Route, Packer] = {}
        ofrep, audience = partial(_ofrep, client_side_only=client_side_only), client_side_only
        self._one: dict[Route, Pieces[Answer]] = {
            Route.SINGLE: prepared.pieces((Route.SINGLE, audience), partial(_single, write=ofrep)),
            Route.EVALUATE: prepared.pieces((Route.EVALUATE, audience), _evaluate, of_one_revision=True),
        }
        self._all: dict[Route, Pieces[bytes]] = {
            Route.BULK: prepared.pieces((Route.BULK, audience), ofrep),
            Route.BOOTSTRAP: prepared.pieces((Route.BOOTSTRAP, audience), _member),
        }
        ref = configuration.ref
        metadata = {"environment": ref.key, "revision": configuration.revision}
        self._ends = {
            Route.BULK: b'],"metadata":' + orjson.dumps(metadata),
            Route.BOOTSTRAP: b'},"revision":%d}' % configuration.revision,
        }

    def one(self, route: Route, key: str, context: Context, now_ms: int) -> Answer | None:
        """Answer for one flag; None unless it is there and has a value."""
        flag = self.configuration.environment.flags.get(key)
        if flag is None or not is_visible(flag, client_side_only=self.client_side_only):
            return None
        evaluation = self.configuration.program.evaluate(key, context, now_ms)
        found = self._one[route].get(evaluation)
        if found is not None:
            return found
        if evaluation.error_code is not None and route is Route.SINGLE:
            return None
        return self.prepared.add(self._one[route], self.configuration, flag, evaluation)

    def etag(self, route: Route, fingerprint: str, context: Context, now_ms: int) -> str:
        """Return the ETag of the answer for all flags."""
        self.look_at(now_ms)
        base = self._bases.get(route)
        if base is None:
            base = self._bases[route] = etag_base(
                "ofrep" if route is Route.BULK else route,
                self.configuration,
                None if self.until_ms == _NEVER_MS else self.until_ms,
                client_side_only=self.client_side_only,
                streams_at=self._place if route is Route.BULK else "",
            )
        is_heard = route is Route.BULK and self._place
        return etag_of(base, context, *((fingerprint, self._streams.slot(now_ms)) if is_heard else ()))

    def all(self, route: Route, fingerprint: str, context: Context, now_ms: int, etag: str) -> Answer:
        """Answer for all flags."""
        found = self.configuration.program.evaluate_moving(context, now_ms, client_side_only=self.client_side_only)
        pieces = self._all[route]
        first, fixed = self._firsts.get(route) or self._first(route)
        try:
            written = b",".join([*first, *map(pieces.__getitem__, found)])
        except KeyError:
            moving = self.configuration.program.layout(client_side_only=self.client_side_only).moving
            written = b",".join([*first, *self._written(pieces, moving, found)])
        end = b"" if route is Route.BOOTSTRAP else self._heard(fingerprint, context, now_ms) + b"}"
        body = b"".join((_OPENINGS[route], written, self._ends[route], end))
        return Answer(body, found, etag, fixed)

    def varied(self, route: Route, answer: Answer, *, is_packed: bool) -> Answer:
        """Return an answer for all flags as who is offered packed ones gets it."""
        body, coded = (self._pack(route, answer.body), _VARY + _CODED) if is_packed else (answer.body, _VARY)
        return Answer(body, answer.answers.answers, answer.etag, answer.fixed, coded)

    def _pack(self, route: Route, body: bytes) -> bytes:
        packer = self._packers.get(route)
        if packer is None:
            first, _ = self._firsts[route]
            packer = self._packers[route] = Packer(b"".join((_OPENINGS[route], *first)))
        return packer.pack(body)

    def look_at(self, now_ms: int) -> None:
        """Know the slice of time around a moment, `since_ms` to `until_ms`, in which time alone changes no value."""
        if not self.since_ms <= now_ms < self.until_ms:
            next_ms = next_change_at(self.configuration.environment, now_ms)
            self.since_ms, self.until_ms = now_ms, _NEVER_MS if next_ms is None else next_ms
            self._bases = {}

    def holds_until_ms(self, now_ms: int) -> int:
        """Return how long an answer can be given again; no longer than the URL of its stream would be the same."""
        self.look_at(now_ms)
        return min(self.until_ms, self._streams.slot_ends_ms(now_ms)) if self._place else self.until_ms

    def _heard(self, fingerprint: str, context: Context, now_ms: int) -> bytes:
        streams = self._streams
        token = streams.token(self.configuration, fingerprint, context, streams.slot(now_ms))
        return b"" if token is None else b"%b%b%b" % (self._heard_head, token.encode(), self._heard_tail)

    def _first(self, route: Route) -> tuple[Sequence[bytes], Repeated]:
        """Return the pieces of the flags that answer everybody alike, as one, and what they count as."""
        fixed = self.configuration.program.layout(client_side_only=self.client_side_only).fixed
        answers = [*fixed.values()]
        joined = b",".join(self._written(self._all[route], fixed, answers))
        made = self._firsts[route] = [joined] if answers else [], Repeated(answers)
        return made

    def _written(self, pieces: Pieces[bytes], keys: Iterable[str], answers: Iterable[Evaluation]) -> list[bytes]:
        """Return the pieces of all answers, and make those that are lacking."""
        flags, add = self.configuration.environment.flags, self.prepared.add
        return [
            pieces.get(answer) or add(pieces, self.configuration, flags[key], answer)
            for key, answer in zip(keys, answers, strict=True)
        ]


def _ofrep(configuration: Configuration, flag: Flag, evaluation: Evaluation, *, client_side_only: bool) -> bytes:
    return orjson.dumps(describe(flag, evaluation, configuration.environment.flags, client_side_only=client_side_only))


def _single(configuration: Configuration, flag: Flag, evaluation: Evaluation, *, write: "partial[bytes]") -> Answer:
    return Answer(write(configuration, flag, evaluation), (evaluation,))


def _evaluate(configuration: Configuration, flag: Flag, evaluation: Evaluation) -> Answer:
    members = {"flag": flag.key, **native(evaluation), "rule_id": evaluation.rule_id}
    body = orjson.dumps(members | {"revision": configuration.revision})
    return Answer(body, (evaluation,))


def _member(_configuration: Configuration, flag: Flag, evaluation: Evaluation) -> bytes:
    return orjson.dumps(flag.key) + b":" + orjson.dumps(native(evaluation))
