"""Where a command works and how it prints, as options that many commands share.

A command takes one of `AtAuthority`, `AtProject` and `AtEnvironment` (the narrower, the more options), and one of
`Trying`, `Writing` and `Editing` where it changes something; `upstream.console.command` makes options of their fields.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Self

import typer

from upstream.console import completion
from upstream.console.asking import confirm
from upstream.console.client import MAX_PAGE, Answer, Client, chosen_url, entry_at, path_of
from upstream.console.failures import Exit, Failed
from upstream.console.moments import moment
from upstream.console.output import Output
from upstream.console.sign_ins import SignIn

_WHERE, _PRINTED, _WRITTEN = "Where", "Output", "Care"

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        envvar="HALYARD_URL",
        rich_help_panel=_WHERE,
        help="The authority; by default the one that you signed in at last.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        metavar="TOKEN",
        envvar="HALYARD_TOKEN",
        rich_help_panel=_WHERE,
        help="An API token, instead of signing in.",
    ),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(
        "--project",
        "-p",
        metavar="PROJECT",
        envvar="HALYARD_PROJECT",
        rich_help_panel=_WHERE,
        autocompletion=completion.projects,
        help="The project; by default the one of `halyard use`.",
    ),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        "-e",
        metavar="ENVIRONMENT",
        envvar="HALYARD_ENVIRONMENT",
        rich_help_panel=_WHERE,
        autocompletion=completion.environments,
        help="The environment; by default the one of `halyard use`.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", rich_help_panel=_PRINTED, help="Print the API's own JSON, as one document.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", rich_help_panel=_PRINTED, help="Print nothing but keys or ids.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", rich_help_panel=_WRITTEN, help="Show what would change, and change nothing.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", rich_help_panel=_WRITTEN, help="Do not ask.")]
At = Annotated[
    str | None,
    typer.Option(
        "--at", metavar="TIME", rich_help_panel=_WRITTEN, help="Do it then: 2026-11-21T06:30:00Z, or in 90m, 2h, 3d."
    ),
]
Propose = Annotated[
    str | None,
    typer.Option(
        "--propose", metavar="TITLE", rich_help_panel=_WRITTEN, help="Do not do it: propose it, for others to review."
    ),
]
ProposeTo = Annotated[
    str | None,
    typer.Option("--propose-to", metavar="ID", rich_help_panel=_WRITTEN, help="Add it to an open change request."),
]
IfVersion = Annotated[
    int | None,
    typer.Option(
        "--if-version", metavar="N", min=0, rich_help_panel=_WRITTEN, help="Only if this is still the version of it."
    ),
]


@dataclass(kw_only=True)
class Trying:
    """How to change something that belongs to no project."""

    dry_run: DryRun = False
    yes: Yes = False

    def query(self) -> dict[str, Any]:
        """Return what of this goes into a request's query."""
        return {"dry_run": True} if self.dry_run else {}

    def headers(self) -> dict[str, str]:
        """Return what of this goes into a request's headers."""
        return {}

    @property
    def is_harmless(self) -> bool:
        """Tell whether nothing is changed by this command itself."""
        return self.dry_run


@dataclass(kw_only=True)
class Reviewing(Trying):
    """How to judge something that somebody else may be changing."""

    if_version: IfVersion = None

    def headers(self) -> dict[str, str]:
        """Return what of this goes into a request's headers."""
        return _expecting(self.if_version)


@dataclass(kw_only=True)
class Applying(Trying):
    """How to do something that can wait."""

    at: At = None

    def query(self) -> dict[str, Any]:
        """Return what of this goes into a request's query."""
        return {**super().query(), "schedule_at": None if self.at is None else moment("--at", self.at)}


@dataclass(kw_only=True)
class Writing(Applying):
    """How to change something in a project."""

    propose: Propose = None
    propose_to: ProposeTo = None

    def query(self) -> dict[str, Any]:
        """Return what of this goes into a request's query."""
        ways = {"--at": self.at, "--propose": self.propose, "--propose-to": self.propose_to}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise Failed(Exit.USAGE, f"{' and '.join(given)} exclude each other.")
        return {**super().query(), "propose": self.propose, "propose_to": self.propose_to}

    @property
    def is_harmless(self) -> bool:
        """Tell whether nothing is changed by this command itself."""
        return self.dry_run or self.propose is not None or self.propose_to is not None


@dataclass(kw_only=True)
class Editing(Writing):
    """How to change something that somebody else may be changing, too."""

    if_version: IfVersion = None

    def headers(self) -> dict[str, str]:
        """Return what of this goes into a request's headers."""
        return _expecting(self.if_version)


def _expecting(version: int | None) -> dict[str, str]:
    return {} if version is None else {"If-Match": f'"v{version}"'}


@dataclass(kw_only=True)
class AtAuthority:
    """An authority: the client of it, and the way to print."""

    url: Url = None
    token: Token = None
    as_json: AsJson = False
    quiet: Quiet = False

    async def __aenter__(self) -> Self:
        self._client = Client(self.address, self.token)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.__aexit__()

    @property
    def address(self) -> str:
        """Return the URL that is meant."""
        return chosen_url(self.url)

    @property
    def kept(self) -> SignIn:
        """Return what is kept for this authority."""
        return entry_at(self.address)

    @property
    def out(self) -> Output:
        """Return the way to print."""
        return Output(self.as_json, self.quiet)

    @property
    def client(self) -> Client:
        """Return the client; open while the command runs."""
        return self._client

    async def get(self, path: str, **query: Any) -> Any:
        """Return the JSON at a path."""
        return await self._client.get(path, **query)

    async def listed(self, path: str, limit: int, **query: Any) -> dict[str, Any]:
        """Return the first entries of a list as one page."""
        return await self._client.listed(path, limit, **query)

    async def call(self, method: str, path: str, body: Any, how: Trying) -> Answer:
        """Send a change, in the way that is asked for."""
        return await self._client.call(method, path, body, query=how.query(), headers=how.headers())


@dataclass(kw_only=True)
class AtProject(AtAuthority):
    """A project of an authority."""

    project: ProjectOption = None

    @property
    def project_key(self) -> str:
        """Return the project that is meant.

        Raises:
            Failed: none is.
        """
        found = self.project or self.kept.project
        if found is None:
            sentence = "Which project? Name it with --project, or choose one for good with: halyard use PROJECT"
            raise Failed(Exit.USAGE, sentence)
        return found

    def path(self, *parts: str) -> str:
        """Return a path in the project."""
        return path_of("projects", self.project_key, *parts)

    async def environments(self) -> list[dict[str, Any]]:
        """Return the project's environments in their order."""
        page = await self._client.get(self.path("environments"), limit=MAX_PAGE)
        found: list[dict[str, Any]] = page["data"]
        return found

    async def ask_where_critical(self, how: Trying, question: str, environment: str | None = None) -> None:
        """Ask before a change in an environment that is marked critical; None: the change is in all of them.

        Raises:
            Failed: the answer is no, or nobody is there to be asked.
        """
        if how.is_harmless or how.yes:
            return
        if environment is None:
            found = await self.environments()
        else:
            found = [await self._client.get(self.path("environments", environment))]
        critical = [each["key"] for each in found if each["critical"]]
        if critical:
            confirm(f"{', '.join(critical)} is marked critical. {question}", is_agreed=False)


@dataclass(kw_only=True)
class AtEnvironment(AtProject):
    """An environment of a project."""

    environment: EnvironmentOption = None

    @property
    def environment_key(self) -> str:
        """Return the environment that is meant.

        Raises:
            Failed: none is.
        """
        found = self.environment
        # The environment that was chosen is one of the project that was chosen with it.
        if found is None and self.project in {None, self.kept.project}:
            found = self.kept.environment
        if found is None:
            remedy = "Name it with --environment, or choose one for good with: halyard use PROJECT ENVIRONMENT"
            raise Failed(Exit.USAGE, f"Which environment? {remedy}")
        return found
