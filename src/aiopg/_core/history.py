"""What happened to the members of one incarnation, and who waits to hear of it.

A happening is (what, rank, text): "joined", "left", "lost" or "aborted". Each rank joins and goes once (a join that is
taken back is one more of each), so the history is short and kept whole: who asks says how many he has heard of
(`messages.Watch`), and nobody can miss one or hear it twice.
"""

from __future__ import annotations

from typing import TypeAlias

from aiopg._core.messages import Watch, pack_value
from aiopg._core.replies import Replies, SessionId, Waiting

__all__ = ["Happening", "History"]

RANKS_COME_AND_GO = 4
"""Once each is usual."""

Happening: TypeAlias = tuple[str, int, str]


class _Watching(Waiting):
    __slots__ = ("_history", "after")

    def __init__(self, session: SessionId, watch: Watch, history: History) -> None:
        super().__init__(session, watch.seat, watch.call)
        self._history = history
        self.after = watch.after

    def facts(self) -> tuple[list[int], list[int]]:
        return [], []

    def withdraw(self) -> bool:
        self._history.watching.remove(self)
        return True


class History:
    """The happenings of one incarnation, oldest first."""

    def __init__(self, replies: Replies) -> None:
        self._replies = replies
        self.happenings: list[Happening] = []
        self.watching: list[_Watching] = []

    def add(self, what: str, rank: int, text: str) -> None:
        """Something happened; who waits is told."""
        self.happenings.append((what, rank, text))
        watching, self.watching = self.watching, []
        for one in watching:
            self._tell(one)

    def is_long(self, world_size: int) -> bool:
        """Whether ranks came and went so often that it is no accident: what is kept whole must have an end."""
        return len(self.happenings) > RANKS_COME_AND_GO * world_size + 100

    def watch(self, session: SessionId, watch: Watch) -> None:
        """Tell a member what it has not heard of, now or when there is something. Raises what `Replies.wait` does."""
        watching = _Watching(session, watch, self)
        self._replies.wait(watching)
        self._tell(watching)

    def _tell(self, watching: _Watching) -> None:
        unheard = self.happenings[max(watching.after, 0) :]
        if unheard:
            self._replies.answer(watching, pack_value(unheard))
        else:
            self.watching.append(watching)
