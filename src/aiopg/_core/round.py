"""One round, and the arrivals in it. `rounds` states the rules and moves them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aiopg._core.frames import Body, Buffer
from aiopg._core.messages import Needs, Tag
from aiopg._core.recorder import About
from aiopg._core.replies import SessionId, Waiting
from aiopg.errors import AiopgError

if TYPE_CHECKING:
    from aiopg._core.rounds import Rounds

__all__ = ["Arrival", "Round", "Signature"]

SIGNATURE_TEXT = 128
"""As many characters of a signature are told to people."""


class Signature(NamedTuple):
    """What must agree between the ranks of a round."""

    op: str
    root: int
    detail: str

    def __str__(self) -> str:
        said = [f"root={self.root}"] if self.root >= 0 else []
        said += [f"op={self.detail}"] if self.detail else []
        # Cut, because a mismatch tells every rank what every rank called.
        return f"{self.op}({', '.join(said)})"[:SIGNATURE_TEXT]


class Arrival(Waiting):
    """One rank's call in a round: what it gave, what it needs."""

    __slots__ = ("at", "expires", "needs", "parts", "rank", "round")

    def __init__(
        self,
        session: SessionId,
        seat: int,
        call: int,
        needs: int,
        round: Round,
        rank: int,
        parts: Sequence[Buffer],
        now: float,
        ttl: float,
    ) -> None:
        # As Waiting.__init__, without the call: one of these is made for every arrival.
        self.session = session
        self.seat = seat
        self.call = call
        self.needs = needs
        self.round = round
        self.rank = rank
        self.parts = parts
        self.at = now
        self.expires = now + ttl

    def part_for(self, rank: int) -> Buffer:
        parts = self.parts
        if not parts:
            return b""
        return parts[0] if len(parts) == 1 else parts[rank]

    def facts(self) -> tuple[list[int], list[int]]:
        return self.round.facts(self)

    def told_facts(self) -> Body:
        known, needs = self.round.known, self.needs
        if needs not in known:
            known[needs] = super().told_facts()
        return known[needs]

    def lines(self, missing: Sequence[int]) -> tuple[str, ...]:
        return self.round.rounds.lines(self.round, missing)

    def withdraw(self) -> bool:
        return self.round.rounds.withdraw(self)

    def confirmed(self) -> None:
        self.round.rounds.confirm(self)


class Round:
    """One collective call, from its first arrival until every rank was told its outcome."""

    __slots__ = (
        "about",
        "arrivals",
        "bytes",
        "error",
        "expired",
        "has_parts",
        "known",
        "leaves_last",
        "number",
        "oldest",
        "rounds",
        "settled",
        "signature",
        "tag",
        "told",
        "unconfirmed",
        "withdrawn",
    )

    def __init__(self, rounds: Rounds, tag: Tag, number: int, signature: Signature) -> None:
        self.rounds = rounds
        self.tag = tag
        self.number = number
        self.signature = signature
        self.about: About = rounds.trail.of(signature.op, tag, number)
        """For the recorder."""
        self.arrivals: dict[int, Arrival] = {}
        self.told: set[int] = set()  # ranks that had their answer or error
        self.error: AiopgError | None = None  # the outcome of all who come, once decided to be a failure
        self.expired: AiopgError | None = None  # why parts are no longer here
        self.settled = 0  # the ranks below this one were told or are gone
        self.unconfirmed: set[int] = set()  # ranks answered whose acknowledgement a needer of ALL_TOLD awaits
        self.withdrawn: set[int] = set()  # ranks that had arrived and gave up
        self.known: dict[int, Body] = {}  # by needs, what those are told who inquire; empty when that has changed
        self.has_parts = False  # whether one gave something, or did before it was taken back
        self.leaves_last = False  # whether one needs ALL_TOLD, or did
        self.bytes = 0
        self.oldest = math.inf  # no part expires before this time

    def facts(self, arrival: Arrival) -> tuple[list[int], list[int]]:
        world = range(self.rounds.world_size)
        if arrival.needs == Needs.ROOT:
            missing = [self.signature.root] if self.signature.root not in self.arrivals else []
        else:
            missing = [rank for rank in world if rank not in self.arrivals]
            # Ranks with one deadline give up together: each is to be told who never came, not who gave up before it.
            missing = [rank for rank in missing if rank not in self.withdrawn] or missing
        return sorted(self.arrivals), missing or sorted(self.unconfirmed)

    def came(self) -> Iterator[tuple[float, str]]:
        """When each rank arrived, the last one first; for people."""
        op = self.signature.op if self.error is None else "collective"  # they came to different ones
        for rank, arrival in reversed(self.arrivals.items()):
            yield arrival.at, f"rank {rank} came to {op} number {self.number} (tag {self.tag!r})"

    @property
    def opened_at(self) -> float:
        """When the first of those that are in it arrived; NaN if that is not known."""
        for arrival in self.arrivals.values():
            return arrival.at
        return math.nan

    def waiting(self) -> list[Arrival]:
        return [arrival for arrival in self.arrivals.values() if arrival.rank not in self.told]
