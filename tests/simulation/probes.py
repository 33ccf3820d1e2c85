"""What a run reached inside the product: counters at the places that a good simulator must come to.

They change nothing and judge nothing; a count that stays 0 says that the simulator does not look where it should.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from aiopg._core.groups import Groups, Queued
from aiopg._core.keys.changes import ENDED, EXPIRED, Changes
from aiopg._core.keys.locks import Locks
from aiopg._core.keys.meetings import Meetings
from aiopg._core.keys.queues import Queues, _Pop
from aiopg._core.keys.values import Values
from aiopg._core.mailboxes import Mailboxes
from aiopg._core.membership import Membership
from aiopg._core.messages import Answer
from aiopg._core.replies import Replies
from aiopg._core.round import Arrival
from aiopg._core.rounds import Rounds
from aiopg._core.session import Session
from aiopg.client import Client
from aiopg.link import Link
from aiopg.server._scribe import Scribe
from aiopg.server._sessions import Sessions
from aiopg.stores._adrift import Adrift
from aiopg.stores._calls import Calls
from aiopg.stores._engine_keys import EngineKeys
from aiopg.stores._engine_member import EngineMember
from aiopg.stores._incoming import Incoming
from aiopg.stores._outgoing import Outgoing
from aiopg.stores.base import NumberUsedError

__all__ = ["PLACES", "probed"]

PLACES = (
    "a session resumed",
    "a session resumed with calls in flight",
    "frames sent again to the store",
    "frames sent again to a member",
    "frames held until there is room",
    "an arrival withdrawn in time",
    "an arrival withdrawn too late, and the same call again",
    "an arrival withdrawn too late, and another call",
    "a put taken back in time",
    "a put taken back too late",
    "a cancelled put called again that had gone",
    "a message for a take that was cancelled",
    "a tombstone",
    "parts of a round expired",
    "a member fenced",
    "a joiner queued",
    "a queued joiner seated or told why not",
    "a queued joiner refused",
    "a queued joiner gave up",
    "a join taken back after the group had formed",
    "a grace ran out",
    "a member gave its session up",
    "a store was another one",
    "a session overfull",
    "a mismatch owed to a rank that was answered before",
    "a call waited for room",
    "a session resumed after a restart",
    "an answer waited for the disk",
    "members waited for the disk",
    "an item put back by who gave its pop up",
    "an item put back as its consumer's session ended",
    "a pop waited for those that were given up",
    "a lock passed on by who let it go",
    "a lock let go that was granted too late",
    "a lock of a member or session that had gone",
    "a key of a member or session that had gone",
    "a key past its time",
    "a follower told at once of what came between two questions",
    "a meeting that began",
)


@contextmanager
def probed(counts: Counter[str]) -> Iterator[None]:
    """Count what is reached meanwhile."""
    with ExitStack() as stack:

        def wrap(owner: type, name: str, around: Callable[..., Any]) -> None:
            """Have `around(original, self, *args)` called in place of the method."""
            original = owner.__dict__[name]

            def wrapper(self: Any, *args: Any, **options: Any) -> Any:
                return around(original, self, *args, **options)

            stack.enter_context(patch.object(owner, name, wrapper))

        for install in (_sessions, _settling, _membership, _journal, _keys):
            install(wrap, counts)
        yield


def _sessions(wrap: Callable[..., None], counts: Counter[str]) -> None:
    lacking = [0]

    def resend(original: Any, self: Session, held: int) -> Any:
        frames = original(self, held)
        lacking[0] = len(frames)
        return frames

    def resume(original: Any, self: Sessions, connection: Any, open: Any, hello: bytes, welcome: bytes) -> None:
        original(self, connection, open, hello, welcome)
        counts["a session resumed"] += 1
        waiting = self.exchange.engine._replies.waiting_of(open.session)
        counts["a session resumed with calls in flight"] += bool(waiting)
        counts["frames sent again to a member"] += lacking[0]

    def opened(original: Any, self: Client, connection: Any, opened: Any) -> None:
        original(self, connection, opened)
        counts["frames sent again to the store"] += lacking[0]

    def hold_frame(original: Any, self: Link, *args: Any) -> None:
        counts["frames held until there is room"] += 1
        original(self, *args)

    def end(original: Any, self: Sessions, session: Any, reason: str) -> None:
        if session.line.id in self._members:
            counts["a grace ran out"] += "did not come back" in reason
            counts["a session overfull"] += "does not take" in reason
        original(self, session, reason)

    def lose(original: Any, self: Client, reason: str) -> None:
        counts["a member gave its session up"] += "no connection for" in reason
        counts["a store was another one"] += "started anew" in reason
        original(self, reason)

    async def find_room(original: Any, self: Calls, call: Any) -> None:
        counts["a call waited for room"] += 1
        await original(self, call)

    wrap(Session, "resend", resend)
    wrap(Sessions, "resume", resume)
    wrap(Client, "opened", opened)
    wrap(Link, "_hold_frame", hold_frame)
    wrap(Sessions, "_end", end)
    wrap(Client, "_lose", lose)
    wrap(Calls, "find_room", find_room)


def _settling(wrap: Callable[..., None], counts: Counter[str]) -> None:
    def withdrawn(original: Any, self: Replies, waiting: Any, *told: Any) -> None:
        counts["an arrival withdrawn in time"] += isinstance(waiting, Arrival)
        counts["a queued joiner gave up"] += isinstance(waiting, Queued)
        original(self, waiting, *told)

    async def decided_before(original: Any, self: EngineMember, *args: Any) -> Any:
        try:
            decided = await original(self, *args)
        except NumberUsedError:
            counts["an arrival withdrawn too late, and another call"] += 1
            raise
        counts["an arrival withdrawn too late, and the same call again"] += decided is not None
        return decided

    def take_back(original: Any, self: Mailboxes, *args: Any) -> bool:
        removed: bool = original(self, *args)
        counts["a put taken back in time" if removed else "a put taken back too late"] += 1
        return removed

    async def went(original: Any, self: Outgoing, *args: Any) -> bool:
        gone: bool = await original(self, *args)
        counts["a cancelled put called again that had gone"] += gone
        return gone

    def ended(original: Any, self: Incoming, request: Any) -> None:
        unwanted = request not in self._asked and type(request.outcome) is Answer
        counts["a message for a take that was cancelled"] += unwanted
        original(self, request)

    def expire_messages(original: Any, self: Mailboxes, now: float) -> int:
        count: int = original(self, now)
        counts["a tombstone"] += count
        return count

    def expire_round(original: Any, self: Rounds, round: Any, now: float) -> int:
        count: int = original(self, round, now)
        counts["parts of a round expired"] += count
        return count

    def mismatch(original: Any, self: Rounds, *args: Any) -> None:
        original(self, *args)
        counts["a mismatch owed to a rank that was answered before"] += bool(self._owed)

    wrap(Replies, "withdrawn", withdrawn)
    wrap(EngineMember, "_decided_before", decided_before)
    wrap(Mailboxes, "take_back", take_back)
    wrap(Outgoing, "went", went)
    wrap(Incoming, "_ended", ended)
    wrap(Mailboxes, "expire", expire_messages)
    wrap(Rounds, "_expire_round", expire_round)
    wrap(Rounds, "_mismatch", mismatch)


def _membership(wrap: Callable[..., None], counts: Counter[str]) -> None:
    def fence(original: Any, self: Membership, *args: Any) -> None:
        counts["a member fenced"] += 1
        original(self, *args)

    def queued(original: Any, self: Queued, *args: Any) -> None:
        counts["a joiner queued"] += 1
        original(self, *args)

    def let_go(original: Any, self: Replies, waiting: Any) -> None:
        counts["a queued joiner seated or told why not"] += 1
        original(self, waiting)

    def back(original: Any, self: Membership, session: Any) -> None:
        before = len(self.queue)
        original(self, session)
        counts["a queued joiner refused"] += before - len(self.queue)

    def unseat(original: Any, self: Groups, seat: Any) -> None:
        counts["a join taken back after the group had formed"] += seat.incarnation.live
        original(self, seat)

    wrap(Membership, "_fence", fence)
    wrap(Queued, "__init__", queued)
    wrap(Replies, "let_go", let_go)
    wrap(Membership, "back", back)
    wrap(Groups, "unseat", unseat)


def _journal(wrap: Callable[..., None], counts: Counter[str]) -> None:
    expected: set[bytes] = set()

    def expect(original: Any, self: Sessions, line: Any) -> None:
        expected.add(line.id)
        original(self, line)

    def back(original: Any, self: Scribe, line: Any) -> None:
        counts["a session resumed after a restart"] += line.id in expected
        expected.discard(line.id)
        original(self, line)

    def when_recorded(original: Any, self: Scribe, *actions: Any) -> None:
        waiting = len(self._waiting)
        original(self, *actions)
        counts["an answer waited for the disk"] += len(self._waiting) > waiting

    def slow_down(original: Any, self: Scribe, connections: Any) -> None:
        paused = bool(self._paused)
        original(self, connections)
        counts["members waited for the disk"] += bool(self._paused) and not paused

    wrap(Sessions, "_expect", expect)
    wrap(Scribe, "back", back)
    wrap(Scribe, "when_recorded", when_recorded)
    wrap(Scribe, "slow_down", slow_down)


def _keys(wrap: Callable[..., None], counts: Counter[str]) -> None:
    def put_back(original: Any, self: Queues, *args: Any) -> Any:
        counts["an item put back by who gave its pop up"] += 1
        return original(self, *args)

    def unconfirmed(original: Any, self: _Pop) -> None:
        if self.item is not None:
            counts["an item put back as its consumer's session ended"] += 1
            counts["an item put back by who gave its pop up"] -= 1
        original(self)

    async def settle(original: Any, self: Adrift, *args: Any) -> None:
        counts["a pop waited for those that were given up"] += 1
        await original(self, *args)

    def let_go(original: Any, self: Locks, *args: Any) -> bool:
        line = bool(self._locks) and any(lock.line for lock in self._locks.values())
        held: bool = original(self, *args)
        counts["a lock passed on by who let it go"] += held and line
        return held

    def locks_end_owner(original: Any, self: Locks, owner: Any) -> None:
        counts["a lock of a member or session that had gone"] += owner in self._held
        original(self, owner)

    def delete(original: Any, self: Values, key: str, *kind: int) -> bool:
        gone: bool = original(self, key, *kind)
        counts["a key of a member or session that had gone"] += gone and kind == (ENDED,)
        counts["a key past its time"] += gone and kind == (EXPIRED,)
        return gone

    def follow(original: Any, self: Changes, *args: Any) -> None:
        waiting = len(self.followers)
        original(self, *args)
        counts["a follower told at once of what came between two questions"] += len(self.followers) == waiting

    def come(original: Any, self: Meetings, session: Any, meet: Any) -> None:
        original(self, session, meet)
        counts["a meeting that began"] += meet.key not in self._meetings

    def leave_behind(original: Any, self: EngineKeys, pending: Any, late: Any) -> None:
        is_lock = late is not None and late.queue is None
        original(self, pending, _counted(late, counts) if is_lock else late)

    wrap(Queues, "put_back", put_back)
    wrap(_Pop, "unconfirmed", unconfirmed)
    wrap(Adrift, "settle", settle)
    wrap(Locks, "let_go", let_go)
    wrap(Locks, "end_owner", locks_end_owner)
    wrap(Values, "delete", delete)
    wrap(Changes, "follow", follow)
    wrap(Meetings, "come", come)
    wrap(EngineKeys, "_leave_behind", leave_behind)


def _counted(late: Any, counts: Counter[str]) -> Any:
    def undo(body: Any) -> None:
        counts["a lock let go that was granted too late"] += 1
        late.undo(body)

    return late._replace(undo=undo)
