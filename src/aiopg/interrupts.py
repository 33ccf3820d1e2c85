"""Signal handlers that wait while the main thread does what must not be left half done."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

__all__ = ["HeldSignals"]

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# What `signal` wraps round these looks up an enum for each answer, and every call of a blocking group asks for all
# signals.
_signal: Any = importlib.import_module("_signal")
handler_of: Callable[[int], Any] = _signal.getsignal
set_handler: Callable[[int, Any], Any] = _signal.signal

SIGNALS = sorted(map(int, signal.valid_signals()))


class HeldSignals:
    """Holds back every signal handler that is written in Python: Ctrl-C's, and those of the program.

    Python calls them in the main thread between any two steps of it, and what they raise comes out right there. Only
    for the main thread; used again and again, and not while it holds already::

        try:
            held.hold()
            ...             # no handler raises in here
        finally:
            held.let_go()   # but here
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        """`wake` is called when a signal comes while they are held, between any two steps of the main thread."""
        self._wake = wake
        self._holding = False
        self._pid = os.getpid()
        self._ours: Handler = self._caught
        self._handlers: dict[int, Handler] = {}
        self._seen: list[Any] = []
        self._arrived: list[tuple[int, FrameType | None]] = []

    def hold(self) -> None:
        """Begin. A handler may still raise here; `let_go` is to be called all the same."""
        now = list(map(handler_of, SIGNALS))
        if now != self._seen:
            known = self._handlers
            self._handlers = {
                number: known[number] if handler is self._ours else handler
                for number, handler in zip(SIGNALS, now, strict=True)
                if callable(handler)
            }
            self._seen = now
        self._holding = True
        for number in self._handlers:
            set_handler(number, self._ours)

    def let_go(self) -> None:
        """End, and call the handlers of what came meanwhile; raises what they raise."""
        # False first of all: a handler that raises between the next steps leaves ours in the others' places, and ours
        # then does what theirs would do. And what `hold` did not come to is not undone.
        held, self._holding = self._holding, False
        try:
            if held:
                for number, handler in self._handlers.items():
                    set_handler(number, handler)
        finally:
            if self._arrived:
                self._deliver()

    def _deliver(self) -> None:
        while self._arrived:
            number, frame = self._arrived.pop(0)
            try:
                self._handlers[number](number, frame)
            finally:
                self._deliver()

    def _caught(self, number: int, frame: FrameType | None) -> None:
        # A child that another thread forked meanwhile has nothing to be held for.
        if self._holding and os.getpid() == self._pid:
            self._arrived.append((number, frame))
            self._wake()
        else:
            self._handlers[number](number, frame)
