"""A member with a valid token that does what it likes can end its own session and its own group, and nothing else."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from aiopg import AsyncStatelessGroup, GroupAbortedError, Limits, PeerLostError, StoreServer
from aiopg._core.frames import PREFIX_CODES, PREFIX_HEAD_BYTES
from aiopg._core.messages import (
    Abort,
    Answer,
    Arrive,
    Cancel,
    Expire,
    Inquire,
    Join,
    Leave,
    Message,
    Needs,
    Put,
    Status,
    Take,
    TakeBack,
    Vacate,
    Void,
    Watch,
)
from aiopg.errors import ProtocolError
from tests.security.stranger import Stranger
from tests.system.ranks import SLOW, resident_bytes

TAGS = 1_000_000

MOST_TAKEN = 100 * 2**20
"""Bytes of memory: far more than any attack is to take, and far less than any could without a bound."""

TOKEN = "correct horse battery staple"

SMALL = Limits(
    group_messages=2000, open_rounds=2000, mailbox_messages=1000, waiting_calls=100, outbox_frames=256,
    payload_bytes=2**20, retained_bytes=2**20,
)  # fmt: skip
STALL = 2.0 * SLOW
"""Seconds that no call of the others takes. (A store that is busy with an attack takes some milliseconds more.)"""

Attack = Callable[[Stranger], Awaitable[None]]


async def member(server: StoreServer, group: str = "its own") -> Stranger:
    """Rank 0 of 1 in a group of its own, spoken by hand: seat 1, and the first call is used."""
    hostile = await (await Stranger.come(server.address)).open(TOKEN.encode())
    hostile.say(Join(1, 1, group, 0, 1, 60.0, "it"))
    await hostile.hear()
    return hostile


def raw(hostile: Stranger, seq: int, ack: int, kind: int, fields: bytes = b"", lie: int = 0) -> None:
    """A frame with whatever numbers; `lie`: this much more body than there is."""
    hostile.writer.write(struct.pack(PREFIX_CODES, PREFIX_HEAD_BYTES + len(fields), lie, seq, ack, kind) + fields)


async def a_taken_rank(hostile: Stranger) -> None:
    for seat in range(2, 50):
        hostile.say(Join(seat, seat, "victims", 0, 2, 60.0, "it"))


async def another_size(hostile: Stranger) -> None:
    for call, size in enumerate((1, 3, 8192, 2**40, -1, 0), 2):
        hostile.say(Join(call, call, "victims", 0, size, 60.0, "it"))


async def wrong_round_numbers(hostile: Stranger) -> None:
    for call, number in enumerate((2, 1, 1, 2**63 - 1, -(2**63), 0), 2):
        hostile.say(Arrive(call, 1, 0, number, "all_gather", -1, "", Needs.ALL, 1, (b"x",)))
        hostile.say(Arrive(call + 100, 99, 0, number, "barrier", 7, "", 77, 1))


async def an_acknowledgement_from_the_future(hostile: Stranger) -> None:
    raw(hostile, hostile.session.sent + 1, 10**6, 43, struct.pack(">q", 2))


async def a_gap(hostile: Stranger) -> None:
    raw(hostile, hostile.session.sent + 1000, 0, 43, struct.pack(">q", 2))


async def giant_lengths(hostile: Stranger) -> None:
    raw(hostile, hostile.session.sent + 1, 0, 20, bytes(32), lie=2**32 - 1)


async def a_body_that_never_comes(hostile: Stranger) -> None:
    raw(hostile, hostile.session.sent + 1, 0, 20, bytes(32), lie=Limits().payload_bytes)


async def more_tags_than_are_kept(hostile: Stranger) -> None:
    await say_many_tags(hostile, range(3000))


async def say_many_tags(hostile: Stranger, numbers: range) -> None:
    """A message and a collective that never ends, each with a tag of its own. As much is said as a member may say."""
    if numbers.start == 0:
        for seat in (2, 3):
            hostile.say(Join(seat, seat, "its own pair", seat - 2, 2, 60.0, "it"))
    for number in numbers:
        hostile.say(Put(2 * number + 10, 2, 1, number, (b"x",)))
        hostile.say(Arrive(2 * number + 11, 2, -number, 1, "barrier", -1, "", Needs.ALL, 0))
        while hostile.session.full:
            if not await hostile.hear():
                raise ConnectionError("the store has ended it")


async def answers_without_end_that_are_not_acknowledged(hostile: Stranger) -> None:
    for call in range(2, 270):
        hostile.say(Void(call))
    for call in range(1000, 1230):
        hostile.say(Put(call, 1, 0, 0, (bytes(SMALL.payload_bytes),)))
        await hostile.writer.drain()


async def take_backs_of_what_is_not_there(hostile: Stranger) -> None:
    for call in range(2, 1000):
        hostile.say(Put(call, 1, 0, 0, (b"x",)))
    for call in range(1000, 5000):
        hostile.say(TakeBack(call, 1, 0, 0, 1))
        hostile.say(Expire(call + 10**6, 1))


async def events_of_the_store(hostile: Stranger) -> None:
    hostile.say(Answer(5, False, (b"an answer to a call never made",)))


async def what_is_not_there(hostile: Stranger) -> None:
    for number in range(2, 200, 8):
        commands: list[Message] = [
            Cancel(number * 7),
            Void(number),
            Inquire(number + 1, 10**9),
            TakeBack(number + 2, 1, 0, 0, 10**9),
            Take(number + 3, 55, 0, 0),
            Watch(number + 4, 1, 2**62),
            Vacate(number + 5, 77),
            Leave(number + 6, 78),
        ]
        for command in commands:
            hostile.say(command)


async def more_calls_than_may_wait(hostile: Stranger) -> None:
    for call in range(2, 5000):
        hostile.say(Take(call, 1, 0, "tag"))


async def questions_and_no_answer_read(hostile: Stranger) -> None:
    for call in range(2, 40_000):
        hostile.say(Status(call))
        if call % 1000 == 0:
            try:
                async with asyncio.timeout(0.2):
                    await hostile.writer.drain()
            except (TimeoutError, ConnectionError):
                return


async def an_abort(hostile: Stranger) -> None:
    hostile.say(Abort(2, 1, "x" * 3000))
    hostile.say(Abort(3, 2, "of a group that it is not in"))


async def garbage(hostile: Stranger) -> None:
    hostile.writer.write(bytes(range(256)) * 1000)


ATTACKS: list[Attack] = [
    a_taken_rank, another_size, wrong_round_numbers, an_acknowledgement_from_the_future, a_gap, giant_lengths,
    a_body_that_never_comes, answers_without_end_that_are_not_acknowledged,
    take_backs_of_what_is_not_there, more_tags_than_are_kept, events_of_the_store, what_is_not_there,
    more_calls_than_may_wait, questions_and_no_answer_read, an_abort, garbage,
]  # fmt: skip


@pytest.fixture(autouse=True)
def others_have_small_limits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be under way from a member whose own limits are the usual ones is 128 MiB; here it is 4."""
    monkeypatch.setattr("aiopg.link.RETAINED_BYTES", 2 * 2**20)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_a_second_group_on_the_store_never_notices(attack: Attack) -> None:
    """Before, during and after: every call has its right result, no error, and nothing of it is left behind."""
    await beside_victims(attack, SMALL)


@pytest.mark.timeout(600)
def test_a_million_tags_are_not_kept() -> None:
    """Nor is the memory that they would take: past the limits each is refused, and the others never notice."""
    held = []

    async def attack(hostile: Stranger) -> None:
        for start in range(0, TAGS // 2, TAGS // 8):
            await say_many_tags(hostile, range(start, start + TAGS // 8))
            held.append(resident_bytes(os.getpid()))

    uvloop.run(beside_victims(attack, Limits(group_messages=2000, open_rounds=2000)))
    assert held[-1] < held[0] + TAGS


async def beside_victims(attack: Attack, limits: Limits) -> None:
    """An attack, and beside it two members of another group that go on as if nothing were."""
    async with StoreServer(token=TOKEN, limits=limits) as server:
        victims = await asyncio.gather(
            *(
                AsyncStatelessGroup.connect(server.address, rank=rank, world_size=2, group="victims", token=TOKEN)
                for rank in range(2)
            )
        )
        hostile, before = await member(server), resident_bytes(os.getpid())
        going = asyncio.create_task(_attack(attack, hostile))
        turn = 0
        while not going.done() or turn < 20:
            turn += 1
            given = asyncio.gather(*(group.all_gather((turn, group.rank), timeout=STALL) for group in victims))
            assert await given == [[(turn, 0), (turn, 1)]] * 2
            await victims[0].send(turn, 1)
            assert await victims[1].recv(0) == turn
        await going
        hostile.writer.transport.abort()
        await asyncio.gather(*(group.barrier(20.0) for group in victims))
        assert resident_bytes(os.getpid()) - before < MOST_TAKEN
        names = {group["name"] for group in server.describe()["groups"]}  # type: ignore[attr-defined]
        assert names <= {"victims", "its own", "its own pair"}
        await asyncio.gather(*(group.close() for group in victims))


async def _attack(attack: Attack, hostile: Stranger) -> None:
    try:
        await attack(hostile)
        await hostile.writer.drain()
        async with asyncio.timeout(0.3):
            while await hostile.hear():
                pass
    except (TimeoutError, ConnectionError, ProtocolError):
        pass  # it waits for us, or has ended us: what matters here is the others


async def test_a_hostile_member_ends_its_own_group_and_no_other() -> None:
    """It may abort the group that it is in, and leave it; those who share it are told by whom."""
    async with StoreServer(token=TOKEN) as server:
        hostile = await (await Stranger.come(server.address)).open(TOKEN.encode())
        hostile.say(Join(1, 1, "shared", 1, 2, 60.0, "it"))
        mine = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=2, group="shared", token=TOKEN)
        other = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, group="other", token=TOKEN)
        hostile.say(Abort(2, 1, "because"))
        with pytest.raises((GroupAbortedError, PeerLostError)) as caught:
            await mine.barrier(20.0)
        assert isinstance(caught.value, GroupAbortedError)
        assert (caught.value.origin, caught.value.reason) == (1, "because")
        await other.barrier()
        hostile.leave()
        await asyncio.gather(mine.close(), other.close())
