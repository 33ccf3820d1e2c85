"""The command line: which subcommand, with what, on which event loop."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from aiopg import __version__
from aiopg.cli import _certs, _demo, _run, _serve, _status, _token, _top, _trace, doctor
from aiopg.loops import fast_loop

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `aiopg` and return its exit code.

    Args:
        arguments: what follows the command's name; `sys.argv[1:]` if not given.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        # uvloop where it is installed: the same programs, faster.
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            code: int = runner.run(options.command(options))
            return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # so early that the command did not yet listen for it
    except BrokenPipeError:
        # Whoever read our output has gone. What Python still holds of it must not fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiopg",
        description="Process groups for asyncio programs.",
        allow_abbrev=False,  # a secret behind --token would be taken for the file of --token-file, and shown
    )
    parser.add_argument("--version", action="version", version=f"aiopg {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for module in (_serve, _run, _status, _top, _trace, doctor, _demo, _token, _certs):
        module.add_parser(commands)
    return parser
