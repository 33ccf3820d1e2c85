"""What happened in a simulated cluster, as a bystander sees it: the calls that were made, and what was done to whom.

Nothing here knows how aiopg works. Times are virtual seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["AGAIN", "FINISHED", "CollectiveStep", "History", "Plan", "Process", "Record", "Seat"]

FINISHED = "ok"
AGAIN = ("cancelled", "GroupTimeoutError")
"""Outcomes after which the same call is made again."""


class CollectiveStep(NamedTuple):
    """One collective that every rank is to call."""

    op: str
    root: int
    size: int


@dataclass(slots=True, eq=False)
class Plan:
    """What the members of a group are to do in each of its lives."""

    world_size: int
    ttl: float
    collectives: dict[int, list[CollectiveStep]]
    """By tag."""
    streams: dict[tuple[int, int, int], list[int]]
    """Sizes of the messages by (src, dst, tag)."""


@dataclass(slots=True, eq=False)
class Process:
    """One process; a rank that comes again after a crash is another one."""

    number: int
    rank: int
    owner: str
    """Its name on the network."""
    grace: float
    killed_at: float = math.inf
    replaced_at: float = math.inf
    """From when on another process may take its rank by force."""
    exposure: float = 0.0
    """Seconds for which the network may have kept it from the store, all faults added up."""
    restarts: int = 0
    """How many times its store crashed while it lived."""
    connections: int = 0
    """How many it made."""
    under_way: int = 0
    """How many of its calls wait now."""
    on_bytes: list[Callable[[], object]] = field(default_factory=list, repr=False)
    """Called once each, before the next bytes that reach it are read."""


@dataclass(slots=True, eq=False)
class Seat:
    """A process's part in one life of one group."""

    process: Process
    group: str
    incarnation: int = 0
    """0 until it joined."""
    closing_at: float = math.inf
    aborting_at: float = math.inf

    @property
    def rank(self) -> int:
        return self.process.rank


@dataclass(slots=True, eq=False)
class Record:
    """One call."""

    seat: Seat
    op: str
    tag: int
    index: int
    """Its number among the calls of its kind, by plan, from 1; calling again is the same number."""
    peer: int
    """The other rank of a send or recv, the root of a collective; -1 without one."""
    started: float
    deadline: float
    cancelled_at: float = math.inf
    ended: float = math.inf
    outcome: str = ""
    """`FINISHED`, "cancelled", "killed" (with its process), or the class of its error; empty: never ended."""
    error: BaseException | None = None
    result: Any = None
    takeover: bool = False
    """A join that is to put out who holds the rank."""

    def __str__(self) -> str:
        seat = self.seat
        return (
            f"{seat.process.owner} {seat.group}#{seat.incarnation} {self.op} {self.index} tag {self.tag} "
            f"peer {self.peer} [{self.started:.4f}, {self.ended:.4f}] deadline {self.deadline:.4f}: "
            f"{self.outcome or 'never ended'}{f' ({self.error})' if self.error else ''}"
        )


@dataclass(slots=True, eq=False)
class History:
    """All of it."""

    plans: dict[str, Plan]
    processes: list[Process] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    retired: dict[int, float] = field(default_factory=dict)
    """When a rank went and came no more, by rank."""
    restarts: list[float] = field(default_factory=list)
    """When the store crashed."""
    left_over: list[str] = field(default_factory=list)
    """What was still there at the end and should not be."""
