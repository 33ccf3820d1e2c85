"""Who waits for keys to be there.

A call names several of them and is answered when all are there at one moment; until then it leaves no trace. It stands
in the line of one name that is not there; when that comes, it goes on to the next one that is not. So N calls for the
same N names, as when each rank waits for what all say of themselves, look at each name once, and not at all names
whenever one comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from aiopg._core.frames import Body
from aiopg._core.keys.queues import Queues
from aiopg._core.keys.values import Values
from aiopg._core.limits import Limits
from aiopg._core.parts import join_parts
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, PayloadTooLargeError

__all__ = ["NAME_COSTS", "Waits"]

NAME_COSTS = 64
"""Bytes that a name is counted with, beside its own, while a call waits for it."""


class _Presence(Waiting):
    __slots__ = ("_waits", "names", "place", "wants_values")

    def __init__(
        self, session: SessionId, seat: int, call: int, waits: Waits, names: Sequence[str], wants_values: bool
    ) -> None:
        super().__init__(session, seat, call)
        self._waits = waits
        self.names = names
        self.place = 0  # of the name in whose line it stands
        self.wants_values = wants_values

    @property
    def cost(self) -> int:
        """Bytes that it is counted with."""
        return sum(map(len, self.names)) + NAME_COSTS * len(self.names)

    def facts(self) -> tuple[list[int], list[int]]:
        there = [self._waits.is_there(name, self.wants_values) for name in self.names]
        places = range(len(self.names))
        return [place for place in places if there[place]], [place for place in places if not there[place]]

    def withdraw(self) -> bool:
        self._waits.remove(self)
        return True


class Waits:
    """All such calls of one space."""

    __slots__ = ("_by_name", "_limits", "_queues", "_replies", "_values", "bytes")

    def __init__(self, limits: Limits, replies: Replies, values: Values, queues: Queues) -> None:
        self._limits = limits
        self._replies = replies
        self._values = values
        self._queues = queues
        self._by_name: dict[str, dict[_Presence, None]] = {}
        self.bytes = 0
        """Of the names that are waited for, and `NAME_COSTS` for each."""

    def is_there(self, name: str, as_value: bool) -> bool:
        """Whether this is a key or, unless it is wanted `as_value`, a queue that holds something."""
        return name in self._values or (not as_value and name in self._queues)

    def values_of(self, names: Sequence[str]) -> Body | None:
        """What these keys hold, as parts; None unless all are there. Raises `PayloadTooLargeError`."""
        found = [self._values.get(name) for name in names]
        values = [value for value in found if value is not None]
        if len(values) < len(found):
            return None
        size = sum(map(len, values))
        if size > self._limits.payload_bytes:
            raise PayloadTooLargeError(size, self._limits.payload_bytes)
        return join_parts(list(values))  # not copied: a session may have thousands of calls for the same large ones

    def cost(self, names: Sequence[str]) -> int:
        """How many bytes it is to wait for these."""
        return sum(map(len, names)) + NAME_COSTS * len(names)

    def add(self, session: SessionId, seat: int, call: int, names: Sequence[str], *, wants_values: bool) -> None:
        """Wait until all these are there; they are not now. Raises as `Replies.check`."""
        presence = _Presence(session, seat, call, self, names, wants_values)
        self._replies.wait(presence)
        self.bytes += presence.cost
        self._stand_in_line(presence)

    def came(self, name: str) -> None:
        """A key or an item of a queue has come: who waited for just that is answered."""
        for presence in self._by_name.pop(name, ()):
            if self._stand_in_line(presence):
                continue
            self.bytes -= presence.cost
            if presence.wants_values:
                self._answer_with_values(presence)
            else:
                self._replies.answer(presence)

    def remove(self, presence: _Presence) -> None:
        """One that waits no more."""
        self.bytes -= presence.cost
        name = presence.names[presence.place]
        line = self._by_name[name]
        del line[presence]
        if not line:
            del self._by_name[name]

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        waiting = [presence for line in self._by_name.values() for presence in line]
        self._by_name.clear()
        self.bytes = 0
        self._replies.fail(waiting, error)

    def _stand_in_line(self, presence: _Presence) -> bool:
        """Have it wait for the next of its names that is not there; False if all are."""
        names = presence.names
        for place in chain(range(presence.place, len(names)), range(presence.place)):
            if not self.is_there(names[place], presence.wants_values):
                presence.place = place
                self._by_name.setdefault(names[place], {})[presence] = None
                return True
        return False

    def _answer_with_values(self, presence: _Presence) -> None:
        try:
            values = self.values_of(presence.names)
        except PayloadTooLargeError as error:
            self._replies.fail([presence], error)
            return
        assert values is not None  # all are there
        self._replies.answer(presence, values)
