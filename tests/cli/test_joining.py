"""Who has joined yet, while the ranks of `aiopg run` come together."""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from aiopg import AsyncStatelessGroup, StoreServer
from aiopg.cli import _joining
from aiopg.cli._joining import joined, tell_joining
from aiopg.cli._lines import CLEAR_LINE, Footer, Outlet

RANK = """
import asyncio, os, pathlib, sys
from aiopg import AsyncStatelessGroup
async def main():
    print("begins", flush=True)
    while os.environ["RANK"] == "1" and not pathlib.Path(sys.argv[1]).exists():
        await asyncio.sleep(0.02)
    async with await AsyncStatelessGroup.from_env() as group:
        print("formed", flush=True)
        await group.barrier()
asyncio.run(main())
"""


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command `aiopg` with its output on a terminal of its own, and the other end of that."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "aiopg", *arguments], stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.terminate()
        process.wait()
        os.close(ours)


def read_until(fd: int, text: bytes, seen: bytes = b"") -> bytes:
    """What a terminal shows until that is there, or to its end."""
    while text not in seen:
        try:
            seen += os.read(fd, 65536)
        except OSError:  # the last of its writers has gone
            break
    return seen


@pytest.mark.timeout(30)
def test_a_terminal_shows_a_bar_that_names_the_missing_and_goes(tmp_path: Path) -> None:
    """It stays below what the ranks print, and nothing of it is left when all are there."""
    go = tmp_path / "go"
    with on_a_terminal("run", "-n", "2", "--", sys.executable, "-c", RANK, str(go)) as (process, terminal):
        seen = read_until(terminal, b"1/2 have joined 'default', missing 1")
        go.touch()
        seen = read_until(terminal, b"\0", seen)
        assert process.wait(20) == 0
    lines = seen.replace(CLEAR_LINE, b"\n").split(b"\n")
    assert sorted(line.strip() for line in lines if line.startswith(b"[")) == [
        b"[0] begins", b"[0] formed", b"[1] begins", b"[1] formed",
    ]  # fmt: skip
    assert any(b"[########--------] 1/2 have joined" in line for line in lines)
    assert seen.rindex(CLEAR_LINE) > seen.rindex(b"have joined")


async def test_elsewhere_it_is_told_in_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each change, and a last one when all are there; no control characters."""
    monkeypatch.setattr(_joining, "PATIENCE", 0.0)
    monkeypatch.setattr(_joining, "PAUSES", (0.01,))
    read, write = os.pipe()
    with closing(os.fdopen(read, "rb")) as told:
        async with StoreServer() as server:

            async def look() -> dict[str, object]:
                return server.describe()

            outlet = Outlet(write, anyio.Lock(), Footer())
            telling = asyncio.create_task(tell_joining("aiopg run", look, "crew", outlet))
            groups = []
            for rank in range(3):
                options = {"rank": rank, "world_size": 3, "group": "crew", "store_timeout": 30.0}
                groups.append(asyncio.create_task(AsyncStatelessGroup.connect(server.address, **options)))  # type: ignore[arg-type]
                if rank < 2:
                    line = await asyncio.to_thread(told.readline)
                    missing = "1-2" if rank == 0 else "2"
                    assert line.decode() == f"aiopg run: {rank + 1}/3 have joined 'crew', missing {missing}\n"
            await telling
            assert (await asyncio.to_thread(told.readline)).startswith(b"aiopg run: all 3 have joined, ")
            for group in groups:
                await (await group).close()
        os.close(write)


def test_the_group_that_forms_is_the_one_that_is_told() -> None:
    """Before one that has formed, unless another was named."""
    status = {
        "groups": [
            {"name": "old", "members": {0: "a"}, "world_size": 1, "state": "live"},
            {"name": "new", "members": {1: "b"}, "world_size": 2, "state": "forming"},
        ]
    }
    found = joined(status, None)
    assert found is not None
    assert (found.name, found.is_complete) == ("new", False)
    assert found.bar() == "[########--------] 1/2 have joined 'new', missing 0"
    named = joined(status, "old")
    assert named is not None
    assert named.is_complete
    assert joined(status, "none") is None
