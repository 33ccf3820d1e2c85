"""Vectors of whole conversations: what two ends say, from the first byte, with a connection that breaks.

The store's side is the one that a store has below its sockets: sessions and engine. Beside the member whose
connection is told, another one does its part, unseen.
"""

from __future__ import annotations

from aiopg._core.exchange import Exchange, Line
from aiopg._core.frames import Buffer, FrameReceiver
from aiopg._core.handshake import login_proofs, resume_proof
from aiopg._core.limits import Limits
from aiopg._core.messages import Arrive, Goodbye, Join, Message, Needs, Open, Opened, Put, Take
from aiopg._core.parts import split_parts
from aiopg._core.session import Session
from aiopg._core.wire import decode_message, encode_message

from . import Vector
from .handshakes import (
    CLIENT_NONCE,
    CLIENT_NONCE_2,
    SECRET,
    SERVER_NONCE,
    SERVER_NONCE_2,
    SESSION,
    TOKEN,
    greeting,
)

__all__ = ["about", "sections"]

LIMITS = Limits()
STORE_PID, GRACE = 4700, 5.0

about = (
    "What a member and a store say to each other on one connection after another. Each step is all that one end says "
    "before the other one answers; `lost` marks what did not arrive. All bytes are hexadecimal."
)


class Conversation:
    """Rank 0 of a group of two, and its store."""

    def __init__(self) -> None:
        self.exchange = Exchange(LIMITS, {"pid": STORE_PID})
        self.line: Line = self.exchange.open(SESSION, SECRET, GRACE, [])
        self.member = Session(LIMITS)
        self.connections: list[list[Vector]] = []
        self._said: list[bytes] = []
        self._other = self.exchange.open(b"another session.", SECRET, GRACE, [])
        self._attempt = 0

    # A carrier, see `Exchange`: what the engine says to the member.

    def write(self, buffers: tuple[Buffer, ...]) -> None:
        self._said.append(b"".join(buffers))

    def watch_receipts(self) -> None:
        pass

    def _step(self, who: str, what: str, data: bytes, lost: bool = False) -> None:
        self.connections[-1].append({"from": who, "what": what, "bytes": data.hex()} | ({"lost": True} if lost else {}))

    def connect(self, nonces: tuple[bytes, bytes]) -> None:
        """Greet, log in, and open the session or go on with it."""
        self._attempt += 1
        self.connections.append([])
        hello, welcome = greeting(*nonces, asks_token=True)
        proofs = login_proofs(TOKEN.encode(), hello, welcome, b"")
        again = self._attempt > 1
        received = self.member.received
        proof = resume_proof(SECRET, hello, welcome, SESSION, self._attempt, received) if again else b""
        open_ = Open(SESSION if again else b"", proof, self._attempt, received, GRACE, 0, 0, 0, "")
        held = self.line.streams.received
        opened = Opened(SESSION, b"" if again else SECRET, held, LIMITS.payload_bytes, STORE_PID, GRACE)
        self._step("member", "HELLO", hello)
        self._step("store", "WELCOME", welcome)
        self._step("member", "LOGIN", proofs.member)
        self._step("store", "VERDICT", proofs.store)
        self._step("member", "Open", aside(open_))
        self._step("store", "Opened", aside(opened))
        self.line.carrier = self
        for buffers in self.line.streams.resend(received):
            self._arrives(b"".join(buffers), "again: ")
        for buffers in self.member.resend(held):
            self._reaches(b"".join(buffers), "again: ")

    def say(self, message: Message, lost: bool = False) -> None:
        """The member's next command, which may get lost on its way."""
        data = b"".join(self.member.send(message))
        if lost:
            self._step("member", type(message).__name__, data, lost=True)
        else:
            self._reaches(data, "")

    def hear(self, lost: bool = False) -> None:
        """What the store has to say by now; its last words may get lost on their way."""
        said, self._said = self._said, []
        for data in said:
            self._arrives(data, "", lost)

    def other(self, *messages: Message) -> None:
        """What the other member does."""
        for message in messages:
            self.exchange.command(self._other, message, 0.0)

    def break_off(self) -> None:
        """The connection is over."""
        self.line.carrier = None

    def goodbye(self, reason: str) -> None:
        """The member ends its session."""
        self._step("member", "Goodbye", b"".join(self.member.aside(Goodbye(reason))))

    def _reaches(self, data: bytes, again: str) -> None:
        (frame,) = FrameReceiver(LIMITS).receive_data(data)
        message = decode_message(frame)
        self._step("member", again + type(message).__name__, data)
        if self.line.streams.receive(frame[0], frame[1]):
            self.exchange.command(self.line, message, 0.0)

    def _arrives(self, data: bytes, again: str, lost: bool = False) -> None:
        (frame,) = FrameReceiver(LIMITS).receive_data(data)
        self._step("store", again + type(decode_message(frame)).__name__, data, lost)
        if not lost:
            assert self.member.receive(frame[0], frame[1])
            if frame[2] == 50 and again:
                assert split_parts(frame[4], 2) == [b"\x07", b"\x08"]


def aside(message: Message) -> bytes:
    """A frame outside of the stream, before a session is attached."""
    return b"".join(encode_message(0, 0, message, LIMITS.head_bytes))


def sections() -> dict[str, list[Vector]]:
    """All of them, by section."""
    talk = Conversation()
    talk.connect((CLIENT_NONCE, SERVER_NONCE))
    talk.other(Join(1, 1, "default", 1, 2, 3600.0, "pid 4712 on host-b"))
    talk.say(Join(1, 1, "default", 0, 2, 3600.0, "pid 4711 on host-a"))
    talk.hear()
    talk.say(Put(2, 1, 1, 0, (b"\xa2hi",)))
    talk.hear()
    talk.other(Take(2, 1, 0, 0), Arrive(3, 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, (b"\x08",)))
    talk.say(Arrive(3, 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, (b"\x07",)))
    talk.hear(lost=True)
    talk.say(Arrive(4, 1, 0, 2, "barrier", -1, "", Needs.ALL, 0), lost=True)
    talk.break_off()
    talk.connect((CLIENT_NONCE_2, SERVER_NONCE_2))
    talk.other(Arrive(4, 1, 0, 2, "barrier", -1, "", Needs.ALL, 0))
    talk.hear()
    talk.goodbye("the member closed its link")
    told = [{"name": f"connection {number}", "steps": steps} for number, steps in enumerate(talk.connections, 1)]
    return {"resumed": told, "malformed": _malformed()}


def _malformed() -> list[Vector]:
    """Frames that a store hears one after another, from the first number on."""
    put, acknowledged = Put(2, 1, 1, 0), Put(3, 1, 1, 0)
    first = b"".join(encode_message(1, 0, Join(1, 1, "default", 0, 2, 1.0, ""), LIMITS.head_bytes))
    cases = {
        "a number is left out": ([first, _frame(3, 0, put)], "message 3 came after 1"),
        "more is acknowledged than was sent": ([first, _frame(2, 9, acknowledged)], "message 9 acknowledged, and only"),
        "a command outside of the stream": ([_frame(0, 0, put)], "a Put with sequence number 0"),
        "a goodbye inside of the stream": ([_frame(1, 0, Goodbye("done"))], "a Goodbye with sequence number 1"),
        "an event, said to a store": ([_frame(1, 0, Opened(b"", b"", 0, 1, 1, 1.0))], "a store takes no Opened"),
    }
    return [
        {"name": name, "frames": [data.hex() for data in frames], "error": "ProtocolError", "says": says}
        for name, (frames, says) in cases.items()
    ]


def _frame(seq: int, ack: int, message: Message) -> bytes:
    return b"".join(encode_message(seq, ack, message, LIMITS.head_bytes))
