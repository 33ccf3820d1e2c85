"""One key space: the store's own, or that of one incarnation of a group.

It puts its state machines together. What a session may ask of it, and what makes no sense, `requests` says.
"""

from __future__ import annotations

from typing import Final, Protocol

from aiopg._core.keys.changes import Changes
from aiopg._core.keys.locks import Locks
from aiopg._core.keys.meetings import Meetings
from aiopg._core.keys.queues import Queues
from aiopg._core.keys.values import Owner, Values
from aiopg._core.keys.waits import Waits
from aiopg._core.limits import Limits
from aiopg._core.replies import Replies
from aiopg.errors import AiopgError, StoreFullError

__all__ = ["NO_KEYS", "Owner", "Room", "Space"]


NO_KEYS: Final = {"keys": 0, "queues": 0, "bytes": 0}
"""What `Space.describe` says of one that nobody has used."""


class Room(Protocol):
    """Whose bytes a space's are."""

    def check_room(self, size: int) -> None:
        """Raises `StoreFullError` if `size` more bytes are too many."""


class Space:
    """Keys, queues, meetings, locks, and who waits for them."""

    __slots__ = ("changes", "limits", "locks", "meetings", "queues", "replies", "room", "values", "waits")

    def __init__(self, room: Room, life: int, limits: Limits, replies: Replies) -> None:
        """`life`: number of the incarnation; 0 for the store's own."""
        self.room = room
        self.limits = limits
        self.replies = replies
        self.changes = Changes(limits, replies)
        self.values = Values(self.changes)
        self.queues = Queues(limits, replies)
        self.waits = self.queues.waits = Waits(limits, replies, self.values, self.queues)
        self.meetings = Meetings(limits, replies)
        self.locks = Locks(life, limits, replies)

    @property
    def bytes(self) -> int:
        """Bytes that the space is counted with."""
        return self.values.bytes + self.queues.bytes + self.changes.bytes + self.waits.bytes + self.locks.bytes

    def __len__(self) -> int:
        """Keys and queues."""
        return len(self.values) + len(self.queues)

    def check_names(self, more: int) -> None:
        """Raises `StoreFullError` if so many more keys and queues are too many."""
        if len(self) + more > self.limits.keys:
            raise StoreFullError("keys", self.limits.keys, "keys and queues")

    def end_owner(self, owner: Owner) -> None:
        """A session or a member has gone, and takes along what is its."""
        self.locks.end_owner(owner)
        self.values.end_owner(owner)

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        for part in (self.waits, self.queues, self.meetings, self.locks, self.changes):
            part.fail(error)

    def describe(self) -> dict[str, object]:
        """State for people, plain values only."""
        return {"keys": len(self.values), "queues": sum(1 for _ in self.queues), "bytes": self.bytes}
