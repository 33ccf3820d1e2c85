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
        self._times: dict[Sleeper, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def set(self, sleeper: Sleeper, when: float) -> None:
        """Ring `sleeper` at `when`, once; `math.inf` is never."""
        self._times[sleeper] = when
        if when < self._timer_at:
            self._set_timer(when)

    def clear(self, sleeper: Sleeper) -> None:
        """Do not ring it. The timer stays as it is: to ring for nobody is cheaper than to set it for each call."""
        self._times.pop(sleeper, None)

    def close(self) -> None:
        """Ring for nobody any more."""
        self._times.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(when, self._ring)
        self._timer_at = when

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        now = asyncio.get_running_loop().time()
        for sleeper in [sleeper for sleeper, when in self._times.items() if when <= now]:
            del self._times[sleeper]
            sleeper.ring()
        earliest = min(self._times.values(), default=math.inf)
        if earliest < math.inf:
            self._set_timer(max(earliest, now))
