"""What the connections of one owner have in common, so that ten thousand of them cost little more than their sockets.

A connection that is idle holds no memory to read into, and one that owes the other end an acknowledgement holds no
timer: both are here once for all the connections of a store, or of one member's session.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from aiopg._core.frames import receive_buffer

__all__ = ["ACKNOWLEDGE_SECONDS", "Commons", "Debtor"]

ACKNOWLEDGE_SECONDS = 0.1
"""A message that nothing of ours answered by then is acknowledged by a frame of its own."""

RATION = 64
RATION_SECONDS = 0.02
"""Of such frames no more than this go out at once, and then a pause. Where thousands wait for one barrier their answers
will say it soon, and ten thousand frames before that would take longer than the barrier."""


class Debtor(Protocol):
    """A connection that owes an acknowledgement."""

    def acknowledge_late(self) -> bool:
        """Pay what is still owed; whether anything was."""


class Commons:
    """Memory to read into, and the timer of late acknowledgements, for connections of the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._owing: deque[tuple[float, Debtor]] = deque()  # the earliest first, as all have the same time
        self._timer: asyncio.TimerHandle | None = None
        self.buffer = receive_buffer()
        """They read one after another: a read and what is made of it are one callback of the loop."""

    def owe(self, debtor: Debtor) -> None:
        """Have it pay in `ACKNOWLEDGE_SECONDS`, or as soon after that as its turn comes. Once for each call."""
        self._owing.append((self._loop.time() + ACKNOWLEDGE_SECONDS, debtor))
        if self._timer is None:
            self._timer = self._loop.call_later(ACKNOWLEDGE_SECONDS, self._collect)

    def forgive(self) -> None:
        """Nobody owes anything any more: the connections are over."""
        self._owing.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _collect(self) -> None:
        self._timer = None
        owing, now, paid = self._owing, self._loop.time(), 0
        while owing and owing[0][0] <= now and paid < RATION:
            paid += owing.popleft()[1].acknowledge_late()
        if owing:
            pause = RATION_SECONDS if paid == RATION else owing[0][0] - now
            self._timer = self._loop.call_later(pause, self._collect)
