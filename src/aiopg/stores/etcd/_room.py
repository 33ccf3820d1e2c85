"""One room in etcd, as this link is in it: a session that writes to the room's log, and hears all of it.

Theory of operation. Commands wait in the `Sender`; one transaction writes all that wait as one entry, and the next one
is written when etcd has answered. So a busy session writes longer entries, not more of them. The transaction asks that
the session's key is there, which goes with the link's lease: so who is taken for dead writes nothing any more. It may
be sent twice; a replica passes over what it has.

All entries of the room come back on one watch, ours too (`Reader`). Who leaves the room last deletes it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from aiopg._core.entries import Gone, Packed, encode_entry, pack_input
from aiopg._core.messages import Command, Failed, pack_error
from aiopg._core.replica import Replica
from aiopg._core.stategraph import dump
from aiopg.errors import PayloadTooLargeError, ProtocolError, StoreFullError, UsageError
from aiopg.stores._rooms import COMMON, Room, RoomName
from aiopg.stores.etcd._blobs import chunks_of, write_chunks
from aiopg.stores.etcd._copy import ABOUT, Copy, Head, Known, read_copy
from aiopg.stores.etcd._housekeeping import Housekeeper
from aiopg.stores.etcd._messages import (
    Compare,
    Delete,
    Get,
    KeyValue,
    Op,
    Put,
    absent,
    created_at,
    modified_at,
    one,
    present,
    unchanged_since,
)
from aiopg.stores.etcd._premises import LEASE_ENDED, LIMITS, FencedError, Premises
from aiopg.stores.etcd._reader import Reader
from aiopg.stores.etcd._sender import Load, Sender

__all__ = ["EtcdRoom"]

logger = logging.getLogger("aiopg.stores.etcd")

LOOK_SECONDS = 0.1
"""Who cannot leave as the room is looks again when something was heard, or after so long."""


class EtcdRoom(Room):
    """A stay in a room."""

    def __init__(self, premises: Premises, name: RoomName) -> None:
        self.name = name
        self.sid = secrets.token_bytes(8)
        self._premises = premises
        self._client = premises.client
        self._keys = premises.layout.room(name)
        self._session = self._keys.session(self.sid)
        self._sender = Sender(self.sid)
        self._work = asyncio.Event()
        self.reader = Reader(premises, self._keys, self.sid, self._sender, self._work.set, self._keep_house)
        self._keeper = Housekeeper(premises, self._keys, self.sid, self.reader)
        self._keeping: asyncio.Task[None] | None = None
        self._unanswered = 0  # commands in the entry that is being written
        self._number = 0  # of the last entry that etcd has
        self._lives = 0  # what `Layout.lives` held when it was read last, ...
        self._lives_written = 0  # ... and when it was written then; 0: never
        self._why_leaving = ""
        self.stay = premises.spawn(self._stay)
        """Done when the room was left."""

    def __repr__(self) -> str:
        return f"<EtcdRoom of {self._named} session={self.sid.hex()} entries={self._number}>"

    @property
    def _named(self) -> str:
        return "the store's keys" if self.name is COMMON else f"group {self.name!r}"

    @property
    def backlog(self) -> int:
        return self._sender.commands + self._unanswered

    def send(self, command: Command) -> None:
        try:
            self._sender.say(command)
        except (UsageError, PayloadTooLargeError) as error:
            self._premises.loop.call_soon(self._premises.received, Failed(command.call, pack_error(error)))
        else:
            self._work.set()

    def retire(self) -> None:
        self.leave("it left")

    def leave(self, reason: str) -> None:
        """Leave the room when all that was sent is written; members that we have there are lost for that reason."""
        self._why_leaving = self._why_leaving or reason
        self._work.set()

    @property
    def is_in(self) -> bool:
        """Whether it has come into the room, and has not left it."""
        return self._number > 0 and not self.stay.done()

    async def settle(self) -> None:
        """Wait until all that was sent so far has taken effect, and we have heard of it."""
        while not self.stay.done() and (self.backlog or self._has_unheard):
            self.reader.moved.clear()
            await self.reader.moved.wait()

    @property
    def _has_unheard(self) -> bool:
        return self._number > 0 and self.reader.entries_of(self.sid) < self._number

    # --------------------------------------------------------------------------------------------- being there

    async def _await_load(self) -> bool:
        """Wait until there is something to say. False: the link leaves the room first."""
        while not self._sender.has_load:
            if self._why_leaving:
                return False
            self._work.clear()
            await self._work.wait()
        return True

    async def _stay(self) -> None:
        await self._work.wait()
        if not self._sender.has_load:
            return  # left before anything was said
        listening: asyncio.Task[None] | None = None
        try:
            await self.reader.open()
            while not await self._enter():
                if not await self._await_load():
                    return
            listening = self._premises.spawn(self.reader.listen)
            await self._write_all()
        finally:
            self.reader.stop()
            self.reader.moved.set()
            for task in (listening, self._keeping):
                if task is not None:
                    task.cancel()

    async def _write_all(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._sender.has_load:
                await self._write(self._sender.next_load())
            if self._why_leaving and await self._leave():
                return

    def _keep_house(self) -> None:
        if self._keeper.is_due and (self._keeping is None or self._keeping.done()):
            self._keeping = self._premises.spawn(self._make_snapshot)

    async def _make_snapshot(self) -> None:
        try:
            await self._keeper.run()
        except StoreFullError as error:
            logger.warning("no snapshot was made of %s: %s", self._named, error, extra={"group": self.name})

    # -------------------------------------------------------------------------------------------------- entering

    async def _enter(self) -> bool:
        """Come into the room, with the first entry, or make it. False: etcd has no space for that, and calls know."""
        load = self._sender.next_load(uploads=False)
        self._unanswered = load.commands
        full: StoreFullError | None = None
        while True:
            copy = await read_copy(self._client, self._keys)
            if full is not None and (copy is None or self.sid not in copy.sessions):  # else it was done all the same
                self._refuse(load, full)
                self._taken()
                return False
            try:
                entered = await (self._found(load) if copy is None else self._join(copy, load))
            except StoreFullError as error:
                full = error
                continue
            if entered:
                self._number = 1
                self._taken()
                return True

    async def _found(self, load: Load) -> bool:
        """Make the room. False: somebody else was quicker."""
        lives = (await self._client.range(one(self._premises.layout.lives))).entries
        replica = Replica(LIMITS, ABOUT, self._note_lives(lives[0] if lives else None))
        head = Head(0, b"", 0, b"".join(dump(replica, 0.0)))
        name = "" if self.name is COMMON else self.name
        put = [
            Put(self._keys.head, head.encode()),
            Put(self._keys.marker, name.encode("utf-8", "surrogatepass")),
            *self._first(replica.now, load.inputs),
        ]
        made = await self._client.txn([absent(one(self._keys.head)), self._lives_as_noted], put)
        if not made.succeeded:
            return False
        before = made.revision - 1
        self.reader.begin(Copy(replica, before, before, made.revision, made.revision, frozenset(), Known(), []))
        return True

    async def _join(self, copy: Copy, load: Load) -> bool:
        """Come into a room that is there. False: it is not as it was."""
        if self.sid not in copy.sessions:
            # Sessions whose keys are gone are over, and nobody was there to say so.
            over = [sid for sid in copy.replica.sessions if sid not in copy.sessions]
            gone = [pack_input(Gone(sid, LEASE_ENDED), 0) for sid in over]
            # The room may have gone meanwhile, and another have been made in its place.
            compares = [created_at(self._keys.head, copy.created), absent(one(self._session))]
            now = copy.replica.now if copy.sessions else copy.replica.now_after(_date())
            joined = await self._client.txn(compares, self._first(now, [*gone, *load.inputs]))
            if not joined.succeeded:
                return False
        self.reader.begin(copy)
        return True

    def _first(self, now: float, inputs: list[Packed]) -> list[Op]:
        lease = self._premises.lease.id
        return [
            Put(self._session, b"", lease),
            Put(self._keys.entry(self.sid, 1), _entry(now, inputs)),
        ]

    # --------------------------------------------------------------------------------------------------- writing

    async def _write(self, load: Load) -> None:
        """Write the next entry. Raises `FencedError` if our session is not in the room any more."""
        self._unanswered = load.commands
        try:
            for upload in load.uploads:
                keys = enumerate(chunks_of(upload.body))
                chunks = ((self._keys.blob(self.sid, upload.number, number), chunk) for number, chunk in keys)
                await write_chunks(self._client, self._session, chunks)
            await self._append(_entry(self.reader.now(), load.inputs))
        except StoreFullError as error:
            if await self._was_written(self._number + 1):
                self._number += 1
            else:
                self._refuse(load, error)
                self._sender.refused(load)
                self.reader.try_again()
        self._taken()

    def _refuse(self, load: Load, error: StoreFullError) -> None:
        for call in load.calls:
            self._premises.received(Failed(call, pack_error(error)))

    async def _append(self, entry: bytes) -> None:
        key = self._keys.entry(self.sid, self._number + 1)
        told: list[Op] = [Get(one(key)), Get(one(self._session))]
        result = await self._client.txn([absent(one(key)), present(self._session)], [Put(key, entry)], told)
        if not result.succeeded:
            written, session = result.found
            if session is None:
                raise FencedError
            if written is None or written.value != entry:  # else by an earlier sending
                raise ProtocolError("etcd has written an entry that it had refused for want of space")
        self._number += 1

    async def _was_written(self, number: int) -> bool:
        """Whether an entry of ours is there that etcd had no space for, as it says: of the one that fills it, it says
        so and writes it."""
        found = await self._client.range(one(self._keys.entry(self.sid, number)), keys_only=True)
        return bool(found.entries) or self.reader.entries_of(self.sid) >= number

    def _taken(self) -> None:
        self._unanswered = 0
        self.reader.moved.set()  # who waits until all is taken may have heard the entry before etcd's answer came
        self._premises.rooms.taken()

    # --------------------------------------------------------------------------------------------------- leaving

    async def _leave(self) -> bool:
        """Be in the room no more, and delete it if nobody else is. False: there is something to be said before."""
        reader = self.reader
        reader.is_leaving = True
        while not self._sender.has_load:
            reader.moved.clear()
            others = reader.others
            if others or self.name is COMMON:
                left = await self._walk_out(others)
            else:
                left = reader.entries_of(self.sid) == self._number and await self._close_down()
            if left:
                return True
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await reader.moved.wait()
            except TimeoutError:
                pass
        return False

    async def _walk_out(self, others: list[bytes]) -> bool:
        """Leave it to the others, at least one of whom must still be there then."""
        compares = [present(self._session), *(present(self._keys.session(sid)) for sid in others[:1])]
        bye = _entry(self.reader.now(), [pack_input(Gone(self.sid, self._why_leaving), 0)])
        ops: list[Op] = [Put(self._keys.entry(self.sid, self._number + 1), bye), Delete(one(self._session))]
        return await self._try_to_leave(compares, ops)

    async def _close_down(self) -> bool:
        """Delete the room, if nothing was said in it that we have not heard."""
        keys, last = self._keys, self.reader.replica.engine.last_number
        compares = [present(self._session), unchanged_since(keys.watched, self.reader.seen)]
        ops: list[Op] = [Delete(keys.all), Delete(one(keys.marker))]
        if last > self._lives:
            compares.append(self._lives_as_noted)
            ops.append(Put(self._premises.layout.lives, b"%d" % last))
        return await self._try_to_leave(compares, ops)

    async def _try_to_leave(self, compares: list[Compare], ops: list[Op]) -> bool:
        told: list[Op] = [Get(one(self._session)), Get(one(self._premises.layout.lives))]
        try:
            result = await self._client.txn(compares, ops, told)
        except StoreFullError:
            await self._client.delete(one(self._session))  # the rest is done by who comes when there is space again
            return True
        if result.succeeded:
            return True
        session, lives = result.found
        before = self._lives_written
        self._note_lives(lives)
        if self._lives_written != before:
            self.reader.moved.set()  # another room has gone, which is no reason to wait
        return session is None  # by an earlier sending, or with our lease

    def _note_lives(self, lives: KeyValue | None) -> int:
        self._lives, self._lives_written = (0, 0) if lives is None else (int(lives.value), lives.mod_revision)
        return self._lives

    @property
    def _lives_as_noted(self) -> Compare:
        return modified_at(self._premises.layout.lives, self._lives_written)


def _entry(now: float, inputs: list[Packed]) -> bytes:
    """An entry that is written now; `now`: the room's time."""
    return encode_entry(now, _date(), inputs)


def _date() -> float:
    """What the calendar says, in seconds since 1970, all that the last one in a room shares with the next.

    Nothing is timed by it while somebody is in the room.
    """
    return time.time()
