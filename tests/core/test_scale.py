"""What one rank costs the engine does not grow with its group: counted in bytecodes, which time nothing and vary with
nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from tests.core.cluster import Cluster

FEW, MANY = 40, 400
GROWTH = 1.15
"""A rank's share of what is done once in a round shrinks, so that what is seen is 1.0 or less; work for every other
rank would be 10."""


def bytecodes(action: Callable[[], object]) -> int:
    """How many of them the action takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def joins(size: int) -> Callable[[], object]:
    cluster = Cluster()
    return lambda: cluster.group(size)


def barrier(size: int) -> Callable[[], object]:
    members = Cluster().group(size)
    return lambda: [member.barrier() for member in members]


def all_gather(size: int) -> Callable[[], object]:
    members = Cluster().group(size)
    return lambda: [member.all_gather(b"x") for member in members]


def broadcast(size: int) -> Callable[[], object]:
    """The root comes when half of the others wait."""
    members = Cluster().group(size)
    members.insert(size // 2, members.pop(0))
    return lambda: [member.broadcast(0, b"x" if member.rank == 0 else b"") for member in members]


def barrier_without_one(size: int) -> Callable[[], object]:
    cluster = Cluster()
    members = cluster.group(size)
    cluster.lose(members.pop())
    return lambda: [member.barrier() for member in members]


def lost_in_a_barrier(size: int) -> Callable[[], object]:
    """Half of them wait, and the others are lost, one after another."""
    cluster = Cluster()
    members = cluster.group(size)
    for member in members[::2]:
        member.barrier()

    def lose() -> None:
        for member in members[1::2]:
            cluster.lose(member)

    return lose


def left_with_a_round_open(size: int) -> Callable[[], object]:
    """All but one were told, and leave, one after another."""
    cluster = Cluster()
    members = cluster.group(size)
    for member in members[:-1]:
        member.broadcast(0, b"x" if member.rank == 0 else b"")
    return lambda: [member.leave() for member in members]


@pytest.mark.parametrize(
    "life",
    [joins, barrier, all_gather, broadcast, barrier_without_one, lost_in_a_barrier, left_with_a_round_open],
)
def test_a_rank_costs_the_same_in_a_large_group(life: Callable[[int], Callable[[], object]]) -> None:
    few, many = (bytecodes(life(size)) / size for size in (FEW, MANY))
    assert many < few * GROWTH, f"{few:.0f} bytecodes a rank at {FEW} ranks, {many:.0f} at {MANY}"
