"""Numbers of calls: taken when a call is made, given back when it was taken back."""

from __future__ import annotations

import heapq
from collections.abc import Hashable

__all__ = ["Numbers"]


class Numbers:
    """Numbers from 1 for each key. A number given back is the next one taken: calling again is the same call again."""

    def __init__(self) -> None:
        self._last: dict[Hashable, int] = {}
        self._free: dict[Hashable, list[int]] = {}

    def take(self, key: Hashable) -> int:
        """The lowest free number of `key`."""
        if self._free and (free := self._free.get(key)):
            number = heapq.heappop(free)
            if not free:
                del self._free[key]
            return number
        number = self._last[key] = self._last.get(key, 0) + 1
        return number

    def give_back(self, key: Hashable, number: int) -> None:
        """The call with this number left no trace."""
        heapq.heappush(self._free.setdefault(key, []), number)
