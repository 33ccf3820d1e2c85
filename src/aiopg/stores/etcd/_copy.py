"""A room as it is in etcd, read into a replica; and a replica as it is written there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgpack

from aiopg._core.engine import Events
from aiopg._core.entries import decode_entry
from aiopg._core.frames import Buffer
from aiopg._core.replica import Replica
from aiopg._core.stategraph import load_replica
from aiopg.errors import ProtocolError, UsageError
from aiopg.stores.etcd._client import EtcdClient
from aiopg.stores.etcd._errors import CompactedError
from aiopg.stores.etcd._layout import RoomKeys
from aiopg.stores.etcd._messages import KeyValue
from aiopg.stores.etcd._premises import LIMITS, Breath

__all__ = ["ABOUT", "PAGE", "Copy", "Head", "Known", "read_copy"]

RULES: Final = 1
"""What members of one room must agree on beside the format of snapshots and entries: what the engine does with them."""

PAGE: Final = 1024
"""Entries are small but for a few, and a log is not long."""

ABOUT: Final[dict[str, object]] = {}
"""A room's engine says nothing of whoever has a copy of it."""


class Head(NamedTuple):
    """What is in the key of a snapshot."""

    revision: int
    """Entries up to it are in the snapshot."""
    name: bytes
    """Of its chunks; empty where all of it is in `data`."""
    chunks: int
    data: bytes

    def encode(self) -> bytes:
        return b"".join((msgpack.packb([RULES, self.revision, self.name, self.chunks]), self.data))

    @classmethod
    def decode(cls, data: bytes) -> Head:
        """Raises `UsageError` for one of other rules, `ProtocolError` for what is none."""
        try:
            unpacker = msgpack.Unpacker()
            unpacker.feed(data)
            rules, revision, name, chunks = unpacker.unpack()
            if rules != RULES:
                raise UsageError(
                    f"the room is kept by the rules {rules} of another version of aiopg, and this one knows {RULES}: "
                    "all members of a group have the same version"
                )
            return cls(revision, name, chunks, data[unpacker.tell() :])
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolError(f"not a snapshot of a room: {error!r}") from error


@dataclass(slots=True)
class Known:
    """The keys of a log that are in etcd, as far as one knows."""

    entries: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    """By key, the revision and the bytes of each."""
    size: int = 0
    """Bytes of all."""

    def add(self, entry: KeyValue) -> None:
        """An entry was written."""
        self.entries[entry.key] = (entry.mod_revision, len(entry.value))
        self.size += len(entry.value)

    def drop(self, key: bytes) -> None:
        """It was deleted."""
        self.size -= self.entries.pop(key, (0, 0))[1]


class Copy(NamedTuple):
    """A room at one revision."""

    replica: Replica
    revision: int
    applied: int
    """That of the last entry in it."""
    created: int
    """When the room was made."""
    head: int
    """When the snapshot was written."""
    sessions: frozenset[bytes]
    """Whose keys are there."""
    known: Known
    events: Events
    """What the entries behind the snapshot came to."""


async def read_copy(client: EtcdClient, keys: RoomKeys) -> Copy | None:
    """A room as it is now; None where there is none.

    Raises `UsageError` for one that another version of aiopg keeps, `ProtocolError` for one that makes no sense.
    """
    while True:
        room = await client.range(keys.read, page=PAGE)
        head = next((entry for entry in room.entries if entry.key == keys.head), None)
        if head is None:
            return None
        try:
            return await _copy(client, keys, room.entries, head, room.revision)
        except CompactedError:
            pass  # the snapshot has been replaced meanwhile


async def _copy(client: EtcdClient, keys: RoomKeys, entries: Sequence[KeyValue], head: KeyValue, revision: int) -> Copy:
    snapshot = Head.decode(head.value)
    replica = load_replica(await _whole(client, keys, snapshot, revision), LIMITS, ABOUT)
    known, sessions, events = Known(), set(), []
    applied, breath = snapshot.revision, Breath()
    for entry in sorted(entries, key=lambda entry: entry.mod_revision):
        await breath.take()
        if entry.key == keys.head:
            continue
        sid, number = keys.place(entry.key)
        if not number:
            sessions.add(sid)
            continue
        known.add(entry)
        if entry.mod_revision > snapshot.revision:
            events += replica.apply(sid, number, decode_entry(entry.value, sid))
            applied = entry.mod_revision
    return Copy(replica, revision, applied, head.create_revision, head.mod_revision, frozenset(sessions), known, events)


async def _whole(client: EtcdClient, keys: RoomKeys, snapshot: Head, revision: int) -> Buffer:
    if not snapshot.chunks:
        return snapshot.data
    found = await client.range(keys.snapshot_chunks(snapshot.name), revision)
    if len(found.entries) != snapshot.chunks:
        raise ProtocolError(f"of a snapshot in {snapshot.chunks} chunks {len(found.entries)} are there")
    return b"".join(chunk.value for chunk in found.entries)
