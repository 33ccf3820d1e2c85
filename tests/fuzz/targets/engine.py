"""The engine and the exchange round it: any commands of any sessions in any order, and all else that may happen.

The first byte of an input says which limits, and how many groups there are; the rest is steps (see `world`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, cast

from aiopg._core.engine import Engine
from aiopg._core.exchange import Exchange, Line
from aiopg._core.groups import Incarnation
from aiopg._core.keys import Space
from aiopg._core.keys.queues import ITEM_COSTS
from aiopg._core.keys.values import KEY_COSTS
from aiopg._core.messages import Command, Message, Put, Take
from tests.fuzz.target import Target
from tests.fuzz.targets.world import HIGH, LOW, MOST_STEPS, STEP, Calm, World

__all__ = ["EngineTarget"]

REFUSALS = frozenset(
    (
        *(b"AuthenticationError", b"FencedError", b"GroupClosedError", b"ProtocolError", b"RankConflictError"),
        *(b"StoreFullError", b"UsageError", b"WorldSizeMismatchError", b"KeyOperationError", b"QueueEmptyError"),
        *(b"WatchGapError",),
    )
)
"""Failures that say that a command was not to be: it changed nothing. Other ones may be the outcome of a round."""

FAILED = 51
_KIND, _CALL, _BODY = 24, 25, 33
CALM_EVERY = 8
MANY = 10_000
_MANY = (0xA5, 0x5A, 0xC3)  # says so; nobody comes upon it by chance
LOOKED_AT = 0b11
"""Steps in which these bits are 0 are looked at closely: one in four."""


class EngineTarget(Target):
    """A refused command changes nothing, what is counted is what is there, nothing is left of who is gone, and a group
    next door notices nothing.
    """

    name = "engine"
    grain = STEP
    tokens = tuple(bytes((what, who)) for what in (*range(23), 207, 230) for who in range(3))

    def __init__(self) -> None:
        exchange = Exchange(LOW, {})
        calm = Calm(exchange)
        self._undisturbed = [list(calm.carrier.told or ())]
        self._described = [calm.describe()]
        for turn in range(1 + MOST_STEPS // CALM_EVERY):
            calm.step(float(turn))
            self._undisturbed.append(list(calm.carrier.told or ()))
            self._described.append(calm.describe())

    def seeds(self) -> list[bytes]:
        """With groups that are formed and without, each thing that a member may do, by one and by all."""
        rest = [bytes((what * 7 + place * 11) & 255 for place in range(STEP * 8)) for what in range(23)]
        same = [
            b"".join(_step(what, who, a, b, c, 1) for a in (0, 160) for who in (0, 1, 2))
            for what in (0, 2, 4, 7, 9, 10, 15, 17, 18, 22)
            for b in (0, 1, 16, 225)
            for c in (0, 200)
        ]
        turns = [_step(what, who, 0, 0, 0, 1) * 3 for what in (4, 7, 10) for who in (0, 1)]
        both = [
            _turn(4, 9) + _turn(4, 7, 9),  # messages, taken back or taken
            _turn(7, 15) + _turn(10, 15) + _turn(10, 11, 19),  # takes and arrivals, taken back; a receipt
            _turn(18) + _turn(0) + _turn(18, 22) + _step(18, 0, 0, 0, 0, 1),  # away, joined by others, back or over
            _step(7, 0, 0, 0, 0, 1) + _step(7, 0, 0, 0, 0, 240) + _step(10, 0, 0, 0, 0, 241),  # one number twice
            _step(0, 0, 0, 225, 9, 1) + _turn(10, 4, 2),  # taken over
            _turn(4, 10, 21) + _step(21, 0, 6, 1, 0, 1) + _turn(7, 10),  # expired
            *(
                _step(207, 0, 0, 0, 1, what) + _step(207, 1, 0, 0, 9, more)
                for what in range(24)
                for more in (3, 5, 13, 18, 22)
            ),
        ]
        return [bytes((ways,)) + more for ways in (0, 1, 2, 4, 5) for more in (*rest, *same, *both, b"".join(turns))]

    def large(self) -> list[bytes]:
        """10,000 tags."""
        return [bytes((low | 2,)) + _step(255, 255, how, *_MANY) for low in (0, 1) for how in (252, 253)]

    def run(self, data: bytes) -> Iterable[Hashable]:
        """See the class."""
        if not data:
            return ()
        world = World(HIGH if data[0] & 1 else LOW, data[0] >> 1 & 3)
        outcomes: set[int] = set()
        steps = last = 0
        for start in range(1, min(len(data), MOST_STEPS * STEP) - STEP + 1, STEP):
            what, who, a, b, c, d = data[start : start + STEP]
            if what == who == 255:
                _repeat(world, a, MANY if (b, c, d) == _MANY else 8)
                continue
            line, message = world.message(what, who, a, b, c, d)
            if message is not None:
                outcome = world.kind(what) * 32 + _say(world, line, message, bool((a ^ d) & LOOKED_AT))
                outcomes.add(outcome)
                if outcome & 31 < 4:
                    outcomes.add(last << 10 | outcome)
                    last = outcome
            world.end_overfull()
            steps += 1
            if not steps % CALM_EVERY:
                world.calm.step(float(steps))
        _recount(world)
        self._check_calm(world, steps // CALM_EVERY)
        _end_all(world, data[-1])
        return outcomes

    def _check_calm(self, world: World, turns: int) -> None:
        assert world.calm.carrier.told == self._undisturbed[turns]
        assert world.calm.describe() == self._described[turns]

    def memory(self, size: int) -> int:
        """What is not acknowledged is kept: an event of up to a page for each step, that of a repeated one included."""
        return (1 + min(size // STEP, MOST_STEPS)) * 8 * 1024 + 48 * 1024 * 1024


def _step(*values: int) -> bytes:
    return bytes(values)


def _turn(*whats: int) -> bytes:
    """Each of these by two sessions."""
    return b"".join(_step(what, who, 0, 0, 0, 1) for what in whats for who in (0, 1))


def _say(world: World, line: Line, message: Message, quickly: bool) -> int:
    """One command, and that nothing has changed if it was refused; what came back, roughly."""
    carrier, engine = world.carrier, world.exchange.engine
    # What has keys past their time drops them before it looks at a command; a round with parts past theirs does too.
    overdue = any(
        (life.keys is not None and life.keys.values.next_end() <= world.now)
        or any(round.oldest <= world.now for round in life.rounds._rounds.values())
        for life in engine._groups
    )
    looks = not quickly and not overdue and line.carrier is not None
    before, tallied = (_mark(engine), _tallied(engine)) if looks else (None, {})
    count, sent = carrier.count, line.streams.sent
    if not world.say(line, message):
        return 31
    told = carrier.count - count
    if line.carrier is None or (told, line.streams.sent) != (1, sent + 1) or carrier.last[_KIND] != FAILED:
        return min(told, 3)
    size = carrier.last[_BODY + 1] & 31
    error = bytes(carrier.last[_BODY + 2 : _BODY + 2 + size])
    if (
        looks
        and error in REFUSALS
        and carrier.last[_CALL:_BODY] == cast(Command, message).call.to_bytes(8, signed=True)
    ):
        after = _mark(engine)
        assert before == after, f"{message!r:.200} was refused ({error.decode()}) and changed {before} to {after}"
        again = _tallied(engine)
        assert all(again[life] in (tallied[life], life.bytes) for life in again), f"{message!r:.200} was counted"
    return 4 + size


def _tallied(engine: Engine) -> dict[Incarnation, int]:
    return {life: life.tallied for life in engine._groups}


def _mark(engine: Engine) -> list[Any]:
    """What a command may change, in short."""
    replies, groups = engine._replies, engine._groups
    mark: list[Any] = [len(replies), len(engine._membership.queue), len(engine._membership.fenced), engine.members]
    for life in groups:
        boxes, rounds = life.mailboxes, life.rounds
        mark.append((life.number, life.live, life.aborted is None, life.ttl, len(life.seats), len(life.gone)))
        mark.append((boxes.bytes, boxes.messages, len(boxes), rounds.bytes, len(rounds._owed)))
        mark.append((len(life.history.happenings), len(life.history.watching)))
        if (space := life.keys) is not None and (space.bytes or len(space)):
            mark.append((space.bytes, len(space), space.changes.revision, len(space.locks._locks)))
            mark.append((len(space.meetings._meetings), len(space.changes.followers), len(space.waits._by_name)))
        mark += [(key, len(round.arrivals), len(round.told), round.bytes) for key, round in rounds._rounds.items()]
    return mark


def _repeat(world: World, how: int, count: int) -> None:
    """Many messages, or takes, each with a tag of its own."""
    line = world.lines[0]
    for tag in range(count):
        world.calls[line.id] += 1
        call = world.calls[line.id]
        message: Message = Take(call, 0, 0, tag) if how & 1 else Put(call, 0, 0, str(tag), (b"b",))
        world.say(line, message)
        world.end_overfull()
        if line.id not in world.exchange.lines:
            return


def _recount(world: World) -> None:
    """What is counted is what is there, and each command got its one event or waits for it."""
    engine, exchange = world.exchange.engine, world.exchange
    groups = engine._groups
    lobbies = engine._membership.lobbies
    applicants = [one for lobby in lobbies._lobbies.values() for one in lobby.applicants]
    applicants += [one for arrived in lobbies._reforming.values() for one in arrived.values()]
    said = sum(len(one.metadata) for one in applicants)
    assert groups.tally == sum(life.tallied for life in groups) + groups.common.tallied + said
    assert all(engine._replies.waiting(one.session, one.call) is one for one in applicants)
    for life in groups:
        rounds, boxes = life.rounds, life.mailboxes
        held = [part for round in rounds._rounds.values() for a in round.arrivals.values() for part in a.parts]
        assert rounds.bytes == sum(map(len, held)) == sum(round.bytes for round in rounds._rounds.values())
        if life.keys is not None:
            _recount_keys(life.keys)
        letters = [letter for box in boxes._boxes.values() for letter in box.letters]
        assert (boxes.bytes, boxes.messages) == (sum(letter.size for letter in letters), len(letters))
        assert all(bool(box.letters) != bool(box.takes) for box in boxes._boxes.values())
        assert not life.seats.keys() & life.gone.keys()
        for round in rounds._rounds.values():
            assert len(round.told) < life.world_size
            assert round.arrivals
            for arrival in round.waiting():
                assert engine._replies.waiting(arrival.session, arrival.call) is arrival
    for line in exchange.lines.values():
        if (commands := world.commands.get(line.id)) is not None:
            assert line.streams.sent == commands - len(engine._replies.waiting_of(line.id))


def _recount_keys(space: Space) -> None:
    """What is counted of keys is what is there, and nobody waits for what is."""
    values, queues, waits, locks = space.values, space.queues, space.waits, space.locks
    assert values.bytes == sum(KEY_COSTS + len(key) + len(value.bytes) for key, value in values._values.items())
    items = [(key, item) for key, queue in queues._queues.items() for item in (*queue.items, *queue.returned)]
    assert queues.bytes == sum(len(key) + len(item.value) + ITEM_COSTS for key, item in items)
    assert all(bool(len(queue)) != bool(queue.pops) for queue in queues._queues.values())
    waiting = {id(one): one for line in waits._by_name.values() for one in line}.values()
    assert waits.bytes == sum(one.cost for one in waiting)
    assert all(one.facts()[1] for one in waiting)
    assert locks.bytes == sum(len(key) + KEY_COSTS for key in locks._locks)
    owned = {(owner, key) for owner, keys in values._owned.items() for key in keys}
    assert owned == {(value.owner, key) for key, value in values._values.items() if value.owner is not None}
    held = {(owner, key) for owner, keys in locks._held.items() for key in keys}
    assert held == {(lock.owner, key) for key, lock in locks._locks.items()}
    assert all(0 < len(meeting.waiting) < meeting.expected for meeting in space.meetings._meetings.values())
    assert space.changes.bytes == sum(change.size for change in space.changes._kept)


def _end_all(world: World, order: int) -> None:
    """Nothing is left when everybody is gone."""
    exchange = world.exchange
    for line in world.lines[order % 3 :] + world.lines[: order % 3]:
        exchange.end(line, "over")
    world.calm.end()
    engine: Any = exchange.engine
    seats = engine._membership
    left = [
        engine._groups,
        seats.seats,
        seats.away,
        seats.queue,
        seats.fenced,
        seats.scopes,
        seats.lobbies,
        exchange.lines,
    ]
    assert not any(map(len, left)), left
    replies = engine._replies
    left = [replies._waiting, replies._receipts, replies._events]
    assert not any(left), left
    assert engine._groups.tally == 0 == engine.members
    assert engine.next_deadline() is None
