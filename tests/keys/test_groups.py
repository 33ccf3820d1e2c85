"""The keys of groups: private to an incarnation, and gone with it."""

from __future__ import annotations

import asyncio

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AsyncStore,
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    KeyTimeoutError,
    StoreServer,
    UsageError,
)
from aiopg.stores import StoreLink
from aiopg.testing import FaultProxy

from .conftest import LONG, Place, begun, steps, until


async def test_they_are_private_to_the_group(place: Place) -> None:
    """Neither another group nor the store's own keys meet them; `shared` is the way out."""
    first, second = await place.form(2, "first")
    (other,) = await place.form(1, "second")
    store = await place.open()
    await first.store.set("key", "first")
    await other.store.set("key", "second")
    await first.store.shared.set("key", "everybody's")
    assert await second.store.get("key") == b"first"
    assert await other.store.get("key") == b"second"
    assert await store.get("key") == await other.store.shared.get("key") == b"everybody's"
    assert [await one.num_keys() for one in (first.store, other.store, store)] == [1, 1, 1]
    async with first.store.lock("lock"), other.store.lock("lock"), store.lock("lock"):
        with pytest.raises(KeyTimeoutError):
            await second.store.lock("lock", timeout=0.02).acquire()


async def test_they_have_every_call(place: Place) -> None:
    """As the store's own, between members."""
    first, second = (group.store for group in await place.form(2))
    watch = second.watch()
    await second.check("x")
    get = await begun(second.get("key"), second)
    assert await first.set("key", "1") == 1
    assert await get == b"1"
    assert (await anext(watch)).revision == 1
    assert await second.add("n", 5) == 5
    pop = await begun(second.queue_pop("q"), second)
    await first.queue_push("q", "x")
    assert await pop == b"x"
    await asyncio.gather(first.barrier("b", 2), second.barrier("b", 2))
    inner = first.with_prefix("in")
    await inner.multi_set({"a": "1", "b": "2"})
    assert await second.list_keys() == ["in/a", "in/b", "key", "n"]
    assert await inner.innermost.delete_key("in/a")
    await watch.aclose()


async def test_they_end_with_the_incarnation(place: Place) -> None:
    """The next life of the name begins with none, and with larger numbers of its locks."""
    await place.open()  # a store in memory is there as long as a link to it
    numbers = []
    for life in range(3):
        groups = await place.form(2)
        assert await groups[1].store.list_keys() == []
        assert await groups[0].store.set("key", str(life)) == 1
        numbers += [await groups[0].store.lock(name).acquire() for name in ("a", "b", "c")]
        await asyncio.gather(*(group.close() for group in groups))
        for call in (groups[0].store.get("key"), groups[1].store.set("key", "1")):
            with pytest.raises(GroupClosedError):
                await call
    assert numbers == sorted(set(numbers))
    store = await place.open()
    assert await store.num_keys() == 0


async def test_session_keys_go_with_their_member(place: Place) -> None:
    """session=True in a group: they go when the member leaves, though others are there; its locks as well."""
    first, second = await place.form(2)
    await first.store.set("mine", "1", session=True)
    await first.store.set("ours", "1")
    number = await first.store.lock("lock").acquire()
    watch = second.store.watch()
    lock = await begun(second.store.lock("lock").acquire(), second.store)
    await first.close()
    assert await lock > number
    change = await anext(watch)
    assert (change.kind, change.key) == ("ended", "mine")
    assert await second.store.list_keys() == ["ours"]
    await watch.aclose()


async def test_the_first_use_joins_the_group(place: Place) -> None:
    """Like every call of a group; calls that come meanwhile stay in order."""
    store = await place.open()
    one = AsyncStatelessGroup(0, 2, store, group="g", store_timeout=LONG)
    calls: list[asyncio.Future[object]] = [asyncio.ensure_future(one.store.append("text", str(n))) for n in range(5)]
    sent = asyncio.ensure_future(one.send("x", 1))

    async def append_as_soon_as_it_is_joined() -> None:
        while "not joined" in repr(one):  # noqa: ASYNC110 - an event would come a pass of the loop too late
            await asyncio.sleep(0)
        await one.store.append("text", "5")

    calls.append(asyncio.ensure_future(append_as_soon_as_it_is_joined()))
    await asyncio.sleep(0.01)
    assert not any(call.done() for call in calls)
    two = AsyncStatelessGroup(1, 2, await place.open(), group="g", store_timeout=LONG)
    async with two:
        assert await two.recv(0) == "x"
        await asyncio.gather(sent, *calls)
        assert await two.store.get("text") == b"012345"
        await one.close()
    assert await store.num_keys() == 0  # closing the groups left the store open


async def test_a_join_that_fails_is_the_call_s_error(place: Place) -> None:
    """Ranks that do not come are named; the call can be made again."""
    store = await place.open()
    group = AsyncStatelessGroup(0, 2, store, group="g", store_timeout=LONG)
    with pytest.raises(GroupTimeoutError) as caught:
        await group.store.set("key", "1", timeout=0.05)
    assert caught.value.missing == (1,)
    other = AsyncStatelessGroup(1, 2, await place.open(), group="g", store_timeout=LONG)
    getting = asyncio.ensure_future(other.store.get("key"))
    assert await group.store.set("key", "1") == 1
    assert await getting == b"1"
    await asyncio.gather(group.close(), other.close())


async def test_what_ends_a_group_ends_its_calls_on_keys(place: Place) -> None:
    """abort(), close() and a takeover: what waits raises what the group's own calls raise."""
    first, second = await place.form(2)
    waits = [await begun(call, first.store) for call in (first.store.get("key"), first.store.queue_pop("q"))]
    await second.abort("no more")
    for wait in waits:
        with pytest.raises(GroupAbortedError, match="no more"):
            await wait
    with pytest.raises(GroupAbortedError):
        await second.store.set("key", "1")
    first, second = await place.form(2, "another")
    wait = await begun(first.store.get("key"), first.store)
    await first.close()
    with pytest.raises(GroupClosedError):
        await wait
    first, second = await place.form(2, "a third")
    wait = await begun(first.store.get("key"), first.store)
    link = await place.open()
    usurper = AsyncStatelessGroup(0, 2, link, group="a third", store_timeout=LONG)
    join = asyncio.ensure_future(usurper.join(takeover=True))
    with pytest.raises(FencedError):
        await wait
    with pytest.raises(FencedError):
        await first.store.set("key", "1")
    join.cancel()
    await asyncio.wait([join])
    await usurper.close()


async def test_closing_a_group_s_store_does_nothing(place: Place) -> None:
    """The group closes it; a clone of it is not known how to make."""
    (group,) = await place.form(1)
    await group.store.close()
    await group.store.shared.close()
    await group.barrier()
    await group.store.set("key", "1")
    with pytest.raises(UsageError, match="connect"):
        await group.store.clone()


async def test_subgroups_have_keys_of_their_own(place: Place) -> None:
    """As every group."""
    first, second = await place.form(2)
    one, two = await asyncio.gather(first.subgroup([1, 0]), second.subgroup([1, 0]))
    await one.store.set("key", "sub")
    assert await two.store.get("key") == b"sub"
    assert await first.store.list_keys() == []
    await asyncio.gather(one.close(), two.close())


async def test_calls_on_keys_and_messages_share_a_link_in_order(place: Place) -> None:
    """What is sent after a key was set finds it set."""
    first, second = await place.form(2)
    for n in range(50):
        setting = asyncio.ensure_future(first.store.set("key", str(n)))
        await first.send(n, 1)
        assert await second.recv(0) == n
        assert await second.store.get("key") == str(n).encode()
        await setting


async def test_a_group_is_made_over_a_store_or_its_link(place: Place) -> None:
    """AsyncStatelessGroup(rank, world_size, store)."""
    store = await place.open()
    ways: list[AsyncStore | StoreLink] = [store, store.link, store.with_prefix("p")]
    for number, given in enumerate(ways):
        group = AsyncStatelessGroup(0, 1, given, group=f"g{number}")
        await group.barrier()
        assert group.store.link is store.link
        await group.close()
    with pytest.raises(TypeError, match="store"):
        AsyncStatelessGroup(0, 1, place.url)  # type: ignore[arg-type]

    async def all_are_gone() -> bool:
        return (await store.link.status())["groups"] == []

    await until(all_are_gone)


async def test_an_item_that_is_on_its_way_to_who_leaves_goes_back() -> None:
    """Its pop was cancelled and the group closed before it came: the others have it, and it is not lost."""
    async with StoreServer() as server, FaultProxy(server.address, seed=2) as proxy:
        leaver, other = await asyncio.gather(
            *(
                AsyncStatelessGroup.connect(address, rank=rank, world_size=2, store_timeout=LONG)
                for rank, address in enumerate((proxy.address, server.address))
            )
        )
        pop = await begun(leaver.store.queue_pop("q"), leaver.store)
        proxy.stall()
        assert await other.store.queue_push("q", "x") == 0
        pop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pop
        closing = asyncio.ensure_future(leaver.close())
        await steps(5)
        proxy.resume()
        await closing
        assert await other.store.queue_pop("q", timeout=2) == b"x"
        await other.close()
