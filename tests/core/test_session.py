"""A session: every message once, in order, both ways, over connections that break anywhere."""

from __future__ import annotations

import random

import pytest

from aiopg._core.frames import JOIN_BELOW, Buffer, FrameReceiver, body_size
from aiopg._core.limits import Limits
from aiopg._core.messages import Acknowledge, Answer, Arrive, Cancel, Goodbye, Message, Needs, Put, Void
from aiopg._core.session import Session
from aiopg._core.wire import decode_message
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
        for frame in self.receiver.receive_data(data):
            seq, ack, *_ = frame
            if self.session.receive(seq, ack):
                self.acted.append(decode_message(frame))


def joined(buffers: tuple[Buffer, ...]) -> bytes:
    return b"".join(buffers)


def large(size: int = JOIN_BELOW + 1) -> Put:
    """A message whose body is not copied behind its head."""
    return Put(1, 1, 0, 0, (b"l" * size,))


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
    assert session.receive(1, 0)
    assert not session.receive(1, 1)
    assert session.acknowledged == 1


def test_a_gap_is_an_error() -> None:
    """A connection delivers in order, so one of the ends is wrong."""
    session = Session(LIMITS)
    session.receive(1, 0)
    with pytest.raises(ProtocolError, match="message 3 came after 1"):
        session.receive(3, 0)


def test_an_acknowledgement_from_the_future_is_an_error() -> None:
    """What was never sent cannot be held."""
    session = Session(LIMITS)
    session.send(Cancel(1))
    with pytest.raises(ProtocolError, match="message 2 acknowledged, and only 1 sent"):
        session.receive(0, 2)


def test_an_older_acknowledgement_says_nothing_new() -> None:
    """Frames that are sent again carry the acknowledgement of their first time."""
    session = Session(LIMITS)
    for call in (1, 2):
        session.send(Cancel(call))
    session.receive(0, 2)
    session.receive(0, 1)
    assert session.acknowledged == 2


def test_a_session_is_full_when_too_many_messages_are_not_acknowledged() -> None:
    """The outbox is bounded by who can wait; what is sent in spite of it counts too."""
    session = Session(Limits(outbox_frames=2))
    full = [session.full]
    for call in (1, 2, 3):
        session.send(Cancel(call))
        full.append(session.full)
    assert full == [False, False, True, True]
    full = []
    for ack in (1, 2):
        session.note_acknowledgement(ack)
        full.append(session.full)
    session.send(Cancel(4))
    assert [*full, session.full] == [True, False, True]


def test_a_session_is_full_when_large_messages_that_are_not_acknowledged_are_over_the_limit() -> None:
    """One message may take it past the limit; to be at the limit is not to be past it."""
    size = body_size(Session(LIMITS).send(large()))
    session = Session(Limits(retained_bytes=2 * size))
    session.send(large())
    session.send(large())
    assert (session.retained, session.full) == (2 * size, False)
    session.send(large(JOIN_BELOW + 2))
    assert (session.retained, session.full) == (3 * size + 1, True)
    session.send(Cancel(1))
    assert session.full
    session.note_acknowledgement(1)
    assert (session.retained, session.full) == (2 * size + 1, True)
    session.note_acknowledgement(2)
    assert (session.retained, session.full) == (size + 1, False)
    assert f"retained={size + 1}" in repr(session)


def test_a_payload_over_the_limit_of_what_is_retained_can_be_sent() -> None:
    """A session without anything else to wait for takes any legal message, and is full with it."""
    session = Session(Limits(retained_bytes=1))
    session.send(large(10 * JOIN_BELOW))
    assert session.full
    session.note_acknowledgement(1)
    assert (session.retained, session.full) == (0, False)


def test_small_messages_are_bounded_by_their_number_alone() -> None:
    """Their bytes are not counted: up to `JOIN_BELOW` a body is in one buffer with its head."""
    session = Session(Limits(retained_bytes=1))
    session.send(large(JOIN_BELOW))
    session.send(Cancel(1))
    assert (session.retained, session.full) == (0, False)


@pytest.mark.parametrize("limits", [Limits(outbox_frames=3), Limits(retained_bytes=JOIN_BELOW)])
def test_nothing_is_retained_and_a_session_not_full_when_all_is_acknowledged(limits: Limits) -> None:
    """Whatever it was full of, and also where the acknowledgement comes with a resume."""
    session = Session(limits)
    for _ in range(2):
        for message in (large(), Cancel(1), large(3 * JOIN_BELOW), Cancel(2)):
            session.send(message)
        assert session.full
        assert session.resend(session.sent) == []
        assert (session.retained, session.full) == (0, False)


def test_a_message_outside_the_stream_is_not_retained() -> None:
    """It is not kept, so it fills nothing."""
    session = Session(Limits(outbox_frames=1, retained_bytes=1))
    session.aside(Goodbye("bye", (b"l" * (JOIN_BELOW + 1),)))
    session.acknowledge()
    assert (session.sent, session.retained, session.full) == (0, 0, False)


UNSENDABLE: list[Message] = [
    Put(1, 1, 0, "\udcff"),
    Put(1, 1, 0, 2**63),
    Put(1, 1, 0, "t" * 5000),
    Put(2**63, 1, 0, "t", (b"l" * (JOIN_BELOW + 1),)),
]


@pytest.mark.parametrize("message", UNSENDABLE, ids=["no text", "no 64 bits", "too long", "large"])
def test_a_message_that_cannot_be_sent_leaves_no_trace(message: Message) -> None:
    """It takes no number and tells no acknowledgement: the stream goes on without a gap."""
    a, b = End(), End()
    a.hear(joined(b.session.send(Cancel(9))))
    with pytest.raises(UsageError, match="a Put"):
        a.session.send(message)
    assert (a.session.sent, a.session.received, a.session.told) == (0, 1, 0)
    assert (a.session.retained, a.session.full, a.session.resend(0)) == (0, False, [])
    b.hear(joined(a.session.send(Cancel(2))))
    assert b.acted == [Cancel(2)]


def test_an_operation_that_is_none_leaves_no_trace() -> None:
    """As any other message that cannot be sent."""
    a, b = End(), End()
    with pytest.raises(UsageError, match=r"an? Arrive"):
        a.session.send(Arrive(1, 1, 0, 1, "dance", -1, "", Needs.ALL, 0))
    b.hear(joined(a.session.send(Cancel(2))))
    assert b.acted == [Cancel(2)]


def test_a_message_aside_that_cannot_be_sent_tells_no_acknowledgement() -> None:
    """What was not sent has told nothing: the acknowledgement is still due."""
    a, b = End(), End()
    a.hear(joined(b.session.send(Cancel(9))))
    with pytest.raises(UsageError, match="a Goodbye"):
        a.session.aside(Goodbye("\udcff"))
    assert a.session.told == 0


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
            assert ends[me].session.retained == sum(body_size(sent) for sent in ends[me].session._outbox if sent[1:])
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
        assert (ends[1 - me].session.retained, ends[1 - me].session.full) == (0, False)


def test_what_replaces_a_message_is_sent_again_in_its_place() -> None:
    """Under the number of the other one, and only to an end that does not hold that."""
    a, b = End(), End()
    for call in (1, 2):
        b.hear(joined(a.session.send(Cancel(call))))
    a.hear(joined(b.session.acknowledge()))
    a.session.send(large())
    a.session.send(Cancel(4))
    a.session.send(Cancel(5))
    assert a.session.retained > JOIN_BELOW
    a.session.replace(2, Void(2))
    a.session.replace(3, Void(3))
    a.session.replace(5, Void(5))
    assert a.session.retained == 0
    b.connect()
    for buffers in a.session.resend(b.session.received):
        b.hear(joined(buffers))
    assert b.acted == [Cancel(1), Cancel(2), Void(3), Cancel(4), Void(5)]
    a.hear(joined(b.session.acknowledge()))
    assert a.session.acknowledged == 5
