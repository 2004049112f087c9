"""What a command does not mention."""

from enum import Enum
from typing import Literal


class Unset(Enum):
    """The type of `UNSET`: not mentioned, so not changed."""

    UNSET = "unset"


UNSET: Literal[Unset.UNSET] = Unset.UNSET
