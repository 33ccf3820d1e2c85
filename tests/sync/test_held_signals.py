"""Signal handlers that are held back, in this process's main thread."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from aiopg.interrupts import HeldSignals

KINDS = (signal.SIGUSR1, signal.SIGUSR2)


class Alarm(Exception):
    """What the handlers of these tests raise."""


class Handlers:
    """Handlers for `KINDS` that note what they are called for, and raise if told to."""

    def __init__(self) -> None:
        self.handled: list[int] = []
        self.raising = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.handled.append(number)
        if self.raising:
            raise Alarm(number)


@pytest.fixture
def handlers() -> Iterator[Handlers]:
    """Those that the program set."""
    made = Handlers()
    before = [signal.signal(kind, made) for kind in KINDS]
    yield made
    for kind, handler in zip(KINDS, before, strict=True):
        signal.signal(kind, handler)


def held_while(act: Callable[[], object], wake: Callable[[], object] = int) -> None:
    """Do this while signals are held."""
    held = HeldSignals(wake)
    try:
        held.hold()
        act()
    finally:
        held.let_go()


def test_a_handler_is_called_at_the_end_and_not_before(handlers: Handlers) -> None:
    """What it raises comes out of `let_go`, when everything in between was done."""
    handlers.raising = True
    before_end: list[list[int]] = []

    def act() -> None:
        signal.raise_signal(signal.SIGUSR1)
        before_end.append(list(handlers.handled))

    with pytest.raises(Alarm):
        held_while(act)
    assert before_end == [[]]
    assert handlers.handled == [signal.SIGUSR1]


def test_who_holds_is_woken(handlers: Handlers) -> None:
    """A wait that holds signals up must hear that one came."""
    woken: list[int] = []
    held_while(lambda: signal.raise_signal(signal.SIGUSR1), lambda: woken.append(1))
    assert woken == [1]


def test_every_handler_is_called_though_the_first_raises(handlers: Handlers) -> None:
    """Two signals that came are two that are handled."""
    handlers.raising = True

    def act() -> None:
        for kind in KINDS:
            signal.raise_signal(kind)

    with pytest.raises(Alarm):
        held_while(act)
    assert handlers.handled == list(KINDS)


def test_the_handlers_are_the_programs_again_afterwards(handlers: Handlers) -> None:
    """Every signal has the handler that it had, whatever kind that was."""
    before = [signal.getsignal(kind) for kind in signal.valid_signals()]
    held = HeldSignals(int)
    for _ in range(2):
        held.hold()
        held.let_go()
        held.let_go()
    assert [signal.getsignal(kind) for kind in signal.valid_signals()] == before
    handlers.raising = True
    with pytest.raises(Alarm):
        signal.raise_signal(signal.SIGUSR1)


def test_a_handler_that_was_changed_in_between_is_the_one_that_is_held(handlers: Handlers) -> None:
    """A program may set its handlers at any time."""
    held, other = HeldSignals(int), Handlers()
    held.hold()
    held.let_go()
    signal.signal(signal.SIGUSR1, other)
    held.hold()
    signal.raise_signal(signal.SIGUSR1)
    held.let_go()
    assert (handlers.handled, other.handled) == ([], [signal.SIGUSR1])
    assert signal.getsignal(signal.SIGUSR1) is other


def test_a_handler_that_stayed_in_the_others_place_does_what_that_did(handlers: Handlers) -> None:
    """Were `let_go` cut short by a second interrupt, nothing would be lost but a moment."""
    held = HeldSignals(int)
    held.hold()
    ours = signal.getsignal(signal.SIGUSR1)
    held.let_go()
    signal.signal(signal.SIGUSR1, ours)
    signal.raise_signal(signal.SIGUSR1)
    assert handlers.handled == [signal.SIGUSR1]
    held.hold()
    signal.raise_signal(signal.SIGUSR1)
    held.let_go()
    assert handlers.handled == [signal.SIGUSR1] * 2
    assert signal.getsignal(signal.SIGUSR1) is handlers


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_is_forked_meanwhile_holds_nothing(handlers: Handlers) -> None:
    """Ctrl-C works in a child that another thread forked while the main thread was in a call."""
    held = HeldSignals(int)
    held.hold()
    child = os.fork()
    if child == 0:
        signal.raise_signal(signal.SIGUSR1)
        os._exit(7 if handlers.handled else 1)
    held.let_go()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
