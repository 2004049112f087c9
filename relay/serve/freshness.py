"""The configuration that a client has heard of, and whether one that is held is at least as new.

A position is `epoch:revision`, and `epoch:revision~version` while flags are forced off at this relay: values differ
then without a revision. `refetchEvaluation` names a configuration by its position and by a second; the client that was
woken by it sends both back, and must not be answered from anything older, whichever relay it reaches.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from relay.clock import parse_rfc3339_ms
from relay.sync.store import Configuration

_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Position:
    """A configuration as its clients name it; `overlay_version` is empty where it is the authority's own."""

    epoch: str
    revision: int
    overlay_version: str = ""

    def __str__(self) -> str:
        overlay = f"~{self.overlay_version}" if self.overlay_version else ""
        return f"{self.epoch}:{self.revision}{overlay}"


@dataclass(frozen=True, slots=True)
class Hint:
    """What a client has heard of. At least one of the two parts is there."""

    position: Position | None
    modified_s: int | None

    def is_met(self, held: Configuration, modified_ms: int) -> bool:
        """Tell whether a configuration, last changed at `modified_ms`, is as new as this."""
        # What is forced off at one relay is not so at another: the revision alone counts.
        if self.position is not None and self.position.epoch == held.state.epoch:
            return held.revision >= self.position.revision
        # Revisions of two epochs cannot be compared; times can.
        return self.modified_s is not None and modified_ms // 1000 >= self.modified_s


def position_id(configuration: Configuration) -> str:
    """Return the event id that names a configuration to its clients; `position_of` reads it back."""
    return str(Position(configuration.state.epoch, configuration.revision, configuration.overlay_version))


def config_etag(configuration: Configuration) -> str:
    """Return the name of a configuration that `hint_of` reads back."""
    return f'"{position_id(configuration)}"'


def hint_of(etag: str | None, last_modified: str | None) -> Hint | None:
    """Read the two query parameters; what cannot be read names nothing, as it was not made here."""
    position = None if etag is None else position_of(etag.strip().removeprefix("W/").strip('"'))
    modified_s = None if last_modified is None else _seconds(last_modified.strip())
    return None if position is None and modified_s is None else Hint(position, modified_s)


def position_of(text: str) -> Position | None:
    """Return the position that an event id or configuration name stands for, None if it is neither."""
    epoch, _, numbers = text.rpartition(":")
    revision, _, version = numbers.partition("~")
    if not epoch or not (revision.isascii() and revision.isdigit()) or len(revision) > _MAX_DIGITS:
        return None
    return Position(epoch, int(revision), version)


def _seconds(text: str) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS:
        return int(text)
    try:
        return parse_rfc3339_ms(text) // 1000
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else datetime.replace(moment, tzinfo=UTC)).timestamp())
