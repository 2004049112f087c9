"""Hypothesis strategies: JSON of every kind, and flags and segments in the engine's own words."""

from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

from relay.engine.operators import CONDITION_OPERATORS, OPERATORS
from tests.engine.build import ON, flag, segment

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)

names = st.sampled_from(["a", "b", "c"])
paths = st.sampled_from(["targetingKey", "a", "b", "a.b", "a.b.c"])
variations = st.sampled_from(["on", "off"])
telling = st.sampled_from(
    [
        "a",
        "1",
        1,
        1.5,
        True,
        "1.2.3",
        "v1.2.3-rc.1",
        "10.0.0.1",
        "::1",
        "10.0.0.0/8",
        "2026-11-21T06:30:00Z",
        "\ud800",
        10**30,
    ]
)
values = telling | scalars

contexts = st.dictionaries(
    st.sampled_from(["targetingKey", "a", "b", "a.b"]),
    values | st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["b", "c"]), json_values, max_size=2),
) | st.dictionaries(st.text(max_size=4), json_values, max_size=4)

_texts = st.lists(st.sampled_from(["a", "1", "", "\ud800"]), max_size=2)
_numbers = st.lists(st.sampled_from([0, 1, 1.5, "2", 10**30]), max_size=2)
_versions = st.lists(st.sampled_from(["1.2.3", "v1", "1.2.3-rc.2"]), max_size=2)
_arguments: dict[str, st.SearchStrategy[list[Any]]] = {
    **dict.fromkeys(("equals", "not_equals", "in", "not_in"), st.lists(telling, max_size=3)),
    **{name: _texts for name in OPERATORS if name.endswith(("contains", "starts_with", "ends_with"))},
    "matches": st.lists(st.sampled_from(["a", "^.$", "[0-9]+"]), max_size=2),
    **dict.fromkeys(("gt", "gte", "lt", "lte"), _numbers),
    "between": st.just([0, 1]),
    **{name: _versions for name in OPERATORS if name.startswith("semver")},
    **dict.fromkeys(("before", "after"), st.just(["2026-11-21T06:30:00Z", 1])),
    **dict.fromkeys(("in_cidr", "not_in_cidr"), st.lists(st.sampled_from(["10.0.0.0/8", "::/0"]), max_size=2)),
    **dict.fromkeys(("in_segment", "not_in_segment"), st.lists(names, max_size=2)),
    "percentage_of": st.integers(0, 100_000).map(lambda share: [share]),
    **dict.fromkeys(("exists", "not_exists"), st.just([])),
    "sounds_like": st.lists(values, max_size=1),
}
assert _arguments.keys() == {*OPERATORS, *CONDITION_OPERATORS, "sounds_like"}


def _clause(op: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"op": st.just(op), "attribute": paths, "values": _arguments[op]}, optional={"fold_case": st.booleans()}
    )


clauses = st.sampled_from(sorted(_arguments)).flatmap(_clause)
conditions: st.SearchStrategy[Any] = st.recursive(
    clauses | st.fixed_dictionaries({"segment": names}),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=6,
)


def _split(share: int) -> list[list[Any]]:
    return [["on", share], ["off", 100_000 - share]]


serves = st.one_of(
    st.fixed_dictionaries({"variation": variations}),
    st.fixed_dictionaries(
        {"split": st.fixed_dictionaries({"weights": st.integers(0, 100_000).map(_split)}, optional={"by": paths})}
    ),
    st.fixed_dictionaries(
        {
            "ramp": st.fixed_dictionaries(
                {
                    "to": variations,
                    "else": variations,
                    "start_at": st.none() | st.integers(0, 10_000),
                    "increment": st.integers(0, 100_000),
                    "every_s": st.integers(1, 10),
                    "target": st.integers(0, 100_000),
                },
                optional={"by": paths},
            )
        }
    ),
)
flags: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "id": st.just("id"),
        "type": st.just("boolean"),
        "version": st.integers(0, 9),
        "salt": st.text(max_size=4),
        "enabled": st.sampled_from([True, True, True, False]),
        "variations": st.just([{"key": "on", "value": True}, {"key": "off", "value": False}]),
        "off": st.none() | variations,
        "fallthrough": serves,
        "rules": st.lists(st.fixed_dictionaries({"id": names, "when": conditions, "serve": serves}), max_size=2),
    },
    optional={
        "targets": st.lists(
            st.fixed_dictionaries({"variation": variations, "units": st.lists(st.sampled_from(["a", "1", 1]))}),
            max_size=2,
        ),
        "prerequisites": st.lists(
            st.fixed_dictionaries({"flag": names}, optional={"variations": st.lists(variations)}), max_size=2
        ),
        "group": st.sampled_from(["g", "h"]),
        "client_side": st.booleans(),
        "metadata": st.dictionaries(names, st.sampled_from(["a", 1, 0.5, True]), max_size=2),
    },
)
segments: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "include": st.lists(st.sampled_from(["a", "1"]), max_size=2),
        "exclude": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "when": st.none() | conditions,
    }
)


def _linked_flag(prerequisites: list[str], group: str | None, enabled: bool, serve: Any) -> dict[str, Any]:  # noqa: FBT001 - drawn
    return flag(
        prerequisites=[{"flag": key} for key in prerequisites],
        group=group,
        enabled=enabled,
        fallthrough=serve,
        off="off",
    )


linked_flags = st.builds(
    _linked_flag,
    st.lists(names, max_size=2),
    st.sampled_from([None, "g", "h"]),
    st.booleans(),
    st.sampled_from([ON, {"ramp": {"to": "on", "else": "off", "increment": 1, "every_s": 1, "target": 2}}]),
)
"""Flags of which only matters how they hang together with others."""
linked_segments = st.builds(lambda key: segment(when={"segment": key}), names) | st.just(segment())


@st.composite
def spoiled(draw: st.DrawFn, objects: st.SearchStrategy[dict[str, Any]]) -> Any:
    """Draw an object and put another value in the place of one of its members, or of a member of a member."""
    obj = deepcopy(draw(objects))  # strategies hand out the very same constants again
    place: Any = obj
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            place[key] = draw(values | names | json_values)
            return obj
        place = inner
