"""The model behind everything that shows a store: from what it says of itself, a picture of who waits for whom.

Theory of operation. A `View` is fed with two things, in any order, as they come:

- a *status* (`StoreLink.status()`): all that is now. It is always right, and costs the store work for each rank.
- *happenings* (`StoreLink.trace()`): what came to pass since the last ones. They are cheap, give the times from which
  latencies are made, and keep the picture up to date between two statuses.

A status may be older than happenings that were heard before it, or newer than those that are heard next: a round that
is known to be over stays so, and what is heard twice changes nothing. When a reader has missed happenings the rounds
that were under way are forgotten until a status names them again: half a round would give wrong times.

Stores without a recorder give statuses only. Then there are no rates and latencies, and a round is as old as the first
status in which it was. (Rates are made of what a store counts: who reads happenings of a busy store misses some.)

A view does no I/O and knows no clock: times are those of the store, in monotonic seconds. It is bounded: it holds the
groups of the last status and those that were heard of since, and of each what `observe._lives` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiopg.observe._lives import RECENT_SECONDS, Life
from aiopg.observe.picture import Finished, Picture
from aiopg.stores.base import Happening

__all__ = ["View"]


class View:
    """What is known of a store."""

    def __init__(self) -> None:
        self._store: dict[str, Any] = {}
        self._lives: dict[tuple[str, int], Life] = {}
        self._now = 0.0

    def see(self, status: Mapping[str, Any], at: float) -> None:
        """Take what the store says of itself at that moment."""
        self._store = {key: value for key, value in status.items() if key != "groups"}
        self._now = max(self._now, at)
        seen = set()
        for told in status["groups"]:
            key = (told["name"], told["incarnation"])
            seen.add(key)
            self._life(key).take(told, at)
        for key in [key for key, life in self._lives.items() if key not in seen and life.seen < at]:
            del self._lives[key]

    def hear(self, happenings: Iterable[Happening], now: float, *, missed: bool = False) -> list[Finished]:
        """Take what happened, in order, up to `now`; the rounds that ended in it.

        `missed`: whether there were others between these and those that were heard before.
        """
        if missed:
            for life in self._lives.values():
                life.open.clear()
        ended = []
        for _, at, kind, group, incarnation, rank, op, tag, seq, text in happenings:
            life = self._life((group, incarnation))
            life.seen = at
            if kind == "arrived":
                life.arrived(op, tag, seq, rank, at)
            elif kind == "opened":
                life.opened(op, tag, seq, at, text)
            elif kind == "done":
                ended.append(life.done(tag, seq, rank, at))
            elif kind == "failed":
                ended.append(life.failed(tag, seq, rank, at, text))
            elif kind == "over":
                life.over_with(tag, seq, at)
            elif kind == "withdrawn":
                life.withdrawn(tag, seq, rank)
            elif kind in ("joined", "left", "lost", "away", "back", "aborted"):
                life.member(kind, rank, at, text)
        self._now = max(self._now, now)
        for life in self._lives.values():
            life.forget(now - RECENT_SECONDS)
        return [finished for finished in ended if finished is not None]

    def picture(self, now: float | None = None) -> Picture:
        """How the store looks; at the last moment that it was fed with if none is given."""
        now = self._now if now is None else max(now, self._now)
        lives = sorted(self._lives.values(), key=lambda life: (life.name, life.incarnation))
        return Picture(store=self._store, groups=[life.view(now) for life in lives if life.told])

    # -------------------------------------------------------------------------------------------------- inside

    def _life(self, key: tuple[str, int]) -> Life:
        life = self._lives.get(key)
        if life is None:
            life = self._lives[key] = Life(*key)
        return life
