"""Clusters in virtual time, other ones in each run: whatever goes wrong, the promises hold."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aiopg import errors
from aiopg.errors import AiopgError
from tests.simulation.play import play
from tests.simulation.reach import ELSEWHERE, ERRORS
from tests.simulation.run import ENOUGH, Summary, describe, play_seeds

pytestmark = pytest.mark.timeout(300)  # a chunk takes a few seconds, and minutes on a machine that is busy

CHUNK = 200
CHUNKS = ENOUGH // CHUNK
BASE = int(os.environ.get("AIOPG_SIMULATION_SEED", time.time_ns() // 1000 % 1_000_000_000))
"""The first seed."""

REGRESSIONS = {
    4927: "of several sessions that took too little one was ended twice, at the expense of another's connection",
    4992: "the same, where the end of one filled up the next",
    291230665: "calls that waited for room were not told of the room that there was when the session went on",
    25: "a store whose disk had failed kept its members' connections open, and said nothing on them any more",
    20397: "the same with connections that were about to be closed",
}
"""Seeds that once found a bug of the product, and which."""

_all = Summary()


def _play_in_another_process(seed: int, hash_seed: str) -> str:
    code = f"from tests.simulation.play import play; print(play({seed}).trace)"
    env = os.environ | {"PYTHONHASHSEED": hash_seed}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_every_promise_holds_in_clusters_never_seen_before(chunk: int) -> None:
    """No history of these seeds breaks a promise, and nothing is left behind."""
    first = BASE + chunk * CHUNK
    print(f"seeds {first} to {first + CHUNK - 1}")
    summary = play_seeds(first, first + CHUNK - 1)
    _all.add(summary)
    assert not summary.wrong, "\n".join(map(describe, summary.wrong))


def test_all_that_can_go_wrong_went_wrong() -> None:
    """Every fault, every class of error and every transition was reached in the seeds above, if they all ran here."""
    if _all.seeds < ENOUGH:
        pytest.skip(f"only {_all.seeds} seeds were run by this process")
    assert not _all.unreached, f"from seed {BASE}"


def test_every_class_of_error_is_reached_or_has_its_place_elsewhere() -> None:
    """No error is forgotten."""
    classes = [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, AiopgError)
    ]
    assert sorted(classes) == sorted([*ERRORS, *ELSEWHERE])


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_found_a_bug_finds_it_no_more(seed: int) -> None:
    """What it found once says `REGRESSIONS`."""
    outcome = play(seed)
    assert not outcome.wrong, f"{REGRESSIONS[seed]}\n{describe(outcome)}"


@pytest.mark.parametrize("chunk", range(4))
def test_asyncio_finds_nothing_to_complain_of_in_its_debug_mode(chunk: int) -> None:
    """A hundred of the seeds above, again: the same runs, and no coroutine that is never awaited, no late closing."""
    for seed in range(BASE + chunk * 25, BASE + chunk * 25 + 25):
        outcome = play(seed, debug=True)
        assert not outcome.wrong, describe(outcome)
        assert outcome.trace == play(seed).trace


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_one_seed_is_one_run_in_any_process(seed: int) -> None:
    """The same seed gives the same trace, here, again, and in a process that hashes text in another way."""
    first = play(seed).trace
    assert play(seed).trace == first
    assert _play_in_another_process(seed, "1") == first == _play_in_another_process(seed, "2")
    assert play(seed + 1).trace != first


def test_a_run_leaves_the_process_as_it_was() -> None:
    """Chance, time and identity are the process's own again."""
    before = os.getpid()
    assert play(BASE).wrong == []
    assert os.getpid() == before == int(os.readlink("/proc/self"))
    assert secrets.token_bytes(16) != secrets.token_bytes(16)
    assert time.monotonic() != 1000.0
