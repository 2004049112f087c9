"""One flag as a page for people: what it is, its values, and what it does in each environment, rules numbered."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from upstream.console import words
from upstream.console.moments import shown
from upstream.console.output import Row, console, fields, plain, table

_SHOWN_RULES = 50


def show(flag: Row, configs: Sequence[Row]) -> None:
    """Print the page."""
    fields(
        [
            ("key", flag["key"]),
            ("name", flag["name"]),
            ("description", flag["description"]),
            ("type", f"{flag['type']}, {flag['kind']}"),
            ("state", _state(flag)),
            ("tags", flag["tags"]),
            ("owner", flag["owner"]),
            ("requires", [_prerequisite(each) for each in flag["prerequisites"]]),
            ("group", flag["mutual_exclusion_group"]),
            ("expires", shown(flag["expires_at"])),
            ("changed", f"{shown(flag['updated_at'])} (version {flag['version']})"),
        ]
    )
    console().print()
    titles = ["variation", "value", "name"]
    table(titles, [[each["key"], words.value(each["value"]), each.get("name") or "-"] for each in flag["variations"]])
    for config in configs:
        _show_config(config)


def _state(flag: Row) -> str:
    if flag["archived_at"] is not None:
        return f"archived {shown(flag['archived_at'])}"
    state = "active" if flag["is_active"] else "inactive: off in every environment"
    return state if flag["client_side_enabled"] else f"{state}, server side only"


def _prerequisite(found: Mapping[str, Any]) -> str:
    wanted = found.get("variations")
    return f"{found['flag']} = {' or '.join(wanted)}" if wanted else str(found["flag"])


def _show_config(config: Row) -> None:
    switch = ("on", "green") if config["enabled"] else ("off", "red")
    name, version = (f"\n{plain(config['environment'])}  ", "bold"), (f"  version {config['version']}", "dim")
    console().print(Text.assemble(name, switch, version), soft_wrap=True)
    for text in _lines(config):
        console().print(Text(f"  {plain(text)}"), soft_wrap=True)


def _lines(config: Row) -> Iterator[str]:
    for target in config["targets"]:
        yield f"targets    {words.target(target)}"
    for number, rule in enumerate(config["rules"][:_SHOWN_RULES], 1):
        yield f"{number:>2}.        {words.rule(rule)}"
    if len(config["rules"]) > _SHOWN_RULES:
        yield f"           and {len(config['rules']) - _SHOWN_RULES} more rules; --json has all of them"
    who = "otherwise" if config["rules"] or config["targets"] else "everybody"
    yield f"{who}  {words.serve(config['fallthrough'])}"
    yield f"when off   {config['off'] or 'nothing: the default in the code holds'}"
