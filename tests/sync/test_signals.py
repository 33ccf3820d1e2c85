"""Signal handlers while a blocking call runs the event loop: they wait, and none is forgotten."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from aiopg import StatelessGroup
from aiopg.sync import _signals
from aiopg.sync._signals import HeldSignals
from tests.sync.processes import HOST, LONG, Program

HELD = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """Numbers of the signals whose handler was called; that of each raises an error with its number."""
    called: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        called.append(number)
        raise ValueError(number)

    before = {number: signal.signal(number, handler) for number in HELD}
    yield called
    for number, old in before.items():
        signal.signal(number, old)


def test_handlers_wait_and_are_called_behind(handled: list[int]) -> None:
    """Each that had a signal is called once it is back, whatever another one raises; the last error is raised."""
    woken: list[int] = []
    held = HeldSignals(lambda: woken.append(1))
    before = [signal.getsignal(number) for number in HELD]
    held.hold()
    for number in HELD:
        signal.raise_signal(number)
    assert (handled, len(woken)) == ([], 3)
    with pytest.raises(ValueError, match=str(int(signal.SIGINT))):
        held.release()
    assert handled == list(HELD)
    assert [signal.getsignal(number) for number in HELD] == before


def test_what_a_handler_raises_in_release_keeps_no_other_one_out(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signals in the middle of release(): all handlers are put back, and all are called that are to be."""
    held = HeldSignals(lambda: None)
    before = [signal.getsignal(number) for number in HELD]
    held.hold()
    signal.raise_signal(signal.SIGUSR1)
    real = _signals._set
    left = [*HELD]

    def signal_comes(number: int, handler: Any) -> None:
        if left:
            signal.raise_signal(left.pop())
        real(number, handler)

    with monkeypatch.context() as patched:
        patched.setattr(_signals, "_set", signal_comes)
        with pytest.raises(ValueError, match=r"^[0-9]+$"):
            held.release()
    assert [signal.getsignal(number) for number in HELD] == before
    assert sorted(handled) == sorted([*HELD, signal.SIGUSR1])


def test_a_handler_that_is_set_meanwhile_stays(handled: list[int]) -> None:
    """By a reduce function, say: what was there before does not come back over it."""

    def another(number: int, frame: FrameType | None) -> None:
        handled.append(-1)

    held = HeldSignals(lambda: None)
    held.hold()
    signal.signal(signal.SIGUSR1, another)
    held.release()
    signal.raise_signal(signal.SIGUSR1)
    assert handled == [-1]


FORKS = """
group = StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 1, 2)

def fork():
    while not any(call.op == "recv" for call in group.pending()):
        time.sleep(0.005)
    child = os.fork()
    if child == 0:
        known = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            os._exit(5 if known else 6)
        os._exit(7)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

threading.Thread(target=fork).start()
say(group.recv(0))
group.close()
"""


def test_a_child_that_another_thread_forks_has_its_handlers(program: Callable[..., Program], port: int) -> None:
    """While the main thread waits in a call: nobody in the child would ever put them back."""
    other = program(FORKS, port, warnings="ignore")
    with StatelessGroup.create(HOST, port, 0, 2, store_host="thread", store_timeout=LONG) as group:
        assert other.line() == "5"
        group.send("x", 1)
        assert other.line() == "x"
        assert (other.end(), other.errors()) == (0, "")


def test_the_system_s_own_handlers_are_left_alone() -> None:
    """What is ignored stays ignored, also while handlers wait."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        held = HeldSignals(lambda: None)
        held.hold()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        signal.raise_signal(signal.SIGUSR1)
        held.release()
        assert held.came == []
    finally:
        signal.signal(signal.SIGUSR1, before)


HANDLES = """
group = StatelessGroup.create("127.0.0.1", int(sys.argv[1]), 1, 2)

def handler(number, frame):
    group.send("from the handler", 0)
    say("handled", [call.op for call in group.pending()])

signal.signal(signal.SIGUSR1, handler)
say_when_waiting(group)
say(group.recv(0))
say(signal.getsignal(signal.SIGUSR1) is handler, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
say(group.recv(0))
group.close()
"""


def test_a_handler_that_raises_nothing_lets_the_call_go_on(program: Callable[..., Program], port: int) -> None:
    """It may use the group itself, and the call that it came into gets its message; then all is as before."""
    other = program(HANDLES, port)
    with StatelessGroup.create(HOST, port, 0, 2, store_host="thread", store_timeout=LONG) as group:
        assert other.line() == "waiting"
        other.process.send_signal(signal.SIGUSR1)
        assert group.recv(1) == "from the handler"
        assert other.line() == "handled ['recv']"
        group.send("first", 1)
        assert other.line() == "first"
        assert other.line() == "True True"
        group.send("second", 1)
        assert other.line() == "second"
        assert (other.end(), other.errors()) == (0, "")
