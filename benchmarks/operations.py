"""What is measured: each operation's loop, once for blocking groups and once for awaitable ones.

A block is `count` repetitions on every rank. Each rank passes the group's own barrier with the clock off,
reads the clock, runs the loop and reads the clock again. All ranks share one host and so one monotonic clock:
the block took from the last rank's start to the last rank's end (`benchmarks.team` computes it). A contestant
whose ranks leave the opening barrier at different times is not charged for the difference. Ranks that have no part in
an operation do not count.

barrier     `count` barriers.
all_gather  `count` all_gathers, every rank giving its own object.
broadcast   `count` broadcasts from rank 0 in a row. The root may run ahead of the receivers; the block ends when
            the slowest of them has the last object, so this is the amortised cost, not the latency of one.
            No barrier closes the block: in a group with a slow one it would be most of the figure.
message     ranks 0 and 1 play ping-pong `count` times, the other members of the group stay idle; one
            repetition is two messages, and the figure is the time of one.
all_reduce  `count` sums of 1,000 floats of every rank; each rank gets the result.
join        `count` times one more group of the same ranks, until the last rank has joined. Each repetition has its own
            start and end, the same rule between them: what lies between two (a barrier of the group that runs, leaving
            the new one) is not in the figure.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from benchmarks.contestants.base import (
    AwaitableContestant,
    AwaitableGroup,
    BlockingContestant,
    BlockingGroup,
    Seat,
)

Times: TypeAlias = tuple[list[int], list[int]]
"""Starts and ends in monotonic nanoseconds."""


@dataclass(frozen=True)
class Block:
    """One rank's part of a timed block."""

    rank: int
    obj: Any
    count: int


@dataclass(frozen=True)
class Operation:
    """One operation in both shapes."""

    blocking: Callable[[BlockingGroup, Block], None]
    awaitable: Callable[[AwaitableGroup, Block], Awaitable[None]]
    per_repetition: int = 1
    """How many operations one repetition of the loop holds."""
    ranks: int | None = None
    """How many ranks take part, from 0 on, where not all do: when the others start and end is of no concern."""
    numbers: bool = False
    """Whether what travels is the numbers to sum up, and not the object."""


def _barrier(group: BlockingGroup, block: Block) -> None:
    for _ in range(block.count):
        group.barrier()


async def _barrier_async(group: AwaitableGroup, block: Block) -> None:
    for _ in range(block.count):
        await group.barrier()


def _all_gather(group: BlockingGroup, block: Block) -> None:
    for _ in range(block.count):
        group.all_gather(block.obj)


async def _all_gather_async(group: AwaitableGroup, block: Block) -> None:
    for _ in range(block.count):
        await group.all_gather(block.obj)


def _broadcast(group: BlockingGroup, block: Block) -> None:
    obj = block.obj if block.rank == 0 else None
    for _ in range(block.count):
        group.broadcast(obj, 0)


async def _broadcast_async(group: AwaitableGroup, block: Block) -> None:
    obj = block.obj if block.rank == 0 else None
    for _ in range(block.count):
        await group.broadcast(obj, 0)


def _message(group: BlockingGroup, block: Block) -> None:
    if block.rank == 0:
        for _ in range(block.count):
            group.send(block.obj, 1)
            group.recv(1)
    elif block.rank == 1:
        for _ in range(block.count):
            group.recv(0)
            group.send(block.obj, 0)


async def _message_async(group: AwaitableGroup, block: Block) -> None:
    if block.rank == 0:
        for _ in range(block.count):
            await group.send(block.obj, 1)
            await group.recv(1)
    elif block.rank == 1:
        for _ in range(block.count):
            await group.recv(0)
            await group.send(block.obj, 0)


def _all_reduce(group: Any, block: Block) -> None:
    for _ in range(block.count):
        group.all_reduce(block.obj)


async def _all_reduce_async(group: Any, block: Block) -> None:
    for _ in range(block.count):
        await group.all_reduce(block.obj)


OPERATIONS = {
    "barrier": Operation(_barrier, _barrier_async),
    "all_gather": Operation(_all_gather, _all_gather_async),
    "broadcast": Operation(_broadcast, _broadcast_async),
    "message": Operation(_message, _message_async, per_repetition=2, ranks=2),
    "all_reduce": Operation(_all_reduce, _all_reduce_async, numbers=True),
}
"""Those that are a loop over calls of one group."""
JOIN = "join"
NAMES = (*OPERATIONS, JOIN)


def ranks_in(operation: str) -> int | None:
    """Return how many ranks take part in an operation, from 0 on; None where all do."""
    return None if operation == JOIN else OPERATIONS[operation].ranks


def timed(group: BlockingGroup, operation: str, block: Block) -> Times:
    """Run one block on this rank; return its start and end."""
    loop = OPERATIONS[operation].blocking
    group.barrier()
    start = time.monotonic_ns()
    loop(group, block)
    return [start], [time.monotonic_ns()]


async def timed_async(group: AwaitableGroup, operation: str, block: Block) -> Times:
    """Run one block on this rank; return its start and end."""
    loop = OPERATIONS[operation].awaitable
    await group.barrier()
    start = time.monotonic_ns()
    await loop(group, block)
    return [start], [time.monotonic_ns()]


def timed_joins(contestant: BlockingContestant, group: BlockingGroup, seats: Sequence[Seat]) -> Times:
    """Form a group for each seat, one after the other; return their starts and ends on this rank."""
    starts, ends = [], []
    for seat in seats:
        group.barrier()
        starts.append(time.monotonic_ns())
        leave = contestant.join(seat)
        ends.append(time.monotonic_ns())
        group.barrier()  # a store may end with rank 0's group: not before all have joined it
        leave()
    return starts, ends


async def timed_joins_async(contestant: AwaitableContestant, group: AwaitableGroup, seats: Sequence[Seat]) -> Times:
    """Form a group for each seat, one after the other; return their starts and ends on this rank."""
    starts, ends = [], []
    for seat in seats:
        await group.barrier()
        starts.append(time.monotonic_ns())
        leave = await contestant.join(seat)
        ends.append(time.monotonic_ns())
        await group.barrier()
        await leave()
    return starts, ends
