"""Buckets and exclusion draws: the published figures, evenness, and who moves when."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.engine.bucketing import BUCKETS, Purpose, bucket, winner

# The figures were computed with a separate implementation of MurmurHash3_x86_32.
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "bucketing_vectors.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("vector", VECTORS["buckets"])
def test_bucket_vectors(vector: dict[str, Any]) -> None:
    """Purpose, salt and unit give the published hash and bucket: empty, UTF-8, emoji, long, both ends."""
    text = f"{vector['purpose']}:{vector['salt']}:{vector['unit']}"

    assert mmh3.hash(text, 0, signed=False) == vector["hash"]
    assert bucket(vector["purpose"], vector["salt"], vector["unit"]) == vector["bucket"]


@pytest.mark.parametrize("vector", VECTORS["groups"])
def test_group_vectors(vector: dict[str, Any]) -> None:
    """Group, flags and unit give the published draws, and the highest wins whatever the order."""
    draws = {
        flag: mmh3.hash(f"{vector['group']}\x1f{flag}\x1f{vector['unit']}", signed=False) for flag in vector["flags"]
    }

    assert draws == vector["draws"]
    assert winner(vector["group"], vector["flags"], vector["unit"]) == vector["winner"]
    assert winner(vector["group"], reversed(vector["flags"]), vector["unit"]) == vector["winner"]


def test_half_of_a_surrogate_pair_has_a_bucket() -> None:
    """Text that is no valid Unicode is bucketed rather than refused."""
    assert 0 <= bucket("rollout", "salt", "\ud800") < BUCKETS


@given(st.text(), st.text(), st.sampled_from(["rollout", "variant", "holdout"]))
def test_bucket_is_in_range(salt: str, unit: str, purpose: Purpose) -> None:
    """Every bucket lies in 0..99,999 and is the same each time."""
    assert 0 <= bucket(purpose, salt, unit) < BUCKETS
    assert bucket(purpose, salt, unit) == bucket(purpose, salt, unit)


def test_buckets_are_even() -> None:
    """20,000 units spread over 20 ranges as chance would: chi-squared below the limit of 0.001 at 19 degrees."""
    counts = Counter(bucket("rollout", "salt", f"user-{n}") * 20 // BUCKETS for n in range(20_000))

    assert sum((counts[part] - 1000) ** 2 / 1000 for part in range(20)) < 43.8


def test_salts_are_independent() -> None:
    """Being in the first half under one salt says nothing about another: a quarter is in both."""
    both = sum(
        bucket("rollout", "salt-a", f"user-{n}") < BUCKETS // 2
        and bucket("rollout", "salt-b", f"user-{n}") < BUCKETS // 2
        for n in range(20_000)
    )

    assert 4_800 < both < 5_200


def test_groups_are_shared_evenly() -> None:
    """Three flags of a group get a third of the units each."""
    counts = Counter(winner("g", ("a", "b", "c"), f"user-{n}") for n in range(9_000))

    assert all(2_850 < counts[flag] < 3_150 for flag in ("a", "b", "c"))


@given(st.text(min_size=1))
def test_new_member_takes_only_its_own(unit: str) -> None:
    """A flag that joins a group either wins a unit itself or leaves it where it was."""
    assert winner("g", ("a", "b", "c"), unit) in {winner("g", ("a", "b"), unit), "c"}
