"""Who runs when: everybody once in each round, and nobody always behind the same neighbour."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def take_turns(contestants: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield every contestant once for each round, in an order that turns by one each round."""
    for turn in range(rounds):
        first = turn % max(1, len(contestants))
        yield from contestants[first:]
        yield from contestants[:first]
