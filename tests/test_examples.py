"""The examples, as real processes."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from aiopg import StoreServer

EXAMPLES = Path(__file__).parents[1] / "examples"

Start: TypeAlias = Callable[..., Coroutine[Any, Any, Process]]


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=DEVNULL, stdout=PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts Python with these arguments; ends what the test leaves."""
    async with AsyncExitStack() as programs:
        yield lambda *arguments: programs.enter_async_context(running(*arguments))


async def output(process: Process) -> list[str]:
    """The lines of a program that must succeed, sorted."""
    stdout, _ = await process.communicate()
    assert process.returncode == 0
    return sorted(stdout.decode().splitlines())


def under_run(n: int, example: str) -> list[str]:
    return ["-m", "aiopg", "run", "-n", str(n), "--", sys.executable, str(EXAMPLES / example)]


async def test_async_pair(start: Start) -> None:
    """Two programs started by hand find each other: here on a store that holds its port already."""
    async with StoreServer() as store:
        port = store.address.rpartition(":")[2]
        server, client = [await start(str(EXAMPLES / "async_pair.py"), str(rank), port) for rank in range(2)]
        assert await output(server) == ["server: the client says 'well done'"]
        assert await output(client) == ["client: it answers HELLO", "client: rank 0 offers shouter-7b"]


async def test_sync_script(start: Start) -> None:
    """Three blocking processes share work and learn the sum."""
    assert await output(await start(*under_run(3, "sync_script.py"))) == [
        "[0] my 10 numbers make 135, those of all 3 processes 435",
        "[1] my 10 numbers make 145, those of all 3 processes 435",
        "[2] my 10 numbers make 155, those of all 3 processes 435",
    ]


async def test_overlapping_groups(start: Start) -> None:
    """{A, B}, {A, B, C, D} and {B, D} work at once on one store."""
    lines = await output(await start(*under_run(4, "overlapping_groups.py")))
    pairs = [f"[{rank}] {name}: the pair is AB" for rank, name in enumerate("AB")]
    all_four = [f"[{rank}] {name}: everyone is ABCD" for rank, name in enumerate("ABCD")]
    at_once = [
        "[0] A: I am in AB, ABCD",
        "[1] B: I am in AB, ABCD, BD",
        "[2] C: I am in ABCD",
        "[3] D: I am in ABCD, BD",
    ]
    assert lines == sorted(pairs + all_four + at_once)


async def ask(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"?\n")
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer.decode().strip()


async def test_waiting_service(start: Start) -> None:
    """Every process is ready when all are there, and drains on SIGTERM."""
    service = await start(*under_run(3, "waiting_service.py"))
    assert service.stdout is not None
    ports, ready = [], 0
    while ready < 3:
        line = (await service.stdout.readline()).decode()
        assert line, "the service ended"
        if "listening on port" in line:
            ports.append(int(line.split()[-1]))
        ready += "ready: all peers are there" in line
    assert [await ask(port) for port in ports] == ["ready"] * 3
    service.send_signal(signal.SIGTERM)
    rest, _ = await service.communicate()
    assert service.returncode == 128 + signal.SIGTERM
    assert sorted(line for line in rest.decode().splitlines() if "drained" in line) == [
        f"[{rank}] drained" for rank in range(3)
    ]


async def test_waiting_service_names_who_it_waits_for(start: Start) -> None:
    """While a peer is missing the service says which one, and is not ready."""
    async with StoreServer() as store:
        place = f"import os; os.environ.update(RANK='0', WORLD_SIZE='2', AIOPG_URL={store.address!r}); "
        program = f"import runpy; runpy.run_path({str(EXAMPLES / 'waiting_service.py')!r}, run_name='__main__')"
        service = await start("-u", "-c", place + program)
        assert service.stdout is not None
        port = int((await service.stdout.readline()).split()[-1])
        assert await service.stdout.readline() == b"waiting for ranks (1,)\n"
        assert await ask(port) == "not ready"
        service.send_signal(signal.SIGTERM)
        assert (await output(service))[-1:] in (["drained"], ["waiting for ranks (1,)"])
