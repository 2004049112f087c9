"""The stream's messages on the wire: written per audience, read back, refused with path and reason."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.protocol.changes import MAX_ENVIRONMENTS, Bookmark, Environments, Goodbye, Message, Snapshot, State, mark_of
from relay.protocol.decode import BadMessage, decode_steps, parse_message
from relay.protocol.encode import (
    SLICE_BYTES,
    Audience,
    encode_bookmark,
    encode_changes,
    encode_environments,
    encode_goodbye,
    snapshot_lines,
)
from relay.protocol.overlays import ForcedOff, OverlayEnd, encode_overlay, encode_overlay_end
from relay.protocol.state import change_between
from tests.protocol.build import COMMITTED_AT, credential, flag, segment, state

FULL = state(
    7,
    flags={"checkout": flag(), "search": flag(2)},
    segments={"beta": segment(include=["ü"])},
    credentials={"c1": credential("c1"), "c2": credential("c2", "1" * 64)},
)
FOR_SERVER = replace(FULL, credentials={}, limits=None, secrets=None, credentials_hash=None)
CHANGE = change_between(state(6, flags={"old": flag()}, credentials={"c0": credential("c0")}), FULL, COMMITTED_AT)
BOOKMARK = Bookmark({FULL.ref.id: mark_of(FULL)}, COMMITTED_AT)


def snapshot_data(of: State, audience: Audience = Audience.RELAY) -> bytes:
    return b"\n".join(snapshot_lines(of, "gap", audience))


def test_a_relay_reads_back_the_whole_snapshot() -> None:
    """What a relay gets is the state, byte for byte."""
    assert parse_message("snapshot", snapshot_data(FULL)) == Snapshot(FULL, "gap")


def test_a_server_gets_no_credentials() -> None:
    """Of credentials, limits and secrets not a byte goes to a server key, in no message."""
    data = snapshot_data(FULL, Audience.SERVER)
    assert parse_message("snapshot", data) == Snapshot(FOR_SERVER, "gap")
    for text in (data, encode_changes(CHANGE, Audience.SERVER), encode_bookmark(BOOKMARK, Audience.SERVER)):
        for word in (b"credential", b"limits", b"secret", b"0" * 64):
            assert word not in text


def test_the_snapshot_has_the_documented_form() -> None:
    """Joined, the lines are one JSON document with the documented members."""
    document = json.loads(snapshot_data(FULL))
    assert list(document) == [
        "schema", "reason", "environment", "epoch", "revision", "hash",
        "flags", "segments", "credentials", "credentials_hash", "limits", "secrets",
    ]  # fmt: skip
    assert document["environment"] == {
        "id": FULL.ref.id,
        "key": "env-1",
        "name": "Environment 1",
        "project": {"id": FULL.ref.project_id, "key": "shop"},
    }
    assert document["credentials"][0]["id"] == "c1"


@pytest.mark.parametrize(
    "of",
    [
        state(flags={}, credentials={"c1": credential("c1")}),
        replace(FULL, limits=None, secrets=None, credentials_hash="0" * 32, credentials={}),
        FOR_SERVER,
    ],
)
def test_empty_parts_are_read_back(of: State) -> None:
    """An environment without flags, keys or limits is an environment."""
    assert parse_message("snapshot", snapshot_data(of)) == Snapshot(of, "gap")


def test_a_large_snapshot_is_cut_into_lines() -> None:
    """No line exceeds 64 KiB of objects unless one object does, and the pauses come between them."""
    large = state(
        flags={f"flag-{n}": flag(metadata={"note": "x" * 900}) for n in range(200)}
        | {"huge": flag(name="x" * SLICE_BYTES)},
        credentials={f"c{n}": credential(f"c{n}", f"{n:064x}") for n in range(800)},
    )
    lines = list(snapshot_lines(large, "start", Audience.RELAY))
    assert len(lines) > 8
    assert sorted(map(len, lines))[-2] <= SLICE_BYTES + 100
    json.loads(b"\n".join(lines))
    assert sum(1 for _ in decode_steps("snapshot", lines)) == len(lines) - 1
    assert parse_message("snapshot", b"\n".join(lines)) == Snapshot(large, "start")


def test_a_snapshot_in_another_layout_is_read() -> None:
    """A sender that writes one line, or indents, is understood as well."""
    for data in (json.dumps(json.loads(snapshot_data(FULL))), json.dumps(json.loads(snapshot_data(FULL)), indent=1)):
        assert parse_message("snapshot", data.encode()) == Snapshot(FULL, "gap")


def test_changes_are_read_back() -> None:
    """A relay gets the change set whole; a server the same revision without what is not for it."""
    assert parse_message("changes", encode_changes(CHANGE, Audience.RELAY)) == CHANGE
    for_server = parse_message("changes", encode_changes(CHANGE, Audience.SERVER))
    assert for_server == replace(
        CHANGE, upsert_credentials={}, remove_credentials=(), limits=None, secrets=None, credentials_hash=None
    )


def test_a_relay_of_a_server_stream_re_serves_it() -> None:
    """A change set that came without a credentials hash goes on without one."""
    data = encode_changes(replace(CHANGE, credentials_hash=None), Audience.RELAY)
    assert b"credentials_hash" not in data


def test_changed_limits_and_secrets_travel() -> None:
    """Limits and secrets are in a change set when they changed, and only then."""
    after = replace(FULL, revision=8, limits=b"{}", secrets=b'{"stream_secret":"new"}')
    change = change_between(FULL, after, COMMITTED_AT)
    assert parse_message("changes", encode_changes(change, Audience.RELAY)) == change
    assert b"limits" not in encode_changes(
        change_between(FULL, replace(FULL, revision=8), COMMITTED_AT), Audience.RELAY
    )


OVERLAY = ForcedOff(FULL.ref.id, "kill-1", "checkout", 1_790_000_000_000, 1_790_000_060_000)


def test_an_overlay_lasts_as_long_as_it_says() -> None:
    """Seconds between its two times; one that ends before it begins lasts no time."""
    assert OVERLAY.lasts_s == 60
    assert replace(OVERLAY, expires_at_ms=0).lasts_s == 0


@pytest.mark.parametrize(
    ("event", "data", "message"),
    [
        ("bookmark", encode_bookmark(BOOKMARK, Audience.RELAY), BOOKMARK),
        (
            "bookmark",
            encode_bookmark(Bookmark({}, COMMITTED_AT, 12.5), Audience.RELAY),
            Bookmark({}, COMMITTED_AT, 12.5),
        ),
        ("bookmark", encode_bookmark(Bookmark({}, None, None), Audience.RELAY), Bookmark({}, None, None)),
        ("bookmark", b'{"environments":{},"at":"2026-11-21T06:30:00Z"}', Bookmark({}, "2026-11-21T06:30:00Z", 0.0)),
        ("environments", encode_environments(Environments((FULL.ref,))), Environments((FULL.ref,))),
        ("environments", encode_environments(Environments(())), Environments(())),
        (
            "environments",
            encode_environments(Environments((), is_complete=False, lacking=frozenset({FULL.ref.id}))),
            Environments((), is_complete=False, lacking=frozenset({FULL.ref.id})),
        ),
        ("environments", b'{"environments":[]}', Environments(())),
        ("goodbye", encode_goodbye(Goodbye("drain", 1500)), Goodbye("drain", 1500)),
        ("overlay", encode_overlay(OVERLAY), OVERLAY),
        ("overlay_end", encode_overlay_end(OverlayEnd(FULL.ref.id, "kill-1")), OverlayEnd(FULL.ref.id, "kill-1")),
        ("of_tomorrow", b"{not even JSON", None),
    ],
)
def test_other_messages_are_read_back(event: str, data: bytes, message: Message | None) -> None:
    """Bookmark, environments and goodbye travel as they are; unknown events are nobody's fault."""
    assert parse_message(event, data) == message


def test_unknown_fields_and_reasons_are_ignored() -> None:
    """A newer sender may say more than this version knows."""
    document = json.loads(snapshot_data(FULL)) | {"new": 1, "reason": "newer"}
    assert parse_message("snapshot", json.dumps(document).encode()) == Snapshot(FULL, "start")


def changed(event: str, path: str, value: Any) -> bytes:
    """Return the data of a good message with one member set to `value`, or removed where that is `...`."""
    good = {
        "snapshot": snapshot_data(FULL),
        "changes": encode_changes(CHANGE, Audience.RELAY),
        "bookmark": encode_bookmark(BOOKMARK, Audience.RELAY),
        "environments": encode_environments(Environments((FULL.ref,))),
        "goodbye": encode_goodbye(Goodbye("drain", 1)),
        "overlay": encode_overlay(OVERLAY),
        "overlay_end": encode_overlay_end(OverlayEnd(FULL.ref.id, "kill-1")),
    }
    document = json.loads(good[event])
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    target = document
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return json.dumps(document).encode()


WHOLE_NUMBER = "must be a whole number, 0 or more"
RIGHT_FORM = "is not of the right form"
DATE_TIME = "must be a date-time with an offset, such as 2026-11-21T06:30:00Z"


@pytest.mark.parametrize(
    ("event", "path", "value", "refusal"),
    [
        ("overlay", "environment", "production", f"environment: {RIGHT_FORM}"),
        ("overlay", "id", "a b", f"id: {RIGHT_FORM}"),
        ("overlay", "flag", "", f"flag: {RIGHT_FORM}"),
        ("overlay", "at", "yesterday", f"at: {DATE_TIME}"),
        ("overlay", "expires_at", ..., "expires_at: must be a string"),
        ("overlay_end", "environment", ..., "environment: must be a string"),
        ("overlay_end", "id", "x" * 65, f"id: {RIGHT_FORM}"),
        ("snapshot", "schema", 2, "schema: is not understood; this version reads schema 1"),
        ("snapshot", "schema", ..., f"schema: {WHOLE_NUMBER}"),
        ("snapshot", "environment", [], "environment: must be an object"),
        ("snapshot", "environment/id", "production", f"environment.id: {RIGHT_FORM}"),
        ("snapshot", "environment/project", ..., "environment.project: must be an object"),
        ("snapshot", "epoch", "a.b", f"epoch: {RIGHT_FORM}"),
        ("snapshot", "revision", -1, f"revision: {WHOLE_NUMBER}"),
        ("snapshot", "revision", True, f"revision: {WHOLE_NUMBER}"),
        ("snapshot", "revision", 2**63, f"revision: {WHOLE_NUMBER}"),
        ("snapshot", "revision", 1.0, f"revision: {WHOLE_NUMBER}"),
        ("snapshot", "flags", [], "flags: must be an object"),
        ("snapshot", "flags/checkout", 1, "flags.checkout: must be an object"),
        ("snapshot", "flags/checkout/version", 9, "hash: differs from the hash of the content"),
        ("snapshot", "segments/beta/version", 9, "hash: differs from the hash of the content"),
        ("snapshot", "credentials/1/hash", "", "credentials_hash: differs from the hash of the credentials"),
        ("snapshot", "credentials/1/id", ..., "credentials.1.id: must be a string"),
        ("snapshot", "credentials", {}, "credentials: must be an array"),
        ("snapshot", "limits", ..., "credentials_hash: differs from the hash of the credentials"),
        ("snapshot", "secrets", [], "secrets: must be an object"),
        ("changes", "environment", 7, "environment: must be a string"),
        ("changes", "to", 8, "to: one message must carry exactly one revision"),
        ("changes", "hash", "0", f"hash: {RIGHT_FORM}"),
        ("changes", "committed_at", "yesterday", f"committed_at: {DATE_TIME}"),
        ("changes", "committed_at", "2026-11-21", f"committed_at: {DATE_TIME}"),
        ("changes", "committed_at", "2026-11-21T06:30:00", f"committed_at: {DATE_TIME}"),
        ("changes", "committed_at", "2026-11-21t06:30:00z", "committed_at: must have T and Z in upper case"),
        ("changes", "committed_at", "9999-12-31T23:59:59-01:00", "committed_at: must not be after 9999 in UTC"),
        ("changes", "committed_at", None, "committed_at: must be a string"),
        ("bookmark", "at", "now", f"at: {DATE_TIME}"),
        ("bookmark", "at", ..., "at: must be a string"),
        ("bookmark", "age_s", "1", "age_s: must be a number, 0 or more"),
        ("bookmark", "age_s", -1, "age_s: must be a number, 0 or more"),
        ("bookmark", "age_s", True, "age_s: must be a number, 0 or more"),
        ("changes", "upsert", ..., "upsert: must be an object"),
        ("changes", "upsert/flags/checkout", None, "upsert.flags.checkout: must be an object"),
        ("changes", "upsert/credentials/0", 1, "upsert.credentials.0: must be an object"),
        ("changes", "remove/flags", [1], "remove.flags: must be an array of strings"),
        ("changes", "credentials_hash", None, "credentials_hash: must be a string"),
        ("bookmark", "environments", [], "environments: must be an object"),
        ("bookmark", "environments", {"x": {}}, "environments: 'x' is not an environment's id"),
        ("bookmark", "environments", {str(n): {} for n in range(MAX_ENVIRONMENTS + 1)}, "environments: more than 256"),
        (
            "bookmark",
            f"environments/{FULL.ref.id}/revision",
            "7",
            f"environments.{FULL.ref.id}.revision: {WHOLE_NUMBER}",
        ),
        ("environments", "environments", ..., "environments: must be an array of at most 256"),
        ("environments", "environments", [{}] * 257, "environments: must be an array of at most 256"),
        ("environments", "environments/0/key", ..., "environments.0.key: must be a string"),
        ("environments", "lacking", ["x"], "lacking: 'x' is not an environment's id"),
        ("environments", "complete", None, "complete: must be true or false"),
        ("goodbye", "retry_ms", None, f"retry_ms: {WHOLE_NUMBER}"),
    ],
)
def test_a_malformed_member_is_refused_with_its_path(event: str, path: str, value: Any, refusal: str) -> None:
    """Each wrong member is named, with what it should be."""
    with pytest.raises(BadMessage) as refused:
        parse_message(event, changed(event, path, value))
    assert str(refused.value) == refusal


@pytest.mark.parametrize("event", ["snapshot", "changes", "bookmark", "environments", "goodbye"])
@pytest.mark.parametrize("data", [b"", b"[]", b"null", b'{"a":NaN}', b"[" * 1000, b'{"schema":1,"flags":{'])
def test_what_is_no_message_is_refused(event: str, data: bytes) -> None:
    """Empty, of another type, no JSON, too deep: refused, and no environment is blamed."""
    with pytest.raises(BadMessage) as refused:
        parse_message(event, data)
    assert refused.value.environment_id is None


def test_a_refusal_names_the_environment_once_it_is_known() -> None:
    """So that only this environment is held back."""
    for event, path in (("changes", "to"), ("snapshot", "revision")):
        with pytest.raises(BadMessage) as refused:
            parse_message(event, changed(event, path, 100.5))
        assert refused.value.environment_id == FULL.ref.id


@pytest.mark.parametrize("kept", range(1, 8))
def test_a_snapshot_that_lacks_lines_is_refused(kept: int) -> None:
    """Sliced reading never takes a part for the whole."""
    lines = list(snapshot_lines(FULL, "start", Audience.RELAY))
    assert len(lines) == 8 - 1
    if kept < len(lines):
        with pytest.raises(BadMessage, match="the message is cut off here"):
            parse_message("snapshot", b"\n".join(lines[:kept]))
    else:
        with pytest.raises(BadMessage, match="goes on after its end"):
            parse_message("snapshot", b"\n".join([*lines, lines[-1]]))


@pytest.mark.parametrize("line", [b'"a":{}},"b":{"c":{}', b'"a":{}', b'},"limits":{', b'"flags":[]', b"]}"])
def test_a_line_cannot_break_out_of_its_place(line: bytes) -> None:
    """A line that is no list of members does not change how the others are read."""
    lines = list(snapshot_lines(FULL, "start", Audience.RELAY))
    with pytest.raises(BadMessage):
        parse_message("snapshot", b"\n".join([lines[0], line, *lines[2:]]))


@given(st.sampled_from(["snapshot", "changes", "bookmark", "environments", "goodbye"]), st.data())
def test_damaged_messages_are_read_or_refused(event: str, data: st.DataObject) -> None:
    """Bytes cut out or put in anywhere never raise anything else, and a snapshot is never read with another content."""
    good = {"snapshot": snapshot_data(FULL), "changes": encode_changes(CHANGE, Audience.RELAY)}
    raw = good.get(event, encode_bookmark(BOOKMARK, Audience.RELAY))
    start = data.draw(st.integers(0, len(raw)))
    damaged = raw[:start] + data.draw(st.binary(max_size=3)) + raw[start + data.draw(st.integers(0, 3)) :]
    try:
        message = parse_message(event, damaged)
    except BadMessage:
        return
    if isinstance(message, Snapshot):
        assert message.state.flags == FULL.flags
