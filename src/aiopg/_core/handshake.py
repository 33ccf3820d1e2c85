"""The first bytes of a connection, before any frame.

The client speaks first (a server that speaks first hangs clients when its accept queue overflows), in
64 fixed bytes; the server answers in 64 fixed bytes. Where the store asks for a token, 32 fixed bytes each way follow.
Then both talk in frames, and the first frame of each opens or resumes a session (`messages.Open`, `messages.Opened`)::

    HELLO    magic 8 | lowest version u16 | highest version u16 | flags u32 | client nonce 32 | zero 16
    WELCOME  magic 8 | version u16 | refusal u16 | flags u32 | epoch 16 | server nonce 32
    LOGIN    the member's proof 32                       only where WELCOME's flag 1 (`ASKS_TOKEN`) is set
    VERDICT  the store's proof 32, or zeros: refused     only then

The magic holds a line end, a control-Z and a NUL, so that text protocols and line-end conversion trip over
it at once. The version range makes the format negotiable. `epoch` names one life of the server's state: sessions of
another life are not to be had any more.

The login proves to each end that the other one knows the token; the token is never sent. A proof is HMAC-SHA-256 (RFC
2104) of both ends' first 128 bytes, so of both nonces, the versions and the flags, and of what is special about the
channel below (`tls.channel_binding`), under a key that is derived from token and nonces by HKDF (RFC 5869), one for
each direction. So a proof is of no use on another connection, in the other direction, or to somebody in the middle
who ends one TLS connection and begins another; and who has heard a proof can only guess at the token, which has 16
bytes or more for that reason. The member proves first: a store says nothing to strangers that can be guessed at.

Who opens a session is given a secret with it. To go on with the session over another connection takes a login as above
and a proof of the secret, made in the same way: what was heard on one connection is of no use on another.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import NamedTuple

from aiopg._core.frames import Buffer
from aiopg.errors import ProtocolError

__all__ = [
    "HANDSHAKE_BYTES",
    "LOGIN_BYTES",
    "REFUSED_LOGIN",
    "VERSION",
    "Hello",
    "LoginProofs",
    "Welcome",
    "check_magic",
    "login_proofs",
    "pack_hello",
    "pack_welcome",
    "parse_hello",
    "parse_welcome",
    "resume_proof",
]

MAGIC = b"aipg\r\n\x1a\x00"
VERSION = 1
HANDSHAKE_BYTES = 64
LOGIN_BYTES = 32

REFUSED_LOGIN = bytes(LOGIN_BYTES)
"""A store's verdict on a login that it does not take: the same whatever is wrong with it."""

ASKS_TOKEN = 1

NO_REFUSAL = 0
REFUSED_VERSION = 1
_REFUSALS = {REFUSED_VERSION: "it speaks another version of the protocol"}

_HELLO = struct.Struct(">8sHHI32s16x")
_WELCOME = struct.Struct(">8sHHI16s32s")


class Hello(NamedTuple):
    """What a client says first."""

    lowest: int
    highest: int
    flags: int
    nonce: bytes


class Welcome(NamedTuple):
    """What a server answers. `refusal` is "" or why it will not talk."""

    version: int
    refusal: str
    asks_token: bool
    epoch: bytes
    nonce: bytes


class LoginProofs(NamedTuple):
    """What each end says to prove that it knows the token. To be compared in constant time."""

    member: bytes
    store: bytes


def check_magic(data: bytes) -> None:
    """Look at the first bytes that came, however few. Raises `ProtocolError` if they cannot become a handshake."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise ProtocolError(f"what came first is no aiopg handshake: {data[:16]!r}")


def pack_hello(nonce: bytes) -> bytes:
    """The client's first 64 bytes; `nonce` is 32 fresh random bytes."""
    return _HELLO.pack(MAGIC, VERSION, VERSION, 0, nonce)


def parse_hello(data: Buffer) -> Hello:
    """Read a client's first 64 bytes, whose magic was checked."""
    _, lowest, highest, flags, nonce = _HELLO.unpack(data)
    return Hello(lowest, highest, flags, nonce)


def pack_welcome(hello: Hello, epoch: bytes, nonce: bytes, asks_token: bool = False) -> tuple[bytes, str]:
    """The server's answer and why it refuses ("" if it does not)."""
    refusal = NO_REFUSAL if hello.lowest <= VERSION <= hello.highest else REFUSED_VERSION
    flags = ASKS_TOKEN if asks_token else 0
    return _WELCOME.pack(MAGIC, VERSION, refusal, flags, epoch, nonce), _REFUSALS.get(refusal, "")


def parse_welcome(data: Buffer) -> Welcome:
    """Read a server's first 64 bytes, whose magic was checked."""
    _, version, refusal, flags, epoch, nonce = _WELCOME.unpack(data)
    said = _REFUSALS.get(refusal, "it refused without a known reason") if refusal else ""
    return Welcome(version, said, bool(flags & ASKS_TOKEN), epoch, nonce)


def login_proofs(token: bytes, hello: bytes, welcome: bytes, binding: bytes) -> LoginProofs:
    """Both proofs for the connection that began with these 128 bytes; `binding`: see `tls.channel_binding`."""
    nonces = _HELLO.unpack(hello)[4] + _WELCOME.unpack(welcome)[5]
    key = hmac.digest(nonces, token, hashlib.sha256)
    said = hello + welcome + binding
    member, store = (
        hmac.digest(hmac.digest(key, b"aiopg login " + end + b"\1", hashlib.sha256), said, hashlib.sha256)
        for end in (b"member", b"store")
    )
    return LoginProofs(member, store)


def resume_proof(secret: bytes, hello: bytes, welcome: bytes, session: bytes, attempt: int, received: int) -> bytes:
    """Proves on the connection that began with these 128 bytes that its client knows the session's secret."""
    # Signed, as they came in a frame: also what makes no sense has a proof, which nobody gives.
    said = b"".join((b"aiopg resume", hello, welcome, session, struct.pack(">qq", attempt, received)))
    return hmac.digest(secret, said, hashlib.sha256)
