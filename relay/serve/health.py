"""Probes, status and metrics: what an orchestrator and an operator may know.

`/livez`: the event loop turns. `/readyz`: there is something to serve and a way to serve it; a stale configuration, or
the last good one before one that is refused, is served, so it is ready, and says `degraded`. `/startupz`: there has
been a first configuration. All are pure functions of `Health`, which only reads, so the listener that answers may run
in another thread than the service.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from relay.clock import Clock, rfc3339
from relay.metrics import RelayMetrics
from relay.serve.app import route
from relay.serve.broadcast import Broadcast
from relay.serve.guard import AsgiApp, Guard
from relay.settings import Limits
from relay.sync.gaps import GapBook
from relay.sync.store import Configuration, Origin, Store

# Two bookmarks are missing: no pause of the network, something is wrong upstream.
DEGRADED_AFTER_S = 45.0
_GAPS_SHOWN = 20

Fault = str | None
"""Why something is not well; None when it is."""


def _well() -> Fault:
    return None


def _nothing() -> Any:
    return None


@dataclass(frozen=True, slots=True)
class Health:
    """Where the answers come from. Every callable returns at once and may be called from any thread.

    Args:
        version: of the running program.
        live: fault of the process itself: the loop does not turn, or a task cannot be kept running.
        listener: fault of the listener for applications.
        spool: fault of the place where events are kept.
        workers: fault of a process that serves a share of the port.
        refused: what upstream offers and cannot be used, with the reason; the last good configuration is served.
        expected: ids of the environments that must be there; empty as long as nobody knows.
        is_draining: whether the process is on its way out.
        max_stale_s: age beyond which a configuration is no longer ready; None = never.
        is_authority: whether the configuration is made here and so has no age.
        details: further members of `/status`, such as `spool` and `follower`.
        gaps: what is set aside in the configurations; made of the store.
    """

    version: str
    store: Store
    streams: Broadcast
    metrics: RelayMetrics
    clock: Clock
    live: Callable[[], Fault] = _well
    listener: Callable[[], Fault] = _well
    spool: Callable[[], Fault] = _well
    workers: Callable[[], Fault] = _well
    refused: Callable[[], Fault] = _well
    expected: Callable[[], frozenset[str]] = frozenset
    is_draining: Callable[[], bool] = bool
    max_stale_s: float | None = None
    is_authority: bool = False
    details: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    gaps: GapBook = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gaps", GapBook(self.store))


def configuration_fault(health: Health) -> Fault:
    """Return what is missing to serve every environment."""
    held = health.store.configurations
    if health.is_authority:
        # Serves the management of what is still to be made, and says in `refused` what it cannot use.
        return None
    if not held:
        return "no configuration has arrived yet"
    missing = health.expected() - held.keys()
    return f"no configuration yet for {len(missing)} of {len(health.expected())} environments" if missing else None


def staleness_fault(health: Health) -> Fault:
    """Return why the configuration cannot be called fresh."""
    if health.is_authority:
        return None
    if health.store.origin is not Origin.UPSTREAM:
        return f"not confirmed by the upstream since this process started; from {health.store.origin}"
    age_s = health.store.age_s()
    if age_s is None:
        return "not confirmed by the upstream yet"
    return f"confirmed {age_s:.0f} s ago" if age_s > DEGRADED_AFTER_S else None


def max_stale_fault(health: Health) -> Fault:
    """Return why the configuration is older than the operator lets it be served; an unknown age is too old."""
    if health.is_authority or health.max_stale_s is None:
        return None
    age_s = health.store.age_s()
    if age_s is None:
        return f"of unknown age; at most {health.max_stale_s:g} s are allowed"
    return f"older than {health.max_stale_s:g} s" if age_s > health.max_stale_s else None


def readiness(health: Health) -> tuple[bool, dict[str, Any]]:
    """Return whether traffic may come, and the body that says why."""
    faults = {
        "configuration": configuration_fault(health),
        "listener": health.listener(),
        "spool": health.spool(),
        "workers": health.workers(),
        "draining": "the process is about to stop" if health.is_draining() else None,
        "max_stale": max_stale_fault(health),
    }
    incomplete = None if health.store.is_all_covered else "the upstream itself lacks environments still"
    flaws = {"stale": staleness_fault(health), "refused": health.refused(), "incomplete": incomplete}
    found = {name: fault for name, fault in faults.items() if fault is not None}
    flawed = {name: flaw for name, flaw in flaws.items() if flaw is not None}
    body = {"status": "not ready" if found else "ready", "degraded": bool(flawed), "faults": found, **flawed}
    return not found, body


def status(health: Health) -> dict[str, Any]:
    """Return what `/status` shows. Holds no key, context or value."""
    is_ready, ready = readiness(health)
    now_ms = health.clock.wall_ms()
    metrics = health.metrics
    return {
        "version": health.version,
        "at": rfc3339(now_ms),
        "ready": is_ready,
        **{name: ready[name] for name in ("degraded", "faults")},
        "origin": "authority" if health.is_authority else health.store.origin,
        "age_s": None if health.is_authority else health.store.age_s(),
        "environments": [_environment(each, health.gaps) for _, each in sorted(health.store.configurations.items())],
        "streams": health.streams.counts(),
        "refusals": {
            "configurations": metrics.refused_configs.total(),
            "keys": metrics.refused_keys.total(),
            "connections": metrics.refused_connections.total(),
        },
        **{name: read() for name, read in health.details.items()},
    }


def _environment(configuration: Configuration, book: GapBook) -> dict[str, Any]:
    state, gaps = configuration.state, book.of(configuration)
    return {
        "id": state.ref.id,
        "key": state.ref.key,
        "project": state.ref.project_key,
        "epoch": state.epoch,
        "revision": state.revision,
        "hash": state.content_hash,
        "flags": len(state.flags),
        "gaps": len(gaps),
        "first_gaps": [asdict(gap) for gap in gaps[:_GAPS_SHOWN]],
    }


def health_routes(health: Health, *, with_metrics: bool = True) -> list[BaseRoute]:
    """Return the routes, for a service that has its own router."""

    def live(_request: Request) -> Response:
        fault = health.live()
        body = {"status": "alive"} if fault is None else {"status": "not alive", "fault": fault}
        return _json(200 if fault is None else 503, body)

    def ready(_request: Request) -> Response:
        is_ready, body = readiness(health)
        return _json(200 if is_ready else 503, body)

    def started(_request: Request) -> Response:
        fault = configuration_fault(health)
        body = {"status": "started"} if fault is None else {"status": "starting", "fault": fault}
        return _json(200 if fault is None else 503, body)

    def shown(_request: Request) -> Response:
        return _json(200, status(health))

    def metrics(request: Request) -> Response:
        body, media_type = health.metrics.exposition_for(request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": media_type})

    probes: dict[str, Callable[[Request], Response]] = {
        "/livez": live,
        "/readyz": ready,
        "/startupz": started,
        "/status": shown,
    }
    if with_metrics:
        probes["/metrics"] = metrics
    return [Route(path, _on_the_loop(answer), methods=["GET"]) for path, answer in probes.items()]


def build_admin(health: Health, limits: Limits, more_routes: list[BaseRoute] | None = None) -> AsgiApp:
    """Return the app of the relay's admin port."""
    return Guard(route([*health_routes(health), *(more_routes or [])]), limits, health.metrics)


def _on_the_loop(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    # Starlette sends plain functions to a thread pool; these return at once, and a probe should need no thread.
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def _json(status_code: int, body: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(body), status_code, media_type="application/json")
