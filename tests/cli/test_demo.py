"""`aiopg demo`."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest

from aiopg import StoreServer
from aiopg.cli._demo_check import STEPS
from aiopg.cli._demo_rank import NEWS

from .programs import StartAiopg

STEP = {step.name: step for step in STEPS}


def who(*pids: int) -> list[dict[str, int]]:
    return [{"rank": rank, "pid": pid} for rank, pid in enumerate(pids)]


async def run_aiopg(*arguments: str) -> tuple[int | None, str]:
    """Run it to its end; exit code, and all that it said."""
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aiopg", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await program.communicate()
    return program.returncode, said.decode()


def test_the_demo_passes_and_names_the_straggler(start_on_each_loop: StartAiopg) -> None:
    """In under ten seconds every step is shown, three ranks name the fourth, and the table has a line for each."""
    began = time.monotonic()
    code, stdout, stderr = start_on_each_loop("demo").finish()
    assert (code, stderr) == (0, b"")
    assert time.monotonic() - began < 10
    text = stdout.decode()
    assert text.count("GroupTimeoutError: barrier number 4 (tag 0) of group 'demo' timed out") == 3
    assert text.count("missing: rank 3; arrived: 0-2") == 3
    table = text.partition("What each rank saw")[2].splitlines()
    assert table[2].split() == ["rank", *STEP]
    assert [line.split()[0] for line in table[4:8]] == ["0", "1", "2", "3"]


def test_a_demo_of_two(start: StartAiopg) -> None:
    """The smallest group has all steps too; one process alone is refused."""
    assert start("demo", "-n", "2").finish()[0] == 0
    assert start("demo", "-n", "1").finish()[0] == 2


async def test_a_demo_at_a_store_that_runs_already() -> None:
    """`--store URL`: the ranks meet there, and two demos at once do not meet each other."""
    async with StoreServer() as server:
        code_and_output = await asyncio.gather(*[run_aiopg("demo", "-n", "2", "--store", server.address) for _ in "ab"])
        for code, text in code_and_output:
            assert code == 0, text
            assert f"They meet at the store {server.address}" in text
            assert "Every rank saw what it should." in text
        assert server.describe()["groups"] == []


@pytest.mark.parametrize("command", [("demo",), ("run", "-n", "2")])
@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memory://here", "the ranks are processes, and memory://here is within one"),
        ("ftp://here", "no store is known by 'ftp://here'"),
        ("aiopg://127.0.0.1", "no port in 'aiopg://127.0.0.1'"),
    ],
)
def test_a_store_that_cannot_be_is_told_at_once(
    start: StartAiopg, command: tuple[str, ...], url: str, told: str
) -> None:
    """Exit code 2 and one line, before any rank is started."""
    program = ("--", "true") if command[0] == "run" else ()
    code, stdout, stderr = start(*command, "--store", url, *program).finish()
    assert (code, stdout) == (2, b"")
    assert told in stderr.decode()
    assert stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("step", "right", "wrong"),
    [
        ("all_gather", [who(7, 8), who(7, 8)], [who(7, 8), who(7, 9)]),
        ("broadcast", [NEWS, NEWS], [NEWS, "old news"]),
        ("barrier", [(1.0, 3.0), (2.0, 3.0)], [(3.0, 3.5), (1.0, 2.0)]),
        ("ring", [[0, 1], [0, 1]], [[0, 1], [1]]),
        ("straggler", [(2,), (2,), None], [(2,), (0,), None]),
    ],
)
def test_each_step_is_checked(step: str, right: list[Any], wrong: list[Any]) -> None:
    """What rank 1 saw wrong is found, and nothing else."""
    assert STEP[step].faults(right) == []
    assert STEP[step].faults(wrong) == [1]
