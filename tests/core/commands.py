"""Random commands, most of which make sense, as a member of a small group might say them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from aiopg._core.key_messages import (
    STORE,
    AddKey,
    AppendKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    DeleteKeys,
    Follow,
    GetKeys,
    ListKeys,
    Lock,
    Meet,
    Pop,
    Push,
    PutBack,
    QueueLength,
    SetKeys,
    Unlock,
    WaitKeys,
)
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    COLLECTIVES,
    Abort,
    Arrive,
    Cancel,
    Command,
    Enlist,
    Expire,
    Inquire,
    Join,
    Leave,
    Needs,
    Put,
    Reform,
    Status,
    Take,
    TakeBack,
    Trace,
    Vacate,
    Watch,
)
from aiopg._core.parts import join_parts

__all__ = ["LIMITS", "Commands"]

LIMITS = Limits(mailbox_messages=6, waiting_calls=8, open_rounds=4, keys=3, queue_items=3, kept_changes=4)
"""Small, so that commands drawn at random meet them."""

TAGS: list[int | str] = [0, "t"]


class Commands:
    """Draws them; the numbers of calls and rounds count up as those of a member of ours do."""

    def __init__(self, chance: random.Random, sizes: Sequence[int] = (0, 3, 40_000)) -> None:
        """`sizes`: of messages, in bytes."""
        self.chance = chance
        self._sizes = sizes
        self._last = 0
        self._numbers: dict[tuple[bytes, int, object], int] = {}

    def draw(self, session: bytes, rank: int) -> Command:
        """What a session says next. `rank`: that which it asks for, 0 to 2."""
        chance = self.chance
        self._last += 1
        call, seat, tag, peer = self._last, chance.randrange(2), chance.choice(TAGS), chance.randrange(3)
        body = (chance.randbytes(chance.choice(self._sizes)),)
        older = chance.randrange(max(1, call - 12), call + 1)
        makes: list[Callable[[], Command]] = [
            lambda: Join(call, seat, f"g{seat}", rank, 3, chance.choice((0.3, 50.0)), "me", chance.random() < 0.3),
            lambda: Join(call, seat, f"g{seat}", rank, 3, 50.0, "me"),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Put(call, seat, peer, tag, body),
            lambda: Take(call, seat, peer, tag),
            lambda: TakeBack(call, seat, peer, tag, older),
            lambda: Cancel(older),
            lambda: Inquire(call, older),
            lambda: Watch(call, seat, chance.randrange(4)),
            lambda: Expire(call, seat),
            lambda: Enlist(call, 5 + chance.randrange(2), "g9", 2, 3, 0.7, 50.0, "me", (b"said",)),
            lambda: Reform(call, chance.choice((seat, 5, 6)), 5 + chance.randrange(3), 50.0, "me"),
            lambda: Status(call),
            lambda: Trace(call, chance.randrange(-3, 3), chance.randrange(3), chance.choice(("", "g"))),
            *[lambda: self._draw_keys(call, chance.choice((seat, seat, STORE)))] * 6,
            *[lambda: self._arrive(session, rank, call, seat, tag)] * 6,
        ]
        if chance.random() < 0.03:
            makes = [lambda: Leave(call, seat), lambda: Vacate(call, seat), lambda: Abort(call, seat, "enough")]
        return chance.choice(makes)()

    def _draw_keys(self, call: int, seat: int) -> Command:
        chance = self.chance
        key, value = chance.choice(("a", "b", "n")), chance.choice((b"1", b"x" * 40_000, b""))
        names = join_parts([b"a", key.encode()])
        makes: list[Callable[[], Command]] = [
            lambda: SetKeys(
                call, seat, 1, chance.choice((0.3, math.inf)), chance.random() < 0.5, join_parts([key.encode(), value])
            ),
            lambda: chance.choice((GetKeys, WaitKeys, CheckKeys, DeleteKeys))(call, seat, 2, names),
            lambda: AddKey(call, seat, 5, "n"),
            lambda: AppendKey(call, seat, key, (value,)),
            lambda: CompareSet(call, seat, chance.random() < 0.5, key, join_parts([b"1", value])),
            lambda: chance.choice((ListKeys, CountKeys))(call, seat, chance.choice(("", "a"))),
            lambda: chance.choice((Push, Push, AppendKey))(call, seat, key, (value,)),
            lambda: Pop(call, seat, chance.random() < 0.7, key),
            lambda: PutBack(call, seat, chance.randrange(5), key, (value,)),
            lambda: QueueLength(call, seat, key),
            lambda: Meet(call, seat, chance.choice((2, 2, 3)), key),
            lambda: Lock(call, seat, key),
            lambda: Unlock(call, seat, chance.randrange(1, 6), key),
            lambda: Follow(call, seat, chance.choice((-1, 0, 3)), chance.choice(("", "a"))),
        ]
        return chance.choice(makes)()

    def _arrive(self, session: bytes, rank: int, call: int, seat: int, tag: Any) -> Arrive:
        number = self._numbers[session, seat, tag] = self._numbers.get((session, seat, tag), 0) + 1
        op = COLLECTIVES[number % 3] if self.chance.random() < 0.95 else "gather"
        if op == "broadcast":
            gives = rank == 0
            return Arrive(call, seat, tag, number, op, 0, "", Needs.NOTHING if gives else Needs.ROOT, gives, (b"b",))
        needs = Needs.ALL_TOLD if rank == 0 and op == "barrier" else Needs.ALL
        body = join_parts([b"x"] * 3) if self.chance.random() < 0.1 else (b"part",)
        pieces = 0 if op == "barrier" else 3 if len(body) > 1 else 1
        return Arrive(call, seat, tag, number, op, -1, "", needs, pieces, body if pieces else ())
