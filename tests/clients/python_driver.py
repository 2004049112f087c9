"""Asks the published OFREP provider for Python (`openfeature-provider-ofrep`), as an application would."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails

from tests.clients.cases import Case, Outcome, Type
from tests.stack import Running

TARGETING_KEY = "targetingKey"


async def ask(stack: Running, cases: Sequence[Case]) -> list[Outcome]:
    """Return what the client's caller gets for each case; the client is synchronous, so a thread calls it."""
    return await asyncio.to_thread(_ask, stack.relay_url, stack.demo["server_key"], cases)


def _ask(base_url: str, key: str, cases: Sequence[Case]) -> list[Outcome]:
    provider = OFREPProvider(base_url, headers_factory=lambda: {"Authorization": f"Bearer {key}"})
    domain = uuid4().hex
    api.set_provider_and_wait(provider, domain)
    client = api.get_client(domain)
    methods: Mapping[Type, Callable[..., FlagEvaluationDetails[Any]]] = {
        Type.BOOLEAN: client.get_boolean_details,
        Type.STRING: client.get_string_details,
        Type.INTEGER: client.get_integer_details,
        Type.FLOAT: client.get_float_details,
        Type.OBJECT: client.get_object_details,
    }
    try:
        return [_outcome(methods[case.type](case.flag, case.default, _context(case))) for case in cases]
    finally:
        provider.session.close()


def _context(case: Case) -> EvaluationContext | None:
    if case.context is None:
        return None
    attributes = {
        name: datetime.fromisoformat(value) if name in case.dates else value
        for name, value in case.context.items()
        if name != TARGETING_KEY
    }
    return EvaluationContext(case.context.get(TARGETING_KEY), attributes)


def _outcome(details: FlagEvaluationDetails[Any]) -> Outcome:
    return Outcome(
        value=details.value,
        variant=details.variant,
        reason=None if details.reason is None else str(details.reason),
        error_code=None if details.error_code is None else str(details.error_code),
        metadata=dict(details.flag_metadata),
    )
