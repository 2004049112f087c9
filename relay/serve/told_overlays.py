"""Which overlays one follower has been told of, and the messages that tell it of the others.

Knows nothing of revisions; `relay.serve.change_stream` decides when it is asked. What is told costs a follower one
number to compare as long as no overlay comes or goes.
"""

from collections.abc import Collection, Iterable

from relay.protocol.changes import MessageName
from relay.protocol.overlays import OverlayEnd, encode_overlay, encode_overlay_end
from relay.protocol.sse import encode_event
from relay.sync.overlays import OverlayBoard


class ToldOverlays:
    """What one follower knows of a board."""

    __slots__ = ("_begun_version", "_board", "_ended_version", "_repeated", "_told")

    def __init__(self, board: OverlayBoard) -> None:
        self._board = board
        self._told: dict[str, str] = {}  # overlay id -> environment id
        self._repeated: set[str] = set()
        self._begun_version = self._ended_version = -1

    def repeat(self, environment_id: str) -> None:
        """Tell the follower again of the overlays of an environment that it is sent anew."""
        self._repeated.add(environment_id)
        self._begun_version = -1

    def begun(self, environment_ids: Collection[str]) -> bytes | None:
        """Return the messages about what the follower has not been told of, None if there is nothing."""
        if self._begun_version == self._board.version:
            return None
        new = [
            each
            for each in self._board.all()
            if each.environment_id in environment_ids
            and (each.id not in self._told or each.environment_id in self._repeated)
        ]
        self._told |= {each.id: each.environment_id for each in new}
        self._repeated.clear()
        self._begun_version = self._board.version
        return _events(MessageName.OVERLAY, map(encode_overlay, new))

    def ended(self, environment_ids: Collection[str]) -> bytes | None:
        """Return the messages about what the follower was told of and is over, None if there is nothing."""
        if self._ended_version == self._board.version:
            return None
        held = {each.id for each in self._board.all()}
        over = [OverlayEnd(environment_id, each) for each, environment_id in self._told.items() if each not in held]
        for end in over:
            del self._told[end.id]
        self._ended_version = self._board.version
        # Of an environment that it does not follow any more, a follower has let go with all that belongs to it.
        followed = (end for end in over if end.environment_id in environment_ids)
        return _events(MessageName.OVERLAY_END, map(encode_overlay_end, followed))


def _events(name: MessageName, messages: Iterable[bytes]) -> bytes | None:
    return b"".join(encode_event(name, (each,)) for each in messages) or None
