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
from aiopg.observe.http import HttpAddress, SidePort
from aiopg.server import StoreServer
from aiopg.server.collecting import collect_seldom
from aiopg.server.descriptors import raise_limit
from aiopg.server.scheduling import behind_members
from aiopg.tls import Tls
from aiopg.tokens import read_tokens

if TYPE_CHECKING:
    from argparse import _SubParsersAction

__all__ = ["add_parser"]

BAD_ADDRESS = 2
"""Exit code for an address that cannot be served on; argparse uses it for other bad arguments."""


def add_parser(commands: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to those of `aiopg`."""
    parser = commands.add_parser(
        "serve",
        allow_abbrev=False,
        help="serve a store that any number of groups share",
        description="Serve a store. The first line of the output is its address, for AsyncStatelessGroup.connect(). "
        "It holds everything in memory, and with --journal on disk too, and ends cleanly on SIGINT or SIGTERM.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    parser.add_argument("--unix", metavar="PATH", help="listen on this unix socket instead")
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="ask members for a token of this file (one a line; SIGHUP reads it again); else for that of AIOPG_TOKEN",
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="serve with TLS, and this certificate (PEM)")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key (PEM)")
    parser.add_argument("--tls-ca", metavar="FILE", help="ask members for a certificate of this authority (PEM)")
    parser.add_argument(
        "--insecure", action="store_true", help="serve without token where other hosts can reach the address"
    )
    parser.add_argument("--journal", metavar="DIR", help="keep a journal there, and go on where the last one was")
    parser.add_argument(
        "--fsync",
        choices=("batch", "off"),
        default="batch",
        help="what the journal survives: a power cut (batch, the default), or only the end of this process (off)",
    )
    parser.add_argument(
        "--http",
        metavar="[HOST:]PORT",
        help="serve a page that shows who waits for whom, and metrics, on this address too (on 127.0.0.1 by default; "
        "port 0 takes a free one); its URL is the second line of the output. Who looks must know a token as members do",
    )
    parser.set_defaults(command=serve)


async def serve(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    raise_limit()
    collect_seldom()
    # The path goes into a URL, which knows no working directory.
    path = None if options.unix is None else str(Path.cwd() / options.unix)
    heeded = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if options.token_file is not None else [])
    with anyio.open_signal_receiver(*heeded) as signals, behind_members():
        try:
            tokens = None if options.token_file is None else read_tokens(options.token_file)
            named = any((options.tls_cert, options.tls_key, options.tls_ca))
            tls = Tls(options.tls_cert, options.tls_key, options.tls_ca) if named else None
            server = StoreServer(
                options.host, options.port, path=path, token=tokens, insecure=options.insecure, ssl=tls,
                journal=options.journal, fsync=options.fsync,
            )  # fmt: skip
            side = None
            if options.http is not None:
                address = HttpAddress.parse(options.http)
                side = SidePort(server, address, token=tokens, insecure=options.insecure, ssl=tls)
                await side.start()
            await server.start()
        except (AddressInUseError, StoreUnreachableError) as error:
            return _refuse(f"cannot serve on {error.address}: {error.reason}")
        except (ValueError, UsageError, JournalCorruptError, OSError) as error:
            return _refuse(str(error))
        try:
            print(server.address, flush=True)
            if side is not None:
                print(side.url, flush=True)
            return await _wait_for_the_end(server, side, signals, options.token_file)
        finally:
            await server.close()


async def _wait_for_the_end(
    server: StoreServer, side: SidePort | None, signals: AsyncIterator[signal.Signals], token_file: str | None
) -> int:
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
        if side is not None:
            tasks.start_soon(side.run)
        async for signum in signals:
            if signum != signal.SIGHUP:
                break
            assert token_file is not None
            _read_tokens_again(server, side, token_file)
        tasks.cancel_scope.cancel()
    return code


def _read_tokens_again(server: StoreServer, side: SidePort | None, token_file: str) -> None:
    """The tokens of the file from here on; those from before where it is not in order."""
    try:
        tokens = read_tokens(token_file)
        server.accept_tokens(tokens)
        if side is not None:
            side.accept_tokens(tokens)
        print(f"aiopg serve: {len(tokens)} tokens from {token_file} are accepted from here on", file=sys.stderr)
    except (ValueError, OSError) as error:
        print(f"aiopg serve: the tokens stay as they were: {error}", file=sys.stderr)


def _refuse(why: str) -> int:
    print(f"aiopg serve: {why}", file=sys.stderr)
    return BAD_ADDRESS
