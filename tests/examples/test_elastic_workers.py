"""Workers that lose one of four and go on."""

from __future__ import annotations

import re

from .programs import StartProgram, example

GONE = re.compile(r"worker (\d): rank 2 of group '.*' is gone: .*; I am rank (\d) of 3 now")


def test_three_of_four_do_all_steps(start: StartProgram) -> None:
    """Totals are those of four workers in every step, though one was killed; survivors are counted anew, in order."""
    lines = start(example("elastic_workers.py")).lines()
    gone = [found.groups() for found in map(GONE.fullmatch, lines) if found]
    assert gone == [("0", "0"), ("1", "1"), ("3", "2")]
    totals = [
        f"worker {worker}: step {step} makes {sum(range(1000 * step, 1000 * step + 1000))}"
        for worker in range(4)
        for step in range(3 if worker == 2 else 6)
    ]
    rest = [line for line in lines if not GONE.fullmatch(line)]
    assert rest == sorted([*totals, "3 of 4 workers did all 6 steps"])
