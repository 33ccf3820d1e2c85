"""Ten bugs on purpose, to see that the simulator finds such: each is put into the product's classes while it is tried.

    python -m tests.simulation.planted [NAME ...]

tells at which seed each is found. One that is not found within `LIMIT` seeds means that the simulator is blind.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any
from unittest import mock

from aiopg._core.engine import Engine
from aiopg._core.mailboxes import Mailboxes
from aiopg._core.messages import Acknowledge, Goodbye
from aiopg._core.rounds import Rounds
from aiopg._core.session import Session
from aiopg._core.wire import decode_message
from aiopg.client._client import Client
from aiopg.errors import PeerLostError
from aiopg.link import Link
from aiopg.stores._calls import DeadlinePassedError, Waiter
from aiopg.stores._incoming import Incoming
from tests.simulation.play import play

__all__ = ["BUGS", "LIMIT", "find"]

LIMIT = 2000


@contextmanager
def _patched(owner: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for name, method in methods.items():
            stack.enter_context(mock.patch.object(owner, name, method))
        yield


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

    return _patched(Link, _dispatch=dispatch)


def apply_twice() -> AbstractContextManager[None]:
    """After a new connection all is sent again, and what the other end has already is acted on again."""

    def resend(self: Session, held: int) -> list[Any]:
        return list(self._outbox)

    def receive(self: Session, seq: int, ack: int) -> bool:
        self.note_acknowledgement(max(ack, self.acknowledged))
        self.received = max(seq, self.received)
        return True

    return _patched(Session, resend=resend, receive=receive)


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

    return _patched(Mailboxes, expire=expire)


def pop_before_await() -> AbstractContextManager[None]:
    """A message is taken out for a receiver that is woken, and lost if that is cancelled before it runs."""

    async def wait(self: Incoming, call: Any, src: int) -> None:
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
                raise call.timed_out((), (src,)) from None
            raise
        self._waiting.remove(waiter)

    return _patched(Incoming, _wait=wait)


def forget_a_wake_up() -> AbstractContextManager[None]:
    """A connection that ends just when the session goes over it again: nobody tries once more."""

    def came_again(self: Client, task: asyncio.Task[None]) -> None:
        self._coming_again = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._lose(f"coming again failed: {error!r}")
            raise error

    return _patched(Client, _came_again=came_again)


def no_source_in_the_mailbox_key() -> AbstractContextManager[None]:
    """All senders of a rank share one mailbox for each tag."""
    put, take, take_back = Mailboxes.put, Mailboxes.take, Mailboxes.take_back

    def shared_put(self: Mailboxes, address: Any, body: Any, number: int, expires: float) -> None:
        put(self, (0, *address[1:]), body, number, expires)

    def shared_take(self: Mailboxes, session: Any, command: Any, address: Any, now: float, gone: Any) -> None:
        take(self, session, command, (0, *address[1:]), now, gone)

    def shared_take_back(self: Mailboxes, address: Any, number: int) -> bool:
        return take_back(self, (0, *address[1:]), number)

    return _patched(Mailboxes, put=shared_put, take=shared_take, take_back=shared_take_back)


def skip_the_fence() -> AbstractContextManager[None]:
    """Who takes a rank over does not put out its holder, which goes on as if nothing was."""

    def fence(self: Engine, seat: Any, by: str) -> None:
        incarnation = seat.incarnation
        if incarnation.live:
            incarnation.gone[seat.rank] = PeerLostError(incarnation.name, [seat.rank], "taken over")

    return _patched(Engine, _fence=fence)


def resend_out_of_order() -> AbstractContextManager[None]:
    """What the other end lacks is sent again latest first."""
    original = Session.resend

    def resend(self: Session, held: int) -> list[Any]:
        return original(self, held)[::-1]

    return _patched(Session, resend=resend)


def evict_a_live_result() -> AbstractContextManager[None]:
    """A round is freed when all ranks but one were told its outcome."""
    arrive = Rounds.arrive

    def arrive_and_evict(self: Rounds, session: Any, rank: int, command: Any, now: float, ttl: float) -> None:
        arrive(self, session, rank, command, now, ttl)
        for key, round in list(self._rounds.items()):
            if len(round.told) >= self.world_size - 1 > 0:
                del self._rounds[key]
                self.bytes -= round.bytes

    return _patched(Rounds, arrive=arrive_and_evict)


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

    return _patched(Rounds, withdraw=withdraw, arrive=arrive_again)


BUGS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    bug.__name__: bug
    for bug in (
        acknowledge_before_delivery,
        apply_twice,
        drop_a_tombstone,
        pop_before_await,
        forget_a_wake_up,
        no_source_in_the_mailbox_key,
        skip_the_fence,
        resend_out_of_order,
        evict_a_live_result,
        count_a_withdrawn_arrival,
    )
}


def find(name: str, limit: int = LIMIT) -> tuple[int, str] | None:
    """The first seed that is wrong with this bug and right without it, and what was wrong; None: not within `limit`."""
    for seed in range(1, limit + 1):
        with BUGS[name]():
            wrong = play(seed).wrong
        if wrong and not play(seed).wrong:
            return seed, wrong[0]
    return None


def main(names: list[str]) -> int:
    """Try these bugs, or all."""
    blind = 0
    for name in names or BUGS:
        found = find(name)
        blind += found is None
        what = f"seed {found[0]}: {found[1]:.200}" if found else f"not found in {LIMIT} seeds"
        print(f"{name}: {what}", flush=True)
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
