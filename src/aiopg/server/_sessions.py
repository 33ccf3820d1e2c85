"""The sessions of a server: opened, resumed, watched, ended. The shell round the exchange.

How a member's end is noticed, strongest evidence first:

- it says goodbye, or breaks the protocol: its session is over at once;
- its process ends, on this host: told by its pidfd. What it had sent is read first, then the session is over;
- its connection ends: the session is kept for its grace, and a new connection may go on with it;
- its kernel answers nothing (`liveness`): the connection is cut, and then as above.

That a member is silent, or does not read, is no evidence: it may be busy for minutes, and lives.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from aiopg._core.exchange import Exchange, Line
from aiopg._core.handshake import resume_proof
from aiopg._core.limits import Limits
from aiopg._core.messages import COMMANDS, Cancel, Enlist, Join, Leave, Message, Open, Opened, Vacate
from aiopg._core.recorder import HAPPENINGS_KEPT, Recorder
from aiopg.commons import Commons
from aiopg.errors import ProtocolError
from aiopg.liveness import SWEEP_SECONDS, LateSweep
from aiopg.loops import clock_of
from aiopg.processes import ProcessIdentity, ProcessWatch
from aiopg.server._connection import RecordedConnection, ServerConnection
from aiopg.server._doorkeeper import Doorkeeper
from aiopg.server._member import ServerSession
from aiopg.tokens import Token

if TYPE_CHECKING:
    from aiopg.server._scribe import Scribe

__all__ = ["Sessions"]

logger = logging.getLogger("aiopg.server")

RESTART_GRACE_SECONDS = 60.0
"""How long members may take to come again when a store with a journal was started again, at least: starting takes its
time (ZooKeeper's sessions and Kafka's producers are given as much)."""

TICK_SECONDS = 1.0
"""How often the engine is asked whether something has expired."""

LEAST_TICK_SECONDS = 0.001
"""Timers of uvloop ring up to a millisecond early."""

HOW_SECONDS = 0.05
"""When a process has ended, its launcher may say how within this time (`StoreServer.process_ended`)."""

LAST_WORDS_SECONDS = 0.2
"""A process that ended has sent nothing since; what it sent before is read by then."""

LOOKED_AT = 100
LOOK_SECONDS = 0.01
"""A sweep asks the kernel about so many connections at once, which takes it less than a millisecond, and then pauses:
16,384 of them are done in 2 s."""

LATE_SECONDS = 1.0
"""A timer that rings so late says that this process did not run: a member may have come again and not be heard yet."""


class Sessions:
    """All sessions of one server, on its event loop."""

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        epoch: bytes,
        scribe: Scribe | None = None,
        tokens: tuple[Token, ...] = (),
    ) -> None:
        """`scribe`: writes a journal; the sessions that `exchange` has already are those of a store that crashed.
        `tokens`: what members must know one of; none: everybody is a member.
        """
        self.limits = limits
        self.epoch = epoch
        self.exchange = exchange
        self._scribe = scribe
        self.joined = asyncio.Event()
        """Some member has joined, ever."""
        self.vacated = asyncio.Event()
        """There may be no member now."""
        self._loop = asyncio.get_running_loop()
        self.commons = Commons()
        self._afterwards: dict[type[Message], Callable[[], None]] = {
            Join: self.joined.set,
            Enlist: self._tick_in_time,
            **dict.fromkeys((Leave, Vacate, Cancel), self._note_vacancy),
        }
        self.doorkeeper = Doorkeeper(limits, tokens, self._loop.time)
        self.now: Callable[[], float] = scribe.now if scribe is not None else clock_of(self._loop)
        """The engine's time."""
        recorder = Recorder(HAPPENINGS_KEPT, self.now(), time.time)
        exchange.engine.observe(recorder, lambda: len(self._members))
        self._members: dict[bytes, ServerSession] = {}
        self._connections: dict[ServerConnection, None] = {}
        self._closed = False
        self._last: list[ServerConnection] = []  # those that `close` ended
        self._processes = ProcessWatch()
        self._late = LateSweep(self._loop.time(), SWEEP_SECONDS, SWEEP_SECONDS)
        self._tick_timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._look_timer: asyncio.TimerHandle | None = None
        for line in exchange.lines.values():
            self._expect(line)

    def __len__(self) -> int:
        return len(self._members)

    def accept(self) -> ServerConnection:
        """A connection was made; the protocol for it."""
        connection = ServerConnection(self) if self._scribe is None else RecordedConnection(self, self._scribe)
        if self._closed:
            connection.cut("the store was closed")  # the loop had it in hand when the listener was closed
        return connection

    def prepare_close(self) -> None:
        """`close` follows in a moment: nothing long is begun any more."""
        if self._scribe is not None:
            self._scribe.stop()

    def close(self, reason: str) -> None:
        """End every connection, and every session: but those that are in a journal may go on at the next start."""
        self._tick_timer.cancel()
        self._sweep_timer.cancel()
        if self._look_timer is not None:
            self._look_timer.cancel()
        self._processes.close()
        self.prepare_close()
        for session in self._members.values():
            session.stop_timers()
        self._closed = True
        self._last = list(self._connections)
        for connection in self._last:
            if self._scribe is None:
                connection.close(reason)
            else:
                connection.member = None
                connection.finish(reason)
        self.exchange.engine.observe(Recorder())  # what is recorded is not kept for a store that nobody asks any more
        self.commons.forgive()

    def give_up(self, reason: str) -> None:
        """The journal cannot be written any more: the same, and nothing that waits for it ever leaves."""
        assert self._scribe is not None
        self._scribe.give_up()
        self.close(reason)

    async def wait_closed(self) -> None:
        """After `close`: wait until no connection is open any more."""
        for connection in self._last:
            await connection.wait_gone()

    def process_ended(self, pid: int, how: str) -> None:
        """A process of this host ended, says somebody who knows, and how: "was killed by SIGKILL"."""
        for session in list(self._members.values()):
            if session.identity is not None and session.identity.pid == pid:
                self._process_ended(session, f"its process {pid} {how}")

    # ------------------------------------------------------------------------------------- for connections

    def nonce(self) -> bytes:
        """Fresh bytes for one handshake."""
        return secrets.token_bytes(32)

    def connection_opened(self, connection: ServerConnection) -> None:
        """A connection was accepted."""
        self._connections[connection] = None

    def open(self, connection: ServerConnection, open: Open) -> None:
        """A new session on this connection. Raises `StoreFullError` or `ProtocolError`."""
        if not open.grace > 0:
            raise ProtocolError(f"a session cannot be kept for {open.grace} s")
        identity = ProcessIdentity(open.pid, open.start_time, open.pid_namespace, open.boot_id)
        process = list(identity) if connection.is_from_this_host else []
        secret = secrets.token_bytes(32)
        line = self.exchange.open(secrets.token_bytes(16), secret, open.grace, process, connection.groups)
        if self._scribe is not None:
            self._scribe.opened(line)
        session = self._members[line.id] = ServerSession(line)
        self._watch_process(session)
        self._carry(session, connection, secret)

    def resume(self, connection: ServerConnection, open: Open, hello: bytes, welcome: bytes) -> None:
        """Go on with a session over this connection. Raises `ProtocolError`."""
        session = self._members.get(open.session)
        if session is None:
            raise ProtocolError("this store does not have that session any more")
        line = session.line
        proof = resume_proof(line.secret, hello, welcome, open.session, open.attempt, open.received)
        is_proven = hmac.compare_digest(proof, open.proof) and connection.groups == line.scope
        if not is_proven or open.attempt <= line.attempt:
            raise ProtocolError("that is no proof of that session")
        lacking = line.streams.resend(open.received)
        line.attempt = open.attempt
        if self._scribe is not None:
            self._scribe.back(line)
        old, session.connection = session.connection, None
        if old is not None:
            # The member knows better than we that it is dead. Nothing that may still come on it is heard.
            old.member = None
            old.cut("its session goes on over another connection")
        else:
            self.exchange.back(line, self.now())
        session.stop_timers()
        self._carry(session, connection, b"")
        for buffers in lacking:
            connection.write(buffers)
        self._end_overfull()

    def message_received(self, session: ServerSession, message: Message) -> None:
        """A member said something. Raises `ProtocolError` if it is not for a server to hear."""
        line, now = session.line, self.now()
        if self._scribe is not None:
            self._record_command(line, message, now)
        self.exchange.command(line, message, now)
        if line.streams.full and session.connection is not None:
            session.connection.hold()
        if self.exchange.overfull:
            self._end_overfull()
        if (then := self._afterwards.get(type(message))) is not None:
            then()

    def confirm(self, session: ServerSession) -> bool:
        """A member may have acknowledged answers that asked for it; whether it still owes some."""
        held = self.exchange.receipts_held(session.line)
        if held:
            if self._scribe is not None:
                self._scribe.confirmed(session.line, held)
            self.exchange.confirm(session.line, held)
        return bool(session.line.receipts)

    def connection_closed(self, connection: ServerConnection, reason: str, final: bool) -> None:
        """A connection is over; `final`: and so is its session."""
        self._connections.pop(connection, None)
        session, connection.member = connection.member, None
        if session is None:
            logger.info("a connection that carried no session ended: %s", reason, extra={"reason": reason})
            return
        session.connection = session.line.carrier = None
        if final or session.ended_how:
            self._end(session, session.ended_how or reason)
            return
        if self._scribe is not None:
            self._scribe.away(session.line)
        self.exchange.away(session.line, self.now())
        logger.info(
            "a member's connection ended, its session is kept for %g s: %s",
            session.line.grace,
            reason,
            extra={"grace": session.line.grace, "reason": reason},
        )
        self._wait_for_return(session, reason, session.line.grace)

    # ------------------------------------------------------------------------------------------------ inside

    def _carry(self, session: ServerSession, connection: ServerConnection, secret: bytes) -> None:
        line = session.line
        session.connection, connection.member = connection, session
        line.carrier = connection
        opened = Opened(
            line.id, secret, line.streams.received, self.limits.payload_bytes, os.getpid(), self._patience(line)
        )
        connection.send_aside(opened)
        connection.attach(line.streams)
        if line.receipts:
            connection.watch_receipts()

    def _watch_process(self, session: ServerSession) -> None:
        if session.line.process:
            session.identity = ProcessIdentity(*session.line.process)
            # A launcher hears of it in the same moment, and knows how: let it speak first.
            ended = partial(self._process_ended, session, f"its process {session.identity.pid} ended")
            session.watch = self._processes.watch(session.identity, lambda: self._loop.call_later(HOW_SECONDS, ended))

    def _process_ended(self, session: ServerSession, how: str) -> None:
        if session.line.id not in self._members:
            return
        session.ended_how = session.ended_how or how
        if session.connection is None:
            self._end(session, session.ended_how)
        else:
            # What it sent is still to be read. Its end of the connection was closed with it, unless a child has it too.
            self._loop.call_later(LAST_WORDS_SECONDS, self._end, session, session.ended_how)

    def _expect(self, line: Line) -> None:
        """A session of a store that crashed: its member is given time to come again."""
        assert self._scribe is not None
        session = self._members[line.id] = ServerSession(line)
        self._scribe.away(line)
        self.exchange.away(line, self.now())
        self._watch_process(session)
        self._wait_for_return(session, "the store was started again", self._patience(line))

    def _patience(self, line: Line) -> float:
        """For how long it is worth trying to come again, seen from the member."""
        return line.grace if self._scribe is None else max(line.grace, RESTART_GRACE_SECONDS)

    def _record_command(self, line: Line, message: Message, now: float) -> None:
        assert self._scribe is not None
        if type(message) not in COMMANDS:
            raise ProtocolError(f"a store takes no {type(message).__name__}")
        self._scribe.command(line, now)
        self._scribe.slow_down(cast("dict[RecordedConnection, None]", self._connections))

    def _wait_for_return(self, session: ServerSession, reason: str, grace: float) -> None:
        due = self._loop.time() + grace

        def over() -> None:
            if self._loop.time() > due + LATE_SECONDS:
                self._wait_for_return(session, reason, grace)
            else:
                self._end(session, f"its connection ended and did not come back within {grace:g} s: {reason}")

        session.grace_timer = self._loop.call_later(grace, over)

    def _end(self, session: ServerSession, reason: str) -> None:
        if self._members.pop(session.line.id, None) is None:
            return
        session.stop_timers()
        if session.watch is not None:
            session.watch.cancel()
        connection, session.connection, session.line.carrier = session.connection, None, None
        if connection is not None:
            connection.member = None
            connection.close(reason)
        logger.info("a session is over: %s", reason, extra={"reason": reason})
        self.confirm(session)  # what it acknowledged with its last words, it has
        if self._scribe is not None:
            self._scribe.ended(session.line, reason)
        self.exchange.end(session.line, reason, self.now())
        self._end_overfull()
        self._note_vacancy()

    def _end_overfull(self) -> None:
        for line in self.exchange.take_overfull():
            # One may be there twice. And the end of one is told to the others, which may be too much for them as well.
            session = self._members.get(line.id)
            if session is not None:
                self._end(session, "it does not take what is sent to it (outbox_frames, output_bytes)")

    def _note_vacancy(self) -> None:
        if self.exchange.engine.is_vacant:
            self.vacated.set()

    def _tick(self) -> None:
        now, deadline = self.now(), self.exchange.engine.next_deadline()
        if deadline is not None and deadline <= now:
            if self._scribe is not None:
                self._scribe.ticked(now)
            self.exchange.handle_timer(now)
            self._end_overfull()
        self._tick_timer = self._loop.call_later(TICK_SECONDS, self._tick)
        self._tick_in_time()

    def _tick_in_time(self) -> None:
        """A group is to form in a moment that was promised to those who wait, and not up to a tick later."""
        soon = self.exchange.engine.next_opening() - self.now()
        if soon < TICK_SECONDS:
            self._tick_timer.cancel()
            self._tick_timer = self._loop.call_later(max(soon, LEAST_TICK_SECONDS), self._tick)

    def _sweep(self) -> None:
        """Cut the connections at whose other end nobody is, says the kernel."""
        if self._late.may_judge(self._loop.time()):
            self._look_at(deque(self._connections))
        self._sweep_timer = self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def _look_at(self, connections: deque[ServerConnection]) -> None:
        """A few at a time: to ask for ten thousand takes longer than any call of a member may be held up."""
        for _ in range(min(LOOKED_AT, len(connections))):
            connection = connections.popleft()
            if connection.is_vanished:
                connection.cut("its host does not answer")
        if connections:
            self._look_timer = self._loop.call_later(LOOK_SECONDS, self._look_at, connections)
