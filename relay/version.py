"""The version of the installed distribution, named once in pyproject.toml."""

from importlib.metadata import version

VERSION = version("halyard")
