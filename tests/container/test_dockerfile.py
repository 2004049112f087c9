"""What the Dockerfile says, as far as that can be told without building it; test_image.py runs its steps."""

import pytest

from relay.settings import RelaySettings
from relay.settings import load as load_relay
from relay.settings_reader import Source
from relay.version import VERSION
from tests.container.dockerfile import ROOT, Stage, stages
from upstream.settings import UpstreamSettings
from upstream.settings import load as load_upstream

STAGES = stages()
TARGETS = ["relay", "upstream"]


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Stage:
    return STAGES[request.param]


def test_what_is_copied_exists_and_is_sent_to_the_builder() -> None:
    """Every source of a COPY is in the repository, and .dockerignore, which shuts everything out, lets it in."""
    copied = [source for stage in STAGES.values() for source in stage.copied]
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    assert "*" in ignore
    assert "container/build-tree.sh" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in admitted), source


def test_runs_as_a_numeric_user_without_rights(target: Stage) -> None:
    """An orchestrator can tell from the number alone that it is not root."""
    user, _, group = target.last("USER").partition(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000


def test_signals_reach_the_service(target: Stage) -> None:
    """No shell stands between, and the stop signal is the one that begins a drain."""
    assert target.entrypoint[0].startswith("/opt/halyard/bin/halyard")
    assert target.health_check[0] == "/opt/halyard/bin/python"
    assert target.last("STOPSIGNAL") == "SIGTERM"


def test_ends_on_a_pinned_slim_image(target: Stage) -> None:
    """The base has a minor version and a distribution, and is not the one that holds a compiler."""
    assert target.base is STAGES["runtime"]
    assert STAGES["runtime"].image == "python:${PYTHON}-slim-${DEBIAN}"
    text = (ROOT / "Dockerfile").read_text()
    assert "ARG PYTHON=3.11\n" in text
    assert f"ARG VERSION={VERSION}\n" in text


def test_bears_the_labels_of_the_image_format(target: Stage) -> None:
    """Title, description, version, revision and licence are there."""
    prefix = "org.opencontainers.image."
    names = {"title", "description", "version", "revision", "licenses"}
    assert {name.removeprefix(prefix) for name in target.pairs("LABEL")} == names
    assert target.pairs("LABEL")[f"{prefix}title"] == f"halyard-{target.name}"


def test_the_variables_of_the_relay_image_are_settings() -> None:
    """It listens beyond its own loopback, on the ports that it exposes, and keeps its data in the volume."""
    settings = load_relay(Source(environ=STAGES["relay"].pairs("ENV")))
    assert settings != RelaySettings()
    assert (settings.serve.host, settings.admin.host) == ("0.0.0.0", "0.0.0.0")
    assert STAGES["relay"].last("EXPOSE") == f"{settings.serve.port} {settings.admin.port}"
    assert STAGES["relay"].last("VOLUME") == str(settings.data.dir)


def test_the_variables_of_the_upstream_image_are_settings() -> None:
    """It listens beyond its own loopback, on the port that it exposes, and keeps its data in the volume."""
    settings = load_upstream(Source(environ=STAGES["upstream"].pairs("ENV")))
    assert settings != UpstreamSettings()
    assert settings.serve.host == "0.0.0.0"
    assert STAGES["upstream"].last("EXPOSE") == str(settings.serve.port)
    assert STAGES["upstream"].last("VOLUME") == str(settings.data.dir)
