"""Promises about every input: no context raises, no configuration does worse than be refused, answers fit."""

from contextlib import suppress
from typing import Any

from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st

from relay.engine.evaluate import evaluate, evaluate_all, next_change_at
from relay.engine.model import Environment, ErrorCode, Evaluation, Flag, Reason, Segment
from relay.engine.parse import InvalidConfig, amend, assemble, parse_flag, parse_segment
from tests.engine.configurations import (
    contexts,
    flags,
    json_values,
    linked_flags,
    linked_segments,
    names,
    segments,
    spoiled,
)

moments = st.integers(-(10**6), 10**8)


def noted(what: str) -> None:
    """Count what a generated case led to; a case that is written down needs no counting."""
    if currently_in_test_context():
        event(what)


def accepted(flag_objects: dict[str, Any], segment_objects: dict[str, Any]) -> Environment:
    """Assemble whatever of these objects is not refused."""
    read_flags: dict[str, Flag] = {}
    read_segments: dict[str, Segment] = {}
    for key, obj in flag_objects.items():
        with suppress(InvalidConfig):
            read_flags[key] = parse_flag(key, obj)
    for key, obj in segment_objects.items():
        with suppress(InvalidConfig):
            read_segments[key] = parse_segment(key, obj)
    noted(f"{len(read_flags)} flags, {len(read_segments)} segments accepted")
    return assemble(
        environment_id="e",
        key="dev",
        project_id="p",
        project_key="p",
        revision=1,
        flags=read_flags,
        segments=read_segments,
    )


def check(flag: Flag, answer: Evaluation) -> None:
    """Assert what holds of every answer about a flag that exists."""
    noted(f"reason {answer.reason}")
    if answer.variation is None:
        assert (flag.off.variation, answer.value) == (None, None)
    else:
        assert answer.value is flag.variations[answer.variation]
        assert flag.type.admits(answer.value)
    assert (answer.error_code is not None) == (answer.reason is Reason.ERROR)
    assert (answer.rule_id is None) == (answer.rule_index is None)
    assert answer.flag_metadata == flag.metadata
    if answer.reason in {Reason.DISABLED, Reason.PREREQUISITE_FAILED, Reason.EXCLUDED, Reason.ERROR}:
        assert answer.variation == flag.off.variation


@given(
    st.fixed_dictionaries({"a": flags, "b": flags}),
    st.fixed_dictionaries({"a": segments}),
    contexts | json_values,
    moments,
)
def test_every_context_has_an_answer(
    flag_objects: dict[str, Any], segment_objects: dict[str, Any], context: Any, now_ms: int
) -> None:
    """Any JSON as context gets an answer of the flag's type for every flag, the same alone as together."""
    environment = accepted(flag_objects, segment_objects)
    answers = evaluate_all(environment, context, now_ms)

    assert answers.keys() == environment.flags.keys()
    for key, answer in answers.items():
        check(environment.flags[key], answer)
        assert evaluate(environment, key, context, now_ms) == answer
        assert (answer.error_code is ErrorCode.INVALID_CONTEXT) == (not isinstance(context, dict))


@given(json_values)
def test_any_json_is_refused_or_works(obj: Any) -> None:
    """Whatever JSON stands in the place of a flag or segment, it is refused as such or evaluated."""
    assert_refused_or_works(obj, obj, {"targetingKey": "a"})


@given(spoiled(flags), spoiled(segments), contexts)
def test_spoiled_configuration_is_refused_or_works(
    flag_object: Any, segment_object: Any, context: dict[str, Any]
) -> None:
    """A flag or segment with one wrong member is refused or evaluated like every other."""
    assert_refused_or_works(flag_object, segment_object, context)


def assert_refused_or_works(flag_object: Any, segment_object: Any, context: dict[str, Any]) -> None:
    """Assert that nothing but `InvalidConfig` comes of these objects."""
    environment = accepted({"a": flag_object}, {"a": segment_object})

    for key, answer in evaluate_all(environment, context, 0).items():
        check(environment.flags[key], answer)


@given(st.fixed_dictionaries({"a": flags}), contexts, moments)
def test_nothing_changes_before_the_next_change(
    flag_objects: dict[str, Any], context: dict[str, Any], now_ms: int
) -> None:
    """Until the moment that is announced every answer stays what it is, and for good if none is announced."""
    environment = accepted(flag_objects, {})
    step_ms = next_change_at(environment, now_ms)
    last_ms = 10**15 if step_ms is None else step_ms - 1

    assert last_ms >= now_ms
    assert evaluate_all(environment, context, last_ms) == evaluate_all(environment, context, now_ms)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(names, linked_flags, max_size=2),
            st.sets(names, max_size=1),
            st.dictionaries(names, linked_segments, max_size=2),
            st.sets(names, max_size=1),
        ),
        max_size=3,
    )
)
def test_amending_is_assembling(changes: list[tuple[dict[str, Any], set[str], dict[str, Any], set[str]]]) -> None:
    """However many revisions led to it, an environment is what its flags and segments make it."""
    environment = accepted({}, {})
    for flag_objects, gone_flags, segment_objects, gone_segments in changes:
        change = accepted(flag_objects, segment_objects)
        environment = amend(
            environment,
            revision=1,
            upsert_flags=change.flags,
            remove_flags=gone_flags,
            upsert_segments=change.segments,
            remove_segments=gone_segments,
        )

    assert environment == assemble(
        environment_id="e",
        key="dev",
        project_id="p",
        project_key="p",
        revision=1,
        flags=environment.flags,
        segments=environment.segments,
    )
