"""Happenings as Chrome trace events: a row for each rank, slices that wait, arrows to the released, marks of losses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from aiopg._core.messages import Needs
from aiopg._core.recorder import HAPPENINGS_READ, Recorder
from aiopg.observe.chrome import ARROWS, chrome_trace
from tests.core.cluster import Cluster
from tests.core.test_engine_under_chaos import Chaos
from tests.observe.events import Event, check, named, slices


def observed() -> Cluster:
    """A cluster whose engine records."""
    cluster = Cluster()
    cluster.engine.observe(Recorder(100_000, cluster.now))
    return cluster


def drawn(cluster: Cluster, *, status: Mapping[str, Any] | None = None) -> list[Event]:
    """The trace of all that happened there."""
    happenings, after = [], 0
    while (excerpt := cluster.engine.excerpt(after, HAPPENINGS_READ)).next != after:
        happenings += excerpt.happenings
        after = excerpt.next
    return check(json.dumps(chrome_trace(happenings, now=cluster.now, epoch=1e9, status=status)))


def arrows(events: list[Event]) -> list[tuple[str, str]]:
    """From which row to which, in order."""
    names, found = named(events), dict[int, str]()
    for event in events:
        if event["ph"] == "s":
            found[event["id"]] = names[event["pid"], event["tid"]]
    return [(found[e["id"]], names[e["pid"], e["tid"]]) for e in events if e["ph"] == "f"]


def test_the_straggler_is_seen() -> None:
    """Who waits has a long slice until the last one comes; an arrow runs from that to each; it is the one awaited."""
    cluster = observed()
    a, b, c = cluster.group(3)
    a.barrier()
    cluster.now += 0.5
    c.barrier()
    cluster.now += 2
    b.barrier()
    events = drawn(cluster)
    calls = slices(events, "barrier 1")
    assert {rank: round(call["dur"]) for rank, call in calls.items()} == {
        "rank 0": 2500001,
        "rank 1": 1,
        "rank 2": 2000001,
    }
    assert all(call["args"] == {"tag": "0", "number": 1, "outcome": "done", "last_rank": 1} for call in calls.values())
    assert arrows(events) == [("rank 1", "rank 0"), ("rank 1", "rank 2")]
    assert {rank: round(it["dur"]) for rank, it in slices(events, "awaited: barrier 1").items()} == {"rank 1": 2000000}


def test_who_is_awaited_now_is_seen_too() -> None:
    """While the others wait, or when they gave up; also where the trace does not know how many there are."""
    cluster = observed()
    members = cluster.group(4)
    cluster.engine._recorder.ring.clear()  # nobody knows who joined
    calls = [member.barrier() for member in members[:3]]
    cluster.now += 3
    waiting = drawn(cluster, status=cluster.engine.describe())
    assert {call["args"]["outcome"] for call in slices(waiting, "barrier 1").values()} == {"waits"}
    assert slices(waiting, "awaited: barrier 1").keys() == {"rank 3"}
    for member, call in zip(members, calls, strict=False):
        member.cancel(call)
    events = drawn(cluster, status=cluster.engine.describe())
    assert {call["args"]["outcome"] for call in slices(events, "barrier 1").values()} == {"given up"}
    awaited = slices(events, "awaited: barrier 1")
    assert {rank: round(call["dur"]) for rank, call in awaited.items()} == {"rank 3": 3000000}
    assert arrows(events) == []


@pytest.mark.parametrize("op", ["broadcast", "scatter"])
def test_who_waits_for_the_root_is_released_by_it(op: str) -> None:
    """Those before it by its arrival, those behind it at once; the root never waits."""
    cluster = observed()
    a, b, c = cluster.group(3)
    needs = Needs.NOTHING if op == "broadcast" else Needs.ROOT
    parts = [b"x"] if op == "broadcast" else [b"x"] * 3
    a.arrive(op, Needs.ROOT, root=1)
    cluster.now += 1
    b.arrive(op, needs, root=1, parts=parts)
    cluster.now += 1
    a.barrier(2)
    cluster.now += 1
    c.arrive(op, Needs.ROOT, root=1)
    events = drawn(cluster)
    durations = {rank: round(call["dur"]) for rank, call in slices(events, f"{op} 1").items()}
    assert durations == {"rank 0": 1000001, "rank 1": 1, "rank 2": 1}
    assert arrows(events) == [("rank 1", "rank 0")]
    assert slices(events, f"awaited: {op} 1").keys() == {"rank 1"}
    assert set(named(events).values()) == {"rank 0", "rank 1", "rank 2"}  # nobody was in two calls at once


def test_where_the_root_gathers_it_alone_waits() -> None:
    """Until the last one came."""
    cluster = observed()
    a, b, c = cluster.group(3)
    b.gather(0, b"x")
    a.gather(0, b"x")
    cluster.now += 1
    c.gather(0, b"x")
    events = drawn(cluster)
    durations = {rank: round(call["dur"]) for rank, call in slices(events, "gather 1").items()}
    assert durations == {"rank 0": 1000001, "rank 1": 1, "rank 2": 1}
    assert arrows(events) == [("rank 2", "rank 0")]
    assert slices(events, "awaited: gather 1").keys() == {"rank 2"}


def test_messages_are_arrows() -> None:
    """From each put to its take, first come first served; one that was taken back is none."""
    cluster = observed()
    a, b = cluster.group(2)
    a.put(1, b"1")
    cluster.now += 1
    a.take_back(a.put(1, b"2"), 1)
    cluster.now += 1
    a.put(1, b"3")
    cluster.now += 1
    b.take(0)
    cluster.now += 1
    b.take(0)
    events = drawn(cluster)
    starts = [event["ts"] for event in events if event["ph"] == "s"]
    assert arrows(events) == [("rank 0", "rank 1")] * 2
    assert [round(start) for start in starts] == [0, 2000000]


def test_what_a_rank_does_at_once_is_in_rows_beside_one_another() -> None:
    """Slices in one row would hide each other."""
    cluster = observed()
    a, b = cluster.group(2)
    a.barrier(tag="one")
    cluster.now += 1
    a.barrier(tag="two")
    cluster.now += 1
    for tag in ("one", "two"):
        b.barrier(tag=tag)
        cluster.now += 1
    names = list(named(drawn(cluster)).values())
    assert names == ["rank 0", "rank 0, call 2 at a time", "rank 1", "rank 1, call 2 at a time"]  # awaited by both


def test_losses_failures_and_an_abort_are_marks() -> None:
    """With what is said of them; calls end there."""
    cluster = observed()
    a, b, c = cluster.group(3)
    a.barrier()
    cluster.now += 1
    cluster.lose(c, "killed")
    cluster.now += 1
    b.barrier()
    b.barrier(2)
    cluster.now += 1
    b.abort("enough")
    events = drawn(cluster)
    marks = [(event["name"], event["args"]["text"]) for event in events if event["ph"] == "i"]
    assert ("lost: rank 2", "killed") in marks
    assert ("aborted: rank 1", "enough") in marks
    assert any(name == "failed: rank 2" and text.startswith("barrier 1: rank 2 of group") for name, text in marks)
    calls = slices(events, "barrier 1")
    assert {rank: round(call["dur"]) for rank, call in calls.items()} == {"rank 0": 1000001, "rank 1": 1}
    assert {call["args"]["outcome"] for call in calls.values()} == {"failed"}


def test_who_comes_to_a_mismatch_later_fails_at_once() -> None:
    """And is not shown to wait for ever."""
    cluster = observed()
    a, b, c = cluster.group(3)
    a.barrier()
    b.all_gather(b"x")
    cluster.now += 1
    c.barrier()
    cluster.now += 100
    calls = slices(drawn(cluster), "barrier 1")
    assert {rank: round(call["dur"]) for rank, call in calls.items()} == {"rank 0": 1, "rank 1": 1, "rank 2": 1}


def test_a_round_of_which_ranks_are_gone_ends() -> None:
    """A broadcast to all who are left is over, though not all came."""
    cluster = observed()
    a, b, c = cluster.group(3)
    c.leave()
    a.broadcast(0, b"x")
    b.broadcast(0)
    cluster.now += 100
    events = drawn(cluster)
    assert all(event["dur"] < 10 for event in events if event["ph"] == "X")


def test_names_are_only_texts() -> None:
    """Whatever they hold: no second event, no line end, no lone surrogate that readers of JSON choke on."""
    cluster = observed()
    hostile = '"}],"traceEvents":[{"\n\x1b[2J\u202e\udc80</script>'
    (a,) = cluster.group(1, hostile)
    a.barrier(tag=hostile)
    events = drawn(cluster)
    (process,) = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert process.isprintable()
    assert process.startswith('group "}],"traceEvents":[{"\\n\\x1b[2J')
    assert slices(events, "barrier 1")["rank 0"]["args"]["tag"].isprintable()


def test_arrows_of_a_thousand_ranks_are_few() -> None:
    """Nobody could tell them apart, and the file would be ten times as long."""
    cluster = observed()
    members = cluster.group(ARROWS * 2)
    for member in members:
        member.barrier()
    assert len(arrows(drawn(cluster))) == ARROWS


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_happens_makes_a_trace(seed: int) -> None:
    """Also where the ring begins in the middle of it all, and of what hostile sessions do."""
    chaos = Chaos(seed)
    chaos.engine.observe(Recorder(500, 0.0))
    chaos.run(1500)
    excerpt = chaos.engine.excerpt(0, HAPPENINGS_READ)
    assert excerpt.oldest > 1
    text = json.dumps(chrome_trace(excerpt.happenings, now=chaos.now, status=chaos.engine.describe()))
    assert len(check(text)) > 100
