"""Groups of real processes over Redis: every operation, a rank that is killed, a busy one, programs as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiopg.testing import ProcessMaker

from . import ranks
from .conftest import SLOW
from .servers import Server, wait_for

ROOT = Path(__file__).parents[3]


@pytest.fixture
def processes(newest: Server) -> Iterator[ProcessMaker]:
    """Makes ranks that meet at the server."""
    maker = ProcessMaker(newest.url, "t", timeout=40)
    yield maker
    maker.close()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_every_operation_of_a_group_of_processes(processes: ProcessMaker, size: int) -> None:
    """N = 2, 4, 8: each comes to what it should, on every rank, twice over."""
    for told in processes(size, ranks.every_operation).wait():
        assert [one for one in told if type(one) is not bool] == [
            "from 0",
            size * (size + 1) // 2,
            "from 1",
            size * (size + 1) // 2,
        ]
        assert all(told)


def test_the_blocking_group(processes: ProcessMaker) -> None:
    """The same by StatelessGroup."""
    assert processes(3, ranks.every_operation_blocking).wait() == [["x", True, True, 6]] * 3


def test_a_rank_that_is_killed_is_told_in_time(processes: ProcessMaker, tmp_path: Path) -> None:
    """Within the documented time: Capabilities.death_seconds, here of a grace of 1 s."""
    made = processes(2, ranks.wait_for_ever, 40.0, str(tmp_path / "sign"))
    wait_for((tmp_path / "sign").exists)
    made.kill(1)
    kind, seconds = made.wait()[0].split()
    assert kind == "PeerLostError"
    assert float(seconds) < (1 + 1 / 3) * 10 * SLOW


def test_a_rank_whose_loop_is_held_up_lives(processes: ProcessMaker) -> None:
    """Promise 10: for longer than its grace; a thread speaks for it."""
    assert processes(2, ranks.hold_up_the_loop, 2.5).wait() == [[0, 1], [0, 1]]


def aiopg(*arguments: str) -> str:
    """What a command of aiopg prints, which must end well."""
    command = [sys.executable, "-W", "error", "-m", "aiopg", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def test_the_demo_runs_unchanged(newest: Server) -> None:
    """Only the URL is another."""
    assert newest.url in aiopg("demo", "--store", newest.url)


@pytest.mark.parametrize(("ranks", "example"), [("3", "sync_script.py"), ("4", "overlapping_groups.py")])
def test_examples_run_unchanged(newest: Server, ranks: str, example: str) -> None:
    """Only the URL is another."""
    assert aiopg("run", "-n", ranks, "--store", newest.url, "--", sys.executable, f"examples/{example}")
    assert os.environ.get("AIOPG_URL") is None
