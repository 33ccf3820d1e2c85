"""Rounds: the collectives of one incarnation of a group. All of them are one thing.

A round is one collective call: (tag, number). Each rank arrives once, gives parts and says what it needs:

=============  =======================  ================
collective     gives                    needs
=============  =======================  ================
barrier        nothing                  ALL
broadcast      root: one part           ROOT; root: NOTHING
all_gather     one part                 ALL
all_reduce     one part                 ALL
gather         one part                 dst: ALL; NOTHING
reduce         one part                 dst: ALL; NOTHING
scatter        root: a part per rank    ROOT
all_to_all     a part per rank          ALL
=============  =======================  ================

Rules:

- A rank is answered as soon as what it needs is there. What a needer of ALL gets is every rank's part in rank
  order behind a table of their lengths (`join_parts`), encoded once for all; a giver of a part per rank gives
  them in the same form and each rank gets its own.
- An arrival that was not answered can be withdrawn and leaves no trace: it is not counted, ever.
- All arrivals of a round have one signature (op, root, detail). The first that differs decides: the round is a
  mismatch, for those who wait in it and those who come to it later. A rank that was answered before (the source
  of a broadcast does not wait) owes the others that error: the next round it comes to is a mismatch too.
- A rank that is gone fails every round that needs it and in which it had not arrived. Its arrivals count.
- A part that waited longer than its giver's ttl, the giver not waiting with it, expires: those who need it get
  `DataExpiredError`.
- A round is freed when every rank that is not gone was told its outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

from aiopg._core.frames import Body, Buffer, body_size
from aiopg._core.limits import Limits
from aiopg._core.messages import Arrive, Needs, Tag
from aiopg._core.parts import pack_parts, split_parts
from aiopg._core.recorder import Trail
from aiopg._core.replies import Replies, SessionId
from aiopg._core.round import Arrival, Round, Signature
from aiopg.errors import (
    AiopgError,
    CollectiveMismatchError,
    DataExpiredError,
    PayloadTooLargeError,
    PeerLostError,
    ProtocolError,
    StoreFullError,
    UsageError,
)

__all__ = ["Rounds"]

ROUNDS_SHOWN = 64
RANKS_SHOWN = 1024
"""More is of no use to people, and would keep everybody waiting while it is written down."""


class Rounds:
    """All open rounds of one incarnation."""

    def __init__(self, group: str, world_size: int, limits: Limits, replies: Replies, trail: Trail) -> None:
        self._group = group
        self.world_size = world_size
        self._limits = limits
        self._replies = replies
        self._rounds: dict[tuple[Tag, int], Round] = {}
        self.trail = trail
        self.gone: dict[int, PeerLostError] = {}
        self._owed: dict[tuple[Tag, int], CollectiveMismatchError] = {}  # (tag, rank) -> what it was not told
        self.bytes = 0
        """Payload bytes held by all open rounds."""

    def __len__(self) -> int:
        return len(self._rounds)

    def observe(self, trail: Trail) -> None:
        """See `Engine.observe`."""
        self.trail = trail
        for round in self._rounds.values():
            round.about = trail.of(round.signature.op, round.tag, round.number)

    def describe(self) -> list[dict[str, object]]:
        """The open rounds, oldest first, for people: `ROUNDS_SHOWN` of them, and `RANKS_SHOWN` ranks of each."""
        return [
            {
                "tag": round.tag,
                "number": round.number,
                "call": str(round.signature),
                "arrived": sorted(round.arrivals)[:RANKS_SHOWN],
                "missing": list(islice((rank for rank in world if rank not in round.arrivals), RANKS_SHOWN)),
                "bytes": round.bytes,
                **self._age(round),
            }
            for world in [range(self.world_size)]
            for round in islice(self._rounds.values(), ROUNDS_SHOWN)
        ]

    def _age(self, round: Round) -> dict[str, object]:
        recorder, opened_at = self.trail.recorder, round.opened_at
        return {"since": recorder.now - opened_at} if recorder.is_on and not math.isnan(opened_at) else {}

    # -------------------------------------------------------------------------------------------- arriving

    def arrive(self, session: SessionId, rank: int, command: Arrive, now: float, ttl: float) -> None:
        """A rank comes to a round; what it gives expires `ttl` seconds from now.

        Raises `UsageError`, `ProtocolError` or `StoreFullError` for an arrival that cannot be; it was not counted.
        """
        call, seat, tag, number, op, root, detail, needs, pieces, _ = command
        key = (tag, number)
        signature = (op, root, detail)
        parts = self._parts(command) if pieces else ()
        round, is_new = self._rounds.get(key), False
        if round is None:
            if len(self._rounds) + len(self._owed) >= self._limits.open_rounds:
                raise StoreFullError("open_rounds", self._limits.open_rounds, f"group {self._group!r}")
            round = Round(self, tag, number, Signature(*signature))
            is_new = True
        elif rank in round.arrivals:
            raise UsageError(f"rank {rank} has already arrived at {op} number {number}")
        elif round.oldest <= now:
            self._expire_round(round, now)
        arrival = Arrival(session, seat, call, needs, round, rank, parts, now, ttl)
        self._replies.wait(arrival)
        # From here on nothing is refused: the arrival counts.
        trail = self.trail
        note, numbers, about = trail.append, trail.numbers, round.about
        if is_new:
            self._rounds[key] = round
            note((next(numbers), now, "opened", rank, about, root if root >= 0 else ""))
        note((next(numbers), now, "arrived", rank, about, ""))
        round.arrivals[rank] = arrival
        if round.known:
            round.known.clear()
        if round.withdrawn:
            round.withdrawn.discard(rank)
        if needs > Needs.ALL:
            round.leaves_last = True
        if parts:
            round.has_parts = True
            round.oldest = min(round.oldest, arrival.expires)
            size = len(parts[0]) if pieces == 1 else sum(map(len, parts))
            round.bytes += size
            self.bytes += size
        if self._owed and (owed := self._owed.pop((tag, rank), None)) is not None:
            self._fail_round(round, owed)
        elif round.error is not None:
            self._fail([arrival], round.error)
            self._drop_parts(arrival)
        elif signature != round.signature:
            self._mismatch(round, rank, Signature(*signature))
        elif needs < Needs.ALL or rank == root or self.gone or round.expired:
            self._settle(round, arrival)
        elif len(round.arrivals) == self.world_size:
            self._complete(round, rank)
        if len(round.told) + len(self.gone) >= self.world_size:
            self._free_if_done(round)

    def _parts(self, command: Arrive) -> Sequence[Buffer]:
        if command.pieces == 1:
            body = command.body
            return body if len(body) == 1 else (b"".join(body),)
        if command.pieces != self.world_size:
            raise ProtocolError(f"{command.pieces} parts for {self.world_size} ranks")
        return split_parts(command.body, command.pieces)

    def _settle(self, round: Round, arrival: Arrival) -> None:
        """Answer everybody whom this arrival completes, itself included."""
        needs, root = arrival.needs, round.signature.root
        if needs == Needs.NOTHING:
            self._answer(arrival, ())
        elif needs == Needs.ROOT and arrival.rank != root:
            self._settle_needer(round, arrival, root)
        if arrival.rank == root:
            for other in round.arrivals.values():
                if other.needs == Needs.ROOT and other.rank not in round.told:
                    self._settle_needer(round, other, root)
        if len(round.arrivals) == self.world_size:
            self._complete(round, arrival.rank)
        elif needs >= Needs.ALL and (self.gone or round.expired):
            self._fail_needer(round, arrival, sorted(rank for rank in self.gone if rank not in round.arrivals))

    def _settle_needer(self, round: Round, arrival: Arrival, root: int) -> None:
        """Answer a needer of the root's part if it is there, fail it if it can no longer come."""
        if round.expired is not None or root not in round.arrivals:
            self._fail_needer(round, arrival, [root] if root in self.gone else [])
        else:
            part = round.arrivals[root].part_for(arrival.rank)
            self._answer(arrival, (part,) if part else ())

    def _fail_needer(self, round: Round, arrival: Arrival, lost: list[int]) -> None:
        """Fail an arrival whose needs cannot be met: what it needs has expired, or ranks are `lost` that it needs."""
        if round.expired is not None:
            self._fail([arrival], round.expired)
        elif lost:
            error = PeerLostError(self._group, lost, self.gone[lost[0]].reason)
            self.trail.failed(lost[0], round.about, error)
            self._fail([arrival], error)

    def _complete(self, round: Round, last: int) -> None:
        """Every rank is there, now that the `last` one came: answer all who need all."""
        needers = round.waiting()[::-1]  # who came last has hardly gone to sleep, and finds its caches warm
        if round.expired is not None:
            self._fail(needers, round.expired)
            return
        self.trail.done(last, round.about, round.opened_at)
        if not round.leaves_last or not any(a.needs == Needs.ALL_TOLD for a in needers):
            self._hand_out(round, needers)
            return
        # Somebody leaves last: the others' answers ask for an acknowledgement (barrier, phase 3).
        self._hand_out(round, [a for a in needers if a.needs == Needs.ALL], receipt=True)
        if not round.unconfirmed:
            self._release_last(round)

    def _hand_out(self, round: Round, needers: list[Arrival], receipt: bool = False) -> None:
        """Answer needers of all. Where no rank gave a part per rank, they share one body."""
        if not needers:
            return
        arrivals = [round.arrivals[rank] for rank in range(self.world_size)] if round.has_parts else []
        given = max([len(a.parts) for a in arrivals], default=0)
        if given > 1:
            for needer in needers:
                body = pack_parts([a.part_for(needer.rank) for a in arrivals])
                self._hand_out_body(round, [needer], body, receipt)
        else:
            body = pack_parts([a.part_for(0) for a in arrivals]) if given else ()
            self._hand_out_body(round, needers, body, receipt)

    def _hand_out_body(self, round: Round, needers: list[Arrival], body: Body, receipt: bool) -> None:
        if body and (size := body_size(body)) > self._limits.body_bytes:
            self._fail(needers, PayloadTooLargeError(size, self._limits.body_bytes))
            return
        ranks = [needer.rank for needer in needers]
        round.told.update(ranks)
        round.known.clear()
        if receipt:
            round.unconfirmed.update(ranks)
        self._replies.answer_all(needers, body, receipt)

    def _answer(self, arrival: Arrival, body: Body) -> None:
        arrival.round.told.add(arrival.rank)
        self._replies.answer(arrival, body)

    def _fail(self, arrivals: Sequence[Arrival], error: AiopgError) -> None:
        trace: tuple[str, ...] = ()
        for arrival in arrivals:
            arrival.round.told.add(arrival.rank)
        if arrivals and isinstance(error, CollectiveMismatchError):
            trace = self.lines(arrivals[0].round, ())
        elif arrivals and isinstance(error, PeerLostError):
            trace = self.trail.lines("lost")
        self._replies.fail(arrivals, error, trace)

    def lines(self, round: Round, missing: Sequence[int]) -> tuple[str, ...]:
        """What happened lately that matters to a round."""
        return self.trail.lines((round.tag, round.number), missing, round.came)

    # ----------------------------------------------------------------------------------- leaving last (phase 3)

    def confirm(self, arrival: Arrival) -> None:
        """A rank has its answer in hand."""
        self._confirm(arrival.round, arrival.rank)

    def _confirm(self, round: Round, rank: int) -> None:
        if rank in round.unconfirmed:
            round.unconfirmed.remove(rank)
            round.known.clear()
            if not round.unconfirmed:
                self._release_last(round)

    def _release_last(self, round: Round) -> None:
        round.unconfirmed.clear()
        round.known.clear()
        self._hand_out(round, round.waiting())
        self._free_if_done(round)

    # ---------------------------------------------------------------------------------------------- mismatches

    def _mismatch(self, round: Round, rank: int, signature: Signature) -> None:
        calls = dict.fromkeys(round.arrivals, str(round.signature)) | {rank: str(signature)}
        error = CollectiveMismatchError(self._group, round.tag, round.number, calls)
        answered = sorted(round.told.difference(self.gone))
        self.trail.failed(rank, round.about, error)
        self._fail_round(round, error)
        for early in answered:
            waits_in = self._round_where_waiting(round.tag, early)
            if waits_in is None:
                self._owed[round.tag, early] = error
            else:
                self._fail_round(waits_in, error)
                self._free_if_done(waits_in)

    def _fail_round(self, round: Round, error: CollectiveMismatchError) -> None:
        """Decide that a round fails, for those in it and those who come to it. Nobody will read its parts."""
        round.error = error
        self._fail(round.waiting(), error)
        for arrival in round.arrivals.values():
            self._drop_parts(arrival)

    def _round_where_waiting(self, tag: Tag, rank: int) -> Round | None:
        for round in self._rounds.values():
            if round.tag == tag and rank in round.arrivals and rank not in round.told:
                return round
        return None

    # ----------------------------------------------------------------------- withdrawing, loss, abort, expiry

    def withdraw(self, arrival: Arrival) -> bool:
        """Uncount an arrival that was not answered. False if its round is complete: then it is answered."""
        round = arrival.round
        if not round.arrivals:
            return False  # with another seat of its session, which was withdrawn just before
        if len(round.arrivals) == self.world_size:
            self._release_last(round)
            return False
        del round.arrivals[arrival.rank]
        round.known.clear()
        round.withdrawn.add(arrival.rank)
        self.trail.add("withdrawn", arrival.rank, round.about)
        self._drop_parts(arrival)
        if not round.arrivals:
            del self._rounds[round.tag, round.number]
        return True

    def lose(self, rank: int, error: PeerLostError) -> None:
        """A rank is gone, and its waiting arrivals were withdrawn: fail what needs it and where it had not arrived."""
        self.gone[rank] = error
        for owed in [key for key in self._owed if key[1] == rank]:
            del self._owed[owed]
        for round in list(self._rounds.values()):
            # Those that all were told are many when thousands leave, and nobody waits in them.
            if rank not in round.arrivals and len(round.told) < len(round.arrivals):
                rooted = round.signature.root == rank
                needers = [a for a in round.waiting() if a.needs >= Needs.ALL or (rooted and a.needs == Needs.ROOT)]
                if needers:
                    self.trail.failed(rank, round.about, error)
                    self._fail(needers, error)
            self._confirm(round, rank)
            self._free_if_done(round)

    def abort(self, error: AiopgError) -> None:
        """Fail every waiting arrival and drop every round."""
        self._fail([arrival for round in self._rounds.values() for arrival in round.waiting()], error)
        for round in self._rounds.values():
            round.arrivals.clear()
        self._rounds.clear()
        self._owed.clear()
        self.bytes = 0

    def expire(self, now: float) -> int:
        """Drop the parts of givers who do not wait and whose time is over; how many."""
        return sum(self._expire_round(round, now) for round in list(self._rounds.values()) if round.oldest <= now)

    def _expire_round(self, round: Round, now: float) -> int:
        old = [a for a in round.arrivals.values() if a.parts and a.rank in round.told and a.expires <= now]
        if not old:
            return 0
        round.expired = DataExpiredError(self._group, f"{round.signature} number {round.number}, tag {round.tag!r},")
        self.trail.add("expired", old[0].rank, round.about)
        for arrival in old:
            self._drop_parts(arrival)
        round.oldest = min((a.expires for a in round.arrivals.values() if a.parts), default=math.inf)
        self._fail(round.waiting(), round.expired)
        self._free_if_done(round)
        return len(old)

    def _drop_parts(self, arrival: Arrival) -> None:
        size = sum(map(len, arrival.parts))
        arrival.parts = ()
        arrival.round.bytes -= size
        self.bytes -= size

    def _is_awaited(self, round: Round) -> bool:
        """Whether a rank that can still come was not told."""
        # Who was told or is gone stays so: what was passed over once need not be looked at again.
        rank = round.settled
        while rank < self.world_size and (rank in round.told or rank in self.gone):
            rank += 1
        round.settled = rank
        return rank < self.world_size

    def _free_if_done(self, round: Round) -> None:
        # A round may be gone already, and even its number be in use again.
        told = len(round.told)
        if told < self.world_size and (told + len(self.gone) < self.world_size or self._is_awaited(round)):
            return
        if self._rounds.get((round.tag, round.number)) is round:
            del self._rounds[round.tag, round.number]
            if round.error is not None or len(round.arrivals) < self.world_size:
                self.trail.add("over", -1, round.about)
            self.bytes -= round.bytes
            round.arrivals.clear()  # they know their round: what they gave would wait for the garbage collector
