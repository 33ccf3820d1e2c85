"""The verbs of a key space, for a store that speaks the engine's commands."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from aiopg._core.frames import Body
from aiopg._core.key_messages import (
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
from aiopg._core.messages import Answer, Failed, unpack_value
from aiopg._core.parts import join_parts, split_parts
from aiopg.stores._adrift import Adrift
from aiopg.stores._calls import Calls, DeadlinePassedError, Pending, forget, stay_silent
from aiopg.stores.keys import Following, KeyCall, KeyEvent, Keys

__all__ = ["EngineKeys"]

Kind: TypeAlias = Literal["set", "deleted", "expired", "ended"]

logger = logging.getLogger("aiopg.store")

_NUMBER = struct.Struct(">q")
_KINDS = ("set", "deleted", "expired", "ended")


class _Late(NamedTuple):
    """What becomes of an answer for which nobody waits any more."""

    undo: Callable[[Body], None]
    queue: str | None = None
    """Of which nothing else is popped before that is known."""


class EngineKeys(Keys):
    """One space, as calls on a link."""

    def __init__(self, calls: Calls, seat: int, adrift: Adrift) -> None:
        """`seat`: that of the member in whose group's space it works; `key_messages.STORE` for the store's own."""
        self._calls = calls
        self._seat = seat
        self._adrift = adrift

    # -------------------------------------------------------------------------------------------------- values

    async def set(self, call: KeyCall, items: Sequence[tuple[str, bytes]], *, ttl: float | None, session: bool) -> int:
        body = join_parts([part for key, value in items for part in (key.encode(), value)])
        lasts = math.inf if ttl is None else float(ttl)
        return cast(int, await self._told(call, SetKeys, len(items), lasts, not session, body=body))

    async def get(self, call: KeyCall) -> list[bytes]:
        values = await self._ask(call, GetKeys, len(call.keys), body=_names(call))
        return [bytes(value) for value in split_parts(values, len(call.keys))]

    async def wait(self, call: KeyCall) -> None:
        await self._ask(call, WaitKeys, len(call.keys), body=_names(call))

    async def check(self, call: KeyCall) -> bool:
        return cast(bool, await self._told(call, CheckKeys, len(call.keys), body=_names(call)))

    async def add(self, call: KeyCall, amount: int) -> int:
        return cast(int, await self._told(call, AddKey, amount, *call.keys))

    async def append(self, call: KeyCall, value: bytes) -> int:
        return cast(int, await self._told(call, AppendKey, *call.keys, body=(value,)))

    async def compare_set(self, call: KeyCall, expected: bytes | None, desired: bytes) -> tuple[bool, bytes | None]:
        body = join_parts([expected or b"", desired])
        done, held = await self._told(call, CompareSet, expected is None, *call.keys, body=body)
        return done, held

    async def delete(self, call: KeyCall) -> int:
        return cast(int, await self._told(call, DeleteKeys, len(call.keys), body=_names(call)))

    async def list(self, call: KeyCall, prefix: str) -> list[str]:
        return sorted(await self._told(call, ListKeys, prefix))

    async def count(self, call: KeyCall, prefix: str) -> int:
        return cast(int, await self._told(call, CountKeys, prefix))

    # -------------------------------------------------------------------------------------------------- queues

    async def push(self, call: KeyCall, value: bytes) -> int:
        return cast(int, await self._told(call, Push, *call.keys, body=(value,)))

    async def pop(self, call: KeyCall, *, wait: bool) -> bytes:
        (key,) = call.keys
        if key in self._adrift:
            await self._adrift.settle(call, key)

        def put_back(item: Body) -> None:
            number, value = self._item(item)
            self._calls.submit(PutBack, self._seat, number, key, body=(value,), then=partial(_tell_of_loss, key))

        return self._item(await self._ask(call, Pop, wait, key, late=_Late(put_back, key)))[1]

    async def length(self, call: KeyCall) -> int:
        return cast(int, await self._told(call, QueueLength, *call.keys))

    def _item(self, body: Body) -> tuple[int, bytes]:
        item = b"".join(body)
        (number,) = _NUMBER.unpack_from(item)
        return number, item[_NUMBER.size :]

    # -------------------------------------------------------------------------------------- meetings and locks

    async def meet(self, call: KeyCall) -> None:
        await self._ask(call, Meet, call.expected, *call.keys)

    async def lock(self, call: KeyCall) -> int:
        (key,) = call.keys

        def let_go(granted: Body) -> None:
            self._calls.submit(Unlock, self._seat, unpack_value(granted), key, then=forget)

        return cast(int, unpack_value(await self._ask(call, Lock, key, late=_Late(let_go))))

    async def unlock(self, call: KeyCall, number: int) -> bool:
        # Not by `_ask`: it stands in no line, and is not taken back when nobody waits for it any more.
        unlock = self._calls.submit(Unlock, self._seat, number, *call.keys)
        try:
            await unlock.wait(call, self._calls.inquire)
        except DeadlinePassedError:
            raise call.timed_out(None, None) from None
        return cast(bool, unpack_value(unlock.result()))

    # ------------------------------------------------------------------------------------------------- changes

    def follow(self, prefix: str, after: int) -> Following:
        return _EngineFollowing(self._calls, self._seat, prefix, after)

    # -------------------------------------------------------------------------------------------------- inside

    async def _told(self, call: KeyCall, command: type[Any], *fields: Any, body: Body = ()) -> Any:
        """What a command is answered with, where that is a plain value."""
        return unpack_value(await self._ask(call, command, *fields, body=body))

    async def _ask(
        self, call: KeyCall, command: type[Any], *fields: Any, body: Body = (), late: _Late | None = None
    ) -> Body:
        """The answer to a command."""
        calls = self._calls
        if calls.gate.full or calls.line:
            await calls.find_room(call)
        pending = calls.begin(command, (self._seat, *fields, body))
        return await calls.answer(call, pending, lambda: self._leave_behind(pending, late))

    def _leave_behind(self, pending: Pending, late: _Late | None) -> None:
        """Nobody waits for this any more: it is taken back or, where it was answered before that, undone."""

        def ended(pending: Pending) -> None:
            if late is None:
                return
            if type(pending.outcome) is Answer and not self._calls.is_lost:
                late.undo(pending.outcome.body)
            if late.queue is not None:
                self._adrift.end(late.queue)

        if late is not None and late.queue is not None:
            self._adrift.begin(late.queue)
        if pending.outcome is not None:
            ended(pending)
        else:
            pending.then = ended
            self._calls.cancel(pending)


class _EngineFollowing(Following):
    """One question at a time is at the store, from the moment of the following on: nothing is missed between two."""

    def __init__(self, calls: Calls, seat: int, prefix: str, after: int) -> None:
        self._calls = calls
        self._seat = seat
        self._prefix = prefix
        self._asked = calls.submit(Follow, seat, after, prefix)

    async def changes(self, call: KeyCall) -> list[KeyEvent]:
        try:
            await self._asked.wait(call, stay_silent)
        except DeadlinePassedError:
            raise call.timed_out((), range(len(call.keys))) from None
        heard, told = unpack_value(self._asked.result())
        self._asked = self._calls.submit(Follow, self._seat, heard, self._prefix)
        return [
            KeyEvent(kind=cast(Kind, _KINDS[kind]), key=key, value=value, revision=revision)
            for revision, kind, key, value in told
        ]

    def close(self) -> None:
        if not self._calls.is_lost:
            self._asked.then = forget
            self._calls.cancel(self._asked)


def _names(call: KeyCall) -> Body:
    return join_parts([key.encode() for key in call.keys])


def _tell_of_loss(key: str, put_back: Pending) -> None:
    """Its queue cannot have the item again: the store is full, or the group was left or aborted."""
    if type(put_back.outcome) is Failed:
        error = put_back.error()
        logger.warning(
            "an item of queue %r, whose queue_pop was given up when it was on its way, is lost: %s",
            key,
            error,
            extra={"key": key, "reason": str(error)},
        )
