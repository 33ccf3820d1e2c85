"""What happened in a run, as its programs saw it: the only thing that the checker knows.

A *life* is one process. A *seat* is what one group object of it saw of its group. A *call* is what a program meant to
do once; it may take several *attempts*, as a call that timed out or was cancelled may be made again. Each payload
carries the number of the call that gave it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiopg.errors import GroupTimeoutError, Outcome
from tests.simulation.key_history import KeyHistory

__all__ = ["ACCURACY", "Attempt", "Call", "History", "Life", "Payload", "Seat"]

ACCURACY = 0.1
"""A call ends within so many seconds of its deadline."""

Payload = list[Any]
"""What is sent: [number of the call, rank it is for or -1, filler]."""


@dataclass(eq=False, slots=True)
class Life:
    """One process. Times are virtual seconds; `math.inf` is never."""

    name: str
    grace: float
    died: float = math.inf
    closed: float = math.inf
    """When it began to close its link to the store."""

    @property
    def is_dead(self) -> bool:
        return self.died < math.inf


@dataclass(eq=False, slots=True)
class Seat:
    """One group object."""

    number: int
    life: Life
    group: str
    rank: int
    world_size: int
    ttl: float
    takeover: bool = False
    asked: float = math.inf
    """When it first asked for its seat."""
    joined: float = math.inf
    epoch: int = -1
    """Which store it joined: one that was started again without a journal is another one."""
    incarnation: int = -1
    closing: float = math.inf
    closed: float = math.inf
    close_error: BaseException | None = None
    aborts: list[tuple[float, str]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    heard: list[list[tuple[str, int, str]]] = field(default_factory=list)
    """What each iteration of events() told."""

    @property
    def key(self) -> tuple[str, int, int]:
        """Which life of which group."""
        return self.group, self.epoch, self.incarnation

    @property
    def over(self) -> float:
        """When it began to end, whatever way."""
        return min(self.closing, self.life.died, self.life.closed)

    def __str__(self) -> str:
        return f"{self.life.name}={self.group}[{self.rank}]#{self.number}"


@dataclass(eq=False, slots=True)
class Call:
    """One call, in as many attempts as it took."""

    number: int
    seat: Seat
    op: str
    tag: int | str = 0
    peer: int = -1
    """The other rank of a message, the root of a collective."""
    detail: str = ""
    size: int = 0
    """Bytes of filler that it gives."""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def signature(self) -> tuple[str, int, str]:
        """What must agree between the ranks of a collective."""
        return self.op, self.peer, self.detail

    @property
    def started(self) -> float:
        return self.attempts[0].started

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    def __str__(self) -> str:
        return f"call {self.number} {self.op}(peer={self.peer}, tag={self.tag!r}) of {self.seat}"


@dataclass(eq=False, slots=True)
class Attempt:
    """One attempt of a call."""

    call: Call
    started: float
    deadline: float
    ended: float = math.inf
    order: int = -1
    """Its place among the ends of all attempts."""
    outcome: str = ""
    """"ok", "error", "cancelled", "died"."""
    value: Any = None
    error: BaseException | None = None

    @property
    def timed_out(self) -> bool:
        return type(self.error) is GroupTimeoutError

    @property
    def left_no_trace(self) -> bool:
        """Whether it is sure that the store did not count it."""
        error = self.error
        return isinstance(error, GroupTimeoutError) and error.outcome is Outcome.NOT_APPLIED

    def __str__(self) -> str:
        came_to = repr(self.error) if self.error is not None else self.outcome
        return f"{self.call} [{self.started:.4f}, {self.ended:.4f}] {came_to}"


class History:
    """All of it."""

    def __init__(self, clock: Callable[[], float], note: Callable[[object, str], None]) -> None:
        """`note` gets a line for each end of an attempt."""
        self.now = clock
        self._note = note
        self.lives: list[Life] = []
        self.seats: list[Seat] = []
        self.calls: list[Call] = []
        self.crashes: list[float] = []
        """When a store went for good."""
        self.restarts: list[tuple[float, float]] = []
        """When a store with a journal went, and when it was there again."""
        self.keys = KeyHistory(clock, note)
        self.paused: list[tuple[float, float]] = []
        """From when till when the store did not run."""
        self.slow: list[tuple[float, float]] = []
        """From when till when the store's disk took its time, and so did handshakes, which wait for it."""
        self.lowered: frozenset[str] = frozenset()
        """Limits that are so low that they may be met."""
        self._ends = 0

    def life(self, name: str, grace: float) -> Life:
        """A process begins."""
        life = Life(name, grace)
        self.lives.append(life)
        return life

    def seat(self, life: Life, group: str, rank: int, world_size: int, ttl: float, takeover: bool) -> Seat:
        """A process makes a group object."""
        seat = Seat(len(self.seats), life, group, rank, world_size, ttl, takeover)
        self.seats.append(seat)
        return seat

    def call(self, seat: Seat, op: str, tag: int | str, peer: int, detail: str, size: int) -> Call:
        """A program means to make a call."""
        call = Call(len(self.calls), seat, op, tag, peer, detail, size)
        self.calls.append(call)
        seat.calls.append(call)
        return call

    def numbered(self, number: object) -> Call | None:
        """The call with this number, if there is one."""
        return self.calls[number] if type(number) is int and 0 <= number < len(self.calls) else None

    def begin(self, call: Call, timeout: float) -> Attempt:
        """It makes it, or makes it again."""
        now = self.now()
        attempt = Attempt(call, now, now + timeout)
        call.attempts.append(attempt)
        if call.seat.asked == math.inf:
            call.seat.asked = now
        return attempt

    def end(self, attempt: Attempt, outcome: str, value: Any = None, error: BaseException | None = None) -> None:
        """An attempt ended. What ends after its process died, ended with it."""
        if attempt.outcome:
            return
        attempt.ended, attempt.outcome, attempt.value, attempt.error = self.now(), outcome, value, error
        attempt.order = self._ends = self._ends + 1
        self._note(attempt.call.seat, f"{attempt.call.number} {attempt.call.op} {outcome} {type(error).__name__}")

    async def watch(self, attempt: Attempt, awaitable: Awaitable[Any]) -> None:
        """Record what an attempt comes to. Raises nothing but a cancellation."""
        try:
            value = await awaitable
        except asyncio.CancelledError:
            self.end(attempt, "cancelled")
            raise
        except Exception as error:  # noqa: BLE001 (whatever a call raises is for the checker to judge)
            error.__traceback__ = None  # it holds the frames of the whole run
            self.end(attempt, "error", None, error)
        else:
            self.end(attempt, "ok", value)

    def died(self, life: Life) -> None:
        """A process died, with all that it was doing."""
        life.died = self.now()
        self.keys.died(life)
        for call in self.calls:
            if call.seat.life is life:
                for attempt in call.attempts:
                    if not attempt.outcome:
                        self.end(attempt, "died")
