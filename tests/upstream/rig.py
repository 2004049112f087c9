"""An authority without an event loop: commands on a real database, with time and randomness that repeat.

Test modules import the fixtures `template_fixture` and `rig_fixture` by name.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, event

from relay.protocol.state import State
from tests.clocks import FakeClock
from tests.upstream.databases import copy_of, dump, engine_at, is_kept, keep, shared_engine_on, url_of
from upstream.domain.access_commands import (
    CreateOrganisation,
)
from upstream.domain.commands import (
    Command,
    CreateProject,
)
from upstream.domain.entities import Environment, Project
from upstream.domain.errors import Rejected
from upstream.domain.facts import Facts
from upstream.domain.permissions import Actor, system_actor
from upstream.storage.database import open_database
from upstream.storage.history import read_snapshot
from upstream.storage.transaction import Committed, carry_out
from upstream.storage.view import StoredView

T = TypeVar("T")


class SeededEntropy:
    """Implements `upstream.domain.facts.Entropy`; repeats itself."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


class Rig:
    """Commands, carried out one by one; `organisation_id` and the project `shop` exist from the start."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.entropy = SeededEntropy(2)
        self.engine = shared_engine_on(path)
        self.organisation_id = self.look(_only_organisation)

    @property
    def system(self) -> Actor:
        return system_actor(self.organisation_id)

    def do(self, command: Command, actor: Actor | None = None) -> Committed:
        facts = Facts(now_ms=self.clock.wall_ms(), entropy=self.entropy, actor=actor or self.system)
        return self.look(lambda connection: carry_out(connection, command, facts))

    def make(self, command: Command) -> Any:
        """Carry out a command and return the entity that it is about."""
        return self.do(command).decision.entity

    def refused(self, command: Command, actor: Actor | None = None) -> Rejected:
        """Return with what the command is refused, after proving that it left nothing."""
        before = self.dump()
        try:
            self.do(command, actor)
        except Rejected as rejected:
            assert self.dump() == before
            return rejected
        raise AssertionError(f"{command} was carried out")

    def look(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            return work(connection)

    def view(self, work: Callable[[StoredView], T]) -> T:
        return self.look(lambda connection: work(StoredView(connection)))

    @property
    def project(self) -> Project:
        project = self.view(lambda view: view.project(self.organisation_id, "shop"))
        assert project is not None
        return project

    def environment(self, key: str = "production", project_id: str | None = None) -> Environment:
        of_project = project_id or self.project.id
        environments = self.view(lambda view: view.environments(of_project))
        return next(environment for environment in environments if environment.key == key)

    def state(self, key: str = "production") -> State:
        environment_id = self.environment(key).id
        state = self.look(lambda connection: read_snapshot(connection, environment_id))
        assert state is not None
        return state

    def dump(self) -> list[str]:
        """Return everything that is stored."""
        with self.engine.connect() as connection:
            return dump(connection)

    def close(self) -> None:
        self.engine.dispose()


class Bang(Exception):
    """The fault that a test injects."""


def failing_at(engine: Any, statement: int) -> Callable[[], None]:
    """Let the given statement (from 0 on, BEGIN not counted) fail; returns what ends that."""
    count = iter(range(1_000_000))

    def fail(*_: Any) -> None:
        if next(count) == statement:
            raise Bang

    event.listen(engine, "before_cursor_execute", fail)
    return lambda: event.remove(engine, "before_cursor_execute", fail)


def make_template(path: Path) -> Path:
    """Make a database with one organisation and the project `shop`."""
    open_database(url_of(path), clock=FakeClock(), entropy=SeededEntropy()).close()
    engine = engine_at(path)
    entropy = SeededEntropy(3)
    now_ms = FakeClock().wall_ms()
    with engine.begin() as connection:
        facts = Facts(now_ms=now_ms, entropy=entropy, actor=system_actor())
        organisation: Any = carry_out(connection, CreateOrganisation(name="Acme"), facts).decision.entity
        facts = Facts(now_ms=now_ms, entropy=entropy, actor=system_actor(organisation.id))
        carry_out(connection, CreateProject(name="Shop"), facts)
    engine.dispose()
    return keep(path)


def _only_organisation(connection: Connection) -> str:
    return str(connection.exec_driver_sql("SELECT id FROM organisations").scalar_one())


@pytest.fixture(scope="session", name="template")
def template_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with one organisation and the project `shop` with its three environments, to be copied."""
    path = tmp_path_factory.getbasetemp() / "halyard-template.db"
    return path if is_kept(path) else make_template(path)


@pytest.fixture(name="rig")
def rig_fixture(template: Path, tmp_path: Path) -> Iterator[Rig]:
    """Return an authority without an event loop on a database of its own."""
    rig = Rig(copy_of(template, tmp_path))
    yield rig
    rig.close()
