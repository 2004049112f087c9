"""A real upstream with the demo project beside the tests, a stand-in, and a home directory of each test's own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.terminal import Beside, StandIn, halyard, standing_in, whole_command
from tests.upstream.test_upstream_process import World, world
from upstream.console import asking


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep this machine's sign-ins and settings out."""
    for name in os.environ:
        if name.startswith("HALYARD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("typer.testing._get_command", whole_command)
    return tmp_path


@pytest.fixture(scope="session")
def beside() -> Iterator[Beside]:
    """A thread for servers."""
    thread = Beside()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def upstream(beside: Beside, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A started upstream with the demo project. Tests share it, so each makes what it changes."""
    with beside.open(world(tmp_path_factory.mktemp("upstream"))) as started:
        yield started


@pytest.fixture
def signed_in(upstream: World) -> World:
    """The upstream, signed in at as the demo's owner, with the demo's project and environment chosen."""
    demo = upstream.demo
    halyard(
        "login", "--url", upstream.url, "--email", demo.email, "--password-stdin", stdin=f"{demo.password}\n"
    ).done()
    halyard("use", demo.project, demo.environment).done()
    return upstream


@pytest.fixture
def stand_in(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in, named by the environment variables."""
    with standing_in(beside) as started:
        monkeypatch.setenv("HALYARD_URL", started.url)
        monkeypatch.setenv("HALYARD_TOKEN", "hal_token_x")
        monkeypatch.setenv("HALYARD_PROJECT", "shop")
        monkeypatch.setenv("HALYARD_ENVIRONMENT", "production")
        started.routes["GET /projects/shop/environments/production"] = {"key": "production", "critical": False}
        yield started


@pytest.fixture
def somebody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let questions be asked; answers come from stdin."""
    monkeypatch.setattr(asking, "is_interactive", lambda: True)
