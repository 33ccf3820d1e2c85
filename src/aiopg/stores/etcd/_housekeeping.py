"""Snapshots of a room: so that its log stays short, and payloads go that nobody will read any more.

The oldest session makes one when the log is long; should it not, the next one does when it is longer, and so on. What a
snapshot holds is deleted when it is there, entry by entry: who reads the room meanwhile knows from the snapshot which
entries are in it. Then go the payloads that no replica refers to: those that entries in the snapshot have brought, and
the snapshot does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from aiopg._core.blobs import Blob
from aiopg._core.frames import body_size
from aiopg._core.stategraph import dump
from aiopg.stores.etcd._blobs import chunks_of, write_chunks
from aiopg.stores.etcd._copy import Head
from aiopg.stores.etcd._layout import CHUNK_BYTES, Place, RoomKeys
from aiopg.stores.etcd._messages import Delete, Get, Op, Put, Span, modified_at, one, present
from aiopg.stores.etcd._premises import Premises
from aiopg.stores.etcd._reader import Reader

__all__ = ["Housekeeper"]

LOG_ENTRIES: Final = 256
LOG_BYTES: Final = 4 * 1024 * 1024
BLOB_BYTES: Final = 64 * 1024 * 1024
"""A log is long that has as many entries or bytes, or has brought as many bytes of payloads beside it."""

OPS: Final = 100
"""etcd takes 128 operations in a transaction, if nobody has told it otherwise."""


class Housekeeper:
    """Of one session."""

    def __init__(self, premises: Premises, keys: RoomKeys, sid: bytes, reader: Reader) -> None:
        self._premises = premises
        self._keys = keys
        self._sid = sid
        self._reader = reader
        self._newest = 0  # entries up to there are in a snapshot of somebody else, and gone

    @property
    def is_due(self) -> bool:
        """Whether it is our turn to make a snapshot."""
        known = self._reader.known
        length = max(len(known.entries) / LOG_ENTRIES, known.size / LOG_BYTES, self._reader.blob_bytes / BLOB_BYTES)
        return length > 1 and length > 1 + self._reader.turn

    async def run(self) -> None:
        """Make one, unless there is one that has more than we have heard. Raises `FencedError`, `StoreFullError`."""
        reader, client, session = self._reader, self._premises.client, self._keys.session(self._sid)
        if reader.applied < self._newest:
            return  # ours would take its place, and what lies between the two is not in the log any more
        revision, met = reader.applied, list[Blob]()
        pieces = dump(reader.replica, reader.replica.now, met)
        needed = {Place(blob.sid, blob.number) for blob in met}
        brought = {sid: attendance.blobs for sid, attendance in reader.replica.sessions.items()}
        ended = frozenset(reader.replica.ended)
        held = self._held_entries(revision)
        reader.blob_bytes = 0
        # From here on the replica goes on; what was taken of it stays.
        name = b"%020d-%s" % (revision, self._sid.hex().encode())
        if body_size(tuple(pieces)) <= CHUNK_BYTES:
            head = Head(revision, b"", 0, b"".join(pieces))
        else:
            chunks = list(chunks_of(tuple(pieces)))
            head = Head(revision, name, len(chunks), b"")
            keys = ((self._keys.chunk(name, number), chunk) for number, chunk in enumerate(chunks))
            await write_chunks(client, session, keys)
        written = await client.txn(
            [modified_at(self._keys.head, reader.head), present(session)],
            [Put(self._keys.head, head.encode())],
            [Get(one(self._keys.head))],
        )
        reader.head = written.revision
        if not written.succeeded:
            (other,) = written.found
            reader.head = other.mod_revision if other is not None else 0
            if other is None:
                return
            if other.value != head.encode():  # else ours was written by an earlier sending
                self._newest = Head.decode(other.value).revision
                return
        older = Span(self._keys.chunks.key, self._keys.chunk(name, 0))
        await self._delete([*held, older, *await self._needless(needed, brought, ended)], reader.head)

    def _held_entries(self, revision: int) -> list[Span]:
        """The entries up to a revision, as spans."""
        last: dict[bytes, int] = {}
        for key, (written, _) in self._reader.known.entries.items():
            if written <= revision:
                sid, number = self._keys.place(key)
                last[sid] = max(last.get(sid, 0), number)
        return [self._keys.entries(sid, number) for sid, number in last.items()]

    async def _needless(self, needed: set[Place], brought: dict[bytes, int], ended: frozenset[bytes]) -> list[Span]:
        found = await self._premises.client.range(self._keys.blobs, keys_only=True)
        places = dict.fromkeys(self._keys.blob_place(entry.key) for entry in found.entries)
        # What a session writes now is brought by an entry that is still to come.
        return [
            self._keys.whole_blob(*place)
            for place in places
            if place not in needed and (place.sid in ended or place.number <= brought.get(place.sid, 0))
        ]

    async def _delete(self, spans: Sequence[Span], head: int) -> None:
        """Delete what the snapshot written at `head` has made needless, while it is the last one: who sends this again
        does not know when the first sending takes effect.
        """
        for start in range(0, len(spans), OPS):
            ops: list[Op] = [Delete(span) for span in spans[start : start + OPS]]
            await self._premises.client.txn([modified_at(self._keys.head, head)], ops)
