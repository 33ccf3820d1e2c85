"""Ctrl-C: a real SIGINT to a real process that waits in a call."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from aiopg import GroupTimeoutError, PeerLostError, StatelessGroup
from tests.sync.processes import HOST, LONG, Program, await_status

Start = Callable[..., Program]

WAIT_IN = """
group = StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 1, 2)
say_when_waiting(group)
try:
    getattr(group, sys.argv[2])(*eval(sys.argv[3]), timeout=60)
except KeyboardInterrupt:
    say("interrupted")
input()
"""


def create(port: int, rank: int) -> StatelessGroup:
    """One of two ranks."""
    return StatelessGroup.create(HOST, port, rank, 2, store_host="thread", store_timeout=LONG)


def interrupt(program: Program) -> None:
    """Interrupt a program that says so, and see that it does so in under a second."""
    assert program.line() == "waiting"
    began = time.monotonic()
    program.interrupt()
    assert program.line() == "interrupted"
    assert time.monotonic() - began < 1.0


def test_an_interrupted_barrier_is_taken_back_and_can_be_called_again(program: Start, port: int) -> None:
    """Ctrl-C in a barrier: the arrival does not count, and the group goes on."""
    other = program(WAIT_IN + "group.barrier(); group.close(); say('done')", port, "barrier", "()")
    with create(port, 0) as group:
        interrupt(other)
        await_status(group.store.url, "rounds", 0)
        with pytest.raises(GroupTimeoutError) as caught:
            group.barrier(timeout=0.2)
        assert caught.value.missing == (1,)
        other.go_on()
        group.barrier()
        assert other.line() == "done"
        assert other.end() == 0
    assert other.errors() == ""


def test_an_interrupted_recv_leaves_the_message_to_the_next(program: Start, port: int) -> None:
    """Ctrl-C in a recv: what is sent after it is what the next recv gets."""
    other = program(WAIT_IN + "say(group.recv(0), group.recv(0))", port, "recv", "(0,)")
    with create(port, 0) as group:
        interrupt(other)
        group.send("first", 1)
        group.send("second", 1)
        other.go_on()
        assert other.line() == "first second"


def test_an_interrupted_all_gather_is_the_same_call_again(program: Start, port: int) -> None:
    """Ctrl-C in a collective gives its number back."""
    other = program(WAIT_IN + "say(group.all_gather('b'))", port, "all_gather", "('a',)")
    with create(port, 0) as group:
        interrupt(other)
        await_status(group.store.url, "rounds", 0)
        other.go_on()
        assert group.all_gather("0") == ["0", "b"]
        assert other.line() == "['0', 'b']"


@pytest.mark.parametrize("store_host", ["process", "thread", "loop"])
def test_an_interrupted_create_leaves_nothing_and_can_be_called_again(
    program: Start, port: int, store_host: str
) -> None:
    """Ctrl-C while a group forms: no thread stays, and the same create() a little later forms it."""
    source = """
    def create():
        return StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 0, 2, store_host=sys.argv[2])
    try:
        create()
    except KeyboardInterrupt:
        say("interrupted")
    say(threading.active_count())
    with create() as group:
        group.barrier()
    """
    other = program(source, port, store_host)
    await_status(f"aiopg://{HOST}:{port}", "members", 1)
    began = time.monotonic()
    other.interrupt()
    assert other.line() == "interrupted"
    assert time.monotonic() - began < 1.0
    assert other.line() == "1"
    with create(port, 1) as group:
        group.barrier()
    assert (other.end(), other.errors()) == (0, "")


def test_an_interrupt_that_nobody_catches_ends_the_program_and_says_goodbye(program: Start, port: int) -> None:
    """A program ended by Ctrl-C leaves its group; the others are told at once."""
    source = """
    group = StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 1, 2)
    say_when_waiting(group)
    group.recv(0)
    """
    other = program(source, port)
    with create(port, 0) as group:
        assert other.line() == "waiting"
        other.interrupt()
        with pytest.raises(PeerLostError, match="left"):
            group.recv(1)
        assert other.end() == -signal.SIGINT
    assert "KeyboardInterrupt" in other.errors()


def test_what_another_signal_handler_raises_takes_the_call_back_too(program: Start, port: int) -> None:
    """SIGTERM turned into SystemExit, an alarm turned into an error of one's own: as Ctrl-C."""
    source = """
    def on_alarm(number, frame):
        raise OSError("alarm")
    signal.signal(signal.SIGALRM, on_alarm)
    group = StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 1, 2)
    say_when_waiting(group)
    try:
        group.recv(0)
    except OSError:
        say(group.pending())
    say(group.recv(0))
    """
    other = program(source, port)
    with create(port, 0) as group:
        assert other.line() == "waiting"
        other.process.send_signal(signal.SIGALRM)
        assert other.line() == "()"
        group.send("x", 1)
        assert other.line() == "x"
        assert (other.end(), other.errors()) == (0, "")
