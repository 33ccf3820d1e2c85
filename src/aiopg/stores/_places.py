"""A rank that is given and not asked for: the way there, and back where nobody waits for it any more."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from aiopg._core.messages import Answer, Leave
from aiopg._core.parts import split_parts
from aiopg.stores._calls import Calls, Pending, forget
from aiopg.stores.base import Call, Member, Place

__all__ = ["holder", "take_place"]

_PLACE = struct.Struct(">IIq")


def holder() -> str:
    """Who this process is, for people."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


async def take_place(
    calls: Calls,
    seats: Iterator[int],
    call: Call,
    command: tuple[Any, ...],
    metadata: bytes,
    sit: Callable[[int, int, int, int], Member],
) -> Place:
    """Ask for a place with this command, to which the seat's number, who asks and the metadata are added.

    `sit` makes the member: of its seat, rank, world_size and incarnation. A place that came when nobody waited for it
    any more is left.
    """
    kind, *fields = command
    seat = next(seats)
    asked = calls.submit(kind, *[seat if field is SEAT else field for field in fields], holder(), body=(metadata,))

    def ended(asked: Pending) -> None:
        if type(asked.outcome) is Answer and not calls.is_lost:
            calls.submit(Leave, seat, then=forget)

    def leave_behind() -> None:
        if asked.outcome is not None:
            ended(asked)
        else:
            asked.then = ended
            calls.cancel(asked)

    told = b"".join(await calls.answer(call, asked, leave_behind))
    rank, world_size, incarnation = _PLACE.unpack_from(told)
    said = split_parts((told[_PLACE.size :],), world_size)
    return Place(
        member=sit(seat, rank, world_size, incarnation),
        rank=rank,
        world_size=world_size,
        metadata=tuple(bytes(one) for one in said),
    )


SEAT = object()
"""Stands for the number of the new seat in a command."""
