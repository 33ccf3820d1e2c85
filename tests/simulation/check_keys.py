"""Uses of keys: each ended in time, each error has a cause, and what each space was used for holds together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator

from aiopg.errors import (
    AiopgError,
    GroupClosedError,
    KeyOperationError,
    KeyTimeoutError,
    QueueEmptyError,
    StoreFullError,
    WatchGapError,
)
from tests.simulation.check_errors import unjustified
from tests.simulation.check_key_locks import check_fences, check_locks, check_meetings
from tests.simulation.check_key_queues import check_queue
from tests.simulation.check_key_values import check_board, check_counter, check_log, check_register
from tests.simulation.check_key_watches import check_watches
from tests.simulation.history import ACCURACY, Attempt, Call
from tests.simulation.key_history import Space, Use
from tests.simulation.view import SETTLE, View

__all__ = ["check_keys"]

EPSILON = 1e-6

_RULES: dict[str, Callable[[View, list[Use]], Iterator[str]]] = {
    "counter": check_counter,
    "register": check_register,
    "log": check_log,
    "board": check_board,
    "queue": check_queue,
    "lock": check_locks,
    "meeting": check_meetings,
}
"""By what the name of a key begins with."""


def check_keys(view: View) -> Iterator[str]:
    """What is wrong with the uses of keys in a run."""
    by_key: dict[tuple[Space, str], list[Use]] = defaultdict(list)
    for use in view.history.keys.uses:
        if use.started == math.inf:
            continue  # given up before it was made
        yield from _check_use(view, use)
        if use.op != "watch":
            by_key[use.space, use.key].append(use)
    for (_, key), uses in by_key.items():
        yield from _RULES[key.partition("/")[0]](view, uses)
        yield from _check_lasting(view, key, uses)
    yield from check_fences(view)
    yield from check_watches(view)


def _check_lasting(view: View, key: str, uses: list[Use]) -> Iterator[str]:
    """What lasts is there from when it was made: for those who wait for it, and at the end."""
    if key not in ("counter", "register", "log"):
        return
    made = [use for use in uses if use.op != "get" and use.was_applied and not _swapped_nothing(use)]
    if made and view.was_audited(made[0].space) and view.audited(uses) is None:
        yield f"nothing is left at the end of what was applied: {made[0]}"
    begun = min((use.ended for use in made), default=math.inf)
    for use in uses:
        since = use.deadline - SETTLE
        waited = use.op == "get" and use.timed_out and max(use.started, begun) < since and not view.history.lowered
        if waited and view.is_well(use.seat.life, since, use.deadline):
            yield f"a key was there, and yet it timed out: {use}"


def _swapped_nothing(use: Use) -> bool:
    return use.op == "compare_set" and use.ok and not use.value[0]


def _check_use(view: View, use: Use) -> Iterator[str]:
    if not use.outcome:
        yield f"it never ended: {use}"
    elif use.ended > use.deadline + ACCURACY + EPSILON:
        yield f"{use.ended - use.deadline:.3f} s after its deadline: {use}"
    elif use.timed_out and use.ended < use.deadline - EPSILON:
        yield f"it timed out before its deadline: {use}"
    if use.error is not None and (why := _unjustified(view, use)):
        yield f"{why}: {use}"


def _unjustified(view: View, use: Use) -> str:
    """Why this error should not be; "" if it may."""
    error = use.error
    if isinstance(error, StopAsyncIteration):
        return "" if use.seat.over <= use.ended else "the watch was not closed"
    if not isinstance(error, AiopgError):
        return "an error of another kind"
    if isinstance(error, KeyTimeoutError):
        return "" if error.keys == (use.key,) else "the timeout of another call"
    if isinstance(error, QueueEmptyError):
        return "" if use.op == "pop now" else "it was to wait"
    if isinstance(error, KeyOperationError):
        return "the key would have done"
    if isinstance(error, WatchGapError):
        return "" if "kept_changes" in view.history.lowered else "so many changes there were not"
    if isinstance(error, GroupClosedError) and use.seat.over <= use.ended:
        return ""
    if isinstance(error, StoreFullError) and error.limit in view.history.lowered:
        return ""
    call = Call(use.number, use.seat, use.op)
    return unjustified(view, Attempt(call, use.started, use.deadline, use.ended, error=error))
