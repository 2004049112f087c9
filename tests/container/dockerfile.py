"""Reads the Dockerfile: its stages, and what a target ends up with. Knows only what this repository's one uses."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its continuation lines joined."""

    word: str
    rest: str


@dataclass
class Stage:
    """One stage, with what it is built upon if that is a stage too."""

    name: str
    image: str
    base: "Stage | None"
    own: list[Instruction] = field(default_factory=list)

    @property
    def instructions(self) -> list[Instruction]:
        """Return the instructions of the whole chain, those of the base first."""
        return [*(self.base.instructions if self.base else []), *self.own]

    def last(self, word: str) -> str:
        """Return what the last instruction of a kind says; that one counts."""
        return [each.rest for each in self.instructions if each.word == word][-1]

    def pairs(self, word: str) -> dict[str, str]:
        """Return all `name=value` of a kind of instruction."""
        texts = [text for each in self.instructions if each.word == word for text in shlex.split(each.rest)]
        return dict(text.split("=", 1) for text in texts)

    @property
    def entrypoint(self) -> list[str]:
        """Return the program with its fixed arguments; raises ValueError unless it is in exec form."""
        return _exec_form(self.last("ENTRYPOINT"))

    @property
    def command(self) -> list[str]:
        """Return what is run: the entry point with the default arguments."""
        given = [each.rest for each in self.instructions if each.word == "CMD"]
        return [*self.entrypoint, *(_exec_form(given[-1]) if given else [])]

    @property
    def health_check(self) -> list[str]:
        """Return the command of the health check; raises ValueError unless it is in exec form."""
        return _exec_form(self.last("HEALTHCHECK").partition("CMD ")[2])

    @property
    def copied(self) -> list[str]:
        """Return what this stage takes from the build context."""
        rests = [shlex.split(each.rest) for each in self.own if each.word == "COPY"]
        return [source for words in rests if not words[0].startswith("--from=") for source in words[:-1]]


def _exec_form(text: str) -> list[str]:
    words: list[str] = json.loads(text)
    return words


def stages(path: Path = ROOT / "Dockerfile") -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, Stage] = {}
    current: Stage | None = None
    for logical in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = logical.strip().partition(" ")
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            current = found[name] = Stage(name, image, found.get(image))
        elif word and current is not None:
            current.own.append(Instruction(word, rest.strip()))
    return found
