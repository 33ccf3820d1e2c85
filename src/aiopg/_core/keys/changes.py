"""The changes of one key space, and who waits to hear of them.

Rules:

- Each change has the next *revision*, from 1.
- A follower says after which revision it wants to hear, and of keys that begin how; it is answered once, with what
  there is or with the first thing that comes, and then asks again from there. So it hears everything once, in order.
- Only so many changes are kept. Who asks for older ones gets `WatchGapError`, never a silent gap; so does who asks
  for what follows a revision that was never reached: it is of another life of the space.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from aiopg._core.key_messages import FROM_NOW, Follow
from aiopg._core.limits import Limits
from aiopg._core.messages import pack_value
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, WatchGapError

__all__ = ["DELETED", "ENDED", "EXPIRED", "SET", "Changes"]

SET: Final = 0
DELETED: Final = 1
EXPIRED: Final = 2
ENDED: Final = 3
"""Its session or its member has gone."""

CHANGES_TOLD = 256
"""In one answer, and not much over ..."""
BYTES_TOLD = 1024 * 1024
"""... these bytes: more is for the next one."""


class _Change(NamedTuple):
    revision: int
    kind: int
    key: str
    value: bytes | None

    @property
    def size(self) -> int:
        return len(self.key) + (len(self.value) if self.value is not None else 0)


class _Follower(Waiting):
    __slots__ = ("_changes", "prefix")

    def __init__(self, session: SessionId, follow: Follow, changes: Changes) -> None:
        super().__init__(session, follow.seat, follow.call)
        self._changes = changes
        self.prefix = follow.prefix

    def facts(self) -> tuple[list[int], list[int]]:
        return [], []

    def withdraw(self) -> bool:
        self._changes.remove(self)
        return True


class Changes:
    """What changed last, oldest first."""

    __slots__ = ("_kept", "_lengths", "_limits", "_replies", "bytes", "followers", "forgotten", "revision")

    def __init__(self, limits: Limits, replies: Replies) -> None:
        self._limits = limits
        self._replies = replies
        self._kept: deque[_Change] = deque()
        self.bytes = 0
        """Of the keys and values that are kept."""
        self.revision = 0
        """The last change's."""
        self.forgotten = 0
        """Changes up to this revision are not kept any more."""
        self.followers: dict[str, dict[_Follower, None]] = {}
        """Who waits, by prefix. There may be thousands, of whom a change concerns none."""
        self._lengths: dict[int, int] = {}  # how many of the prefixes are so long

    def add(self, kind: int, key: str, value: bytes | None = None) -> int:
        """A key changed: who follows it is told. Returns the revision."""
        self.revision += 1
        change = _Change(self.revision, kind, key, value)
        self._kept.append(change)
        self.bytes += change.size
        while self.bytes > self._limits.kept_changes_bytes or len(self._kept) > self._limits.kept_changes:
            old = self._kept.popleft()
            self.bytes -= old.size
            self.forgotten = old.revision
        for length in list(self._lengths):
            if length <= len(key) and (told := self.followers.get(key[:length])) is not None:
                self._drop(key[:length])
                self._replies.answer_all(told, pack_value([self.revision, [change]]), receipt=False)
        return self.revision

    def follow(self, session: SessionId, follow: Follow) -> None:
        """Tell what follows a revision, now or when there is something.

        Raises `WatchGapError`, and as `Replies.check`.
        """
        after = self.revision if follow.after == FROM_NOW else follow.after
        if not self.forgotten <= after <= self.revision:
            raise WatchGapError(follow.prefix, after, self.forgotten)
        self._replies.check(session, follow.call)
        told: list[_Change] = []
        size = 0
        for change in self._kept:
            if change.revision > after and change.key.startswith(follow.prefix):
                told.append(change)
                size += change.size
                if len(told) == CHANGES_TOLD or size > BYTES_TOLD:
                    break
        if told:
            heard = told[-1].revision if len(told) == CHANGES_TOLD or size > BYTES_TOLD else self.revision
            self._replies.answer_now(session, follow.call, pack_value([heard, told]))
            return
        follower = _Follower(session, follow, self)
        self._replies.wait(follower)
        line = self.followers.get(follow.prefix)
        if line is None:
            line = self.followers[follow.prefix] = {}
            length = len(follow.prefix)
            self._lengths[length] = self._lengths.get(length, 0) + 1
        line[follower] = None

    def remove(self, follower: _Follower) -> None:
        """One that waits no more."""
        line = self.followers[follower.prefix]
        del line[follower]
        if not line:
            self._drop(follower.prefix)

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        for line in self.followers.values():
            self._replies.fail(line, error)
        self.followers.clear()
        self._lengths.clear()

    def _drop(self, prefix: str) -> None:
        """Nobody follows these keys any more."""
        del self.followers[prefix]
        length = len(prefix)
        self._lengths[length] -= 1
        if not self._lengths[length]:
            del self._lengths[length]
