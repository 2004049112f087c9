"""Takes a large message line by line, in the form that `relay.protocol.encode` writes it.

Each line holds whole members only and is parsed alone; its objects are brought into canonical bytes at once, so that
they never exist as dictionaries together. What the message as a whole says is `relay.protocol.decode`'s business.
"""

from collections.abc import Generator, Sequence
from typing import Any

from relay.protocol.fields import Fields, load
from relay.protocol.hashing import EMPTY_HASH, object_hash, shift_hash

_OPENING = b'"flags":{'


def is_sliced(lines: Sequence[bytes]) -> bool:
    """Tell whether a message was cut into our lines."""
    return bool(lines) and lines[0].endswith(_OPENING)


class Slices:
    """The objects of a message, once all of its lines were taken.

    Args:
        head: the members before the objects.
        inside: how the text from the message's beginning to the member `flags` begins, cut down to the brackets.

    Attributes:
        flags, segments, credentials: canonical bytes by key or id.
        content_hash: of the flags and segments.
        tail: the members after the objects, beside them those of `inside`.
    """

    def __init__(self, head: Fields, inside: bytes) -> None:
        self.flags: dict[str, bytes] = {}
        self.segments: dict[str, bytes] = {}
        self.credentials: dict[str, bytes] = {}
        self.content_hash = EMPTY_HASH
        self.tail = Fields({}, environment_id=head.environment_id)
        self._head = head
        self._inside = inside
        self._section = "flags"

    def take_each(self, lines: Sequence[bytes]) -> Generator[None]:
        """Take the lines after the first, pausing (`yield`) after each.

        Raises:
            BadMessage: one is malformed, or the last one is missing.
        """
        for line in lines:
            self._take(line)
            yield
        if self._section != "end":
            raise self._head.bad(self._section, "the message is cut off here")

    def _take(self, line: bytes) -> None:
        match self._section:
            case "flags" if line == b'},"segments":{':
                self._section = "segments"
            case "segments" if line == b'},"credentials":[':
                self._section = "credentials"
            case "segments" if line.startswith(b"}"):
                self._end(b'"segments":{', line)
            case "credentials" if line.startswith(b"]"):
                self._end(b'"credentials":[', line)
            case "flags":
                self._objects("flag", self.flags, line)
            case "segments":
                self._objects("segment", self.segments, line)
            case "credentials":
                self.credentials.update(self._alone(b'{"%b":[%b]}', line).identified("credentials"))
            case _:
                raise self._head.bad("message", "goes on after its end")

    def _end(self, opened: bytes, line: bytes) -> None:
        self.tail = Fields(self._load(self._inside + opened + line), environment_id=self._head.environment_id)
        self._section = "end"

    def _objects(self, kind: str, taken: dict[str, bytes], line: bytes) -> None:
        objects = self._alone(b'{"%b":{%b}}', line).objects(self._section)
        taken.update(objects)
        # Hashing 10,000 objects at the end would hold the loop for 30 ms.
        added = (object_hash(kind, key, raw) for key, raw in objects.items())
        self.content_hash = shift_hash(self.content_hash, added=added)

    def _alone(self, form: bytes, line: bytes) -> Fields:
        """Parse a line in the member that it belongs to; it must not end that and begin another one."""
        obj = self._load(form % (self._section.encode(), line.removesuffix(b",")))
        if len(obj) != 1:
            raise self._head.bad(self._section, "a line ends amid the objects")
        return Fields(obj, environment_id=self._head.environment_id)

    def _load(self, raw: bytes) -> Any:
        return load(raw, self._section, self._head.environment_id)
