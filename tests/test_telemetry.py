"""OpenTelemetry: spans and durations of calls, for programs that have set it up; nothing for the others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SETUP = """
import asyncio, json, sys
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
"""

TELL = """
def tell():
    spans = [
        {
            "name": span.name, "id": span.context.span_id, "parent": span.parent.span_id if span.parent else None,
            "status": span.status.status_code.name, "text": span.status.description,
            "events": [event.name for event in span.events], **span.attributes,
        }
        for span in exporter.get_finished_spans()
    ]
    points = [
        {"count": point.count, "bounds": list(point.explicit_bounds), "unit": metric.unit, **point.attributes}
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics if metric.name == "aiopg.call.duration"
        for point in metric.data.data_points
    ]
    print(json.dumps({"spans": spans, "points": points}))
"""

CALLS = """
from aiopg import AsyncStatelessGroup, GroupTimeoutError

async def main():
    ranks = [AsyncStatelessGroup.connect("memory://x", rank=rank, world_size=2, group="crew") for rank in range(2)]
    first, second = await asyncio.gather(*ranks)
    with trace.get_tracer("program").start_as_current_span("work") as work:
        await asyncio.gather(first.barrier(), second.barrier())
        await first.send({"a": 1}, 1, tag="kv")
        await second.recv(0, tag="kv")
        try:
            await first.barrier(0.05, tag=7)
        except GroupTimeoutError:
            pass
        task = asyncio.create_task(first.recv(1))
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        print(work.get_span_context().span_id)
    await first.close()
    await second.close()

asyncio.run(main())
tell()
"""

KEYS = """
from aiopg import AsyncStatelessGroup, AsyncStore, KeyTimeoutError

async def main():
    store = await AsyncStore.connect("memory://k")
    group = await AsyncStatelessGroup.connect("memory://k", rank=0, world_size=1, group="crew")
    with trace.get_tracer("program").start_as_current_span("work") as work:
        await store.multi_set({"secret/a": b"1", "secret/b": b"2"})
        await group.store.set("secret/c", b"3")
        async with store.lock("secret/l"):
            pass
        try:
            await store.get("secret/d", timeout=0.05)
        except KeyTimeoutError:
            pass
        print(work.get_span_context().span_id)
    await group.close()
    await store.close()

asyncio.run(main())
tell()
"""

BLOCKING = """
from aiopg import StatelessGroup

group = StatelessGroup.connect("memory://y", rank=0, world_size=1)
with trace.get_tracer("program").start_as_current_span("work") as work:
    group.all_gather(1)
    print(work.get_span_context().span_id)
group.close()
tell()
"""


def run(program: str) -> tuple[int, dict[str, Any]]:
    """The id of the program's own span, and all that was exported."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    work, said = done.stdout.splitlines()
    return int(work), json.loads(said)


def test_every_call_is_a_span_of_its_caller() -> None:
    """With op, group, rank, tag and number; errors as status, with who is missing; durations by op and error."""
    work, said = run(SETUP + TELL + CALLS)
    spans = {
        (span["name"], span["aiopg.rank"], span["aiopg.tag"]): span for span in said["spans"] if span["name"] != "work"
    }
    assert set(spans) == {
        ("aiopg.join", 0, "0"), ("aiopg.join", 1, "0"), ("aiopg.barrier", 0, "0"), ("aiopg.barrier", 1, "0"),
        ("aiopg.send", 0, "kv"), ("aiopg.recv", 1, "kv"), ("aiopg.barrier", 0, "7"), ("aiopg.recv", 0, "0"),
    }  # fmt: skip
    assert {span["aiopg.group"] for span in spans.values()} == {"crew"}
    assert all(span["parent"] == work for (name, *_), span in spans.items() if name != "aiopg.join")
    barrier = spans["aiopg.barrier", 1, "0"]
    assert (barrier["aiopg.op"], barrier["aiopg.seq"], barrier["aiopg.world_size"]) == ("barrier", 1, 2)
    assert (barrier["status"], "error.type" in barrier) == ("UNSET", False)

    late = spans["aiopg.barrier", 0, "7"]
    assert (late["status"], late["error.type"], late["events"]) == ("ERROR", "GroupTimeoutError", ["exception"])
    assert (late["aiopg.missing"], late["aiopg.arrived"]) == ([1], [0])
    assert "barrier number 1 (tag 7) of group 'crew' timed out" in late["text"]
    cancelled = spans["aiopg.recv", 0, "0"]
    assert (cancelled["status"], cancelled["error.type"]) == ("UNSET", "CancelledError")

    points = {(point["aiopg.op"], point.get("error.type")): point for point in said["points"]}
    assert {key: point["count"] for key, point in points.items()} == {
        ("join", None): 2, ("barrier", None): 2, ("send", None): 1, ("recv", None): 1,
        ("barrier", "GroupTimeoutError"): 1, ("recv", "CancelledError"): 1,
    }  # fmt: skip
    assert {point["unit"] for point in said["points"]} == {"s"}
    assert points["barrier", None]["bounds"][0] == 0.0005


def test_calls_on_keys_are_spans_without_the_names_of_keys() -> None:
    """How many keys, whose, and what they came to; a key's name is in the text of an error alone."""
    work, said = run(SETUP + TELL + KEYS)
    spans = {span["name"]: span for span in said["spans"] if span["name"].startswith("aiopg.store.")}
    assert set(spans) == {
        "aiopg.store.multi_set", "aiopg.store.set", "aiopg.store.lock", "aiopg.store.unlock", "aiopg.store.get",
    }  # fmt: skip
    assert {span["parent"] for span in spans.values()} == {work}
    assert (spans["aiopg.store.multi_set"]["aiopg.keys"], "aiopg.group" in spans["aiopg.store.get"]) == (2, False)
    assert (spans["aiopg.store.set"]["aiopg.group"], spans["aiopg.store.set"]["aiopg.rank"]) == ("crew", 0)
    assert (spans["aiopg.store.get"]["status"], spans["aiopg.store.get"]["error.type"]) == ("ERROR", "KeyTimeoutError")
    assert "secret/" not in json.dumps([span for span in spans.values() if span["status"] != "ERROR"])
    assert ("store.get", "KeyTimeoutError") in {(each["aiopg.op"], each.get("error.type")) for each in said["points"]}


def test_the_spans_of_a_blocking_group_are_those_of_its_caller_too() -> None:
    """Though its calls run in another thread."""
    work, said = run(SETUP + TELL + BLOCKING)
    (span,) = [span for span in said["spans"] if span["name"] == "aiopg.all_gather"]
    assert span["parent"] == work


def test_without_a_provider_nothing_is_told_and_nothing_is_imported() -> None:
    """Neither where the program has the API and set up nothing, nor where it has none."""
    program = """
import sys
from aiopg import StatelessGroup
from aiopg.telemetry import find_telemetry
group = StatelessGroup.connect("memory://z", rank=0, world_size=1)
group.barrier()
group.close()
assert not any(name.startswith("opentelemetry") for name in sys.modules)
import opentelemetry.trace, opentelemetry.metrics
assert find_telemetry() is None
from opentelemetry.sdk.trace import TracerProvider
opentelemetry.trace.set_tracer_provider(TracerProvider())
assert find_telemetry() is not None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
