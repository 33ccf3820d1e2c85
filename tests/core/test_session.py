"""A session: every message once, in order, both ways, over connections that break anywhere."""

from __future__ import annotations

import random
from typing import Any

import pytest

from aiopg._core.frames import Buffer, FrameReceiver
from aiopg._core.limits import Limits
from aiopg._core.messages import Acknowledge, Answer, Cancel, Goodbye, Message, Put, decode_message
from aiopg._core.session import Session
from aiopg.errors import ProtocolError, UsageError

LIMITS = Limits()


class End:
    """One end: a session, and the messages that it acted on."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.session = Session(limits)
        self.limits = limits
        self.acted: list[Message] = []
        self.connect()

    def connect(self) -> None:
        """A new connection: half a frame of the old one is gone."""
        self.receiver = FrameReceiver(self.limits)

    def hear(self, data: bytes) -> None:
        """Bytes came."""
        for head, body in self.receiver.receive_data(data):
            if self.session.receive(head):
                self.acted.append(decode_message(head, body))


def joined(buffers: tuple[Buffer, ...]) -> bytes:
    return b"".join(buffers)


def head(seq: Any, ack: Any) -> list[Any]:
    """The head of a Cancel with these numbers."""
    return [seq, ack, 40, 1]


def test_messages_are_numbered_and_kept_until_acknowledged() -> None:
    """The outbox holds what the other end may lack, and no more."""
    a, b = End(), End()
    for call in (1, 2, 3):
        b.hear(joined(a.session.send(Cancel(call))))
    assert (a.session.sent, b.session.received, b.session.told) == (3, 3, 0)
    a.hear(joined(b.session.acknowledge()))
    assert (a.session.acknowledged, b.session.told) == (3, 3)
    assert a.session.resend(3) == []
    assert "sent=3 acknowledged=3" in repr(a.session)


def test_any_message_acknowledges() -> None:
    """A reply carries the acknowledgement; so does a message outside the stream."""
    a, b = End(), End()
    b.hear(joined(a.session.send(Cancel(1))))
    a.hear(joined(b.session.send(Answer(1, False, (b"x",)))))
    b.hear(joined(a.session.send(Cancel(2))))
    a.hear(joined(b.session.aside(Goodbye("bye"))))
    assert a.session.acknowledged == 2
    assert [type(message) for message in a.acted] == [Answer, Goodbye]
    assert b.session.sent == 1


def test_a_message_that_comes_twice_is_new_once() -> None:
    """The second is dropped, its acknowledgement still counts."""
    session = Session(LIMITS)
    session.send(Cancel(1))
    assert session.receive(head(1, 0))
    assert not session.receive(head(1, 1))
    assert session.acknowledged == 1


def test_a_gap_is_an_error() -> None:
    """A connection delivers in order, so one of the ends is wrong."""
    session = Session(LIMITS)
    session.receive(head(1, 0))
    with pytest.raises(ProtocolError, match="message 3 came after 1"):
        session.receive(head(3, 0))


def test_an_acknowledgement_from_the_future_is_an_error() -> None:
    """What was never sent cannot be held."""
    session = Session(LIMITS)
    session.send(Cancel(1))
    with pytest.raises(ProtocolError, match="message 2 acknowledged, and only 1 sent"):
        session.receive(head(0, 2))


def test_an_older_acknowledgement_says_nothing_new() -> None:
    """Frames that are sent again carry the acknowledgement of their first time."""
    session = Session(LIMITS)
    for call in (1, 2):
        session.send(Cancel(call))
    session.receive(head(0, 2))
    session.receive(head(0, 1))
    assert session.acknowledged == 2


@pytest.mark.parametrize("bad", [[], [1], [1, 0], ["1", 0, 40], [1, None, 40], [True, 0, 40], [1, 1.0, 40]])
def test_a_head_without_its_numbers_is_an_error(bad: list[Any]) -> None:
    """Both are integers, always."""
    with pytest.raises(ProtocolError, match="without sequence number"):
        Session(LIMITS).receive(bad)


def test_sending_stops_when_nothing_is_acknowledged() -> None:
    """The outbox is bounded."""
    session = Session(Limits(outbox_frames=2))
    session.send(Cancel(1))
    session.send(Cancel(2))
    with pytest.raises(ProtocolError, match="2 messages sent and none acknowledged"):
        session.send(Cancel(3))
    session.note_acknowledgement(1)
    session.send(Cancel(3))


@pytest.mark.parametrize("tag", ["\udcff", 2**64, "t" * 5000])
def test_a_message_that_cannot_be_sent_leaves_no_trace(tag: int | str) -> None:
    """It takes no number and tells no acknowledgement: the stream goes on without a gap."""
    a, b = End(), End()
    a.hear(joined(b.session.send(Cancel(9))))
    with pytest.raises(UsageError, match="a Put"):
        a.session.send(Put(1, 1, 0, tag))
    assert (a.session.sent, a.session.received, a.session.told) == (0, 1, 0)
    b.hear(joined(a.session.send(Cancel(2))))
    assert b.acted == [Cancel(2)]


def test_a_resume_sends_exactly_what_the_other_end_lacks() -> None:
    """In order, and as it was."""
    session = Session(LIMITS)
    sent = [session.send(Cancel(call)) for call in range(1, 6)]
    assert session.resend(2) == sent[2:]
    assert session.resend(2) == sent[2:]


def test_a_resume_that_cannot_be_is_refused_at_once() -> None:
    """The other end claims what was never sent, or lacks what it acknowledged."""
    session = Session(LIMITS)
    for call in range(1, 4):
        session.send(Cancel(call))
    with pytest.raises(ProtocolError, match="message 4 acknowledged"):
        session.resend(4)
    session.note_acknowledgement(2)
    with pytest.raises(ProtocolError, match="up to 2 were acknowledged, and now 1"):
        session.resend(1)


@pytest.mark.parametrize("seed", range(60))
def test_every_message_acts_once_and_in_order_over_cut_connections(seed: int) -> None:
    """Two ends talk; the connection is cut at arbitrary bytes, each way on its own, and resumed."""
    chance = random.Random(seed)
    print("seed", seed)
    ends = End(), End()
    under_way = [bytearray(), bytearray()]  # bytes towards each end
    said: tuple[list[Message], list[Message]] = ([], [])

    def resume() -> None:
        for me, other in ((0, 1), (1, 0)):
            ends[me].connect()
            under_way[me].clear()
            for buffers in ends[other].session.resend(ends[me].session.received):
                under_way[me] += joined(buffers)

    for step in range(400):
        me = chance.randrange(2)
        action = chance.random()
        if action < 0.45:
            message = Put(step, me, 1, "t", (chance.randbytes(chance.choice((0, 5, 300, 40_000))),))
            said[me].append(message)
            under_way[1 - me] += joined(ends[me].session.send(message))
        elif action < 0.9:
            count = chance.randint(0, len(under_way[me]))
            data, under_way[me] = bytes(under_way[me][:count]), under_way[me][count:]
            ends[me].hear(data)
        elif action < 0.95:
            under_way[1 - me] += joined(ends[me].session.acknowledge())
        else:
            resume()
    resume()
    for me in (0, 1):
        ends[me].hear(bytes(under_way[me]))
    for me in (0, 1):
        # Bodies of received messages are other buffers with the same content.
        acted = [m._replace(body=(joined(m.body),) if m.body else ()) for m in ends[me].acted if type(m) is Put]
        expected = [m._replace(body=(joined(m.body),) if joined(m.body) else ()) for m in said[1 - me]]
        assert acted == expected
        assert {type(m) for m in ends[me].acted} <= {Put, Acknowledge}
        ends[1 - me].session.note_acknowledgement(ends[me].session.received)
        assert not ends[1 - me].session._outbox
