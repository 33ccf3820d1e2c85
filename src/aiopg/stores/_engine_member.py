"""A member's verbs, for a store that speaks the engine's commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from aiopg._core.frames import Body, Buffer
from aiopg._core.messages import (
    Abort,
    Answer,
    Arrive,
    Expire,
    Leave,
    Needs,
    Put,
    Reform,
    Tag,
    TakeBack,
    Watch,
    Withdrawn,
    unpack_value,
)
from aiopg._core.parts import Parts, join_parts
from aiopg._core.round import Signature
from aiopg.stores._adrift import Adrift
from aiopg.stores._calls import Calls, DeadlinePassedError, Pending, forget, stay_silent
from aiopg.stores._fingerprint import Fingerprint
from aiopg.stores._incoming import Incoming
from aiopg.stores._outgoing import Outgoing
from aiopg.stores._places import SEAT, take_place
from aiopg.stores.base import FACTS_SECONDS, Call, Member, NumberUsedError, Place

__all__ = ["EngineMember"]


KEPT_MAILBOXES = 256
"""As many readers' sides of mailboxes are kept where nothing waits."""

ABORT_CHARACTERS = 1024
"""More of an abort's reason is not sent; the store keeps `Limits.reason_bytes` of it."""


class _Withdrawal(NamedTuple):
    """An arrival whose caller waits no more; the store may have decided its round all the same."""

    arrival: Pending
    signature: Signature
    given: Fingerprint
    """The parts it gave."""


class _Kept(NamedTuple):
    """A round that is over, and whose caller did not take what it came to."""

    signature: Signature
    given: Fingerprint
    result: Sequence[Buffer]


class EngineMember(Member):
    """One seat, as calls on a link."""

    def __init__(
        self, calls: Calls, seats: Iterator[int], seat: int, rank: int, world_size: int, incarnation: int
    ) -> None:
        """`seats`: numbers for more seats on the same link."""
        self.incarnation = incarnation
        self._calls = calls
        self._seats = seats
        self.seat = seat
        self.adrift = Adrift(calls)
        """Of the keys of its group."""
        self._rank = rank
        self._world_size = world_size
        self._incoming: dict[tuple[int, Tag], Incoming] = {}
        self._outgoing: dict[tuple[int, Tag], Outgoing] = {}
        self._withdrawals: dict[tuple[Tag, int], _Withdrawal] = {}
        self._kept: dict[tuple[Tag, int], _Kept] = {}

    # ------------------------------------------------------------------------------------------------ messages

    async def put(self, call: Call, dst: int, payload: Body) -> None:
        mailbox = (dst, call.tag)
        outgoing = self._outgoing.get(mailbox)
        if outgoing is not None:
            went = await outgoing.went(call, payload)
            self._drop_outgoing(mailbox)
            if went:
                return
        if self._calls.gate.full or self._calls.line:
            await self._calls.find_room(call)
        put, ended = self._calls.ask(Put, (self.seat, dst, call.tag, payload), call, _warn)
        try:
            await ended
        except BaseException as error:
            put.drop()
            if isinstance(error, asyncio.CancelledError):
                self._take_back(mailbox, put, payload)
            raise
        if not put.woken:
            self._take_back(mailbox, put, payload)
            raise call.timed_out(None, None)
        put.result()

    def _take_back(self, mailbox: tuple[int, Tag], put: Pending, payload: Body) -> None:
        outgoing = self._outgoing.get(mailbox)
        if outgoing is None:
            dst, tag = mailbox
            take_back = (TakeBack, self.seat, dst, tag)
            outgoing = Outgoing(self._calls, take_back)
            self._outgoing[mailbox] = outgoing
        outgoing.cancelled(put, payload)
        self._drop_outgoing(mailbox)

    def _drop_outgoing(self, mailbox: tuple[int, Tag]) -> None:
        if (outgoing := self._outgoing.get(mailbox)) is not None and outgoing.idle:
            del self._outgoing[mailbox]

    async def take(self, call: Call, src: int) -> Buffer:
        incoming = self._incoming.get((src, call.tag))
        if incoming is None:
            incoming = self._open_incoming(src, call.tag)
        if self._calls.gate.full or self._calls.line:
            await self._calls.find_room(call)
        return _joined(await incoming.take(call))

    def give_back(self, src: int, tag: Tag, payload: Buffer) -> None:
        (self._incoming.get((src, tag)) or self._open_incoming(src, tag)).give_back((payload,))

    def _open_incoming(self, src: int, tag: Tag) -> Incoming:
        mailbox = (src, tag)
        fields = (self.seat, src, tag, ())
        incoming = Incoming(self._calls, src, fields, lambda: self._drop_incoming(mailbox))
        self._incoming[mailbox] = incoming
        return incoming

    def _drop_incoming(self, mailbox: tuple[int, Tag]) -> None:
        # Making one anew for each message costs more than keeping some.
        if len(self._incoming) > KEPT_MAILBOXES:
            self._incoming.pop(mailbox, None)

    # ------------------------------------------------------------------------------------------------- rounds

    async def round(self, call: Call, root: int, detail: str, parts: list[Buffer], needs: int) -> Sequence[Buffer]:
        key = (call.tag, call.seq)
        if self._withdrawals and key in self._withdrawals:
            decided = await self._decided_before(call, key, Signature(call.op, root, detail), parts)
            if decided is not None:
                return self._parts(decided, needs)
        if self._kept and key in self._kept:
            return await self._kept_before(key, Signature(call.op, root, detail), parts)
        calls = self._calls
        if calls.gate.full or calls.line:
            await calls.find_room(call)
        body: Body = () if not parts else (parts[0],) if len(parts) == 1 else join_parts(parts)
        fields = (self.seat, call.tag, call.seq, call.op, root, detail, needs, len(parts), body)
        arrival, ended = calls.ask(Arrive, fields, call, calls.inquire)
        try:
            await ended
        except BaseException as error:
            arrival.drop()
            if isinstance(error, asyncio.CancelledError):
                self._withdraw(key, arrival, Signature(call.op, root, detail), parts)
            raise
        if not arrival.woken:
            self._withdraw(key, arrival, Signature(call.op, root, detail), parts)
            await self._learn_facts(call, key, arrival)
        outcome = arrival.outcome
        answer = outcome.body if type(outcome) is Answer else arrival.result()
        if needs < Needs.ALL:
            return self._parts(answer, needs)
        return Parts(answer, self._world_size) if answer else []

    def keep(self, call: Call, root: int, detail: str, parts: list[Buffer], result: Sequence[Buffer]) -> None:
        self._kept[call.tag, call.seq] = _Kept(Signature(call.op, root, detail), Fingerprint(parts), result)

    async def _kept_before(self, key: tuple[Tag, int], signature: Signature, parts: list[Buffer]) -> Sequence[Buffer]:
        """What `keep` kept. Raises `NumberUsedError` if this is not the same call again."""
        kept = self._kept.pop(key)
        if kept.signature != signature or not await kept.given.is_of(parts):
            raise NumberUsedError
        return kept.result

    def _withdraw(self, key: tuple[Tag, int], arrival: Pending, signature: Signature, parts: list[Buffer]) -> None:
        """Take an arrival back, and remember that it may have been decided before that reaches the store."""
        self._withdrawals[key] = _Withdrawal(arrival, signature, Fingerprint(parts))

        def ended(arrival: Pending) -> None:
            if type(arrival.outcome) is Withdrawn:
                self._withdrawals.pop(key, None)

        arrival.then = ended
        self._calls.cancel(arrival)

    async def _learn_facts(self, call: Call, key: tuple[Tag, int], arrival: Pending) -> None:
        """After the deadline: wait a moment for the store's last word. Returns if the round was decided in time."""
        try:
            await arrival.wait_until(call.deadline + FACTS_SECONDS)
        except DeadlinePassedError:
            raise call.timed_out(None, None) from None
        facts = arrival.facts()
        if facts is not None:
            raise call.withdrawn(*facts)
        self._withdrawals.pop(key, None)

    async def _decided_before(
        self, call: Call, key: tuple[Tag, int], signature: Signature, parts: list[Buffer]
    ) -> Body | None:
        """What round `key` came to before its withdrawal reached the store; None: it was withdrawn in time.

        Raises `NumberUsedError` if it was decided, and this is not the same call again.
        """
        withdrawal = self._withdrawals[key]
        try:
            await withdrawal.arrival.wait(call, _warn)
        except DeadlinePassedError:
            raise call.timed_out(None, None) from None
        self._withdrawals.pop(key, None)
        if withdrawal.arrival.facts() is not None:
            return None
        decided = withdrawal.arrival.result()
        if withdrawal.signature != signature or not await withdrawal.given.is_of(parts):
            raise NumberUsedError
        return decided

    def _parts(self, body: Body, needs: int) -> Sequence[Buffer]:
        if needs >= Needs.ALL:
            return Parts(body, self._world_size) if body else []
        return [_joined(body)] if needs == Needs.ROOT else []

    # --------------------------------------------------------------------------------------------- membership

    async def expire(self, call: Call) -> int:
        expired = self._calls.submit(Expire, self.seat)
        await self._simply(expired, call)
        count: int = unpack_value(expired.result())
        return count

    async def abort(self, call: Call, reason: str) -> None:
        abort = self._calls.submit(Abort, self.seat, reason[:ABORT_CHARACTERS])
        await self._simply(abort, call)
        abort.result()

    async def happenings(self, call: Call, after: int) -> list[tuple[str, int, str]]:
        watch = self._calls.submit(Watch, self.seat, after)
        try:
            await watch.wait(call, stay_silent)
        except DeadlinePassedError:
            self._calls.cancel(watch)
            raise call.timed_out(None, None) from None
        except asyncio.CancelledError:
            self._calls.cancel(watch)
            raise
        return [(what, rank, text) for what, rank, text in unpack_value(watch.result())]

    async def reform(self, call: Call, *, ttl: float, metadata: bytes) -> Place:
        command = (Reform, self.seat, SEAT, float(ttl))
        sit = partial(EngineMember, self._calls, self._seats)
        return await take_place(self._calls, self._seats, call, command, metadata, sit)

    async def leave(self, call: Call) -> None:
        try:
            await self.adrift.wait_over(call.deadline)
        except asyncio.CancelledError:
            if not self._calls.is_lost:
                self._calls.submit(Leave, self.seat, then=forget)
            raise
        leave = self._calls.submit(Leave, self.seat)
        await self._simply(leave, call)
        leave.result()

    async def _simply(self, pending: Pending, call: Call) -> None:
        try:
            await pending.wait(call, _warn)
        except DeadlinePassedError:
            raise call.timed_out(None, None) from None


def _joined(body: Body) -> Buffer:
    return body[0] if len(body) == 1 else b"".join(body)


def _warn(_: Pending, call: Call) -> None:
    """The store answers such a call at once, so that it waits means that the store is not heard."""
    call.warn(None, None)
