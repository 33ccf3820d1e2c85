"""Signal handlers that wait: while a thread runs an event loop, what they raise would come out anywhere in it."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections.abc import Callable
from operator import is_
from types import FrameType
from typing import Any, TypeAlias

__all__ = ["HeldSignals"]

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# What `signal` wraps. Its wrappers make enums of numbers and handlers, in a dozen Python functions for each call: that
# took a quarter of a blocking barrier of 8 processes.
_signal: Any = importlib.import_module("_signal")
_get, _set = _signal.getsignal, _signal.signal

_NUMBERS = sorted(map(int, signal.valid_signals()))

main_thread = threading.main_thread().ident
"""Identifier of the thread in which Python calls signal handlers. To be read as `_signals.main_thread`."""


class HeldSignals:
    """The process's signal handlers, from `hold` until `release`, which calls those whose signal came meanwhile.

    Only for the main thread, and one at a time. The system's defaults do as ever. So do handlers that are written in C
    where Python knows of no other; one that a C library has put over Python's is put out, as `asyncio.run` does too.
    """

    __slots__ = ("_held", "_on_signal", "came")

    def __init__(self, on_signal: Callable[[], object]) -> None:
        """`on_signal`: called, in the middle of anything, when a signal came whose handler waits."""
        self._on_signal = on_signal
        self._held: dict[int, Handler] = {}
        self.came: list[tuple[int, FrameType | None]] = []
        """The signals, and where they came."""

    def hold(self) -> None:
        """Have the handlers wait. Raises what one of them raises in this moment; then none waits."""
        global _last, _now
        handlers = [*map(_get, _NUMBERS)]
        if not all(map(is_, handlers, _last[0])):
            _last = handlers, {n: handler for n, handler in zip(_NUMBERS, handlers, strict=True) if callable(handler)}
        self._held = _last[1]
        _now = self
        try:
            for number in self._held:
                _set(number, self._note)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Put the handlers back, and call those whose signal came.

        Every one is called, whatever others raise; raises the last of what they raised.
        """
        global _now
        errors: list[BaseException] = []
        left = [*self._held]
        while left:
            try:  # a handler that is back may raise in here
                self._put_back(left[-1])
                left.pop()
            except BaseException as error:  # noqa: BLE001 (it is raised below)
                errors.append(error)
        _now = None
        came, self.came = self.came, []
        for number, frame in came:
            try:
                self._held[number](number, frame)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
        if errors:
            raise errors[-1]

    def forked(self) -> None:
        """In a child that another thread has forked meanwhile, where nobody will release them: put them back."""
        self.came.clear()
        for number in self._held:
            self._put_back(number)

    def _put_back(self, number: int) -> None:
        if _get(number) == self._note:  # else somebody has set another one meanwhile
            _set(number, self._held[number])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came.append((number, frame))
        self._on_signal()


_now: HeldSignals | None = None
"""Those that are held."""

_last: tuple[list[Any], dict[int, Handler]] = ([None] * len(_NUMBERS), {})
"""The handlers of all signals, and those of them that Python calls: mostly the same as when one last looked."""


def _in_child() -> None:
    global main_thread, _now
    main_thread = threading.main_thread().ident  # the one that has forked
    if _now is not None:
        _now.forked()
        _now = None


os.register_at_fork(after_in_child=_in_child)
