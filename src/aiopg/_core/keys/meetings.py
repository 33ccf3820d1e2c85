"""Meetings: so many are to come, and go on when all are there.

Rules:

- Who comes says how many there are to be; the first one's word counts, and another number is refused.
- When the last one has come, all are answered, and the meeting begins anew.
- Who waits no more, for whatever reason, has not come.
"""

from __future__ import annotations

from aiopg._core.frames import Body
from aiopg._core.key_messages import Meet
from aiopg._core.limits import Limits
from aiopg._core.replies import Replies, SessionId, Waiting
from aiopg.errors import AiopgError, KeyOperationError

__all__ = ["Meetings"]


class _Meeting:
    __slots__ = ("expected", "known", "waiting")

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.known: Body | None = None
        """What those are told who inquire; None when it has changed."""
        self.waiting: dict[_Meet, None] = {}  # in the order of coming; of thousands any one may give up


class _Meet(Waiting):
    __slots__ = ("_meetings", "key")

    def __init__(self, session: SessionId, meet: Meet, meetings: Meetings) -> None:
        super().__init__(session, meet.seat, meet.call)
        self._meetings = meetings
        self.key = meet.key

    def facts(self) -> tuple[list[int], list[int]]:
        meeting = self._meetings.meeting(self.key)
        arrived = len(meeting.waiting)
        return list(range(arrived)), list(range(arrived, meeting.expected))

    def told_facts(self) -> Body:
        meeting = self._meetings.meeting(self.key)
        if meeting.known is None:
            meeting.known = super().told_facts()
        return meeting.known

    def withdraw(self) -> bool:
        self._meetings.remove(self)
        return True


class Meetings:
    """All meetings of one space."""

    __slots__ = ("_limits", "_meetings", "_replies")

    def __init__(self, limits: Limits, replies: Replies) -> None:
        self._limits = limits
        self._replies = replies
        self._meetings: dict[str, _Meeting] = {}

    def come(self, session: SessionId, meet: Meet) -> None:
        """One has come. Raises `KeyOperationError`, and as `Replies.check`."""
        most = self._limits.world_size
        if not 1 <= meet.expected <= most:
            raise KeyOperationError("barrier", meet.key, f"world_size must be 1 to {most}, not {meet.expected}")
        meeting = self._meetings.get(meet.key)
        if meeting is not None and meeting.expected != meet.expected:
            raise KeyOperationError(
                "barrier", meet.key, f"others came with world_size {meeting.expected}, not {meet.expected}"
            )
        waiting = _Meet(session, meet, self)
        self._replies.wait(waiting)
        if meeting is None:
            meeting = self._meetings[meet.key] = _Meeting(meet.expected)
        meeting.waiting[waiting] = None
        meeting.known = None
        if len(meeting.waiting) == meeting.expected:
            del self._meetings[meet.key]
            self._replies.answer_all(meeting.waiting, (), receipt=False)

    def meeting(self, key: str) -> _Meeting:
        """That to which somebody has come."""
        return self._meetings[key]

    def remove(self, waiting: _Meet) -> None:
        """One that waits no more."""
        meeting = self._meetings[waiting.key]
        del meeting.waiting[waiting]
        meeting.known = None
        if not meeting.waiting:
            del self._meetings[waiting.key]

    def fail(self, error: AiopgError) -> None:
        """Fail all who wait."""
        for meeting in self._meetings.values():
            self._replies.fail(meeting.waiting, error)
        self._meetings.clear()
