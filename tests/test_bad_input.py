"""Bad input: each mistake gets a clear error with the value in its text, at once, and harms no group."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio

from aiopg import (
    AsyncStatelessGroup,
    CodecError,
    ForkError,
    GroupClosedError,
    RankConflictError,
    StatelessGroup,
    StoreServer,
    WorldSizeMismatchError,
    WrongThreadError,
)
from tests.sync.processes import HOST, LONG, create_at_once, free_port

Pair = list[AsyncStatelessGroup]

CALLS: dict[str, Callable[[AsyncStatelessGroup], Any]] = {
    "join": lambda g: g.join(),
    "send": lambda g: g.send("x", 1),
    "recv": lambda g: g.recv(1),
    "barrier": lambda g: g.barrier(),
    "broadcast": lambda g: g.broadcast("x", 0),
    "all_gather": lambda g: g.all_gather("x"),
    "gather": lambda g: g.gather("x"),
    "scatter": lambda g: g.scatter(["x", "y"]),
    "all_to_all": lambda g: g.all_to_all(["x", "y"]),
    "all_reduce": lambda g: g.all_reduce(1),
    "reduce": lambda g: g.reduce(1),
    "expire_data": lambda g: g.expire_data(),
    "abort": lambda g: g.abort("no more"),
    "subgroup": lambda g: g.subgroup([0, 1]),
    "async with": lambda g: g.__aenter__(),
}


@pytest_asyncio.fixture
async def pair() -> Any:
    """Both ranks of a group on one server."""
    async with StoreServer() as server:
        groups = await asyncio.gather(
            *(AsyncStatelessGroup.connect(server.address, rank=r, world_size=2, store_timeout=LONG) for r in (0, 1))
        )
        yield groups
        for group in groups:
            await group.close()


async def works(pair: Pair) -> None:
    """The group is as usable as before, and its ranks count their collectives alike."""
    await pair[0].send("x", 1, timeout=LONG)
    assert await pair[1].recv(0, timeout=LONG) == "x"
    assert await asyncio.gather(*(g.all_gather(g.rank, timeout=LONG) for g in pair)) == [[0, 1]] * 2


# ------------------------------------------------------------------------------------------------- who am I


@pytest.mark.parametrize(("rank", "size"), [(-1, 2), (2, 2), (17, 2), (0, 0), (0, -3)])
def test_a_place_outside_the_group_is_refused(rank: int, size: int) -> None:
    """rank is 0 to world_size - 1, and world_size at least 1; nothing is opened to find that out."""
    wrong = size if size < 1 else rank
    port = free_port()
    with pytest.raises(ValueError, match=rf"not {wrong}\b"):
        create_at_once(HOST, port, rank, size)
    with pytest.raises(ValueError, match=rf"not {wrong}\b"):
        StatelessGroup.connect(f"aiopg://{HOST}:{port}", rank=rank, world_size=size)
    with pytest.raises(ValueError, match=rf"not {wrong}\b"):
        StatelessGroup(rank, size, f"aiopg://{HOST}:{port}")


@pytest.mark.parametrize("wrong", [True, "0", 0.0, None])
def test_a_place_that_is_no_number_is_refused(wrong: Any) -> None:
    """A rank read from the environment and never converted does not become one by luck."""
    with pytest.raises(TypeError, match=f"rank must be an int, not {wrong!r}"):
        create_at_once(HOST, free_port(), wrong, 2)
    with pytest.raises(TypeError, match=f"world_size must be an int, not {wrong!r}"):
        create_at_once(HOST, free_port(), 0, wrong)


async def test_a_taken_rank_is_refused_and_its_holder_named(pair: Pair) -> None:
    """A second process with a live member's rank learns who holds it; the group does not notice."""
    with pytest.raises(RankConflictError, match=f"rank 1 of group 'default' is held by pid {os.getpid()}") as caught:
        await AsyncStatelessGroup.connect(pair[0].store.url, rank=1, world_size=2, store_timeout=500)
    assert (caught.value.rank, caught.value.group) == (1, "default")
    await works(pair)


async def test_another_world_size_is_refused_with_advice(pair: Pair) -> None:
    """A live name with another size: the text says both sizes and to give the new group its own group= name."""
    with pytest.raises(WorldSizeMismatchError, match=r"world_size 2, not 4; .* its own group= name") as caught:
        await AsyncStatelessGroup.connect(pair[0].store.url, rank=3, world_size=4, store_timeout=500)
    assert (caught.value.world_size, caught.value.expected) == (4, 2)
    await works(pair)


# --------------------------------------------------------------------------------------- what is asked of it

PEER_CALLS: dict[str, Callable[[AsyncStatelessGroup, Any], Any]] = {
    "dst of send": lambda g, rank: g.send("x", rank),
    "src of recv": lambda g, rank: g.recv(rank),
    "src of broadcast": lambda g, rank: g.broadcast("x", rank),
    "dst of gather": lambda g, rank: g.gather("x", rank),
    "src of scatter": lambda g, rank: g.scatter(["x", "y"], rank),
    "dst of reduce": lambda g, rank: g.reduce(1, rank),
    "each of ranks": lambda g, rank: g.subgroup([0, rank]),
}


@pytest.mark.parametrize("what", PEER_CALLS)
async def test_a_peer_that_does_not_exist_is_refused(pair: Pair, what: str) -> None:
    """src and dst are ranks of the group; the group and its numbers stay as they were."""
    call, name = PEER_CALLS[what], what.partition(" of ")[0]
    for wrong in (-1, 2, 17):
        with pytest.raises(ValueError, match=f"{name}.* must be a rank from 0 to 1, not {wrong}"):
            await call(pair[0], wrong)
    for mistaken in (True, "1", 1.0, None):
        with pytest.raises(TypeError, match=f"{name}.* must be a rank, not {mistaken!r}"):
            await call(pair[0], mistaken)
    await works(pair)


async def test_a_rank_does_not_send_to_itself(pair: Pair) -> None:
    """send to oneself and recv from oneself would wait for ever."""
    with pytest.raises(ValueError, match=r"dst must be another rank than this one \(1\)"):
        await pair[1].send("x", 1)
    with pytest.raises(ValueError, match=r"src must be another rank than this one \(1\)"):
        await pair[1].recv(1)
    await works(pair)


TIMED = [name for name in CALLS if name not in ("expire_data", "abort", "subgroup", "async with")]


@pytest.mark.parametrize("name", TIMED)
async def test_a_timeout_that_is_none_is_refused(pair: Pair, name: str) -> None:
    """A timeout is a number over 0: not 0, nothing below, not NaN, no bool and no text."""
    arguments = {"send": ("x", 1), "recv": (1,), "scatter": (["x", "y"],), "all_to_all": (["x", "y"],)}
    given = arguments.get(name, () if name in ("join", "barrier") else (1,))
    for wrong in (0, -1, -0.5, math.nan, -math.inf):
        with pytest.raises(ValueError, match=f"timeout must be over 0 .*, not {wrong!r}"):
            await getattr(pair[0], name)(*given, timeout=wrong)
    for mistaken in (True, "5"):
        with pytest.raises(TypeError, match=f"timeout must be a number of seconds, not {mistaken!r}"):
            await getattr(pair[0], name)(*given, timeout=mistaken)
    await works(pair)


@pytest.mark.parametrize("wrong", [0, -1, math.nan])
def test_a_store_timeout_that_is_none_is_refused(wrong: float) -> None:
    """store_timeout is a timeout like the others."""
    with pytest.raises(ValueError, match=f"timeout must be over 0 .*, not {wrong!r}"):
        create_at_once(HOST, free_port(), 0, 1, store_timeout=wrong)
    with pytest.raises(ValueError, match=f"not {wrong!r}"):
        StatelessGroup.connect("memory://x", rank=0, world_size=1, store_timeout=wrong)
    with pytest.raises(ValueError, match=f"not {wrong!r}"):
        create_at_once(HOST, free_port(), 0, 1, wrong)


@pytest.mark.parametrize("name", TIMED[1:])
async def test_a_tag_that_is_none_is_refused(pair: Pair, name: str) -> None:
    """A tag is an int or a short text."""
    arguments = {"send": ("x", 1), "recv": (1,), "scatter": (["x", "y"],), "all_to_all": (["x", "y"],), "barrier": ()}
    for wrong in (True, 1.5, None, ("a",)):
        with pytest.raises(TypeError, match="tag must be an int or a str, not "):
            await getattr(pair[0], name)(*arguments.get(name, (1,)), tag=wrong)
    await works(pair)


async def test_objects_without_an_encoding_leave_the_group_as_it_was(pair: Pair) -> None:
    """A CodecError takes no number: the collectives of all ranks stay level."""
    unfit = {"a": [threading.Lock()]}
    calls = [pair[0].send(unfit, 1), pair[0].broadcast(unfit, 0), pair[0].all_gather(unfit), pair[0].gather(unfit, 1)]
    calls += [pair[0].scatter([unfit, 1]), pair[0].all_to_all([1, unfit]), pair[0].all_reduce(unfit)]
    for call in calls:
        with pytest.raises(CodecError, match=r'obj\["a"\]\[0\].*lock') as caught:
            await call
        assert "lock" in caught.value.type
    await works(pair)


@pytest.mark.parametrize("objs", [None, [], ["x"], ["x"] * 3, "xy"])
async def test_a_list_with_the_wrong_number_of_parts_is_refused(pair: Pair, objs: Any) -> None:
    """scatter and all_to_all want one part for each rank."""
    for call in (pair[0].scatter(objs), pair[0].all_to_all(objs)):
        with pytest.raises(ValueError, match="one entry for each of the 2 ranks"):
            await call
    await works(pair)


@pytest.mark.parametrize("ranks", [[], [1], [0, 0], [0, 1, 0]])
async def test_a_subgroup_without_this_rank_or_with_one_twice_is_refused(pair: Pair, ranks: list[int]) -> None:
    """ranks names this rank, and each once."""
    with pytest.raises(ValueError, match="must name this rank"):
        await pair[0].subgroup(ranks)
    await works(pair)


# ------------------------------------------------------------------------------------------ when it is over


@pytest.mark.parametrize("name", CALLS)
async def test_a_closed_group_refuses_every_call(pair: Pair, name: str) -> None:
    """Every call on a closed group raises GroupClosedError, on both classes; close() and repr() do not."""
    await pair[0].close()
    with pytest.raises(GroupClosedError, match="'default' was closed"):
        await CALLS[name](pair[0])
    await pair[0].close()
    assert "closed" in repr(pair[0])


@pytest.mark.parametrize("name", [name for name in CALLS if name != "async with"])
def test_a_closed_blocking_group_refuses_every_call(name: str) -> None:
    """The blocking group says the same."""
    group: Any = StatelessGroup.connect(f"memory://{name}", rank=0, world_size=1)
    group.close()
    with pytest.raises(GroupClosedError, match="'default' was closed"):
        CALLS[name](group)
    for late in (group.pending, group.__enter__):
        with pytest.raises(GroupClosedError):
            late()


async def test_a_group_refuses_calls_from_another_event_loop(pair: Pair) -> None:
    """A group belongs to the loop that joined it."""

    def elsewhere(call: Callable[[AsyncStatelessGroup], Any]) -> None:
        async def run() -> None:
            with pytest.raises(WrongThreadError, match="another event loop"):
                await call(pair[0])

        asyncio.run(run())

    for call in CALLS.values():
        await asyncio.to_thread(elsewhere, call)
    await works(pair)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_forked_child_is_refused(pair: Pair, capfd: pytest.CaptureFixture[str]) -> None:
    """In a forked child every call raises ForkError, close() does nothing, and the parent's group goes on."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if all(_is_refused(call(pair[0])) for call in CALLS.values()) else 2
            _step(pair[0].close())
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await works(pair)


def _step(coroutine: Any) -> None:
    """Run a coroutine that ends without waiting."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


def _is_refused(coroutine: Any) -> bool:
    try:
        coroutine.send(None)
    except ForkError as error:
        return "make a new group" in str(error)
    return False
