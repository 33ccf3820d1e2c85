"""What programs did with key spaces in a run, and what came of it: of this alone the checker judges.

A *use* is one call, made once: a program that makes it again makes another one. Each gives a value of its own, so that
of any value it can be told who gave it; an `add` adds a power of `BASE` that nobody else adds to that key, so that
each sum tells which adds are in it, and how often.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from aiopg.errors import AiopgError, KeyTimeoutError, Outcome
from aiopg.keys import KeyEvent

if TYPE_CHECKING:
    from tests.simulation.history import Life, Seat

__all__ = ["BASE", "PLACES", "KeyHistory", "Space", "Use", "Watching"]

BASE = 4
PLACES = 31
"""Digits of a number of 64 bits."""

Space: TypeAlias = tuple[str, int, int]
"""Whose keys: as `Seat.key`; those of the store itself have no group."""


@dataclass(eq=False, slots=True)
class Use:
    """One call on a key."""

    number: int
    seat: Seat
    """Who made it; for the store's own keys, one that sits in no group."""
    op: str
    key: str
    given: Any = None
    """The value, amount or number that it gives; of a compare_set, what it expects and what it wants."""
    ttl: float | None = None
    session: bool = False
    begun: float = math.inf
    over: float = math.inf
    """Places of its beginning and its end among those of all uses: much happens at one time."""
    started: float = math.inf
    deadline: float = math.inf
    ended: float = math.inf
    outcome: str = ""
    """"ok", "error", "cancelled", "died"."""
    value: Any = None
    error: BaseException | None = None

    @property
    def space(self) -> Space:
        return self.seat.key

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def timed_out(self) -> bool:
        return type(self.error) is KeyTimeoutError

    @property
    def was_applied(self) -> bool:
        """Whether it surely took effect, by its end."""
        return self.ok or (isinstance(self.error, AiopgError) and self.error.outcome is Outcome.APPLIED)

    @property
    def was_refused(self) -> bool:
        """Whether it surely took none."""
        error = self.error
        return error is not None and not (
            isinstance(error, AiopgError) and error.outcome in (Outcome.UNKNOWN, Outcome.APPLIED)
        )

    @property
    def is_open(self) -> bool:
        """Whether nobody can tell."""
        return not self.was_applied and not self.was_refused

    def __str__(self) -> str:
        came_to = repr(self.error) if self.error is not None else f"{self.outcome} {self.value!r:.80}"
        given = "" if self.given is None else f", {self.given!r:.60}"
        whose = f"{self.seat.life.name} of {self.space}"
        called = f"use {self.number} {self.op}({self.key!r}{given})"
        return f"{called} by {whose} [{self.started:.4f}, {self.ended:.4f}] {came_to}"


@dataclass(eq=False, slots=True)
class Watching:
    """One watch: what it was told, and when."""

    seat: Seat
    prefix: str
    after: int | None
    """The revision from which on it asked; None: from its beginning on."""
    started: float
    told: list[tuple[float, KeyEvent]] = field(default_factory=list)
    quiet: tuple[float, float] = (math.inf, math.inf)
    """From when till when its last step waited, if in vain."""
    has_gap: bool = False

    def __str__(self) -> str:
        after = "now" if self.after is None else self.after
        return f"the watch of {self.prefix!r} after {after} by {self.seat.life.name} of {self.seat.key}"


class KeyHistory:
    """All of it."""

    def __init__(self, clock: Callable[[], float], note: Callable[[object, str], None]) -> None:
        self.now = clock
        self._note = note
        self.uses: list[Use] = []
        self.watches: list[Watching] = []
        self.audit: float = math.inf
        """When everybody had gone and what was left on the store was looked at."""
        self.auditor: Seat | None = None
        self._steps = 0
        self._adds: Counter[tuple[Space, str]] = Counter()

    def use(self, seat: Seat, op: str, key: str, given: Any = None) -> Use:
        """A program means to make a call."""
        use = Use(len(self.uses), seat, op, key, given)
        self.uses.append(use)
        return use

    def amount(self, seat: Seat, key: str) -> int:
        """What the next one adds to this key; 0 if no number is left."""
        place = self._adds[seat.key, key]
        self._adds[seat.key, key] += 1
        return int(BASE**place) if place < PLACES else 0

    def begin(self, use: Use, timeout: float) -> None:
        """It makes it."""
        use.begun = self._steps = self._steps + 1
        use.started = self.now()
        use.deadline = use.started + timeout

    def end(self, use: Use, outcome: str, value: Any = None, error: BaseException | None = None) -> None:
        """It ended. What ends after its process died, ended with it."""
        if not use.outcome:
            use.over = self._steps = self._steps + 1
            use.ended, use.outcome, use.value, use.error = self.now(), outcome, value, error
            self._note(use.seat, f"use {use.number} {use.op} {outcome} {type(error).__name__}")

    async def watch(self, use: Use, awaitable: Awaitable[Any]) -> None:
        """Record what a use comes to. Raises nothing but a cancellation."""
        try:
            value = await awaitable
        except asyncio.CancelledError:
            self.end(use, "cancelled")
            raise
        except Exception as error:  # noqa: BLE001 (whatever a call raises is for the checker to judge)
            error.__traceback__ = None  # it holds the frames of the whole run
            self.end(use, "error", None, error)
        else:
            self.end(use, "ok", value)

    def died(self, life: Life) -> None:
        """A process died, with all that it was doing."""
        for use in self.uses:
            if use.seat.life is life and use.started < math.inf:
                self.end(use, "died")
