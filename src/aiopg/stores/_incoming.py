"""Messages on their way to this member's `take`, from one mailbox.

A take is not tied to the call that asks the store for a message: the store owes the mailbox's reader some number of
messages (`_asked`), and whatever comes goes to the inbox, from which the waiting takes are served in the order of
their calls. So a take that is cancelled too late loses nothing: its message is what the next take gets, and two
takes can never swap theirs.

But nearly every take finds nothing here, wanted or on its way. It waits for its own request, which is answered before
any later one; what it leaves behind when it is cancelled goes to the head of the inbox.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from aiopg._core.frames import Body
from aiopg._core.messages import Answer, Take
from aiopg.errors import AiopgError, DataExpiredError
from aiopg.stores._calls import Calls, DeadlinePassedError, Pending, Waiter
from aiopg.stores.base import Call

__all__ = ["Incoming"]


class Incoming:
    """The reader's side of one mailbox."""

    def __init__(self, calls: Calls, src: int, fields: tuple[Any, ...], on_idle: Callable[[], None]) -> None:
        """`fields`: those of the `Take` that asks for a message of `src`; `on_idle`: called when `idle` comes true."""
        self._calls = calls
        self._src = src
        self._fields = fields
        self._on_idle = on_idle
        self._asked: list[Pending] = []  # requests under way that are wanted, oldest first
        self._under_way = 0  # all requests under way: one that was cancelled may still bring a message
        self._inbox: deque[Body | AiopgError] = deque()
        self._alone: Pending | None = None  # what a take waits for that found nothing here
        self._waiting: deque[Waiter] = deque()  # takes in call order, those woken and not yet resumed included

    @property
    def idle(self) -> bool:
        """Whether nothing is here, wanted or on its way."""
        return not self._under_way and not self._inbox and not self._waiting

    async def take(self, call: Call) -> Body:
        """The next message. Raises what took its place, or `GroupTimeoutError`."""
        if self._inbox or self._waiting or self._under_way:
            return await self._take_in_line(call)
        request, ended = self._calls.ask(Take, self._fields, call, self._complain)
        self._alone = request
        self._under_way = 1
        try:
            await ended
        except BaseException:
            request.drop()
            self._let_go(request)
            raise
        if not request.woken:
            self._let_go(request)
            raise call.timed_out((), (self._src,))
        if self._alone is not request:
            self._waiting.remove(request)
            return self._next()
        self._alone = None
        self._under_way -= 1
        if self._waiting or self._inbox:
            self._balance()
        elif not self._under_way:
            self._on_idle()
        return request.result()

    def _let_go(self, request: Pending) -> None:
        """Nobody waits for this request any more: what it brings, or has brought by now, is for the next take."""
        if self._alone is not request:
            self._waiting.remove(request)
            self._balance()
            return
        self._alone = None
        if request.outcome is None:
            request.then = self._bring_back
            self._calls.cancel(request)
        else:
            self._bring_back(request)

    def _bring_back(self, request: Pending) -> None:
        self._under_way -= 1
        if type(request.outcome) is Answer:
            # Before all else: what is here by now was asked for later.
            self._inbox.appendleft(request.outcome.body)
        elif _told_once(error := request.error()):
            self._inbox.appendleft(error)
        self._balance()
        if self.idle:
            self._on_idle()

    async def _take_in_line(self, call: Call) -> Body:
        if not self._inbox or self._waiting or self._alone is not None:
            try:
                await self._wait(call)
            finally:
                if self.idle:
                    self._on_idle()
        return self._next()

    def _next(self) -> Body:
        """The head of the inbox, for a take that was waiting for it."""
        item = self._inbox.popleft()
        if self._waiting or self._inbox or self._asked:
            self._balance()
        if self.idle:
            self._on_idle()
        if isinstance(item, AiopgError):
            raise item
        return item

    def give_back(self, message: Body) -> None:
        """A message that was taken is the head again."""
        if self._alone is not None:
            self._line_up(self._alone)
        self._inbox.appendleft(message)
        self._balance()

    def _line_up(self, request: Pending) -> None:
        """The take that waits for its own request is to have what is here instead: it is the first in line."""
        self._alone = None
        self._waiting.appendleft(request)
        if request.outcome is None:
            request.then = self._ended
            self._asked.insert(0, request)
        else:
            self._bring_back(request)

    def _complain(self, _: Waiter, call: Call) -> None:
        call.warn((), (self._src,))

    async def _wait(self, call: Call) -> None:
        waiter = Waiter(self._calls.alarms)
        self._waiting.append(waiter)
        try:
            self._balance()
            await waiter.wait(call, self._complain)
        except BaseException as error:
            # Woken and cancelled in the same tick: the message stays at the head, for the next in line.
            self._waiting.remove(waiter)
            self._balance()
            if isinstance(error, DeadlinePassedError):
                raise call.timed_out((), (self._src,)) from None
            raise
        # No balancing before the message is taken out: it would be counted as somebody else's.
        self._waiting.remove(waiter)

    def _balance(self) -> None:
        """Wake as many takes as there are messages; have the store owe exactly the rest."""
        if not self._waiting and self._inbox:
            # Errors that nobody waits for are not kept: who asks again is told again. An expiry is told once only.
            self._inbox = deque(i for i in self._inbox if not isinstance(i, AiopgError) or _told_once(i))
        # One alone that has its message and did not resume yet comes before all: cancelled now, it puts that back.
        for waiter, _ in zip(self._waiting, self._inbox if self._alone is None else (), strict=False):
            if not waiter.woken:
                waiter.wake()
        wanted = len(self._waiting) - len(self._inbox)
        while len(self._asked) < wanted:
            request = self._calls.begin(Take, self._fields)
            request.then = self._ended
            self._asked.append(request)
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
