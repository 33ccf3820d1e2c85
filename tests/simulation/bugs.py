"""Bugs on purpose, each put into the product's classes while it is tried, and how its users would notice it.

The product checks its own protocol strictly, so that some bugs would first be seen as a session that is lost: those
are put in together with sessions that notice nothing, as what a bug does to messages and collectives is to be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from aiopg._core import compaction, records
from aiopg._core.exchange import Exchange
from aiopg._core.mailboxes import Mailboxes
from aiopg._core.membership import Membership
from aiopg._core.messages import Acknowledge, Goodbye
from aiopg._core.rounds import Rounds
from aiopg._core.session import Session
from aiopg._core.wire import decode_message
from aiopg.client._client import Client
from aiopg.errors import PeerLostError
from aiopg.link import Link
from aiopg.server._scribe import Scribe
from aiopg.stores._calls import DeadlinePassedError, Waiter
from aiopg.stores._incoming import Incoming
from tests.simulation import key_bugs
from tests.simulation.key_bugs import patched
from tests.simulation.world import is_journaled, is_keyed

__all__ = ["BUGS", "Bug"]

LOST = ("accepted messages are missing", "accepted and lost", "received, and yet it timed out")
TWICE = ("a message came twice",)
MIXED_UP = ("a message came after a later one",)
FOREIGN = ("a foreign message",)
WENT_ON = ("took its rank over",)
PHANTOM = ("complete without rank", "a part that was taken back")
ITEM_LOST = ("items are lost", "an item was there, and yet it timed out")
LOCKED = ("nobody held the lock, and yet it timed out",)
SKIPPED = ("a change was skipped", "changes of all keys with a hole")
HANG = ("stuck", "it never ended", "everybody was there and yet it timed out", "had arrived")


class Bug(NamedTuple):
    """A bug, and the beginnings or parts of what the checker may say of it: one of them is to be found."""

    put_in: Callable[[], AbstractContextManager[None]]
    signs: tuple[str, ...]
    has_chance: Callable[[int], bool] = lambda seed: True
    """Whether the run of a seed does what the bug is in."""


def acknowledge_before_delivery() -> AbstractContextManager[None]:
    """What was received is handed on a moment later, unless the connection is over by then."""

    def dispatch(self: Link, frame: Any) -> None:
        message = decode_message(frame)

        def hand_on() -> None:
            if not self._closed and type(message) is Goodbye:
                self._end(message.reason, final=True, abort=False)
            elif not self._closed and type(message) is not Acknowledge:
                self.message_received(message)

        self._loop.call_later(0.001, hand_on)

    return patched(Link, _dispatch=dispatch, _lone_readers={})


def apply_twice() -> AbstractContextManager[None]:
    """After a new connection all is sent again, and what the other end has already is acted on again."""

    def resend(self: Session, held: int) -> list[Any]:
        return list(self._outbox)

    def receive(self: Session, seq: int, ack: int) -> bool:
        self.note_acknowledgement(max(ack, self.acknowledged))
        self.received = max(seq, self.received)
        return True

    return patched(Session, resend=resend, receive=receive)


def drop_a_tombstone() -> AbstractContextManager[None]:
    """A message that expired is gone without a trace."""

    def expire(self: Mailboxes, now: float) -> int:
        gone = 0
        for address, box in list(self._boxes.items()):
            for letter in [letter for letter in box.letters if letter.expires <= now]:
                box.letters.remove(letter)
                self.messages -= 1
                self.bytes -= letter.size
                gone += 1
            self._drop_if_empty(address, box)
        return gone

    return patched(Mailboxes, expire=expire)


def pop_before_await() -> AbstractContextManager[None]:
    """A message is taken out for a receiver that is woken, and lost if that is cancelled before it runs."""

    async def wait(self: Incoming, call: Any) -> None:
        waiter = Waiter(self._calls.alarms)
        self._waiting.append(waiter)
        try:
            self._balance()
            await waiter.wait(call, lambda _, call: None)
        except BaseException as error:
            self._waiting.remove(waiter)
            if waiter.woken and self._inbox:
                self._inbox.popleft()
            self._balance()
            if isinstance(error, DeadlinePassedError):
                raise call.timed_out((), (self._src,)) from None
            raise
        self._waiting.remove(waiter)

    def let_go(self: Incoming, request: Any) -> None:
        if request.outcome is None:
            request.then = self._bring_back
            self._calls.cancel(request)
        else:
            self._under_way -= 1

    return patched(Incoming, _wait=wait, _let_go=let_go)


def forget_a_wake_up() -> AbstractContextManager[None]:
    """A connection that ends just when the session goes over it again: nobody tries once more."""

    def came_again(self: Client, task: asyncio.Task[None]) -> None:
        self._coming_again = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lose(f"coming again failed: {error!r}")
            raise error

    return patched(Client, _came_again=came_again)


def no_source_in_the_mailbox_key() -> AbstractContextManager[None]:
    """All senders of a rank share one mailbox for each tag."""
    put, take, take_back = Mailboxes.put, Mailboxes.take, Mailboxes.take_back

    def shared_put(self: Mailboxes, address: Any, body: Any, number: int, expires: float) -> None:
        put(self, (0, *address[1:]), body, number, expires)

    def shared_take(self: Mailboxes, session: Any, command: Any, address: Any, now: float, gone: Any) -> None:
        take(self, session, command, (0, *address[1:]), now, gone)

    def shared_take_back(self: Mailboxes, address: Any, number: int) -> bool:
        return take_back(self, (0, *address[1:]), number)

    return patched(Mailboxes, put=shared_put, take=shared_take, take_back=shared_take_back)


def skip_the_fence() -> AbstractContextManager[None]:
    """Who takes a rank over does not put out its holder, which goes on as if nothing was."""

    def fence(self: Membership, seat: Any, by: str) -> None:
        incarnation = seat.incarnation
        if incarnation.live:
            incarnation.gone[seat.rank] = PeerLostError(incarnation.name, [seat.rank], "taken over")

    return patched(Membership, _fence=fence)


def resend_out_of_order() -> AbstractContextManager[None]:
    """What the other end lacks is sent again latest first, and that is not even noticed."""
    original = Session.resend
    missing: WeakKeyDictionary[Session, set[int]] = WeakKeyDictionary()

    def resend(self: Session, held: int) -> list[Any]:
        return original(self, held)[::-1]

    def receive(self: Session, seq: int, ack: int) -> bool:
        if ack > self.acknowledged:
            self.note_acknowledgement(ack)
        gaps = missing.setdefault(self, set())
        if seq > self.received:
            gaps.update(range(self.received + 1, seq))
            self.received = seq
            return True
        is_late = seq in gaps
        gaps.discard(seq)
        return is_late or seq == 0

    return patched(Session, resend=resend, receive=receive)


def evict_a_live_result() -> AbstractContextManager[None]:
    """A round is freed when all ranks but one were told its outcome."""
    arrive = Rounds.arrive

    def arrive_and_evict(self: Rounds, session: Any, rank: int, command: Any, now: float, ttl: float) -> None:
        arrive(self, session, rank, command, now, ttl)
        for key, round in list(self._rounds.items()):
            if len(round.told) >= self.world_size - 1 > 0:
                del self._rounds[key]
                self.bytes -= round.bytes

    return patched(Rounds, arrive=arrive_and_evict)


def count_a_withdrawn_arrival() -> AbstractContextManager[None]:
    """An arrival that was taken back still counts for the others; one that comes again replaces it."""
    arrive = Rounds.arrive

    def withdraw(self: Rounds, arrival: Any) -> bool:
        arrival.round.withdrawn.add(arrival.rank)
        return len(arrival.round.arrivals) < self.world_size

    def arrive_again(self: Rounds, session: Any, rank: int, command: Any, now: float, ttl: float) -> None:
        round = self._rounds.get((command.tag, command.number))
        if round is not None and rank in round.withdrawn:
            self._drop_parts(round.arrivals.pop(rank))
        arrive(self, session, rank, command, now, ttl)

    return patched(Rounds, withdraw=withdraw, arrive=arrive_again)


def acknowledge_before_the_journal_is_written() -> AbstractContextManager[None]:
    """What a store says does not wait for its disk; after a crash its members know more than it does."""

    def when_recorded(self: Scribe, action: Callable[[], None], or_else: object = None) -> None:
        action()

    return _both(_sessions_that_notice_nothing(), patched(Scribe, when_recorded=when_recorded))


def a_record_is_not_replayed() -> AbstractContextManager[None]:
    """Of a message that was put, a replay brings nothing but that something came."""

    def replay_without_messages(exchange: Exchange, record: bytes) -> float | None:
        with patched(Mailboxes, put=lambda *args: None):
            return records.replay(exchange, record)

    return _both(_sessions_that_notice_nothing(), patched(compaction, replay=replay_without_messages))


def _sessions_that_notice_nothing() -> AbstractContextManager[None]:
    """Sessions that go on whatever the other end claims to hold."""
    note_acknowledgement = Session.note_acknowledgement

    def resend(self: Session, held: int) -> list[Any]:
        self.sent = max(held, self.sent) if not self._outbox else self.sent
        self.note_acknowledgement(held)
        return list(self._outbox)

    def note_at_most(self: Session, ack: int) -> None:
        note_acknowledgement(self, min(ack, self.acknowledged + len(self._outbox)))
        if ack > self.sent:
            self.sent = self.acknowledged = ack

    def receive(self: Session, seq: int, ack: int) -> bool:
        if ack > self.acknowledged:
            self.note_acknowledgement(ack)
        self.received, is_new = max(seq, self.received), seq > self.received
        return is_new or seq == 0

    return patched(Session, resend=resend, note_acknowledgement=note_at_most, receive=receive)


@contextmanager
def _both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


BUGS: dict[str, Bug] = {
    bug.put_in.__name__: bug
    for bug in (
        Bug(acknowledge_before_delivery, LOST + HANG),
        Bug(apply_twice, TWICE),
        Bug(drop_a_tombstone, LOST),
        Bug(pop_before_await, LOST),
        Bug(forget_a_wake_up, HANG),
        Bug(no_source_in_the_mailbox_key, FOREIGN),
        Bug(skip_the_fence, WENT_ON),
        Bug(resend_out_of_order, MIXED_UP),
        Bug(evict_a_live_result, HANG),
        Bug(count_a_withdrawn_arrival, PHANTOM),
        Bug(acknowledge_before_the_journal_is_written, LOST + TWICE, is_journaled),
        Bug(a_record_is_not_replayed, LOST, is_journaled),
        Bug(key_bugs.add_again_on_resume, ("an add was applied twice",), is_keyed),
        Bug(key_bugs.compare_with_nothing, ("two swaps of one value",), is_keyed),
        Bug(key_bugs.pop_without_receipt, ITEM_LOST, is_keyed),
        Bug(key_bugs.keep_a_late_item, ITEM_LOST, is_keyed),
        Bug(key_bugs.count_a_goodbye_for_nothing, ("an item came twice",), is_keyed),
        Bug(key_bugs.put_back_at_the_end, ("an item after one that was pushed later",), is_keyed),
        Bug(key_bugs.lock_beyond_the_session, LOCKED, is_keyed),
        Bug(key_bugs.keep_a_late_lock, LOCKED, is_keyed),
        Bug(key_bugs.session_keys_for_ever, ("a key of a session that had ended",), is_keyed),
        Bug(key_bugs.follow_from_now_on, SKIPPED, is_keyed),
        Bug(key_bugs.follow_anew_after_a_timeout, SKIPPED, is_keyed),
    )
}
