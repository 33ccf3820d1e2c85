"""Who waits for keys to be there.

A call names several of them and is answered when all are there at one moment; until then it leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiopg._core.frames import Body
from aiopg._core.keys.queues import Queues
from aiopg._core.keys.values import Values
from aiopg._core.limits import Limits
from aiopg._core.parts import pack_parts
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, PayloadTooLargeError

__all__ = ["NAME_COSTS", "Waits"]

NAME_COSTS = 64
"""Bytes that a name is counted with, beside its own, while a call waits for it."""


class _Presence(Waiting):
    __slots__ = ("_waits", "names", "wants_values")

    def __init__(
        self, session: SessionId, seat: int, call: int, waits: Waits, names: Sequence[str], wants_values: bool
    ) -> None:
        super().__init__(session, seat, call)
        self._waits = waits
        self.names = names
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
        self._by_name: dict[str, list[_Presence]] = {}
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
        return pack_parts(list(values))

    def cost(self, names: Sequence[str]) -> int:
        """How many bytes it is to wait for these."""
        return sum(map(len, names)) + NAME_COSTS * len(names)

    def add(self, session: SessionId, seat: int, call: int, names: Sequence[str], *, wants_values: bool) -> None:
        """Wait until all these are there; they are not now. Raises as `Replies.check`."""
        presence = _Presence(session, seat, call, self, names, wants_values)
        self._replies.wait(presence)
        self.bytes += presence.cost
        for name in dict.fromkeys(names):
            self._by_name.setdefault(name, []).append(presence)

    def came(self, name: str) -> None:
        """A key or an item of a queue has come: who waited for just that is answered."""
        for presence in list(self._by_name.get(name, ())):
            if presence.wants_values:
                self._answer_with_values(presence)
            elif all(self.is_there(one, as_value=False) for one in presence.names):
                self.remove(presence)
                self._replies.answer(presence)

    def remove(self, presence: _Presence) -> None:
        """One that waits no more."""
        self.bytes -= presence.cost
        for name in dict.fromkeys(presence.names):
            waiting = self._by_name[name]
            waiting.remove(presence)
            if not waiting:
                del self._by_name[name]

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        waiting = list(dict.fromkeys(presence for line in self._by_name.values() for presence in line))
        self._by_name.clear()
        self.bytes = 0
        self._replies.fail(waiting, error)

    def _answer_with_values(self, presence: _Presence) -> None:
        try:
            values = self.values_of(presence.names)
        except PayloadTooLargeError as error:
            self.remove(presence)
            self._replies.fail([presence], error)
            return
        if values is not None:
            self.remove(presence)
            self._replies.answer(presence, values)
