"""A session that uses a key space."""

from __future__ import annotations

import math
from typing import Any

from aiopg._core.frames import Body
from aiopg._core.key_messages import (
    STORE,
    AddKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    GetKeys,
    ListKeys,
    Pop,
    Push,
    QueueLength,
    SetKeys,
    WaitKeys,
)
from aiopg._core.messages import Cancel
from aiopg._core.parts import join_parts

from .cluster import Cluster, Ticket

__all__ = ["User", "item"]


class User:
    """A session that uses a space: the store's own, or that of a seat."""

    def __init__(self, cluster: Cluster, session: object = "s", seat: int = STORE) -> None:
        self.cluster = cluster
        self.session = session
        self.seat = seat

    def say(self, kind: Any, *fields: Any, body: Body = ()) -> Ticket:
        """A command of this class with these fields."""
        return self.cluster.say(self.session, kind(self.cluster.number(), self.seat, *fields, body))

    def set(self, *, ttl: float = math.inf, lasting: bool = True, **items: bytes) -> Ticket:
        parts = [part for key, value in items.items() for part in (key.encode(), value)]
        return self.say(SetKeys, len(items), ttl, lasting, body=join_parts([*parts]))

    def names(self, kind: Any, *names: str) -> Ticket:
        return self.say(kind, len(names), body=join_parts([name.encode() for name in names]))

    def get(self, *names: str) -> Ticket:
        return self.names(GetKeys, *names)

    def wait(self, *names: str) -> Ticket:
        return self.names(WaitKeys, *names)

    def check(self, *names: str) -> bool:
        return bool(self.names(CheckKeys, *names).value)

    def listed(self, prefix: str = "") -> list[str]:
        listed = self.say(ListKeys, prefix).value
        assert self.say(CountKeys, prefix).value == len(listed)
        return sorted(listed)

    def add(self, key: str, amount: int) -> Ticket:
        return self.say(AddKey, amount, key)

    def compare_set(self, key: str, expected: bytes | None, desired: bytes) -> Ticket:
        return self.say(CompareSet, expected is None, key, body=join_parts([expected or b"", desired]))

    def push(self, key: str, value: bytes) -> Ticket:
        return self.say(Push, key, body=(value,))

    def pop(self, key: str, *, waits: bool = True) -> Ticket:
        return self.say(Pop, waits, key)

    def length(self, key: str) -> int:
        return int(self.say(QueueLength, key).value)

    def cancel(self, ticket: Ticket) -> None:
        self.cluster.say(self.session, Cancel(ticket.call))

    def end(self) -> None:
        """The session is over."""
        self.cluster.file(self.cluster.engine.end_session(self.session, "over"))


def item(ticket: Ticket) -> tuple[int, bytes]:
    """What a pop was answered with: the item's number, and the item."""
    return int.from_bytes(ticket.answer[:8]), ticket.answer[8:]
