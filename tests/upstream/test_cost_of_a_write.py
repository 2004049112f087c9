"""What made writes slow once, and is easily brought back: statements compiled anew, and dependencies run in threads."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from tests.upstream.management import World
from tests.upstream.rig import Rig, rig_fixture, template_fixture  # noqa: F401 - the fixtures are used by name
from upstream.domain.commands import CreateFlag, ToggleFlag, UpdateFlag


def test_no_statement_of_a_write_is_compiled_each_time(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """SQLAlchemy logs `no key` for a statement that it cannot keep compiled."""
    rig.engine.echo = True
    with caplog.at_level("INFO", logger="sqlalchemy.engine.Engine"):
        rig.do(CreateFlag(project="shop", key="a"))
        rig.do(UpdateFlag(project="shop", flag="a", name="New"))
        rig.do(ToggleFlag(project="shop", flag="a", environment="production"))
    kept = [each for each in caplog.messages if each.startswith(("[cached since", "[generated in"))]
    assert len(kept) > 20
    assert not [each for each in caplog.messages if each.startswith("[no key")]


def _dependencies(dependant: Dependant) -> Iterator[Any]:
    for inner in dependant.dependencies:
        yield inner.call
        yield from _dependencies(inner)


def test_every_dependency_of_a_route_is_a_coroutine(world: World) -> None:
    """FastAPI runs any other in a thread, and a request has a dozen of them."""
    found = {
        call
        for route in iter_route_contexts(world.app.routes)
        for call in _dependencies(getattr(route, "dependant", None) or Dependant())
    }
    assert len(found) > 20
    # An object is called by its class's method.
    calls = [call if inspect.isroutine(call) else type(call).__call__ for call in found]
    slow = [call for call in calls if not inspect.iscoroutinefunction(call)]
    assert not slow
