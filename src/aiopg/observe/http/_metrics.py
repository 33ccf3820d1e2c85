"""`/metrics`: what Prometheus is told. Labels are a group's name (`_names`), a rank's state, a kind of happening.

Everything is made of the store's state when it is asked for: there is nothing here that could be forgotten to be
counted down. Series of one who may see some groups only are those of these groups.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import anyio
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from aiopg._core.scopes import ANY_GROUP, Scope, allows
from aiopg.observe.http._feed import Feed
from aiopg.observe.http._names import Names
from aiopg.observe.http._scoped import narrow
from aiopg.observe.http._tallies import Tallies
from aiopg.observe.picture import BOUNDS, STATES, GroupView, Histogram, RoundView

__all__ = ["Metrics"]


class Metrics:
    """The metrics of one store."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._names = Names()

    async def render(self, scope: Scope, accept: str = "") -> tuple[bytes, str]:
        """The text, and its content type: OpenMetrics for who accepts it. Raises `StoreLostError`."""
        feed = self._feed
        status = narrow(await feed.refresh(), scope)
        self._names.see((group["name"] for group in status["groups"]), anyio.current_time())
        registry = CollectorRegistry()  # for this answer alone: prometheus_client's own one is the whole process's
        groups = [group for group in feed.picture().groups if allows(scope, group.name)]
        done = {group["incarnation"]: group["done"] for group in status["groups"] if "done" in group}
        registry.register(_Groups(groups, done, self._names, feed.tallies))
        if scope == ANY_GROUP:
            registry.register(_Store(status, feed))
            ProcessCollector(pid=lambda: status["pid"], registry=registry)  # the store's process, not this one
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type


class _Groups(Collector):
    """What there is of each group."""

    def __init__(
        self, groups: Sequence[GroupView], done: Mapping[int, Mapping[str, int]], names: Names, tallies: Tallies
    ) -> None:
        """`done`: rounds and messages of each life, by its number."""
        self._groups = groups
        self._done = done
        self._names = names
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        ranks: Counter[tuple[str, str]] = Counter()
        for group in self._groups:
            label = self._names.label(group.name)
            ranks.update({(label, state): 0 for state in STATES})
            ranks.update((label, rank.state) for rank in group.ranks)
        family = GaugeMetricFamily("aiopg_group_ranks", "Ranks of live groups by state.", labels=("group", "state"))
        for (label, state), count in ranks.items():
            family.add_metric((label, state), count)
        yield family
        yield self._sum("aiopg_group_incarnations", "Lives of the group on the store.", lambda group: 1)
        yield self._sum("aiopg_group_open_rounds", "Collectives that some rank awaits.", lambda one: len(one.rounds))
        yield self._sum("aiopg_group_waiting_messages", "Messages that nobody took yet.", lambda one: one.messages)
        yield self._sum("aiopg_group_bytes", "Payload bytes that the store holds for the group.", lambda one: one.bytes)
        yield self._most(
            "aiopg_group_awaited_ranks", "Ranks that the oldest open collective awaits.", lambda one: one.missing_count
        )
        yield self._most(
            "aiopg_group_wait_seconds", "For how long the oldest open collective has waited.", lambda one: one.age
        )
        yield self._counted("aiopg_group_rounds", "Collectives that all ranks came to.", "rounds")
        yield self._counted("aiopg_group_failed_rounds", "Collectives that failed.", "failed")
        yield self._counted("aiopg_group_messages", "Messages that were sent.", "messages")
        yield from self._rounds()

    def _sum(self, name: str, what: str, of: Callable[[GroupView], float]) -> Metric:
        sums: dict[str, float] = {}
        for group in self._groups:
            label = self._names.label(group.name)
            sums[label] = sums.get(label, 0) + of(group)
        return _gauges(name, what, sums.items())

    def _most(self, name: str, what: str, of: Callable[[RoundView], float]) -> Metric:
        most: dict[str, float] = {}
        for group in self._groups:
            label = self._names.label(group.name)
            oldest = next((one for one in group.rounds if not one.failed), None)
            most[label] = max(most.get(label, 0), of(oldest) if oldest is not None else 0)
        return _gauges(name, what, most.items())

    def _counted(self, name: str, what: str, which: str) -> Metric:
        sums: Counter[str] = Counter()
        for group in self._groups:
            sums[self._names.label(group.name)] += self._done.get(group.incarnation, {}).get(which, 0)
        family = CounterMetricFamily(name, what, labels=("group",))
        for label, count in sums.items():
            family.add_metric((label,), count)
        return family

    def _rounds(self) -> Iterator[Metric]:
        """How long rounds took, of the groups that are there."""
        took: dict[str, Histogram] = {}
        for name in {group.name for group in self._groups}:
            label = self._names.label(name)
            if (one := self._tallies.took.get(name)) is not None:
                took[label] = _both(took[label], one) if label in took else one
        lasted = HistogramMetricFamily(
            "aiopg_group_round_seconds",
            "From the first arrival of a collective to its last one, of those seen from beginning to end.",
            labels=("group",),
        )
        for label, histogram in took.items():
            lasted.add_metric((label,), *_buckets(BOUNDS, histogram.counts, histogram.sum))
        yield lasted


class _Store(Collector):
    """What there is of the store as a whole."""

    def __init__(self, status: dict[str, Any], feed: Feed) -> None:
        self._status = status
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        status, tallies = self._status, self._feed.tallies
        info = GaugeMetricFamily("aiopg_store_info", "1, and the version of the store.", labels=("version",))
        info.add_metric((str(status.get("version", "")),), 1)
        yield info
        yield GaugeMetricFamily("aiopg_store_uptime_seconds", "Since the store was started.", status.get("uptime", 0))
        yield GaugeMetricFamily("aiopg_store_sessions", "Members' sessions.", status.get("sessions", 0))
        yield GaugeMetricFamily("aiopg_store_groups", "Lives of groups.", len(status["groups"]))
        yield GaugeMetricFamily("aiopg_store_members", "Seats that are taken, in all groups.", status["members"])
        yield GaugeMetricFamily("aiopg_store_open_rounds", "Collectives that some rank awaits.", status["rounds"])
        yield GaugeMetricFamily("aiopg_store_bytes", "Payload bytes that the store holds.", status["bytes"])
        limits = status.get("limits", {})
        if "store_bytes" in limits:
            yield GaugeMetricFamily("aiopg_store_limit_bytes", "What it holds at most.", limits["store_bytes"])
        if "sessions" in limits:
            yield GaugeMetricFamily("aiopg_store_limit_sessions", "As many as it takes.", limits["sessions"])
        done = status.get("done", {})
        yield CounterMetricFamily("aiopg_store_rounds", "Collectives that all ranks came to.", done.get("rounds", 0))
        yield CounterMetricFamily("aiopg_store_messages", "Messages that were sent.", done.get("messages", 0))
        waiting = sum(len(lobby["waiting"]) for lobby in status["lobbies"])
        yield GaugeMetricFamily("aiopg_store_lobby_members", "Members that wait for a group to form.", waiting)
        happened = CounterMetricFamily("aiopg_store_happenings", "What happened in all groups.", labels=("kind",))
        for kind, count in status.get("totals", {}).items():
            happened.add_metric((kind,), count)
        yield happened
        if (took := status.get("round_seconds")) is not None:
            yield HistogramMetricFamily(
                "aiopg_store_round_seconds",
                "From the first arrival of a collective to its last one.",
                *_buckets(took["bounds"], took["counts"], took["sum"]),
            )
        missed = "Happenings that came faster than the side port read them: it did not see their rounds."
        yield CounterMetricFamily("aiopg_http_missed_happenings", missed, tallies.missed)
        yield GaugeMetricFamily("aiopg_http_watchers", "Pages that are open.", self._feed.watchers)
        yield CounterMetricFamily("aiopg_http_dropped_watchers", "Pages that were too slow.", self._feed.dropped)


def _gauges(name: str, what: str, values: Iterable[tuple[str, float]]) -> Metric:
    family = GaugeMetricFamily(name, what, labels=("group",))
    for label, value in values:
        family.add_metric((label,), value)
    return family


def _both(one: Histogram, other: Histogram) -> Histogram:
    both = one.copy()
    both.counts = [mine + its for mine, its in zip(one.counts, other.counts, strict=True)]
    both.sum += other.sum
    return both


def _buckets(bounds: Iterable[float], counts: Iterable[int], total: float) -> tuple[list[tuple[str, float]], float]:
    """Counts, each of what is over the bound before, as Prometheus has them: each of all that is within its bound."""
    names, numbers = [*map(str, bounds), "+Inf"], itertools.accumulate(counts)
    return [(name, float(number)) for name, number in zip(names, numbers, strict=True)], total
