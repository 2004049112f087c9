"""The engine's source stays in pieces that can be read whole."""

import ast
from pathlib import Path

import pytest

import relay.engine

LONGEST = 70
FILES = sorted(Path(relay.engine.__path__[0]).rglob("*.py"))


def functions(source: str) -> dict[str, int]:
    """Return the number of lines of each function, decorators and docstring included, by name and first line."""
    return {
        f"{node.name}, line {node.lineno}": (node.end_lineno or 0)
        - min([node.lineno, *(each.lineno for each in node.decorator_list)])
        + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_lines_are_counted() -> None:
    """From the decorator to the last line, in classes and in functions too."""
    assert functions("@d\ndef f():\n    def g():\n        return 1\n    return g\n") == {"f, line 2": 5, "g, line 3": 2}
    assert functions("class C:\n    async def m(self): ...\n") == {"m, line 2": 1}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_function_is_too_long(file: Path) -> None:
    """Seventy lines at most."""
    lines = functions(file.read_text(encoding="utf-8"))
    assert {name: count for name, count in lines.items() if count > LONGEST} == {}


def test_the_whole_engine_is_looked_at() -> None:
    """The files are found where they are imported from."""
    assert {"evaluate.py", "program.py", "source.py", "parse.py"} <= {file.name for file in FILES}
