"""What is counted of the happenings that were read: it only grows, as metrics must."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from aiopg.observe.picture import Finished, Histogram

__all__ = ["Tallies"]

GROUPS_KEPT = 1024
"""Names of groups whose rounds are counted apart; past it the one goes that had none for longest."""


class Tallies:
    """How long rounds took, by group."""

    def __init__(self) -> None:
        self.missed = 0
        """Happenings that the store did not keep until they were read."""
        self.took: OrderedDict[str, Histogram] = OrderedDict()
        """By group: from the first arrival to the last one, of rounds that were seen from beginning to end."""

    def add(self, finished: Iterable[Finished], missed: int) -> None:
        """Count rounds that ended; before them `missed` happenings were not read."""
        self.missed += missed
        for one in finished:
            if one.failed:
                continue
            histogram = self.took.get(one.group)
            if histogram is None:
                histogram = self.took[one.group] = Histogram()
            histogram.add(one.done - one.opened)
            self.took.move_to_end(one.group)
        while len(self.took) > GROUPS_KEPT:
            self.took.popitem(last=False)
