"""The test vectors: what is written are these bytes, what is read of them is what was written, and the rest is refused.

docs/protocol.md says the same in words, and `test_protocol.py` holds the two together.
"""

from __future__ import annotations

import asyncio
import re
from math import inf
from typing import Any, get_args, get_type_hints

import msgpack
import pytest

from aiopg import StoreServer
from aiopg import errors as aiopg_errors
from aiopg._core import messages as m
from aiopg._core import wire
from aiopg._core.frames import FrameReceiver, Received
from aiopg._core.handshake import (
    ASKS_TOKEN,
    Hello,
    check_magic,
    login_proofs,
    pack_hello,
    pack_welcome,
    parse_hello,
    parse_welcome,
    resume_proof,
)
from aiopg._core.limits import Limits
from aiopg._core.messages import unpack_error, unpack_value
from aiopg._core.parts import join_parts, split_parts
from aiopg._core.session import Session
from aiopg.codec._extensions import Code
from aiopg.codec._marks import Kind

from .codec.strategies import same
from .vectors import Vector, bodies, generate, load, payloads
from .vectors.messages import KIND_OF, frame

LIMITS = Limits()


def vectors(file: str, section: str) -> pytest.MarkDecorator:
    """A parameter for each vector of a section."""
    found = load(file)[section]
    return pytest.mark.parametrize("vector", found, ids=[vector["name"] for vector in found])


def refused(vector: Vector) -> Any:
    """What is done in it raises the error that the vector names."""
    return pytest.raises(getattr(aiopg_errors, vector["error"]), match=re.escape(vector["says"]))


# ----------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("file", generate.FILES)
def test_the_files_hold_what_is_written_today(file: str) -> None:
    """Also of what was added to the cases and not yet to the files: `python -m tests.vectors.generate`."""
    assert generate.compare(file, generate.content(file)) == ([], [], [])


@pytest.mark.parametrize("file", generate.FILES)
def test_each_vector_has_a_name_of_its_own(file: str) -> None:
    """Or one could hide another."""
    for section in load(file).values():
        names = [vector["name"] for vector in section]
        assert len(set(names)) == len(names) > 0


def test_every_kind_of_message_has_a_vector() -> None:
    """A message that is added needs one."""
    assert {vector["kind"] for vector in load("frames")["frames"]} == set(wire._WIRE)


def test_every_operation_and_every_need_has_a_vector() -> None:
    """The numbers that they are on the wire are fixed."""
    arrivals = [vector["fields"] for vector in load("frames")["frames"] if vector["message"] == "Arrive"]
    assert {fields["op"] for fields in arrivals} == set(m.COLLECTIVES)
    needs = [value for name, value in vars(m.Needs).items() if name.isupper()]
    assert {fields["needs"] for fields in arrivals} == set(needs)


def test_every_extension_and_every_mark_has_a_vector() -> None:
    """A type that is added to the codec needs one."""
    met: set[tuple[int, int]] = set()

    def note(code: int, data: bytes) -> str:
        met.add((code, data[0] if code == Code.MARK else -1))
        return f"{code} {data.hex()}"

    for vector in load("payloads")["encodes"]:
        msgpack.unpackb(bytes.fromhex(vector["payload"]), ext_hook=note, strict_map_key=False, use_list=False)
    assert met == {(code, -1) for code in Code if code != Code.MARK} | {(Code.MARK, kind) for kind in Kind}


# ------------------------------------------------------------------------------------------------ handshakes


@vectors("handshakes", "greetings")
def test_greetings(vector: Vector) -> None:
    """64 bytes each way; both ends know whether they go on."""
    hello, welcome = bytes.fromhex(vector["hello"]), bytes.fromhex(vector["welcome"])
    client_nonce, server_nonce, epoch = (
        bytes.fromhex(vector[name]) for name in ("client_nonce", "server_nonce", "epoch")
    )
    asked = Hello(vector["lowest"], vector["highest"], 0, client_nonce)
    check_magic(hello)
    assert parse_hello(hello) == asked
    if (asked.lowest, asked.highest) == (1, 1):
        assert pack_hello(client_nonce) == hello
    said, refusal = pack_welcome(asked, epoch, server_nonce, vector["asks_token"])
    assert said == welcome
    assert bool(refusal) is bool(vector["refusal"])
    got = parse_welcome(welcome)
    assert (got.version, got.refusal, got.asks_token) == (1, refusal, vector["asks_token"])
    assert (got.epoch, got.nonce) == (epoch, server_nonce)
    assert int.from_bytes(welcome[12:16]) == (ASKS_TOKEN if vector["asks_token"] else 0)


@vectors("handshakes", "logins")
def test_logins(vector: Vector) -> None:
    """Both proofs of a token."""
    hello, welcome, binding = (bytes.fromhex(vector[name]) for name in ("hello", "welcome", "binding"))
    proofs = login_proofs(vector["token"].encode(), hello, welcome, binding)
    assert (proofs.member.hex(), proofs.store.hex()) == (vector["login"], vector["verdict"])
    assert bytes.fromhex(vector["verdict_refused"]) == bytes(32)


@vectors("handshakes", "resumes")
def test_resumes(vector: Vector) -> None:
    """The proof of a session's secret."""
    secret, hello, welcome, session = (bytes.fromhex(vector[n]) for n in ("secret", "hello", "welcome", "session"))
    proof = resume_proof(secret, hello, welcome, session, vector["attempt"], vector["received"])
    assert proof.hex() == vector["proof"]


@vectors("handshakes", "malformed")
def test_what_is_no_handshake(vector: Vector) -> None:
    """Known by its first bytes."""
    with refused(vector):
        check_magic(bytes.fromhex(vector["first"]))


# ---------------------------------------------------------------------------------------------------- frames


def message_of(vector: Vector) -> Any:
    """The message that a vector says in words."""
    cls = wire._WIRE[vector["kind"]][0]
    hints = get_type_hints(cls)
    fields = {name: typed(hints[name], value) for name, value in vector["fields"].items()}
    body = bytes.fromhex(vector["body"])
    return cls(**fields, body=(body,) if body else ())


def typed(hint: Any, value: Any) -> Any:
    """A field as its message has it."""
    if hint is bytes:
        return bytes.fromhex(value)
    if hint is float:
        return inf if value == "inf" else value
    assert isinstance(value, get_args(hint) or hint)
    return value


def received(data: bytes) -> Received:
    """The one frame that bytes are."""
    (got,) = FrameReceiver(LIMITS).receive_data(data)
    return got


@vectors("frames", "frames")
def test_frames(vector: Vector) -> None:
    """Each message has one frame, in both directions."""
    message, data = message_of(vector), bytes.fromhex(vector["frame"])
    assert KIND_OF[type(message)] == vector["kind"]
    assert frame(message, vector["seq"], vector["ack"]) == data
    got = received(data)
    assert got[:3] == (vector["seq"], vector["ack"], vector["kind"])
    assert wire.decode_message(got) == message
    assert list(map(type, wire.decode_message(got))) == list(map(type, message))


@vectors("frames", "malformed")
def test_malformed_frames(vector: Vector) -> None:
    """Refused when they are received or when they are read, with the reason."""
    with refused(vector):
        wire.decode_message(received(bytes.fromhex(vector["frame"])))


@vectors("conversations", "resumed")
def test_conversations(vector: Vector) -> None:
    """Each frame of them is the message that it is said to be, and no other bytes are."""
    greetings = {"HELLO": 64, "WELCOME": 64, "LOGIN": 32, "VERDICT": 32}
    for step in vector["steps"]:
        data = bytes.fromhex(step["bytes"])
        what = step["what"].removeprefix("again: ")
        if what in greetings:
            assert len(data) == greetings[what]
            continue
        got = received(data)
        message = wire.decode_message(got)
        assert type(message).__name__ == what
        assert frame(message, got[0], got[1]) == data


def test_what_was_lost_is_sent_again_as_it_was() -> None:
    """The second connection brings the very bytes that the first one lost."""
    first, second = (vector["steps"] for vector in load("conversations")["resumed"])
    lost = {step["bytes"] for step in first if step.get("lost")}
    again = {step["bytes"] for step in second if step["what"].startswith("again: ")}
    assert lost == again
    assert len(lost) == 2


# ------------------------------------------------------------------------------------------ as a store says it


async def last_words(url: str, data: bytes) -> str:
    """The reason in the goodbye of a store that hears this from a member."""
    host, _, port = url.removeprefix("aiopg://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(pack_hello(bytes(32)))
        await reader.readexactly(64)
        writer.write(frame(m.Open(b"", b"", 1, 0, 5.0, 0, 0, 0, ""), 0, 0))
        opened = await reader.readexactly(8 + 102)
        writer.write(data)
        frames = FrameReceiver(LIMITS).receive_data(opened + await reader.read(-1))
    finally:
        writer.close()
        await writer.wait_closed()
    said = [wire.decode_message(got) for got in frames]
    assert type(said[0]) is m.Opened
    assert isinstance(said[-1], m.Goodbye)
    return said[-1].reason


async def test_a_store_ends_the_session_of_who_says_what_is_malformed() -> None:
    """With a goodbye that has the reason; other sessions do not notice."""
    cases = [(vector["frame"], vector["says"]) for vector in load("frames")["malformed"]]
    cases += [("".join(vector["frames"]), vector["says"]) for vector in load("conversations")["malformed"]]
    async with StoreServer() as server:
        for data, says in cases:
            reason = await last_words(server.address, bytes.fromhex(data))
            assert reason.startswith("protocol error: ")
            assert says in reason


async def test_a_store_says_a_goodbye_to_who_greets_it_in_another_way() -> None:
    """So that who speaks TLS to a store without it is told."""
    async with StoreServer() as server:
        host, _, port = server.address.removeprefix("aiopg://").rpartition(":")
        for vector in load("handshakes")["malformed"]:
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(bytes.fromhex(vector["first"]))
            said = wire.decode_message(received(await reader.read(-1)))
            writer.close()
            await writer.wait_closed()
            assert isinstance(said, m.Goodbye)
            assert vector["says"] in said.reason


def test_a_session_refuses_what_a_store_refuses() -> None:
    """The rules of numbers are those of the session, which is the same at both ends."""
    for vector in load("conversations")["malformed"][:2]:
        session = Session(LIMITS)
        frames = [received(bytes.fromhex(data)) for data in vector["frames"]]
        for got in frames[:-1]:
            assert session.receive(got[0], got[1])
        with refused(vector):
            session.receive(frames[-1][0], frames[-1][1])


# ---------------------------------------------------------------------------------------------------- bodies


@vectors("bodies", "parts")
def test_parts(vector: Vector) -> None:
    """Several payloads in one body."""
    parts, body = [bytes.fromhex(part) for part in vector["parts"]], bytes.fromhex(vector["body"])
    assert b"".join(join_parts(list(parts))) == body
    assert [bytes(part) for part in split_parts((body,), len(parts))] == parts


@vectors("bodies", "values")
def test_values(vector: Vector) -> None:
    """What the store says by itself."""
    assert m.pack_value(vector["value"])[0].hex() == vector["body"]
    assert unpack_value((bytes.fromhex(vector["body"]),)) == vector["value"]


@vectors("bodies", "errors")
def test_errors(vector: Vector) -> None:
    """An error is its name and its fields, and the same error is made of them."""
    error, body = bodies.error_of(vector["error"]), bytes.fromhex(vector["body"])
    assert b"".join(m.pack_error(error)) == body
    got = unpack_error((body,))
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert got.fields() == error.fields()
    assert list(error.fields()) == list(vector["fields"])


@vectors("bodies", "malformed")
def test_malformed_bodies(vector: Vector) -> None:
    """Refused by whoever reads them."""
    body = (bytes.fromhex(vector["body"]),)
    with refused(vector):
        if vector["of"] == "parts":
            split_parts(body, vector["count"])
        else:
            (unpack_value if vector["of"] == "values" else unpack_error)(body)


# -------------------------------------------------------------------------------------------------- payloads


@vectors("payloads", "encodes")
def test_payloads(vector: Vector) -> None:
    """Each value has these bytes, and comes back as it was."""
    value, payload = payloads.value_of(vector["value"]), bytes.fromhex(vector["payload"])
    assert payloads.CODEC.encode(value) == payload
    got = payloads.CODEC.decode(payload)
    if type(value).__module__.partition(".")[0] in ("numpy", "torch"):
        assert repr(got) == repr(value)
        assert payloads.CODEC.encode(got) == payload
    else:
        assert same(got, value)


@vectors("payloads", "decodes")
def test_payloads_that_are_read_and_not_written(vector: Vector) -> None:
    """A reader takes what another writer may choose."""
    value = payloads.value_of(vector["value"])
    payload = bytes.fromhex(vector["payload"])
    assert same(payloads.CODEC.decode(payload), value)
    assert payloads.CODEC.encode(value) != payload


@vectors("payloads", "malformed")
def test_malformed_payloads(vector: Vector) -> None:
    """Refused with what is wrong."""
    with refused(vector):
        payloads.CODEC.decode(bytes.fromhex(vector["payload"]))
