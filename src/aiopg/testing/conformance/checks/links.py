"""The link itself."""

from __future__ import annotations

import asyncio

from aiopg.errors import AiopgError
from aiopg.testing.conformance._checks import NotAskedError, check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground


@check("a link says where its store is and what that promises, in the same way each time")
async def says_who_it_is(ground: Ground) -> None:
    first, second = await ground.link(), await ground.link()
    same(first.url, second.url, "the URLs of two links to one store")
    same(first.capabilities, second.capabilities, "what two links to one store say that it promises")
    holds(first.capabilities.payload_bytes > 0, "Capabilities.payload_bytes is not over 0")


@check("status is a dict of plain values")
async def status(ground: Ground) -> None:
    seats = await ground.seats(2)
    described = await seats[0].link.status()
    holds(type(described) is dict, f"status() is {type(described).__name__}")
    holds(is_plain(described), f"status() holds other things than plain values: {described!r:.200}")


@check("closing a link twice is fine, what is asked over it then is an error, and no task of it stays")
async def closed(ground: Ground) -> None:
    before = asyncio.all_tasks()
    link = await ground.link()
    seat = await ground.join(link, ground.name(), 0, 1)
    await link.close()
    await link.close()
    with Raises(AiopgError, "a put over a link that was closed"):
        await seat.put(0, b"x")
    with Raises(AiopgError, "a join over a link that was closed"):
        await ground.join(link, ground.name(), 0, 1)

    async def none_left() -> bool:
        return not asyncio.all_tasks() - before

    await ground.until(none_left, "that no task of a link is left that was closed")


@check("without keys, keys() raises NotImplementedError")
async def no_keys(ground: Ground) -> None:
    link = await ground.link()
    if link.capabilities.keys:
        raise NotAskedError("the store has keys")
    with Raises(NotImplementedError, "keys() of a store that has none"):
        link.keys()


def is_plain(value: object) -> bool:
    """Whether it is made of what JSON knows, bytes and tuples beside."""
    if isinstance(value, dict):
        return all(is_plain(key) and is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | bytes)
