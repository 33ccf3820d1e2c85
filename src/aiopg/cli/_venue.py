"""Where the ranks of `aiopg run` and `aiopg demo` meet: at a store that is hosted here, or at one that runs already."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

from aiopg.cli._joining import Look
from aiopg.server import StoreServer
from aiopg.stores import open_link

__all__ = ["Venue", "add_store_option", "venue"]

REACH_SECONDS = 30.0
"""How long a store that runs already may take to answer."""


class Venue(NamedTuple):
    """A store, and what it is told of the processes that meet there."""

    url: str
    on_end: Callable[[int, str], object]
    """Called with the process id of a rank that ended, and how."""
    look: Look
    """Asks the store what is in it."""


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """`--store URL`."""
    parser.add_argument(
        "--store",
        metavar="URL",
        help="have the ranks meet at this store, which runs already (aiopg://, unix://, redis://, etcd://); "
        "else one is hosted here",
    )


@asynccontextmanager
async def venue(url: str | None, host: str = "127.0.0.1", token: str | None = None) -> AsyncIterator[Venue]:
    """The store at `url`; without one, a store on `host` that asks for `token` and ends with the block.

    Raises:
        ValueError: the URL is not one of a store, or is of one in the memory of a process.
        ImportError: what that kind of store takes is not installed; the error says how to install it.
        AuthenticationError, StoreUnreachableError: what is said by the store of that URL, or nobody says anything.
        StoreUnreachableError: the host is not one to listen on.
    """
    if url is None:
        async with StoreServer(host, 0, token=token) as server:
            yield Venue(server.address, server.process_ended, partial(_describe, server))
        return
    if url.startswith("memory:"):
        raise ValueError(f"the ranks are processes, and {url} is within one: name a store that all can reach")
    link = await open_link(url, timeout=REACH_SECONDS)
    try:
        yield Venue(url, lambda pid, how: None, link.status)
    finally:
        await link.close()


async def _describe(server: StoreServer) -> dict[str, object]:
    return server.describe()
