"""What the page is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aiopg.observe.http import _page
from aiopg.observe.http._page import GROUPS_SHOWN, RUNS_CHARACTERS, Frame, next_frame, runs
from aiopg.observe.http._timeline import KEPT_SECONDS, LIVES_KEPT, Timeline
from aiopg.observe.picture import Finished, GroupView, Picture, RankView, RoundView

ALL = ("*",)
HOSTILE = "<img src=x onerror=alert(1)>\u202e\udc80"


def group(name: str, incarnation: int = 1, age: float | None = None, missing: tuple[int, ...] = (1,)) -> GroupView:
    """A group of three, in which a round waits for so long."""
    round = RoundView(
        op="barrier", call="barrier()", tag=0, number=7, arrived=[0], missing=missing, missing_count=len(missing),
        gone=[], age=age or 0,
    )  # fmt: skip
    ranks = [RankView(rank=rank, state="joined", holder=f"pid {rank} on {HOSTILE}") for rank in range(3)]
    return GroupView(
        name=name, incarnation=incarnation, world_size=3, state="live", ranks=ranks, rounds=[round] if age else []
    )


def frame(last: Frame | None, *groups: GroupView, now: float = 100.0, timeline: Timeline | None = None) -> Frame:
    return next_frame(last, Picture(store={}, groups=groups), timeline or Timeline(), now, {"url": "aiopg://x:1"})


def told(frame: Frame, last: Frame | None = None, scope: tuple[str, ...] = ALL) -> dict[str, Any]:
    text = frame.tell(last, scope)
    assert text is not None
    value: dict[str, Any] = json.loads(text)
    return value


def finished(name: str, done: float, took: float, rank: int = 1, failed: str = "") -> Finished:
    return Finished(name, 1, "barrier", 0, 7, done - took, done, rank, failed)


@pytest.mark.parametrize(
    ("ranks", "text"), [([], ""), ([5], "5"), ([0, 1, 2, 7, 9, 10], "0-2,7,9-10"), (list(range(1000)), "0-999")]
)
def test_ranks_are_told_as_runs(ranks: list[int], text: str) -> None:
    """A thousand ranks in a row are a few characters."""
    assert runs(ranks) == text


def test_runs_are_bounded() -> None:
    """Every second one of 16,384 ranks is cut off somewhere."""
    assert len(runs(range(0, 16384, 2))) <= RUNS_CHARACTERS + 10


def test_who_looks_first_is_told_all_and_then_what_changed() -> None:
    """A frame without news is none at all; a group that changed is told alone."""
    first = frame(None, group("a", 1), group("b", 2))
    assert set(told(first)["groups"]) == {"1", "2"}
    same = frame(first, group("a", 1), group("b", 2))
    assert same.tell(first, ALL) is None
    changed = frame(same, group("a", 1), group("b", 2, age=5))
    assert set(told(changed, same)["groups"]) == {"2"}
    assert set(told(changed, first)["groups"]) == {"2"}
    gone = frame(changed, group("a", 1))
    assert told(gone, changed)["order"] == ["1"]


def test_a_round_that_goes_on_waiting_is_no_news() -> None:
    """When it was opened is told, and not how old it is: a page knows what time it is."""
    first = frame(None, group("a", age=5.0), now=100.0)
    later = frame(first, group("a", age=6.0), now=101.0)
    assert later.tell(first, ALL) is None
    assert told(first)["groups"]["1"]["rounds"][0]["opened"] == 95.0


def test_a_round_that_has_just_begun_waits_for_nobody() -> None:
    """In a busy group there is one at any moment; nobody is to be named for it."""
    assert told(frame(None, group("a", age=0.01)))["groups"]["1"]["rounds"] == []


def test_who_waits_longest_comes_first() -> None:
    """And those who do not wait come in the order of their names, behind."""
    shown = frame(None, group("z", 1), group("m", 2, age=3), group("a", 3), group("q", 4, age=9))
    assert told(shown)["order"] == ["4", "2", "3", "1"]


def test_many_groups_are_bounded_and_the_others_are_counted() -> None:
    """Of ten thousand groups so many are told, and how many more there are."""
    value = told(frame(None, *(group(f"group {n:05}", n) for n in range(GROUPS_SHOWN + 50))))
    assert len(value["order"]) == len(value["groups"]) == GROUPS_SHOWN
    assert value["more"] == 50
    assert value["store"]["groups"] == GROUPS_SHOWN + 50


def test_a_group_that_comes_to_be_shown_is_told() -> None:
    """Also if nothing of it has changed: who looks has not heard of it."""
    groups = [group(f"group {n:05}", n) for n in range(GROUPS_SHOWN + 1)]
    first = frame(None, *groups)
    last = str(GROUPS_SHOWN)
    assert last not in told(first)["groups"]
    second = frame(first, *groups[1:])
    assert set(told(second, first)["groups"]) == {last}


def test_who_may_see_some_groups_is_told_of_these_and_their_sums() -> None:
    """Neither another group nor anything of it in the sums."""
    shown = frame(None, group("train-a", 1), group("secret", 2, age=9))
    value = told(shown, scope=("train-*",))
    assert (value["order"], value["store"]["groups"], value["store"]["members"]) == (["1"], 1, 3)
    assert "secret" not in json.dumps(value)


def test_hostile_texts_are_told_as_they_are() -> None:
    """They are JSON's texts, whatever is in them; the page makes text of them."""
    value = told(frame(None, group(HOSTILE, age=5)))
    assert value["groups"]["1"]["name"] == HOSTILE
    assert value["groups"]["1"]["who"]["1"][1] == f"pid 1 on {HOSTILE}"


def test_the_timeline_has_the_slowest_of_each_second_and_its_last_rank() -> None:
    """Seconds are told with how many ended in them, how many failed, and who was waited for longest."""
    timeline = Timeline()
    timeline.add([finished("a", 100.1, 0.01, 1), finished("a", 100.9, 0.5, 2), finished("a", 101.0, 0.1, 0, "lost")])
    assert timeline.since("a", 1, 0) == [[100, 2, 0, 0.5, 2, "barrier"], [101, 1, 1, 0.1, 0, "barrier"]]
    assert timeline.since("a", 1, 101) == [[101, 1, 1, 0.1, 0, "barrier"]]


def test_the_timeline_is_bounded() -> None:
    """It forgets what is older than it shows, and the groups of which nothing was heard for longest."""
    timeline = Timeline()
    timeline.add(finished("a", float(at), 0.1) for at in range(3 * KEPT_SECONDS))
    assert len(timeline.since("a", 1, 0)) == KEPT_SECONDS
    timeline.add(finished(f"group {n}", 1000.0, 0.1) for n in range(LIVES_KEPT))
    assert timeline.since("a", 1, 0) == []


def test_who_has_seen_the_last_frame_is_told_the_end_of_the_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes new, or was away for long, is told all of it."""
    timeline = Timeline()
    timeline.add(finished("a", float(at), 0.1) for at in range(10, 100))
    first = frame(None, group("a"), timeline=timeline)
    assert len(told(first)["groups"]["1"]["seconds"]) == 90
    timeline.add([finished("a", 101.0, 0.1)])
    second = frame(first, group("a"), now=101.5, timeline=timeline)
    assert len(told(second, first)["groups"]["1"]["seconds"]) <= _page.RECENT_SECONDS + 1
    much_later = frame(second, group("a", age=3), now=130.0, timeline=timeline)
    assert len(told(much_later, second)["groups"]["1"]["seconds"]) == 91
