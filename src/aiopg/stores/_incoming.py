"""Messages on their way to this member's `take`, from one mailbox.

A take is not tied to the call that asks the store for a message: the store owes the mailbox's reader some number of
messages (`_asked`), and whatever comes goes to the inbox, from which the waiting takes are served in the order of
their calls. So a take that is cancelled too late loses nothing: its message is what the next take gets, and two
takes can never swap theirs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aiopg._core.frames import Body
from aiopg._core.messages import Answer
from aiopg.errors import AiopgError, DataExpiredError
from aiopg.stores._calls import Calls, DeadlinePassedError, Pending, Waiter
from aiopg.stores.base import Call

__all__ = ["Incoming"]


class Incoming:
    """The reader's side of one mailbox."""

    def __init__(self, calls: Calls, ask: tuple[Any, ...], on_idle: Callable[[], None]) -> None:
        """`ask`: the command and its fields that ask the store for one message; `on_idle`: when `idle` comes true."""
        self._calls = calls
        self._ask = ask
        self._on_idle = on_idle
        self._asked: list[Pending] = []  # requests under way that are wanted, oldest first
        self._under_way = 0  # all requests under way: one that was cancelled may still bring a message
        self._inbox: deque[Body | AiopgError] = deque()
        self._waiting: deque[Waiter] = deque()  # takes in call order, those woken and not yet resumed included

    @property
    def idle(self) -> bool:
        """Whether nothing is here, wanted or on its way."""
        return not self._under_way and not self._inbox and not self._waiting

    async def take(self, call: Call, src: int) -> Body:
        """The next message. Raises what took its place, or `GroupTimeoutError`."""
        try:
            if not self._inbox or self._waiting:
                await self._wait(call, src)
            item = self._inbox.popleft()
            if self._waiting or self._inbox or self._asked:
                self._balance()
        finally:
            if self.idle:
                self._on_idle()
        if isinstance(item, AiopgError):
            raise item
        return item

    def give_back(self, message: Body) -> None:
        """A message that was taken is the head again."""
        self._inbox.appendleft(message)
        self._balance()

    async def _wait(self, call: Call, src: int) -> None:
        waiter = Waiter(self._calls.alarms)
        self._waiting.append(waiter)
        try:
            self._balance()
            await waiter.wait(call, lambda _, call: call.warn((), (src,)))
        except BaseException as error:
            # Woken and cancelled in the same tick: the message stays at the head, for the next in line.
            self._waiting.remove(waiter)
            self._balance()
            if isinstance(error, DeadlinePassedError):
                raise call.timed_out((), (src,)) from None
            raise
        # No balancing before the message is taken out: it would be counted as somebody else's.
        self._waiting.remove(waiter)

    def _balance(self) -> None:
        """Wake as many takes as there are messages; have the store owe exactly the rest."""
        if not self._waiting and self._inbox:
            # Errors that nobody waits for are not kept: who asks again is told again. An expiry is told once only.
            self._inbox = deque(i for i in self._inbox if not isinstance(i, AiopgError) or _told_once(i))
        for waiter, _ in zip(self._waiting, self._inbox, strict=False):
            if not waiter.woken:
                waiter.wake()
        wanted = len(self._waiting) - len(self._inbox)
        while len(self._asked) < wanted:
            self._asked.append(self._calls.submit(*self._ask, then=self._ended))
            self._under_way += 1
        while len(self._asked) > max(wanted, 0):
            self._calls.cancel(self._asked.pop())

    def _ended(self, request: Pending) -> None:
        """A request has its outcome: a message, an error, or that it was withdrawn."""
        self._under_way -= 1
        wanted = request in self._asked
        if wanted:
            self._asked.remove(request)
        if type(request.outcome) is Answer:
            self._inbox.append(request.outcome.body)
        elif wanted or _told_once(request.error()):
            self._inbox.append(request.error())
        self._balance()
        if self.idle:
            self._on_idle()


def _told_once(error: AiopgError) -> bool:
    return isinstance(error, DataExpiredError)
