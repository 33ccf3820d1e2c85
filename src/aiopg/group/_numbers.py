"""Numbers of calls: taken when a call is made, given back when it was taken back."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterator
from functools import partial
from itertools import count

__all__ = ["Numbers"]


class Numbers:
    """Numbers from 1 for each key. A number given back is the next one taken: calling again is the same call again."""

    def __init__(self) -> None:
        self.fresh: defaultdict[Hashable, Iterator[int]] = defaultdict(partial(count, 1))
        """The numbers of each key that were never taken: where none are `free`, to take the next one is no call."""
        self.free: dict[Hashable, list[int]] = {}
        """Those given back."""

    def take(self, key: Hashable) -> int:
        """The lowest free number of `key`."""
        if self.free and (free := self.free.get(key)):
            number = heapq.heappop(free)
            if not free:
                del self.free[key]
            return number
        return next(self.fresh[key])

    def give_back(self, key: Hashable, number: int) -> None:
        """The call with this number left no trace."""
        heapq.heappush(self.free.setdefault(key, []), number)
