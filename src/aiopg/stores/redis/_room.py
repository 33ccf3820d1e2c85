"""One room of the store, as a link is in it: a session there, its commands in order, and its events.

Commands are numbered from 1 and go to the server in batches, few calls at a time: while they are under way, what comes
meanwhile makes up the next. What takes something back waits for fewer: late, it would have more often been in vain.
The server remembers the last number that it applied, so what was sent goes again after a cut, and takes effect once.

Events are numbered by the server; they come in the answers of calls, where all that were not yet acknowledged are told,
and are published; whatever comes twice, or too early, is put right here.

A call is made at least three times in each grace period, with nothing in it if there is nothing to say: it keeps the
session, and has the server look whose session is over. `due` is when the server wants the next one for another reason.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import Any

import msgpack
from redis.exceptions import MovedError, ResponseError

from aiopg._core.frames import Buffer
from aiopg._core.messages import Answer, Cancel, Command, Event, Failed, Vacate, Void, pack_error
from aiopg.errors import AuthenticationError, ProtocolError, StoreFullError, StoreLostError
from aiopg.stores._rooms import Room
from aiopg.stores.redis._dial import said
from aiopg.stores.redis._node import Caller, Listener, Node, pack
from aiopg.stores.redis._outbox import Outbox
from aiopg.stores.redis._owner import Owner
from aiopg.stores.redis._script import is_not_loaded
from aiopg.stores.redis._wording import Number, as_event, pack_head

__all__ = ["RedisRoom"]

ACKNOWLEDGE_BYTES = 64 * 1024
"""An event as large as that is acknowledged at once, so that the server can free it."""

FLIGHTS_MOST = 2
URGENT_FLIGHTS_MOST = 4
"""Calls under way at once. The events that each is told may be in the answer of the one before it too."""

TAKES_BACK = (Cancel, Vacate, Void)

RETRY_SECONDS = 0.05
"""After an answer that says "not now"."""

SOONEST_SECONDS = 0.002

NOT_NOW = re.compile(
    r"(?:^|-)(ASK|BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNKILLABLE) "
)
"""Errors that a server answers with for a while; where a script met one it is told within another."""


class RedisRoom(Room, Caller, Listener):
    """A session in one room."""

    def __init__(self, owner: Owner, node: Node, prefix: bytes, sid: bytes, holder: str) -> None:
        self.prefix = prefix
        self.sid = sid
        self.channel = b"%s:in:%s" % (prefix, sid)
        self._owner = owner
        self._node = node
        self._holder = holder
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox()
        self._received: Number = (0, 0)
        self._acknowledged = 0
        self._early: dict[int, tuple[Number, Event]] = {}
        self._known_last = 0  # the highest number of an event that was ever mentioned
        self._opening = True
        self._tuned = False
        self._asked = False  # to be called
        # Calls under way: when they went out, what they acknowledge, and how many commands they carry.
        self._flights: deque[tuple[float, int, int]] = deque()
        self._refused = False  # one of them was: all that was sent goes again behind them
        self._urgent = False
        self._wanted = False  # a call is to be made even if there is nothing to say
        self._ending = ""
        self._refused_since: float | None = None
        self._next_call = self._loop.time() + owner.grace / 3
        self._timer: asyncio.TimerHandle | None = None
        self.over = False
        self.renewed_at = self._loop.time()
        """When a call went out that the server has answered."""
        node.enter(self)

    def __repr__(self) -> str:
        return f"<RedisRoom {self.prefix.decode()} first={self._outbox.first} backlog={self.backlog}>"

    # ------------------------------------------------------------------------------------------------- as a Room

    @property
    def backlog(self) -> int:
        return len(self._outbox)

    def send(self, command: Command) -> None:
        self._outbox.add(command)
        self._urgent = self._urgent or type(command) in TAKES_BACK
        self._call()

    def retire(self) -> None:
        self.end("it left")

    # ---------------------------------------------------------------------------------------------- for the link

    @property
    def is_open(self) -> bool:
        """Whether the server knows of it."""
        return not self._opening and not self.over

    @property
    def node(self) -> Node:
        """Where it is."""
        return self._node

    def end(self, reason: str) -> None:
        """End the session when all commands are applied; then `Owner.gone`."""
        if not self._ending:
            self._ending = reason
            self._call()

    async def settled(self) -> None:
        """Wait until all commands up to now are applied."""
        await self._outbox.settled()

    def move(self, node: Node) -> None:
        """Go on at another server."""
        if node is not self._node:
            self._node.leave(self)
            self._node, self._tuned, self._asked = node, False, False
            node.enter(self)
        else:
            self.call_again()

    def call_again(self) -> None:
        """Send anew what was refused."""
        self._wanted = True
        self._call()

    def give_up(self) -> None:
        """It has ended, or cannot say that it does."""
        self.drop()
        self._owner.gone(self)

    def drop(self) -> None:
        """Nothing more is sent."""
        self.over = True
        self._node.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        self._outbox.clear()

    # ---------------------------------------------------------------------------------------------------- calling

    def _call(self) -> None:
        if self._tuned and not self._asked and not self.over and self._may_call:
            self._asked = True
            self._node.call(self)

    @property
    def _may_call(self) -> bool:
        if not self._flights:
            return True
        if self._refused or self._known_last > self._received[0]:  # an event is on its way; it might come twice
            return False
        return len(self._flights) < (URGENT_FLIGHTS_MOST if self._urgent else FLIGHTS_MOST)

    def compose(self) -> tuple[list[Buffer], int] | None:
        self._asked = False
        if not self._tuned or self.over or not self._may_call:
            return None
        now = self._loop.time()
        if self._ending and not self._outbox:
            if self._flights:
                return None
            if self._acknowledged < self._received[0]:  # else the server takes back what was only just handed on
                self._wanted = True
        if self._ending and not self._outbox and not self._wanted:
            self._flights.append((now, 0, 0))
            return self._packed(b"end", [(self.sid,), (self._ending.encode(),)])
        if not self._outbox.queue and (self._flights or not (self._wanted or self._outbox.sent)):
            return None
        first, batch = self._outbox.batch(anew=not self._flights)
        self._wanted = self._refused = self._urgent = False
        self._flights.append((now, self._received[0], len(batch)))
        self._next_call = now + self._owner.grace / 3
        arguments: list[Any] = [(self.sid,), (self.header(first),)]
        for head, body, _ in batch:
            arguments += ((head,), body)
        return self._packed(b"run", arguments)

    def header(self, first: int | None = None) -> bytes:
        """What a call says before its commands, of which this is the first; None: it has none."""
        number, mark = self._received
        grace = max(int(self._owner.grace * 1000), 1)
        first = self._outbox.first if first is None else first
        return pack_head([first, number, grace, self._holder, self._opening, mark])

    def _packed(self, verb: bytes, arguments: list[Any]) -> tuple[list[Buffer], int]:
        call, name = self._owner.script().call
        return pack([(call,), (name,), (b"1",), (self.prefix,), (verb,), *arguments])

    # ---------------------------------------------------------------------------------------------------- answers

    def answered(self, reply: Any) -> None:
        # Without a flight it has moved meanwhile.
        called_at, told, carried = self._flights.popleft() if self._flights else (self._loop.time(), 0, 0)
        if self.over:
            return
        if isinstance(reply, ResponseError):
            self._note_refusal(reply, carried)
            return
        if self._refused:  # of a call behind the one that was refused: the server misses that one's commands
            if reply[0] == b"ok":  # the one that was refused had none
                self._outbox.doubt()
            if not self._flights:
                self.call_again()
            return
        self._refused_since = None
        try:
            self._take(reply)
            self.renewed_at, self._acknowledged = called_at, max(self._acknowledged, told)
        except (ValueError, TypeError, IndexError, ProtocolError) as error:
            self._owner.fail(StoreLostError(self._owner.url, f"its answer makes no sense: {error}"))

    def _take(self, reply: list[Any]) -> None:
        if reply[0] == b"lost":
            self._outbox.clear()  # the session is over, or what the server has of it is: that is told to the others
            self._owner.fail(StoreLostError(self._owner.url, _text(reply[1])))
            self._call()
            return
        if len(reply) == 1:
            self.give_up()
            return
        _, applied, last, due, *events = reply
        self._opening = False
        if self._outbox.applied(applied):
            self._owner.taken()
        self._note_due(due)
        self._known_last = max(self._known_last, last)
        for told in events:
            self._note(*as_event(told))
        self._deliver()
        self._ask_for_missing()
        if self._wanted or self._outbox.queue or self._ending or (self._outbox.sent and not self._flights):
            self._call()

    def _note_refusal(self, error: ResponseError, carried: int) -> None:
        """The server did not carry the call out, which had so many commands."""
        if self._refused:  # as the one before
            if not self._flights:
                self._loop.call_later(RETRY_SECONDS, self.call_again)
            return
        self._refused = True
        text, now = said(error), self._loop.time()
        passes = NOT_NOW.search(text)
        if is_not_loaded(error):
            self._owner.load(self)
        elif isinstance(error, MovedError):
            self._owner.moved(self, error)
        elif self._ending:  # what is left of it goes with its lease
            self.give_up()
        elif passes and passes[1] == "OOM" and self._refuse_payloads(carried):
            self.call_again()
        elif passes:
            if self._refused_since is None:
                self._refused_since = now
            if now > self._refused_since + self._owner.grace:
                self._owner.fail(StoreLostError(self._owner.url, text))
                return
            if passes[1] == "READONLY":
                self._node.renew()
            self._loop.call_later(RETRY_SECONDS, self.call_again)
        elif text.startswith("NOPERM") or "can't run this command" in text:
            self._owner.fail(AuthenticationError(self._owner.url, text))
        else:
            self._owner.fail(StoreLostError(self._owner.url, f"it could not carry out a call: {text}"))

    def _refuse_payloads(self, carried: int) -> bool:
        """The server's memory is full: what would fill it more fails, the rest may go. Whether there was any."""
        full = Failed(0, pack_error(StoreFullError("maxmemory", 0, "Redis")))
        refused = self._outbox.refuse_payloads(carried)
        for command in refused:
            self._owner.event(full._replace(call=command.call))
        return bool(refused)

    def cut(self) -> None:
        if self._flights:
            self._outbox.doubt()
        self._flights.clear()
        self._refused = False

    # ----------------------------------------------------------------------------------------------------- events

    def heard(self, message: bytes) -> None:
        try:
            told = msgpack.unpackb(message, raw=True)
            self._known_last = max(self._known_last, told[0])
            if len(told) > 1:
                self._note(*as_event(told))
                self._deliver()
        except (ValueError, TypeError, IndexError, ProtocolError) as error:
            self._owner.fail(StoreLostError(self._owner.url, f"what it publishes makes no sense: {error}"))
            return
        self._ask_for_missing()
        if self._wanted:
            self._call()

    def tuned(self) -> None:
        self._tuned = True
        self._wanted = self._wanted or not self._opening or bool(self._outbox.sent)
        self._set_timer()
        self._call()

    def detuned(self) -> None:
        self._tuned = self._asked = False

    def _note(self, number: Number, event: Event) -> None:
        if number[0] > self._received[0]:
            self._early[number[0]] = (number, event)

    def _ask_for_missing(self) -> None:
        if self._known_last > self._received[0] and not self._owner.is_over:
            self._wanted = True

    def _deliver(self) -> None:
        # Where the link is over nobody gets them, and what is not acknowledged the server takes back at the end.
        while self._early and not self._owner.is_over:
            noted = self._early.pop(self._received[0] + 1, None)
            if noted is None:
                return
            self._received, event = noted
            if (type(event) is Answer and event.receipt) or sum(map(len, event.body)) > ACKNOWLEDGE_BYTES:
                self._wanted = True
            self._owner.event(event)

    # ------------------------------------------------------------------------------------------------------- time

    def _note_due(self, milliseconds: int) -> None:
        if milliseconds >= 0:
            due = self._loop.time() + max(milliseconds / 1000, SOONEST_SECONDS)
            if due < self._next_call:
                self._next_call = due
                self._set_timer()

    def _set_timer(self) -> None:
        if self.over or (self._timer is not None and self._timer.when() <= self._next_call):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._next_call, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._loop.time() >= self._next_call:
            self._next_call = self._loop.time() + self._owner.grace / 3
            self._wanted = True
            self._call()
        self._set_timer()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "replace")
