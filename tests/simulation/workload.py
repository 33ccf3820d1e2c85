"""What the members of a simulated cluster do: each its part of the plan of each group, again and again where cut short.

A call is made with much time, or with very little, or it is cancelled at some moment; after the last two the same call
is made again. So every call of a plan ends well, unless somebody left, crashed or aborted before.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Any

from aiopg import AsyncStatelessGroup
from aiopg.errors import AiopgError, DataExpiredError, GroupTimeoutError, RankConflictError
from tests.simulation.records import FINISHED, CollectiveStep, Plan, Record, Seat

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["PATIENCE", "Part", "contribution", "filled", "make_plan", "message"]

PATIENCE = 120.0
"""Timeout of a call that has much time. No fault lasts nearly as long."""

SIZES = (1, 1, 10, 10, 200, 200, 3_000, 20_000)
HUGE = 100_000


def filled(number: int, size: int) -> bytes:
    """Some bytes, others for each number."""
    return bytes((number % 251,)) * size


def message(seat: Seat, dst: int, tag: int, index: int, size: int) -> tuple[Any, ...]:
    """What a message says: where it is from, where it goes, and which it is."""
    process = seat.process
    return (process.number, seat.group, process.rank, dst, tag, index, filled(process.number * 7 + index, size))


def contribution(seat: Seat, tag: int, index: int, step: CollectiveStep) -> Any:
    """What a rank gives to a collective."""
    if step.op == "all_reduce":
        return (seat.rank + 1) * 1000 + index
    return (seat.process.number, seat.group, seat.rank, tag, index, filled(seat.process.number + index, step.size))


def make_plan(random: Random, world_size: int, share: float, ttl: float) -> Plan:
    """A plan, chosen at random; `share` says how much of all there could be."""
    collectives: dict[int, list[CollectiveStep]] = {}
    streams: dict[tuple[int, int, int], list[int]] = {}
    for tag in (0, 1):
        ops = ("barrier", "all_gather", "broadcast", "all_reduce")
        collectives[tag] = [
            CollectiveStep(random.choice(ops), random.randrange(world_size), random.choice(SIZES))
            for _ in range(random.randint(0, round(4 * share)))
        ]
        for src in range(world_size):
            for dst in range(world_size):
                if src != dst and random.random() < share / world_size:
                    sizes = [random.choice(SIZES) for _ in range(random.randint(1, 4))]
                    if random.random() < 0.05:
                        sizes[0] = HUGE
                    streams[src, dst, tag] = sizes
    return Plan(world_size, ttl, collectives, streams)


class StoppedError(Exception):
    """A call ended in a way after which this member's program makes no more of its kind."""


class Part:
    """A member's part in one life of a group."""

    def __init__(self, world: World, seat: Seat, group: AsyncStatelessGroup) -> None:
        self.world = world
        self.random = world.random
        self.seat = seat
        self.group = group
        self.plan = world.history.plans[seat.group]
        self._takeover = False

    async def play(self, takeover: bool, abort_after: float | None) -> None:
        """Join, do all of the plan, and leave."""
        if not await self._join(takeover):
            await self._close()
            return
        tasks = [self._collectives(tag) for tag in (0, 1) if self.plan.collectives[tag]]
        rank = self.seat.rank
        for (src, dst, tag), sizes in self.plan.streams.items():
            if src == rank:
                tasks.append(self._sends(dst, tag, sizes))
            elif dst == rank:
                tasks.append(self._receives(src, tag, len(sizes)))
        if abort_after is not None:
            tasks.append(self._abort(abort_after))
        await asyncio.gather(*tasks)
        await self._close()

    async def _join(self, takeover: bool) -> bool:
        """Whether it joined. Where the process before it still holds the rank it tries again for a while."""
        self._takeover = takeover
        for _ in range(10):
            try:
                await self._call("join", 0, 0, -1, lambda t: self.group.join(timeout=t, takeover=takeover))
                return True
            except StoppedError as error:
                if not isinstance(error.__cause__, RankConflictError) or self.seat.process.replaced_at < math.inf:
                    return False
            await asyncio.sleep(0.5)
        return False

    # ------------------------------------------------------------------------------------------------- programs

    async def _collectives(self, tag: int) -> None:
        for index, step in enumerate(self.plan.collectives[tag], 1):
            value = contribution(self.seat, tag, index, step)
            try:
                await self._call(step.op, tag, index, step.root, self._collective(step, tag, value))
            except StoppedError:
                return
            await self._pause()

    def _collective(self, step: CollectiveStep, tag: int, value: Any) -> Callable[[float], Awaitable[Any]]:
        group = self.group
        if step.op == "barrier":
            return lambda timeout: group.barrier(timeout, tag=tag)
        if step.op == "broadcast":
            return lambda timeout: group.broadcast(value, step.root, tag=tag, timeout=timeout)
        if step.op == "all_gather":
            return lambda timeout: group.all_gather(value, tag=tag, timeout=timeout)
        return lambda timeout: group.all_reduce(value, tag=tag, timeout=timeout)

    async def _sends(self, dst: int, tag: int, sizes: list[int]) -> None:
        for index, size in enumerate(sizes, 1):
            said = message(self.seat, dst, tag, index, size)

            def send(timeout: float, said: Any = said) -> Awaitable[Any]:
                return self.group.send(said, dst, tag=tag, timeout=timeout)

            try:
                await self._call("send", tag, index, dst, send)
            except StoppedError:
                return
            await self._pause()

    async def _receives(self, src: int, tag: int, count: int) -> None:
        for index in range(1, count + 1):
            try:
                await self._call("recv", tag, index, src, lambda t: self.group.recv(src, tag=tag, timeout=t))
            except StoppedError:
                return
            await self._pause()

    async def _abort(self, after: float) -> None:
        await asyncio.sleep(after)
        self.seat.aborting_at = self.world.loop.time()
        record = self._record("abort", 0, 0, -1, 2.0)
        await self._attempt(record, self.group.abort("it is enough"))

    async def _close(self) -> None:
        self.seat.closing_at = self.world.loop.time()
        await self._attempt(self._record("close", 0, 0, -1, 2.0), self.group.close())

    async def _pause(self) -> None:
        draw = self.random.random()
        if draw < 0.15:
            await asyncio.sleep(0.02 * self.random.random())
        elif draw < 0.15 + self.world.lazy or (draw < 0.4 and self.plan.ttl < PATIENCE):
            await asyncio.sleep(2.5)

    # ------------------------------------------------------------------------------------------------- one call

    async def _call(self, op: str, tag: int, index: int, peer: int, make: Callable[[float], Awaitable[Any]]) -> None:
        """Make a call until it ended for good. Raises `StoppedError` if it ended badly."""
        random = self.random
        for impatient in (True, True, False):
            draw = random.random() if impatient else 1.0
            timeout = 0.03 * random.random() + 1e-4 if draw < 0.12 else PATIENCE
            record = self._record(op, tag, index, peer, timeout)
            if 0.12 <= draw < 0.24:
                await self._cancelled_attempt(record, make(timeout))
            else:
                await self._attempt(record, make(timeout))
            if record.outcome == FINISHED or isinstance(record.error, DataExpiredError):
                return
            if record.outcome != "cancelled" and not (isinstance(record.error, GroupTimeoutError) and impatient):
                raise StoppedError from record.error
            if random.random() < 0.4:
                await asyncio.sleep(random.choice((0.001, 0.01, 0.03, 3.0)))
        raise StoppedError

    def _record(self, op: str, tag: int, index: int, peer: int, timeout: float) -> Record:
        now = self.world.loop.time()
        record = Record(self.seat, op, tag, index, peer, now, now + timeout)
        record.takeover = op == "join" and self._takeover
        self.world.history.records.append(record)
        return record

    async def _attempt(self, record: Record, call: Awaitable[Any]) -> None:
        process = self.seat.process
        process.under_way += 1
        try:
            record.result = await call
            outcome = FINISHED
            if record.op == "join":
                member = self.group._member
                assert member is not None
                self.seat.incarnation = member.incarnation
        except asyncio.CancelledError:
            outcome = "killed" if process.killed_at < math.inf else "cancelled"
            raise
        except AiopgError as error:
            outcome, record.error = type(error).__name__, error.with_traceback(None)
            error.__context__ = error.__cause__ = None
        except BaseException as error:  # it goes on; the checker is to see it too
            outcome, record.error = type(error).__name__, error
            raise
        finally:
            process.under_way -= 1
            record.outcome = "killed" if process.killed_at < math.inf else outcome
            record.ended = self.world.loop.time()
            self.world.network.note(process.owner, f"{record.op} {record.tag} {record.index} {record.outcome}")

    async def _cancelled_attempt(self, record: Record, call: Awaitable[Any]) -> None:
        """The call, cancelled at some moment unless it has ended by then."""
        task = self.world.loop.create_task(self._attempt(record, call))

        def cancel() -> None:
            if not task.done() and task.cancel():
                record.cancelled_at = self.world.loop.time()

        loop, random = self.world.loop, self.random
        if random.random() < 0.5:
            # With the next bytes that come to this process: what wakes the call and what cancels it come together.
            self.seat.process.on_bytes.append(lambda: loop.call_soon(cancel))
            timer = loop.call_later(0.2, cancel)
        else:
            timer = loop.call_later(random.choice((0.0, 0.01, 0.03)) * random.random(), cancel)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            timer.cancel()
        if not task.cancelled():
            task.result()
