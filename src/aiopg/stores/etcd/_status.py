"""The state of a store that is kept in rooms: that of each room's engine, put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiopg._core.keys import NO_KEYS

__all__ = ["put_together"]

SUMS = ("rounds", "bytes", "members")
LISTS = ("groups", "lobbies")


def put_together(rooms: Iterable[tuple[bool, dict[str, Any]]]) -> dict[str, object]:
    """One description from those of the rooms; with each, whether it is the room of the store's own keys."""
    whole: dict[str, Any] = dict.fromkeys(SUMS, 0) | {name: [] for name in LISTS} | {"keys": dict(NO_KEYS)}
    for has_keys, described in rooms:
        for name in SUMS:
            whole[name] += described[name]
        for name in LISTS:
            whole[name] += described[name]
        if has_keys:
            whole["keys"] = described["keys"]
    return whole
