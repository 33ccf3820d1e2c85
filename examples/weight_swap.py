"""A trainer and two inference workers that go from one version of the weights to the next together.

::

    aiopg run -n 3 -- python examples/weight_swap.py

Rank 0 trains. Through the group goes only where a version lies and its checksum; each worker loads it while it answers
by the version before. When all have it they let the requests that have begun end, meet at a barrier, and answer by the
new one: at no moment do two versions answer. Version 2 is damaged on its way, and so nobody takes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiopg import AsyncStatelessGroup, register_type

TRAINING_SECONDS = 0.2
SLOTS, CLIENTS = 4, 8


@register_type
@dataclass(frozen=True)
class Weights:
    """One version, as it is told to the workers."""

    version: int
    path: str
    sha256: str


def save(folder: str, version: int) -> Weights:
    """Write a version to disk. Of version 2 not all arrives there."""
    path, data = Path(folder, f"weights-{version}"), os.urandom(2**22)
    path.write_bytes(data[:-1] if version == 2 else data)
    return Weights(version, str(path), hashlib.sha256(data).hexdigest())


def load(weights: Weights) -> bool:
    """Whether this is what was saved. (Tensors would be made of it here.)"""
    return hashlib.sha256(Path(weights.path).read_bytes()).hexdigest() == weights.sha256


class Engine:
    """Answers some requests at a time, each by one version from its beginning to its end."""

    def __init__(self) -> None:
        self.version = 0
        self.answers: dict[int, list[tuple[float, float]]] = {}
        self._slots = asyncio.Semaphore(SLOTS)

    async def answer(self) -> None:
        """One request."""
        async with self._slots:
            version, start = self.version, time.monotonic()
            await asyncio.sleep(0.001)  # the tokens come one by one
            assert version == self.version
            self.answers.setdefault(version, []).append((start, time.monotonic()))

    @asynccontextmanager
    async def quiet(self) -> AsyncIterator[None]:
        """A block in which nothing is being answered: what has begun has ended, and what comes waits."""
        async with AsyncExitStack() as slots:
            for _ in range(SLOTS):
                await slots.enter_async_context(self._slots)
            yield


async def train(group: AsyncStatelessGroup) -> None:
    """Rank 0: make versions, and learn which of them went live."""
    with tempfile.TemporaryDirectory() as folder:
        for version in (1, 2, 3):
            await asyncio.sleep(TRAINING_SECONDS)
            await group.broadcast(await asyncio.to_thread(save, folder, version), src=0)
            if all(await group.all_gather(True)):
                await group.barrier()
                print(f"trainer: version {version} is live")
            else:
                print(f"trainer: version {version} was refused")
        await asyncio.sleep(TRAINING_SECONDS)
    await group.broadcast(None, src=0)


async def follow(group: AsyncStatelessGroup, engine: Engine) -> None:
    """A worker: take each version that all can take, until there are no more."""
    while (weights := await group.broadcast(src=0, timeout=math.inf)) is not None:
        loaded = await asyncio.to_thread(load, weights)
        if all(await group.all_gather(loaded)):
            async with engine.quiet():
                # Who comes out of the barrier may answer by the new version: who is in it answers by none.
                await group.barrier()
                engine.version = weights.version


async def client(engine: Engine) -> None:
    """Somebody who asks again and again."""
    while True:
        await engine.answer()


async def infer(group: AsyncStatelessGroup) -> None:
    """The other ranks: answer, whatever becomes of the weights."""
    engine = Engine()
    async with asyncio.TaskGroup() as tasks:
        clients = [tasks.create_task(client(engine)) for _ in range(CLIENTS)]
        await follow(group, engine)
        for each in clients:
            each.cancel()
    for version, times in engine.answers.items():
        first, last = min(start for start, _ in times), max(end for _, end in times)
        print(f"worker {group.rank}: version {version}: {len(times)} answers from {first:.6f} to {last:.6f}")


async def main() -> None:
    """What each rank does."""
    async with await AsyncStatelessGroup.from_env() as group:
        await (train(group) if group.rank == 0 else infer(group))
        await group.barrier()


if __name__ == "__main__":
    asyncio.run(main())
