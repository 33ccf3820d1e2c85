"""`/metrics`, as Prometheus reads it, and the Grafana dashboard that is made of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families

from aiopg import AsyncStatelessGroup, AsyncStore
from aiopg.observe.http._names import GROUPS_NAMED
from aiopg.testing import GroupMaker

from .conftest import Served, StartServed

DASHBOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "aiopg.json"

HOSTILE = 'train"} 1\naiopg_evil{group="\\'


@pytest.fixture
def served(serve: StartServed) -> Served:
    """A store without tokens."""
    return serve()


def read(http: httpx.Client) -> dict[str, Metric]:
    """Its metrics, through Prometheus' own parser, by name."""
    answer = http.get("/metrics")
    assert answer.status_code == 200
    families = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def value(families: dict[str, Metric], name: str, **labels: str) -> float:
    (found,) = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


async def until(served: Served, wanted: float, name: str, **labels: str) -> dict[str, Metric]:
    """The metrics, as soon as one of them has this value: the store is read once a second."""
    async with asyncio.timeout(30):
        while True:
            families = await asyncio.to_thread(read, served.http)
            try:
                if value(families, name, **labels) == wanted:
                    return families
            except ValueError:
                pass  # it is not there yet
            await asyncio.sleep(0.05)


def series(families: dict[str, Metric]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))) for family in families.values() for sample in family.samples
    }


def test_what_happened_is_counted(served: Served) -> None:
    """Ranks by state, rounds, messages, who is awaited and for how long; the store's process."""

    async def work(url: str) -> None:
        make = GroupMaker(url, "train")
        members = await make(3)
        await asyncio.gather(*(member.barrier() for member in members))
        await members[0].send("x", dst=1)
        await members[0].send("y", dst=1)
        assert await members[1].recv(src=0) == "x"
        waiting = [asyncio.create_task(member.barrier()) for member in members[:2]]
        name = members[0].name
        families = await until(served, 1, "aiopg_group_awaited_ranks", group=name)
        assert value(families, "aiopg_group_ranks", group=name, state="joined") == 3
        assert value(families, "aiopg_group_rounds_total", group=name) == 1
        assert value(families, "aiopg_group_messages_total", group=name) == 2
        assert value(families, "aiopg_group_waiting_messages", group=name) == 1
        assert value(families, "aiopg_group_open_rounds", group=name) == 1
        assert value(families, "aiopg_group_wait_seconds", group=name) > 0
        assert value(families, "aiopg_group_round_seconds_count", group=name) == 1
        assert value(families, "aiopg_store_rounds_total") == 1
        assert value(families, "aiopg_store_members") == 3
        assert value(families, "process_resident_memory_bytes") > 1_000_000
        await members[2].barrier()
        await asyncio.gather(*waiting)
        await make.close()

    served.meet(work)


def test_a_parser_of_open_metrics_reads_them_too(served: Served) -> None:
    """Who accepts OpenMetrics, as Prometheus does, is given them."""
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = served.http.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert "aiopg_store_rounds" in {family.name for family in open_metrics(answer.text)}  # type: ignore[no-untyped-call]


def test_names_are_those_that_prometheus_wants(served: Served) -> None:
    """One prefix, base units, counters that say so, and a text for each."""
    served.meet(lambda url: meet(url, ["train"]))
    for family in read(served.http).values():
        assert family.name.startswith(("aiopg_", "process_"))
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|us|kb|mb|kib|mib|percent|minutes)(_|$)", family.name), family.name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples)


async def meet(url: str, names: Iterable[str], keys: int = 0, rounds: int = 1) -> None:
    """Have groups of one, which make calls under tags of their own, and keys; they are there all at once."""
    groups = [await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group=name) for name in names]
    for group in groups:
        for number in range(rounds):
            await group.barrier(tag=f"tag {number}")
        for number in range(keys):
            await group.store.set(f"key {number}", b"")
    async with await AsyncStore.connect(url) as store:
        for number in range(keys):
            await store.set(f"key {number}", b"")
    await asyncio.sleep(0)
    for group in groups:
        await group.close()


def test_no_series_comes_with_keys_tags_or_numbers(served: Served) -> None:
    """A group that makes three hundred calls under as many tags, and keys, has the series of one that made one."""

    async def work(url: str) -> None:
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group="train") as group:
            await group.barrier(tag="first")
            await group.store.set("first", b"")
            before = series(await until(served, 1, "aiopg_group_rounds_total", group="train"))
            for number in range(300):
                await group.barrier(tag=f"tag {number}")
                await group.store.set(f"key {number}", b"")
            families = await until(served, 301, "aiopg_group_rounds_total", group="train")
            grown = series(families) - before
            assert {name for name, _ in grown} <= {
                # Of the first rounds, and kinds of happenings, that were read after the first look.
                *(f"aiopg_group_round_seconds_{what}" for what in ("bucket", "count", "sum", "created")),
                "aiopg_store_happenings_total",
            }
            assert len(grown) < 40

    served.meet(work)


def test_no_more_series_than_so_many_groups_have(served: Served) -> None:
    """The groups past it are one, "other", with the sums of all of theirs."""

    async def work(url: str) -> None:
        names = [f"group {number}" for number in range(GROUPS_NAMED + 20)]
        groups = [await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group=name) for name in names]
        families = await until(served, 20, "aiopg_group_ranks", group="other", state="joined")
        for family in families.values():
            labels = {sample.labels["group"] for sample in family.samples if "group" in sample.labels}
            assert len(labels) <= GROUPS_NAMED + 1, family.name
        for group in groups:
            await group.close()

    served.meet(work)


def test_a_hostile_name_stays_a_name(served: Served) -> None:
    """Quotes and ends of lines do not become another series."""

    async def work(url: str) -> None:
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group=HOSTILE):
            families = await until(served, 1, "aiopg_group_incarnations", group=HOSTILE)
            assert "aiopg_evil" not in families

    served.meet(work)


def test_each_metric_of_the_grafana_dashboard_is_there(served: Served) -> None:
    """deploy/grafana asks for nothing that the side port does not tell, and for no label that is not there."""
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked += [variable["definition"] for variable in dashboard["templating"]["list"] if "definition" in variable]
    assert len(asked) > 10

    async def work(url: str) -> None:
        async with await AsyncStatelessGroup.connect(url, rank=0, world_size=1, group="train") as group:
            await group.barrier()
            families = await until(served, 1, "aiopg_group_round_seconds_count", group="train")
            told = {sample.name: sample.labels for family in families.values() for sample in family.samples}
            for expression in asked:
                names = re.findall(r"\b(?:aiopg|process)_[a-z_]+", expression)
                assert names, expression
                for name in names:
                    assert name in told, f"{name} in {expression}"
                    for label in re.findall(r"(\w+)=~?\"", expression):
                        assert label in {*told[name], "job", "instance"}, f"{label} in {expression}"

    served.meet(work)


def test_the_grafana_dashboard_can_be_imported() -> None:
    """Panels have a place each that overlaps with no other, a number, and the data source that the import asks for."""
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["__inputs"][0]["pluginId"] == "prometheus"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
