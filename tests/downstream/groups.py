"""Groups, asynchronous and blocking."""

from __future__ import annotations

import asyncio
import threading

import aiopg
from aiopg import AsyncStatelessGroup, MemberEvent, PendingCall, StatelessGroup, StoreServer


async def first_rank(url: str) -> list[str]:
    group: AsyncStatelessGroup = await AsyncStatelessGroup.connect(url, rank=0, world_size=2, group="pair")
    async with group:
        events = group.events()
        event: MemberEvent = await anext(events)
        await events.aclose()
        waiting = asyncio.create_task(group.recv(src=1, tag="name", timeout=20))
        await asyncio.sleep(0)
        calls: tuple[PendingCall, ...] = group.pending()
        name: str = await waiting
        await group.send({"name": name.upper()}, dst=1)
        total: int = await group.all_reduce(1, op="sum")
        await group.barrier(timeout=20)
        return [event.what, calls[0].op, name, str(total)]


def second_rank(url: str) -> None:
    with StatelessGroup.connect(url, rank=1, world_size=2, group="pair") as group:
        group.send("somebody", 0, tag="name")
        assert group.recv(0) == {"name": "SOMEBODY"}
        group.all_reduce(1)
        group.barrier(20.0)


async def main() -> None:
    async with StoreServer("127.0.0.1", 0) as server:
        thread = threading.Thread(target=second_rank, args=(server.address,))
        thread.start()
        try:
            print(aiopg.__version__, *await first_rank(server.address))
        finally:
            await asyncio.to_thread(thread.join)


asyncio.run(main())
