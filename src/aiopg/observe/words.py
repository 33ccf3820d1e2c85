"""Numbers in the words that people use."""

from __future__ import annotations

import math

__all__ = ["duration", "size"]

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """A time in two parts at most: "850 us", "12.3 s", "3 min 12 s", "2 h 5 min", "4 d 3 h"."""
    if seconds == math.inf:
        return "for ever"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, name, part in ((3600, 60, "min", "s"), (86400, 3600, "h", "min"), (math.inf, 86400, "d", "h")):
        if whole < large:
            below = {"s": 1, "min": 60, "h": 3600}[part]
            return f"{whole // small} {name} {whole % small // below} {part}"
    raise AssertionError


def size(count: float) -> str:
    """Bytes: "0 B", "1.5 MiB"."""
    step = 0
    while count >= 1024 and step < len(_UNITS) - 1:
        count /= 1024
        step += 1
    return f"{count:.0f} {_UNITS[step]}" if step == 0 else f"{count:.1f} {_UNITS[step]}"
