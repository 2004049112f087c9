"""How much a test of the engine tries: a little in `make test`, the full count in `make prove`."""

import os


def at_scale(full: int, *, fast: int) -> int:
    """Return the full count under the prove profile (see tests/conftest.py), the fast one under every other."""
    return full if os.environ.get("HYPOTHESIS_PROFILE") == "prove" else fast
