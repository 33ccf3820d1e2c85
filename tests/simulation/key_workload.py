"""What a user of a key space does in a run: calls of every kind, some given up, some at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from aiopg import AsyncStore
from aiopg.errors import FencedError, GroupAbortedError, GroupClosedError, StoreLostError, WatchGapError
from aiopg.keys import Lock, Watch
from tests.simulation.history import Life, Seat
from tests.simulation.key_history import KeyHistory, Use, Watching

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["KeyUser", "make", "stranger"]

_OVER = (FencedError, GroupAbortedError, GroupClosedError, StoreLostError)
PRIVATE = "queue/private"
"""What only one user takes from: so its order is known whatever becomes of the calls of others."""


def stranger(life: Life, epoch: int) -> Seat:
    """Whose a process's uses of the store's own keys are: a seat in no group."""
    return Seat(-1, life, "", -1, 0, math.inf, epoch=epoch, incarnation=0)


class KeyUser:
    """One user of one space."""

    def __init__(self, world: World, seat: Seat, store: AsyncStore, *, place: int) -> None:
        """`place`: the first one takes from the private queue."""
        assert world.keys is not None
        self.world, self.seat, self.store, self.plan = world, seat, store, world.keys
        self.random: Random = world.random
        self.history: KeyHistory = world.history.keys
        self.over = False
        """Nothing more can be done here."""
        self._takes = PRIVATE if place == 0 else "queue/common"
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """All that it does. Raises nothing."""
        count = min(len(self.plan.lanes), self.random.choice((2, 2, 3)))
        lanes = self.random.sample(self.plan.lanes, count)
        tasks = [self._loop.create_task(getattr(self, f"_{lane}")()) for lane in lanes]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()

    # ------------------------------------------------------------------------------------------------- values

    async def _counter(self) -> None:
        if self.random.random() < 0.3:
            await self._use("get", "counter")  # waits for somebody's first one
        async for _ in self._rounds():
            key = "counter"
            amount = self.history.amount(self.seat, key)
            if not amount:
                return
            await self._use("add", key, amount)
            if self.random.random() < 0.2:
                await self._use("get", key)

    async def _register(self) -> None:
        seen: bytes | None = None
        async for _ in self._rounds():
            use = self.history.use(self.seat, "compare_set", "register")
            use.given = seen, b"%d" % use.number
            await self._make(use)
            if use.ok:
                seen = use.value[1]
            elif self.random.random() < 0.5:
                get = await self._use("get", "register")
                seen = get.value if get.ok else seen

    async def _log(self) -> None:
        async for _ in self._rounds():
            if self.random.random() < 0.3:
                await self._use("get", "log")
            else:
                use = self.history.use(self.seat, "append", "log")
                use.given = b"%d;" % use.number
                await self._make(use)

    async def _board(self) -> None:
        async for _ in self._rounds():
            key = self.random.choice(("board/0", "board/0", "board/1"))
            op = self.random.choice(("set", "set", "set", "get", "get", "check", "wait", "delete"))
            use = self.history.use(self.seat, op, key)
            if op == "set":
                use.given = b"%d" % use.number
                use.ttl = self.plan.ttl if self.random.random() < 0.3 else None
                use.session = self.random.random() < 0.4
            await self._make(use)

    # ------------------------------------------------------------------------------------------------- queues

    async def _producer(self) -> None:
        async for _ in self._rounds():
            key = self.random.choice((PRIVATE, "queue/common"))
            uses = [self._push(key) for _ in range(self.random.choice((1, 1, 2)))]
            await self._together([self._make(use) for use in uses])

    def _push(self, key: str) -> Use:
        use = self.history.use(self.seat, "push", key)
        use.given = b"%d" % use.number
        return use

    async def _consumer(self) -> None:
        async for _ in self._rounds():
            key = self._takes
            if self.random.random() < 0.25:
                await self._use("pop now", key)
            elif self.random.random() < 0.2:
                uses = [self.history.use(self.seat, "pop", key) for _ in range(2)]
                await self._together([self._make(use) for use in uses])
            else:
                await self._use("pop", key)

    # --------------------------------------------------------------------------------------- locks, meetings

    async def _holder(self) -> None:
        async for _ in self._rounds():
            lock = self.store.lock("lock")
            use = self.history.use(self.seat, "lock", "lock")
            await self._make(use, partial(_acquire, lock))
            if use.ok:
                await self._pause()
                if self.random.random() < 0.8:  # else it keeps it till it goes
                    await self._let_go(lock, use.value)

    async def _let_go(self, lock: Lock, number: int) -> None:
        use = self.history.use(self.seat, "unlock", "lock", number)
        await self._make(use, partial(_release, lock))

    async def _meeter(self) -> None:
        async for _ in self._rounds():
            await self._use("meet", "meeting", 2)

    # ------------------------------------------------------------------------------------------------ watches

    async def _watcher(self) -> None:
        after: int | None = self.random.choice((0, 0, None))
        prefix = self.random.choice(("", "board/", "counter"))
        for _ in range(self.random.choice((1, 2))):
            watching = Watching(self.seat, prefix, after, self.history.now())
            self.history.watches.append(watching)
            watch = self.store.watch(prefix, revision=after)
            try:
                await self._follow(watch, watching)
            finally:
                await watch.aclose()
            if self.over or watching.has_gap:
                return
            if watching.told:
                after = watching.told[-1][1].revision

    async def _follow(self, watch: Watch, watching: Watching) -> None:
        for _ in range(3 * self.plan.share):
            if self.over:
                return
            use = self.history.use(self.seat, "watch", watching.prefix)
            watch._timeout = self.random.choice((0.001, 0.05, 1.5, 1.5))
            await self._make(use, lambda _: anext(watch), timeout=watch._timeout)
            if use.ok:
                watching.told.append((use.ended, use.value))
            elif use.timed_out:
                watching.quiet = use.started, use.ended
            elif isinstance(use.error, WatchGapError):
                watching.has_gap = True
                return
            elif isinstance(use.error, StopAsyncIteration):
                return

    # -------------------------------------------------------------------------------------------------- calls

    async def _rounds(self) -> Any:
        for _ in range(self.random.randint(1, self.plan.share)):
            await self._pause()
            if self.over:
                return
            yield

    async def _pause(self) -> None:
        draw = self.random.random()
        if draw > 0.4:
            await asyncio.sleep(self.plan.pause * draw**2)

    async def _use(self, op: str, key: str, given: Any = None) -> Use:
        use = self.history.use(self.seat, op, key, given)
        await self._make(use)
        return use

    async def _together(self, calls: list[Coroutine[Any, Any, None]]) -> None:
        tasks = [self._loop.create_task(call) for call in calls]
        try:
            await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _make(
        self, use: Use, call: Callable[[float], Awaitable[Any]] | None = None, *, timeout: float = 0.0
    ) -> None:
        """Make a call; now and then it is cancelled at a random moment unless it is done before."""
        plan = self.world.plan
        if not timeout:
            hurry = self.random.random() < plan.hurry
            timeout = self.random.choice((0.001, 0.02, 0.1) if hurry else (0.5, 2.0, 6.0))
        if self.random.random() >= plan.cancels:
            await self._attempt(use, call, timeout)
            return
        task = self._loop.create_task(self._attempt(use, call, timeout))
        try:
            await self._some_time(task)
        finally:
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if self.seat.life.is_dead:
                raise

    async def _some_time(self, task: asyncio.Task[None]) -> None:
        """Some passes of the loop, or some time, or till something comes; less if the task ends."""
        draw = self.random.random()
        if draw > 0.6:
            # With the next bytes that come: what wakes the call and what cancels it come together.
            self.world.network.when_heard(self.seat.life.name, lambda _: self._loop.call_soon(task.cancel))
            await asyncio.wait([task], timeout=0.2)
        elif draw < 0.2:
            for _ in range(int(draw * 40)):
                await asyncio.sleep(0)
        else:
            await asyncio.wait([task], timeout=(draw - 0.2) ** 2 * 2)

    async def _attempt(self, use: Use, call: Callable[[float], Awaitable[Any]] | None, timeout: float) -> None:
        self.history.begin(use, timeout)
        await self.history.watch(use, call(timeout) if call is not None else make(self.store, use, timeout))
        self.over = self.over or isinstance(use.error, _OVER)


def _acquire(lock: Lock, timeout: float) -> Awaitable[int]:
    return lock.acquire(timeout=timeout)


def _release(lock: Lock, timeout: float) -> Awaitable[None]:
    return lock.release(timeout=timeout)


def make(store: AsyncStore, use: Use, timeout: float) -> Awaitable[Any]:
    """The call of a use."""
    key = use.key
    match use.op:
        case "set":
            return store.set(key, use.given, ttl=use.ttl, session=use.session, timeout=timeout)
        case "get":
            return store.get(key, timeout=timeout)
        case "wait":
            return store.wait(key, timeout=timeout)
        case "check":
            return store.check(key, timeout=timeout)
        case "add":
            return store.add(key, use.given, timeout=timeout)
        case "append":
            return store.append(key, use.given, timeout=timeout)
        case "compare_set":
            return store.compare_set(key, *use.given, timeout=timeout)
        case "delete":
            return store.delete_key(key, timeout=timeout)
        case "push":
            return store.queue_push(key, use.given, timeout=timeout)
        case "pop":
            return store.queue_pop(key, timeout=timeout)
        case "pop now":
            return store.queue_pop(key, block=False, timeout=timeout)
        case "meet":
            return store.barrier(key, use.given, timeout=timeout)
    raise AssertionError(use.op)
