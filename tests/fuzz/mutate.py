"""Mutations: from inputs that are known, inputs that nobody has seen. Cheap, as one is made for every run of a target.

All chance comes from one `random.Random`, and of that only `random()`, the cheapest of its methods by far.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

__all__ = ["LONGEST", "Mutator"]

LONGEST = 64 * 1024
"""No input is longer."""

_EXTREMES = (0, 1, 2, 7, 8, 16, 17, 31, 32, 64, 127, 128, 255)
_WIDE = tuple(
    value.to_bytes(width)
    for width in (2, 4, 8)
    for value in (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), 2 ** (8 * width - 1) - 1, 4096, 255)
)
_LONG_COPY = 64


class Mutator:
    """Makes new inputs out of those in `pool`, which may grow meanwhile."""

    def __init__(self, chance: random.Random, pool: list[bytes], tokens: Sequence[bytes]) -> None:
        """`tokens`: byte strings that mean something to the target."""
        self._random = chance.random
        self._pool = pool
        self._tokens = (*tokens, *_WIDE)
        self._changes: tuple[Callable[[bytearray], None], ...] = (
            *(self._set, self._set, self._flip, self._extreme, self._add),
            *(self._overwrite, self._insert, self._delete, self._copy, self._noise, self._splice),
        )

    def next(self) -> bytes:
        """One more input."""
        chance, pool = self._random, self._pool
        data = bytearray(pool[int(chance() * len(pool))])
        for _ in range(1 + int(chance() * chance() * 6)):
            if data:
                self._changes[int(chance() * len(self._changes))](data)
            else:
                data += self._tokens[int(chance() * len(self._tokens))]
        if chance() < 0.03:
            del data[int(chance() * len(data)) :]
        return bytes(data[:LONGEST])

    def _set(self, data: bytearray) -> None:
        data[int(self._random() * len(data))] = int(self._random() * 256)

    def _flip(self, data: bytearray) -> None:
        data[int(self._random() * len(data))] ^= 1 << int(self._random() * 8)

    def _extreme(self, data: bytearray) -> None:
        data[int(self._random() * len(data))] = _EXTREMES[int(self._random() * len(_EXTREMES))]

    def _add(self, data: bytearray) -> None:
        place = int(self._random() * len(data))
        data[place] = (data[place] + int(self._random() * 9) - 4) & 255

    def _overwrite(self, data: bytearray) -> None:
        token = self._tokens[int(self._random() * len(self._tokens))]
        place = int(self._random() * len(data))
        data[place : place + len(token)] = token

    def _insert(self, data: bytearray) -> None:
        place = int(self._random() * (len(data) + 1))
        data[place:place] = self._tokens[int(self._random() * len(self._tokens))]

    def _delete(self, data: bytearray) -> None:
        place = int(self._random() * len(data))
        del data[place : place + 1 + int(self._random() * self._random() * _LONG_COPY)]

    def _copy(self, data: bytearray) -> None:
        """A piece of it once more, elsewhere."""
        start, place = int(self._random() * len(data)), int(self._random() * (len(data) + 1))
        data[place:place] = data[start : start + 1 + int(self._random() * self._random() * _LONG_COPY)]

    def _noise(self, data: bytearray) -> None:
        place = int(self._random() * (len(data) + 1))
        data[place:place] = bytes(int(self._random() * 256) for _ in range(1 + int(self._random() * 6)))

    def _splice(self, data: bytearray) -> None:
        """Go on as another one does."""
        other = self._pool[int(self._random() * len(self._pool))]
        place = int(self._random() * (min(len(data), len(other)) + 1))
        data[place:] = other[place:]
