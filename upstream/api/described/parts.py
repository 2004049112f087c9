"""The small words of which the schemas of answers are made.

A `record` lists every member that an answer has and allows no other, so that what an answer shows and what the
document says cannot drift apart: the tests hold every answer that they get against its schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Described:
    """A named schema and a true example of it."""

    schema: Schema
    example: Any


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
SWITCH: Schema = {"type": "boolean"}
TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "string", "format": "uuid"}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}


def ref(name: str) -> Schema:
    """Return a reference to a named schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Return a schema that null fulfils, too."""
    return {"anyOf": [schema, {"type": "null"}]}


def list_of(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def map_of(schema: Schema) -> Schema:
    """Return the schema of an object whose members all look like this."""
    return {"type": "object", "additionalProperties": schema}


def one_of(*words: str) -> Schema:
    """Return the schema of a text that is one of these."""
    return {"type": "string", "enum": list(words)}


def noted(schema: Schema, description: str) -> Schema:
    """Return a schema with a sentence about it."""
    return {**schema, "description": description}


def record(
    members: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, description: str = ""
) -> Schema:
    """Return the schema of an object with exactly these members, and perhaps the optional ones."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {**members, **(optional or {})},
        "required": list(members),
        "additionalProperties": False,
    }
    return {**schema, "description": description} if description else schema


def page_of(name: str, example: Any, more: Mapping[str, Schema] | None = None, **shown: Any) -> Described:
    """Return the page of a list of a named schema."""
    members = {"data": list_of(ref(name)), "total": NUMBER, "limit": NUMBER, "offset": NUMBER, "has_more": SWITCH}
    page = {"data": [example], "total": 1, "limit": 50, "offset": 0, "has_more": False, **shown}
    return Described(record({**members, **(more or {})}), page)
