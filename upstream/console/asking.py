"""Asks before what cannot be taken back, and before what happens in an environment marked critical."""

import sys

import typer

from upstream.console.failures import Exit, Failed


def is_interactive() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty()


def confirm(question: str, *, is_agreed: bool) -> None:
    """Go on only with a yes.

    Args:
        question: what is about to happen.
        is_agreed: `--yes` was given, so nobody is asked.

    Raises:
        Failed: nobody is there to be asked, or they do not want it.
    """
    if is_agreed:
        return
    if not is_interactive():
        raise Failed(Exit.USAGE, f"{question} Nobody is here to be asked: add --yes if that is wanted.")
    if not typer.confirm(question, err=True):
        raise Failed(Exit.REFUSED, "Nothing was changed.")


def password(prompt: str, *, option: str, is_new: bool = False) -> str:
    """Return a password that is typed unseen; a new one twice.

    Raises:
        Failed: nobody is there to type it.
    """
    if not is_interactive():
        raise Failed(Exit.USAGE, f"Nobody is here to be asked for the password: send it to stdin, with {option}.")
    typed: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=is_new, err=True)
    return typed
