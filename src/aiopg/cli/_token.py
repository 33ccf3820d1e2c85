"""`aiopg token`: a new token for a store and its members."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from aiopg.tokens import new_token

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "token",
        allow_abbrev=False,
        help="print a new token",
        description="Print a new token of 32 random bytes. Put it into a file that only you can read, for aiopg serve "
        "--token-file, or into AIOPG_TOKEN of the store and of every member.",
    )
    parser.set_defaults(command=token)


async def token(_: argparse.Namespace) -> int:
    """Print it; returns the exit code."""
    print(new_token())
    return 0
