"""The command `aiopg`: serve a store, run N processes as a group, show what a group does."""

from aiopg.cli._main import main

__all__ = ["main"]
