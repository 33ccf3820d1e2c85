"""What a member tells of itself: `describe()`, and `repr`."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiopg import AsyncStatelessGroup, AsyncStore, StatelessGroup, StoreServer

from .conftest import Meeting


async def test_a_group_describes_itself_from_beginning_to_end(meeting: Meeting) -> None:
    """State, place, calls that wait and what was counted, all of it as JSON takes it; it asks nobody."""
    first, second = await meeting.form(2, group="crew")
    await first.send("x", 1)
    waiting = asyncio.create_task(second.recv(0, tag="other"))
    await second.recv(0)
    said = second.describe()
    assert json.loads(json.dumps(said, allow_nan=False))["name"] == "crew"
    assert (said["name"], said["rank"], said["world_size"], said["state"]) == ("crew", 1, 2, "joined")
    assert said["incarnation"] == 1
    assert said["store"] == first.store.url
    pending: Any = said["pending"]
    assert [(call["op"], call["tag"], call["seq"]) for call in pending] == [("recv", "other", 1)]
    assert (said["received"], said["sent"]) == ({0: 1}, {})
    assert first.describe()["sent"] == {1: 1}
    waiting.cancel()
    await asyncio.wait([waiting])
    await second.close()
    assert (second.describe()["state"], second.describe()["pending"]) == ("closed", [])
    assert ", closed," in repr(second)


async def test_who_waits_for_the_others_to_join_says_so() -> None:
    """Before, while and after."""
    async with StoreServer() as server:
        store = await AsyncStore.connect(server.address)
        group = AsyncStatelessGroup(0, 2, store, group="crew")
        assert (group.describe()["state"], group.describe()["incarnation"]) == ("not joined", None)
        joining = asyncio.create_task(group.join())
        await asyncio.sleep(0)
        assert group.describe()["state"] == "joining"
        assert ", joining, 1 calls waiting," in repr(group)
        other = await AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, group="crew")
        await joining
        assert group.describe()["state"] == "joined"
        assert ", incarnation 1," in repr(group)
        await other.close()
        await group.close()
        assert ", closed>" not in repr(store)
        await store.close()
        assert repr(store).endswith(", closed>")


def test_a_blocking_group_describes_itself_when_it_is_closed_too() -> None:
    """The same values, from any thread."""
    group = StatelessGroup.connect("memory://described", rank=0, world_size=1)
    assert group.describe()["state"] == "joined"
    group.close()
    assert group.describe()["state"] == "closed"
