"""How the database says no. Nothing was stored; the same call can be tried again."""


class Unavailable(Exception):
    """The database cannot take this now: too many calls wait, the disk is full, or the file is locked."""


class Stale(Unavailable):
    """Somebody else changed the entity between reading and writing it."""
