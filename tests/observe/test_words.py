"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from aiopg.observe.words import duration, size


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 us"), (0.00085, "850 us"), (0.0025, "2.5 ms"), (0.4, "400 ms"), (0.9996, "1.0 s"), (12.34, "12.3 s"),
        (59.96, "1 min 0 s"), (192.0, "3 min 12 s"), (3599.7, "1 h 0 min"), (7500.0, "2 h 5 min"),
        (4 * 86400 + 3 * 3600.0, "4 d 3 h"), (math.inf, "for ever"),
    ],
)  # fmt: skip
def test_a_time_is_told_in_the_units_that_it_needs(seconds: float, said: str) -> None:
    """Two at most; what is rounded up to a whole one of the next unit is told in that."""
    assert duration(seconds) == said


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**50, "1024.0 TiB")])
def test_a_size_is_told_in_the_unit_that_it_needs(count: int, said: str) -> None:
    """Powers of 1,024."""
    assert size(count) == said
