"""Who has joined yet: told while the ranks of `aiopg run` come together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple, TypeAlias

import anyio

from aiopg.cli._lines import Outlet
from aiopg.errors import StoreError, describe_ranks
from aiopg.observe.plain import plain
from aiopg.observe.words import duration

__all__ = ["Joined", "Look", "joined", "tell_joining"]

Look: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
"""What a store says of itself."""

PAUSES = (0.1, 0.2, 0.5, 1.0)
"""Seconds between two looks: groups mostly form at once, and a program that forms none is to cost nothing."""

PATIENCE = 5.0
"""Where there is no terminal, nothing is said of a group that forms within so many seconds, and then again not
before as many have passed."""

CLEAR_SECONDS = 1.0
"""A terminal that stands still does not keep its last line from being taken away for longer."""

BAR = 16


class Joined(NamedTuple):
    """A group that forms, or has formed."""

    name: str
    ranks: Sequence[int]
    world_size: int
    is_complete: bool

    def __str__(self) -> str:
        there = set(self.ranks)
        missing = [rank for rank in range(self.world_size) if rank not in there]
        behind = f", missing {describe_ranks(missing)}" if missing else ""
        return f"{len(self.ranks)}/{self.world_size} have joined {plain(repr(self.name))}{behind}"

    def bar(self) -> str:
        """The same with a bar before it."""
        full = BAR * len(self.ranks) // self.world_size
        return f"[{'#' * full}{'-' * (BAR - full)}] {self}"


def joined(status: Mapping[str, Any], name: str | None) -> Joined | None:
    """The group of that name, or without one the first that is there; one that forms before one that has formed."""
    groups = [group for group in status["groups"] if name in (None, group["name"])]
    groups.sort(key=lambda group: group["state"] != "forming")
    if not groups:
        return None
    first = groups[0]
    return Joined(first["name"], sorted(first["members"]), first["world_size"], first["state"] != "forming")


async def tell_joining(who: str, look: Look, name: str | None, outlet: Outlet) -> None:
    """Say on `outlet` who has joined the group, until all have: a line that changes on a terminal, else some lines.

    `name`: of the group; None for the first that is there. Raises `OSError` if the output cannot be passed on.
    """
    began = said_at = anyio.current_time()
    said = ""
    try:
        for pause in chain(PAUSES, repeat(PAUSES[-1])):
            found = joined(await look(), name)
            now = anyio.current_time()
            if found is not None and found.is_complete:
                if said and not outlet.is_terminal:
                    await outlet.write(f"{who}: all {found.world_size} have joined, {duration(now - began)}\n".encode())
                break
            if found is not None and outlet.is_terminal:
                await outlet.keep_below(f"{who}: {found.bar()}, {duration(now - began)}")
            elif found is not None and str(found) != said and now >= said_at + PATIENCE:
                said, said_at = str(found), now
                await outlet.write(f"{who}: {said}\n".encode())
            await anyio.sleep(pause)
    except StoreError:
        return  # the ranks say themselves that their store is lost
    finally:
        with anyio.move_on_after(CLEAR_SECONDS, shield=True):
            await outlet.keep_below("")
