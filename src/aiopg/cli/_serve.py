"""`aiopg serve`: a store until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aiopg.errors import AddressInUseError, StoreUnreachableError
from aiopg.server import StoreServer

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]

BAD_ADDRESS = 2
"""Exit code for an address that cannot be served on; argparse uses it for other bad arguments."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "serve",
        help="serve a store that any number of groups share",
        description="Serve a store. The first line of the output is its address, for AsyncStatelessGroup.connect(). "
        "It holds everything in memory and ends cleanly on SIGINT or SIGTERM.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--unix", metavar="PATH", help="listen on this unix socket instead")
    parser.set_defaults(command=serve)


async def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    # The path goes into a URL, which knows no working directory.
    path = None if options.unix is None else str(Path.cwd() / options.unix)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            server = StoreServer(options.host, options.port, path=path)
            await server.start()
        except (AddressInUseError, StoreUnreachableError) as error:
            return _refuse(f"cannot serve on {error.address}: {error.reason}")
        except ValueError as error:
            return _refuse(str(error))
        try:
            print(server.address, flush=True)
            async for _ in signals:
                break
        finally:
            await server.close()
    return 0


def _refuse(why: str) -> int:
    print(f"aiopg serve: {why}", file=sys.stderr)
    return BAD_ADDRESS
