"""What a configuration holds that this version sets aside is counted and told."""

from relay.metrics import RelayMetrics
from relay.serve.health import Health, status
from relay.sync.gaps import GapBook
from tests.relay.objects import equals, flag, reference, rule
from tests.relay.test_metrics import samples
from tests.relay.world import World

UNKNOWN = {"attribute": "a", "op": "sounds_like", "values": ["x"]}


def test_gaps_are_counted_by_environment_and_kind(world: World) -> None:
    """Unknown operators, segments and flags that are not there; what goes takes its gaps with it."""
    book = GapBook(world.store)
    assert book.counts() == {}
    world.commit(
        {
            "new": flag(rules=[rule(UNKNOWN)]),
            "lost": flag(rules=[rule({"segment": "gone"})], prerequisites=[{"flag": "nowhere"}]),
        }
    )
    world.snapshot({"new": flag(rules=[rule(UNKNOWN)])}, ref=reference(2, "staging"))
    metrics = RelayMetrics()
    metrics.gaps.read_from(book.counts)
    found = {name: value for name, value in samples(metrics).items() if "config_gaps" in name}
    assert found == {
        "halyard_relay_config_gaps{environment=shop/production,kind=unknown_operator}": 1,
        "halyard_relay_config_gaps{environment=shop/production,kind=unusable_segment}": 1,
        "halyard_relay_config_gaps{environment=shop/production,kind=missing_prerequisite}": 1,
        "halyard_relay_config_gaps{environment=shop/staging,kind=unknown_operator}": 1,
    }
    world.store.remove(reference(2, "staging").id)
    world.commit({"new": flag(rules=[rule(equals("a", "x"))]), "lost": None})
    assert book.counts() == {}


def test_status_lists_the_first_gaps(world: World) -> None:
    """With the place, the kind and the name, so that somebody can go and mend them."""
    world.commit({f"f{number:02}": flag(rules=[rule(UNKNOWN)]) for number in range(25)})
    health = Health("1", world.store, world.services.streams, world.metrics, world.clock)
    (environment,) = status(health)["environments"]
    assert environment["gaps"] == 25
    assert len(environment["first_gaps"]) == 20
    assert environment["first_gaps"][0] == {
        "path": "flags.f00.rules[0]",
        "kind": "unknown_operator",
        "name": "sounds_like",
    }
