"""The state of a whole store, put together from its rooms.

Rooms know nothing of each other, so their names are kept in a set beside them, which is only for this: who opens a
room adds it, and again while he is in it; those that nobody has added for long go, as do those that are found gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgpack
from redis.exceptions import MovedError, ResponseError

from aiopg.stores._rooms import put_together
from aiopg.stores.redis._nodes import Nodes
from aiopg.stores.redis._questions import Question
from aiopg.stores.redis._script import Script, is_not_loaded

__all__ = ["REGISTRY", "REGISTRY_SECONDS", "describe", "load", "register"]

REGISTRY = b"aiopg:{rooms}"

REGISTRY_SECONDS = 2 * 24 * 3600
"""A room goes that for so long nobody has added; a link adds its own some times in it."""


def register(nodes: Nodes, prefix: bytes) -> None:
    """Make a room known, or known still."""
    # By the calendar: links on other hosts, and those that come days later, compare what this one writes. A wrong date
    # can do no worse than leave rooms out of the status.
    node, now = nodes.of(REGISTRY), int(time.time())
    Question(node, b"ZADD", REGISTRY, b"%d" % now, prefix)
    Question(node, b"ZREMRANGEBYSCORE", REGISTRY, b"-inf", b"%d" % (now - REGISTRY_SECONDS))
    Question(node, b"EXPIRE", REGISTRY, b"%d" % REGISTRY_SECONDS)


async def load(nodes: Nodes, prefix: bytes, script: Script) -> None:
    """Give the script to the server of a room. Raises one of `BROKEN`, `ResponseError`."""
    try:
        await Question(nodes.of(prefix), *script.load).answer()
    except ResponseError as error:
        if "already exists" not in str(error):  # another program was quicker
            raise


async def describe(nodes: Nodes, script: Script, own: Iterable[bytes]) -> dict[str, object]:
    """State of these rooms, and of all that are known, as `Engine.describe` tells it. Raises as `load`."""
    mine = set(own)
    known = await _ask(nodes, REGISTRY, b"ZRANGE", REGISTRY, b"0", b"-1")
    prefixes = sorted(mine.union(known))
    told = await asyncio.gather(*[_describe(nodes, script, prefix) for prefix in prefixes])
    if gone := [prefix for prefix, state in zip(prefixes, told, strict=True) if not state and prefix not in mine]:
        Question(nodes.of(REGISTRY), b"ZREM", REGISTRY, *gone)
    return put_together(filter(None, told))


async def _ask(nodes: Nodes, prefix: bytes, *question: bytes) -> Any:
    """The answer of the server that a room is at, though it may be at another one since we looked."""
    while True:
        try:
            return await Question(nodes.of(prefix), *question).answer()
        except MovedError as error:
            nodes.note(error)


async def _describe(nodes: Nodes, script: Script, prefix: bytes) -> dict[str, Any]:
    question = script.command(prefix, b"describe")
    try:
        packed = await _ask(nodes, prefix, *question)
    except ResponseError as error:
        if not is_not_loaded(error):
            raise
        await load(nodes, prefix, script)
        packed = await _ask(nodes, prefix, *question)
    described: dict[str, Any] = (
        msgpack.unpackb(packed, strict_map_key=False, unicode_errors="surrogatepass") if packed else {}
    )
    return described
