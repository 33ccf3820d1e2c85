"""A random life of an exchange, recorded as a server records it."""

from __future__ import annotations

import random

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Body, FrameReceiver
from aiopg._core.messages import Command
from aiopg._core.records import (
    encode_away,
    encode_back,
    encode_command,
    encode_confirm,
    encode_end,
    encode_held,
    encode_open,
    encode_timer,
)
from aiopg._core.wire import decode_message, encode_message
from tests.core.commands import LIMITS, Commands

__all__ = ["ABOUT", "LIMITS", "Life"]

ABOUT = {"pid": 1}


class Life:
    """One exchange under random inputs, each of which is recorded and then given, as a server does it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.exchange = Exchange(LIMITS, ABOUT)
        self.records: list[bytes] = []
        self.now = 100.0
        self._commands = Commands(self.chance)
        self._gone = 0

    def step(self) -> None:
        """One more input."""
        chance = self.chance
        self.now += chance.choice((0.0, 0.01, 0.5))
        lines = list(self.exchange.lines.values())
        if len(lines) < 3:
            self._gone += 1
            id = bytes([self._gone]) * 16
            self._record(encode_open(id, b"s" * 32, 5.0, [4711, 1, 2, "boot"], ("*",)))
            self.exchange.open(id, b"s" * 32, 5.0, [4711, 1, 2, "boot"])
            return
        line = chance.choice(lines)
        draw = chance.random()
        if draw < 0.01:
            for other in lines:
                streams = other.streams
                streams.note_acknowledgement(chance.randrange(streams.acknowledged, streams.sent + 1))
            self._record(encode_held(self.exchange))
        elif draw < 0.02:
            self._record(encode_away(line.id))
            self.exchange.away(line)
        elif draw < 0.04:
            line.attempt += 1
            self._record(encode_back(line.id, line.attempt))
            self.exchange.back(line)
        elif draw < 0.045:
            self._record(encode_end(line.id, "its process ended"))
            self.exchange.end(line, "its process ended")
        elif draw < 0.07:
            self._record(encode_timer(self.now))
            self.exchange.handle_timer(self.now)
        elif draw < 0.12:
            if count := self.exchange.receipts_held(line):
                self._record(encode_confirm(line.id, count))
                self.exchange.confirm(line, count)
        else:
            rank = lines.index(line)
            self._command(line, self._commands.draw(line.id, rank))

    def _record(self, record: Body) -> None:
        self.records.append(b"".join(record))

    def _command(self, line: Line, command: Command) -> None:
        streams = line.streams
        ack = self.chance.randrange(streams.acknowledged, streams.sent + 1)
        frame = FrameReceiver(LIMITS).receive_data(b"".join(encode_message(1, ack, command, 4096)))[0]
        _, _, kind, fields, body = frame
        streams.receive(streams.received + 1, ack)
        self._record(encode_command(line.id, ack, kind, fields, body, self.now))
        self.exchange.command(line, decode_message(frame), self.now)
