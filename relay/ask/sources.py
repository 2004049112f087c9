"""Where a question is answered from: a running relay, or the snapshot file that one has left.

A relay is asked for the configuration through its change stream, which takes a server or a relay key, and for its own
answer, which alone knows of flags that were killed at it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from relay.engine.model import Environment
from relay.engine.parse import InvalidConfig
from relay.errors import HalyardError
from relay.protocol.changes import Bookmark, Snapshot, State
from relay.protocol.decode import BadMessage, parse_message
from relay.protocol.sse import EventTooLarge, SseParser
from relay.sync.configuration import configure
from relay.sync.snapshot_format import BadFile, decode_file

TIMEOUT_S = 15.0
MAX_MESSAGE_BYTES = 64 << 20


class NoAnswer(HalyardError):
    """The question cannot be answered; the sentence says why, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A relay's address and the key to ask it with."""

    url: str
    key: str

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers of a request."""
        return {"Authorization": f"Bearer {self.key}", "Accept-Encoding": "identity"}


def states_of_file(path: Path) -> Sequence[State]:
    """Read the environments of a snapshot file, whosever it is.

    Raises:
        NoAnswer: it cannot be read.
    """
    try:
        return decode_file(path.read_bytes(), None).states
    except (OSError, BadFile) as error:
        raise NoAnswer(f"{path}: {error}") from error


async def states_of_relay(place: Place) -> Sequence[State]:
    """Read the environments that a key opens at a running relay.

    Raises:
        NoAnswer: nobody is there, or the key does not open the change stream.
    """
    states: list[State] = []
    parser = SseParser(MAX_MESSAGE_BYTES)
    async with (
        _session() as session,
        _asked(session.get(f"{place.url}/api/v2/stream", headers=place.headers)) as answer,
    ):
        if answer.status != HTTPStatus.OK:
            raise NoAnswer(f"{place.url}/api/v2/stream: {await _refusal(answer)}")
        try:
            async for chunk in answer.content.iter_any():
                for event in parser.feed(chunk):
                    message = parse_message(event.event, event.data)
                    if isinstance(message, Snapshot):
                        states.append(message.state)
                    elif isinstance(message, Bookmark):
                        return states
        except (BadMessage, EventTooLarge) as error:
            raise NoAnswer(f"{place.url}: the stream cannot be read: {error}") from error
    raise NoAnswer(f"{place.url}: the stream ended before it was complete")


async def answer_of_relay(place: Place, flag: str, context: Any, environment: str | None) -> dict[str, Any]:
    """Ask a running relay for its own answer.

    Raises:
        NoAnswer: nobody is there, or the question was refused.
    """
    where = {} if environment is None else {"environment": environment}
    body = orjson.dumps({"flag": flag, "context": context, **where})
    headers = {**place.headers, "Content-Type": "application/json"}
    question = f"{place.url}/api/v2/evaluate"
    async with _session() as session, _asked(session.post(question, headers=headers, data=body)) as answer:
        if answer.status != HTTPStatus.OK:
            raise NoAnswer(f"{question}: {await _refusal(answer)}")
        found: dict[str, Any] = orjson.loads(await answer.read())
        return found


def environment_of(states: Sequence[State], name: str | None) -> Environment:
    """Return the environment that is meant, by key, id or project/key; it need not be named where there is one only.

    Raises:
        NoAnswer: it is not there, or it is unclear which is meant, or it cannot be used.
    """
    names = {state.ref.id: f"{state.ref.project_key}/{state.ref.key}" for state in states}
    found = [state for state in states if name is None or name in {state.ref.id, state.ref.key, names[state.ref.id]}]
    if len(found) != 1:
        wrong = "choose one with --environment" if name is None or found else f"there is no environment {name!r}"
        raise NoAnswer(f"{wrong}; there are: {', '.join(sorted(names.values())) or 'none'}")
    steps = configure(None, found[0], None, ahead=False)
    try:
        while True:
            next(steps)
    except StopIteration as done:
        environment: Environment = done.value.environment
        return environment
    except (InvalidConfig, BadMessage) as error:
        raise NoAnswer(f"the environment {names[found[0].ref.id]} cannot be used: {error}") from error


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), read_bufsize=1 << 20)


@asynccontextmanager
async def _asked(request: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> AsyncIterator[aiohttp.ClientResponse]:
    """Run a request, and say in a sentence why it had no answer, or none that can be read."""
    try:
        async with request as answer:
            yield answer
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise NoAnswer(f"no relay answers: {error or type(error).__name__}") from error
    except ValueError as error:
        raise NoAnswer(f"that is no answer of a relay, or the key cannot be sent: {error}") from error


async def _refusal(answer: aiohttp.ClientResponse) -> str:
    try:
        detail = orjson.loads(await answer.read())["detail"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the answer is {answer.status}"
    return f"{detail} ({answer.status})"
