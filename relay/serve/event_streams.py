"""Where a bulk answer says that its changes can be heard: the member `eventStreams` of OFREP.

The same client gets the same URL within one slot of time, so its ETag holds. Decides nothing about who may listen.
"""

from typing import Any, Final

import orjson

from relay.serve import stream_token
from relay.serve.answers import Context
from relay.settings import Serve
from relay.sync.configuration import Configuration

STREAM_PATH: Final = "/ofrep/v1/stream"
INACTIVITY_S: Final = 120


class EventStreams:
    """Makes the members of one listener's answers."""

    def __init__(self, settings: Serve) -> None:
        self._origin = settings.public_origin
        self._slot_s = settings.streams.ofrep_token_s
        self._context_bytes = settings.streams.context_bytes

    def place(self, configuration: Configuration, root_path: str) -> str:
        """Return what stands before the token in a stream's URL; empty where there are no streams."""
        return "" if configuration.stream_secret is None else f"{self._origin or ''}{root_path}{STREAM_PATH}?token="

    def slot(self, now_ms: int) -> int:
        """Return the number of the period in which tokens are issued. They are valid in that one and in the next."""
        return slot_of(now_ms, self._slot_s)

    def slot_ends_ms(self, now_ms: int) -> int:
        """Return the moment from which on clients get other URLs."""
        return (self.slot(now_ms) + 1) * self._slot_s * 1_000

    def member(
        self, configuration: Configuration, place: str, fingerprint: str, context: Context, slot: int
    ) -> list[dict[str, Any]]:
        """Return the member of one answer; empty where there are no streams."""
        token = self.token(configuration, fingerprint, context, slot)
        return [] if token is None else self.described(place + token)

    def described(self, url: str) -> list[dict[str, Any]]:
        """Return the member that names a stream's URL."""
        where: dict[str, Any] = {"endpoint": {"requestUri": url}} if self._origin is None else {"url": url}
        return [{"type": "sse", **where, "inactivityDelaySec": INACTIVITY_S}]

    def token(self, configuration: Configuration, fingerprint: str, context: Context, slot: int) -> str | None:
        """Return what stands at the end of a stream's URL, None where there are no streams; letters that JSON keeps."""
        if configuration.stream_secret is None:
            return None
        # A URL with a context that no stream may have would be refused: such a client gets an unfiltered stream.
        is_kept = len(orjson.dumps(context)) <= self._context_bytes
        contents = stream_token.StreamToken(fingerprint, slot, context if is_kept else None)
        return stream_token.issue(contents, configuration.ref.id, configuration.stream_secret)


def slot_of(now_ms: int, slot_s: int) -> int:
    """Return the number of the period in which a token is issued."""
    return now_ms // (slot_s * 1_000)
