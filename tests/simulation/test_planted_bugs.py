"""The simulator sees: bugs that were put in on purpose are found."""

from __future__ import annotations

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.planted import LIMIT, find
from tests.simulation.play import play

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str) -> None:
    """Within `LIMIT` seeds, by what it does to its users, and the same seed is clean without it."""
    found = find(name)
    assert found is not None, f"not found in {LIMIT} seeds"
    seed, what = found
    print(f"seed {seed}: {what}")
    assert play(seed).wrong == []
