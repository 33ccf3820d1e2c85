"""Behind its members: a store's process lets them finish first, unless that costs them time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from aiopg import AsyncStatelessGroup
from aiopg.server import scheduling
from aiopg.server.scheduling import Account, behind_members
from aiopg.stores.native import NativeLink

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="ONLY LINUX HAS THIS POLICY")


def policy(pid: int = 0) -> int:
    """That of a process's main thread, or of this thread."""
    return os.sched_getscheduler(pid)


@contextmanager
def busy_processors() -> Iterator[None]:
    """Two programs for each processor, which never sleep."""
    command = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    programs = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        for program in programs:
            assert program.stdout is not None
            program.stdout.readline()
        yield
    finally:
        for program in programs:
            program.kill()
            program.communicate()


async def wake_until(holds: Callable[[], bool]) -> None:
    """Wake up again and again, as a store does, until it holds."""
    async with asyncio.timeout(40):
        while not holds():  # noqa: ASYNC110 -- that this thread wakes up and sleeps is what is looked at
            await asyncio.sleep(0.001)


async def test_a_store_that_rank_0_hosts_goes_behind_its_members() -> None:
    """By default `create()` starts a process for it, and that process alone gives way."""
    async with await AsyncStatelessGroup.create("127.0.0.1", 0, 0, 1) as group:
        assert isinstance(group._link, NativeLink)
        assert policy(group._link.server_pid) == os.SCHED_BATCH
    assert policy() == os.SCHED_OTHER


async def test_where_every_processor_is_busy_it_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for time slices to end; after a while it tries again, for the others may have gone."""
    monkeypatch.setattr(scheduling, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(scheduling, "WITHOUT_SECONDS", 0.2)
    with behind_members():
        assert policy() == os.SCHED_BATCH
        with busy_processors():
            await wake_until(lambda: policy() == os.SCHED_OTHER)
        await wake_until(lambda: policy() == os.SCHED_BATCH)
    assert policy() == os.SCHED_OTHER


@pytest.mark.parametrize(
    ("ran", "waited", "is_long"),
    [(125, 58, False), (457, 361, False), (1_990, 4_246, False), (126, 545, True), (141, 444, True), (136, 342, True)],
    ids=["8 ranks", "32 ranks", "64 ranks", "8 and 2 busy", "8 and 2 busy, again", "8 and 4 busy"],
)
def test_a_wait_behind_members_is_told_from_one_behind_others(ran: int, waited: int, is_long: bool) -> None:
    """Measured: microseconds a collective on two processors, beside programs that are busy or not."""
    assert Account(ran * 1000, waited * 1000).is_long is is_long


async def test_a_moment_says_nothing() -> None:
    """One unlucky wake-up is no reason."""
    account = Account.read()
    assert not Account(0, 9_000_000).is_enough
    assert account.since(account) == (0, 0)


def test_a_policy_that_was_given_is_left_alone() -> None:
    """Who started it under chrt(1) knows why."""
    seen: list[int] = []

    async def look() -> None:
        with behind_members():
            seen.append(policy())
        seen.append(policy())

    def run() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        asyncio.run(look())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [os.SCHED_IDLE] * 2


@pytest.mark.parametrize("lacking", ["permission", "account"])
async def test_where_it_cannot_be_nothing_changes(lacking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox that lets no process set its policy, and a kernel that keeps no account, are no reason not to serve."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if lacking == "permission":
        monkeypatch.setattr(os, "sched_setscheduler", refuse)
    else:
        monkeypatch.setattr(scheduling, "ACCOUNT", "/proc/nothing")
    with behind_members():
        assert policy() == os.SCHED_OTHER
