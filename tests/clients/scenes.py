"""The places where clients are asked: the same installation with another key, or another relay in some trouble."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.clients.cutter import Cutter
from tests.clients.matrix import Scene
from tests.stack import Json, Running, free_port, until

_STOPS_AT_ONCE = {"HALYARD_RELAY_DRAIN__ACCEPT_S": "0", "HALYARD_RELAY_DRAIN__WINDOW_S": "0"}


@dataclass
class Elsewhere(Running):
    """The installation as a driver is to see it: some members of demo.json are others."""

    changed: Json = field(default_factory=dict)

    @property
    def demo(self) -> Json:
        return {**super().demo, **self.changed}

    @classmethod
    def of(cls, stack: Running, relay_port: int | None = None, **changed: str) -> "Elsewhere":
        """Return the installation with another relay or other keys; whoever made `stack` ends its processes."""
        port = stack.relay_port if relay_port is None else relay_port
        return cls(stack.data_dir, stack.upstream_port, port, stack.admin_port, session=stack.session, changed=changed)


@asynccontextmanager
async def opened(stack: Running, scene: Scene) -> AsyncIterator[Running]:
    """Set a scene and return what drivers are to be given."""
    match scene:
        case Scene.USUAL:
            yield stack
        case Scene.CLIENT_KEY:
            yield Elsewhere.of(stack, server_key=stack.demo["client_key"])
        case Scene.REVOKED:
            yield Elsewhere.of(stack, server_key=await _revoked_key(stack))
        case Scene.MANY:
            yield Elsewhere.of(stack, server_key=stack.demo["relay_key"])
        case Scene.HELD:
            async with Cutter.before(stack.upstream_port) as cutter:
                held = relay_beside(stack, cutter.port, "held")
                await until_ready(held, ready=True, degraded=False)
                with cutter.cut():
                    await _until_following(held, connected=False)
                    yield held
        case Scene.EMPTY:
            empty = relay_beside(stack, free_port(), "empty")
            await until_ready(empty, ready=False, degraded=True)
            yield empty
        case Scene.NOBODY:
            yield Elsewhere.of(stack, relay_port=free_port())


def relay_beside(stack: Running, upstream_port: int, name: str, env: dict[str, str] | None = None) -> Elsewhere:
    """Start a second relay in a directory of its own; the stack ends it with its own processes."""
    made = Elsewhere(stack.data_dir, upstream_port=upstream_port, processes=stack.processes, session=stack.session)
    key_file = stack.data_dir / "clients-relay.key"
    key_file.write_text(stack.demo["relay_key"])
    made.start(
        "halyard-relay", "--upstream-url", made.upstream_url, "--upstream-key-file", str(key_file),
        "--port", str(made.relay_port), "--admin-port", str(made.admin_port),
        "--data-dir", str(stack.data_dir / name), env={**_STOPS_AT_ONCE, **(env or {})},
    )  # fmt: skip
    return made


async def until_ready(relay: Running, *, ready: bool, degraded: bool) -> None:
    """Wait until the relay says so of itself."""

    async def so() -> bool:
        status, body = await relay.admin.get("/readyz")
        return ((status == 200), body["degraded"]) == (ready, degraded)

    await until(f"the relay is ready={ready}, degraded={degraded}", so)


async def _until_following(relay: Running, *, connected: bool) -> None:
    async def so() -> bool:
        _, body = await relay.admin.get("/status")
        return bool(body["follower"]["connected"]) is connected

    await until(f"the relay's follower is connected={connected}", so)


async def _revoked_key(stack: Running) -> str:
    """Make a server key, let the relay know it, revoke it, and return it once the relay refuses it."""
    body = {"kind": "server", "project": stack.demo["project"], "environment": stack.demo["environment"]}
    status, made = await stack.manage.post("/api/v2/keys", body)
    assert status == 201, made
    await _until_answered(stack, made["key"], 200)
    status, refusal = await stack.manage.call("DELETE", f"/api/v2/keys/{made['id']}")
    assert status == 204, refusal
    await _until_answered(stack, made["key"], 401)
    key: str = made["key"]
    return key


async def _until_answered(stack: Running, key: str, wanted: int) -> None:
    async def answered() -> bool:
        status, _ = await Elsewhere.of(stack, server_key=key).relay().post("/ofrep/v1/evaluate/flags", {})
        return status == wanted

    await until(f"the relay answers the key with {wanted}", answered)
