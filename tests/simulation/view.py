"""What can be said of a history before it is judged: who was where when, whose connection was well, who was away."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from aiopg.server._sessions import RESTART_GRACE_SECONDS
from tests.simulation.history import Call, History, Life, Seat
from tests.simulation.key_history import Space, Use
from tests.simulation.transport import Span

__all__ = ["SETTLE", "View"]

SETTLE = 1.0
"""Where all is well, and not more is on its way than passes at once, all of it has arrived after so many seconds."""

BACKLOG = 0.3
"""An end that had more to send than passes for longer than this was not well: what it sent waited for that."""

HANDSHAKE = 0.3
"""A connection, new or well again, is of use after so many seconds: a handshake takes a few messages."""

HASTE = 0.025
"""So many seconds before its grace ends a member makes its last attempt to come again."""


class View:
    """A history, and what the network did to it."""

    def __init__(self, history: History, spans: Mapping[str, list[Span]]) -> None:
        self.history = history
        self._spans = spans
        self.groups: dict[tuple[str, int, int], dict[int, list[Seat]]] = defaultdict(lambda: defaultdict(list))
        """Seats by life of a group and rank; in one life a rank has another seat only after a join was taken back."""
        for seat in history.seats:
            if seat.incarnation >= 0:
                self.groups[seat.key][seat.rank].append(seat)

    def call(self, number: object) -> Call | None:
        """The call that gave a payload with this number."""
        return self.history.numbered(number)

    def peers(self, seat: Seat, rank: int) -> list[Seat]:
        """Who had this rank in the same life."""
        return self.groups[seat.key].get(rank, [])

    def is_well(self, life: Life, since: float, until: float) -> bool:
        """Whether nothing disturbed this process and the store for all that time."""
        if any(begin <= until and end + HANDSHAKE >= since for begin, end in self.history.paused):
            return False
        return any(
            span.opened + HANDSHAKE <= since
            and span.ended > until
            and not any(begin <= until and end + HANDSHAKE >= since for begin, end in span.bad)
            and not any(begin <= until and end >= since and end - begin > BACKLOG for begin, end in span.behind)
            for span in self._spans.get(life.name, ())
        )

    def surely_arrives(self, life: Life, at: float) -> bool:
        """Whether what this process sent then reached the store, also if it closed its connection with that."""
        until = at + SETTLE
        if life.died <= until or any(begin <= until and end + HANDSHAKE >= at for begin, end in self.history.paused):
            return False
        return any(
            span.opened + HANDSHAKE <= at <= span.ended
            and span.broken > until
            and not any(begin <= until and end + HANDSHAKE >= at for begin, end in span.bad)
            and not any(begin <= until and end >= at and end - begin > BACKLOG for begin, end in span.behind)
            for span in self._spans.get(life.name, ())
        )

    def may_be_lost(self, life: Life, at: float) -> bool:
        """Whether the store may have given this process up by then: it was gone, or away for its grace, or ended."""
        if min(life.died, life.closed) <= at or any(crash <= at for crash in self.history.crashes):
            return True
        return self._longest_away(life, at) >= life.grace - HASTE

    def is_known_lost(self, life: Life, at: float) -> bool:
        """Whether the store must have given this dead process up by then."""
        spans = self._spans.get(life.name, ())
        known = max([life.died, *(span.known for span in spans)])
        due = known + life.grace + SETTLE + 0.5
        for _, begun in self.history.restarts:
            if not any(span.opened > begun for span in spans):
                due = max(due, begun + RESTART_GRACE_SECONDS + SETTLE)
        return due < at and not any(begin <= at and end + SETTLE >= life.died for begin, end in self.history.paused)

    def may_be_out(self, seat: Seat, at: float) -> bool:
        """Whether the store may have taken a user of keys for gone by then."""
        full = bool(self.history.lowered & {"output_bytes", "outbox_frames"})
        return full or seat.over <= at or self.may_be_lost(seat.life, at) or self._is_rivalled(seat, at)

    def is_out(self, seat: Seat, at: float) -> bool:
        """Whether the store must have taken a user of keys for gone by then."""
        return at >= self.history.keys.audit > seat.over or self.is_known_lost(seat.life, at)

    def was_audited(self, space: Space) -> bool:
        """Whether all that these keys hold was looked at in the end."""
        auditor = self.history.keys.auditor
        return auditor is not None and auditor.key == space

    def audited(self, uses: Sequence[Use]) -> Use | None:
        """The last look at a key, when everybody had gone."""
        auditor = self.history.keys.auditor
        return next((use for use in uses if use.seat is auditor and use.op == "get" and use.ok), None)

    def _is_rivalled(self, seat: Seat, at: float) -> bool:
        return seat.rank >= 0 and any(
            other.takeover and other.asked <= at and (other.group, other.rank) == (seat.group, seat.rank)
            for other in self.history.seats
        )

    def _longest_away(self, life: Life, at: float) -> float:
        """The longest time until `at` in which no connection of it was sure to be of use."""
        spans = self._spans.get(life.name, ())
        longest, useful_until = 0.0, min((span.opened for span in spans), default=at)
        useful = [interval for span in spans for interval in self._useful(span)]
        for crash, begun in self.history.restarts:
            # A store that was started again waits anew for those who were there before, and long, for the first time.
            again = min((span.opened for span in spans if begun <= span.opened < math.inf), default=math.inf)
            useful.append((crash, max(begun, min(again, begun + RESTART_GRACE_SECONDS - life.grace))))
        for begin, end in sorted(useful):
            if begin >= at:
                break
            longest = max(longest, begin - useful_until)
            useful_until = max(useful_until, min(end, at))
        return max(longest, at - useful_until)

    def _useful(self, span: Span) -> Iterator[tuple[float, float]]:
        """From when till when a connection was sure to be of use."""
        begin = span.opened + HANDSHAKE
        for slow, quick in self.history.slow:
            if slow <= begin and span.opened <= quick:
                begin = max(begin, quick + HANDSHAKE)
        for bad, good in sorted(span.bad):
            if begin < min(bad, span.ended):
                yield begin, min(bad, span.ended)
            begin = max(begin, good + HANDSHAKE)
        if begin < span.ended:
            yield begin, span.ended
