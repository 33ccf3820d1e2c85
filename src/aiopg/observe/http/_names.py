"""Names of groups as labels of metrics: so many and no more, and who knows better than a store what names there are."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["GROUPS_NAMED", "OTHER", "Names"]

GROUPS_NAMED = 50
"""Groups that have series of their own. A series costs whoever keeps it memory for days, also if its group lives for a
second; and names of groups are made up by programs, a new one for each run of some."""

OTHER = "other"
"""All further groups together."""

KEPT_SECONDS = 3600.0
"""So long after its group was seen last a name keeps its place: a group that comes again goes on with its series."""


class Names:
    """Which names have series of their own: those that came first."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}

    def see(self, names: Iterable[str], now: float) -> None:
        """These groups are there, at `now` (monotonic seconds)."""
        for name in names:
            if name in self._seen or len(self._seen) < GROUPS_NAMED or self._make_room(now):
                self._seen[name] = now

    def label(self, name: str) -> str:
        """What stands for this group in a series. Bytes that are no text, which a name may have, are written out."""
        return name.encode(errors="backslashreplace").decode() if name in self._seen else OTHER

    def _make_room(self, now: float) -> bool:
        old = min(self._seen, key=self._seen.__getitem__)
        if now - self._seen[old] < KEPT_SECONDS:
            return False
        del self._seen[old]
        return True
