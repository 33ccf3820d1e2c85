"""A new group must answer right before it is timed: a wrong answer that comes fast is no figure."""

import math
from typing import Any

from benchmarks import payload
from benchmarks.contestants.base import (
    AwaitableContestant,
    AwaitableGroup,
    BlockingContestant,
    BlockingGroup,
)


class WrongAnswerError(Exception):
    """An operation returned something else than was given."""


def _same(operation: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise WrongAnswerError(f"{operation} returned {got!r} instead of {wanted!r}")


def verify(contestant: BlockingContestant, group: BlockingGroup, rank: int, world_size: int) -> None:
    """Run each operation of a group once and compare what comes back."""
    give = contestant.payload
    _same("all_gather", list(group.all_gather(give(rank))), [give(each) for each in range(world_size)])
    _same("broadcast", group.broadcast(give(0) if rank == 0 else None, 0), give(0))
    if rank == 0:
        group.send(give(0), 1)
        _same("recv", group.recv(1), give(1))
    elif rank == 1:
        _same("recv", group.recv(0), give(0))
        group.send(give(1), 0)
    if (all_reduce := getattr(group, "all_reduce", None)) is not None:
        _same_sum(all_reduce(contestant.numbers(rank)), world_size)
    group.barrier()


async def verify_async(contestant: AwaitableContestant, group: AwaitableGroup, rank: int, world_size: int) -> None:
    """Run each operation of a group once and compare what comes back."""
    give = contestant.payload
    gathered = await group.all_gather(give(rank))
    _same("all_gather", list(gathered), [give(each) for each in range(world_size)])
    _same("broadcast", await group.broadcast(give(0) if rank == 0 else None, 0), give(0))
    if rank == 0:
        await group.send(give(0), 1)
        _same("recv", await group.recv(1), give(1))
    elif rank == 1:
        _same("recv", await group.recv(0), give(0))
        await group.send(give(1), 0)
    if (all_reduce := getattr(group, "all_reduce", None)) is not None:
        _same_sum(await all_reduce(contestant.numbers(rank)), world_size)
    await group.barrier()


def _same_sum(got: Any, world_size: int) -> None:
    """The sum that comes back; the order in which floats are added is each contestant's own."""
    wanted = map(sum, zip(*map(payload.numbers, range(world_size)), strict=True))
    if not all(math.isclose(one, two) for one, two in zip(map(float, got), wanted, strict=True)):
        raise WrongAnswerError(f"all_reduce returned another sum: {got!r:.200}")


def check_sized(received: Any, length: int) -> None:
    """A broadcast payload as it arrived, compared once before its size is timed."""
    if received != payload.sized(length):
        raise WrongAnswerError(f"broadcast changed a payload of {length:,} bytes")
