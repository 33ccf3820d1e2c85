"""One direction of a connection through the proxy: bytes in order, held back as the conditions say.

Theory of operation.

- What the source end reads enters its lane and leaves it in the same order, each piece by one write to the sink end.
  In clear conditions, with nothing held, it passes at once and is never queued.
- A lane holds at most `HELD_BYTES` and one read; then its source is not read until half of that is gone.
- A lane writes only while its sink's transport holds nothing, so what was written is in the kernel's hands. That
  makes counts of bytes exact, and what comes behind a piece (an end of file, a reset) truly comes behind it.
- The end of a source is an item in the lane like its bytes: delays, stalls and held bytes keep it back too.
- Nothing is awaited: callbacks and at most one timer do it all, and `drop` takes that one back.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiopg.testing._relay import End, Relay

__all__ = ["Conditions", "Ending", "Lane"]

HELD_BYTES = 1 << 20
"""Bytes that a lane may hold. With a delay it bounds the rate: a megabyte per delay, each way."""

TICK = 0.02
"""Seconds of throttled traffic that are written as one piece."""


@dataclass(slots=True)
class Conditions:
    """What the proxy does to all its connections now, and the count of what it did."""

    pieces: random.Random
    stalled: bool = False
    most: int | None = None
    delay: float = 0.0
    rate: float | None = None
    clear: bool = True
    faults: Counter[str] = field(default_factory=Counter)

    def changed(self) -> None:
        """Keep `clear` true to the rest."""
        self.clear = not self.stalled and self.most is None and self.delay == 0 and self.rate is None


class Ending(enum.Enum):
    """How a source's bytes end."""

    FIN = enum.auto()
    RESET = enum.auto()


class Lane:
    """The bytes from one end to the other."""

    source: End
    sink: End

    def __init__(self, relay: Relay, conditions: Conditions) -> None:
        self._relay = relay
        self._conditions = conditions
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[float, memoryview | Ending]] = deque()  # each with the time when it may leave
        self._bytes = 0
        self._full = False
        self._allowed_at = 0.0
        self._next: asyncio.Handle | None = None
        self.discarding = False
        """What still comes in is thrown away: the sink was told the end, or is gone, or a black hole is between."""
        self.vanished = False
        """A black hole is between: not even the end of the source comes through."""
        self.done = False
        """Nothing more will be written."""

    def data_received(self, data: bytes) -> None:
        """The source has read this."""
        if self.discarding:
            return
        conditions = self._conditions
        if conditions.clear and not self._held and self.sink.is_writable:
            self._forward(data)
            return
        if conditions.delay:
            conditions.faults["delay"] += 1
        self._bytes += len(data)
        self._hold(memoryview(data))
        self._steer()

    def end(self, ending: Ending) -> None:
        """The source gives no more, or is to give no more: the sink hears it behind what is held."""
        if self.vanished:
            self.done = True
            self._relay.settle()
        elif ending is Ending.RESET or not self.discarding:
            self.discarding = True
            self._hold(ending)

    def drop(self) -> None:
        """Throw away what is held and what still comes in."""
        self._cancel()
        self._held.clear()
        self._bytes = 0
        self.discarding = True
        if not self.vanished:
            self.done = True
        self._steer()

    def vanish(self) -> None:
        """Put a black hole between source and sink."""
        self.vanished = True
        self.done = self.source.has_ended
        self.drop()

    def resume(self) -> None:
        """Something is held; or the sink is there for the first time."""
        if self._held and self._next is None:
            self._pump()

    def resume_soon(self) -> None:
        """The sink takes bytes again: with the loop's next pass.

        asyncio ends a connection twice that is aborted, or whose write fails, within `resume_writing`.
        """
        if self._held and self._next is None:
            self._next = self._loop.call_soon(self._pump)

    def conditions_changed(self) -> None:
        """The conditions are others than before."""
        self._allowed_at = 0.0
        self._pump()

    def _hold(self, item: memoryview | Ending) -> None:
        self._held.append((self._loop.time() + self._conditions.delay, item))
        self.resume()

    def _pump(self) -> None:
        """Write what may leave now; see to it that the rest is looked at in time."""
        self._cancel()
        while self._held and self.sink.is_writable and not self._conditions.stalled:
            due, item = self._held[0]
            if self._wait(due, item):
                break
            if isinstance(item, Ending):
                self._held.popleft()
                self._conclude(item)
                continue
            self._forward(self._take(item))
            if self._conditions.most is not None and self._held:
                # Pieces written in one pass of the loop would reach a reader as one.
                self._next = self._loop.call_soon(self._pump)
                break
        self._steer()

    def _wait(self, due: float, item: memoryview | Ending) -> bool:
        """Whether the first item must wait; then its timer is set."""
        now = self._loop.time()
        if now < due:
            self._next = self._loop.call_at(due, self._pump)
            return True
        if self._conditions.rate is not None and now < self._allowed_at and not isinstance(item, Ending):
            self._conditions.faults["throttle"] += 1
            self._next = self._loop.call_at(self._allowed_at, self._pump)
            return True
        return False

    def _take(self, data: memoryview) -> memoryview:
        """The next piece of the first item, which is `data`."""
        conditions = self._conditions
        size = len(data)
        if conditions.rate is not None:
            size = min(size, max(1, int(conditions.rate * TICK)))
        if conditions.most is not None and len(data) > (piece := conditions.pieces.randint(1, conditions.most)):
            size = min(size, piece)
            conditions.faults["fragment"] += 1
        if conditions.rate is not None:
            # Timers come late; up to a tick of what was missed is made good.
            self._allowed_at = max(self._allowed_at, self._loop.time() - TICK) + size / conditions.rate
        due, _ = self._held.popleft()
        if size < len(data):
            self._held.appendleft((due, data[size:]))
        self._bytes -= size
        return data[:size]

    def _forward(self, data: bytes | memoryview) -> None:
        budget = self._relay.budget
        if budget is None:
            self.sink.write(data)
            return
        self.sink.write(data[:budget])
        self._relay.spend(min(budget, len(data)))

    def _conclude(self, ending: Ending) -> None:
        if ending is Ending.RESET:
            self._relay.reset()
            return
        self.done = True
        self.sink.write_eof()
        self._relay.settle()

    def _steer(self) -> None:
        """Read from the source or not."""
        self._full = self._bytes > (HELD_BYTES // 2 if self._full else HELD_BYTES)
        self.source.read(self.discarding or not self._full)

    def _cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None
