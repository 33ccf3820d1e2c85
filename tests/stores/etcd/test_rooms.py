"""Rooms in etcd: snapshots under load, what is left behind, and members whose lease has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aiopg import (
    AsyncStatelessGroup,
    AsyncStore,
    GroupClosedError,
    PayloadTooLargeError,
    PeerLostError,
    RankConflictError,
    StoreFullError,
    StoreLostError,
)
from aiopg._core.messages import Cancel
from aiopg.stores import open_link
from aiopg.stores._rooms import COMMON
from aiopg.stores.etcd import EtcdLink, _housekeeping
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._layout import Layout
from aiopg.stores.etcd._lease import REVOKE
from aiopg.stores.etcd._sender import Sender
from aiopg.stores.etcd._wire import number
from aiopg.testing import GroupMaker

from .keys import ON_ASYNCIO, ON_UVLOOP, becomes, held, own_path
from .servers import SLOW, EtcdServer

MIB = 1024 * 1024


def link_of(member: AsyncStatelessGroup) -> EtcdLink:
    """The link of a group's member."""
    link = member._link
    assert isinstance(link, EtcdLink)
    return link


async def described(link: Any, name: str) -> dict[str, Any]:
    """What a store's status says of a group."""
    groups: list[dict[str, Any]] = (await link.status())["groups"]
    (group,) = [group for group in groups if group["name"] == name]
    return group


# ----------------------------------------------------------------------------------------------------- snapshots


async def test_who_comes_while_snapshots_are_made_under_load_misses_nothing(
    etcd_server: EtcdServer, client: EtcdClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No addition is lost or doubled, whoever comes into the room, or leaves it, between which entries; and the log
    stays short.
    """
    monkeypatch.setattr(_housekeeping, "LOG_ENTRIES", 10)
    prefix = own_path()
    sums: list[int] = []

    async def add(times: int) -> None:
        async with await AsyncStore.connect(etcd_server.url + prefix) as store:
            for _ in range(times):
                sums.append(await store.add("sum", 1))
                await store.queue_push("items", b"x" * 3000)
                await store.queue_pop("items")

    async def come_and_go() -> None:
        for _ in range(6):
            await add(5)

    await asyncio.gather(add(60), add(60), come_and_go(), come_and_go())
    assert sorted(sums) == list(range(1, 181))
    left = await client.range(Layout(prefix).room(COMMON).watched, keys_only=True)
    assert len(left.entries) < 60


@ON_UVLOOP
async def test_a_snapshot_that_is_too_large_for_one_key(
    make: GroupMaker, client: EtcdClient, etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in several; who reads the room puts it together. Those of the one before are gone."""
    monkeypatch.setattr(_housekeeping, "LOG_ENTRIES", 20)
    group = await make(2)
    name = group[0].name
    for count in range(60):
        await group[0].send(bytes([count]) * 60_000, 1)

    async def are_few() -> bool:
        await group[0].send(b"", 1, tag="more")
        await group[1].recv(0, tag="more")
        return 4 <= len(await held(client, name, "chunk/")) <= 5 and len(await held(client, name, "log/")) < 25

    await becomes(are_few)
    link = await open_link(etcd_server.url)
    assert (await described(link, name))["messages"] == 60
    await link.close()
    for count in range(60):
        assert await group[1].recv(0) == bytes([count]) * 60_000


async def test_who_is_behind_puts_no_older_snapshot_in_the_place_of_a_newer_one(
    etcd_server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member whose loop was blocked hears old entries when others have replaced them already: a snapshot of these
    alone would leave a hole in the log.
    """
    url = etcd_server.url + own_path()
    first, second = await EtcdLink.connect(url, timeout=20 * SLOW), await EtcdLink.connect(url, timeout=20 * SLOW)
    await AsyncStore(first).set("key", b"first")
    await AsyncStore(second).set("key", b"second")
    (behind,), (ahead,) = first._stays, second._stays
    goes_on, hear_all = asyncio.Event(), behind.reader._hear_all

    async def hear_later(changes: Any, revision: int) -> None:
        await goes_on.wait()
        await hear_all(changes, revision)

    monkeypatch.setattr(behind.reader, "_hear_all", hear_later)
    for count in range(5):
        await AsyncStore(second).set("key", str(count))
    await ahead._keeper.run()
    for _ in range(3):  # the first of these tells it of the other's
        await behind._keeper.run()
    async with await AsyncStore.connect(url) as late:
        assert await late.get("key") == b"4"
    goes_on.set()
    assert await AsyncStore(first).get("key") == b"4"
    await first.close()
    await second.close()


# --------------------------------------------------------------------------------------------------------- space


async def test_what_etcd_has_written_though_it_says_that_it_is_full(
    make: GroupMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it does with the request that fills it: the call has taken effect once, and what comes behind it as well."""
    group = await make(2)
    client = link_of(group[0])._client
    txn, refused = client.txn, list[Any]()

    async def written_and_refused(*arguments: Any) -> Any:
        refused.append(await txn(*arguments))
        raise StoreFullError("quota-backend-bytes", 0, "etcd")

    monkeypatch.setattr(client, "txn", written_and_refused)
    await group[0].send("fills it", 1)
    monkeypatch.undo()
    await group[0].send("behind", 1)
    assert [await group[1].recv(0), await group[1].recv(0)] == ["fills it", "behind"]
    assert refused


def test_what_takes_a_call_back_is_said_again_when_there_is_space() -> None:
    """Nobody waits any more who could: the caller was cancelled. It is not tried on and on meanwhile."""
    sender = Sender(b"a session")
    for call in (1, 2):
        sender.say(Cancel(call))
    load = sender.next_load()
    sender.refused(load)
    assert (sender.has_load, sender.commands) == (False, 0)
    sender.say(Cancel(3))
    sender.say_again()
    assert sender.commands == 3
    assert sender.next_load().inputs[:2] == load.inputs


async def test_status_while_a_room_was_only_asked_for(etcd_server: EtcdServer) -> None:
    """A call that was refused before it was sent leaves the link in a room that it has not come into."""
    link = await EtcdLink.connect(etcd_server.url + own_path(), timeout=20 * SLOW)
    with pytest.raises(PayloadTooLargeError):
        await AsyncStore(link).set("large", bytes(2 * MIB))
    assert (await link.status())["members"] == 0
    await AsyncStore(link).set("small", b"x")
    assert await AsyncStore(link).get("small") == b"x"
    await link.close()


# --------------------------------------------------------------------------------------------------- what is left


async def test_a_room_goes_with_its_last_member(make: GroupMaker, client: EtcdClient) -> None:
    """Whatever was not read in it. The name's next life has a larger number."""
    group = await make(2)
    name = group[0].name
    await group[0].send(bytes(MIB), 1)
    await group[0].send("unread", 1)
    first = (await described(link_of(group[0]), name))["incarnation"]
    assert await held(client, name)
    await make.close()
    assert await held(client, name) == []
    again = await make(2, group=name)
    assert (await described(link_of(again[1]), name))["incarnation"] > first


async def test_what_dead_members_left_is_taken_up_by_who_comes(make: GroupMaker, client: EtcdClient) -> None:
    """All leases have ended, and nobody was there to say so: the next ones form their group at once."""
    group = await make(2)
    name = group[0].name
    for member in group:
        await revoke(client, link_of(member))
    for member in group:
        with pytest.raises(StoreLostError):
            await member.barrier()
    assert await held(client, name, "session/") == []
    assert await held(client, name, "log/")
    again = await make(2, group=name)
    assert await asyncio.gather(*(member.all_reduce(1) for member in again)) == [2, 2]
    await make.close()
    assert await held(client, name) == []


async def test_the_store_s_keys_stay(etcd_server: EtcdServer) -> None:
    """Their room is not deleted with its last member. What is too large is said."""
    async with await AsyncStore.connect(etcd_server.url) as store:
        await store.set("etcd/stays", b"x" * 100_000)
    async with await AsyncStore.connect(etcd_server.url) as store:
        assert await store.get("etcd/stays") == b"x" * 100_000
        with pytest.raises(PayloadTooLargeError, match="524288"):
            await store.set("etcd/large", bytes(600_000))
        await store.delete_key("etcd/stays")


async def test_what_was_popped_for_a_call_that_the_end_of_its_link_has_failed_is_taken_back(
    etcd_server: EtcdServer,
) -> None:
    """The item comes when nobody waits for it any more: its receipt is not told, and it is the next one's."""
    url = etcd_server.url + own_path()
    consumer, other = await EtcdLink.connect(url, timeout=20 * SLOW), await EtcdLink.connect(url, timeout=20 * SLOW)
    store = AsyncStore(other)
    popping = asyncio.create_task(AsyncStore(consumer).queue_pop("jobs"))
    await asyncio.sleep(0)
    await consumer.status()  # the call waits in the room
    consumer._calls.close()  # as `close` begins
    await store.queue_push("jobs", b"once")
    (heard_here,), (heard_there,) = consumer._stays, other._stays

    async def has_come() -> bool:
        return heard_here.reader.applied >= heard_there.reader.applied

    await becomes(has_come)
    await consumer.close()
    with pytest.raises(GroupClosedError):
        await popping
    assert await store.queue_pop("jobs", timeout=20 * SLOW) == b"once"
    await other.close()


async def test_the_time_of_keys_goes_on_while_nobody_is_there(etcd_server: EtcdServer) -> None:
    """By the calendar; a key that ends meanwhile is not seen again."""
    url = etcd_server.url + own_path()
    async with await AsyncStore.connect(url) as store:
        await store.multi_set({"short": b"x", "also": b"x"}, ttl=0.2)
        await store.set("long", b"x", ttl=1000)
    await asyncio.sleep(0.3)
    async with await AsyncStore.connect(url) as store:
        assert await store.list_keys() == ["long"]


async def test_status_is_the_same_from_within_and_from_without(make: GroupMaker, etcd_server: EtcdServer) -> None:
    """Of a room that the link is in it tells from its copy, of others from what it reads."""
    group = await make(2)
    name = group[0].name
    await group[0].send("unread", 1)
    stranger = await open_link(etcd_server.url)
    within = await described(link_of(group[0]), name)
    assert within == await described(stranger, name)
    assert (within["state"], within["messages"], sorted(within["members"])) == ("live", 1, [0, 1])
    await stranger.close()


# ------------------------------------------------------------------------------------------------------- leases


async def revoke(client: EtcdClient, link: EtcdLink) -> None:
    """End a link's lease, as its end would."""
    await client._requests.send(REVOKE, number(1, link._lease.id))


async def test_a_member_whose_lease_has_ended_is_lost_and_hears_of_it(make: GroupMaker, client: EtcdClient) -> None:
    """Its calls fail with StoreLostError, waiting and later; those of others that need it with PeerLostError."""
    group = await make(3)
    waiting = [asyncio.create_task(member.recv((member.rank + 1) % 3)) for member in group[:1]]
    needs = asyncio.create_task(group[1].recv(0))
    await link_of(group[1]).status()
    await revoke(client, link_of(group[0]))
    with pytest.raises(StoreLostError, match="lease"):
        await waiting[0]
    with pytest.raises(StoreLostError, match="lease"):
        await group[0].send("x", 1)
    with pytest.raises(PeerLostError, match="its lease in etcd has ended") as lost:
        await needs
    assert lost.value.ranks == (0,)
    await group[1].send("goes on", 2)
    assert await group[2].recv(1) == "goes on"


@ON_ASYNCIO
async def test_a_rank_of_a_process_that_is_gone_is_waited_for(
    make: GroupMaker, client: EtcdClient, etcd_server: EtcdServer
) -> None:
    """While its lease still lives nobody knows: who wants its rank waits, and has it when the lease has ended."""
    (member,) = await make(1)
    link = link_of(member)
    for task in link._tasks:  # it says nothing any more, as if its process were gone
        task.cancel()
    joining = asyncio.create_task(
        AsyncStatelessGroup.connect(etcd_server.url, rank=0, world_size=1, group=member.name, store_timeout=30 * SLOW)
    )

    async def has_asked() -> bool:
        return len(await held(client, member.name, "session/")) == 2

    await becomes(has_asked)
    assert not joining.done()
    await revoke(client, link)
    async with await joining as successor:
        assert await successor.all_reduce(1) == 1


async def test_a_rank_of_a_member_that_is_there_is_refused(make: GroupMaker, etcd_server: EtcdServer) -> None:
    """It says that it is there as soon as it is asked for; nothing changes for it."""
    group = await make(2)
    with pytest.raises(RankConflictError):
        await AsyncStatelessGroup.connect(
            etcd_server.url, rank=0, world_size=2, group=group[0].name, store_timeout=20 * SLOW
        )
    assert await asyncio.gather(*(member.all_reduce(1) for member in group)) == [2, 2]


async def test_who_ends_without_closing_is_lost_at_once(make: GroupMaker, etcd_server: EtcdServer) -> None:
    """A program whose event loop ends gives its lease back, and is not waited for until that expires."""
    group = await make(2)
    name = f"{group[0].name}-thread"

    def program() -> None:
        async def run() -> None:
            await AsyncStatelessGroup.connect(etcd_server.url, rank=1, world_size=2, group=name, reconnect_grace=600)

        asyncio.run(run())

    ending = asyncio.create_task(asyncio.to_thread(program))
    async with await AsyncStatelessGroup.connect(etcd_server.url, rank=0, world_size=2, group=name) as member:
        with pytest.raises(PeerLostError):
            await member.recv(1, timeout=30 * SLOW)
    await ending
