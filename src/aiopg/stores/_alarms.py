"""One timer for all the waits of a link.

Nearly every call is answered long before anybody would look at the clock. A timer of its own for each call
(`asyncio.timeout`) took about a sixth of a barrier's time in the client; an entry in a dict takes next to nothing.
The one timer is set to the earliest time that was ever asked for and set again only when it rings.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

__all__ = ["Alarms", "Sleeper"]


class Sleeper(Protocol):
    """What an alarm rings for."""

    def ring(self) -> None:
        """The time has come. Called once, and not after `Alarms.clear`."""


class Alarms:
    """Times at which sleepers are to be rung, in the running loop's time."""

    def __init__(self) -> None:
        self.times: dict[Sleeper, float] = {}
        """When each is to be rung; a time before `timer_at` needs `set_timer` too."""
        self._timer: asyncio.TimerHandle | None = None
        self.timer_at = math.inf
        """When `times` will be looked at next."""

    def set(self, sleeper: Sleeper, when: float) -> None:
        """Ring `sleeper` at `when`, once; `math.inf` is never."""
        self.times[sleeper] = when
        if when < self.timer_at:
            self.set_timer(when)

    def clear(self, sleeper: Sleeper) -> None:
        """Do not ring it. The timer stays as it is: to ring for nobody is cheaper than to set it for each call."""
        self.times.pop(sleeper, None)

    def close(self) -> None:
        """Ring for nobody any more."""
        self.times.clear()
        if self._timer is not None:
            self._timer.cancel()

    def set_timer(self, when: float) -> None:
        """Look at `times` at `when`, which is before `timer_at`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._ring)
        self.timer_at = when

    def _ring(self) -> None:
        self._timer, self.timer_at = None, math.inf
        now = asyncio.get_running_loop().time()
        for sleeper in [sleeper for sleeper, when in self.times.items() if when <= now]:
            del self.times[sleeper]
            sleeper.ring()
        earliest = min(self.times.values(), default=math.inf)
        if earliest < math.inf:
            self.set_timer(max(earliest, now))
