"""How large an object's payload will be, at a glance: what is not looked at counts as nothing."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import Any

__all__ = ["LARGE_BYTES", "is_large"]

LARGE_BYTES = 4 * 1024 * 1024
"""Payloads of more are made and read in a worker thread. To pack or unpack 4 MiB of bytes takes 2 to 5 ms, to hand them
to a thread and back 0.1 ms. So what stays on the event loop keeps it for much less than the 50 ms that are promised,
also where a value takes ten times as long as bytes do."""

ITEM_BYTES = 32
"""What an item of a list, tuple, set or dict counts for: 131,072 of them are large."""

LOOKED_AT = 256
"""So many items of a container are looked at, the first ones."""

_LIGHT = frozenset({type(None), bool, int, float, complex, str})
"""Types whose values count as nothing inside of a container; a text of many MiB lies alone, or in bytes."""

_SIZED = frozenset({bytes, bytearray, memoryview, str})
_CONTAINERS = frozenset({list, tuple, set, frozenset, dict})


def is_large(obj: Any) -> bool:
    """Whether an object looks like one whose payload takes more than `LARGE_BYTES`.

    Looked at are: the length of bytes, bytearray, memoryview and str; `nbytes` of what has it (numpy, torch); the
    number of items of a list, tuple, set or dict; and of its first `LOOKED_AT` items the same, less str, one level
    down. What lies deeper, and what a registered class holds, is not: such an object is encoded where it is.
    """
    kind = type(obj)
    if kind is dict:
        parts: Collection[Any] = obj.values()
    elif kind in _CONTAINERS:
        parts = obj
    else:
        return _weigh(obj) > LARGE_BYTES
    if len(parts) <= LOOKED_AT and _LIGHT.issuperset(map(type, parts)):
        return False
    weight = ITEM_BYTES * len(parts)
    weight += sum(_weigh(part) for part in islice(parts, LOOKED_AT) if type(part) not in _LIGHT)
    return weight > LARGE_BYTES


def _weigh(value: Any) -> int:
    kind = type(value)
    if kind in _SIZED:
        return len(value)
    if kind in _CONTAINERS:
        return ITEM_BYTES * len(value)
    try:
        size = getattr(value, "nbytes", 0)
    except RuntimeError:  # torch does not say it of a sparse tensor, which cannot be sent: the encoder says so
        return 0
    return size if type(size) is int else 0
