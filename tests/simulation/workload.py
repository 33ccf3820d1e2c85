"""What a member of a group does in a run: calls of every kind, some given up, some made again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from random import Random
from typing import TYPE_CHECKING, Any

from aiopg.errors import (
    FencedError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    PeerLostError,
    StoreLostError,
)
from aiopg.group import AsyncStatelessGroup
from tests.simulation.history import Attempt, Call, Payload, Seat
from tests.simulation.key_workload import KeyUser
from tests.simulation.plan import Mail, Op

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Member", "ProgramFailed"]

_OVER = (FencedError, GroupAbortedError, GroupClosedError, StoreLostError)
ATTEMPTS = 6
"""As often a call is made before its program gives it up."""
MEET_SECONDS = 20.0
"""So long a member waits for the others to be done before it leaves."""
DRAIN_SECONDS = 2.0
VAIN_JOINS = 5
"""After so many calls that found no group a member gives up."""


class ProgramFailed(Exception):
    """What a program raises out of its `async with` block, now and then."""


class Member:
    """One group object and its program."""

    def __init__(self, world: World, seat: Seat, group: AsyncStatelessGroup) -> None:
        self.world, self.seat, self.group = world, seat, group
        self.random: Random = world.random
        self.plan = world.plan
        self.over = False
        """Nothing more can be done here but to close."""
        self.lost_peers = False
        self._vain_joins = 0
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Join, work, and leave. Raises nothing."""
        draw = self.random.random
        failing = draw() < self.plan.moods * 0.4
        try:
            if (failing or draw() < 0.7) and not await self.join():
                return
            await self._work(failing)
        finally:
            if not self.seat.life.is_dead and not self.is_leaving:
                await self.leave()

    async def join(self) -> bool:
        """Take the seat; whether it was got."""
        call = self._call("join")
        for _ in range(3):
            timeout = self.random.choice((0.2, 3.0, 8.0, 15.0))
            attempt = await self._make(call, timeout, self.random.random() < self.plan.cancels / 2)
            if attempt.outcome == "ok":
                return True
            if not isinstance(attempt.error, GroupTimeoutError) and attempt.outcome != "cancelled":
                return False
        return False

    async def leave(self, error: BaseException | None = None) -> None:
        """Close the group, or have an exception leave its block."""
        seat = self.seat
        seat.closing = self.world.history.now()
        call = self._call("close")
        if error is not None:
            seat.aborts.append((seat.closing, f"{type(error).__name__}: {error}"))
            leaving = self.group.__aexit__(type(error), error, None)
        else:
            leaving = self.group.close()
        attempt = self.world.history.begin(call, 4.0 if error is not None else 2.0)
        await self.world.history.watch(attempt, leaving)
        seat.closed, seat.close_error = self.world.history.now(), attempt.error
        self.world.gone(seat)

    # --------------------------------------------------------------------------------------------- the program

    async def _work(self, failing: bool) -> None:
        rank, plan = self.seat.rank, self.world.groups[self.seat.group]
        lanes: list[Coroutine[Any, Any, None]] = []
        lanes += [self._collectives(tag, ops) for tag, ops in plan.ops.items()]
        lanes += [self._send_lane(mail) for mail in plan.mail if mail.src == rank]
        lanes += [self._receive_lane(mail) for mail in plan.mail if mail.dst == rank]
        if self.random.random() < 0.2:
            lanes.append(self._expire())
        if self.world.keys is not None:
            lanes.append(self._use_keys())
        tasks = [self._loop.create_task(lane) for lane in lanes]
        watcher = self._loop.create_task(self._hear()) if self.random.random() < 0.25 else None
        try:
            if failing or self.random.random() < self.plan.moods:
                await self._cut_short(tasks, failing)
            if tasks:
                await asyncio.wait(tasks)
            if not self.is_leaving and not self.over:
                await self.world.meet(self.seat, MEET_SECONDS)
                await self._drain(plan.mail)
            if watcher is not None and self.random.random() < 0.3:
                watcher.cancel()
            if not self.is_leaving:
                await self.leave()
            if watcher is not None:
                await asyncio.wait([watcher])
        finally:
            for task in tasks:
                task.cancel()
            if watcher is not None:
                watcher.cancel()

    @property
    def is_leaving(self) -> bool:
        """Whether it has begun to close the group."""
        return self.seat.closing < math.inf

    async def _cut_short(self, tasks: list[asyncio.Task[None]], failing: bool) -> None:
        """Abort, fail, or leave while calls are under way."""
        if tasks:
            await asyncio.wait(tasks, timeout=self.random.choice((0.0, 0.05, 0.5, 2.0)))
        if failing:
            for task in tasks:
                task.cancel()
            await self.leave(ProgramFailed(f"rank {self.seat.rank} of {self.seat.number}"))
        elif self.random.random() < 0.4:
            reason = f"aborted by {self.seat.number}"
            self.seat.aborts.append((self.world.history.now(), reason))
            await self._make(self._call("abort", detail=reason), 2.0, False)
        else:
            self.over = True
            await self.leave()

    async def _collectives(self, tag: int | str, ops: list[Op]) -> None:
        losses = 0
        for planned in ops:
            await self._think()
            op = planned
            if self.random.random() < self.plan.mistakes:
                op = Op(self.random.choice(("barrier", "all_gather", "broadcast")), -1, "", 10)
                if op.op == "broadcast":
                    op = Op("broadcast", self.random.randrange(self.seat.world_size), "", 10)
            call = self._call(op.op, tag, op.root, op.detail, op.size)
            await self._again_and_again(call)
            if self.over:
                return
            losses += bool(call.attempts) and isinstance(call.last.error, PeerLostError)
            if losses > 1:
                return

    async def _send_lane(self, mail: Mail) -> None:
        sizes = list(mail.sizes)
        while sizes and not self.over:
            await self._think()
            if len(sizes) > 1 and self.random.random() < 0.2:
                burst, sizes = sizes[:3], sizes[3:]
                calls = [self._call("send", mail.tag, mail.dst, "", size) for size in burst]
                await self._together([self._attempt(call, 20.0) for call in calls])
                gone = any(isinstance(call.last.error, PeerLostError) for call in calls if call.attempts)
            else:
                call = self._call("send", mail.tag, mail.dst, "", sizes.pop(0))
                await self._again_and_again(call)
                gone = bool(call.attempts) and isinstance(call.last.error, PeerLostError)
            if gone:
                return

    async def _receive_lane(self, mail: Mail) -> None:
        left = len(mail.sizes)
        while left > 0 and not self.over:
            await self._think()
            if left > 1 and self.random.random() < 0.2:
                calls = [self._call("recv", mail.tag, mail.src) for _ in range(min(left, 3))]
                await self._together([self._again_and_again(call) for call in calls])
            else:
                calls = [self._call("recv", mail.tag, mail.src)]
                await self._again_and_again(calls[0])
            left -= len(calls)
            if any(isinstance(call.last.error, PeerLostError) for call in calls if call.attempts):
                return

    async def _drain(self, mails: list[Mail]) -> None:
        """Receive what is still there."""
        for mail in mails:
            if mail.dst != self.seat.rank:
                continue
            for _ in range(2 * len(mail.sizes) + 2):
                call = self._call("recv", mail.tag, mail.src, "drain")
                attempt = await self._make(call, DRAIN_SECONDS, False)
                if self.over:
                    return
                if isinstance(attempt.error, GroupTimeoutError | PeerLostError):
                    break

    async def _expire(self) -> None:
        for _ in range(self.random.randint(1, 2)):
            await asyncio.sleep(self.random.choice((0.1, 0.5, 1.5)))
            if not self.over:
                await self._make(self._call("expire_data"), self.group.store_timeout, False)

    async def _use_keys(self) -> None:
        """Use the keys of the group."""
        if self.seat.incarnation < 0 and not await self.join():
            return
        await KeyUser(self.world, self.seat, self.group.store, place=self.seat.rank).run()

    async def _hear(self) -> None:
        """Listen to events; now and then stop and begin anew."""
        while not self.over:
            heard: list[tuple[str, int, str]] = []
            self.seat.heard.append(heard)
            enough = self.random.choice((3, 1000))
            attempt = self.world.history.begin(self._call("events"), math.inf)
            await self.world.history.watch(attempt, self._listen(heard, enough))
            if attempt.outcome != "ok" or len(heard) < enough:
                return

    async def _listen(self, heard: list[tuple[str, int, str]], enough: int) -> None:
        events = self.group.events()
        try:
            async for event in events:
                heard.append((event.what, event.rank, event.text))
                if len(heard) == enough:
                    return
        finally:
            await events.aclose()

    async def _together(self, calls: list[Coroutine[Any, Any, None]]) -> None:
        tasks = [self._loop.create_task(call) for call in calls]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()

    # ------------------------------------------------------------------------------------------------- calls

    async def _think(self) -> None:
        draw = self.random.random()
        if draw > 0.5:
            await asyncio.sleep(0.3 * (2 * draw - 1) ** 3)
        if self.plan.groups[0].ttl < 10 and draw < 0.05:
            await asyncio.sleep(3.0)  # so that what was sent expires

    def _call(self, op: str, tag: int | str = 0, peer: int = -1, detail: str = "", size: int = 0) -> Call:
        return self.world.history.call(self.seat, op, tag, peer, detail, size)

    async def _again_and_again(self, call: Call) -> None:
        """Make a call until it is done, or given up."""
        for _ in range(ATTEMPTS):
            if self.over:
                return
            if self.random.random() < self.plan.hurry:
                timeout = self.random.choice((0.001, 0.02, 0.1, 0.5))
            else:
                timeout = self.random.choice((2.0, 6.0, 15.0))
            attempt = await self._make(call, timeout, self.random.random() < self.plan.cancels)
            if attempt.outcome == "ok":
                return
            if attempt.outcome == "error" and not isinstance(attempt.error, GroupTimeoutError):
                return
            if self.random.random() < self.plan.skips:
                return

    async def _make(self, call: Call, timeout: float, give_up: bool) -> Attempt:
        """One attempt; `give_up`: cancelled at a random moment unless it is done before."""
        if not give_up:
            await self._attempt(call, timeout)
            return call.last
        task = self._loop.create_task(self._attempt(call, timeout))
        try:
            await self._some_time(task)
        finally:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if self.seat.life.is_dead:
                raise
        if not call.attempts:  # it was cancelled before it began
            self.world.history.end(self.world.history.begin(call, timeout), "cancelled")
        return call.last

    async def _some_time(self, task: asyncio.Task[None]) -> None:
        """Nothing, some passes of the loop, or some time; less if the task ends."""
        draw = self.random.random()
        if draw > 0.8:
            # With the next bytes that come: what wakes the call and what cancels it come together.
            self.world.network.when_heard(self.seat.life.name, lambda _: self._loop.call_soon(task.cancel))
            await asyncio.wait([task], timeout=0.2)
        elif 0.1 < draw < 0.3:
            for _ in range(int(draw * 20)):
                await asyncio.sleep(0)
        elif draw > 0.3:
            await asyncio.wait([task], timeout=(draw - 0.3) ** 3 * 8)

    async def _attempt(self, call: Call, timeout: float) -> None:
        attempt = self.world.history.begin(call, timeout)
        await self.world.history.watch(attempt, self._verb(call, timeout))
        error = attempt.error
        if isinstance(error, GroupTimeoutError) and error.op == "join" and call.op != "join":
            self._vain_joins += 1
        self.over = self.over or isinstance(error, _OVER) or self._vain_joins > VAIN_JOINS
        self.lost_peers = self.lost_peers or isinstance(error, PeerLostError)
        self.note_join()

    def note_join(self) -> None:
        """Take note of the life that was joined."""
        member, seat = self.group._member, self.seat
        if member is not None and seat.incarnation < 0:
            seat.incarnation, seat.joined = member.incarnation, self.world.history.now()

    def _verb(self, call: Call, timeout: float) -> Coroutine[Any, Any, Any]:
        group, tag, peer = self.group, call.tag, call.peer
        match call.op:
            case "join":
                return group.join(timeout=timeout, takeover=self.seat.takeover)
            case "abort":
                return group.abort(call.detail)
            case "expire_data":
                return group.expire_data()
            case "send":
                return group.send(payload(call), peer, tag=tag, timeout=timeout)
            case "recv":
                return group.recv(peer, tag=tag, timeout=timeout)
            case "barrier":
                return group.barrier(timeout, tag=tag)
            case "all_gather":
                return group.all_gather(payload(call), tag=tag, timeout=timeout)
            case "broadcast":
                obj = payload(call) if group.rank == peer else None
                return group.broadcast(obj, peer, tag=tag, timeout=timeout)
            case "gather":
                return group.gather(payload(call), peer, tag=tag, timeout=timeout)
            case "scatter":
                objs = [payload(call, rank) for rank in range(group.world_size)] if group.rank == peer else None
                return group.scatter(objs, peer, tag=tag, timeout=timeout)
            case "all_to_all":
                objs = [payload(call, rank) for rank in range(group.world_size)]
                return group.all_to_all(objs, tag=tag, timeout=timeout)
            case "all_reduce":
                return group.all_reduce(self._slot(call), call.detail, tag=tag, timeout=timeout)
            case "reduce":
                return group.reduce(self._slot(call), peer, call.detail, tag=tag, timeout=timeout)
        raise AssertionError(call.op)

    def _slot(self, call: Call) -> list[int]:
        """A list whose sum (or maximum) with those of the others tells who gave what."""
        return [call.number + 1 if rank == self.group.rank else 0 for rank in range(self.group.world_size)]


def payload(call: Call, rank: int = -1) -> Payload:
    """What a call gives, to `rank` alone or to all."""
    return [call.number, rank, bytes([call.number & 0xFF]) * call.size]
