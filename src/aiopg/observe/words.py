"""Numbers in the words that people use."""

from __future__ import annotations

import math

__all__ = ["duration", "size"]

_LONG = ((3600, 60, "min", 1, "s"), (86400, 3600, "h", 60, "min"), (math.inf, 86400, "d", 3600, "h"))
"""Below so many seconds, the two units that are told: each with its seconds and its name."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """A time in two parts at most: "850 us", "12.3 s", "3 min 12 s", "2 h 5 min", "4 d 3 h"."""
    if seconds == math.inf:
        return "for ever"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:  # what would be rounded to a whole one of the next unit is told in that
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    _, large, name, small, part = next(units for units in _LONG if whole < units[0])
    return f"{whole // large} {name} {whole % large // small} {part}"


def size(count: float) -> str:
    """Bytes: "0 B", "1.5 MiB"."""
    step = 0
    while count >= 1024 and step < len(_UNITS) - 1:
        count /= 1024
        step += 1
    return f"{count:.0f} {_UNITS[step]}" if step == 0 else f"{count:.1f} {_UNITS[step]}"
