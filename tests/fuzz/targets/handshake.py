"""The handshake at both ends: the first bytes, the login, and the frame that opens or resumes a session.

The first byte of an input says which end reads the rest, whether a token is asked for, whether a member gets round to
asking for its session, and in what pieces it comes. All that is random in a handshake is fixed here, so that a proof in
an input can be right; so what is admitted can be told by a second opinion that shares no code with the product
(`_may_come_in`).
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Hashable, Iterable
from typing import Any

from aiopg._core.exchange import Exchange
from aiopg._core.frames import RECEIVE_BUFFER
from aiopg._core.handshake import (
    HANDSHAKE_BYTES,
    LOGIN_BYTES,
    REFUSED_LOGIN,
    check_magic,
    login_proofs,
    pack_hello,
    pack_welcome,
    parse_hello,
    parse_welcome,
    resume_proof,
)
from aiopg._core.limits import Limits
from aiopg._core.messages import Answer, Arrive, Event, Failed, Goodbye, Join, Message, Open, Opened, Put, pack_value
from aiopg._core.session import Session
from aiopg._core.wire import encode_message
from aiopg.address import Address
from aiopg.client._connection import ClientConnection
from aiopg.commons import Commons
from aiopg.errors import ProtocolError
from aiopg.server._connection import ServerConnection
from aiopg.server._member import ServerSession
from aiopg.server._sessions import Sessions
from aiopg.tokens import Token
from tests.fuzz.target import PACKER, Target
from tests.fuzz.targets.shell import DeadTransport, dead_loop, feed

__all__ = ["HandshakeTarget"]

LIMITS = Limits(payload_bytes=4096, outbox_frames=64)
TOKEN = Token("a token of more than 16 bytes")
EPOCH, STORE_NONCE, MEMBER_NONCE = b"e" * 16, bytes(range(32)), bytes(range(32, 64))
ID, SECRET = b"i" * 16, b"s" * 32
HELLO = pack_hello(MEMBER_NONCE)

ASKS_TOKEN, MEMBER_END, HAS_TOKEN = 1, 2, 4
HESITATES = 64
SIZES = (100_000, 65, 64, 96, 32, 1000, 7, 1)

STRANGERS_HEAR = 512
"""As many bytes at most are said to who is not a member."""


def _welcome(asks_token: bool) -> bytes:
    return pack_welcome(parse_hello(HELLO), EPOCH, STORE_NONCE, asks_token)[0]


class HandshakeTarget(Target):
    """Nobody comes in without the proof, whatever he says; and whatever he says is answered shortly, or not at all."""

    name = "handshake"
    tokens = (
        *(HELLO, HELLO[:8], _welcome(True), _welcome(False), _welcome(True)[:16], REFUSED_LOGIN, b"GET / HTTP/1.1\r\n"),
        *(struct.pack(">HH", lowest, highest) for lowest in (0, 1, 2) for highest in (0, 1, 9)),
        *login_proofs(TOKEN.key, HELLO, _welcome(True), b""),
    )

    def seeds(self) -> list[bytes]:
        """Who comes in, newly and again, with a token and without; other protocols; what a store says."""
        new = [_frame(0, Open(b"", b"", 1, 0, grace, 4711, 99, 1, "boot")) for grace in (5.0, 0.0)]
        says = [
            _frame(1, Join(1, 1, "g", 0, 1, 9.0, "me")) + _frame(2, Put(2, 1, 0, 0, (b"b",))),
            _frame(0, Goodbye("")),
        ]
        inputs = [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(60),
            HELLO,
        ]
        told = []
        for asks in (False, True):
            welcome = _welcome(asks)
            proofs = login_proofs(TOKEN.key, HELLO, welcome, b"")
            before = HELLO + (proofs.member if asks else b"")
            again = [_resume(welcome, attempt, received) for attempt in (1, 2) for received in (0, 1)]
            inputs += [before + open + more for open in new + again for more in says]
            opened = [_frame(0, Opened(ID, SECRET, received, 4096, 1, 60.0)) for received in (0, 1)] + says[1:]
            events = [_frame(1, Answer(1, True, (b"a",))), _frame(1, Failed(1, pack_value("no")))]
            verdict = proofs.store if asks else b""
            told += [welcome + verdict + first + more for first in opened for more in events] + [
                welcome + REFUSED_LOGIN
            ]
        alone = [bytes((way,)) + data for data in inputs for way in (0, 1, 48, 57)]
        return alone + [bytes((way,)) + data for data in told for way in (2, 3, 6, 7, 62, 63, 66, 70)]

    def run(self, data: bytes) -> Iterable[Hashable]:
        """See the class."""
        if not data:
            return ()
        way, said = data[0], data[1:]
        _check_pieces(said)
        with dead_loop():
            size = SIZES[way >> 3 & 7]
            return _member_hears(way, said, size) if way & MEMBER_END else _store_hears(way, said, size)

    def memory(self, size: int) -> int:
        """A receiver, its own memory in the middle of a frame, and what is said and answered."""
        return 2 * RECEIVE_BUFFER + LIMITS.body_bytes + 32 * size + PACKER + 64 * 1024


def _frame(seq: int, message: Message) -> bytes:
    return b"".join(encode_message(seq, 0, message, LIMITS.head_bytes))


def _resume(welcome: bytes, attempt: int, received: int) -> bytes:
    proof = resume_proof(SECRET, HELLO, welcome, ID, attempt, received)
    return _frame(0, Open(ID, proof, attempt, received, 5.0, 4711, 99, 1, "boot"))


def _check_pieces(said: bytes) -> None:
    """The functions of `handshake` alone."""
    for count in {0, 1, 4, 7, 8, len(said)}:
        try:
            check_magic(said[:count])
        except ProtocolError:
            assert not HELLO.startswith(said[:count][:8])
        else:
            assert HELLO.startswith(said[:count][:8])
    if len(said) >= HANDSHAKE_BYTES:
        hello = parse_hello(said[:HANDSHAKE_BYTES])
        answer, refusal = pack_welcome(hello, EPOCH, STORE_NONCE)
        assert bool(refusal) is not (hello.lowest <= 1 <= hello.highest)
        assert parse_welcome(answer).refusal == refusal
        welcome = parse_welcome(said[:HANDSHAKE_BYTES])
        assert bool(welcome.refusal) is (said[10:12] != b"\0\0")


# ---------------------------------------------------------------------------------------------- the store's end


class _FixedSessions(Sessions):
    def nonce(self) -> bytes:
        return STORE_NONCE


def _store_hears(way: int, said: bytes, size: int) -> Iterable[Hashable]:
    asks = bool(way & ASKS_TOKEN)
    exchange = Exchange(LIMITS, {})
    sessions = _FixedSessions(exchange, LIMITS, EPOCH, None, (TOKEN,) if asks else ())
    kept = sessions._members[ID] = ServerSession(exchange.open(ID, SECRET, 5.0, []))
    kept.line.streams.send(Answer(1, False))
    connection, transport = sessions.accept(), DeadTransport()
    admitted: list[int] = []
    _note_admission(connection, transport, admitted)
    feed(connection, transport, said, size)
    came_in = bool(admitted)
    may_open, may_resume, why = _may_come_in(said, asks)
    assert came_in <= may_open, "a stranger was let in"
    assert (kept.line.attempt > 1) <= may_resume, "a session went on without its proof"
    if (
        len(said) >= HANDSHAKE_BYTES + LOGIN_BYTES
        and asks
        and why == "login"
        and transport.written[12:16] == b"\0\0\0\1"
    ):
        assert transport.written[HANDSHAKE_BYTES:] == REFUSED_LOGIN
    assert (admitted[0] if came_in else len(transport.written)) <= STRANGERS_HEAR
    assert not sessions._connections
    assert not sessions.doorkeeper._strangers
    assert len(sessions) == len(exchange.lines) <= 2
    sessions.close("over")
    return why, came_in, len(exchange.lines), exchange.engine.members, min(len(transport.written), 200)


def _note_admission(connection: ServerConnection, transport: DeadTransport, admitted: list[int]) -> None:
    """Have it say how much had been written when it got a session."""
    shell: Any = connection
    attach = connection.attach

    def attached(session: Session) -> None:
        admitted.append(len(transport.written))
        attach(session)

    shell.attach = attached


def _may_come_in(said: bytes, asks: bool) -> tuple[bool, bool, str]:
    """A second opinion: whether he may have a session, and that of before; at what he fails."""
    hello, rest = said[:64], said[64:]
    if len(hello) < 64 or hello[:8] != b"aipg\r\n\x1a\x00":
        return False, False, "magic"
    if not struct.unpack(">H", hello[8:10]) <= (1,) <= struct.unpack(">H", hello[10:12]):
        return False, False, "version"
    welcome = b"aipg\r\n\x1a\x00" + struct.pack(">HHI", 1, 0, asks) + EPOCH + STORE_NONCE
    if asks:
        key = hmac.new(hello[16:48] + STORE_NONCE, TOKEN.secret.encode(), hashlib.sha256).digest()
        key = hmac.new(key, b"aiopg login member\1", hashlib.sha256).digest()
        if rest[:32] != hmac.new(key, hello + welcome, hashlib.sha256).digest():
            return False, False, "login"
        rest = rest[32:]
    if len(rest) < 25 or rest[24] != 1:
        return False, False, "no Open"
    claimed = b"aiopg resume" + hello + welcome + ID + rest[25:41]
    return True, hmac.new(SECRET, claimed, hashlib.sha256).digest() in rest, "open"


# --------------------------------------------------------------------------------------------- the member's end


class _Client:
    """As much of a client as its connection asks for."""

    address = Address.parse("aiopg://127.0.0.1:1")

    def __init__(self, token: bytes) -> None:
        self.commons = Commons()
        self.token = token
        self.streams = Session(LIMITS)
        self.streams.send(Arrive(1, 1, 0, 1, "barrier", -1, "", 2, 0))
        self.commons = Commons()
        self.asked = self.opened_by_store = self.events = 0

    def note_room(self) -> None:
        """See `Client`: nobody waits for room."""

    def opening(self, hello: bytes, welcome: bytes) -> Open:
        """See `Client`."""
        self.asked += 1
        return Open(b"", b"", 1, 0, 5.0, 4711, 99, 1, "boot")

    def opened(self, connection: ClientConnection, opened: Opened) -> None:
        """See `Client`."""
        lacking = self.streams.resend(opened.received)
        self.opened_by_store += 1
        connection.attach(self.streams)
        for buffers in lacking:
            connection.write(buffers)

    def on_event(self, event: Event) -> None:
        """See `Client`."""
        self.events += 1

    def connection_closed(self, connection: ClientConnection, reason: str, final: bool) -> None:
        """See `Client`."""


class _Connection(ClientConnection):
    """It asks for a session as soon as it may. Its client does so a little later: until then it hesitates."""

    hesitates = False

    def buffer_updated(self, nbytes: int) -> None:
        was_welcome = self._welcomed.is_set()
        super().buffer_updated(nbytes)
        if self._welcomed.is_set() and not (was_welcome or self._closed or self.hesitates):
            self.ask_to_open()


def _member_hears(way: int, said: bytes, size: int) -> Iterable[Hashable]:
    token = TOKEN.key if way & HAS_TOKEN else b""
    client: Any = _Client(token)
    connection, transport = _Connection(client, LIMITS, MEMBER_NONCE), DeadTransport()
    connection.hesitates = bool(way & HESITATES)
    feed(connection, transport, said, size)
    proven = (
        token != b"" and login_proofs(token, HELLO, said[:64], b"").store == said[64:96] if len(said) >= 96 else False
    )
    assert client.asked <= (proven if token else 1), "a store that proved nothing was told what a member wants"
    assert client.opened_by_store <= client.asked
    assert not client.events or client.opened_by_store
    assert connection._settled.is_set()
    return "store", client.asked, client.opened_by_store, min(client.events, 2), type(connection._why_not_open).__name__
