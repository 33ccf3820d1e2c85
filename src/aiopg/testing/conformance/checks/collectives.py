"""Every operation of a group, through `AsyncStatelessGroup`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiopg.group import AsyncStatelessGroup
from aiopg.testing.conformance._checks import check
from aiopg.testing.conformance._expect import same
from aiopg.testing.conformance._ground import Ground

Operation = Callable[[AsyncStatelessGroup], Awaitable[Any]]

RULE = "every operation of a group of {} comes to what it should at every rank, twice over"


@check(RULE.format(2))
async def of_2(ground: Ground) -> None:
    await every_operation(ground, 2)


@check(RULE.format(4))
async def of_4(ground: Ground) -> None:
    await every_operation(ground, 4)


@check(RULE.format(8))
async def of_8(ground: Ground) -> None:
    await every_operation(ground, 8)


@check("a subgroup is independent of its group, and so is a second group over the same links (promise 9)")
async def subgroup(ground: Ground) -> None:
    groups = await ground.groups(3)
    part = await ground.all(groups[rank].subgroup([2, 0]) for rank in (2, 0))
    name = ground.name()
    again = [AsyncStatelessGroup(group.rank, 3, group.store.link, group=name) for group in groups]
    same(await gathered(ground, part), [["0 of 2", "1 of 2"]] * 2, "all_gather of the subgroup")
    same(await gathered(ground, again), [["0 of 3", "1 of 3", "2 of 3"]] * 3, "all_gather of another group")
    await ground.all(group.close() for group in part)
    same(await gathered(ground, groups), [["0 of 3", "1 of 3", "2 of 3"]] * 3, "all_gather of the first group")
    await ground.all(group.close() for group in [*groups, *again])


async def every_operation(ground: Ground, n: int) -> None:
    """All of them, one behind another, under two tags."""
    groups = await ground.groups(n)
    root = n - 1
    for tag in (0, "again"):
        for name, (operation, wanted) in operations(n, root, tag).items():
            same(await ground.all(run(operation, group) for group in groups), wanted, f"{name}, tag {tag!r}")
    await ground.all(group.close() for group in groups)


def operations(n: int, root: int, tag: int | str) -> dict[str, tuple[Operation, list[Any]]]:
    """Each with what it should come to, by rank."""
    ranks = list(range(n))
    total = sum(ranks)

    async def ring(group: AsyncStatelessGroup) -> Any:
        await group.send({"from": group.rank}, (group.rank + 1) % n, tag=tag)
        return await group.recv((group.rank - 1) % n, tag=tag)

    return {
        "barrier": (lambda g: g.barrier(tag=tag), [None] * n),
        "broadcast": (lambda g: g.broadcast("b" if g.rank == root else None, root, tag=tag), ["b"] * n),
        "all_gather": (lambda g: g.all_gather(g.rank, tag=tag), [ranks] * n),
        "gather": (lambda g: g.gather(g.rank, root, tag=tag), [None] * root + [ranks]),
        "scatter": (lambda g: g.scatter(ranks if g.rank == root else None, root, tag=tag), ranks),
        "all_to_all": (
            lambda g: g.all_to_all([(g.rank, to) for to in ranks], tag=tag),
            [[(src, to) for src in ranks] for to in ranks],
        ),
        "all_reduce": (lambda g: g.all_reduce(g.rank, tag=tag), [total] * n),
        "reduce": (lambda g: g.reduce(g.rank, root, "max", tag=tag), [None] * root + [root]),
        "send and recv": (ring, [{"from": (rank - 1) % n} for rank in ranks]),
    }


async def gathered(ground: Ground, groups: list[AsyncStatelessGroup]) -> list[list[Any]]:
    """What an all_gather comes to."""
    return await ground.all(group.all_gather(f"{group.rank} of {group.world_size}") for group in groups)


async def run(operation: Operation, group: AsyncStatelessGroup) -> Any:
    """As a coroutine, whatever kind of awaitable it is."""
    return await operation(group)
