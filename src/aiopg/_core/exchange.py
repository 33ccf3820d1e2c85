"""The exchange: the engine, and the sessions through which members talk to it. It is what a journal replays.

Everything that happens to a store is an input of the exchange, and the exchange depends on nothing else: it numbers and
keeps what the engine has to say to each session, and hands it to whatever carries that session now. So a store that is
given the same inputs again has the same state again, down to the last message that a member has not acknowledged, and
its sessions go on as if nothing had been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

from aiopg._core.engine import Engine, Events
from aiopg._core.frames import Buffer
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Message
from aiopg._core.scopes import ANY_GROUP, Scope
from aiopg._core.session import Session
from aiopg.errors import StoreFullError

__all__ = ["OVERFULL", "Carrier", "Exchange", "Line"]

OVERFULL = 4
"""A member acknowledges every 64th message; one that let so many times `outbox_frames` pass is not a member of ours."""


class Carrier(Protocol):
    """What takes the bytes of a session to its member: a connection."""

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        """Send these, in order, or drop them if there is no way: the session keeps them."""

    def watch_receipts(self) -> None:
        """An answer was sent that asks for a receipt: see `Exchange.confirm`."""


class Line:
    """One session, as a store keeps it."""

    __slots__ = ("attempt", "carrier", "grace", "id", "process", "receipts", "scope", "secret", "streams")

    def __init__(self, id: bytes, secret: bytes, grace: float, streams: Session) -> None:
        self.id = id
        self.secret = secret
        self.grace = grace
        """Seconds for which it is kept while nothing carries it."""
        self.process: list[Any] = []
        """Its process, where that is on the store's host (`processes.ProcessIdentity`); empty where it is not."""
        self.scope: Scope = ANY_GROUP
        """The groups that it may join and see."""
        self.streams = streams
        self.attempt = 1
        """Number of the latest of its connections."""
        self.carrier: Carrier | None = None
        self.receipts: deque[tuple[int, int]] = deque()  # (sequence number, call) of answers to be confirmed


class Exchange:
    """The state of one store."""

    def __init__(self, limits: Limits, about: Mapping[str, object]) -> None:
        """`about`: see `Engine`."""
        self._limits = limits
        self.engine = Engine(limits, about)
        self.lines: dict[bytes, Line] = {}
        self.overfull: list[Line] = []

    # ------------------------------------------------------------------------------------------------- inputs

    def open(self, id: bytes, secret: bytes, grace: float, process: list[Any], scope: Scope = ANY_GROUP) -> Line:
        """A new session; `process`, `scope`: see `Line`. Raises `StoreFullError` if there are too many."""
        if len(self.lines) >= self._limits.sessions:
            raise StoreFullError("sessions", self._limits.sessions)
        line = self.lines[id] = Line(id, secret, min(grace, self._limits.grace_seconds), Session(self._limits))
        line.process, line.scope = process, scope
        self.engine.restrict(id, scope)
        return line

    def command(self, line: Line, message: Message, now: float) -> None:
        """A member said something. Raises `ProtocolError` if it is not for a store to hear."""
        events = self.engine.apply(line.id, message, now)
        if events:
            self._deliver(events)

    def confirm(self, line: Line, count: int) -> None:
        """A member holds `count` more of the answers that asked for a receipt (see `receipts_held`)."""
        for _ in range(count):
            self._deliver(self.engine.confirm(line.id, line.receipts.popleft()[1]))

    def away(self, line: Line, now: float | None = None) -> None:
        """Nothing carries the session any more; it may come back. `now`: see `Engine.away`."""
        self.engine.away(line.id, now)

    def back(self, line: Line, now: float | None = None) -> None:
        """Something carries it again."""
        self._deliver(self.engine.back(line.id, now))

    def end(self, line: Line, reason: str, now: float | None = None) -> None:
        """A session is over, for the `reason` given."""
        if self.lines.pop(line.id, None) is not None:
            self._deliver(self.engine.end_session(line.id, reason, now))

    def handle_timer(self, now: float) -> None:
        """Let what is past its time expire (see `Engine.next_deadline`)."""
        self._deliver(self.engine.handle_timer(now))

    # ------------------------------------------------------------------------------- for whoever gives the inputs

    def receipts_held(self, line: Line) -> int:
        """How many answers that asked for a receipt the member has acknowledged, and `confirm` was not told of."""
        held = line.streams.acknowledged
        return sum(seq <= held for seq, _ in line.receipts)

    def take_overfull(self) -> list[Line]:
        """The sessions that took too little of what was sent to them: they are to be ended.

        No input by itself, as it depends on when acknowledgements come: whoever gives the inputs ends them.
        """
        overfull, self.overfull = self.overfull, []
        return [line for line in overfull if line.id in self.lines]

    # ------------------------------------------------------------------------------------------------- inside

    def _deliver(self, events: Events) -> None:
        lines = self.lines
        for target, event in events:
            line = lines.get(target)  # type: ignore[call-overload]
            if line is None:
                continue
            streams = line.streams
            buffers = streams.send(event)
            carrier = line.carrier
            if carrier is not None:
                carrier.write(buffers)
            if type(event) is Answer and event.receipt:
                line.receipts.append((streams.sent, event.call))
                if carrier is not None:
                    carrier.watch_receipts()
            if streams.full and self._is_overfull(streams):
                self.overfull.append(line)

    def _is_overfull(self, streams: Session) -> bool:
        frames = streams.sent - streams.acknowledged
        return frames > OVERFULL * self._limits.outbox_frames or streams.retained > self._limits.output_bytes
