"""Wrong tokens, counted by the address that they came from: who guesses is told so only so often."""

from __future__ import annotations

from collections import Counter

__all__ = ["Guesses"]


class Guesses:
    """Of the second that runs."""

    def __init__(self, most: int) -> None:
        """`most`: of one address that are told so within a second."""
        self._most = most
        self._wrong: Counter[str] = Counter()
        self._began = float("-inf")

    def wrong(self, address: str, now: float) -> bool:
        """A wrong one came from there, at `now` (monotonic seconds); whether it is to be told so."""
        if now >= self._began + 1:
            self._began = now
            self._wrong.clear()
        self._wrong[address] += 1
        return self._wrong[address] <= self._most
