"""What a group counts, and that it costs nothing for ranks with which nothing was."""

from __future__ import annotations

import tracemalloc

from aiopg import AsyncStatelessGroup
from aiopg.stores import open_link

from .conftest import Meeting


async def test_messages_and_broadcasts_are_counted_by_rank(meeting: Meeting) -> None:
    """Every rank is in the counters, also where nothing was; they are copies."""
    first, second, third = await meeting.form(3)
    await first.send("once", 1)
    await first.send("again", 1)
    await second.recv(0)
    await first.broadcast("news")
    for other in (second, third):
        await other.broadcast()
    assert first.send_dst_counter == {0: 0, 1: 2, 2: 0}
    assert second.recv_src_counter == {0: 1, 1: 0, 2: 0}
    assert third.broadcast_recv_src_counter == {0: 1, 1: 0, 2: 0}
    assert first.broadcast_send_counter == 1
    first.send_dst_counter[1] = 9
    assert first.send_dst_counter[1] == 2


async def test_a_group_of_ten_thousand_ranks_is_no_larger_than_one_of_two() -> None:
    """Thousands of ranks may live in one process."""
    link = await open_link("memory://counters", timeout=5)

    def size_of(world_size: int) -> int:
        tracemalloc.start()
        group = AsyncStatelessGroup(0, world_size, link)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert group.world_size == world_size
        return size

    size_of(2)  # what is made once is made
    assert size_of(10_000) < size_of(2) + 4096
    await link.close()
