"""Random projects, as the documents that they are imported from, and random contexts to evaluate them for."""

from typing import Any

from hypothesis import strategies as st

from upstream.domain.transfer import FORMAT, FORMAT_VERSION

ENVIRONMENTS = ("live", "test")
FLAGS = ("alpha", "beta", "gamma", "delta")
SEGMENTS = ("staff", "eu")
UNITS = ("ada", "bob", "eve", "7")

texts = st.text("abc é€'\"\\/\n", max_size=12)
names = st.text("abc é€", min_size=1, max_size=8).filter(str.strip)
values = {
    "boolean": st.booleans(),
    "string": texts,
    "number": st.integers(-(1 << 40), 1 << 40) | st.floats(-1e6, 1e6, allow_nan=False),
    "json": st.dictionaries(st.sampled_from("abc"), st.integers(0, 9) | texts | st.none(), max_size=3)
    | st.lists(st.integers(-9, 9), max_size=3),
}
contexts = st.fixed_dictionaries(
    {},
    optional={"targetingKey": st.sampled_from(UNITS), "country": st.sampled_from(["de", "fr"]), "n": st.integers(0, 9)},
)


def conditions() -> st.SearchStrategy[Any]:
    leaves = st.sampled_from(
        [
            {"all": []},
            {"attribute": "country", "op": "in", "values": ["de", "at"]},
            {"attribute": "n", "op": "gte", "values": [5]},
            {"attribute": "country", "op": "exists"},
            {"segment": "staff"},
            {"attribute": "targetingKey", "op": "percentage_of", "values": [30_000]},
        ]
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(lambda parts: {"any": parts}, st.lists(inner, max_size=2))
            | st.builds(lambda part: {"not": part}, inner)
        ),
        max_leaves=3,
    )


@st.composite
def serves(draw: st.DrawFn, keys: list[str]) -> dict[str, Any]:
    one, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
    share = draw(st.integers(0, 100_000))
    split: dict[str, Any] = {
        "by": draw(st.sampled_from(["targetingKey", "country"])),
        "weights": [[one, share], [other, 100_000 - share]],
    }
    if draw(st.booleans()):
        split["salt"] = "layer"
    ramp = {
        "to": one, "else": other, "start_at": draw(st.sampled_from([None, "2026-11-20T00:00:00Z"])),
        "increment": share or 1, "every_s": 60, "target": 100_000, "by": "targetingKey",
    }  # fmt: skip
    return draw(st.sampled_from([{"variation": one}, {"split": split}, {"ramp": ramp}]))


@st.composite
def configs(draw: st.DrawFn, keys: list[str]) -> dict[str, Any]:
    rules = [
        {
            "id": f"rule-{index}", "when": draw(conditions()), "serve": draw(serves(keys)),
            "name": draw(st.none() | names), "is_active": draw(st.booleans()),
        }
        for index in range(draw(st.integers(0, 2)))
    ]  # fmt: skip
    units = draw(st.lists(st.sampled_from(UNITS), unique=True, max_size=2))
    return {
        "enabled": draw(st.booleans()),
        "off": draw(st.none() | st.sampled_from(keys)),
        "fallthrough": draw(serves(keys)),
        "rules": rules,
        "targets": [{"variation": draw(st.sampled_from(keys)), "units": units}] if units else [],
        "salt": draw(st.text("0123456789abcdef", min_size=16, max_size=16)),
    }


@st.composite
def flags(draw: st.DrawFn, index: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["boolean", "string", "number", "json"]))
    drawn = draw(st.lists(values[kind], min_size=1, max_size=3))
    keys = [f"v{number}" for number in range(len(drawn))]
    needs = draw(st.lists(st.sampled_from(FLAGS[:index] or ("nowhere",)), unique=True, max_size=2))
    return {
        "key": FLAGS[index],
        "name": draw(names),
        "description": draw(st.none() | texts),
        "type": kind,
        "number_format": None,
        "kind": draw(st.sampled_from(["release", "experiment", "ops", "permission"])),
        "tags": draw(st.lists(st.sampled_from(["ui", "x", "é"]), unique=True, max_size=2)),
        "metadata": draw(
            st.dictionaries(st.sampled_from("abc"), texts | st.integers(0, 9) | st.booleans(), max_size=2)
        ),
        "is_active": draw(st.booleans()),
        "client_side_enabled": draw(st.booleans()),
        "analytics_enabled": draw(st.booleans()),
        "mutual_exclusion_group": draw(st.none() | st.just("group")),
        "owner": draw(st.none() | texts),
        "expires_at": draw(st.none() | st.integers(0, 1 << 42)),
        "archived": draw(st.booleans()),
        "prerequisites": [{"flag": flag, "variations": draw(st.none() | st.just(["v0"]))} for flag in needs],
        "variations": [
            {"key": key, "value": value, "name": draw(st.none() | names)}
            for key, value in zip(keys, drawn, strict=True)
        ],
        "configs": {environment: draw(configs(keys)) for environment in ENVIRONMENTS},
    }


@st.composite
def documents(draw: st.DrawFn, key: str = "first") -> dict[str, Any]:
    """Documents as the command takes them: times in epoch milliseconds."""
    count = draw(st.integers(0, len(FLAGS)))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "project": {
            "key": key,
            "name": draw(names),
            "description": draw(st.none() | texts),
            "mau_limit": draw(st.none() | st.integers(0, 99)),
        },
        "environments": [draw(environments(each)) for each in ENVIRONMENTS],
        "segments": [draw(segments(each)) for each in SEGMENTS[: draw(st.integers(0, 2))]],
        "flags": [draw(flags(index)) for index in range(count)],
    }


@st.composite
def environments(draw: st.DrawFn, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "name": draw(names),
        "sort": draw(st.integers(-9, 9)),
        "critical": draw(st.booleans()),
        "require_review": False,
    }


@st.composite
def segments(draw: st.DrawFn, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "name": draw(names),
        "description": None,
        "include": draw(st.lists(st.sampled_from(UNITS), unique=True, max_size=2)),
        "exclude": draw(st.lists(st.sampled_from(UNITS), unique=True, max_size=2)),
        "when": draw(st.none() | st.just({"attribute": "country", "op": "in", "values": ["de"]})),
    }
