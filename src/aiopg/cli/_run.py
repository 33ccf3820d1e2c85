"""`aiopg run`: a command N times, as the ranks of a group."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from aiopg.cli._team import Team, rank_environment
from aiopg.cli._venue import add_store_option, venue
from aiopg.errors import AuthenticationError, StoreUnreachableError
from aiopg.tokens import VARIABLE, new_token

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser", "count"]

BAD_ARGUMENT = 2


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "run",
        allow_abbrev=False,
        usage="aiopg run -n N [--group NAME] [--host HOST | --store URL] [--] COMMAND...",
        help="run a command N times, as the ranks of a group",
        description="Run COMMAND N times, with RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, "
        "MASTER_PORT, AIOPG_URL and AIOPG_TOKEN set, and host the store that they meet at. Each line of output is "
        "marked with its rank. When one rank fails the others are stopped, and its exit code is that of the whole. "
        "With --store the ranks meet at a store that runs already, by from_env(): MASTER_ADDR and MASTER_PORT are set "
        "only if that is one of ours over TCP.",
    )
    parser.add_argument("-n", type=count, required=True, metavar="N", help="how many processes")
    parser.add_argument("--group", metavar="NAME", help="name of the group that from_env() forms (default)")
    parser.add_argument("--host", default="127.0.0.1", help="address for the store to listen on (%(default)s)")
    add_store_option(parser)
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="COMMAND", help="program and its arguments")
    parser.set_defaults(command=run)


def count(text: str) -> int:
    """A number of processes, for argparse."""
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


async def run(options: argparse.Namespace) -> int:
    """Run the ranks to their end; returns the exit code."""
    program: list[str] = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        print("aiopg run: no command to run", file=sys.stderr)
        return BAD_ARGUMENT
    # A store that is hosted here has a token of its own: other users of this host can reach its port, and are none of
    # the ranks. Its port is 0, and it is held from here on: no other program can take it before the ranks come.
    token = None if options.store else os.environ.get(VARIABLE) or new_token()
    try:
        async with venue(options.store, options.host, token) as (url, on_end, look):
            secret = {} if token is None else {VARIABLE: token}
            places = [rank_environment(url, rank, options.n, options.group) | secret for rank in range(options.n)]
            # In a store of our own there is nobody else's group.
            group = (options.group or "default") if options.store else options.group
            return await Team("aiopg run", program, places, on_end).run(look, group)
    except (AuthenticationError, ValueError, ImportError) as error:
        print(f"aiopg run: {error}", file=sys.stderr)
        return BAD_ARGUMENT
    except StoreUnreachableError as error:
        what = "reach" if options.store else "serve on"
        print(f"aiopg run: cannot {what} {error.address}: {error.reason}", file=sys.stderr)
        return BAD_ARGUMENT
