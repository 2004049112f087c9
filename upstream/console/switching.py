"""`halyard toggle`, `kill`, `rollout` and `promote`: what is done to flags every day."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from upstream.console import changes, completion
from upstream.console.asking import confirm
from upstream.console.command import EVERY_DAY, command
from upstream.console.environments import Switch
from upstream.console.failures import Exit, Failed
from upstream.console.options import FlagName, Reason, given
from upstream.console.session import AtEnvironment, AtProject, Editing, Trying, Writing
from upstream.console.writes import carry_out

app = typer.Typer()


@command(app, "toggle", panel=EVERY_DAY)
async def toggle(
    at: AtEnvironment,
    how: Editing,
    flag: FlagName,
    switch: Annotated[Switch, typer.Argument(metavar="on|off", help="To which side.")],
    reason: Reason = None,
) -> None:
    """Switch a flag on or off in one environment."""
    environment = at.environment_key
    await at.ask_where_critical(how, f"Switch {flag} {switch}?", environment)
    body = given(environment=environment, enabled=switch is Switch.ON, reason=reason)
    path = at.path("flags", flag, ":toggle")
    await carry_out(at, how, "POST", path, body, done=_switched, key=flag)


@command(app, "kill", panel=EVERY_DAY)
async def kill(at: AtEnvironment, how: Writing, flag: FlagName, reason: Reason = None) -> None:
    """Switch a flag off in one environment at once, also an archived one, whatever version somebody else saw."""
    environment = at.environment_key
    await at.ask_where_critical(how, f"Kill {flag}?", environment)
    path = at.path("flags", flag, ":kill")
    await carry_out(at, how, "POST", path, given(environment=environment, reason=reason), done=_switched, key=flag)


def _switched(now: Mapping[str, Any]) -> str:
    side = "on" if now["enabled"] else "off"
    return f"{now['flag']} is {side} in {now['environment']} (version {now['version']})."


@command(app, "rollout", panel=EVERY_DAY)
async def roll_out(
    at: AtEnvironment,
    how: Editing,
    flag: FlagName,
    percent: Annotated[float, typer.Argument(metavar="PERCENT", min=0, max=100, help="From 0 to 100.")],
    variation: Annotated[
        str | None, typer.Option("--variation", metavar="KEY", help="What they get; of a boolean flag, true.")
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", metavar="ATTRIBUTE", help="What is divided; targetingKey by default.")
    ] = None,
) -> None:
    """Serve one variation to a percentage of the units where no rule matches; growing keeps everybody who was in."""
    environment = at.environment_key
    await at.ask_where_critical(how, f"Roll {flag} out to {percent:g} %?", environment)
    path = at.path("flags", flag, "environments", environment, ":rollout")

    def done(now: Mapping[str, Any]) -> str:
        note = "" if now["enabled"] else f" It is off there: halyard toggle {now['flag']} on -e {now['environment']}"
        return f"{now['flag']} is rolled out to {percent:g} % in {now['environment']} (version {now['version']}).{note}"

    body = given(percentage=percent, variation=variation, by=by)
    await carry_out(at, how, "POST", path, body, done=done, key=flag)


@command(app, "promote", panel=EVERY_DAY)
async def promote(
    at: AtProject,
    how: Editing,
    flag: FlagName,
    source: Annotated[
        str,
        typer.Option(
            "--from", metavar="ENVIRONMENT", help="Where it is as wanted.", autocompletion=completion.environments
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to", metavar="ENVIRONMENT", help="Where it shall be so.", autocompletion=completion.environments
        ),
    ],
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART", help="Only enabled, off, fallthrough, rules or targets; again for more."
        ),
    ] = None,
    reason: Reason = None,
) -> None:
    """Let a flag do in one environment what it does in another one; shows the difference, and asks."""
    path = at.path("flags", flag, ":promote")
    body = {"from": source, "to": target, **given(parts=part or None, reason=reason)}
    if not (how.is_harmless or how.yes):
        await _show_and_ask(at, path, body, f"Promote {flag} from {source} to {target}?", how)
    await carry_out(
        at,
        how,
        "POST",
        path,
        body,
        done=lambda now: f"{now['flag']} in {now['environment']} is as in {source} (version {now['version']}).",
        key=flag,
    )


async def _show_and_ask(at: AtProject, path: str, body: Mapping[str, Any], question: str, how: Editing) -> None:
    """Show what a promotion would change, and go on only with a yes."""
    tried = await at.client.call("POST", path, body, query=Trying(dry_run=True).query(), headers=how.headers())
    changes.show(changes.of_things(tried.body["changes"]), is_beside=True)
    changes.warn(at.out, tried.body)
    if not tried.body["changes"]:
        raise Failed(Exit.DONE, "There is no difference: nothing to promote.")
    confirm(question, is_agreed=False)
