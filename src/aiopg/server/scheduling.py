"""How the kernel schedules a process that is a store: behind its members, as long as that costs them nothing.

Theory of operation. A member that has sent something has a few microseconds of work left before it sleeps. Linux may
let the process that is woken by that push the sender out at once; where members and store share processors, the store
then comes between, takes one arrival, sleeps again, and the member is put back for the rest. Under SCHED_BATCH
(sched(7)) who is woken waits until the running process sleeps: there is a switch less for each member, and the store
finds several arrivals at once, which it is quicker with (docs/performance.md has the figures).

The price is paid where programs that do not sleep keep every processor busy: there the store would wait until their
time slices end, which are milliseconds. So once a second it looks at the kernel's account of it
(`/proc/PID/schedstat`, Documentation/scheduler/sched-stats.rst); when it waited for a processor several times as long
as it ran, it goes without for a minute. Waiting behind one's own members looks different: with 64 of them on two
processors it waits up to twice as long as it runs, with 8 half as long.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

__all__ = ["Account", "behind_members"]

logger = logging.getLogger("aiopg.server")

LOOK_SECONDS = 1.0
WITHOUT_SECONDS = 60.0
"""How often the account is looked at, and for how long a store goes without when it waited for too long."""

LONG = 2.5
"""So many times as long as it ran, and the store has waited for too long."""

ENOUGH_NANOSECONDS = 10_000_000
"""Less than this, running and waiting together, says nothing yet."""

ACCOUNT = "/proc/thread-self/schedstat"


class Account(NamedTuple):
    """What the kernel has counted of a thread, in nanoseconds."""

    ran: int
    waited: int
    """For a processor, able to run."""

    @classmethod
    def read(cls) -> Account:
        """That of this thread. Raises `OSError` where the kernel keeps none."""
        with open(ACCOUNT, encoding="ascii") as file:
            ran, waited, _ = map(int, file.read().split())
        return cls(ran, waited)

    def since(self, before: Account) -> Account:
        """What was added to it."""
        return Account(self.ran - before.ran, self.waited - before.waited)

    @property
    def is_enough(self) -> bool:
        """Whether it can be judged by."""
        return self.ran + self.waited >= ENOUGH_NANOSECONDS

    @property
    def is_long(self) -> bool:
        """Whether the wait was longer than that behind members."""
        return self.waited > LONG * self.ran


class _Courtesy:
    """Of one thread, the one that runs the event loop that is running."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._before = Account(0, 0)

    def begin(self) -> None:
        """Let members go first, from here on. Raises `OSError` where that is not allowed or no account is kept."""
        self._before = Account.read()
        _schedule(os.SCHED_BATCH)
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def end(self) -> None:
        """Be as any other thread."""
        if self._timer is not None:
            self._timer.cancel()
            _schedule(os.SCHED_OTHER)

    def _look(self) -> None:
        account = Account.read()
        lately = account.since(self._before)
        if lately.is_enough:
            if lately.is_long:
                logger.debug("processors are busy, so this store does not wait behind its members: %s", lately)
                _schedule(os.SCHED_OTHER)
                self._timer = self._loop.call_later(WITHOUT_SECONDS, self.begin)
                return
            self._before = account
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)


@contextmanager
def behind_members() -> Iterator[None]:
    """Within the block, in a coroutine, the thread that runs it lets members of the store go first.

    Only on Linux, and where a policy can be set; else nothing is changed. Nor is it for a thread that was given a
    policy of its own (chrt(1)). What is started within inherits the policy: so this is nothing for who starts members.
    """
    courtesy = _Courtesy()
    try:
        if hasattr(os, "SCHED_BATCH") and os.sched_getscheduler(0) == os.SCHED_OTHER:
            courtesy.begin()
    except OSError as error:
        logger.debug("this store is scheduled as any other program: %s", error)
    try:
        yield
    finally:
        courtesy.end()


def _schedule(policy: int) -> None:
    os.sched_setscheduler(0, policy, os.sched_param(0))
