"""`halyard`: the command line of the upstream, and of both services together.

Reads flags, prints, and returns exit statuses: 0 after an orderly stop, 1 when a service could not be kept running or
the audit log is not as it was sealed, 2 when settings, port or directory cannot be used. What the commands do is
elsewhere.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.text import Text

from relay import logs
from relay.clock import rfc3339
from relay.errors import BadSettings
from relay.settings import RelaySettings
from relay.settings_example import render
from relay.settings_reader import Source
from relay.version import VERSION
from upstream import maintenance, up, verification
from upstream.console import app as console
from upstream.data_dir import write_private
from upstream.domain.audit_chain import parse_mark
from upstream.first_start import RELAY_KEY_FILE, Owner
from upstream.launcher import GaveUp
from upstream.settings import UpstreamSettings, load

app = console.new_program()
upstream_app = typer.Typer(
    help="The authority: projects, flags, keys, audit and the change stream.", no_args_is_help=True
)
config_app = typer.Typer(help="Settings of both services.", no_args_is_help=True)
audit_app = typer.Typer(help="The audit log as it lies in the database.", no_args_is_help=True)
app.add_typer(upstream_app, name="upstream")
upstream_app.add_typer(audit_app, name="audit")
app.add_typer(config_app, name="config")
console.add_to(app)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file with settings.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", metavar="DIRECTORY", help="Where everything is kept.")]
BackupFile = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]
Port = Annotated[
    int | None,
    typer.Option(metavar="PORT", min=0, max=65_535, show_default=False, help="Where to listen; 0 is any that is free."),
]
COLOURS = {"upstream": "cyan", "relay": "magenta", "": "yellow"}


@app.command("up")
def up_command(  # noqa: PLR0913, PLR0917 - one argument per flag
    data_dir: DataDir = None,
    upstream_port: Port = None,
    relay_port: Port = None,
    admin_port: Port = None,
    config: Config = None,
    demo: Annotated[bool, typer.Option("--demo/--no-demo", help="Make a demo project and keys to try.")] = True,  # noqa: FBT002 - typer's way
) -> None:
    """Run the upstream and one relay in this terminal."""

    async def both() -> None:
        planned = up.plan(
            config=config,
            directory=data_dir,
            upstream_port=upstream_port,
            relay_port=relay_port,
            admin_port=admin_port,
            is_demo=demo,
        )
        await up.run(planned, _show, _say)

    _run(both, asyncio.new_event_loop)


@upstream_app.command("init")
def init(
    config: Config = None,
    data_dir: DataDir = None,
    sign_in_file: Annotated[
        Path | None,
        typer.Option(
            "--sign-in-file", metavar="FILE", help="Write how to sign in to this new file, and print nothing."
        ),
    ] = None,
) -> None:
    """Make what nobody can make through the API of an empty authority: an owner who can sign in, and a relay key.

    Does nothing where both are there. The relay key is in relay.key in the data directory.
    """
    overrides = {} if data_dir is None else {"upstream.data.dir": ("--data-dir", data_dir)}

    async def made() -> None:
        settings = load(Source(config, os.environ, overrides))

        def announce(owner: Owner) -> None:
            text = f"sign in    {owner.email}   {owner.password}\nrelay key  {settings.data.dir / RELAY_KEY_FILE}\n"
            if sign_in_file is None:
                _say(text)
                return
            try:
                write_private(sign_in_file, text)
            except OSError as error:
                raise BadSettings([f"--sign-in-file: {error}"]) from error

        await up.found(settings, announce=announce)

    _run(made, asyncio.new_event_loop)


@upstream_app.command("reset-password")
def reset_password(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="Address of the member.")],
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Print a token with which a member who cannot sign in chooses a new password; works while the upstream runs."""
    overrides = {} if data_dir is None else {"upstream.data.dir": ("--data-dir", data_dir)}

    async def printed() -> None:
        token = await up.password_token(load(Source(config, os.environ, overrides)), email)
        _say(f"token      {token.text}\nuntil      {rfc3339(token.expires_at)}\nuse it at  POST /api/v2/auth/accept\n")

    _run(printed, asyncio.new_event_loop)


@upstream_app.command("serve")
def serve(
    config: Config = None,
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = None,
    port: Port = None,
) -> None:
    """Run the authority."""
    given = {
        "upstream.data.dir": ("--data-dir", data_dir),
        "upstream.serve.host": ("--host", host),
        "upstream.serve.port": ("--port", port),
    }
    overrides = {path: (flag, value) for path, (flag, value) in given.items() if value is not None}

    # What serves takes a second to import, which `halyard up` and the rest need not wait for.
    from upstream import process  # noqa: PLC0415

    async def authority() -> None:
        settings = load(Source(config, os.environ, overrides))
        logs.configure(settings.log.level, settings.log.format)
        await process.run(settings)

    _run(authority, uvloop.new_event_loop)


@audit_app.command("verify")
def verify_audit(
    config: Config = None,
    data_dir: DataDir = None,
    organisation: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only this organisation's log; by default every one.")
    ] = None,
    expect: Annotated[
        str | None, typer.Option(metavar="NUMBER:HASH", help="A mark that was noted before and must still be there.")
    ] = None,
) -> None:
    """Tell whether the audit log is as it was sealed; exit status 1 when it is not."""
    overrides = {} if data_dir is None else {"upstream.data.dir": ("--data-dir", data_dir)}
    found: list[verification.Verified] = []

    async def verified() -> None:
        try:
            mark = None if expect is None else parse_mark(expect)
        except ValueError as error:
            raise BadSettings([f"--expect: {error}"]) from error
        found.extend(await verification.verify(load(Source(config, os.environ, overrides)), organisation, mark))

    _run(verified, asyncio.new_event_loop)
    for each in found:
        _say("\n".join(verification.lines_of(each)))
    if not all(each.report.is_intact for each in found):
        raise typer.Exit(1)


@upstream_app.command("migrate")
def migrate(config: Config = None, data_dir: DataDir = None) -> None:
    """Bring the database's schema up to date, as the upstream also does when it starts."""
    _maintain(config, data_dir, maintenance.migrate)


@upstream_app.command("backup")
def backup(file: BackupFile, config: Config = None, data_dir: DataDir = None) -> None:
    """Copy the SQLite database to a new file, also while the upstream runs, and check the copy."""
    _maintain(config, data_dir, lambda settings: maintenance.back_up(settings, file))


@upstream_app.command("restore")
def restore(file: BackupFile, config: Config = None, data_dir: DataDir = None) -> None:
    """Put a backup in the place of the SQLite database, which is kept beside it. The upstream must not run."""
    _maintain(config, data_dir, lambda settings: maintenance.restore(settings, file))


@upstream_app.command("new-lineage")
def new_lineage(config: Config = None, data_dir: DataDir = None) -> None:
    """Say that the database was put back by other means (pg_restore, a snapshot), so that followers start anew."""
    _maintain(config, data_dir, maintenance.begin_new_lineage)


def _maintain(config: Path | None, directory: Path | None, work: Callable[[UpstreamSettings], str]) -> None:
    async def done() -> None:
        overrides = {} if directory is None else {"upstream.data.dir": ("--data-dir", directory)}
        _say(work(load(Source(config, os.environ, overrides))))

    _run(done, asyncio.new_event_loop)


@config_app.command("example")
def example() -> None:
    """Print every setting of both services with its default, as `config.example.toml` has them."""
    typer.echo(render({"relay": RelaySettings, "upstream": UpstreamSettings}), nl=False)


@app.command("version")
def version_command() -> None:
    """Print the version."""
    typer.echo(f"halyard {VERSION}")


def _run(work: Callable[[], Coroutine[Any, Any, None]], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Run to the end, and turn what cannot be helped into sentences and an exit status."""
    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(work())
    except BadSettings as error:
        for problem in error.problems:
            err.print(Text(f"halyard: {problem}"))
        raise typer.Exit(2) from None
    except GaveUp as error:
        err.print(Text(f"halyard: {error}"))
        raise typer.Exit(error.status) from None


def _show(name: str, line: str) -> None:
    """Print one line under the name of the service that wrote it."""
    out.print(Text.assemble((f"{name or 'halyard':<8} │ ", COLOURS[name]), line))


def _say(text: str) -> None:
    """Print in one piece, so that no line of a service comes between."""
    out.print(Text(text))
