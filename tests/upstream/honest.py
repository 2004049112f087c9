"""Holds every answer against the OpenAPI document: its status is documented, its media type, and its whole body.

A failure here means that a route answers something that the document does not say. Describe it in
`upstream/api/described`: the row of the operation in `answers.py`, the members of the thing in `things.py`,
`flag_parts.py`, `people.py` or `reports.py`.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import orjson
from fastapi import FastAPI

WHERE = "describe it in upstream/api/described (a row in answers.py; the members in the modules beside it)"


class Honest:
    """The operations of one document, with compiled schemas."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._validators: dict[str, Any] = {}
        self._operations = [
            (
                method.upper(),
                re.compile(re.sub(r"\{[^}]+\}", "[^/]+", re.escape(path).replace(r"\{", "{").replace(r"\}", "}"))),
                path,
                operation,
            )
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        ]

    def check(self, method: str, path: str, status: int, content_type: str, raw: bytes) -> None:
        """Fail unless the document describes this answer; a path that is no operation may be refused only."""
        for known, pattern, template, operation in self._operations:
            if known == method and pattern.fullmatch(path):
                self._check(f"{method} {template} → {status}", operation, status, content_type, raw)
                return

    def _check(self, what: str, operation: Mapping[str, Any], status: int, content_type: str, raw: bytes) -> None:
        responses = operation["responses"]
        response = responses.get(str(status)) or responses.get(f"{status // 100}XX")
        assert response is not None, f"{what} is not documented; {WHERE}"
        if "$ref" in response:
            response = self.document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        content = response.get("content", {})
        if not content:
            assert not raw, f"{what} has a body, which is not documented; {WHERE}: {raw[:200]!r}"
            return
        assert content_type.partition(";")[0] in content, f"{what} is {content_type}, not one of {list(content)}"
        faults = self.faults(content[content_type.partition(";")[0]]["schema"], orjson.loads(raw))
        assert not faults, f"{what} is not as documented; {WHERE}: {faults}"

    def faults(self, schema: Mapping[str, Any], value: Any) -> list[str]:
        """Return what keeps a value from fulfilling a schema of the document."""
        key = orjson.dumps(schema).decode()
        if key not in self._validators:
            whole = {**schema, "components": self.document["components"]}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        return [f"{list(error.instance_path)}: {error.message}" for error in self._validators[key].iter_errors(value)]


@cache
def honest(app: FastAPI) -> Honest:
    """Return the document of an app, to hold its answers against; made once."""
    return Honest(app.openapi())
