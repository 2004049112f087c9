"""`/api/v2/docs`: the OpenAPI document as one page of HTML that works offline and runs no script."""

from collections.abc import Iterator
from html import escape
from typing import Any, Final

import orjson

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code,pre{font:14px/1.5 ui-monospace,monospace}"
    "summary{cursor:pointer;padding:.25rem 0}summary b{display:inline-block;width:4.5rem}"
    "summary i{font-style:normal;color:#666;margin-left:.75rem}details[open]{margin-bottom:1rem}"
    "pre{background:#f4f4f4;padding:.75rem;overflow:auto}"
    "td{padding:.1rem 1rem .1rem 0;vertical-align:top;overflow-wrap:anywhere}code{overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#252525}a{color:#8bf}"
    "summary i{color:#aaa}}"
)


def page(document: dict[str, Any]) -> str:
    """Return the page."""
    groups: dict[str, list[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(path, method, operation, document))
    told = {tag["name"]: tag.get("description", "") for tag in document.get("tags", ())}
    body = "".join(
        f"<h2>{escape(tag)}</h2><p>{escape(told.get(tag, ''))}</p>{''.join(entries)}" for tag, entries in groups.items()
    )
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title} {escape(document['info']['version'])}</h1>"
        f"<p>{escape(document['info'].get('description', ''))}</p>"
        f'<p>For programs: <a href="openapi.json">openapi.json</a></p>{body}</html>'
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    rows = "".join(_row(*row) for row in [*_parameters(operation), *_members(operation, document)])
    summary = operation.get("summary", "")
    text = escape(operation.get("description") or summary)
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code><i>{escape(summary)}</i></summary>"
        f"<p>{text}</p><table>{rows}</table>{''.join(_examples(operation))}</details>"
    )


def _examples(operation: dict[str, Any]) -> Iterator[str]:
    """Yield an example of the body, and of the answer to it."""
    contents = {"Body": operation.get("requestBody", {}).get("content", {})}
    for status, answer in operation["responses"].items():
        if status.startswith("2"):
            contents[f"Answer {status}"] = answer.get("content", {})
    for name, content in contents.items():
        example = content.get("application/json", {}).get("example")
        if example is not None:
            shown = orjson.dumps(example, option=orjson.OPT_INDENT_2).decode()
            yield f"<p>{name}</p><pre>{escape(shown)}</pre>"


def _row(name: str, place: str, kind: str, text: str) -> str:
    return f"<tr><td><code>{escape(name)}</code><td>{place}<td>{escape(kind)}<td>{escape(text)}"


def _parameters(operation: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for parameter in operation.get("parameters", ()):
        yield parameter["name"], parameter["in"], _kind(parameter.get("schema", {})), parameter.get("description", "")


def _members(operation: dict[str, Any], document: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    content = operation.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    schema = document["components"]["schemas"].get(reference.rpartition("/")[2], {})
    for name, member in schema.get("properties", {}).items():
        place = "body, required" if name in schema.get("required", ()) else "body"
        yield name, place, _kind(member), member.get("description", "")


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(choice) for choice in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(str(choice) for choice in schema["enum"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return str(schema.get("type", "any"))
