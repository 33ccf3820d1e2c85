"""The engine under arbitrary commands: one event each, nothing raised, nothing left."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from aiopg._core.engine import Engine, Events
from aiopg._core.frames import Body, Buffer
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    Abort,
    Answer,
    Arrive,
    Cancel,
    Command,
    Expire,
    Failed,
    Inquire,
    Join,
    Leave,
    Needs,
    Put,
    Status,
    Tag,
    Take,
    TakeBack,
    Trace,
    Vacate,
    unpack_error,
)
from aiopg._core.parts import join_parts
from aiopg._core.recorder import Recorder

SESSIONS = ("s", "t", "u", "v")
TAGS: tuple[Tag, ...] = (0, 0, 0, 1, "t", "x" * 70)
PROGRAM = ("barrier", "all_gather", "broadcast", "gather", "barrier", "scatter", "all_to_all")
ODD = (-1, 0, 1, 2, 3, 2**64 - 1, -(2**63))


class Chaos:
    """Arbitrary commands of several sessions, some of them sensible; checks what must hold after each input."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.engine = Engine(Limits(waiting_calls=12, groups=6, seats=5, mailbox_messages=4, open_rounds=9), {})
        self.engine.observe(Recorder(64, 0.0))
        self.now = 0.0
        self.last_call = 0
        self.trace: list[object] = []
        self.due: Counter[tuple[object, int]] = Counter()  # events that calls have yet to get
        self.made: dict[tuple[object, int], str] = {}
        self.receipts: list[tuple[object, int]] = []
        self.next_number: Counter[tuple[int, int, Tag]] = Counter()
        self.failures: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.now += self.chance.choice((0.0, 0.0, 0.1, 0.1, 1.0))
            action = self.chance.random()
            if action < 0.93:
                self.say(self.chance.choice(SESSIONS))
            elif action < 0.96 and self.receipts:
                session, call = self.receipts.pop(self.chance.randrange(len(self.receipts)))
                self.file(self.engine.confirm(session, call))
            elif action < 0.995:
                self.file(self.engine.handle_timer(self.now))
            else:
                self.end(self.chance.choice(SESSIONS))
            self.check()
        for session in SESSIONS:
            self.end(session)
            self.check()
        assert self.engine.members == len(self.engine._groups) == len(self.engine._replies) == 0
        assert self.engine.next_deadline() is None
        assert not +self.due

    def say(self, session: str) -> None:
        command = self.command(session)
        if type(command) is not Cancel:
            self.due[session, command.call] += 1
            self.made[session, command.call] = type(command).__name__
        self.file(self.engine.apply(session, command, self.now))

    def end(self, session: str) -> None:
        events = self.engine.end_session(session, "over")
        assert all(target != session for target, _ in events)
        for key in [key for key in self.due if key[0] == session]:
            del self.due[key]
        self.receipts = [key for key in self.receipts if key[0] != session]
        self.file(events)

    def file(self, events: Events) -> None:
        self.trace.append(events)
        for session, event in events:
            self.due[session, event.call] -= 1
            assert self.due[session, event.call] >= 0, "an event that no call is due"
            if type(event) is Failed:
                self.failures[type(unpack_error(event.body)).__name__] += 1
                continue
            kind = type(event).__name__ + (" with receipt" if type(event) is Answer and event.receipt else "")
            self.answered[f"{self.made.get((session, event.call), 'Join')}: {kind}"] += 1
            if kind == "Answer with receipt":
                self.receipts.append((session, event.call))

    def check(self) -> None:
        """What is due is what waits, and what is held is what is counted."""
        waiting = {(s, call) for s, calls in self.engine._replies._waiting.items() for call in calls}
        assert waiting == {key for key, count in self.due.items() if count}
        assert max(self.due.values(), default=0) <= 1
        for incarnation in self.engine._groups:
            rounds, boxes = incarnation.rounds, incarnation.mailboxes
            held = [p for r in rounds._rounds.values() for a in r.arrivals.values() for p in a.parts]
            assert rounds.bytes == sum(map(len, held)) == sum(r.bytes for r in rounds._rounds.values())
            assert boxes.bytes == sum(letter.size for box in boxes._boxes.values() for letter in box.letters)
            assert all(bool(box.letters) != bool(box.takes) for box in boxes._boxes.values())
            for r in rounds._rounds.values():
                assert {(a.session, a.call) for a in r.waiting()} <= waiting
                assert len(r.told) < incarnation.world_size

    def command(self, session: str) -> Command:
        chance = self.chance
        self.last_call += 1
        call = self.last_call
        if chance.random() < 0.02 and (calls := self.engine._replies._waiting.get(session)):
            call = chance.choice(list(calls))
        seats = [
            number for number, seat in self.engine._membership.seats.get(session, {}).items() if seat.incarnation.live
        ]
        seat = chance.choice(seats) if seats and chance.random() < 0.95 else chance.randrange(4)
        tag = chance.choice(TAGS)
        rank = chance.choice(ODD if chance.random() < 0.1 else (0, 1, 2))
        body = (b"x" * chance.randrange(4),)
        recent = chance.choice([call, *self.engine._replies._waiting.get(session, ()), chance.randrange(call)])
        make: Callable[[], Command] = chance.choice(
            [
                lambda: self.join(session, call, chance.randrange(4)),
                lambda: Leave(call, seat) if chance.random() < 0.05 else Expire(call, seat),
                lambda: Vacate(call, chance.randrange(4)) if chance.random() < 0.1 else Status(call),
                lambda: Trace(call, chance.randrange(-9, 99), chance.randrange(9), chance.choice(("", "g0", "g1"))),
                lambda: Abort(call, seat, "no") if chance.random() < 0.01 else Status(call),
                lambda: Put(call, seat, rank, tag, body),
                lambda: Put(call, seat, rank, tag, body),
                lambda: TakeBack(call, seat, rank, tag, chance.randrange(max(0, call - 30), call + 1)),
                lambda: Take(call, seat, rank, tag),
                lambda: Take(call, seat, rank, tag),
                lambda: Cancel(recent) if chance.random() < 0.5 else Inquire(call, recent),
                *[lambda: self.arrive(session, call, seat, tag)] * 6,
            ]
        )
        return make()

    def join(self, session: str, call: int, seat: int) -> Join:
        chance = self.chance
        size = chance.choice((1, 2, 3, 9000)) if chance.random() < 0.05 else 2 + seat % 2
        rank = chance.choice(ODD) if chance.random() < 0.05 else SESSIONS.index(session) % size
        return Join(call, seat, f"g{seat}", rank, size, chance.choice((2.0, 20.0, 20.0)), session)

    def arrive(self, session: str, call: int, number: int, tag: Tag) -> Arrive:
        """Mostly what the group's program has next; sometimes anything."""
        chance = self.chance
        seat = self.engine._membership.seats.get(session, {}).get(number)
        if seat is None or chance.random() < 0.02:
            op, root = chance.choice(("gather", "odd")), chance.choice((0, 1, *ODD))
            pieces = chance.choice((0, 1, 2, 3, *ODD))
            needs = chance.randrange(-1, 6)
            return Arrive(call, number, tag, chance.randrange(1, 4), op, root, "", needs, pieces, (bytes(8), b"x"))
        rank, size = seat.rank, seat.incarnation.world_size
        next_number = self.next_number[seat.incarnation.number, rank, tag] + 1
        if chance.random() < 0.95:
            self.next_number[seat.incarnation.number, rank, tag] += 1
        op, root = PROGRAM[(next_number + (chance.random() < 0.03)) % len(PROGRAM)], next_number % size
        parts: list[Buffer] = [b"part %d" % dst for dst in range(size)]
        needs, pieces = {
            "barrier": (Needs.ALL if rank else Needs.ALL_TOLD, 0),
            "broadcast": (Needs.ROOT, 0) if rank != root else (Needs.NOTHING, 1),
            "all_gather": (Needs.ALL, 1),
            "gather": (Needs.ALL if rank == root else Needs.NOTHING, 1),
            "scatter": (Needs.ROOT, size if rank == root else 0),
            "all_to_all": (Needs.ALL, size),
        }[op]
        body: Body = join_parts(parts) if pieces == size else (b"part",) if pieces else ()
        return Arrive(call, number, tag, next_number, op, root, "", needs, pieces, body)


EXPECTED = {
    "CollectiveMismatchError",
    "DataExpiredError",
    "GroupAbortedError",
    "GroupClosedError",
    "PeerLostError",
    "ProtocolError",
    "RankConflictError",
    "StoreFullError",
    "UsageError",
    "WorldSizeMismatchError",
    "Arrive: Answer",
    "Arrive: Answer with receipt",
    "Arrive: Withdrawn",
    "Join: Answer",
    "Join: Withdrawn",
    "Take: Answer",
    "Take: Withdrawn",
}
"""What each block must have come to; else it tests less than it seems to."""


@pytest.mark.parametrize("block", range(6))
def test_arbitrary_commands_get_one_event_each_and_leave_nothing(block: int) -> None:
    """Only `Failed` events, never an exception; held bytes are counted; after all sessions the engine is empty."""
    reached: Counter[str] = Counter()
    for seed in range(block * 8, block * 8 + 8):
        print("seed", seed)
        chaos = Chaos(seed)
        chaos.run(2000)
        reached += chaos.failures + chaos.answered
    assert not EXPECTED - set(reached)


def test_the_same_inputs_give_the_same_events() -> None:
    """Twice, event for event."""
    traces = []
    for _ in range(2):
        chaos = Chaos(4711)
        chaos.run(800)
        traces.append(chaos.trace)
    assert traces[0] == traces[1]


def test_another_group_works_through_the_chaos() -> None:
    """Members of one group go on undisturbed while others do arbitrary things on the same store."""
    chaos = Chaos(42)
    for number in range(1, 200):
        for session in ("p", "q"):
            if number == 1:
                chaos.due[session, -1] += 1
                chaos.file(chaos.engine.apply(session, Join(-1, 1, "calm", "pq".index(session), 2, 9.0, ""), 0.0))
        for session in ("p", "q"):
            arrive = Arrive(-number - 1, 1, 0, number, "all_gather", -1, "", Needs.ALL, 1, (session.encode(),))
            chaos.due[session, arrive.call] += 1
            chaos.file(chaos.engine.apply(session, arrive, chaos.now))
        answers = [event for _, event in chaos.trace[-1]]  # type: ignore[attr-defined]
        assert [type(event) for event in answers] == [Answer, Answer]
        for _ in range(5):
            chaos.say(chaos.chance.choice(SESSIONS))
            chaos.check()
