"""The first 64 bytes each way."""

from __future__ import annotations

from typing import Any

import pytest

from aiopg._core.handshake import (
    HANDSHAKE_BYTES,
    MAGIC,
    VERSION,
    Hello,
    check_magic,
    pack_hello,
    pack_welcome,
    parse_hello,
    parse_welcome,
    resume_proof,
)
from aiopg.errors import ProtocolError

NONCE = bytes(range(32))
EPOCH = b"e" * 16


def test_a_hello_says_what_the_client_speaks() -> None:
    """What was packed is parsed; the size is fixed."""
    data = pack_hello(NONCE)
    assert len(data) == HANDSHAKE_BYTES
    assert parse_hello(data) == Hello(VERSION, VERSION, 0, NONCE)


def test_a_welcome_answers_with_version_epoch_and_nonce() -> None:
    """What was packed is parsed; no refusal."""
    data, refusal = pack_welcome(parse_hello(pack_hello(NONCE)), EPOCH, NONCE)
    assert (len(data), refusal) == (HANDSHAKE_BYTES, "")
    assert parse_welcome(data) == (VERSION, "", 0, EPOCH, NONCE)


@pytest.mark.parametrize(("lowest", "highest"), [(VERSION + 1, VERSION + 3), (0, VERSION - 1), (VERSION, VERSION - 1)])
def test_a_client_of_another_version_is_refused_with_the_reason(lowest: int, highest: int) -> None:
    """Both ends know why, in the same words."""
    data, refusal = pack_welcome(Hello(lowest, highest, 0, NONCE), EPOCH, NONCE)
    assert "version" in refusal
    assert parse_welcome(data).refusal == refusal


def test_a_refusal_of_the_future_is_still_a_refusal() -> None:
    """A reason that this version does not know is not taken for a welcome."""
    data, _ = pack_welcome(parse_hello(pack_hello(NONCE)), EPOCH, NONCE)
    assert parse_welcome(data[:10] + b"\x00\x63" + data[12:]).refusal


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02", b"aipg\n\x1a\x00", b"x", b"\x00" * 64])
def test_other_protocols_are_known_by_their_first_bytes(data: bytes) -> None:
    """HTTP, TLS, a magic whose line end was converted, noise."""
    with pytest.raises(ProtocolError, match="no aiopg handshake"):
        check_magic(data)


def test_a_beginning_of_the_magic_may_still_become_one() -> None:
    """However few bytes have come, and however many."""
    for count in range(len(MAGIC) + 1):
        check_magic(MAGIC[:count])
    check_magic(pack_hello(NONCE))


SAID: dict[str, Any] = {
    "secret": b"s" * 32,
    "hello": pack_hello(NONCE),
    "welcome": pack_welcome(parse_hello(pack_hello(NONCE)), EPOCH, NONCE)[0],
    "session": b"i" * 16,
    "attempt": 2,
    "received": 7,
}
OTHER: dict[str, Any] = {
    "secret": b"S" * 32,
    "hello": pack_hello(NONCE[::-1]),
    "welcome": pack_welcome(parse_hello(pack_hello(NONCE)), EPOCH, NONCE[::-1])[0],
    "session": b"I" * 16,
    "attempt": 3,
    "received": 8,
}


def test_a_proof_is_the_same_at_both_ends() -> None:
    """Nothing but what was said is in it; it has the length of its hash."""
    assert resume_proof(**SAID) == resume_proof(**SAID)
    assert len(resume_proof(**SAID)) == 32
    assert SAID["secret"] not in resume_proof(**SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_proof_of_one_connection_is_of_no_use_on_another(name: str) -> None:
    """The secret, either end's first bytes, and all that is claimed: another of any gives another proof."""
    assert resume_proof(**{**SAID, name: OTHER[name]}) != resume_proof(**SAID)


def test_a_proof_does_not_take_the_attempt_for_the_count() -> None:
    """The two numbers stand in their places."""
    swapped = {**SAID, "attempt": SAID["received"], "received": SAID["attempt"]}
    assert resume_proof(**swapped) != resume_proof(**SAID)


@pytest.mark.parametrize("name", ["attempt", "received"])
@pytest.mark.parametrize("number", [-1, -(2**63), 2**63 - 1])
def test_numbers_that_make_no_sense_have_a_proof_as_any_others(name: str, number: int) -> None:
    """A frame can bring them, and it is for the comparison to refuse them."""
    assert len(resume_proof(**{**SAID, name: number})) == 32
