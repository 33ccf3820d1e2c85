"""Deadlines as aiopg has them, seconds up to `math.inf`, and as torch has them, a timedelta of which 0 is none."""

from __future__ import annotations

import math
from datetime import timedelta

from aiopg.arguments import check_timeout

__all__ = ["LEAST", "as_span", "seconds_of"]

LEAST = timedelta(milliseconds=1)
"""torch keeps whole milliseconds, and would make no deadline of less."""

MOST = timedelta(days=36500)
"""What is longer is no deadline: torch's milliseconds, and our clocks, end somewhere."""


def as_span(timeout: float | timedelta) -> timedelta:
    """A timeout for torch. Raises `TypeError` or `ValueError` unless it is one."""
    if isinstance(timeout, timedelta):
        if timeout < timedelta(0):
            raise ValueError(f"timeout must not be negative, not {timeout!r}")
        return timeout if not timeout else max(timeout, LEAST)
    seconds = check_timeout(timeout)
    return timedelta(0) if seconds > MOST.total_seconds() else max(timedelta(seconds=seconds), LEAST)


def seconds_of(span: timedelta) -> float:
    """A timeout of torch's for aiopg. Under 0, as of a deadline that has passed, it is the shortest there can be."""
    if not isinstance(span, timedelta):
        raise TypeError(f"timeout must be a datetime.timedelta, not {span!r}")
    return max(span, LEAST).total_seconds() if span else math.inf
