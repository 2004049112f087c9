"""How the database says no. Nothing was stored."""


class Unavailable(Exception):
    """The database cannot take this now: too many calls wait, the disk is full, or the file is locked. Try again."""


class Stale(Unavailable):
    """Somebody else changed the entity between reading and writing it."""


class KeyTaken(Exception):
    """Another request with the same idempotency key came first. Nothing was stored; its answer can be asked for."""
