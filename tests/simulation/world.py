"""A whole cluster in one thread and in virtual time: a store, processes, their groups, and what goes wrong."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from random import Random

from aiopg import StoreServer
from aiopg.server._sessions import RESTART_GRACE_SECONDS
from tests.simulation.faults import Faults
from tests.simulation.history import History, Seat
from tests.simulation.key_audit import audit, what_remains
from tests.simulation.key_plan import KEYED, KeyPlan, make_key_plan
from tests.simulation.lives import Forgetful, Journaled, StoreLives
from tests.simulation.loop import SimLoop
from tests.simulation.network import SimNetwork, SimTransport
from tests.simulation.plan import make_plan
from tests.simulation.process import ADDRESS, Process
from tests.simulation.workload import Member

__all__ = ["World", "is_journaled", "is_keyed"]

SERVER = "server"
JOURNALED = 4
"""In one seed of so many the store keeps a journal."""
PUT_OUT_SECONDS = 3.0
"""A store whose disk failed is put out after so long. It takes leave of its members by itself, and before."""
CALM_SECONDS = 16.0
"""After everybody has gone: longer than a half-open connection and then a grace."""


def is_journaled(seed: int) -> bool:
    """Whether the store of that seed keeps a journal."""
    return seed % JOURNALED == 1


def is_keyed(seed: int) -> bool:
    """Whether there are keys in the run of that seed."""
    return seed % KEYED == KEYED - 1


class World:
    """One run."""

    def __init__(self, seed: int, *, debug: bool = False) -> None:
        self.random = Random(seed)
        self.plan = make_plan(self.random, journal=is_journaled(seed))
        self.keys: KeyPlan | None = None
        if is_keyed(seed):
            self.keys = make_key_plan(Random(f"keys {seed}"), self.plan)
        self.loop = SimLoop(max_steps=400_000, max_seconds=2000.0)
        self.loop.set_debug(debug)
        self.network = SimNetwork(self.loop, self.random, latency=self.plan.latency)
        self.history = History(self.loop.time, self.network.note)
        self.history.lowered = self.plan.lowered
        self.groups = {group.name: group for group in self.plan.groups}
        self.address = str(ADDRESS)
        self.counts: Counter[str] = Counter()
        """What was done, and what it came to."""
        self.remains: list[str] = []
        """What was left when everybody had gone."""
        disk = Random(f"disk {seed}")
        self.lives: StoreLives = Journaled(self.network, disk, self.counts) if self.plan.journal else Forgetful()
        self._server: StoreServer | None = None
        self.epochs: dict[bytes, int] = {}
        """The number of each store that there was, by what it calls itself."""
        self.members: list[Member] = []
        self._processes: list[Process] = []
        self._coming = 0
        self._is_calm = False
        self._names: Counter[int] = Counter()
        self._meetings: dict[tuple[str, int, int], tuple[set[int], asyncio.Event]] = {}

    async def run(self) -> None:
        """From the start of the store until everything is over."""
        self._begin_server()
        for slot in range(len(self.plan.graces)):
            self._process(slot, False).start(self.random.choice((0.0, 0.01, 0.3)) * self.random.random())
        await Faults(self).run()
        await self._all_over()
        self.network.note("world", "calm")
        self._is_calm = True
        if self.lives.journal is not None:
            self.lives.journal.when_failed = None
        await asyncio.sleep(CALM_SECONDS + (RESTART_GRACE_SECONDS if self.history.restarts else 0.0))
        for member in self.members:
            member.note_join()
        if self.keys is not None and self._server is not None:
            await audit(self)
            await asyncio.sleep(1.0)
        self._look_at_remains()
        if self._server is not None:
            await self._server.close()
        await asyncio.sleep(3.0)
        if self.network.connections:
            self.remains.append(f"connections: {self.network.connections}")

    # ------------------------------------------------------------------------------------------ for programs

    async def meet(self, seat: Seat, seconds: float) -> None:
        """Wait for the others of a group to be done."""
        ranks, met = self._meeting(seat)
        self.gone(seat)
        if len(ranks) < seat.world_size:
            try:
                async with asyncio.timeout(seconds):
                    await met.wait()
            except TimeoutError:
                pass  # somebody hangs about; the drain goes on without him

    def gone(self, seat: Seat) -> None:
        """Nothing more comes from this seat."""
        if seat.incarnation >= 0:
            ranks, met = self._meeting(seat)
            ranks.add(seat.rank)
            if len(ranks) == seat.world_size:
                met.set()

    def _meeting(self, seat: Seat) -> tuple[set[int], asyncio.Event]:
        return self._meetings.setdefault(seat.key, (set(), asyncio.Event()))

    # -------------------------------------------------------------------------------------------- for faults

    def any_process(self) -> Process | None:
        """One that runs."""
        running = [process for process in self._processes if not process.is_over]
        return self.random.choice(running) if running else None

    def kill(self, process: Process) -> None:
        """A process dies."""
        self.network.kill(process.life.name)
        self.history.died(process.life)
        process.die()
        for member in self.members:
            if member.seat.life is process.life:
                member.note_join()
                self.gone(member.seat)

    def come_back(self, process: Process, delay: float, *, takeover: bool | None = None) -> None:
        """A new process in the place of another."""
        if takeover is None:
            takeover = self.random.random() < 0.3
        self._process(process.slot, takeover).start(delay)

    def crash(self, delay: float, since: float = math.inf) -> None:
        """The store's process dies; it is started again after so many seconds. `since`: from when it was of no use."""
        if self._server is None or self._is_calm:
            return  # it is down, or the time for faults is over
        server, self._server = self._server, None
        self.network.kill(SERVER)
        sessions = server._sessions
        assert sessions is not None
        sessions.close("it was killed")  # ends its timers; nothing leaves a dead process
        self.lives.end()
        now = self.loop.time()
        outage = min(since, now), now + delay
        if self.lives.journal is not None:
            self.history.restarts.append(outage)
        else:
            self.history.crashes.append(now)
        self.history.paused.append(outage)
        self._coming += 1
        self.loop.call_later(delay, self._start_again)

    def fail_disk(self, delay: float) -> None:
        """The disk refuses the next batch of the store's journal; after a while the store is put out, see `crash`."""
        server, journal = self._server, self.lives.journal
        if server is None or journal is None:
            return

        def put_out(since: float, left: list[SimTransport]) -> None:
            self._coming -= 1
            if server is self._server:
                self.remains += [f"{end}, though the disk had failed" for end in left if not end.is_gone]
                self.crash(delay, since)

        def failed() -> None:
            self._coming += 1
            now = self.loop.time()
            left = [end for end in self.network.endpoints(SERVER) if end.connection.span.opened <= now]
            self.network.stop_serving(SERVER)
            self.loop.call_later(PUT_OUT_SECONDS, put_out, now, left)
            self.history.paused.append((now, now + PUT_OUT_SECONDS))

        journal.when_failed = failed

    def _start_again(self) -> None:
        self._coming -= 1
        self._begin_server()

    # ------------------------------------------------------------------------------------------------ inside

    def _begin_server(self) -> None:
        self._server, sessions = self.lives.begin(self.plan.limits)
        self.epochs.setdefault(sessions.epoch, len(self.epochs))
        self.network.listen(self.address, sessions.accept, owner=SERVER)

    def _process(self, slot: int, takeover: bool) -> Process:
        self._names[slot] += 1
        life = self.history.life(f"p{slot}.{self._names[slot]}", self.plan.graces[slot])
        process = Process(self, slot, life, takeover)
        self._processes.append(process)
        return process

    async def _all_over(self) -> None:
        while True:
            tasks = [task for process in self._processes for task in process._tasks if not task.done()]
            if not tasks and not self._coming:
                return
            if tasks:
                await asyncio.wait(tasks)
            else:
                await asyncio.sleep(0.5)

    def _look_at_remains(self) -> None:
        server = self._server
        if server is None:
            self.remains.append("nothing: the store did not come up again")
            return
        state = server.describe()
        for name in ("groups", "rounds", "members"):
            if state[name]:
                self.remains.append(f"{name}: {state[name]}")
        sessions = server._sessions
        if sessions is not None and len(sessions):
            self.remains.append(f"sessions: {len(sessions)}")
        engine = server._exchange.engine
        common = engine._groups.common
        self.remains += what_remains(engine)
        for what, left in (
            ("calls", len(engine._replies)),
            ("bytes", sum(group.bytes for group in engine._groups)),
            ("tally", engine._groups.tally - common.tallied),
            ("queue", len(engine._membership.queue)),
        ):
            if left:
                self.remains.append(f"{what}: {left}")
