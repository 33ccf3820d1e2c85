"""`BlockingWatch`: the changes of keys, as they come, for programs that block."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from aiopg.errors import GroupClosedError
from aiopg.keys import KeyEvent, Watch
from aiopg.sync._runner import Runner

__all__ = ["BlockingWatch"]


class BlockingWatch:
    """What `aiopg.keys.Watch` is, as an iterator whose steps block. Made by `Store.watch`. ::

        with store.watch("jobs/") as watch:
            for change in watch:
                print(change.kind, change.key, change.value)

    Ctrl-C in a step loses nothing: the next step goes on there. Threads that read one watch take turns.
    """

    def __init__(self, watch: Watch, runner: Runner) -> None:
        self._watch, self._runner = watch, runner
        self._turn = threading.Lock()

    def __repr__(self) -> str:
        return repr(self._watch).replace("Watch", type(self).__name__, 1)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> KeyEvent:
        with self._turn:
            try:
                if self._runner.call(self._watch._fill):
                    # Taken here and not on the loop: an interrupt in the moment in which it came leaves it there.
                    return self._watch._take()
            except GroupClosedError:
                pass
        raise StopIteration

    def close(self) -> None:
        """End the watch; a step that waits in another thread ends too. Twice is fine."""
        if not (self._runner.closed or self._runner.is_forked):
            try:
                self._runner.call(self._watch.aclose)
            except GroupClosedError:
                pass  # the store was closed meanwhile

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()
