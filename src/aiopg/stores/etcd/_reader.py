"""What a session hears of its room: every entry, applied to a replica; and what is to be said because of it.

Beside what members say of themselves somebody has to write what no one says: that a session is over whose key is gone,
and that time has come. Every member could; they take turns by age, `TURN_SECONDS` apart, and who sees that another was
quicker has nothing to say.

The room's time is that of whoever is ahead: each member adds to it what its own clock has counted since, and follows
entries that say more.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from aiopg._core.blobs import Blob, blobs_in, brought_by, fill
from aiopg._core.engine import Events
from aiopg._core.entries import Entry, Gone, Said, decode_entry
from aiopg._core.frames import Buffer
from aiopg._core.messages import Answer, Event
from aiopg._core.replica import Replica
from aiopg.errors import ProtocolError
from aiopg.stores.etcd._blobs import fetch
from aiopg.stores.etcd._copy import PAGE, Copy, Head, Known
from aiopg.stores.etcd._errors import CompactedError
from aiopg.stores.etcd._layout import RoomKeys
from aiopg.stores.etcd._premises import LEASE_ENDED, Breath, FencedError, Premises
from aiopg.stores.etcd._sender import Sender
from aiopg.stores.etcd._watch import Event as Change

__all__ = ["Reader"]

TURN_SECONDS: Final = 0.2
TURNS: Final = 16
"""Of more members the rest come together with the last of these."""

AGAIN_SECONDS: Final = 1.0
"""Until what was not written is tried again."""

COMPANY_SECONDS: Final = 0.02
"""That an answer is in hand waits so long for a command that goes the same way."""


class Reader:
    """Of one session; begins with `begin`. Its attributes are for reading."""

    def __init__(
        self,
        premises: Premises,
        keys: RoomKeys,
        sid: bytes,
        sender: Sender,
        on_load: Callable[[], None],
        on_heard: Callable[[], None],
    ) -> None:
        """`on_load`: called when there is something to be written; `on_heard`: when something was heard."""
        self._premises = premises
        self._loop = premises.loop
        self._keys = keys
        self._sid = sid
        self._sender = sender
        self._on_load, self._on_heard = on_load, on_heard
        self._watch = premises.client.watch(keys.watched, 0)
        self.replica: Replica
        self.known: Known
        self.seen = 0
        """Changes up to this revision were heard."""
        self.applied = 0
        """That of the last entry that was applied."""
        self.head = 0
        """When the snapshot was written last, as far as we know."""
        self.blob_bytes = 0
        """What entries have referred to since the last snapshot."""
        self.moved = asyncio.Event()
        """Set whenever something was heard."""
        self.is_leaving = False
        """Whether our session's key may go."""
        self._ahead = -math.inf  # of the loop's clock
        self._said_here = 0  # number of our entry that says so
        self._over: dict[bytes, asyncio.TimerHandle] = {}  # sessions whose keys are gone
        self._due: asyncio.TimerHandle | None = None
        self._due_at = math.inf  # in the room's time, with our turn
        self._again: asyncio.TimerHandle | None = None
        self._company: asyncio.TimerHandle | None = None
        self._held: deque[Event] = deque()  # events that wait for what lies beside the log
        self._fetching: asyncio.Task[None] | None = None

    def begin(self, copy: Copy) -> None:
        """From this copy of the room on."""
        self.replica, self.known = copy.replica, copy.known
        self.seen, self.applied, self.head = copy.revision, copy.applied, copy.head
        self._follow(copy.replica.now)
        self._told(copy.events)

    def now(self) -> float:
        """The room's time."""
        return max(self.replica.now, self._loop.time() + self._ahead)

    @property
    def others(self) -> list[bytes]:
        """The sessions in the room that are not ours, and whose keys are there as far as we know; oldest first."""
        return [sid for sid in self.replica.sessions if sid != self._sid and sid not in self._over]

    @property
    def turn(self) -> int:
        """How many are before us when somebody is to do something for all."""
        turn = 0
        for sid in self.replica.sessions:
            if sid == self._sid or turn == TURNS:
                break
            turn += sid not in self._over
        return turn

    def entries_of(self, sid: bytes) -> int:
        """How many of a session's entries were applied."""
        session = self.replica.sessions.get(sid)
        return session.entries if session is not None else 0

    async def open(self) -> None:
        """Have etcd tell what changes, from now on: to be done before the room is read."""
        await self._watch.begin()

    async def listen(self) -> None:
        """Hear what changes behind the copy that we began with, for ever.

        Raises `FencedError` when our session is not in the room any more, `CompactedError` when the room has changed in
        ways that etcd does not know any more, and `ProtocolError` and `UsageError` for what members of ours never
        write.
        """
        while True:
            try:
                with self._watch:
                    async for batch in self._watch:
                        await self._hear_all(batch.events, batch.revision)
            except CompactedError as error:
                await self._catch_up(error)

    def stop(self) -> None:
        """Ring no more, and hear no more."""
        self._watch.close()
        for handle in (*self._over.values(), self._due, self._company, self._again):
            if handle is not None:
                handle.cancel()
        if self._fetching is not None:
            self._fetching.cancel()

    def try_again(self) -> None:
        """An entry was not written: whatever is to be said by us for all is said again in a while."""
        if self._again is None:
            self._again = self._loop.call_later(AGAIN_SECONDS, self._say_again)

    def _say_again(self) -> None:
        self._again, self._said_here, self._due_at = None, 0, math.inf
        for sid in self._over:
            self._bury(sid)
        self._sender.say_again()
        self._on_load()
        self._look_ahead()

    # ---------------------------------------------------------------------------------------------- what is heard

    async def _hear_all(self, changes: Iterable[Change], revision: int) -> None:
        breath = Breath()
        for change in changes:
            if change.entry.mod_revision > self.seen:
                self._hear(change)
            await breath.take()
        self.seen = max(self.seen, revision)
        self._look_ahead()
        self.moved.set()
        self._on_heard()

    async def _catch_up(self, error: CompactedError) -> None:
        """Changes that we have not heard are compacted away. Raises that if it matters.

        What was written is still there, unless a snapshot has it; and of what is not there any more the last entry in
        the snapshot tells whether we have heard it.
        """
        room = await self._premises.client.range(self._keys.read, page=PAGE)
        there = {entry.key: entry for entry in room.entries}
        head = there.pop(self._keys.head, None)
        if head is None:
            raise FencedError
        if Head.decode(head.value).revision > self.applied:
            raise error
        for key in [key for key in self.known.entries if key not in there]:
            self.known.drop(key)
        for sid in list(self.replica.sessions):
            if self._keys.session(sid) not in there:
                self._session_gone(sid)
        written = sorted(there.values(), key=lambda entry: entry.mod_revision)
        await self._hear_all([Change("put", entry) for entry in written], room.revision)
        self._watch = self._premises.client.watch(self._keys.watched, room.revision + 1)

    def _hear(self, change: Change) -> None:
        key = change.entry.key
        sid, number = self._keys.place(key)
        if not number:
            if change.kind == "delete":
                self._session_gone(sid)
            return
        if change.kind == "delete":
            # Somebody has made a snapshot.
            self.known.drop(key)
            self.blob_bytes = 0
            return
        self.known.add(change.entry)
        entry = decode_entry(change.entry.value, sid)
        events = self.replica.apply(sid, number, entry)
        self.applied = change.entry.mod_revision
        self.blob_bytes += _blob_bytes(entry)
        self._follow(entry.now)
        self._told(events)
        if self._over:
            self._forget_over()

    def _follow(self, now: float) -> None:
        self._ahead = max(self._ahead, now - self._loop.time())

    def _session_gone(self, sid: bytes) -> None:
        if sid == self._sid:
            if not self.is_leaving:
                raise FencedError
        elif sid in self.replica.sessions and sid not in self._over:
            turn = self.turn
            self._over[sid] = self._loop.call_later(turn * TURN_SECONDS, self._bury, sid)

    def _bury(self, sid: bytes) -> None:
        if sid in self.replica.sessions:
            self._sender.gone.append(Gone(sid, LEASE_ENDED))
            self._on_load()

    def _forget_over(self) -> None:
        for sid in [sid for sid in self._over if sid not in self.replica.sessions]:
            self._over.pop(sid).cancel()

    def _look_ahead(self) -> None:
        """Behind entries: what is to be said, now or in a while."""
        if self.replica.is_suspect(self._sid) and self.entries_of(self._sid) >= self._said_here:
            self._said_here = self.entries_of(self._sid) + 1
            self._sender.is_here = True
            self._on_load()
        due = self.replica.next_deadline()
        due_at = math.inf if due is None else due + self.turn * TURN_SECONDS
        if due_at != self._due_at:
            self._due_at = due_at
            if self._due is not None:
                self._due.cancel()
            self._due = None
            if due_at != math.inf:
                self._due = self._loop.call_at(due_at - self._ahead, self._ring)

    def _ring(self) -> None:
        self._follow(self._due_at)  # timers of uvloop ring up to a millisecond early
        self._due, self._due_at = None, math.inf
        self._sender.is_due = True
        self._on_load()

    # ---------------------------------------------------------------------------------------- what is told to us

    def _told(self, events: Events) -> None:
        for target, event in events:
            if target != self._sid:
                continue
            if not self._held and not blobs_in(event.body):
                self._hand_on(event, type(event) is Answer and event.receipt)
                continue
            self._held.append(event)
            if self._fetching is None:
                self._fetching = self._premises.spawn(self._fill_held)

    def _hand_on(self, event: Event, in_hand: bool) -> None:
        """`in_hand`: somebody is to be told that it is."""
        if not self._premises.received(event):
            return  # nobody has it: what was only just handed out goes back when our session ends
        if in_hand:
            self._sender.got.append(event.call)
            if self._company is None:
                self._company = self._loop.call_later(COMPANY_SECONDS, self._alone)

    def _alone(self) -> None:
        self._company = None
        if self._sender.got:
            self._on_load()

    async def _fill_held(self) -> None:
        """Fetch what lies beside the log and hand events on, in their order."""
        while self._held:
            event = self._held[0]
            fetched: dict[Blob, Buffer] = {}
            for blob in blobs_in(event.body):
                whole = await fetch(self._premises.client, self._keys, blob)
                if whole is None:
                    raise ProtocolError(f"a payload of {len(blob)} bytes is not in etcd, and is still needed")
                fetched[blob] = whole
            self._held.popleft()
            receipt = bool(fetched) or (type(event) is Answer and event.receipt)
            self._hand_on(event._replace(body=fill(event.body, fetched)), receipt)
        self._fetching = None


def _blob_bytes(entry: Entry) -> int:
    said = [one.command for one in entry.inputs if isinstance(one, Said)]
    return sum(len(blob) for command in said for blob in brought_by(command))
