"""Changes from the edge: their bytes, and who can have made them."""

from dataclasses import replace

import orjson
import pytest

from relay.protocol.edge import EdgeChange, Kill, edge_key, encode, is_proven, proof_of

KEY = edge_key("hal_token_one")
CHANGE = EdgeChange(
    idempotency_key="key-00001",
    ops=(Kill(project="p", environment="e", flag="f", reason="fire"),),
    relay="relay-1",
    at="2026-11-21T06:30:00.000Z",
    credential="c",
)


def test_the_body_is_canonical_and_leaves_out_what_is_not_given() -> None:
    """The same bytes whenever it is sent; no reason, no member."""
    silent = replace(CHANGE, ops=(replace(CHANGE.ops[0], reason=None),))
    assert encode(silent, "00") == (
        b'{"idempotency_key":"key-00001","ops":[{"environment":"e","flag":"f","op":"kill","project":"p"}],'
        b'"origin":{"at":"2026-11-21T06:30:00.000Z","credential":"c","proof":"00","relay":"relay-1"}}'
    )
    assert orjson.loads(encode(CHANGE, "00"))["ops"][0]["reason"] == "fire"


def test_the_proof_is_a_keyed_hash_over_all_the_rest() -> None:
    """HMAC-SHA256 with SHA-256("edge:" + token) as its key; the expected one was worked out by hand."""
    assert proof_of(KEY, CHANGE) == "4aaa44e1881bbfbcbcf080e8868ca6dbb0ad6107cf9212cd5e125a9404409857"
    assert is_proven(KEY, CHANGE, proof_of(KEY, CHANGE))


@pytest.mark.parametrize(
    "other",
    [
        replace(CHANGE, idempotency_key="key-00002"),
        replace(CHANGE, relay="relay-2"),
        replace(CHANGE, at="2026-11-21T06:30:00.001Z"),
        replace(CHANGE, credential="d"),
        replace(CHANGE, ops=()),
        replace(CHANGE, ops=(replace(CHANGE.ops[0], flag="g"),)),
        replace(CHANGE, ops=(replace(CHANGE.ops[0], reason=None),)),
    ],
)
def test_whatever_is_altered_is_not_proven(other: EdgeChange) -> None:
    """Neither what was done nor when, where, by whom or under which key can be changed on the way."""
    assert not is_proven(KEY, other, proof_of(KEY, CHANGE))


@pytest.mark.parametrize("proof", ["", "é", "0" * 64, "0" * 65])
def test_what_is_no_proof_proves_nothing(proof: str) -> None:
    """Whatever text stands there, the answer is no."""
    assert not is_proven(KEY, CHANGE, proof)


def test_another_token_proves_nothing() -> None:
    """Each token has a key of its own."""
    assert not is_proven(edge_key("hal_token_two"), CHANGE, proof_of(KEY, CHANGE))
