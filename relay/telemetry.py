"""The seam through which the relay's parts say what they are doing, for whoever traces.

Knows nothing of OpenTelemetry: `relay.telemetry_otel` is imported only when `relay.otel.endpoint` is set, and whatever
is not traced costs one call that does nothing. A span never carries a key, a context, a flag's value or a path, as
callers choose those freely.
"""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Literal, Protocol, cast

from relay.errors import BadSettings
from relay.metrics import RelayMetrics
from relay.settings import Otel

Value = str | int | float | bool
Kind = Literal["internal", "server", "client"]
NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
MISSING: Final = (
    "relay.otel.endpoint: is set, but OpenTelemetry is not installed; install the extra `otel` "
    "(pip install 'halyard[otel]'), or leave the setting out"
)


class Span(Protocol):
    """Something that is under way."""

    def note(self, name: str, value: Value) -> None:
        """Keep what became known of it."""
        ...

    def fail(self, reason: str) -> None:
        """Say that it did not succeed; `reason` is one word of ours."""
        ...


class Tracing(Protocol):
    """Where spans go."""

    def span(
        self,
        name: str,
        attributes: Mapping[str, Value] | None = None,
        *,
        kind: Kind = "internal",
        caller: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Span]:
        """Begin a span that ends with the context. `caller` holds the W3C headers of a request from outside."""
        ...

    def headers(self) -> dict[str, str]:
        """Return the W3C headers that tell a service called now which span called it."""
        ...


class Telemetry(Protocol):
    """What was started, and has to be stopped."""

    @property
    def tracing(self) -> Tracing:
        """Where spans go."""
        ...

    def stop(self) -> None:
        """Export what waits, within a moment; blocks that long."""
        ...


class _NoSpan:
    def note(self, name: str, value: Value) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass


class _NoTracing:
    def span(
        self,
        _name: str,
        _attributes: Mapping[str, Value] | None = None,
        *,
        kind: Kind = "internal",  # noqa: ARG002 - the protocol's name
        caller: Mapping[str, str] | None = None,  # noqa: ARG002 - the protocol's name
    ) -> AbstractContextManager[Span]:
        return _nothing()

    def headers(self) -> dict[str, str]:
        return {}


@contextmanager
def _nothing() -> Iterator[Span]:
    yield _NO_SPAN


_NO_SPAN: Final = _NoSpan()
NO_TRACING: Final[Tracing] = _NoTracing()


def check(settings: Otel) -> None:
    """Make sure that what the settings ask for is installed.

    Raises:
        BadSettings: it is not.
    """
    if settings.endpoint is not None and not all(map(_is_installed, NEEDED)):
        raise BadSettings([MISSING])


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def start(settings: Otel, metrics: RelayMetrics, instance: str) -> Telemetry | None:
    """Export from now on, on threads of its own; None where no endpoint is set.

    Args:
        settings: where to, and how much.
        metrics: what is exported beside spans.
        instance: tells this process from others of the same service.

    Raises:
        BadSettings: the packages are missing.
    """
    check(settings)
    if settings.endpoint is None:
        return None
    # Not imported at the top: it would cost every relay 7 MiB.
    module = importlib.import_module("relay.telemetry_otel")
    return cast("Telemetry", module.Exporting(settings, metrics, instance))
