"""The root of the tree, and what its branches share."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "Outcome",
    "AiopgError",
    "describe_ranks",
    "named",
]


class Outcome(enum.Enum):
    """What became of a call that raised."""

    NOT_APPLIED = "not applied"
    """The store holds no trace of the call; calling again is safe."""
    APPLIED = "applied"
    """The call took effect; only its result did not reach the caller."""
    UNKNOWN = "unknown"
    """The store did not say. Calling again *on the same group* is still safe: the group settles it first.

    Calls on keys are not settled: what adds something may do so twice.
    """


class AiopgError(Exception):
    """The root of all errors of aiopg.

    Attributes:
        outcome: what became of the call, an `Outcome`.
        trace: what happened before it, lines for people; mostly there are none. They are notes of the error too (PEP
            678), so a traceback shows them, and its text stays one line.
    """

    outcome: Outcome = Outcome.NOT_APPLIED
    trace: tuple[str, ...] = ()
    _fields: ClassVar[tuple[str, ...]] = ()

    def carry(self, trace: Sequence[str]) -> None:
        """Have the error, which carries none yet, carry these lines as its `trace`."""
        self.trace = tuple(trace)
        for line in self.trace:
            self.add_note(f"    {line}")

    def fields(self) -> dict[str, Any]:
        """The error's own fields by name, as given to its constructor. Plain values only."""
        return {name: getattr(self, name) for name in self._fields}

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (multiprocessing, concurrent.futures): rebuild them from their
        # fields, since their constructors do not take the message that Exception would hand over.
        return _rebuild, (type(self), self.fields(), self.outcome)


def _rebuild(cls: type[AiopgError], fields: dict[str, Any], outcome: Outcome) -> AiopgError:
    error = cls(**fields)
    error.outcome = outcome
    return error


def describe_ranks(ranks: Sequence[int]) -> str:
    """Ranks for people: sorted, with runs joined, at most ten runs ("0-3, 7 and 12 more")."""
    runs: list[list[int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:10])
    hidden = sum(b - a + 1 for a, b in runs[10:])
    return f"{shown} and {hidden} more" if hidden else shown or "none"


def named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {describe_ranks(ranks)}"
