"""A room's log in memory, and sessions that write to it, as `stores.etcd` has them in etcd."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from aiopg._core.blobs import Blob, outsource
from aiopg._core.engine import Events
from aiopg._core.entries import Gone, Got, Here, Input, Said, decode_entry, encode_entry, pack_input
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Command, Event
from aiopg._core.replica import Replica
from aiopg._core.stategraph import dump, load_replica
from tests.core.commands import LIMITS, Commands

__all__ = ["LIMITS", "Log", "Writer", "random_life", "state_of"]


def state_of(replica: Replica) -> bytes:
    """All that it is, in one piece."""
    return b"".join(dump(replica, replica.now))


class Log:
    """Entries in the order of their revisions, and replicas that have applied some of them."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.entries: list[tuple[bytes, int, bytes]] = []
        self.copy = self.replica()
        """One that has applied them all."""
        self.events: list[tuple[bytes, Event]] = []

    def replica(self, snapshot: bytes | None = None) -> Replica:
        """A new one: of the room's beginning, or of a snapshot."""
        return Replica(self.limits, {}) if snapshot is None else load_replica(snapshot, self.limits, {})

    def write(self, sid: bytes, number: int, data: bytes) -> Events:
        """The next entry; what came of it."""
        self.entries.append((sid, number, data))
        events = self.apply(self.copy, len(self.entries) - 1)
        self.events += events  # type: ignore[arg-type]
        return events

    def apply(self, replica: Replica, place: int) -> Events:
        """Have a replica apply the entry at this place."""
        sid, number, data = self.entries[place]
        return replica.apply(sid, number, decode_entry(data, sid))


class Writer:
    """A session of a log."""

    _calls = itertools.count(1)

    def __init__(self, log: Log, sid: bytes) -> None:
        self.log = log
        self.sid = sid
        self.entries = 0
        self.blobs = 0
        self.written: dict[int, bytes] = {}
        """What lies elsewhere, by number."""

    def write(self, inputs: Sequence[Input], now: float | None = None) -> Events:
        """An entry of these."""
        self.entries += 1
        packed = [pack_input(self._outsourced(one), 4096) for one in inputs]
        return self.log.write(
            self.sid, self.entries, encode_entry(self.log.copy.now if now is None else now, 0.0, packed)
        )

    def _outsourced(self, one: Input) -> Input:
        if not isinstance(one, Said):
            return one
        command, body = outsource(one.command, self.sid, self.blobs + 1)
        if body:
            self.blobs += 1
            self.written[self.blobs] = b"".join(body)
        return Said(command)

    def say(self, kind: type[Any], *fields: Any, body: tuple[bytes, ...] = (), now: float | None = None) -> int:
        """An entry of one command; the number of the call."""
        call = next(self._calls)
        command: Command = kind(call, *fields, body)
        self.write([Said(command)], now)
        return call

    def heard(self, call: int) -> Event | None:
        """The event of a call, if it had it."""
        events = [event for sid, event in self.log.events if sid == self.sid and event.call == call]
        assert len(events) <= 1
        return events[0] if events else None

    def answer(self, call: int) -> Answer:
        """The same where it must be an answer."""
        event = self.heard(call)
        assert isinstance(event, Answer), event
        return event

    def read(self, blob: Blob, writers: Sequence[Writer]) -> bytes:
        """What lies elsewhere."""
        (writer,) = [writer for writer in writers if writer.sid == blob.sid]
        return writer.written[blob.number][blob.offset : blob.offset + blob.length]


def random_life(seed: int, entries: int) -> Log:
    """A log of a few sessions that say whatever comes to their minds, end and are replaced by others."""
    chance = random.Random(seed)
    log = Log()
    commands = Commands(chance, (0, 3, 40_000, 70_000))
    writers: list[Writer] = []
    sids = itertools.count(1)
    answered: list[tuple[bytes, int]] = []
    now = 0.0
    for _ in range(entries):
        now += chance.choice((0.0, 0.01, 0.5))
        if len(writers) < 3:
            writers.append(Writer(log, next(sids).to_bytes(8, "big")))
        writer = chance.choice(writers)
        inputs: list[Input] = [
            Said(commands.draw(writer.sid, writers.index(writer))) for _ in range(chance.randrange(4))
        ]
        if chance.random() < 0.2:
            inputs += [Got(call) for sid, call in answered if sid == writer.sid]
            answered = [(sid, call) for sid, call in answered if sid != writer.sid]
        if log.copy.is_suspect(writer.sid) and chance.random() < 0.3:
            inputs.append(Here())
        if chance.random() < 0.02:
            gone = chance.choice(writers)
            inputs.append(Gone(gone.sid, "its lease ended"))
            writers.remove(gone)
        for sid, event in writer.write(inputs, now - chance.choice((0.0, 0.0, 0.3))):
            if isinstance(event, Answer):
                answered.append((sid, event.call))  # type: ignore[arg-type]
    return log
