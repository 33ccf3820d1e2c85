"""The recorder: every kind of happening in its place, a bounded ring, and the lines that errors carry."""

from __future__ import annotations

import math

import pytest

from aiopg._core import recorder, scopes
from aiopg._core.compaction import compact, restore
from aiopg._core.messages import Enlist, Needs
from aiopg._core.recorder import HAPPENINGS_READ, KINDS, LINE_CHARACTERS, LINES, Happening, Recorder
from aiopg._core.scopes import Scope
from aiopg.errors import AuthenticationError, CollectiveMismatchError, PeerLostError
from tests.core.life import ABOUT, LIMITS, Life

from .cluster import TTL, Cluster, Member


def observed(size: int = 1000, **limits: int) -> Cluster:
    """A cluster whose engine records."""
    cluster = Cluster(**limits)
    cluster.engine.observe(Recorder(size, cluster.now, lambda: cluster.now + 5.0), lambda: 7)
    return cluster


def happenings(cluster: Cluster) -> list[Happening]:
    """All that is kept."""
    return cluster.engine.excerpt(0, HAPPENINGS_READ).happenings


def kinds(cluster: Cluster) -> list[tuple[str, int]]:
    """What happened since the last time, and to which rank."""
    told = [(it.kind, it.rank) for it in happenings(cluster)]
    cluster.engine._recorder.ring.clear()
    return told


# --------------------------------------------------------------------------------------------- each kind


def test_members_come_and_go() -> None:
    """Joined when a rank takes its seat, formed with the last one; left, lost, away and back of every seat."""
    cluster = observed()
    a = cluster.member(1, 2)
    assert kinds(cluster) == [("joined", 1)]
    b = cluster.member(0, 2)
    assert [(it.kind, it.rank, it.text) for it in happenings(cluster)] == [("joined", 0, "pid 0"), ("formed", 0, "2")]
    kinds(cluster)
    cluster.engine.away(a.session, cluster.now)
    cluster.engine.back(a.session, cluster.now)
    assert kinds(cluster) == [("away", 1), ("back", 1)]
    b.leave()
    cluster.lose(a, "killed")
    assert [(it.kind, it.rank, it.text) for it in happenings(cluster)] == [
        ("left", 0, "it left the group"),
        ("lost", 1, "killed"),
    ]


def test_a_join_that_is_taken_back_has_left() -> None:
    """So that who looks does not see a rank that is not there."""
    cluster = observed()
    a = cluster.member(0, 2)
    a.vacate()
    assert kinds(cluster) == [("joined", 0), ("left", 0)]


def test_a_group_of_whoever_came_forms() -> None:
    """All join in the moment in which it forms; no rank was the last."""
    cluster = observed()
    for session in "st":
        cluster.say(session, Enlist(cluster.number(), 1, "g", 2, 2, 1.0, TTL, session))
    assert kinds(cluster) == [("joined", 0), ("joined", 1), ("formed", -1)]


def test_a_round_from_its_first_arrival_to_the_last() -> None:
    """Opened once, by the first; arrived by each; done once, by the last; with op, tag, number, and its root."""
    cluster = observed()
    a, b, c = cluster.group(3)
    kinds(cluster)
    cluster.now += 1
    b.arrive("broadcast", Needs.NOTHING, root=1, tag="t", number=4, parts=[b"x"])
    cluster.now += 1
    a.arrive("broadcast", Needs.ROOT, root=1, tag="t", number=4)
    c.arrive("broadcast", Needs.ROOT, root=1, tag="t", number=4)
    told = happenings(cluster)
    assert [(it.kind, it.rank, it.at, it.text) for it in told] == [
        ("opened", 1, 1001.0, "root 1"),
        ("arrived", 1, 1001.0, ""),
        ("arrived", 0, 1002.0, ""),
        ("arrived", 2, 1002.0, ""),
        ("done", 2, 1002.0, ""),
    ]
    assert {(it.group, it.incarnation, it.op, it.tag, it.seq) for it in told} == {("g", 1, "broadcast", "t", 4)}
    assert [it.number for it in told] == list(range(told[0].number, told[0].number + 5))


def test_arrivals_are_withdrawn() -> None:
    """One by one; who comes again arrives again."""
    cluster = observed()
    a, b = cluster.group(2)
    kinds(cluster)
    a.cancel(a.barrier())
    b.barrier()
    a.barrier()
    assert kinds(cluster) == [
        ("opened", 0), ("arrived", 0), ("withdrawn", 0),
        ("opened", 1), ("arrived", 1), ("arrived", 0), ("done", 0),
    ]  # fmt: skip


def test_rounds_fail() -> None:
    """By a loss, with the rank that is gone and why; by a mismatch; and they are over when all were told."""
    cluster = observed()
    a, b, c = cluster.group(3)
    a.barrier()
    kinds(cluster)
    cluster.lose(c, "killed")
    b.barrier()
    told = happenings(cluster)
    assert [(it.kind, it.rank) for it in told] == [
        ("lost", 2), ("failed", 2), ("arrived", 1), ("failed", 2), ("over", -1),
    ]  # fmt: skip
    assert "rank 2 of group 'g' is gone: killed" in told[1].text
    kinds(cluster)
    a, b = cluster.group(2, "h")
    kinds(cluster)
    a.barrier()
    b.all_gather(b"x")
    assert kinds(cluster) == [("opened", 0), ("arrived", 0), ("arrived", 1), ("failed", 1), ("over", -1)]


def test_a_group_is_aborted() -> None:
    """By a rank, with what it said, cut."""
    cluster = observed()
    a, _ = cluster.group(2)
    kinds(cluster)
    a.abort("enough " * 100)
    (it,) = happenings(cluster)
    assert (it.kind, it.rank, it.text) == ("aborted", 0, ("enough " * 100)[:200])


def test_messages_are_put_and_taken() -> None:
    """Whoever waits for whom; the taker is the rank of it; what is taken back or expires is told as well."""
    cluster = observed()
    a, b = cluster.group(2, ttl=10.0)
    kinds(cluster)
    b.take(0, tag=3)
    a.put(1, b"x", tag=3)
    a.put(1, b"y")
    b.take(0)
    assert [(it.kind, it.rank, it.tag, it.text) for it in happenings(cluster)] == [
        ("put", 0, 3, "to 1"),
        ("taken", 1, 3, "from 0"),
        ("put", 0, 0, "to 1"),
        ("taken", 1, 0, "from 0"),
    ]
    put = a.put(1, b"z")
    a.take_back(put, 1)
    assert [(it.kind, it.text) for it in happenings(cluster)[-2:]] == [("put", "to 1"), ("withdrawn", "to 1")]
    a.put(1, b"z")
    cluster.advance(11)
    b.take(0)
    assert [(it.kind, it.rank, it.text) for it in happenings(cluster)[-2:]] == [
        ("put", 0, "to 1"),
        ("expired", 0, "to 1"),
    ]


def test_parts_of_a_round_expire() -> None:
    """Of the giver that does not wait."""
    cluster = observed()
    a, b = cluster.group(2, ttl=10.0)
    kinds(cluster)
    a.broadcast(0, b"x")
    cluster.advance(11)
    b.broadcast(0)
    assert ("expired", 0) in kinds(cluster)


def test_keys_and_payloads_are_not_recorded() -> None:
    """Whatever is said of them: who looks at a store learns who waits for whom, and no secret."""
    cluster = observed()
    a, b = cluster.group(2)
    a.put(1, b"secret")
    b.take(0)
    a.all_gather(b"secret")
    b.all_gather(b"secret")
    assert "secret" not in repr(cluster.engine._recorder.ring)


def test_the_kinds_are_those_that_there_are() -> None:
    """Readers know them by name; no test above saw another."""
    assert set(KINDS) == {
        "joined", "formed", "left", "lost", "aborted", "away", "back", "opened", "arrived", "done", "withdrawn",
        "failed", "over", "put", "taken", "expired",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------ reading


def test_the_ring_is_bounded_and_says_what_is_gone() -> None:
    """The newest are kept, and numbers only grow: who reads on sees that he missed some."""
    cluster = observed(50)
    a, b = cluster.group(2)
    before = cluster.engine.excerpt(0, 10)
    for number in range(1, 101):
        a.barrier(number)
        b.barrier(number)
    assert len(cluster.engine._recorder.ring) == 50
    excerpt = cluster.engine.excerpt(before.next, 10)
    assert excerpt.oldest == excerpt.happenings[0].number > before.next + 1
    seen = list(excerpt.happenings)
    while (excerpt := cluster.engine.excerpt(excerpt.next, 10)).happenings:
        seen += excerpt.happenings
        assert excerpt.oldest <= excerpt.next
    assert [it.number for it in seen] == list(range(excerpt.oldest, excerpt.oldest + 50))
    assert excerpt.next == seen[-1].number
    assert cluster.engine.excerpt(-7, 100).happenings == seen[-7:]


def test_no_more_is_told_at_once_than_is_good_for_all() -> None:
    """Whatever is asked for."""
    cluster = observed(3 * HAPPENINGS_READ)
    (a,) = cluster.group(1)
    for number in range(1, HAPPENINGS_READ):
        a.barrier(number)
    assert len(a.trace(0, 2**62).value[3]) == HAPPENINGS_READ
    assert a.trace(0, 0).value[3] == a.trace(0, -5).value[3] == a.trace(2**63 - 1).value[3] == []


def test_a_session_with_groups_of_its_own_sees_those_only() -> None:
    """Of the trace as of the status; and the numbers of others tell it nothing but how many there were."""
    cluster = observed()
    cluster.group(2, "other")
    cluster.engine.restrict("s", ("mine", "mine/*"))
    mine = Member(cluster, 0, 1, "mine", "s", TTL)
    assert {it[3] for it in mine.trace().value[3]} == {"mine"}
    assert isinstance(mine.trace(group="other").error, AuthenticationError)
    assert mine.trace(group="mine/sub").value[3] == []
    status = mine.status().value
    assert not {"totals", "round_seconds", "sessions"} & status.keys()
    assert status["done"] == {"rounds": 0, "messages": 0}
    everybody = cluster.member(0, 1, "third")
    assert {it[3] for it in everybody.trace().value[3]} == {"other", "mine", "third"}
    assert {it[3] for it in everybody.trace(group="other").value[3]} == {"other"}


def test_a_token_for_many_groups_is_not_compared_with_each_happening(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question of one member must not hold the store up, whatever is in the ring: once for each name is enough."""
    cluster = observed()
    (a,) = cluster.group(1, "busy")
    for _ in range(50):
        a.barrier()
    compared: list[str] = []

    def allows(scope: Scope, name: str) -> bool:
        compared.append(name)
        return scopes.allows(scope, name)

    monkeypatch.setattr(recorder, "allows", allows)
    assert cluster.engine.excerpt(0, HAPPENINGS_READ, scope=("a", "b-*")).happenings == []
    assert compared == ["busy"]


def test_the_answer_says_the_time() -> None:
    """Of the store's clock, and how far the wall clock is ahead of it, so that times of several stores compare."""
    cluster = observed()
    (a,) = cluster.group(1)
    epoch, now, following, told, oldest = a.trace().value
    assert (epoch, now, oldest) == (5.0, cluster.now, 1)
    assert following == told[-1][0]


def test_an_engine_that_nobody_observes_records_nothing() -> None:
    """As in a replay: the answers of a store are the same whatever was recorded."""
    cluster = Cluster()
    a, b = cluster.group(2)
    a.barrier()
    assert a.trace().value == [None, cluster.now, 0, [], 0]
    b.leave()
    assert "since" not in cluster.describe()


# ----------------------------------------------------------------------------------------------- describing


def test_a_status_says_since_when() -> None:
    """Ages of members and of rounds, who is silent or away, what was done; and of the store, its life and totals."""
    cluster = observed()
    a, b, c = cluster.group(3)
    cluster.now += 2
    a.barrier()
    b.barrier()
    c.barrier()
    a.barrier(2)
    a.put(1, b"x")
    cluster.now += 1
    cluster.engine.away(c.session, cluster.now)
    status = a.status().value
    (group,) = status["groups"]
    assert group["since"] == {0: 3.0, 1: 3.0, 2: 3.0}
    assert group["silent"] == {0: 1.0, 1: 1.0, 2: 1.0}
    assert (group["away"], group["left"]) == ([2], [])
    assert group["rounds"][0]["since"] == 1.0
    assert group["done"] == {"rounds": 1, "messages": 1, "failed": 0}
    assert (status["uptime"], status["now"], status["sessions"]) == (3.0, cluster.now, 7)
    assert status["totals"]["joined"] == 3
    assert status["totals"]["done"] == status["totals"]["put"] == status["done"]["rounds"] == 1
    b.leave()
    cluster.lose(c)
    (group,) = a.status().value["groups"]
    assert (group["left"], sorted(group["gone"])) == ([1], [1, 2])


def test_rounds_are_counted_by_how_long_they_took() -> None:
    """From the first arrival to the last, up to each bound; what ended with its group still counts."""
    cluster = observed()
    a, b = cluster.group(2)
    for number, seconds in enumerate((0.0, 0.004, 7.0, 1000.0), 1):
        a.barrier(number)
        cluster.now += seconds
        b.barrier(number)
    a.leave()
    b.leave()
    took = cluster.member(0, 1, "other").status().value["round_seconds"]
    bounds = [*took["bounds"], math.inf]
    assert [bound for bound, count in zip(bounds, took["counts"], strict=True) for _ in range(count)] == [
        0.0005, 0.005, 10.0, math.inf,
    ]  # fmt: skip
    assert took["sum"] == pytest.approx(1007.004)


# ----------------------------------------------------------------------------------------- lines of errors


def test_a_timeout_names_the_awaited_and_the_last_arrivals() -> None:
    """Oldest first, with their age, at most eight lines; who did what in between is in its place."""
    cluster = observed()
    members = cluster.group(12)
    for member in members:
        member.barrier()
    cluster.now += 1
    waiting = [member.barrier(2) for member in members if member.rank != 5]
    cluster.engine.away(members[5].session, cluster.now + 0.5)
    cluster.now += 3
    for member, call in zip([m for m in members if m.rank != 5], waiting, strict=True):
        member.cancel(call)
    tellings = [call.facts for call in waiting]
    assert all(missing == [5] for _, missing, _ in tellings)
    lines = tellings[0][2]
    assert lines[0] == "4.0 s ago: rank 5, which is awaited, made its last call"
    assert lines[-1] == "2.5 s ago: the connection of rank 5 broke"
    assert lines[1:-1] == [f"3.0 s ago: rank {rank} came to barrier number 2 (tag 0)" for rank in range(6, 12)]
    assert len(lines) == LINES
    assert all(told == lines for _, _, told in tellings)


def test_a_rank_that_never_called_is_said_to_have_joined() -> None:
    """The commonest straggler of all: it is still importing."""
    cluster = observed()
    a, _ = cluster.group(2)
    cluster.now += 2
    call = a.barrier()
    a.cancel(call)
    assert call.facts[2][0] == "2.0 s ago: rank 1, which is awaited, joined, and has made no call since"


def test_a_join_that_gives_up_says_who_came() -> None:
    """And who was there and has gone."""
    cluster = observed()
    a, b = cluster.member(0, 3), cluster.member(1, 3)
    cluster.now += 1
    b.vacate()
    a.cancel(a.join)
    assert a.join.facts == [
        [0], [1, 2], ["1.0 s ago: rank 0 joined (pid 0)", "0.0 s ago: rank 1 left: it took its join back"],
    ]  # fmt: skip


def test_each_is_told_of_those_that_it_awaits() -> None:
    """Though another one gives up in the same moment: two joiners, each for a rank whose holder may come back."""
    cluster = observed()
    for gone in cluster.group(2):
        cluster.engine.away(gone.session, cluster.now)
    joiners = [cluster.member(rank, 2, session=f"new {rank}") for rank in (0, 1)]
    for joiner in joiners:
        joiner.cancel(joiner.join)
    for rank, joiner in enumerate(joiners):
        awaited = [line for line in joiner.join.facts[2] if "which is awaited" in line]
        assert awaited == [f"0.0 s ago: rank {rank}, which is awaited, joined, and has made no call since"]


def test_losses_and_mismatches_say_what_went_before() -> None:
    """On every rank, those included that come later; the lines are the error's trace, and its notes."""
    cluster = observed()
    a, b, c = cluster.group(3)
    calls = [a.barrier(), b.take(2)]
    cluster.engine.away(c.session, cluster.now)
    cluster.now += 5
    cluster.lose(c, "it did not come back")
    calls += [b.barrier(), a.put(2, b"x"), a.take(2)]
    lines = ("5.0 s ago: the connection of rank 2 broke", "0.0 s ago: rank 2 was lost: it did not come back")
    for call in calls:
        error = call.error
        assert isinstance(error, PeerLostError)
        assert error.trace == error.fields()["trace"] == lines
        assert error.__notes__ == [f"    {line}" for line in lines]
    d, e, f = cluster.group(3, "h")
    mismatch = [d.barrier(), e.all_gather(b"x"), f.barrier()]
    for call in mismatch:
        error = call.error
        assert isinstance(error, CollectiveMismatchError)
        assert "0.0 s ago: rank 1 came to collective number 1 (tag 0)" in error.trace


def test_lines_stay_lines_whatever_a_member_says() -> None:
    """Its reason or name cannot end one, steer a terminal, or fill the log."""
    cluster = observed()
    a, b = cluster.group(2)
    cluster.lose(b, "so\n0.0 s ago: rank 0 was lost\x1b[2J\udc80" + "!" * 500)
    error = a.barrier().error
    (line,) = error.trace
    assert line.startswith("0.0 s ago: rank 1 was lost: so\\n0.0 s ago: rank 0 was lost\\x1b[2J\\udc80!!")
    assert len(line) < LINE_CHARACTERS + 20
    assert line.isprintable()


def test_thousands_that_fail_at_once_are_told_lines_that_were_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one deadline, and a store has one processor."""
    cluster = observed(10_000)
    size, made = 1000, 0
    members = cluster.group(size)
    calls = [member.barrier() for member in members[:-1]]
    for life in cluster.engine._groups:
        came = life.rounds._rounds[0, 1].came

    def counted(*_: object) -> object:
        nonlocal made
        made += 1
        return came()

    monkeypatch.setattr("aiopg._core.round.Round.came", counted)
    cluster.now += 1
    for member, call in zip(members, calls, strict=False):
        member.cancel(call)
    assert all(call.facts[2] for call in calls)
    assert made == 1


# ----------------------------------------------------------------------------------------- not part of the state


def test_what_is_recorded_is_no_state() -> None:
    """A store that records does as one that does not; one that is restored from a journal begins with an empty ring."""
    life, silent = Life(77), Life(77)
    life.exchange.engine.observe(Recorder(100, life.now))
    for _ in range(1000):
        life.step()
        silent.step()
    assert len(life.exchange.engine._recorder.ring) == 100
    assert life.records == silent.records
    loaded, _ = restore(b"".join(compact(None, life.records, LIMITS, ABOUT)), [], LIMITS, ABOUT)
    assert loaded.engine.excerpt(0, 10).happenings == []
    loaded.engine.observe(Recorder(100, life.now))
    for line in list(loaded.lines.values()):
        loaded.end(line, "over", life.now)
    assert {"lost"} <= {it.kind for it in loaded.engine.excerpt(0, 1000).happenings}


def test_a_store_that_is_loaded_knows_no_ages_and_tells_none() -> None:
    """Of the members and rounds that were there before; those that come later have theirs."""
    life = Life(5)
    for _ in range(400):
        life.step()
    loaded, now = restore(b"".join(compact(None, life.records, LIMITS, ABOUT)), [], LIMITS, ABOUT)
    loaded.engine.observe(Recorder(100, now))
    described = loaded.engine.describe(now=now + 1)
    assert described["uptime"] == 1.0
    groups: list[dict[str, object]] = described["groups"]  # type: ignore[assignment]
    assert groups
    assert all(group["since"] == group["silent"] == {} for group in groups)
