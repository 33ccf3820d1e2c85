"""What a target is: a part of the product that reads what strangers wrote, and what must hold whatever that was."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Sequence
from typing import ClassVar

__all__ = ["PACKER", "Target"]

PACKER = 256 * 1024
"""msgpack's packer begins with a buffer of this size, whatever it packs."""


class Target(ABC):
    """One part of the product under arbitrary input. One object serves any number of inputs, which know nothing of
    one another.
    """

    name: ClassVar[str]
    tokens: ClassVar[Sequence[bytes]] = ()
    """Byte strings that mean something in an input: magics, heads, lengths."""

    grain: ClassVar[int] = 1
    """So many bytes of an input mostly belong together."""

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Inputs to begin from, mostly well-formed."""

    @abstractmethod
    def run(self, data: bytes) -> Iterable[Hashable]:
        """Give an input to the product and check all that must hold.

        Returns what it came to, roughly, in a few words: an input that comes to anything that none before it did is
        kept to be mutated. Raises `AssertionError` where something does not hold; the product's errors that its
        docstrings do not name pass.
        """

    def large(self) -> list[bytes]:
        """Inputs that take long: they are run, and not mutated."""
        return []

    def parse(self, data: bytes) -> object:
        """Only what the product does, without checks: what `memory` is about."""
        return self.run(data)

    @abstractmethod
    def memory(self, size: int) -> int:
        """As many bytes may `parse` allocate at most for an input of `size` bytes."""
