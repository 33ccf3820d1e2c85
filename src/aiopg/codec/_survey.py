"""Which types a value is made of and how deep it is, without a call for each element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONTAINERS", "survey"]

CONTAINERS = frozenset({list, tuple, set, frozenset, dict})
"""The types that hold others and come back as themselves."""

_NOTHING: Mapping[int, int] = {}


def survey(value: object, known: Mapping[int, int] = _NOTHING) -> tuple[set[type], int]:
    """Look through lists, tuples, sets, frozensets and dicts; the value must not contain itself.

    Args:
        value: where to begin.
        known: the depth of objects that cannot be looked into, by `id`.

    Returns:
        The exact types of the value and of all that it holds, and how many containers lie inside one another
        (0 for a value that holds nothing).
    """
    kinds = {type(value)}
    deepest = known.get(id(value), 0)
    depth = 0
    level: list[Any] = [value] if type(value) in CONTAINERS else []
    while level:
        depth += 1
        parts: list[object] = []
        for container in level:
            parts += container
            if type(container) is dict:
                parts += container.values()
        found = set(map(type, parts))
        kinds |= found
        if known:
            deepest = max(deepest, depth + max((known.get(id(part), 0) for part in parts), default=0))
        level = [] if found.isdisjoint(CONTAINERS) else [part for part in parts if type(part) in CONTAINERS]
    return kinds, max(depth, deepest)
