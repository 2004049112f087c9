"""Who follows worker 0 over its Unix socket: the other workers, which see every environment that there is.

Their secret is checked before any request gets here (`relay.workers.desk`). Nothing here depends on keys in the
configuration, so that workers get all of it also when the relay's own key was revoked and the last good one is served.
"""

from collections.abc import Mapping
from typing import Final

from relay.clock import Clock
from relay.metrics import RelayMetrics
from relay.protocol.keys import Kind
from relay.serve.access import ANY_KIND, READ, Access, Grant, Terms
from relay.serve.guard import Scope
from relay.serve.problems import unavailable
from relay.sync.store import Configuration, Credential, Store

_WORKER: Final = Credential(
    id="worker",
    fingerprint="worker",
    kind=Kind.RELAY,
    scopes=frozenset({READ}),
    projects=None,
    expires_at_ms=None,
    origins=(),
)


class WorkerAccess(Access):
    """Opens everything to everybody who got as far as this."""

    def __init__(self, store: Store, clock: Clock, metrics: RelayMetrics) -> None:
        super().__init__(store, clock, metrics)
        self._held = store

    def authenticate(
        self,
        _scope: Scope,
        *,
        kinds: frozenset[Kind] = ANY_KIND,
        needs: str = READ,
        key_in_query: bool = False,  # noqa: ARG002 - as the base class has it
    ) -> Grant:
        """See `Access.authenticate`."""
        return self._everything(Terms(kinds, needs))

    def renew(self, _scope: Scope, grant: Grant) -> Grant:
        """See `Access.renew`."""
        return self._everything(grant.terms)

    def lookup(self, _key_fingerprint: str) -> Grant:
        """See `Access.lookup`."""
        return Grant(_WORKER.fingerprint, _WORKER, tuple(self._configurations().values()))

    def _everything(self, terms: Terms) -> Grant:
        if not self._configurations():
            raise unavailable("no_configuration", "Worker 0 has no configuration itself yet.", 1)
        return Grant(_WORKER.fingerprint, _WORKER, tuple(self._configurations().values()), terms)

    def _configurations(self) -> Mapping[str, Configuration]:
        return self._held.configurations
