"""The plan of a chaos: spells, each ending in a cut, drawn from one source of chance."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Spell"]

LONGEST_STALL = 0.2
"""Seconds; a stall is no longer than that."""

MOST_BEFORE_CUT = 200_000
"""A cut falls after 1 to so many bytes, or at once."""

LARGEST_PIECE = 4096
"""Fragments have at most 1 to so many bytes."""


@dataclass(frozen=True, slots=True)
class Spell:
    """One cut of a chaos and the time before it, in seconds.

    Attributes:
        length: from the cut before to this one.
        calm: how long until something happens.
        stall: how long bytes then stand still; 0 for not at all.
        most: largest piece while it lasts, or None for whole ones.
        after: bytes that pass after the stall before the cut; None if it waits for the end.
    """

    length: float
    calm: float
    stall: float
    most: int | None
    after: int | None

    @classmethod
    def draw(cls, chance: random.Random, between: tuple[float, float]) -> Spell:
        """The next spell; always the same number of draws."""
        length = chance.uniform(*between)
        calm = chance.uniform(0.0, length)
        stall = min(chance.uniform(0.0, LONGEST_STALL), length - calm) * chance.choice((0, 1))
        most = chance.choice((None, chance.randint(1, LARGEST_PIECE)))
        return cls(length, calm, stall, most, chance.choice((None, chance.randint(1, MOST_BEFORE_CUT))))
