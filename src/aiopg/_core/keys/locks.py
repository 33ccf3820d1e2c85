"""Locks: one holder at a time, in the order of asking.

Rules:

- A lock is held by a session (in a group's space: by a member), until that lets go of it or goes.
- With it comes a number that is larger than that of every holder before, in this space and in those of earlier lives of
  the group. A holder may be taken for gone while it still acts, so whatever a lock protects outside the store has to
  refuse smaller numbers than the largest that it has seen (a fencing token, see Kleppmann, "How to do distributed
  locking", 2016).
"""

from __future__ import annotations

from aiopg._core.key_messages import Lock
from aiopg._core.keys.values import KEY_COSTS, Owner
from aiopg._core.limits import Limits
from aiopg._core.messages import pack_value
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, StoreFullError

__all__ = ["Locks"]

NUMBERS_OF_A_LIFE = 32
"""Bits: numbers of a later life of a group are larger than all of an earlier one."""


class _Lock:
    __slots__ = ("line", "number", "owner")

    def __init__(self, owner: Owner, number: int) -> None:
        self.owner = owner
        self.number = number
        self.line: dict[_Asking, None] = {}  # in the order of asking; of thousands any one may give up


class _Asking(Waiting):
    __slots__ = ("_locks", "key")

    def __init__(self, session: SessionId, lock: Lock, locks: Locks) -> None:
        super().__init__(session, lock.seat, lock.call)
        self._locks = locks
        self.key = lock.key

    def facts(self) -> tuple[list[int], list[int]]:
        return [], [0]

    def withdraw(self) -> bool:
        self._locks.remove(self)
        return True


class Locks:
    """All locks of one space that somebody holds."""

    __slots__ = ("_held", "_last", "_limits", "_locks", "_replies", "bytes")

    def __init__(self, life: int, limits: Limits, replies: Replies) -> None:
        """`life`: number of the incarnation whose space this is; 0 for the store's own."""
        self._limits = limits
        self._replies = replies
        self._locks: dict[str, _Lock] = {}
        self._held: dict[Owner, dict[str, None]] = {}
        self._last = life << NUMBERS_OF_A_LIFE
        self.bytes = 0
        """Of names, and `KEY_COSTS` for each."""

    def cost(self, key: str) -> int:
        """How many bytes more it is to hold this lock; none where somebody does."""
        return 0 if key in self._locks else len(key) + KEY_COSTS

    def ask(self, session: SessionId, lock: Lock) -> None:
        """Give the lock to a session, or let it stand in line. Raises `StoreFullError`, and as `Replies.check`."""
        self._replies.check(session, lock.call)
        held = self._locks.get(lock.key)
        if held is not None:
            asking = _Asking(session, lock, self)
            self._replies.wait(asking)
            held.line[asking] = None
            return
        if len(self._locks) >= self._limits.keys:
            raise StoreFullError("keys", self._limits.keys, "locks")
        self.bytes += self.cost(lock.key)
        number = self._give(lock.key, (session, lock.seat), {})
        self._replies.answer_now(session, lock.call, pack_value(number))

    def let_go(self, owner: Owner, key: str, number: int) -> bool:
        """Let go of a lock; False if this owner does not hold it with that number."""
        lock = self._locks.get(key)
        if lock is None or (lock.owner, lock.number) != (owner, number):
            return False
        self._pass_on(key, lock)
        return True

    def end_owner(self, owner: Owner) -> None:
        """Who held locks has gone."""
        for key in list(self._held.get(owner, ())):
            self._pass_on(key, self._locks[key])

    def remove(self, asking: _Asking) -> None:
        """One that stands in line no more."""
        del self._locks[asking.key].line[asking]

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        for lock in self._locks.values():
            self._replies.fail(lock.line, error)
            lock.line.clear()

    def _pass_on(self, key: str, lock: _Lock) -> None:
        held = self._held[lock.owner]
        del held[key]
        if not held:
            del self._held[lock.owner]
        if not lock.line:
            del self._locks[key]
            self.bytes -= len(key) + KEY_COSTS
            return
        asking = next(iter(lock.line))
        del lock.line[asking]
        number = self._give(key, (asking.session, asking.seat), lock.line)
        self._replies.answer(asking, pack_value(number))

    def _give(self, key: str, owner: Owner, line: dict[_Asking, None]) -> int:
        self._last += 1
        lock = self._locks[key] = _Lock(owner, self._last)
        lock.line = line
        self._held.setdefault(owner, {})[key] = None
        return self._last
