"""A hostile member with a valid session sends payloads made to unfold: its peers get CodecError, and go on."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from aiopg import AsyncStatelessGroup, CodecError, MsgpackCodec, RawCodec, StoreServer

LONG = 30.0
MIB = 2**20


def array(item: bytes, size: int) -> bytes:
    """A list of about `size` bytes of one item."""
    count = size // len(item)
    return b"\xdd" + struct.pack(">I", count) + item * count


def colliding(count: int) -> bytes:
    """A dict whose keys have one hash."""
    keys = (sys.hash_info.modulus * (index + 16) for index in range(count))
    return b"\xdf" + struct.pack(">I", count) + b"".join(MsgpackCodec().encode(key) + b"\xc0" for key in keys)


BOMBS: dict[str, Callable[[], bytes]] = {
    "dicts": lambda: array(b"\x80", 8 * MIB),
    "bare dicts": lambda: b"\x80" * 8 * MIB,
    "sets": lambda: array(b"\x96\xd4\x40\x01" + bytes(range(5)), 8 * MIB),
    "networks": lambda: array(b"\xc7\x03\x0b\x05::", 8 * MIB),
    "paths": lambda: array(b"\xd4\x0c\x00", 8 * MIB),
    "depth": lambda: b"\x91" * 8 * MIB,
    "marked depth": lambda: b"\x92\xd4\x40\x00" * MIB,
    "declared length": lambda: b"\xdd\x7f\xff\xff\xff" * MIB,
    "declared blob": lambda: b"\xc6\xff\xff\xff\xff",
    "one hash": lambda: colliding(100_000),
    "numpy": lambda: b"\x95\xd4\x40\x04\xa3|S0\x91\xcf\x00\x00\x00\xff\x00\x00\x00\x00\xa1C\xc4\x00",
}
BOMB = pytest.mark.parametrize("name", BOMBS)


@BOMB
async def test_a_bomb_is_used_up_and_the_group_goes_on(name: str) -> None:
    """recv takes the message and raises CodecError; the next recv returns the next message."""
    bomb = BOMBS[name]()
    async with StoreServer() as server:
        victim, hostile = await asyncio.gather(
            AsyncStatelessGroup.connect(server.address, rank=0, world_size=2, store_timeout=LONG),
            AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, store_timeout=LONG, codec=RawCodec()),
        )
        await hostile.send(bomb, 0)
        await hostile.send(b"\x81\xa4fine\xc3", 0)
        with pytest.raises(CodecError) as caught:
            await victim.recv(1)
        assert caught.value.path == "payload"
        assert await victim.recv(1) == {"fine": True}
        assert victim.recv_src_counter[1] == 2
        calls = [
            (victim.all_gather(1), hostile.all_gather(bomb)),
            (victim.broadcast(None, 1), hostile.broadcast(bomb, 1)),
            (victim.all_to_all([1, 1]), hostile.all_to_all([bomb, b""])),
        ]
        for call in calls:
            assert isinstance((await asyncio.gather(*call, return_exceptions=True))[0], CodecError)
        await asyncio.gather(victim.barrier(), hostile.barrier())
        await asyncio.gather(victim.close(), hostile.close())


PROGRAM = """if True:
    import asyncio, resource
    from aiopg import AsyncStatelessGroup, CodecError, RawCodec, StoreServer
    from tests.security.test_bombs import BOMBS
    import numpy

    async def main():
        async with StoreServer() as server:
            victim, hostile = await asyncio.gather(*(
                AsyncStatelessGroup.connect(server.address, rank=rank, world_size=2, codec=codec, store_timeout=60)
                for rank, codec in enumerate((None, RawCodec()))
            ))
            bombs = [make() for make in BOMBS.values()]
            held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + 100 * 2**20,) * 2)
            refused = 0
            for bomb in bombs:
                await hostile.send(bomb, 0)
                try:
                    await victim.recv(1)
                except CodecError:
                    refused += 1
            await asyncio.gather(victim.barrier(), hostile.barrier())
            print(refused == len(bombs))
            await asyncio.gather(victim.close(), hostile.close())

    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_bombs_are_refused_in_little_memory() -> None:
    """8 MiB that would come to 593 and more: sender, store and receiver together do with 100 MiB of address space."""
    # They are decoded in a thread. What glibc would reserve for it, 64 MiB of addresses, is no memory.
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr[-2000:]
