"""`aiopg serve`."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from aiopg import AsyncStatelessGroup, StoreServer

from .programs import StartAiopg


async def gather_at(url: str, rank: int) -> list[str]:
    async with await AsyncStatelessGroup.connect(url, rank=rank, world_size=2, store_timeout=10) as group:
        return await group.all_gather(f"rank {rank}")


async def test_the_first_line_is_an_address_that_groups_meet_at(start_on_each_loop: StartAiopg) -> None:
    """The first line of the output is all that a program needs to connect."""
    url = start_on_each_loop("serve").line()
    assert url.startswith("aiopg://127.0.0.1:")
    first, second = await asyncio.gather(gather_at(url, 0), gather_at(url, 1))
    assert first == second == ["rank 0", "rank 1"]


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="ONLY LINUX HAS THIS POLICY")
def test_its_members_go_first(start_on_each_loop: StartAiopg) -> None:
    """See `aiopg.server.scheduling`."""
    server = start_on_each_loop("serve")
    server.line()
    assert os.sched_getscheduler(server.pid) == os.SCHED_BATCH


async def test_a_unix_socket_is_served_and_removed(start_on_each_loop: StartAiopg, tmp_path: Path) -> None:
    """--unix gives a unix:// address; the file is there as long as the server is."""
    path = tmp_path / "store.sock"
    server = start_on_each_loop("serve", "--unix", str(path))
    assert server.line() == f"unix://{path}"
    assert await asyncio.gather(gather_at(f"unix://{path}", 0), gather_at(f"unix://{path}", 1))
    server.send(signal.SIGTERM)
    assert server.code() == 0
    assert not path.exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_clean_stop(start_on_each_loop: StartAiopg, signum: int) -> None:
    """SIGINT and SIGTERM end it with exit code 0 and not a word."""
    server = start_on_each_loop("serve")
    server.line()
    server.send(signum)
    assert server.finish() == (0, b"", b"")


async def test_a_port_in_use_is_one_line_and_code_2(start: StartAiopg) -> None:
    """A port that somebody listens on is told in one line, without a traceback."""
    async with StoreServer() as other:
        port = other.address.rpartition(":")[2]
        code, stdout, stderr = start("serve", "--port", port).finish()
    assert (code, stdout) == (2, b"")
    assert stderr.decode().splitlines() == [
        f"aiopg serve: cannot serve on aiopg://127.0.0.1:{port}: another program listens there"
    ]


@pytest.mark.parametrize("arguments", [("--host", "192.0.2.1"), ("--port", "70000"), ("--unix", "/nowhere/store.sock")])
def test_a_bad_address_is_one_line_and_code_2(start: StartAiopg, arguments: tuple[str, ...]) -> None:
    """An address that is not ours, or none at all, is told in one line, without a traceback."""
    code, stdout, stderr = start("serve", *arguments).finish()
    assert (code, stdout, stderr.count(b"\n")) == (2, b"", 1)
    assert stderr.startswith(b"aiopg serve: ")


def test_a_secret_that_was_given_in_the_wrong_place_is_not_repeated(start: StartAiopg) -> None:
    """An option is never guessed from its beginning: `--token SECRET` is no `--token-file SECRET`, and is not shown."""
    code, stdout, stderr = start("serve", "--token", "the secret itself").finish()
    assert (code, stdout) == (2, b"")
    assert b"--token" in stderr
    assert b"--token-file the secret" not in stderr
