"""Inputs never seen before: nothing that a stranger can write brings a part of the product down."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Hashable, Iterable
from pathlib import Path

import pytest

from tests.fuzz.__main__ import FINDINGS, replay, replay_command
from tests.fuzz.fuzzer import Fuzzer, Report, TookTooLong, check, one_at_a_time
from tests.fuzz.planted import BUGS, find
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.workers import fuzz, keep

SECONDS = float(os.environ.get("AIOPG_FUZZ_SECONDS") or 3)
SEED = int(os.environ.get("AIOPG_FUZZ_SEED") or secrets.randbelow(10**9))
ENDLESS = 10**12

pytestmark = pytest.mark.timeout(300 + 2 * SECONDS)

reports: dict[str, Report] = {}
"""For the summary of the run."""


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_that_a_stranger_writes_does_harm(name: str) -> None:
    """No error but the documented ones, no hang, no memory beyond the bound, and what must hold holds."""
    print(f"seed {SEED}")
    report = reports[name] = fuzz([name], SEED, ENDLESS, SECONDS)[name]
    told = [
        f"{finding.what}\n{len(finding.data)} bytes; replay: "
        f"{replay_command(finding, keep(FINDINGS / name, finding.data))}"
        for finding in report.findings
    ]
    assert not told, "\n".join(told)
    assert report.inputs > 100 * SECONDS


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    """Within its number of inputs, and the input that finds it is in order without it."""
    print(f"seed {SEED}")
    found = find(name, SEED)
    assert found is not None, f"not found in {BUGS[name].inputs} inputs"
    count, finding = found
    print(f"input {count}: {finding.what}")
    with one_at_a_time():
        assert check(TARGETS[BUGS[name].target](), finding.data)[0] is None


class _Greedy(Target):
    """Does what a target must not do, as its input says."""

    name = "greedy"

    def seeds(self) -> list[bytes]:
        """One that does no harm."""
        return [b"abc"]

    def run(self, data: bytes) -> Iterable[Hashable]:
        """Takes time, or memory."""
        while data == b"time":
            pass
        return (len(bytearray(10_000_000 * data.count(b"m"))),)

    def memory(self, size: int) -> int:
        """No more than its size."""
        return 1000 + size


def test_an_input_that_takes_too_long_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor's time, in the middle of what is under test."""
    monkeypatch.setattr("tests.fuzz.fuzzer.CPU_SECONDS", 0.2)
    with one_at_a_time():
        finding, _ = check(_Greedy(), b"time")
    assert finding is not None
    assert TookTooLong.__name__ in finding.what


def test_an_input_that_takes_too_much_memory_is_found() -> None:
    """Also where it is let go at once."""
    with one_at_a_time():
        finding, _ = check(_Greedy(), b"m")
        assert check(_Greedy(), b"x")[0] is None
    assert finding is not None
    assert "made it allocate 10000" in finding.what


def test_a_worker_that_stands_still_is_ended_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its parent, which waits for no input forever. (None at all here: the worker is still about its start.)"""
    monkeypatch.setattr("tests.fuzz.workers.HANG_SECONDS", 0.0)
    monkeypatch.setattr("tests.fuzz.workers.LOOK_SECONDS", 0.01)
    (finding,) = fuzz(["codec"], 1, ENDLESS, seconds=60)["codec"].findings
    assert finding.what == "the worker of chunk 0 stood still for 0.0 s"


def test_a_failing_input_is_made_small() -> None:
    """Nothing is left in it that it can do without."""
    fuzzer = Fuzzer(_Greedy(), 1, [b"memory"])
    fuzzer.run(1000, time.monotonic() + 60, most=1)
    (finding,) = fuzzer.report.findings
    assert finding.data == b"m"


def test_one_seed_gives_one_run() -> None:
    """The same inputs in the same order, another seed others."""
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        seen.append([])
        Fuzzer(TARGETS["codec"](), seed, []).run(1500, time.monotonic() + 60, seen[-1].append)
    assert seen[0] == seen[1]
    assert seen[0][1000:] != seen[2][1000:]


def test_a_kept_input_can_be_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the file that is named by its hash."""
    path = keep(tmp_path, b"\0\xc1")
    assert len(path.name) == 16
    assert replay("codec", path) == 0
    assert "nothing is wrong" in capsys.readouterr().out
