"""Whose keys they are, and for how long: sessions, times to live, and the keys of a group."""

from __future__ import annotations

import asyncio

from aiopg.errors import AiopgError
from aiopg.keys import AsyncStore
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import Raises, holds, same
from aiopg.testing.conformance._ground import Ground
from aiopg.testing.conformance._keys import GroupKeys

TTL = 0.1


@check(
    "a key with a ttl is gone when that is over, not before; a later set counts anew, add and append do not", keys=True
)
async def ttl(ground: Ground) -> None:
    store = await ground.store()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await store.multi_set({"short": "1", "anew": "1", "counted": "1"}, ttl=TTL)
    await store.set("anew", "2")
    await store.add("counted", 1)
    there = await store.check(["short", "anew", "counted"])
    holds(there or loop.time() - began > TTL, "a key was gone before its ttl was over")
    await asyncio.sleep(TTL)

    async def gone() -> bool:
        return await store.list_keys() == ["anew"]

    await ground.until(gone, "that the keys whose ttl is over are gone, and the one that was set anew is there")
    same(await store.compare_set("short", None, "new"), (True, b"new"), "compare_set of a key whose ttl is over")


@check("keys with session=True go with the link that set them, and not before; who sets them anew owns them", keys=True)
async def session(ground: Ground) -> None:
    store = await ground.store()
    going = await ground.beside(store)
    await going.multi_set({"gone": "1", "taken": "1", "kept": "1"}, session=True)
    await going.add("gone")
    await store.set("taken", "2", session=True)
    await going.set("kept", "2")
    same(await store.list_keys(), ["gone", "kept", "taken"], "the keys while the link is open")
    await going.link.close()

    async def it_is_gone() -> bool:
        return not await store.check("gone")

    await ground.until(it_is_gone, "that a key with session=True is gone with its link")
    same(await store.list_keys(), ["kept", "taken"], "the keys that are left")


@check("prefixes nest, and keys behind one are apart from those of another", keys=True)
async def prefixes(ground: Ground) -> None:
    store = await ground.store()
    inner, beside = store.with_prefix("a").with_prefix("b"), store.with_prefix("ab")
    await inner.set("key", "inner")
    await beside.set("key", "beside")
    await store.set("key", "outer")
    same([await store.get("a/b/key"), await beside.get("key")], [b"inner", b"beside"], "the values")
    same([await inner.num_keys(), await beside.list_keys(), await store.num_keys()], [1, ["key"], 3], "the keys")


@check("the keys of a group are private to its incarnation: no other group, store or later life has them", keys=True)
async def of_a_group(ground: Ground) -> None:
    store = await ground.store()
    name, links = ground.name(), [await ground.link() for _ in range(2)]
    for life in range(2):
        seats = await ground.all(ground.join(link, name, rank, 2) for rank, link in enumerate(links))
        one, two = (GroupKeys(seat) for seat in seats)
        same(await one.names(), [], f"keys of a group at the beginning of life {life}")
        await one.set("key", b"%d" % life)
        same(await two.get("key"), b"%d" % life, "a key of the group at the other rank")
        holds("key" not in await AsyncStore(store.link).list_keys(), "a key of a group is one of the store's own")
        await ground.all(seat.leave() for seat in seats)


@check("in a group, keys with session=True go when their member leaves or is lost, and the others stay", keys=True)
async def session_of_a_member(ground: Ground) -> None:
    seats = await ground.seats(3)
    spaces = [GroupKeys(seat) for seat in seats]
    for rank in (1, 2):
        await spaces[rank].set(f"of {rank}", b"", session=True)
        await spaces[rank].set(f"kept {rank}", b"")
    await seats[1].leave()
    await seats[2].link.close()
    await seats[0].happened(5)

    async def they_are_gone() -> bool:
        return await spaces[0].names() == ["kept 1", "kept 2"]

    await ground.until(they_are_gone, "that the keys of members that are gone are gone too, and no others")


@check("calls on a group's keys fail when it is aborted", keys=True)
async def of_an_aborted_group(ground: Ground) -> None:
    seats = await ground.seats(2)
    space = GroupKeys(seats[0])
    waits = await ground.begun(space.get("key"), seats[0].link)
    await seats[1].abort("enough")
    with Raises(AiopgError, "a get in a group that was aborted"):
        await waits
