"""Dicts and sets whose keys may have been chosen to have one hash.

The hash of a str or bytes is secret to the process; that of a large int, a UUID or a tuple of numbers can be
computed by whoever sends it, and a dict of n keys with one hash takes n * n steps. So where a payload is large
and has such keys, they are counted by hash first. Ints and floats of 64 bits do not come to `MAX_COLLISIONS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

__all__ = ["MAX_COLLISIONS", "build_map", "check_hashes"]

MAX_COLLISIONS = 64
"""Most keys of one dict, or members of one set, that may have one hash. Honest ones are nearly all alone."""

_SECRET: frozenset[type] = frozenset({str, bytes})


def check_hashes(keys: Sequence[Hashable]) -> None:
    """Refuse keys that a dict or set would have to compare with one another.

    Raises:
        ValueError: more than `MAX_COLLISIONS` of them have one hash (or are equal).
        TypeError: one has none.
    """
    if len(keys) <= MAX_COLLISIONS:
        return
    kinds = set(map(type, keys))
    # Most large sets and dicts are of one of these, and this is quicker than to count.
    if kinds <= _SECRET or (kinds == {int} and _are_native(keys)):
        return
    if max(Counter(map(hash, keys)).values()) > MAX_COLLISIONS:
        raise ValueError(f"more than {MAX_COLLISIONS} of {len(keys)} keys have one hash")


def _are_native(keys: Sequence[Any]) -> bool:
    return bool(max(keys) < 2**64 and min(keys) >= -(2**63))


def build_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The dict of a map, for the parser; of a key that comes twice the last value counts. Raises `check_hashes`."""
    if len(pairs) > MAX_COLLISIONS:
        check_hashes([key for key, _ in pairs])
    return dict(pairs)
