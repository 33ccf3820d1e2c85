"""What every call at a store has, of a group or of keys: when it was made, when it is to end, and how it says so."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeAlias, TypeVar

from aiopg.errors import AiopgError, Outcome

__all__ = ["Places", "Timed"]

Places: TypeAlias = "Sequence[int] | None"
"""Ranks, or places in a call's keys; None where the store does not know."""

E = TypeVar("E", bound=AiopgError, covariant=True)


class Timed(ABC, Generic[E]):
    """A call in progress. Times are those of the running event loop's clock, in seconds."""

    __slots__ = ()

    loop: asyncio.AbstractEventLoop
    started: float
    deadline: float

    def within_deadline(self) -> asyncio.Timeout:
        """`asyncio.timeout_at` this call's deadline."""
        # uvloop's timers take no infinity.
        return asyncio.timeout_at(None if self.deadline == math.inf else self.deadline)

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made."""
        return self.loop.time() - self.started

    def timed_out(self, arrived: Places, missing: Places) -> E:
        """The error of a call whose deadline passed."""
        error = self._timeout(arrived, missing)
        if missing is None:
            error.outcome = Outcome.UNKNOWN
        return error

    def withdrawn(self, arrived: Places, missing: Places, trace: Sequence[str] = ()) -> E:
        """The same where the store holds no trace of the call. `trace`: lines that the error carries."""
        error = self._timeout(arrived, missing)
        error.outcome = Outcome.NOT_APPLIED
        error.carry(trace)
        return error

    @abstractmethod
    def warn(self, arrived: Places, missing: Places) -> None:
        """Log that the call waits for long, and for whom or what."""

    @abstractmethod
    def _timeout(self, arrived: Places, missing: Places) -> E:
        """The error, whatever became of the call."""
