"""Payloads that lie beside a room's log: written in chunks before their entry, and read by who gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from aiopg._core.blobs import Blob
from aiopg._core.frames import Body, Buffer
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._layout import CHUNK_BYTES, RoomKeys
from aiopg.stores.etcd._messages import Put, present
from aiopg.stores.etcd._premises import FencedError

__all__ = ["chunks_of", "fetch", "write_chunks"]

AT_ONCE: Final = 4
"""So many chunks are under way at once."""


def chunks_of(body: Body) -> Iterator[bytes]:
    """The same bytes in chunks of `CHUNK_BYTES`, the last one shorter."""
    chunk = bytearray()
    for piece in body:
        rest = memoryview(piece)
        while rest:
            taken = rest[: CHUNK_BYTES - len(chunk)]
            chunk += taken
            rest = rest[len(taken) :]
            if len(chunk) == CHUNK_BYTES:
                yield bytes(chunk)
                chunk.clear()
    if chunk:
        yield bytes(chunk)


async def write_chunks(client: EtcdClient, session: bytes, chunks: Iterator[tuple[bytes, bytes]]) -> None:
    """Write these keys while that of the session is there. Raises `FencedError` if it is not, and `StoreFullError`."""

    async def write_some() -> None:
        for key, chunk in chunks:
            written = await client.txn([present(session)], [Put(key, chunk)])
            if not written.succeeded:
                raise FencedError

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(write_some())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None  # they all met the same


async def fetch(client: EtcdClient, keys: RoomKeys, blob: Blob) -> Buffer | None:
    """The bytes of a blob; None if they are not there any more."""
    first, end = blob.offset // CHUNK_BYTES, -(-(blob.offset + blob.length) // CHUNK_BYTES)
    whole = bytearray()
    for start in range(first, end, AT_ONCE):
        stop = min(start + AT_ONCE, end)
        found = await client.range(keys.blob_chunks(blob.sid, blob.number, start, stop))
        if len(found.entries) != stop - start:
            return None
        for chunk in found.entries:
            whole += chunk.value
    skipped = blob.offset - first * CHUNK_BYTES
    return memoryview(whole)[skipped : skipped + blob.length].toreadonly()
