"""`aiopg demo`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aiopg.cli._demo_check import STEPS
from aiopg.cli._demo_rank import NEWS

from .programs import StartAiopg

STEP = {step.name: step for step in STEPS}


def who(*pids: int) -> list[dict[str, int]]:
    return [{"rank": rank, "pid": pid} for rank, pid in enumerate(pids)]


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
