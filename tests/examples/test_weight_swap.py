"""A trainer and two inference workers that change weights together."""

from __future__ import annotations

import re
from itertools import pairwise

from .programs import StartProgram, under_run

ANSWERS = re.compile(r"\[\d\] worker (\d): version (\d): \d+ answers from ([\d.]+) to ([\d.]+)")


def test_no_two_versions_answer_at_one_time(start: StartProgram) -> None:
    """Both workers answer by every good version and by no damaged one; an old one has ended where a new one begins.

    The workers' times are of one clock, that of the host.
    """
    lines = start(*under_run(3, "weight_swap.py")).lines()
    assert [line for line in lines if "trainer" in line] == [
        "[0] trainer: version 1 is live",
        "[0] trainer: version 2 was refused",
        "[0] trainer: version 3 is live",
    ]
    spans: dict[int, dict[int, tuple[float, float]]] = {}
    for worker, version, first, last in (found.groups() for found in map(ANSWERS.fullmatch, lines) if found):
        spans.setdefault(int(version), {})[int(worker)] = float(first), float(last)
    assert {version: sorted(workers) for version, workers in spans.items()} == {0: [1, 2], 1: [1, 2], 3: [1, 2]}
    for old, new in pairwise(sorted(spans)):
        ended = max(last for _, last in spans[old].values())
        assert ended <= min(first for first, _ in spans[new].values())
