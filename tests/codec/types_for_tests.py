"""Classes that the tests send."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from aiopg.codec import TypeRegistry


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("b", 2)


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    FAST = "fast"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Peer:
    host: str
    port: int = 0
    load: object = None


@dataclass(frozen=True, slots=True)
class Frozen:
    key: tuple[int, ...]
    digest: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", len(self.key))


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Lock:
    """A class that can be sent only with functions of its own."""

    def __init__(self, number: int) -> None:
        self.number = number


def full_registry() -> TypeRegistry:
    """A registry that knows every class of this module but Lock."""
    registry = TypeRegistry()
    for cls in (Colour, Level, Mode, Rights, Peer, Frozen, Point):
        registry.register(cls)
    return registry
