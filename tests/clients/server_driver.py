"""Asks the published OFREP provider for Node (`@openfeature/ofrep-provider`); `node/server/ask.mjs` is the program."""

from collections.abc import Sequence

from tests.clients.cases import Case, Outcome
from tests.clients.node_program import answer
from tests.stack import Running


async def ask(stack: Running, cases: Sequence[Case]) -> list[Outcome]:
    """Return what the client's caller gets for each case."""
    question = {
        "baseUrl": stack.relay_url,
        "key": stack.demo["server_key"],
        "cases": [
            {
                "flag": case.flag,
                "type": case.type,
                "default": case.default,
                "context": case.context,
                "dates": sorted(case.dates),
            }
            for case in cases
        ],
    }
    return [Outcome(**each) for each in await answer("server", "ask.mjs", question)]
