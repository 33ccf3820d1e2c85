"""Dicts and sets whose keys may have been chosen to meet in one place of the table.

The hash of a str or bytes is secret to the process; that of a large int, a UUID or a tuple of numbers can be
computed by whoever sends it, and a dict of n keys with one hash takes n * n steps. So where a payload is large
and has such keys, they are counted by hash first. Ints and floats of 64 bits do not come to `MAX_COLLISIONS`.

Two more ways to make a table slow need no equal hashes, or only two keys:

- Ints can be chosen so that each is led along a chain of places that others hold. That depends on every detail of
  CPython's tables, so it is not foreseen but met: large tables are filled a piece at a time, and given up when all of
  a payload took `KEY_SECONDS` of the processor for each key, ten times what it takes.
- An int and a Decimal of one hash are compared by their digits, in a time that grows as the square of their number. So
  in a payload that has an int of more than `LONG_BITS`, no two keys may have one hash where they could be such, or
  could hold such.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from decimal import Decimal
from types import NoneType
from typing import Any

__all__ = ["MAX_COLLISIONS", "Tables", "is_long", "may_be_slow"]

MAX_COLLISIONS = 64
"""Most keys of one dict, or members of one set, that may have one hash. Honest ones are nearly all alone."""

LONG_BITS = 8192
"""Ints of more bits are dear to compare with a Decimal."""

KEY_SECONDS = 2e-6
_FREE_SECONDS = 0.05
_PIECE = 4096
"""Keys: fewer cannot be made slow, and as many are added between two looks at the clock."""

_SECRET: frozenset[type] = frozenset({str, bytes})
_CHEAP: frozenset[type] = frozenset({str, bytes, bool, int, float, NoneType})
"""Types that are compared with one another in no time."""

# Not in one pattern: where all that is looked for begins with one byte, the search leaps from one to the next.
_LARGE_MAP = re.compile(rb"\xde[\x10-\xff]")
_LARGER_MAP = b"\xdf"


def is_long(data: bytes) -> bool:
    """Whether an int of so many bytes is dear to compare."""
    return len(data) > LONG_BITS // 8


def may_be_slow(payload: bytes) -> bool:
    """Whether a payload may have maps of more than `_PIECE` keys, so that they are to be made by `Tables`."""
    return len(payload) > 2 * _PIECE and (_LARGER_MAP in payload or _LARGE_MAP.search(payload) is not None)


class Tables:
    """Makes the dicts and sets of one payload.

    Its methods raise `ValueError` for keys that were chosen to take long, `TypeError` for one that cannot be one.
    """

    def __init__(self) -> None:
        self.has_long_ints = False
        """Whether one was met yet: the keys of a table are read before it is made."""
        self._seconds_left = _FREE_SECONDS

    def make_map(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        """The dict of a map; of a key that comes twice the last value counts."""
        if len(pairs) > MAX_COLLISIONS or self.has_long_ints:
            self._check([key for key, _ in pairs])
        if len(pairs) <= _PIECE:
            return dict(pairs)
        filled: dict[Any, Any] = {}
        self._fill(filled, pairs)
        return filled

    def make_set(self, members: list[Any]) -> set[Any]:
        """A set of these."""
        if len(members) > MAX_COLLISIONS or self.has_long_ints:
            self._check(members)
        if len(members) <= _PIECE:
            return set(members)
        filled: set[Any] = set()
        self._fill(filled, members)
        return filled

    def _fill(self, table: dict[Any, Any] | set[Any], items: list[Any]) -> None:
        for start in range(0, len(items), _PIECE):
            before = time.thread_time()
            table.update(items[start : start + _PIECE])
            self._seconds_left += _PIECE * KEY_SECONDS - (time.thread_time() - before)
            if self._seconds_left < 0:
                raise ValueError(f"{len(items)} keys take too long to tell apart")

    def _check(self, keys: Sequence[Hashable]) -> None:
        """Refuse keys that a dict or set would have to compare with one another."""
        kinds = set(map(type, keys))
        # Most large sets and dicts are of one of these, and this is quicker than to count.
        if kinds <= _SECRET or (kinds == {int} and _are_native(keys)):
            return
        most = MAX_COLLISIONS
        if self.has_long_ints and not kinds <= _CHEAP and kinds != {Decimal}:
            most = 1
        if max(Counter(map(hash, keys)).values(), default=0) > most:
            raise ValueError(f"more than {most} of {len(keys)} keys have one hash")


def _are_native(keys: Sequence[Any]) -> bool:
    return bool(max(keys) < 2**64 and min(keys) >= -(2**63))
