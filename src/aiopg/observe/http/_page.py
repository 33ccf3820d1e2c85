"""What the page is told: small plain values, so that a thousand ranks are a few kilobytes and only changes are sent.

A *frame* is the store at one moment: a `Card` for each group that is shown, and what stands above them. Each card is
written down once for all who look, and has the number of the frame in which it last changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from aiopg._core.scopes import ANY_GROUP, Scope, allows
from aiopg.observe.http._timeline import KEPT_SECONDS, Timeline
from aiopg.observe.picture import GroupView, Picture, RoundView

__all__ = ["AWAITED_SECONDS", "GROUPS_SHOWN", "Card", "Frame", "next_frame", "runs"]

GROUPS_SHOWN = 200
"""Of more groups those come first that wait for somebody; of the others the page tells how many there are."""

ROUNDS_SHOWN = 12
"""Of one group, the oldest ones."""

AWAITED_SECONDS = 0.2
"""A round that is younger waits for nobody who is worth a word: in a busy group there is one at any moment."""

NAMED = 12
"""As many of the awaited are told of with who they are."""

RECENT_SECONDS = 8
OVERLAP_SECONDS = 4.0
"""Of the timeline, who has seen a frame so lately is told only so much: the rest he has. (What happened is read up to
two seconds late where very much happens.)"""

RUNS_CHARACTERS = 4000
"""A list of missing ranks is cut there; every second one of 16,384 would be 48 KB."""

LETTERS = {"absent": ".", "joined": "j", "away": "a", "left": "x", "lost": "l"}


def runs(ranks: Sequence[int]) -> str:
    """Ranks in order, as text: "0-3,7"."""
    parts, length = [], 0
    place = 0
    while place < len(ranks) and length < RUNS_CHARACTERS:
        end = place
        while end + 1 < len(ranks) and ranks[end + 1] == ranks[end] + 1:
            end += 1
        part = str(ranks[place]) if end == place else f"{ranks[place]}-{ranks[end]}"
        parts.append(part)
        length += len(part) + 1
        place = end + 1
    return ",".join(parts)


@dataclass
class Card:
    """One life of a group, as the page is told of it."""

    name: str
    key: str
    awaits_since: float
    """When the oldest round that waits was opened; infinite if none waits."""
    members: int
    rounds: int
    bytes: int
    rate: float | None
    said: dict[str, Any]
    """All but its timeline."""
    seconds: list[list[Any]]
    """Its timeline."""
    recent_from: int
    """From that second on it is news for who has seen the frame before."""
    changed: int = 0
    """Number of the frame in which it was last another one."""

    def is_like(self, other: Card | None) -> bool:
        """Whether who has seen the other one has seen this."""
        return other is not None and self.said == other.said and self.seconds[-2:] == other.seconds[-2:]

    # Written down when somebody is told of it, and for all of them once.

    @cached_property
    def whole(self) -> str:
        """As JSON, with its whole timeline."""
        return json.dumps(self.said | {"seconds": self.seconds})

    @cached_property
    def recent(self) -> str:
        """With the end of it."""
        seconds = [second for second in self.seconds if second[0] >= self.recent_from]
        return json.dumps(self.said | {"seconds": seconds})


@dataclass(slots=True)
class Frame:
    """The store at one moment."""

    number: int
    now: float
    """The store's monotonic seconds."""
    store: dict[str, Any]
    cards: list[Card] = field(default_factory=list)

    def tell(self, last: Frame | None, scope: Scope) -> str | None:
        """JSON for who has seen `last` (None: nothing yet); None: there is nothing new in this one.

        {"number", "now", "store", "order": [key...], "more": groups not shown, "groups": {key: ...} which changed, or
        were not shown in `last`}
        """
        after = 0 if last is None else last.number
        cards = self._seen_in(scope)
        shown = cards[:GROUPS_SHOWN]
        # Others end, or wait no more: then one comes to be shown of which nothing has changed.
        had = set() if last is None else {card.key for card in last._seen_in(scope)[:GROUPS_SHOWN]}
        changed = [card for card in shown if card.changed > after or card.key not in had]
        if not changed and self.store["changed"] <= after:
            return None
        is_recent = last is not None and self.now - last.now <= OVERLAP_SECONDS
        head = json.dumps(
            {
                "number": self.number,
                "now": self.now,
                "store": self._store_for(cards, scope),
                "order": [card.key for card in shown],
                "more": len(cards) - len(shown),
            }
        )
        groups = ",".join(
            f"{json.dumps(card.key)}:{card.recent if is_recent and card.key in had else card.whole}" for card in changed
        )
        return f'{head[:-1]}, "groups": {{{groups}}}}}'

    def _seen_in(self, scope: Scope) -> list[Card]:
        return self.cards if scope == ANY_GROUP else [card for card in self.cards if allows(scope, card.name)]

    def _store_for(self, cards: Iterable[Card], scope: Scope) -> dict[str, Any]:
        cards = list(cards)
        rates = [card.rate for card in cards if card.rate is not None]
        told = {
            "groups": len(cards),
            "members": sum(card.members for card in cards),
            "rounds": sum(card.rounds for card in cards),
            "bytes": sum(card.bytes for card in cards),
            "rate": round(sum(rates), 1) if rates else None,
        }
        hidden = () if scope == ANY_GROUP else ("sessions",)
        return {name: value for name, value in self.store.items() if name not in hidden} | told


def next_frame(last: Frame | None, picture: Picture, timeline: Timeline, now: float, facts: Mapping[str, Any]) -> Frame:
    """The frame behind `last`. `facts`: what is to be said of the store."""
    number = 1 if last is None else last.number + 1
    before = {} if last is None else {card.key: card for card in last.cards}
    cards = [_card(group, timeline, now) for group in picture.groups]
    # Who waits longest comes first; the others in the order of their names, so that nothing moves about.
    cards.sort(key=lambda card: (card.awaits_since, card.name, card.key))
    for card in cards:
        old = before.get(card.key)
        card.changed = old.changed if old is not None and card.is_like(old) else number
    frame = Frame(number, round(now, 3), dict(facts), cards)
    order = [card.key for card in cards]
    is_same = last is not None and order == list(before) and _same(last.store, facts)
    frame.store["changed"] = last.store["changed"] if is_same and last is not None else number
    return frame


def _same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return all(old.get(name) == value for name, value in new.items())


def _card(group: GroupView, timeline: Timeline, now: float) -> Card:
    waiting = [one for one in group.rounds if one.age >= AWAITED_SECONDS and not one.failed]
    said = {
        "name": group.name,
        "incarnation": group.incarnation,
        "world_size": group.world_size,
        "state": group.state,
        "ranks": "".join(LETTERS[rank.state] for rank in group.ranks),
        "rounds": [_round(one, now) for one in waiting[:ROUNDS_SHOWN]],
        "more_rounds": max(0, len(waiting) - ROUNDS_SHOWN),
        "who": _who(group, waiting, now),
        "rate": None if group.rounds_per_second is None else round(group.rounds_per_second, 1),
        "message_rate": None if group.messages_per_second is None else round(group.messages_per_second, 1),
        "messages": group.messages,
        "bytes": group.bytes,
        "latency": group.latency.fields(),
        "slowest": [[rank, round(seconds, 6)] for rank, seconds in group.slowest],
    }
    key = f"{group.incarnation}"
    return Card(
        name=group.name,
        key=key,
        awaits_since=min((now - one.age for one in waiting), default=float("inf")),
        members=group.members,
        rounds=len(group.rounds),
        bytes=group.bytes,
        rate=group.rounds_per_second,
        said=said,
        seconds=timeline.since(group.name, group.incarnation, int(now) - KEPT_SECONDS),
        recent_from=int(now) - RECENT_SECONDS,
    )


def _round(one: RoundView, now: float) -> dict[str, Any]:
    return {
        "call": one.call,
        "tag": one.tag,
        "number": one.number,
        # When it was opened, and not how old it is: that would be another number in every frame.
        "opened": round(now - one.age, 2),
        "missing": runs(one.missing),
        "missing_count": one.missing_count,
    }


def _who(group: GroupView, waiting: Sequence[RoundView], now: float) -> dict[int, list[Any]]:
    """Of the awaited ranks of the oldest round: [state, holder, reason, when its last call was]."""
    awaited = waiting[0].missing[:NAMED] if waiting else ()
    ranks = [group.ranks[rank] for rank in awaited]
    return {
        one.rank: [one.state, one.holder, one.reason, None if one.silent is None else round(now - one.silent, 1)]
        for one in ranks
    }
