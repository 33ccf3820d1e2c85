"""`aiopg serve`: a store until it is told to stop."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from aiopg.errors import AddressInUseError, JournalCorruptError, StoreUnreachableError, UsageError
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
        "It holds everything in memory, and with --journal on disk too, and ends cleanly on SIGINT or SIGTERM.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--unix", metavar="PATH", help="listen on this unix socket instead")
    parser.add_argument("--journal", metavar="DIR", help="keep a journal there, and go on where the last one was")
    parser.add_argument(
        "--fsync",
        choices=("batch", "off"),
        default="batch",
        help="what the journal survives: a power cut (batch, the default), or only the end of this process (off)",
    )
    parser.set_defaults(command=serve)


async def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    # The path goes into a URL, which knows no working directory.
    path = None if options.unix is None else str(Path.cwd() / options.unix)
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        try:
            server = StoreServer(options.host, options.port, path=path, journal=options.journal, fsync=options.fsync)
            await server.start()
        except (AddressInUseError, StoreUnreachableError) as error:
            return _refuse(f"cannot serve on {error.address}: {error.reason}")
        except (ValueError, UsageError, JournalCorruptError, OSError) as error:
            return _refuse(str(error))
        try:
            print(server.address, flush=True)
            return await _wait_for_the_end(server, signals)
        finally:
            await server.close()


async def _wait_for_the_end(server: StoreServer, signals: AsyncIterator[signal.Signals]) -> int:
    """Until a signal comes (0), or the journal cannot be written any more (1)."""
    code = 0
    async with anyio.create_task_group() as tasks:

        async def fail() -> None:
            nonlocal code
            await server.failed.wait()
            print("aiopg serve: the journal cannot be written any more", file=sys.stderr)
            code = 1
            tasks.cancel_scope.cancel()

        tasks.start_soon(fail)
        async for _ in signals:
            break
        tasks.cancel_scope.cancel()
    return code


def _refuse(why: str) -> int:
    print(f"aiopg serve: {why}", file=sys.stderr)
    return BAD_ADDRESS
