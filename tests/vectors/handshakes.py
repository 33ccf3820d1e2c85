"""Vectors of what comes before the first frame: greetings, logins, and the proof that resumes a session."""

from __future__ import annotations

from aiopg._core.handshake import (
    REFUSED_LOGIN,
    Hello,
    login_proofs,
    pack_hello,
    pack_welcome,
    parse_hello,
    resume_proof,
)

from . import Vector

__all__ = [
    "CLIENT_NONCE",
    "CLIENT_NONCE_2",
    "EPOCH",
    "SECRET",
    "SERVER_NONCE",
    "SERVER_NONCE_2",
    "SESSION",
    "TOKEN",
    "about",
    "sections",
]

CLIENT_NONCE = bytes(range(0x20))
SERVER_NONCE = bytes(range(0x80, 0xA0))
CLIENT_NONCE_2 = bytes(range(0x20, 0x40))
SERVER_NONCE_2 = bytes(range(0xA0, 0xC0))
EPOCH = bytes(range(0xE0, 0xF0))
SESSION = bytes(range(0x50, 0x60))
SECRET = bytes(range(0x60, 0x80))
TOKEN = "correct horse battery staple"
BINDING = b"finished" + bytes(range(0xC0, 0xE0))

about = "Handshakes with fixed nonces. All bytes are hexadecimal; a token is its UTF-8."


def sections() -> dict[str, list[Vector]]:
    """All of them, by section."""
    return {"greetings": _greetings(), "logins": _logins(), "resumes": _resumes(), "malformed": _malformed()}


def greeting(nonce: bytes, answer: bytes, asks_token: bool = False) -> tuple[bytes, bytes]:
    """HELLO and WELCOME of one connection."""
    hello = pack_hello(nonce)
    return hello, pack_welcome(parse_hello(hello), EPOCH, answer, asks_token)[0]


def _greetings() -> list[Vector]:
    asked = Hello(1, 1, 0, CLIENT_NONCE)
    found = [_greeting("no token asked for", asked, False), _greeting("a token asked for", asked, True)]
    for lowest, highest in ((2, 3), (0, 0), (1, 7)):
        found.append(_greeting(f"versions {lowest} to {highest}", Hello(lowest, highest, 0, CLIENT_NONCE), False))
    return found


def _greeting(name: str, asked: Hello, asks_token: bool) -> Vector:
    hello = pack_hello(asked.nonce)
    hello = hello[:8] + asked.lowest.to_bytes(2) + asked.highest.to_bytes(2) + hello[12:]
    welcome, refusal = pack_welcome(asked, EPOCH, SERVER_NONCE, asks_token)
    return {
        "name": name,
        "lowest": asked.lowest,
        "highest": asked.highest,
        "client_nonce": asked.nonce.hex(),
        "asks_token": asks_token,
        "refusal": 1 if refusal else 0,
        "epoch": EPOCH.hex(),
        "server_nonce": SERVER_NONCE.hex(),
        "hello": hello.hex(),
        "welcome": welcome.hex(),
    }


def _logins() -> list[Vector]:
    hello, welcome = greeting(CLIENT_NONCE, SERVER_NONCE, asks_token=True)
    found = []
    for name, token, binding in (
        ("without TLS", TOKEN, b""),
        ("over TLS", TOKEN, BINDING),
        ("another token", "sixteen bytes ok", b""),
        ("a token that is not ASCII", "schlüssel für alle", b""),
    ):
        proofs = login_proofs(token.encode(), hello, welcome, binding)
        found.append(
            {
                "name": name,
                "hello": hello.hex(),
                "welcome": welcome.hex(),
                "token": token,
                "binding": binding.hex(),
                "login": proofs.member.hex(),
                "verdict": proofs.store.hex(),
                "verdict_refused": REFUSED_LOGIN.hex(),
            }
        )
    return found


def _resumes() -> list[Vector]:
    hello, welcome = greeting(CLIENT_NONCE_2, SERVER_NONCE_2)
    found = []
    for name, attempt, received in (("second connection", 2, 3), ("nothing received", 3, 0), ("many", 2**40, 2**41)):
        proof = resume_proof(SECRET, hello, welcome, SESSION, attempt, received)
        found.append(
            {
                "name": name,
                "hello": hello.hex(),
                "welcome": welcome.hex(),
                "secret": SECRET.hex(),
                "session": SESSION.hex(),
                "attempt": attempt,
                "received": received,
                "proof": proof.hex(),
            }
        )
    return found


def _malformed() -> list[Vector]:
    says = "what came first is no aiopg handshake"
    first = {
        "HTTP": b"GET / HTTP/1.1\r\n",
        "TLS, to a store that has none": bytes.fromhex("16030100c8010000c40303"),
        "a line end that was converted": b"aipg\n\x1a\x00\x00",
        "a magic in which one bit is wrong": b"aipg\r\n\x1a\x01",
        "nothing but zeros": bytes(64),
    }
    return [{"name": name, "first": data.hex(), "error": "ProtocolError", "says": says} for name, data in first.items()]
