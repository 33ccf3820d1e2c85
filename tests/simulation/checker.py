"""The checker: what was wrong in a history. It knows what aiopg promises, and nothing of how it is made.

Per life of a group:

- Messages from one rank to another with one tag arrive once, in order, none missing, each the one that was sent there.
  Whoever hears that the sender is gone has got everything that the sender was told is accepted.
- A collective gives what the ranks gave, in rank order. It ends well only if at one moment all ranks that it needs
  were in it: an arrival that was taken back is none.
- A call ends `LATE` after its deadline at the latest, and does not time out before it. One that had much time ends in
  time, whatever happened.
- Each error has a cause in what was done to the cluster. Where nothing was done, all of the plan was carried out.
- At the end nothing is left.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from aiopg.errors import DataExpiredError, GroupTimeoutError, PeerLostError
from tests.simulation.records import AGAIN, FINISHED, CollectiveStep, History, Plan, Process, Record, Seat
from tests.simulation.workload import PATIENCE, contribution, message

__all__ = ["LATE", "check"]

LATE = 0.2
SLACK = 0.5
"""For so long after a call was given up its arrival may still count, where no fault slows its way to the store: what it
queues behind on its connection takes a while."""

TTL_SLACK = 0.2

FENCED_BY = 0.1
"""A member that is taken over is out so long after the other one asked, where no fault slows that."""

COLLECTIVES = ("barrier", "all_gather", "all_reduce", "broadcast")


def check(history: History) -> list[str]:
    """What was wrong, one line each."""
    lives: dict[tuple[str, int], list[Seat]] = defaultdict(list)
    calls: dict[Seat, list[Record]] = defaultdict(list)
    for record in history.records:
        calls[record.seat].append(record)
    epochs = [-math.inf, *history.restarts]
    for seat in history.seats:
        if seat.incarnation:
            joined = next(r.started for r in reversed(calls[seat]) if r.op == "join")
            epoch = sum(restart <= joined for restart in epochs)
            lives[seat.group, epoch * 1_000_000 + seat.incarnation].append(seat)
    wrong = [f"left over: {what}" for what in history.left_over]
    for record in history.records:
        wrong += [f"{what}: {record}" for what in _check_time(history, record)]
    for (group, _), seats in lives.items():
        wrong += _Life(history, history.plans[group], seats, calls).check()
    for seat in history.seats:
        if not seat.incarnation:
            life = _Life(history, history.plans[seat.group], [seat], calls)
            wrong += [f"{what}: {r}" for r in calls[seat] for what in life.check_error(r)]
    return wrong


def _check_time(history: History, record: Record) -> Iterator[str]:
    due = min(record.deadline, record.cancelled_at, record.seat.process.killed_at)
    if record.op in ("recv", *COLLECTIVES) and record.seat.closing_at < math.inf:
        due = min(due, record.seat.closing_at + LATE)
    if not record.outcome or record.ended > due + LATE:
        yield "ended late"
    if isinstance(record.error, GroupTimeoutError):
        if record.ended < record.deadline - 1e-6:
            yield "timed out early"
        if record.op == "join" and is_patient(record) and not _may_miss(history, record):
            yield "hung"


def is_patient(record: Record) -> bool:
    """Whether the call had so much time that it is not to time out."""
    return record.deadline - record.started >= PATIENCE - 1e-6


def _may_miss(history: History, record: Record) -> bool:
    """Whether a rank may have been away for good while this one joined."""
    return any(at < record.deadline for rank, at in history.retired.items() if rank != record.seat.rank)


class _Life:
    """One life of a group."""

    def __init__(self, history: History, plan: Plan, seats: list[Seat], calls: dict[Seat, list[Record]]) -> None:
        self.history = history
        self.plan = plan
        self.seats = seats
        self.by_rank = {seat.rank: seat for seat in seats}
        self.calls = calls
        self.joined = {seat: any(r.op == "join" and r.outcome == FINISHED for r in calls[seat]) for seat in seats}

    def check(self) -> Iterator[str]:
        if len(self.by_rank) != len(self.seats):
            yield f"two members of one rank in one life: {[seat.process.owner for seat in self.seats]}"
            return
        for seat in self.seats:
            for record in self.calls[seat]:
                for what in self.check_error(record):
                    yield f"{what}: {record}"
        yield from self._check_streams()
        for tag, steps in self.plan.collectives.items():
            for index, step in enumerate(steps, 1):
                yield from self._check_collective(tag, index, step)
        yield from self._check_complete()
        if not self.history.restarts:
            for seat in self.seats:
                yield from self._check_fence(seat)

    # ------------------------------------------------------------------------------------------------- messages

    def _check_streams(self) -> Iterator[str]:
        streams: dict[tuple[str, int, int, int], list[Record]] = defaultdict(list)
        for seat in self.seats:
            for record in self.calls[seat]:
                if record.op in ("send", "recv"):
                    streams[record.op, seat.rank, record.peer, record.tag].append(record)
        for (op, rank, peer, tag), records in streams.items():
            if op == "recv":
                sends = streams.get(("send", peer, rank, tag), [])
                yield from self._check_stream(peer, rank, tag, records, sends)

    def _check_stream(self, src: int, dst: int, tag: int, receives: list[Record], sends: list[Record]) -> Iterator[str]:
        sizes = self.plan.streams[src, dst, tag]
        sender = self.by_rank.get(src)
        place = 0
        for record in receives:
            if record.outcome == FINISHED:
                place += 1
                tried = [send for send in sends if send.index == place]
                if sender is None or not tried:
                    if sender is not None or record.result[2:6] != (src, dst, tag, place):
                        yield f"came from nowhere: {record}"
                elif record.result != message(sender, dst, tag, place, sizes[place - 1]):
                    said = record.result[:6] if isinstance(record.result, tuple) else record.result
                    yield f"not message {place} of that sender but {said!r:.80}: {record}"
                elif tried[0].started > record.ended:
                    yield f"came before it was sent: {record}"
            elif isinstance(record.error, DataExpiredError):
                place += 1
                if not any(s.index == place and s.started + self.plan.ttl <= record.ended + TTL_SLACK for s in sends):
                    yield f"expired early: {record}"
            elif isinstance(record.error, PeerLostError):
                accepted = max((send.index for send in sends if send.outcome == FINISHED), default=0)
                if accepted > place:
                    yield f"message {place + 1} of {accepted} that were accepted is lost: {record}"

    # ----------------------------------------------------------------------------------------------- collectives

    def _check_collective(self, tag: int, index: int, step: CollectiveStep) -> Iterator[str]:
        attempts: dict[int, list[Record]] = {}
        for seat in self.seats:
            attempts[seat.rank] = [
                r for r in self.calls[seat] if r.op in COLLECTIVES and (r.tag, r.index) == (tag, index)
            ]
        for seat in self.seats:
            for record in attempts[seat.rank]:
                if record.outcome == FINISHED:
                    if not self._is_right(record, tag, index, step):
                        yield f"wrong result {record.result!r:.120}: {record}"
                    if not self._may_be_complete(record, attempts, step):
                        yield f"complete without everybody in it: {record}"

    def _is_right(self, record: Record, tag: int, index: int, step: CollectiveStep) -> bool:
        if step.op == "barrier":
            return record.result is None
        given: list[Any] = [
            contribution(self.by_rank[rank], tag, index, step) if rank in self.by_rank else None
            for rank in range(self.plan.world_size)
        ]
        result = record.result
        if step.op == "all_reduce":
            total: int = sum((rank + 1) * 1000 + index for rank in range(self.plan.world_size))
            return bool(result == total)
        if step.op == "broadcast":
            return given[step.root] is None or bool(result == given[step.root])
        return len(result) == len(given) and all(g is None or g == r for g, r in zip(given, result, strict=True))

    def _may_be_complete(self, record: Record, attempts: dict[int, list[Record]], step: CollectiveStep) -> bool:
        if step.op == "broadcast":
            root = attempts.get(step.root, [])
            return step.root == record.seat.rank or any(r.started <= record.ended for r in root)
        stays = [[(r.started, _may_count_until(r)) for r in attempts.get(rank, [])] for rank in attempts]
        if len(stays) < self.plan.world_size:
            return False
        begins = [begin for stay in stays for begin, _ in stay if begin <= record.ended]
        return any(all(any(b <= at <= e for b, e in stay) for stay in stays) for at in begins)

    # ----------------------------------------------------------------------------------------------------- errors

    def check_error(self, record: Record) -> Iterator[str]:
        """Whether the outcome of a call has a cause."""
        outcome, seat = record.outcome, record.seat
        fine = {
            FINISHED: True,
            "killed": True,
            "": True,  # told by its time
            "cancelled": record.cancelled_at < math.inf or seat.process.killed_at < math.inf,
            "GroupTimeoutError": record.op == "join" or not is_patient(record) or self._has_empty_seat(),
            "PeerLostError": self._is_loss_justified(record),
            "GroupAbortedError": any(s.aborting_at <= record.ended for s in self.seats),
            "StoreLostError": _may_lose_store(seat.process),
            "FencedError": _is_fenced(self.history, seat.process, record.ended),
            "RankConflictError": record.op == "join" and _has_rival(self.history, seat.process, record.ended),
            "DataExpiredError": record.op in ("recv", "broadcast", "all_gather", "all_reduce")
            and self.plan.ttl < PATIENCE,
        }
        if not fine.get(outcome, False):
            yield "hung" if outcome == "GroupTimeoutError" else "an error without a cause"

    def _has_empty_seat(self) -> bool:
        """Whether a rank may have taken its join back when the life had begun: the others wait for it to come."""
        return any(
            seat.group == self.seats[0].group and not seat.incarnation and _took_join_back(self.calls[seat])
            for seat in self.history.seats
            if seat.rank not in self.by_rank
        )

    def _is_loss_justified(self, record: Record) -> bool:
        error = record.error
        if not isinstance(error, PeerLostError) or not error.ranks:
            return False
        return all(self._may_be_lost(rank, record.ended) for rank in error.ranks)

    def _may_be_lost(self, rank: int, at: float) -> bool:
        seat = self.by_rank.get(rank)
        if seat is None:  # it never heard that it joined: it was killed, gave up, or lost its store while it joined
            processes = [process for process in self.history.processes if process.rank == rank]
            ended_badly = any(min(p.killed_at, p.replaced_at) <= at or _may_lose_store(p) for p in processes)
            return ended_badly or self._left_unjoined(rank, at)
        process = seat.process
        if process.killed_at <= at or _is_fenced(self.history, process, at) or _may_lose_store(process):
            return True
        return seat.closing_at <= at

    def _left_unjoined(self, rank: int, at: float) -> bool:
        group = self.seats[0].group
        return any(
            seat.rank == rank and not seat.incarnation and any(r.ended <= at for r in self.calls[seat])
            for seat in self.history.seats
            if seat.group == group
        )

    def _check_fence(self, seat: Seat) -> Iterator[str]:
        """When another process has asked for its rank by force, and nothing slowed that, its calls do nothing more."""
        for rival in self.history.seats:
            if (rival.group, rival.rank) != (seat.group, seat.rank) or rival.process.number <= seat.process.number:
                continue
            asked = next(iter(self.calls[rival]), None)
            if asked is None or rival.process.exposure or asked.outcome in ("killed", "StoreLostError", ""):
                continue
            if not asked.takeover:
                continue
            held = [r for r in self.calls[seat] if r.op == "join" and r.outcome == FINISHED and r.ended < asked.started]
            tried: set[tuple[int, str, int, int]] = set()
            for record in self.calls[seat] if held else ():
                key = (record.tag, "" if record.op in COLLECTIVES else record.op, record.index, record.peer)
                again = key in tried
                tried.add(key)
                done = record.outcome == FINISHED and record.op in ("send", *COLLECTIVES) and not again
                if done and record.started > asked.started + FENCED_BY:
                    yield f"went on after {rival.process.owner} took its rank over: {record}"

    def _check_complete(self) -> Iterator[str]:
        """Where nothing was done to anybody, all was done that was planned."""
        if len(self.by_rank) < self.plan.world_size or self.history.restarts:
            return
        for seat in self.seats:
            process = seat.process
            hurt = min(process.killed_at, process.replaced_at, seat.aborting_at) < math.inf
            if hurt or _may_lose_store(process) or _took_join_back(self.calls[seat]):
                return
        for seat in self.seats:
            last: dict[tuple[str, int, int, int], Record] = {}
            for record in self.calls[seat]:
                last[record.op, record.tag, record.index, record.peer] = record
            for record in last.values():
                if record.outcome not in (FINISHED, "DataExpiredError"):
                    yield f"not done, though nothing was done to anybody: {record}"


def _may_count_until(attempt: Record) -> float:
    """Until when the store may have counted this arrival: for ever, unless it was given up."""
    if attempt.outcome == FINISHED:
        return attempt.ended
    if isinstance(attempt.error, GroupTimeoutError) and attempt.error.missing is not None:
        return attempt.ended  # the store said that it does not count
    if attempt.outcome in AGAIN:
        return attempt.ended + SLACK + attempt.seat.process.exposure
    return math.inf


def _may_lose_store(process: Process) -> bool:
    return bool(process.restarts) or process.exposure >= process.grace * 0.9


def _is_fenced(history: History, process: Process, at: float) -> bool:
    rivals = [p for p in history.processes if p.rank == process.rank and p.number > process.number]
    return bool(rivals) and process.replaced_at <= at


def _has_rival(history: History, process: Process, at: float) -> bool:
    """Whether another process may hold this one's rank: one before it that ended badly, or one that took it over."""
    others = [other for other in history.processes if other.rank == process.rank and other is not process]
    before = any(
        min(other.killed_at, other.replaced_at) <= at or other.exposure > 0
        for other in others
        if other.number < process.number
    )
    return before or _is_fenced(history, process, at)


def _took_join_back(records: list[Record]) -> bool:
    """A join that was taken back too late makes a life of its own, in which this rank left."""
    return any(r.op == "join" and r.outcome in AGAIN for r in records)
