"""The OpenAPI document says everything that there is to say, and its examples are true to its schemas."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi import APIRouter, FastAPI

from tests.upstream.honest import Honest
from tests.upstream.management import Template
from upstream.api import changes, ingest
from upstream.api.document import describe

DESCRIBED = "upstream/api/described"


@pytest.fixture(scope="module")
def document(populated_database: Template) -> Any:
    """The document with the routes that only the whole upstream has."""
    app = populated_database.app
    assert app is not None
    nobody = cast("Any", None)
    relays = APIRouter(prefix="/api/v2")
    relays.include_router(ingest.router(nobody, nobody))
    relays.include_router(changes.router(nobody))
    whole = FastAPI(title=app.title, version=app.version, description=app.description)
    whole.include_router(relays)
    for route in app.routes:
        whole.router.routes.append(route)
    return describe(whole)


def operations(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path.removeprefix('/api/v2')}", operation


def test_every_operation_says_what_it_does(document: Any) -> None:
    """A summary, and a description: the docstring of the route's function."""
    for name, operation in operations(document):
        assert operation.get("summary"), f"{name} has no summary: name its function, or pass summary= to the route"
        assert operation.get("description"), f"{name} has no description: write a docstring for its function"


def test_every_success_has_a_schema_and_an_example(document: Any) -> None:
    """Each operation's answer is a named schema with an example that fulfils it, or a 204 without a body."""
    checker = Honest(document)
    for name, operation in operations(document):
        successes = {code: each for code, each in operation["responses"].items() if code.startswith("2")}
        assert successes, name
        for code, response in successes.items():
            if code == "204":
                assert "content" not in response, name
                continue
            content = response.get("content", {}).get("application/json", {})
            row = f'add the row "{name}": "SchemaName" to ANSWERS in {DESCRIBED}/answers.py (None for a 204)'
            assert content.get("schema"), f"{name} → {code} is not described: {row}"
            assert "example" in content, f"{name} → {code} has no example: {row}"
            assert checker.faults(content["schema"], content["example"]) == [], (name, code)


def test_every_refusal_is_the_shared_problem(document: Any) -> None:
    """4XX and 5XX of every operation refer to one description."""
    for name, operation in operations(document):
        for code in ("4XX", "5XX"):
            assert operation["responses"][code] == {"$ref": "#/components/responses/Problem"}, name


def test_every_body_has_an_example(document: Any) -> None:
    """Each JSON body has one that fulfils its schema."""
    checker = Honest(document)
    for name, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is not None:
            model = content["schema"]["$ref"].rpartition("/")[2]
            assert "example" in content, f'{name}: add an example of "{model}" to BODIES in {DESCRIBED}/bodies.py'
            assert checker.faults(content["schema"], content["example"]) == [], name


def test_every_schema_of_an_answer_has_an_example_that_fulfils_it(document: Any) -> None:
    """Also those that stand inside others."""
    checker = Honest(document)
    shown = {name: each for name, each in document["components"]["schemas"].items() if "examples" in each}
    assert len(shown) > 25
    for name, schema in shown.items():
        for example in schema["examples"]:
            assert checker.faults(schema, example) == [], name


def test_every_parameter_is_described(document: Any) -> None:
    """In paths, queries and headers alike."""
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{name}: describe {parameter['in']} parameter {parameter['name']!r}"


def test_tags_and_credentials_are_described(document: Any) -> None:
    """Every tag that an operation has, each once; and how to send a credential."""
    tags = [each["name"] for each in document["tags"]]
    assert len(tags) == len(set(tags))
    assert all(each["description"] for each in document["tags"])
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert used == set(tags), f"describe them in TAGS in {DESCRIBED}/answers.py"
    schemes = document["components"]["securitySchemes"]
    assert {name: (each["type"], bool(each["description"])) for name, each in schemes.items()} == {
        "bearer": ("http", True),
        "key": ("apiKey", True),
    }
