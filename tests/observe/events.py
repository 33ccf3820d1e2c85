"""What Chrome trace events have to be: the rules of the format, and those that make a picture of them."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any, TypeAlias

__all__ = ["Event", "check", "named", "rows", "slices"]

Event: TypeAlias = "dict[str, Any]"

NUMBER = (int, float)
COMMON = {"ph": str, "pid": int, "tid": int, "name": str}
TIMED = {**COMMON, "ts": NUMBER, "cat": str}
SCHEMA: dict[str, dict[str, Any]] = {
    "M": {**COMMON, "args": dict},
    "X": {**TIMED, "dur": NUMBER, "args": dict},
    "i": {**TIMED, "s": str, "args": dict},
    "s": {**TIMED, "id": int},
    "f": {**TIMED, "id": int, "bp": str},
}
"""By phase, the keys that an event has, and of what type: no others, and none of them left out."""

VALUES = {"s": ("g", "p", "t"), "bp": ("e",), "cat": ("collective", "awaited", "message", "member", "waits")}
METADATA = {
    "process_name": "name",
    "process_sort_index": "sort_index",
    "thread_name": "name",
    "thread_sort_index": "sort_index",
}

ROUNDED = 0.0005
"""Microseconds: times have three places."""


def check(text: str) -> list[Event]:
    """The events of a trace, all in order. Raises `AssertionError`."""
    trace = json.loads(text, parse_constant=lambda name: AssertionError(name))
    assert text.isascii()
    assert trace.keys() == {"traceEvents", "displayTimeUnit", "otherData"}
    assert trace["displayTimeUnit"] == "ms"
    events: list[Event] = trace["traceEvents"]
    for event in events:
        _check_event(event)
    timed = [event["ts"] for event in events if event["ph"] != "M"]
    assert timed == sorted(timed)
    assert not timed or timed[0] >= 0
    assert {event["ph"] for event in events[: len(events) - len(timed)]} == {"M"}
    names = named(events)
    assert all((event["pid"], event["tid"]) in names for event in events if event["ph"] != "M")
    by_row = rows(events)
    for row in by_row.values():
        for before, after in pairwise(row):
            assert before["ts"] + before["dur"] <= after["ts"] + ROUNDED, (before, after)
    _check_arrows(events, by_row)
    return events


def _check_event(event: Event) -> None:
    schema = SCHEMA[event["ph"]]
    assert event.keys() == schema.keys(), event
    for key, types in schema.items():
        assert isinstance(event[key], types), event
        assert not isinstance(event[key], bool), event
        if key in VALUES and event["ph"] != "s":
            assert event[key] in VALUES[key], event
    if event["ph"] == "X":
        assert event["dur"] > 0, event
    if event["ph"] == "M":
        assert event["args"].keys() == {METADATA[event["name"]]}, event


def _check_arrows(events: list[Event], by_row: dict[tuple[int, int], list[Event]]) -> None:
    """Each has one beginning and one end, each in a slice, and does not run back in time."""
    ends: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            ends[event["id"]].append(event)
            row = by_row[event["pid"], event["tid"]]
            inside = [one for one in row if one["ts"] - ROUNDED <= event["ts"] <= one["ts"] + one["dur"] + ROUNDED]
            assert inside, event
    for pair in ends.values():
        assert [event["ph"] for event in pair] == ["s", "f"]


def named(events: list[Event]) -> dict[tuple[int, int], str]:
    """The name of each row, "rank 3" or "rank 3, call 2 at a time", by process and row."""
    return {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}


def rows(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    """The slices of each row, in order."""
    found: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return found


def slices(events: list[Event], name: str) -> dict[str, Event]:
    """The slices of that name, by the rank in whose row they are."""
    names = named(events)
    return {
        names[event["pid"], event["tid"]].partition(",")[0]: event
        for event in events
        if event["ph"] == "X" and event["name"] == name
    }
