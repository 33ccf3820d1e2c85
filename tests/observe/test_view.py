"""The model of a store: from statuses and happenings, who waits for whom."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from aiopg.observe._lives import LATENESS_ROUNDS, RECENT_SECONDS, ROUNDS_MOST
from aiopg.observe.picture import BOUNDS, GroupView, Histogram
from aiopg.observe.view import View
from aiopg.stores.base import Happening


class Store:
    """Happenings of one group as a store would number them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def happening(self, at: float, kind: str, rank: int = -1, seq: int = -1, text: str = "") -> Happening:
        op = "barrier" if seq >= 0 else ""
        return Happening(next(self._numbers), at, kind, "crew", 1, rank, op, 0, seq, text)

    def round(self, seq: int, came: Sequence[tuple[int, float]]) -> list[Happening]:
        """A whole round: its ranks and when they came."""
        rank, at = came[0]
        heard = [self.happening(at, "opened", rank, seq)]
        heard += [self.happening(at, "arrived", rank, seq) for rank, at in came]
        rank, at = came[-1]
        return [*heard, self.happening(at, "done", rank, seq)]


def status(
    world_size: int = 4,
    *,
    members: Sequence[int] | None = None,
    gone: dict[int, str] | None = None,
    rounds: Sequence[dict[str, Any]] = (),
    state: str = "live",
    **more: object,
) -> dict[str, Any]:
    """What a store says of itself."""
    ranks = range(world_size) if members is None else members
    group = {
        "name": "crew", "incarnation": 1, "world_size": world_size, "state": state,
        "members": {rank: f"pid {rank} on host" for rank in ranks}, "gone": gone or {}, "rounds": list(rounds),
        "mailboxes": 0, "messages": 0, "keys": {}, "bytes": 0,
    }  # fmt: skip
    return {"pid": 1, "groups": [group | more], "bytes": 0}


def in_flight(number: int, arrived: Sequence[int], missing: Sequence[int], **more: object) -> dict[str, Any]:
    """A round as a store tells of it."""
    said = {"tag": 0, "number": number, "call": "barrier()", "arrived": list(arrived), "missing": list(missing)}
    return said | {"bytes": 0} | more


def crew(view: View) -> GroupView:
    (group,) = view.picture().groups
    return group


def test_a_status_alone_says_who_is_missing_and_for_how_long() -> None:
    """A store without recorder is looked at again and again: a round is as old as the first status that names it."""
    view = View()
    view.see(status(rounds=[in_flight(3, [0, 1, 3], [2])]), 100.0)
    view.see(status(rounds=[in_flight(3, [0, 1, 3], [2])]), 102.5)
    (round,) = crew(view).rounds
    assert (round.op, round.number, round.arrived, round.missing, round.gone) == ("barrier", 3, [0, 1, 3], [2], [])
    assert round.age == 2.5
    assert [rank.awaited for rank in crew(view).ranks] == [False, False, True, False]
    assert crew(view).rounds_per_second is None
    view.see(status(rounds=[]), 103.0)
    assert crew(view).rounds == []


def test_the_age_that_the_store_says_is_taken() -> None:
    """Of a round that was open before anybody looked."""
    view = View()
    view.see(status(rounds=[in_flight(3, [0], [1, 2, 3], since=60.0)]), 100.0)
    assert crew(view).rounds[0].age == 60.0


def test_happenings_keep_the_picture_up_to_date_between_statuses() -> None:
    """Arrivals, withdrawals and ends; a rank that is missed may be lost."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    view.hear([store.happening(10.5, "opened", 0, 1), store.happening(10.5, "arrived", 0, 1)], 11.0)
    view.hear([store.happening(11.1, "arrived", 3, 1), store.happening(11.2, "arrived", 2, 1)], 11.5)
    (round,) = crew(view).rounds
    assert (round.arrived, round.missing, round.age) == ([0, 2, 3], [1], 1.0)
    view.hear([store.happening(11.6, "withdrawn", 0, 1), store.happening(11.7, "lost", 1, text="killed")], 12.0)
    (round,) = crew(view).rounds
    assert (round.missing, round.gone) == ([0, 1], [1])
    assert (crew(view).ranks[1].state, crew(view).ranks[1].reason) == ("lost", "killed")
    assert [(group.name, round.number) for group, round in view.picture().hopeless] == [("crew", 1)]


def test_a_status_that_is_older_than_the_end_of_a_round_does_not_bring_it_back() -> None:
    """Statuses and happenings come by different requests, in any order."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    (ended,) = view.hear(store.round(1, [(0, 10.1), (1, 10.1), (2, 10.1), (3, 10.3)]), 11.0)
    view.see(status(rounds=[in_flight(1, [0, 1, 2], [3])]), 10.2)
    assert crew(view).rounds == []
    assert (ended.opened, ended.done, ended.last_rank, ended.failed) == (10.1, 10.3, 3, "")


def test_a_status_that_is_newer_than_the_happenings_that_come_next_is_kept() -> None:
    """What is in both counts once."""
    store, view = Store(), View()
    view.see(status(rounds=[in_flight(1, [0, 1, 2], [3], since=0.2)]), 10.3)
    view.hear(store.round(1, [(0, 10.1), (1, 10.1), (2, 10.1)])[:-1], 10.2)
    (round,) = crew(view).rounds
    assert round.missing == [3]
    assert round.age == pytest.approx(0.2)


def test_the_number_of_a_round_that_was_taken_back_is_used_again() -> None:
    """A barrier that is polled is the same call again, and is shown again."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    for at in (10.1, 10.2):
        view.hear([store.happening(at, "opened", 0, 1), store.happening(at, "arrived", 0, 1)], at)
        assert crew(view).rounds[0].missing == [1, 2, 3]
        view.hear([store.happening(at, "withdrawn", 0, 1)], at)
        assert crew(view).rounds == []


def test_latencies_and_who_is_slow_are_those_of_whole_rounds() -> None:
    """From first to last arrival; the slow ranks, worst first."""
    store, view = Store(), View()
    view.see(status(), 0.0)
    for second in range(20):
        view.hear(
            store.round(second, [(0, second + 0.1), (1, second + 0.1), (3, second + 0.15), (2, second + 0.3)]),
            second + 1.0,
        )
    group = crew(view)
    assert (group.latency.count, group.latency.quantile(0.5)) == (20, 0.25)
    assert [rank for rank, _ in group.slowest] == [2, 3]
    assert dict(group.slowest)[2] == pytest.approx(0.2, abs=0.001)


def test_rates_are_made_of_what_the_store_counted_in_the_last_seconds() -> None:
    """Rounds done and messages put a second; what was long ago counts no more."""
    view = View()
    for second in range(60):
        view.see(status(done={"rounds": 5 * min(second, 30), "messages": 3 * second}), float(second))
        if second == 30:
            assert crew(view).rounds_per_second == pytest.approx(5.0)
    assert crew(view).rounds_per_second == 0
    assert crew(view).messages_per_second == pytest.approx(3.0)
    (life,) = view._lives.values()
    assert len(life.counted) <= RECENT_SECONDS + 2


def test_rounds_that_were_heard_in_part_are_in_no_latency() -> None:
    """A reader that missed happenings forgets what was open: half a round would give wrong times."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    whole = store.round(1, [(0, 10.1), (1, 10.1), (2, 10.1), (3, 10.9)])
    view.hear(whole[:2], 10.2)
    assert view.hear(whole[3:], 11.0, missed=True) == []
    assert (crew(view).latency.count, crew(view).rounds) == (0, [])


def test_a_round_that_failed_is_no_round_that_somebody_waits_in() -> None:
    """It is shown with its error until the store forgets it; it ended once, however many ranks are told."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    view.hear(store.round(1, [(0, 10.1), (1, 10.1)])[:-1], 10.2)
    lost = [
        store.happening(10.3, "lost", 2, text="killed"),
        store.happening(10.3, "failed", 2, 1, text="rank 2 of group 'crew' is lost"),
        store.happening(10.3, "failed", 2, 1, text="rank 2 of group 'crew' is lost"),
    ]
    (ended,) = view.hear(lost, 10.4)
    assert (ended.failed, ended.last_rank, ended.opened) == ("rank 2 of group 'crew' is lost", 2, 10.1)
    assert [(round.failed, round.gone) for round in crew(view).rounds] == [(ended.failed, [2])]
    assert not any(rank.awaited for rank in crew(view).ranks)
    assert view.picture().hopeless == []
    view.hear([store.happening(10.5, "over", -1, 1)], 10.6)
    assert (crew(view).rounds, crew(view).latency.count) == ([], 0)


def test_the_root_of_a_round_is_told() -> None:
    """As the store's own descriptions do."""
    store, view = Store(), View()
    view.see(status(), 10.0)
    view.hear([store.happening(10.1, "opened", 0, 1, "root 2"), store.happening(10.1, "arrived", 0, 1)], 10.2)
    assert crew(view).rounds[0].call == "barrier(root=2)"


def test_a_group_that_forms_waits_for_the_absent() -> None:
    """Its joining is a round like the others, which misses the ranks that have not come."""
    view = View()
    view.see(status(members=[0, 2], state="forming", since={0: 7.0, 2: 1.0}), 50.0)
    (join,) = crew(view).rounds
    assert (join.op, join.arrived, join.missing, join.gone, join.age) == ("join", [0, 2], [1, 3], [1, 3], 7.0)
    assert [rank.state for rank in crew(view).ranks] == ["joined", "absent", "joined", "absent"]


def test_states_of_ranks() -> None:
    """Away, left and lost are told apart; who was away and is back is there."""
    view, store = View(), Store()
    view.see(status(members=[0, 1], gone={2: "killed", 3: "it left"}, left=[3], away=[1]), 5.0)
    assert [rank.state for rank in crew(view).ranks] == ["joined", "away", "lost", "left"]
    view.hear([store.happening(6.0, "back", 1)], 6.0)
    assert crew(view).ranks[1].state == "joined"


def test_a_group_that_ended_is_forgotten() -> None:
    """With the first status that does not name it, unless something happened in it later."""
    view, store = View(), Store()
    view.see(status(), 5.0)
    view.hear([store.happening(6.0, "left", 1)], 6.0)
    view.see({"groups": []}, 5.5)
    assert len(view.picture().groups) == 1
    view.see({"groups": []}, 6.5)
    assert view.picture().groups == []


def test_a_view_stays_as_small_as_it_is() -> None:
    """However many rounds a group opens, ends and leaves open."""
    view, store = View(), Store()
    view.see(status(), 0.0)
    for seq in range(5000):
        heard = store.round(seq, [(rank, 0.001 * seq) for rank in range(4)])
        view.hear(heard if seq % 2 else heard[:2], 0.001 * seq)
    (life,) = view._lives.values()
    assert len(life.open) <= ROUNDS_MOST
    assert len(life.over) <= ROUNDS_MOST
    assert len(life.late) <= LATENESS_ROUNDS


def test_thousands_of_ranks_are_shown_in_part_and_counted_whole() -> None:
    """A store names up to 1,024 ranks of each list; of the shorter one that is all."""
    view = View()
    view.see(status(3000, rounds=[in_flight(1, range(1024), [2999])]), 1.0)
    (round,) = crew(view).rounds
    assert (round.missing, round.missing_count, len(round.arrived)) == ([2999], 1, 1024)


def test_a_histogram_counts_each_duration_once() -> None:
    """In the first bound that it is not over."""
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, 1e9):
        histogram.add(seconds)
    assert (histogram.counts[0], histogram.counts[1], histogram.counts[-1], histogram.count) == (2, 1, 1, 4)
    assert (histogram.quantile(0.5), histogram.quantile(1.0)) == (BOUNDS[0], float("inf"))
