"""Calls under way at a store that speaks the engine's commands: numbering, waiting, ending.

Two rules make every wait here safe to cancel. A future only wakes; what a call came to is kept beside it and looked
at after waking, so a cancelled waiter loses nothing. And each call gets exactly one outcome: an event of the store,
or the error that ended the link.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Any, Protocol, Self, TypeAlias

from aiopg._core.frames import Body
from aiopg._core.messages import (
    Answer,
    Cancel,
    Command,
    Event,
    Failed,
    Inquire,
    Message,
    Void,
    unpack_error,
    unpack_value,
)
from aiopg.errors import AiopgError, GroupClosedError, ProtocolError
from aiopg.stores._alarms import Alarms
from aiopg.stores.base import FACTS_SECONDS, WARN_AGAIN_SECONDS, WARN_SECONDS
from aiopg.stores.timed import Timed

_new = tuple.__new__  # a NamedTuple's own constructor is a Python function that does no more

__all__ = ["Calls", "DeadlinePassedError", "Facts", "Gate", "Pending", "Waiter", "forget", "stay_silent"]

Facts: TypeAlias = tuple[list[int] | None, list[int] | None, list[str]]
"""Ranks that arrived, ranks that are missing, None where the store does not know; and lines of what happened before."""


class DeadlinePassedError(Exception):
    """A wait reached its deadline. Never leaves `stores`."""


class Waiter:
    """Something a task waits for, any number of times, until it is woken for good."""

    __slots__ = ("_alarms", "_call", "_look_at", "_overdue", "future", "woken")

    def __init__(self, alarms: Alarms) -> None:
        self._alarms = alarms
        self._call: Timed[AiopgError] | None = None
        self._overdue: Callable[[Any, Any], None]
        self._look_at = 0.0
        self.future: asyncio.Future[None] | None = None
        self.woken = False

    def wake(self) -> None:
        """End the wait, now or before it begins."""
        self.woken = True
        self._alarms.clear(self)
        self._rouse()

    def ring(self) -> None:
        """The time has come to look at the clock: to complain that the wait is long, or to end it."""
        call = self._call
        if call is None or self._look_at == call.deadline:
            self._rouse()
            return
        self._overdue(self, call)
        self._look_at = min(self._look_at + WARN_AGAIN_SECONDS, call.deadline)
        self._alarms.set(self, self._look_at)

    async def wait(self, call: Timed[AiopgError], overdue: Callable[[Self, Any], None]) -> None:
        """Wait to be woken until the call's deadline; `overdue` is called when it has waited for long, and again.

        Raises `DeadlinePassedError`.
        """
        if self.woken:
            return
        self._call, self._overdue = call, overdue
        self._look_at = min(call.started + WARN_SECONDS, call.deadline)
        self._alarms.set(self, self._look_at)
        self.future = call.loop.create_future()
        try:
            await self.future
        finally:
            self.drop()
        if not self.woken:
            raise DeadlinePassedError

    async def wait_until(self, deadline: float) -> None:
        """Wait to be woken. Raises `DeadlinePassedError` at `deadline` (loop time)."""
        if self.woken:
            return
        self._call = None
        self.future = asyncio.get_running_loop().create_future()
        self._alarms.set(self, deadline)
        try:
            await self.future
        finally:
            self.drop()
        if not self.woken:
            raise DeadlinePassedError

    def drop(self) -> None:
        """Nobody waits for it any more, woken or not."""
        self._call = self.future = None
        self._alarms.clear(self)

    def _rouse(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Pending(Waiter):
    """A call that was sent; `outcome` is what it came to, None while it is under way."""

    __slots__ = ("number", "outcome", "place", "then")

    def __init__(self, alarms: Alarms, number: int, place: int) -> None:
        # As Waiter.__init__, without the call: one of these is made for every call.
        self._alarms = alarms
        self._call = None
        self.future = None
        self.woken = False
        self.number = number
        self.place = place
        """Sequence number of its command on the link."""
        self.outcome: Event | AiopgError | None = None
        self.then: Callable[[Pending], None] | None = None
        """Called once with this call when it has its outcome."""

    def settle(self, outcome: Event | AiopgError) -> None:
        """Set the outcome and tell whoever waits."""
        self.outcome = outcome
        self.wake()
        if self.then is not None:
            self.then(self)

    def result(self) -> Body:
        """The answer's body; raises the error that the call came to, new each time."""
        outcome = self.outcome
        if type(outcome) is Answer:
            return outcome.body
        raise self.error()

    def error(self) -> AiopgError:
        """The error that the call came to."""
        outcome = self.outcome
        if isinstance(outcome, AiopgError):
            return copy(outcome)
        if type(outcome) is Failed:
            return unpack_error(outcome.body)
        return GroupClosedError("the group was closed while this call waited")

    def facts(self) -> Facts | None:
        """Who had arrived and who was missing when the call was withdrawn, if it was."""
        outcome = self.outcome
        if outcome is None or isinstance(outcome, AiopgError | Answer | Failed):
            return None
        arrived, missing, *lines = unpack_value(outcome.body)
        return arrived, missing, lines[0] if lines else []


class Gate(Protocol):
    """What a link keeps of the commands that it has not yet carried: a session, see there."""

    @property
    def full(self) -> bool:
        """Whether new calls are to wait."""

    @property
    def sent(self) -> int:
        """The number of the last command that it was given."""

    def replace(self, seq: int, message: Message) -> None:
        """Carry this in the place of command `seq`, if that is not yet there."""


class _OpenGate:
    """A link that keeps nothing: every command takes effect at once."""

    full = False
    sent = 0

    def replace(self, seq: int, message: Message) -> None:
        """There is nothing to replace."""


class Calls:
    """All calls under way on one link."""

    def __init__(self, send: Callable[[Command], object], gate: Gate | None = None) -> None:
        """`gate`: while it is full, new calls wait (`find_room`); what ends or settles older ones goes through."""
        self._send = send
        self.gate: Gate = gate or _OpenGate()
        self.line: deque[Waiter] = deque()
        """Calls that wait for room, in call order; while there are some, or the gate is full, a new call waits too."""
        self.alarms = Alarms()
        """The timer of this link's waits."""
        self._last = 0
        self._pending: dict[int, Pending] = {}
        self._lost: AiopgError | None = None

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def is_lost(self) -> bool:
        """Whether the link is over."""
        return self._lost is not None

    def check(self) -> None:
        """Raises what ended the link, if it is over."""
        if self._lost is not None:
            raise copy(self._lost)

    async def find_room(self, call: Timed[AiopgError]) -> None:
        """Wait until the link takes another call; first come, first served. Raises the error of the call's deadline."""
        waiter = Waiter(self.alarms)
        self.line.append(waiter)
        try:
            await waiter.wait(call, lambda _, call: call.warn(None, None))
        except DeadlinePassedError:
            raise call.withdrawn(None, None) from None  # the store never heard of it
        finally:
            self.line.remove(waiter)
            self.let_in()

    def let_in(self) -> None:
        """There may be room: the first in line goes on, and lets in the next one."""
        if self.line and (self._lost is not None or not self.gate.full):
            self.line[0].wake()

    def take_route(self, send: Callable[[Command], object]) -> None:
        """Commands go this way from now on."""
        self._send = send

    def submit(
        self, command: type[Any], *fields: Any, body: Body = (), then: Callable[[Pending], None] | None = None
    ) -> Pending:
        """Make a command of the next call number and these fields, and send it. Raises what ended the link."""
        pending = self.begin(command, (*fields, body))
        pending.then = then
        return pending

    def begin(self, command: type[Any], fields: tuple[Any, ...]) -> Pending:
        """The same with the body as the last of the fields."""
        if self._lost is not None:
            raise copy(self._lost)
        self._last = number = self._last + 1
        self._send(_new(command, (number, *fields)))
        pending = self._pending[number] = Pending(self.alarms, number, self.gate.sent)
        return pending

    def ask(
        self,
        command: type[Any],
        fields: tuple[Any, ...],
        call: Timed[AiopgError],
        overdue: Callable[[Pending, Any], None],
    ) -> tuple[Pending, asyncio.Future[None]]:
        """`begin` and `Pending.wait` in one step and without a coroutine, for which every call of a group would pay.

        The future ends when `wait` would; whether that was an answer says `Pending.woken`. Who does not await it to its
        end calls `Pending.drop`.
        """
        if self._lost is not None:
            raise copy(self._lost)
        self._last = number = self._last + 1
        self._send(_new(command, (number, *fields)))
        alarms = self.alarms
        pending = self._pending[number] = Pending(alarms, number, self.gate.sent)
        pending._call, pending._overdue = call, overdue
        look_at = call.started + WARN_SECONDS
        if call.deadline < look_at:
            look_at = call.deadline
        pending._look_at = alarms.times[pending] = look_at
        if look_at < alarms.timer_at:
            alarms.set_timer(look_at)
        future = pending.future = call.loop.create_future()
        return pending, future

    def recall(self, pending: Pending) -> None:
        """If the link is down and has not carried a call's command, never carry it: the call is then withdrawn."""
        if pending.outcome is None and self._lost is None:
            self.gate.replace(pending.place, Void(pending.number))

    def cancel(self, pending: Pending) -> None:
        """Ask the store to take a call back, if it has no outcome yet; its outcome tells whether it was in time."""
        self.recall(pending)
        if pending.outcome is None and self._lost is None:
            self._send(Cancel(pending.number))

    async def answer(self, call: Timed[AiopgError], pending: Pending, leave_behind: Callable[[], None]) -> Body:
        """The answer to a call that was sent. At its deadline it is taken back, and the store has a moment to say so.

        `leave_behind`: called if nobody waits for the call any more and it is not known to be withdrawn.
        """
        try:
            await pending.wait(call, self.inquire)
        except asyncio.CancelledError:
            leave_behind()
            raise
        except DeadlinePassedError:
            await self._learn_facts(call, pending, leave_behind)
        return pending.result()

    async def _learn_facts(self, call: Timed[AiopgError], pending: Pending, leave_behind: Callable[[], None]) -> None:
        """After the deadline: wait for the store's last word. Returns if the answer came in time."""
        self.cancel(pending)
        try:
            await pending.wait_until(call.deadline + FACTS_SECONDS)
        except asyncio.CancelledError:
            leave_behind()
            raise
        except DeadlinePassedError:
            leave_behind()
            raise call.timed_out(None, None) from None
        facts = pending.facts()
        if facts is not None:
            raise call.withdrawn(*facts)

    def inquire(self, pending: Pending, call: Timed[AiopgError]) -> None:
        """Have `call` warn with what the store knows of it."""
        if self._lost is not None:
            return

        def answered(inquiry: Pending) -> None:
            if type(inquiry.outcome) is Answer and (facts := unpack_value(inquiry.outcome.body)) is not None:
                call.warn(*facts[:2])

        self.submit(Inquire, pending.number, then=answered)

    def received(self, event: Event) -> None:
        """The store's event for one call. Raises `ProtocolError` for a call never made."""
        pending = self._pending.pop(event.call, None)
        if pending is None:
            raise ProtocolError(f"an event for call {event.call}, which does not wait")
        if pending.then is not None:
            pending.settle(event)
            return
        # As Pending.settle, without the call: this is the way of nearly every event.
        pending.outcome = event
        pending.woken = True
        self.alarms.times.pop(pending, None)
        future = pending.future
        if future is not None and not future.done():
            future.set_result(None)

    def lost(self, error: AiopgError) -> None:
        """The link is over: so is every call, now and later."""
        self._lost = error
        pendings = list(self._pending.values())
        self._pending.clear()
        for pending in pendings:
            pending.settle(copy(error))
        self.let_in()

    def close(self) -> None:
        """This end closes the link; unless it was lost before, its calls come to `GroupClosedError`."""
        if self._lost is None:
            self.lost(GroupClosedError("the link to the store was closed"))
        self.alarms.close()


def forget(_: Pending) -> None:
    """Whatever it came to, nobody is there to be told: the link goes on, or ends and takes all along."""


def stay_silent(_: Pending, call: object) -> None:
    """That nothing happens is no reason to warn."""
