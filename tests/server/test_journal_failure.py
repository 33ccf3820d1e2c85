"""A server whose disk refuses a write: it promises nothing more, and its members hear of it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.client._connection import ClientConnection
from aiopg.stores.native import NativeLink


async def test_members_are_cut_off_when_the_journal_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where something waits for the disk; what comes after is refused, and the next server goes on."""
    server = StoreServer(journal=tmp_path, fsync="batch")
    await server.start()
    group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1)
    store = group.store.link
    assert isinstance(store, NativeLink)
    cut, client_hears = asyncio.Event(), store._client.connection_closed

    def hear(connection: ClientConnection, reason: str, final: bool) -> None:
        client_hears(connection, reason, final)
        cut.set()

    monkeypatch.setattr(store._client, "connection_closed", hear)

    def refuse(file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        barrier = asyncio.create_task(group.barrier())
        try:
            async with asyncio.timeout(5):
                await server.failed.wait()
                await cut.wait()
        except TimeoutError:
            store._client.close("it was not cut off")
            raise
        finally:
            await server.close()
    assert not barrier.done()
    async with StoreServer(port=int(server.address.rpartition(":")[2]), journal=tmp_path), asyncio.timeout(10):
        await barrier
        await group.close()
        await store.close()
