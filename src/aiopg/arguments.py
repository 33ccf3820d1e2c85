"""What arguments that groups and stores share must be. Each check names the value and says what it must be."""

from __future__ import annotations

import math

from aiopg._core.limits import Limits

__all__ = ["check_grace", "check_timeout"]


def check_timeout(timeout: float) -> float:
    """`timeout` in seconds, if it is one: a number over 0, `math.inf` for no deadline. Raises `ValueError`."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    if math.isnan(timeout) or timeout <= 0:
        raise ValueError(f"timeout must be over 0 seconds (math.inf for no deadline), not {timeout!r}")
    return float(timeout)


def check_grace(seconds: float) -> float:
    """`reconnect_grace` in seconds, if it is one: a number over 0, at most `Limits.grace_seconds`. Raises."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"reconnect_grace must be a number of seconds, not {seconds!r}")
    most = Limits().grace_seconds
    if not 0 < seconds <= most:
        raise ValueError(f"reconnect_grace must be over 0 and at most {most:g} seconds, not {seconds!r}")
    return float(seconds)
