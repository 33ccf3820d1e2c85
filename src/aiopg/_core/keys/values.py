"""Values by name: what a key holds, for how long, and whose it is.

Rules:

- A key holds bytes. `ttl` gives it an end; an owner, which is a session or a member, takes it along when it goes.
- To set a key anew gives it a new end and a new owner, or none; to change what it holds leaves both.
- Every change is told (`Changes`). A key that is deleted, past its time or gone with its owner does not exist.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import TypeAlias

from aiopg._core.keys.changes import DELETED, ENDED, EXPIRED, SET, Changes
from aiopg._core.replies import SessionId

__all__ = ["KEY_COSTS", "Owner", "Values"]

Owner: TypeAlias = tuple[SessionId, int]
"""A session and its seat in the space's group; `key_messages.STORE` for the seat in the store's own space."""

KEY_COSTS = 128
"""Bytes that a key is counted with beside its name and its value."""

STALE_ENDS = 64
"""As many ends of keys that were set anew may lie about, and as many again as there are keys with an end."""


class _Value:
    __slots__ = ("bytes", "expires", "owner", "revision")

    def __init__(self, value: bytes, expires: float, owner: Owner | None, revision: int) -> None:
        self.bytes = value
        self.expires = expires
        self.owner = owner
        self.revision = revision


class Values:
    """All values of one space."""

    __slots__ = ("_changes", "_ends", "_mortal", "_owned", "_values", "bytes")

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._values: dict[str, _Value] = {}
        self._owned: dict[Owner, dict[str, None]] = {}
        self._ends: list[tuple[float, int, str]] = []  # a heap: (end, revision that gave the key this end, key)
        self._mortal = 0  # how many keys have an end
        self.bytes = 0
        """Of names and values, and `KEY_COSTS` for each."""

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str) -> bytes | None:
        """What a key holds, if there is such a key."""
        value = self._values.get(key)
        return None if value is None else value.bytes

    def cost(self, key: str, size: int) -> int:
        """How many bytes more it is to have `size` bytes under this key."""
        value = self._values.get(key)
        return size - len(value.bytes) if value is not None else len(key) + size + KEY_COSTS

    def set(self, key: str, value: bytes, expires: float, owner: Owner | None) -> int:
        """Give a key a value, an end and an owner. Returns the revision."""
        if key in self._values:
            self._forget(key)
        self.bytes += len(key) + len(value) + KEY_COSTS
        revision = self._changes.add(SET, key, value)
        self._values[key] = _Value(value, expires, owner, revision)
        if owner is not None:
            self._owned.setdefault(owner, {})[key] = None
        if expires != math.inf:
            self._mortal += 1
            heapq.heappush(self._ends, (expires, revision, key))
            if len(self._ends) > 2 * self._mortal + STALE_ENDS:
                self._ends = [end for end in self._ends if self._is_end(end)]
                heapq.heapify(self._ends)
        return revision

    def change(self, key: str, value: bytes) -> int:
        """Give a key another value, and leave its end and its owner; it may be new. Returns the revision."""
        held = self._values.get(key)
        if held is None:
            return self.set(key, value, math.inf, None)
        self.bytes += len(value) - len(held.bytes)
        held.bytes = value
        return self._changes.add(SET, key, value)

    def delete(self, key: str, kind: int = DELETED) -> bool:
        """Delete a key, if there is one."""
        if key not in self._values:
            return False
        self._forget(key)
        self._changes.add(kind, key)
        return True

    def end_owner(self, owner: Owner) -> None:
        """Who owned keys has gone."""
        for key in list(self._owned.get(owner, ())):
            self.delete(key, ENDED)

    def next_end(self) -> float:
        """When the first key may be past its time; infinite where none has an end."""
        return self._ends[0][0] if self._ends else math.inf

    def expire(self, now: float) -> None:
        """Keys past their time are gone."""
        while self._ends and self._ends[0][0] <= now:
            end = heapq.heappop(self._ends)
            if self._is_end(end):
                self.delete(end[2], EXPIRED)

    def _is_end(self, end: tuple[float, int, str]) -> bool:
        """Whether this is a key's end still: it may have been set anew, or be gone."""
        expires, revision, key = end
        value = self._values.get(key)
        return value is not None and (value.expires, value.revision) == (expires, revision)

    def _forget(self, key: str) -> None:
        value = self._values.pop(key)
        self.bytes -= len(key) + len(value.bytes) + KEY_COSTS
        if value.expires != math.inf:
            self._mortal -= 1
        if value.owner is not None:
            owned = self._owned[value.owner]
            del owned[key]
            if not owned:
                del self._owned[value.owner]
