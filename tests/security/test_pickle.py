"""Published pickle exploits, sent wherever bytes of others are read: nothing runs, and the error is clear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aiopg import (
    AsyncStatelessGroup,
    CodecError,
    JsonCodec,
    MsgpackCodec,
    RawCodec,
    StoreServer,
    StoreUnreachableError,
)
from aiopg._core.handshake import HANDSHAKE_BYTES, pack_hello, pack_welcome, parse_hello
from aiopg._core.messages import Acknowledge, Opened
from aiopg._core.wire import encode_message
from aiopg.address import Address
from aiopg.codec import unsafe_pickle
from aiopg.codec._marks import PICKLE_MARK

from .exploits import EXPLOITS, detonate

LONG = 20.0
EACH = pytest.mark.parametrize("name", EXPLOITS)
HELLO = pack_hello(bytes(32))


@pytest.fixture
def marker(tmp_path: Path) -> Any:
    """The file that an exploit makes if it runs; it is not there when the test ends."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists(), "the exploit ran"


@EACH
def test_each_exploit_is_real(name: str, tmp_path: Path) -> None:
    """Whoever unpickles it runs its command: the tests below could fail."""
    detonate(EXPLOITS[name](tmp_path / "ran"))
    assert (tmp_path / "ran").exists()


# ----------------------------------------------------------------------------------------------- the codecs


@EACH
def test_no_codec_runs_it(name: str, marker: Path) -> None:
    """Bare, the default codec and JSON refuse it as malformed; with the mark they say that the peer pickles."""
    exploit = EXPLOITS[name](marker)
    for codec in (MsgpackCodec(), JsonCodec()):
        with pytest.raises(CodecError) as caught:
            codec.decode(exploit)
        assert caught.value.path == "payload"
        with pytest.raises(CodecError, match=r"the peer uses aiopg\.codec\.unsafe_pickle and this rank does not"):
            codec.decode(PICKLE_MARK + exploit)
    with pytest.raises(CodecError):
        MsgpackCodec().decode_many(b"\x01" + exploit, [1, len(exploit)])
    assert RawCodec().decode(exploit) == exploit


@EACH
@pytest.mark.filterwarnings("ignore::aiopg.codec.unsafe_pickle.UnsafePickleWarning")
def test_even_the_codec_that_pickles_runs_none_without_its_mark(name: str, marker: Path) -> None:
    """A bare pickle is a payload of something else, and is not looked at."""
    with pytest.raises(CodecError, match="asked for by name on every rank"):
        unsafe_pickle.decode(EXPLOITS[name](marker))


@EACH
def test_inside_of_a_payload_it_is_bytes(name: str, marker: Path) -> None:
    """A pickle may be carried: nobody looks at what bytes are."""
    exploit = EXPLOITS[name](marker)
    codec = MsgpackCodec()
    obj = [exploit, {exploit: bytearray(exploit)}]
    assert codec.decode(codec.encode(obj)) == obj


# --------------------------------------------------------------------------------------------- over a group


@EACH
async def test_a_member_s_exploit_is_a_codec_error_at_the_receiver(name: str, marker: Path) -> None:
    """As a message and as part of a collective, from a member with a valid session; the group goes on."""
    exploit = EXPLOITS[name](marker)
    async with StoreServer() as server:
        victim, hostile = await asyncio.gather(
            AsyncStatelessGroup.connect(server.address, rank=0, world_size=2, store_timeout=LONG),
            AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, store_timeout=LONG, codec=RawCodec()),
        )
        for payload in (exploit, PICKLE_MARK + exploit):
            await hostile.send(payload, 0)
            with pytest.raises(CodecError):
                await victim.recv(1)
            gathered = asyncio.gather(victim.all_gather(1), hostile.all_gather(payload), return_exceptions=True)
            assert isinstance((await gathered)[0], CodecError)
        await hostile.send(MsgpackCodec().encode({"fine": True}), 0)
        assert await victim.recv(1) == {"fine": True}
        await asyncio.gather(victim.barrier(), hostile.barrier())
        await asyncio.gather(victim.close(), hostile.close())


# --------------------------------------------------------------------------------------------- to the store


def in_frame(exploit: bytes) -> bytes:
    """A frame of allowed lengths whose head and body are the exploit."""
    head = exploit.ljust(17, b".")[:4096]
    return len(head).to_bytes(4, "big") + len(exploit).to_bytes(4, "big") + head + exploit


def in_body(exploit: bytes) -> bytes:
    """A well-formed message that carries the exploit, where a session must be opened first."""
    buffers = encode_message(0, 0, Acknowledge(), 4096)
    prefix = b"".join(buffers)
    return prefix[:4] + len(exploit).to_bytes(4, "big") + prefix[8:] + exploit


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "instead of the handshake": lambda exploit: exploit,
    "behind the magic": lambda exploit: (HELLO[:8] + exploit).ljust(HANDSHAKE_BYTES, b"."),
    "behind the handshake": lambda exploit: HELLO + exploit,
    "as a frame": lambda exploit: HELLO + in_frame(exploit),
    "as a body": lambda exploit: HELLO + in_body(exploit),
}


@EACH
@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_s_exploit_ends_his_connection_and_nothing_else(name: str, way: str, marker: Path) -> None:
    """The store answers with its handshake at most, closes, and serves the others."""
    async with StoreServer() as server:
        address = Address.parse(server.address)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(WAYS[way](EXPLOITS[name](marker)))
        async with asyncio.timeout(LONG):
            try:
                answered = await reader.read(-1)
            except ConnectionResetError:
                answered = b""
        assert len(answered) <= 512
        writer.close()
        group = await AsyncStatelessGroup.connect(server.address, rank=0, world_size=1, store_timeout=LONG)
        assert await group.all_gather(1) == [1]
        await group.close()


# --------------------------------------------------------------------------------- from something like a store


@pytest_asyncio.fixture
async def impostor() -> AsyncIterator[Callable[[Callable[[bytes], bytes]], Any]]:
    """Starts a server that answers a client's handshake with what a function makes of it; returns its URL."""
    servers: list[asyncio.Server] = []

    async def start(answer: Callable[[bytes], bytes]) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                writer.write(answer(await reader.readexactly(HANDSHAKE_BYTES)))
                await reader.read(-1)
            except ConnectionError:
                pass  # the client has seen enough
            finally:
                writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return "aiopg://{}:{}".format(*servers[-1].sockets[0].getsockname())

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def welcome(hello: bytes) -> bytes:
    return pack_welcome(parse_hello(hello), bytes(16), bytes(32))[0]


def opened(hello: bytes) -> bytes:
    message = Opened(session=b"s" * 16, secret=b"k" * 32, received=0, payload_bytes=2**20, pid=1, patience=5.0)
    return welcome(hello) + b"".join(encode_message(0, 0, message, 4096))


ANSWERS: dict[str, Callable[[bytes, bytes], bytes]] = {
    "instead of the handshake": lambda _, exploit: exploit,
    "behind the magic": lambda _, exploit: (HELLO[:8] + exploit).ljust(HANDSHAKE_BYTES, b"."),
    "behind the handshake": lambda hello, exploit: welcome(hello) + exploit,
    "as a frame": lambda hello, exploit: welcome(hello) + in_frame(exploit),
    "as a body": lambda hello, exploit: welcome(hello) + in_body(exploit),
}


@EACH
@pytest.mark.parametrize("way", ANSWERS)
async def test_a_false_store_s_exploit_is_an_error_at_the_client(
    name: str, way: str, marker: Path, impostor: Any
) -> None:
    """Whoever connects learns that this is no store, at once, and runs nothing."""
    exploit = EXPLOITS[name](marker)
    url = await impostor(lambda hello: ANSWERS[way](hello, exploit))
    async with asyncio.timeout(LONG):
        with pytest.raises(StoreUnreachableError):
            await AsyncStatelessGroup.connect(url, rank=0, world_size=1, store_timeout=LONG)


@EACH
async def test_a_false_store_s_exploit_in_an_open_session_is_an_error_at_the_client(
    name: str, marker: Path, impostor: Any
) -> None:
    """The same behind a session that was opened in due form: the member loses its store and runs nothing."""
    exploit = EXPLOITS[name](marker)
    url = await impostor(lambda hello: opened(hello) + in_frame(exploit))
    # The member comes again as to any store whose connection broke, until the deadline of its call.
    with pytest.raises(StoreUnreachableError):
        await AsyncStatelessGroup.connect(url, rank=0, world_size=1, store_timeout=0.3)
