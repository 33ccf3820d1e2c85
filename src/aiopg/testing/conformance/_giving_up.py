"""Calls that are given up: cancelled after so many passes of the loop, or with a deadline after so long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from aiopg.errors import AiopgError
from aiopg.testing.conformance._ground import Ground, steps

__all__ = ["Ended", "Moment", "give_up", "moments", "sweep"]


class Moment(NamedTuple):
    """When a call is given up."""

    passes: int | None
    """Cancelled after so many passes of the loop; None: by its own deadline."""
    seconds: float
    """The timeout that the call is given."""

    def __str__(self) -> str:
        return f"cancelled after {self.passes} passes" if self.passes is not None else f"timeout {self.seconds:g} s"


class Ended(NamedTuple):
    """What the call came to."""

    done: bool
    result: Any
    """If it was done before it was given up."""


def moments(patience: float) -> Iterator[Moment]:
    """Each of the first passes of the loop, then ever fewer; then deadlines, from at once on.

    A sweep ends each of the two kinds with the first call that was done in time: see `sweep`.
    """
    passes = 0
    while passes < 400:
        yield Moment(passes, patience)
        passes += 1 + passes // 8
    seconds = 0.0001
    while seconds < 0.05:
        yield Moment(None, seconds)
        seconds *= 2


Sweeping = Callable[[Moment], Coroutine[Any, Any, bool]]
"""One turn with the call given up at that moment; whether it was done before that."""


async def sweep(turn: Sweeping, patience: float) -> None:
    """Turn by turn, until a call is done before it is given up; by cancelling, then by deadlines."""
    finished: set[bool] = set()
    for moment in moments(patience):
        by_deadline = moment.passes is None
        if by_deadline not in finished and await turn(moment):
            finished.add(by_deadline)


async def give_up(ground: Ground, moment: Moment, call: Callable[[float], Coroutine[Any, Any, Any]]) -> Ended:
    """Make a call, which takes its timeout, and give it up at that moment. Raises what else it came to."""
    task = ground.spawn(call(moment.seconds))
    if moment.passes is not None:
        await steps(moment.passes + 1)
        if not task.done():
            task.cancel()
    try:
        return Ended(True, await task)
    except asyncio.CancelledError:
        if (caller := asyncio.current_task()) is not None and caller.cancelling():
            raise
        return Ended(False, None)
    except TimeoutError as error:
        if not isinstance(error, AiopgError):
            raise
        return Ended(False, None)
