"""Whatever people do, the published bytes, their hash and the change log agree with what is stored."""

import tempfile
from operator import methodcaller
from pathlib import Path
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from relay.engine.parse import parse_flag, parse_segment
from relay.protocol.hashing import canonical
from relay.protocol.state import State, advance, build_state
from relay.protocol.strict_json import loads
from tests.upstream.databases import copy_of
from tests.upstream.rig import Rig, make_template
from upstream.domain.access_commands import (
    CreateKey,
)
from upstream.domain.commands import (
    ArchiveFlag,
    Command,
    ConfigFields,
    CreateEnvironment,
    CreateFlag,
    CreateSegment,
    DeleteEnvironment,
    DeleteFlag,
    DeleteSegment,
    KillFlag,
    RestoreFlag,
    ToggleFlag,
    UpdateConfig,
    UpdateFlag,
    UpdateProject,
    UpdateSegment,
)
from upstream.domain.entities import CredentialKind, Segment
from upstream.domain.errors import Rejected
from upstream.domain.snapshot import flag_object, segment_object
from upstream.storage import tables
from upstream.storage.history import read_changes
from upstream.storage.records import columns, every, made

KEYS = st.sampled_from(["a", "b", "c"])
ENVIRONMENTS = st.sampled_from(["development", "production", "qa"])
VALUES = st.sampled_from(["", "red", "blue", "\u00e9\U0001f6a9"])
CONDITIONS = st.recursive(
    st.sampled_from([{"attribute": "plan", "op": "eq", "value": "pro"}, {"segment": "s"}, {"segment": "t"}]),
    lambda inner: (
        st.builds(lambda parts: {"any": parts}, st.lists(inner, max_size=2)) | st.builds(lambda c: {"not": c}, inner)
    ),
    max_leaves=4,
)
FIELDS = st.builds(
    lambda enabled, rules, off: ConfigFields(enabled=enabled, rules=rules, off_value=off),
    st.booleans(),
    st.lists(st.builds(lambda when, value: {"when": when, "value": value}, CONDITIONS, VALUES), max_size=2),
    VALUES,
)


def of_flag(make: Any, **more: Any) -> st.SearchStrategy[Command]:
    return st.builds(make, project=st.just("shop"), flag=KEYS, **more)


COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(CreateFlag, project=st.just("shop"), key=KEYS, default_value=VALUES, config=FIELDS),
    of_flag(UpdateFlag, name=VALUES, tags=st.just(["t"]), is_active=st.booleans()),
    of_flag(UpdateFlag, prerequisites=st.lists(KEYS, max_size=2, unique=True)),
    of_flag(UpdateConfig, environment=ENVIRONMENTS, fields=FIELDS),
    of_flag(ToggleFlag, environment=ENVIRONMENTS),
    of_flag(KillFlag, environment=ENVIRONMENTS),
    of_flag(ArchiveFlag, force=st.booleans()),
    of_flag(RestoreFlag),
    of_flag(DeleteFlag, force=st.booleans()),
    st.builds(CreateSegment, project=st.just("shop"), key=st.sampled_from(["s", "t"]), when=st.none() | CONDITIONS),
    st.builds(UpdateSegment, project=st.just("shop"), segment=st.just("s"), include=st.lists(VALUES, max_size=2)),
    st.builds(DeleteSegment, project=st.just("shop"), segment=st.sampled_from(["s", "t"]), force=st.booleans()),
    st.just(CreateEnvironment(project="shop", key="qa")),
    st.just(DeleteEnvironment(project="shop", environment="qa")),
    st.just(CreateKey(kind=CredentialKind.RELAY)),
    st.builds(UpdateProject, project=st.just("shop"), mau_limit=st.none() | st.integers(0, 3)),
)


class Followers:
    """One follower for each environment, led by the change log alone."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._states: dict[str, State] = {}

    def check(self) -> None:
        """Prove that each follower arrives at what is stored, and that this is what the entities say."""
        rig = self._rig
        project = rig.project
        environments = rig.view(lambda view: view.environments(project.id))
        for environment in environments:
            stored = rig.state(environment.key)
            scratch = build_state(
                stored.ref,
                stored.epoch,
                stored.revision,
                flags=stored.flags,
                segments=stored.segments,
                credentials=stored.credentials,
                limits=stored.limits,
                secrets=stored.secrets,
            )
            assert scratch == stored
            assert self._followed(environment.id, stored) == stored
            check_content(rig, project.id, environment.id, stored)

    def _followed(self, environment_id: str, stored: State) -> State:
        state = self._states.get(environment_id, stored)
        changes = self._rig.look(lambda connection: read_changes(connection, environment_id, state.revision))
        assert changes is not None
        assert [change.revision for change in changes] == list(range(state.revision + 1, stored.revision + 1))
        for change in changes:
            state = advance(state, change)
        self._states[environment_id] = state
        return state


def check_content(rig: Rig, project_id: str, environment_id: str, stored: State) -> None:
    """Prove that the published bytes are the entities rendered anew, and that the engine accepts them."""
    flags = rig.view(lambda view: view.flags(project_id))
    expected = {}
    for flag in flags:
        config = rig.view(methodcaller("config", flag.id, environment_id))
        if (shown := flag_object(flag, config, version_of(stored.flags.get(flag.key)))) is not None:
            expected[flag.key] = canonical(shown)
    assert stored.flags == expected
    segments = rig.look(lambda connection: every(connection, Segment, project_id=project_id))
    assert stored.segments == {
        segment.key: canonical(segment_object(segment, version_of(stored.segments.get(segment.key))))
        for segment in segments
    }
    for key, raw in stored.flags.items():
        parse_flag(key, loads(raw))
    for key, raw in stored.segments.items():
        parse_segment(key, loads(raw))


def version_of(raw: bytes | None) -> int:
    return 0 if raw is None else int(loads(raw)["version"])


TEMPLATE = make_template(Path(tempfile.mkdtemp(prefix="halyard-test-")) / "halyard.db")


@settings(max_examples=settings().max_examples // 5)
@given(st.lists(COMMANDS, min_size=1, max_size=12))
def test_incremental_hashes_equal_those_from_scratch(commands: list[Command]) -> None:
    """After any sequence of commands, hash, bytes and change log are those that computing anew gives."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(copy_of(TEMPLATE, Path(folder)))
        followers = Followers(rig)
        followers.check()
        for command in (CreateFlag(project="shop", key="a", default_value=""), *commands):
            try:
                done = rig.do(command)
            except Rejected:
                event("refused")
                continue
            event("published" if done.revisions else "invisible")
            followers.check()
        rig.close()


def test_rows_read_back_are_the_entities_that_were_written(tmp_path: Path) -> None:
    """Reading with the table's own columns gives equal entities (no field is lost or reordered)."""
    rig = Rig(copy_of(TEMPLATE, tmp_path))
    made_segment = rig.make(CreateSegment(project="shop", key="s", include=["u"], when={"all": []}))
    rows = rig.look(lambda connection: connection.execute(select(*columns(Segment))).all())
    assert [made(Segment, row) for row in rows] == [made_segment]
    assert tables.segments.name == "segments"
    rig.close()
