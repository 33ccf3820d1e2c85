"""Records and snapshots: an exchange that is replayed, or loaded, is the exchange that it was."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import msgpack
import pytest

from aiopg._core.exchange import Exchange
from aiopg._core.frames import Body
from aiopg._core.limits import Limits
from aiopg._core.records import (
    encode_away,
    encode_back,
    encode_command,
    encode_confirm,
    encode_end,
    encode_open,
    encode_timer,
    replay,
)
from aiopg._core.stategraph import VERSION, dump, load
from aiopg.errors import ProtocolError, UsageError
from tests.core.life import ABOUT, LIMITS, Life


def whole(exchange: Exchange, now: float) -> bytes:
    """All of an exchange's state in one piece."""
    exchange.overfull.clear()  # whoever gives the inputs looks at it after each
    return b"".join(dump(exchange, now))


@pytest.mark.parametrize("turn", range(30))
def test_what_is_replayed_or_loaded_goes_on_as_the_live_one(turn: int) -> None:
    """From the beginning or from a snapshot at any point: the same outboxes, to the byte, and the same state."""
    seed = time.time_ns() % 2**32 + turn
    print(f"seed {seed}")
    live = Life(seed)
    snapshot_at = live.chance.randrange(350)
    for _ in range(snapshot_at):
        live.step()
    loaded, now = load(whole(live.exchange, live.now), LIMITS, ABOUT)
    assert now == live.now
    assert whole(loaded, now) == whole(live.exchange, live.now)
    seen = len(live.records)
    for _ in range(250):
        live.step()
    for record in live.records[seen:]:
        replay(loaded, record)
    again = Exchange(LIMITS, ABOUT)
    for record in live.records:
        replay(again, record)
    assert loaded.engine.describe() == live.exchange.engine.describe()
    assert loaded.engine.next_deadline() == live.exchange.engine.next_deadline()
    state = whole(live.exchange, live.now)
    assert whole(loaded, live.now) == state
    assert whole(again, live.now) == state
    for line in live.exchange.lines.values():
        other = loaded.lines[line.id].streams
        assert other.resend(other.acknowledged) == line.streams.resend(line.streams.acknowledged)


def test_the_random_life_is_rich() -> None:
    """What is to be kept was there: waiting calls, messages, open rounds, receipts, errors, and those who watch."""
    life = Life(13)
    most: dict[str, int] = {}
    for _ in range(3000):
        life.step()
        described: Any = life.exchange.engine.describe()
        engine: Any = life.exchange.engine
        counts = {
            "rounds": described["rounds"],
            "bytes": described["bytes"],
            "messages": sum(group["messages"] for group in described["groups"]),
            "waiting": len(engine._replies),
            "receipts": sum(len(line.receipts) for line in life.exchange.lines.values()),
            "watching": sum(len(incarnation.history.watching) for incarnation in engine._groups),
            "gone": sum(len(group["gone"]) for group in described["groups"]),
            "queued": len(engine._membership.queue),
            "fenced": len(engine._membership.fenced),
            "lobbies": len(engine._membership.lobbies),
            "keys": described["keys"]["keys"],
            "keys of groups": sum(group["keys"]["keys"] for group in described["groups"]),
            "aborted": sum(group["state"] == "aborted" for group in described["groups"]),
            "retained": max(line.streams.sent - line.streams.acknowledged for line in life.exchange.lines.values()),
        }
        most = {name: max(most.get(name, 0), count) for name, count in counts.items()}
    assert all(most.values()), most


def test_damage_is_told() -> None:
    """Neither a damaged snapshot nor a senseless record raises anything but the documented error."""
    life = Life(3)
    for _ in range(200):
        life.step()
    good = whole(life.exchange, life.now)
    chance = random.Random(5)
    for _ in range(300):
        damaged = bytearray(good[: chance.randrange(len(good))] if chance.random() < 0.3 else good)
        for _ in range(chance.randrange(1, 4)):
            if damaged:
                damaged[chance.randrange(min(len(damaged), 4000))] = chance.randrange(256)
        try:
            load(bytes(damaged), LIMITS, ABOUT)
        except (ProtocolError, UsageError):
            pass
    for record in (b"", b"\0\0\0\1\x90", b"\0\0\0\2\x91\x09", b"".join(encode_away(b"nobody")), b"\xff" * 20):
        with pytest.raises(ProtocolError, match="cannot be replayed"):
            replay(life.exchange, record)
    other = good.replace(bytes([0x94, VERSION]), bytes([0x94, VERSION + 1]), 1)
    with pytest.raises(UsageError, match="version"):
        load(other, LIMITS, ABOUT)


def test_the_limits_are_those_of_the_life_that_loads() -> None:
    """A store that is started again with higher limits has them."""
    life = Life(11)
    for _ in range(50):
        life.step()
    higher = Limits(mailbox_messages=7, waiting_calls=70, outbox_frames=8000, retained_bytes=7)
    loaded: Any = load(whole(life.exchange, life.now), higher, ABOUT)[0]
    assert loaded.engine._replies._waiting_calls == 70
    assert {line.streams._frames_limit for line in loaded.lines.values()} == {8000}
    assert loaded.engine._groups.limits is higher


NOBODY, SOMEBODY = b"n" * 16, b"s" * 16


def held_record(held: object) -> Body:
    """A record that says which messages members hold."""
    head = msgpack.packb((7, held))
    return (len(head).to_bytes(4, "big") + head,)


def open_record(**changed: Any) -> Body:
    """A good record of a session that is opened, but for what is changed."""
    process = [4711, 1, 2, "boot"]
    fields: dict[str, Any] = {
        "session": SOMEBODY,
        "secret": b"s" * 32,
        "grace": 5.0,
        "process": process,
        "scope": ("*",),
    }
    return encode_open(**fields | changed)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (encode_timer(math.nan), "a time was expected, not nan"),
        (encode_timer(math.inf), "a time was expected, not inf"),
        (encode_command(SOMEBODY, 0, 1, b"", (), math.nan), "Error"),
        (encode_command(SOMEBODY, -1, 1, b"", (), 1.0), "an integer from 0"),
        (encode_command(SOMEBODY, 5, 1, b"", (), 1.0), "5 acknowledged, and only 0 sent"),
        (encode_confirm(SOMEBODY, -1), "an integer from 1 to 0"),
        (encode_confirm(SOMEBODY, 1), "an integer from 1 to 0"),
        (encode_confirm(SOMEBODY, True), "an integer was expected"),
        (encode_back(SOMEBODY, -3), "an integer from 2"),
        (encode_back(SOMEBODY, 1), "an integer from 2"),
        (encode_away(NOBODY), "KeyError"),
        (encode_end(SOMEBODY, 7), "a text was expected"),  # type: ignore[arg-type]
        (open_record(), "was opened already"),
        (open_record(session=NOBODY, grace=math.nan), "seconds over 0 were expected, not nan"),
        (open_record(session=NOBODY, grace=-1.0), "seconds over 0 were expected"),
        (open_record(session="text"), "bytes were expected"),
        (open_record(session=NOBODY, process=[4711]), "three integers and a text"),
        (open_record(session=NOBODY, process=["4711", 1, 2, "boot"]), "three integers and a text"),
        (held_record([SOMEBODY, -1]), "an integer from 0"),
        (held_record([SOMEBODY, 1]), "1 acknowledged, and only 0 sent"),
        (held_record([NOBODY, 0]), "KeyError"),
        (held_record([SOMEBODY]), "ValueError"),
        (held_record(None), "a list was expected"),
    ],
)
def test_a_record_that_cannot_be_is_refused_and_says_why(record: Body, why: str) -> None:
    """No number, time, name or shape that a store does not write is taken."""
    exchange = Exchange(LIMITS, ABOUT)
    replay(exchange, b"".join(open_record()))
    with pytest.raises(ProtocolError, match=r"a record that cannot be replayed: .*" + why):
        replay(exchange, b"".join(record))


def test_a_snapshot_has_the_attributes_that_its_objects_have() -> None:
    """One with another name, one too few or one too many is no snapshot: the error says of which class."""
    life = Life(5)
    for _ in range(300):
        life.step()
    good = b"".join(dump(life.exchange, life.now))
    load(good, LIMITS, ABOUT)
    size = int.from_bytes(good[:4], "big")
    version, now, root, nodes = msgpack.unpackb(good[4 : 4 + size], strict_map_key=False)
    objects = [node for node in nodes if node[0] in range(6, 1000)]
    assert len({kind for kind, _ in objects}) > 10
    for content in dict(objects).values():
        for changed in ([*content, "extra", 1], content[2:], ["__class__", *content[1:]], [*content[:2], *content]):
            before = list(content)
            content[:] = changed
            graph = msgpack.packb([version, now, root, nodes])
            with pytest.raises(ProtocolError, match="with other attributes than it has"):
                load(len(graph).to_bytes(4, "big") + graph + good[4 + size :], LIMITS, ABOUT)
            content[:] = before
