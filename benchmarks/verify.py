"""A new group must answer right before it is timed: a wrong answer that comes fast is no figure."""

from collections.abc import Callable
from typing import Any

from benchmarks.contestants.base import AwaitableGroup, BlockingGroup


class WrongAnswerError(Exception):
    """An operation returned something else than was given."""


def _same(operation: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        raise WrongAnswerError(f"{operation} returned {got!r} instead of {wanted!r}")


def verify(group: BlockingGroup, rank: int, world_size: int, payload: Callable[[int], Any]) -> None:
    """Run each operation once and compare what comes back."""
    _same("all_gather", list(group.all_gather(payload(rank))), [payload(each) for each in range(world_size)])
    _same("broadcast", group.broadcast(payload(0) if rank == 0 else None, 0), payload(0))
    if rank == 0:
        group.send(payload(0), 1)
        _same("recv", group.recv(1), payload(1))
    elif rank == 1:
        _same("recv", group.recv(0), payload(0))
        group.send(payload(1), 0)
    group.barrier()


async def verify_async(group: AwaitableGroup, rank: int, world_size: int, payload: Callable[[int], Any]) -> None:
    """Run each operation once and compare what comes back."""
    gathered = await group.all_gather(payload(rank))
    _same("all_gather", list(gathered), [payload(each) for each in range(world_size)])
    _same("broadcast", await group.broadcast(payload(0) if rank == 0 else None, 0), payload(0))
    if rank == 0:
        await group.send(payload(0), 1)
        _same("recv", await group.recv(1), payload(1))
    elif rank == 1:
        _same("recv", await group.recv(0), payload(0))
        await group.send(payload(1), 0)
    await group.barrier()
