"""A simulated disk keeps what it promised, and what else it keeps of a crash is a beginning of the rest."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from random import Random

import pytest

from aiopg._core.frames import Buffer
from tests.simulation.disk import Disk, DiskJournal
from tests.simulation.loop import SimLoop


def last_number(snapshot: bytes | None, records: Iterable[bytes]) -> list[Buffer]:
    """The state is the number of the last record."""
    return [deque(records, maxlen=1).pop()[:8]]


def play(seed: int) -> tuple[bool, bool]:
    """One journal over several crashes; whether a tail was torn, and whether a snapshot was read."""
    print("seed", seed)
    loop, chance = SimLoop(), Random(seed)
    disk = Disk(chance)
    known = 0  # the state is the number of the last record
    torn = snapshots = False

    async def one_life() -> None:
        nonlocal known, torn, snapshots
        journal = DiskJournal(loop, disk, chance, last_number, sync=seed % 2 == 0, note=lambda where, what: None)
        torn, snapshots = torn or journal.torn is not None, snapshots or journal.has_snapshot
        first = int(journal.snapshot or b"0")
        found = [int(record[:8]) for record in journal.records]
        assert found == list(range(first + 1, first + len(found) + 1))
        last = first + len(found)
        assert known <= last, "what was promised is not there"
        begun = last
        for _ in range(chance.randint(0, 30)):
            last += 1
            journal.append((b"%08d" % last, bytes(chance.randint(0, 100))))
            if chance.random() < 0.2 and not journal.rotating:
                journal.rotate()
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.1)))
        known = max(known, begun + journal.written)
        journal.die()

    try:
        for _ in range(6):
            loop.run(one_life())
    finally:
        loop.close()
    assert loop.failures == []
    return torn, snapshots


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_what_was_promised_survives_any_crash(first: int) -> None:
    """What is found is all that was written, and a beginning of what was not; also in the middle of a snapshot."""
    came_to = [play(seed) for seed in range(first, first + 50)]
    assert any(torn for torn, _ in came_to)
    assert any(snapshots for _, snapshots in came_to)
