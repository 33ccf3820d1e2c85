"""The rounds that ended in the last minutes, a second at a time, each with its slowest one and who that waited for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from aiopg.observe.picture import Finished

__all__ = ["KEPT_SECONDS", "Timeline"]

KEPT_SECONDS = 180

LIVES_KEPT = 1024
"""Lives of groups; past it the one goes of which nothing was heard for longest."""


class Second:
    """What ended within one second."""

    __slots__ = ("count", "failed", "op", "rank", "slowest")

    def __init__(self) -> None:
        self.count = self.failed = 0
        self.slowest = -1.0
        self.rank = -1
        self.op = ""

    def add(self, finished: Finished) -> None:
        """Count a round, and note it if it is the slowest."""
        self.count += 1
        self.failed += bool(finished.failed)
        took = finished.done - finished.opened
        if took > self.slowest:
            self.slowest, self.rank, self.op = took, finished.last_rank, finished.op

    def fields(self, second: int) -> list[Any]:
        """[second, rounds, those that failed, seconds that the slowest took, its last rank, its op]."""
        return [second, self.count, self.failed, round(self.slowest, 6), self.rank, self.op]


class Timeline:
    """The last `KEPT_SECONDS` of every life of a group."""

    def __init__(self) -> None:
        self._lives: OrderedDict[tuple[str, int], dict[int, Second]] = OrderedDict()

    def add(self, finished: Iterable[Finished]) -> None:
        """Take rounds that ended, in the order in which they did."""
        for one in finished:
            key = (one.group, one.incarnation)
            seconds = self._lives.get(key)
            if seconds is None:
                seconds = self._lives[key] = {}
            self._lives.move_to_end(key)
            at = int(one.done)
            if at not in seconds:
                seconds[at] = Second()
                for old in [second for second in seconds if second <= at - KEPT_SECONDS]:
                    del seconds[old]
            seconds[at].add(one)
        while len(self._lives) > LIVES_KEPT:
            self._lives.popitem(last=False)

    def since(self, group: str, incarnation: int, second: int) -> list[list[Any]]:
        """The seconds of a life from this one on."""
        seconds = self._lives.get((group, incarnation), {})
        return [one.fields(at) for at, one in seconds.items() if at >= second]
