"""How flags are laid out in chunks: whatever changes, all of them stand somewhere, and little is made anew."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from relay.engine.chunks import CHUNK, CHUNK_PARTS
from relay.engine.environment import amend
from relay.engine.parse import parse_flag
from relay.engine.program import Program, build, build_steps, compile_steps
from tests.engine.build import clause, environment, flag, ruled

KEYS = [f"f{number}" for number in range(3 * CHUNK)]
KINDS: list[dict[str, Any] | None] = [
    None,
    flag(),
    flag(client_side=False),
    ruled({"any": [clause("a", "contains", *"abcdefghij") for _ in range(5)]}),
]
edits = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(KINDS), max_size=40)


def compiled(program: Program) -> Program:
    for _ in compile_steps(program):
        pass
    return program


def edited(program: Program, changes: dict[str, Any]) -> Program:
    upsert = {key: parse_flag(key, obj) for key, obj in changes.items() if obj is not None}
    gone = [key for key, obj in changes.items() if obj is None]
    return build(amend(program.environment, revision=2, upsert_flags=upsert, remove_flags=gone), program)


@given(st.lists(edits, min_size=1, max_size=4))
def test_every_flag_stands_in_one_chunk_of_its_side(history: list[dict[str, Any]]) -> None:
    """After any changes, as it is now, within the bounds; and a chunk in which nothing changed is the very same."""
    program = compiled(build(environment({key: flag() for key in KEYS[:CHUNK]})))
    for changes in history:
        before, program = program, edited(program, changes)
        flags = program.environment.flags
        for chunks, is_public in ((program.public, True), (program.private, False)):
            found = [each for chunk in chunks for each in chunk.flags]
            assert {each.key: each for each in found} == {
                key: each for key, each in flags.items() if each.client_side is is_public
            }
            assert len(found) == len({each.key for each in found})
            assert all(flags[each.key] is each for each in found)
        for chunk in program.chunks:
            assert len(chunk.flags) <= CHUNK
            assert chunk.weight <= CHUNK_PARTS or len(chunk.flags) == 1
        after = {chunk.keys: chunk for chunk in program.chunks}
        untouched = [chunk for chunk in before.chunks if changes.keys().isdisjoint(chunk.keys)]
        assert all(after.get(chunk.keys, chunk) is chunk for chunk in untouched)
        compiled(program)


def test_one_changed_flag_of_thousands_makes_one_chunk_anew() -> None:
    """All others keep their functions, and laying them out takes no step for each of them."""
    before = compiled(build(environment({f"f{number}": flag() for number in range(1_000)})))
    upsert = {"f77": parse_flag("f77", flag(enabled=False))}
    steps = build_steps(amend(before.environment, revision=2, upsert_flags=upsert), before)
    pauses = 0
    while True:
        try:
            next(steps)
            pauses += 1
        except StopIteration as done:
            after: Program = done.value
            break
    assert sum(chunk.function is None for chunk in after.chunks) == 1
    assert pauses < 10


def test_thousands_of_new_flags_are_laid_out_in_steps() -> None:
    """Every few chunks there is a pause, and what comes out is what comes out at once."""
    held = environment({f"f{number}": flag() for number in range(1_000)})
    assert sum(1 for _ in build_steps(held)) > 1_000 / CHUNK
    whole = build(held)
    assert [chunk.keys for chunk in whole.public] == [
        tuple(f"f{number}" for number in range(start, min(start + CHUNK, 1_000))) for start in range(0, 1_000, CHUNK)
    ]
