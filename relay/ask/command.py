"""The two commands: reads flags, asks, prints. Exit status 0 with an answer, 2 where there is none."""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from relay.ask import text
from relay.ask.arguments import KEY_VARIABLE
from relay.ask.sources import NoAnswer, Place, answer_of_relay, environment_of, states_of_file, states_of_relay
from relay.clock import Clock, parse_rfc3339_ms
from relay.engine.evaluate import evaluate
from relay.engine.explain import Explanation, explain
from relay.engine.model import Environment, ErrorCode

_DIFFERS = "the relay itself answers otherwise, as it does for a flag that was killed at it:"


def run(options: argparse.Namespace, clock: Clock) -> int:
    """Answer, print it, and return the exit status."""
    try:
        context = _context(options.context)
        at_ms = None if options.at is None else _moment(options.at)
        if options.command == "eval" and options.snapshot is None and at_ms is None:
            return asyncio.run(_eval_at_relay(options, context))
        return asyncio.run(_local(options, context, clock.wall_ms() if at_ms is None else at_ms, is_now=at_ms is None))
    except NoAnswer as error:
        print(f"halyard-relay: {error}", file=sys.stderr)  # noqa: T201 - for whoever asked
        return 2


async def _eval_at_relay(options: argparse.Namespace, context: Any) -> int:
    members = await answer_of_relay(_place(options), options.flag, context, options.environment)
    shown = {name: value for name, value in members.items() if value is not None or name == "value"}
    _print(orjson.dumps(shown).decode() if options.json else text.answer(options.flag, shown))
    return 0


async def _local(options: argparse.Namespace, context: Any, at_ms: int, *, is_now: bool) -> int:
    place = None if options.snapshot is not None else _place(options)
    states = states_of_file(options.snapshot) if place is None else await states_of_relay(place)
    environment = environment_of(states, options.environment)
    if options.command == "explain":
        found = explain(environment, options.flag, context, at_ms)
        shown = text.explanation(environment, options.flag, found, at_ms)
        members = {**text.members_of(found.evaluation), "steps": [step.members() for step in found.steps]}
    else:
        found = Explanation(evaluate(environment, options.flag, context, at_ms), ())
        members = text.members_of(found.evaluation)
        shown = text.answer(options.flag, members)
    if found.evaluation.error_code is ErrorCode.FLAG_NOT_FOUND:
        raise _unknown(environment, options.flag)
    _print(orjson.dumps({"flag": options.flag, **members}, default=str).decode() if options.json else shown)
    if place is not None and is_now and environment.flags[options.flag].enabled:
        await _compare(place, options, context, members)
    return 0


def _unknown(environment: Environment, flag: str) -> NoAnswer:
    known = ", ".join(sorted(environment.flags)[:20]) or "none"
    return NoAnswer(f"there is no flag {flag!r} in {environment.project_key}/{environment.key}; there are: {known}")


async def _compare(place: Place, options: argparse.Namespace, context: Any, members: dict[str, Any]) -> None:
    """Say so when the relay answers otherwise than the configuration that it passes on."""
    own = await answer_of_relay(place, options.flag, context, options.environment)
    if (own["value"], own["reason"]) != (members["value"], members["reason"]):
        print(f"\n{_DIFFERS}\n{text.answer(options.flag, own)}", file=sys.stderr)  # noqa: T201 - beside the answer


def _place(options: argparse.Namespace) -> Place:
    if options.key_file is not None:
        try:
            key = options.key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoAnswer(f"{options.key_file}: {error}") from error
    else:
        key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise NoAnswer(f"name a server key of the relay with --key-file or in {KEY_VARIABLE}, or ask a --snapshot")
    return Place(options.relay.rstrip("/"), key)


def _context(given: str) -> Any:
    try:
        raw = sys.stdin.read() if given == "-" else Path(given[1:]).read_text() if given.startswith("@") else given
        context = orjson.loads(raw)
    except (OSError, UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise NoAnswer(f"--context: {error}") from error
    if not isinstance(context, dict):
        raise NoAnswer('--context: must be a JSON object such as {"targetingKey": "user-1"}')
    return context


def _moment(given: str) -> int:
    try:
        return parse_rfc3339_ms(given)
    except ValueError as error:
        raise NoAnswer(f"--at: {error}") from error


def _print(line: str) -> None:
    print(line.encode("utf-8", "backslashreplace").decode())  # noqa: T201 - the answer
