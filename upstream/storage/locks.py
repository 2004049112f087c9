"""What keeps writers on PostgreSQL apart where a command decides by what it sees. On SQLite there is one writer anyway.

Always in this order, so that two never wait for each other in a circle: the organisation, then the project's row, then
the rows of environments by their ids. What belongs to one project is decided under the lock of its row, and shares the
organisation with other projects; keys, tokens, members and new projects concern all of it, so they have it alone. Where
the order is broken all the same (a batch over several projects), PostgreSQL ends one of the two, which is done again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, text

from upstream.domain.commands import Batch, Command
from upstream.domain.facts import Facts

SCHEMA: Final = 0x68616C79617264
"""What processes that start at once queue for; any number that other programs on the same database do not use."""

# Advisory locks rather than the organisation's row: they are fair, where sharers of a row can keep others out for ever.
_SHARED = text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:organisation, 0))")
_ALONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:organisation, 0))")
_SCHEMA = text("SELECT pg_advisory_xact_lock(:number)")
_INSTALLATION = text("SELECT pg_advisory_lock(:number)")


def lock_for(connection: Connection, command: Command, facts: Facts) -> None:
    """Wait until the command may look at what it decides by; the transaction's end lets go."""
    if connection.dialect.name == "postgresql":
        statement = _SHARED if is_of_one_project(command) else _ALONE
        # Whoever founds an organisation has none yet; such commands wait for each other.
        connection.execute(statement, {"organisation": facts.actor.organisation_id})


def is_of_one_project(command: Command) -> bool:
    """Tell whether all that a command decides by belongs to the project that it names."""
    each = command.commands if isinstance(command, Batch) else (command,)
    return all(getattr(one, "project", None) is not None for one in each)


def lock_schema(connection: Connection) -> None:
    """Be the only one who migrates, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(_SCHEMA, {"number": SCHEMA})


@contextmanager
def installing(engine: Engine) -> Iterator[None]:
    """Be the only one who makes the first things of an empty database, over several transactions."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(_INSTALLATION, {"number": SCHEMA + 1})
            # The lock is the session's; an open transaction would be ended for idling.
            connection.commit()
        yield
