"""The collectives give every rank what they promise."""

from __future__ import annotations

import asyncio
import operator
from typing import Any

import numpy
import pytest

from aiopg import AsyncStatelessGroup, CollectiveMismatchError

from .conftest import Meeting, all_ranks

SIZES = [1, 2, 3, 8]


@pytest.mark.parametrize("n", SIZES)
async def test_all_gather_gives_every_object_in_rank_order(meeting: Meeting, n: int) -> None:
    """all_gather: every rank's object, in rank order, on every rank."""
    groups = await meeting.form(n)
    results = await all_ranks(groups, lambda g: g.all_gather({"rank": g.rank, "pair": (g.rank, b"x" * g.rank)}))
    assert results == [[{"rank": rank, "pair": (rank, b"x" * rank)} for rank in range(n)]] * n


@pytest.mark.parametrize("n", SIZES)
async def test_broadcast_gives_the_sources_object_to_all(meeting: Meeting, n: int) -> None:
    """broadcast: whatever src gives, on every rank, from every src."""
    groups = await meeting.form(n)
    for src in range(n):
        results = await all_ranks(groups, lambda g, src=src: g.broadcast(("from", g.rank), src))  # type: ignore[misc]
        assert results == [("from", src)] * n


@pytest.mark.parametrize("n", SIZES)
async def test_gather_and_reduce_answer_the_destination_alone(meeting: Meeting, n: int) -> None:
    """gather and reduce: the result on dst, None elsewhere."""
    groups = await meeting.form(n)
    dst = n - 1
    assert await all_ranks(groups, lambda g: g.gather(g.rank * 10, dst)) == [None] * dst + [[r * 10 for r in range(n)]]
    assert await all_ranks(groups, lambda g: g.reduce(g.rank + 1, dst, "prod")) == [None] * dst + [
        [1, 2, 6, 24, 120, 720, 5040, 40320][dst]
    ]


@pytest.mark.parametrize("n", SIZES)
async def test_scatter_and_all_to_all_give_each_rank_its_own(meeting: Meeting, n: int) -> None:
    """scatter: objs[i] to rank i. all_to_all: rank i gets objs[i] of every rank."""
    groups = await meeting.form(n)
    objs = [f"for {rank}" for rank in range(n)]
    assert await all_ranks(groups, lambda g: g.scatter(objs if g.rank == 0 else None, 0)) == objs
    results = await all_ranks(groups, lambda g: g.all_to_all([(g.rank, to) for to in range(n)]))
    assert results == [[(src, rank) for src in range(n)] for rank in range(n)]


async def test_all_reduce_on_numbers_lists_arrays_and_functions(meeting: Meeting) -> None:
    """all_reduce: named ops on numbers, lists and arrays; a function on anything; the same on every rank."""
    groups = await meeting.form(3)

    async def check(values: list[Any], op: Any, expected: Any) -> None:
        for result in await all_ranks(groups, lambda g: g.all_reduce(values[g.rank], op)):
            assert type(result) is type(expected)
            assert numpy.array_equal(result, expected)

    await check([1, 2, 3], "sum", 6)
    await check([0.1, 0.2, 0.3], "sum", 0.1 + 0.2 + 0.3)
    await check([4, 2, 3], "min", 2)
    await check([[1, 9], [5, 2], [3, 3]], "max", [5, 9])
    await check([numpy.array([1.0, 2.0]) * r for r in (1, 2, 3)], "prod", numpy.array([6.0, 48.0]))
    await check(["a", "b", "c"], operator.add, "abc")


async def test_reduce_ops_that_differ_are_a_mismatch(meeting: Meeting) -> None:
    """The reduce op must agree between ranks, like the operation and the root."""
    groups = await meeting.form(2)
    errors = await asyncio.gather(
        groups[0].all_reduce(1, "sum"), groups[1].all_reduce(1, "max"), return_exceptions=True
    )
    assert [type(error) for error in errors] == [CollectiveMismatchError] * 2


async def test_values_that_do_not_go_together_raise_on_every_rank(meeting: Meeting) -> None:
    """A reduction that cannot be computed is an error on every rank, and the group stays usable."""
    groups = await meeting.form(2)
    for bad in ([[1], [1, 2]], [1, "a"], [1, [1]]):
        errors = await asyncio.gather(*(g.all_reduce(bad[g.rank]) for g in groups), return_exceptions=True)
        assert [type(error) for error in errors] == [ValueError] * 2, bad
    with pytest.raises(ValueError, match="median"):
        await groups[0].all_reduce(1, "median")
    assert await all_ranks(groups, lambda g: g.all_reduce(1)) == [2, 2]


async def test_tags_separate_collectives(meeting: Meeting) -> None:
    """Collectives of one tag are independent of those of another and may be called in any order."""
    groups = await meeting.form(2)

    async def rank0() -> list[Any]:
        return list(await asyncio.gather(groups[0].all_gather("a0", tag="a"), groups[0].all_gather("b0", tag=7)))

    async def rank1() -> list[Any]:
        b = await groups[1].all_gather("b1", tag=7)
        return [await groups[1].all_gather("a1", tag="a"), b]

    assert list(await asyncio.gather(rank0(), rank1())) == [[["a0", "a1"], ["b0", "b1"]]] * 2


async def test_a_mismatch_is_told_to_all_and_the_next_call_starts_level(meeting: Meeting) -> None:
    """Different operations under one number raise on all ranks, naming who called what; then the group goes on."""
    groups = await meeting.form(3)
    calls = [groups[0].barrier(), groups[1].all_gather(1), groups[2].barrier()]
    errors = await asyncio.gather(*calls, return_exceptions=True)
    for error in errors:
        assert isinstance(error, CollectiveMismatchError)
        assert error.calls[1] == "all_gather()"
    assert await all_ranks(groups, lambda g: g.all_gather(g.rank)) == [[0, 1, 2]] * 3


async def test_many_collectives_at_once_keep_call_order(meeting: Meeting) -> None:
    """Numbers are taken when the call is made: a hundred calls under way at once do not mix."""
    groups = await meeting.form(3)

    async def burst(group: AsyncStatelessGroup) -> list[list[tuple[int, int]]]:
        return list(await asyncio.gather(*(group.all_gather((group.rank, i)) for i in range(100))))

    expected = [[(rank, i) for rank in range(3)] for i in range(100)]
    assert await asyncio.gather(*map(burst, groups)) == [expected] * 3
