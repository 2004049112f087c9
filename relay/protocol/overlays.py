"""The change stream's two messages about flags that a relay forces off: `overlay` and `overlay_end`.

An overlay is no part of an environment's history: it has no revision and no resume id, and is sent anew on every
connection. Owns how both messages look; what they do is `relay.sync.overlays`. Pure.
"""

import re
from dataclasses import dataclass

import orjson

from relay.protocol.fields import ID, Fields
from relay.protocol.moments import moment_ms, moment_text

_OVERLAY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_FLAG_KEY = re.compile(r".{1,256}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ForcedOff:
    """A flag, by key, is off in an environment whatever its configuration says, for `lasts_s` seconds at most."""

    environment_id: str
    id: str
    flag: str
    at_ms: int
    expires_at_ms: int

    @property
    def lasts_s(self) -> float:
        """How long it holds at most. A difference, so that the clocks of sender and reader need not agree."""
        return max(0, self.expires_at_ms - self.at_ms) / 1000


@dataclass(frozen=True, slots=True)
class OverlayEnd:
    """A flag is as configured again, as far as this overlay is concerned."""

    environment_id: str
    id: str


def encode_overlay(overlay: ForcedOff) -> bytes:
    """Return the data of an `overlay` message."""
    return orjson.dumps(
        {
            "environment": overlay.environment_id,
            "id": overlay.id,
            "flag": overlay.flag,
            "at": moment_text(overlay.at_ms),
            "expires_at": moment_text(overlay.expires_at_ms),
        }
    )


def encode_overlay_end(end: OverlayEnd) -> bytes:
    """Return the data of an `overlay_end` message."""
    return orjson.dumps({"environment": end.environment_id, "id": end.id})


def read_overlay(fields: Fields) -> ForcedOff:
    """Read the data of an `overlay` message.

    Raises:
        BadMessage: it is malformed.
    """
    fields.environment_id = fields.text("environment", ID)
    return ForcedOff(
        environment_id=fields.environment_id,
        id=fields.text("id", _OVERLAY_ID),
        flag=fields.text("flag", _FLAG_KEY),
        at_ms=_moment(fields, "at"),
        expires_at_ms=_moment(fields, "expires_at"),
    )


def read_overlay_end(fields: Fields) -> OverlayEnd:
    """Read the data of an `overlay_end` message.

    Raises:
        BadMessage: it is malformed.
    """
    fields.environment_id = fields.text("environment", ID)
    return OverlayEnd(fields.environment_id, fields.text("id", _OVERLAY_ID))


def _moment(fields: Fields, name: str) -> int:
    text = fields.text(name)
    try:
        return moment_ms(text)
    except ValueError as error:
        raise fields.bad(name, str(error)) from None
