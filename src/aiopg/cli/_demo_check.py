"""The steps of `aiopg demo`: what they are called, what every rank must have seen, and how a table says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiopg.cli._demo_rank import NEWS, Seen

__all__ = ["STEPS", "Step", "table"]


class Step(NamedTuple):
    """One step, told by its ranks' reports."""

    name: str
    title: str
    faults: Callable[[Sequence[Any]], list[int]]
    """From what each rank saw, the ranks that did not see what they should."""
    short: Callable[[int, Sequence[Any]], str]
    """What one rank saw, in two words."""


def _wrong(right: Sequence[bool]) -> list[int]:
    return [rank for rank, is_right in enumerate(right) if not is_right]


def _all_gather(saw: Sequence[Any]) -> list[int]:
    count = len(saw)
    pids = {one["pid"] for one in saw[0]}
    return _wrong([
        one == saw[0] and [entry["rank"] for entry in one] == list(range(count)) and len(pids) == count for one in saw
    ])  # fmt: skip


def _barrier(saw: Sequence[Any]) -> list[int]:
    # The monotonic clock is one for all processes of a machine, so times of different ranks can be compared.
    last_came = max(came for came, _ in saw)
    return _wrong([went >= last_came for _, went in saw])


def _ring(saw: Sequence[Any]) -> list[int]:
    count = len(saw)
    whole = list(range(count))
    return _wrong([passed == (whole[: rank + 1] if rank else whole) for rank, passed in enumerate(saw)])


def _straggler(saw: Sequence[Any]) -> list[int]:
    last = len(saw) - 1
    return _wrong([last in (missing or ()) for missing in saw[:last]])


STEPS = (
    Step("all_gather", "all_gather: every rank says who it is, and gets the answers of all",
         _all_gather, lambda rank, saw: f"{len(saw[rank])} pids"),
    Step("broadcast", "broadcast: rank 0 has news for everyone",
         lambda saw: _wrong([news == NEWS for news in saw]), lambda rank, saw: str(saw[rank]).partition(" is")[0]),
    Step("barrier", "barrier: each rank comes a little later than the one before; all go on together",
         _barrier, lambda rank, saw: "all came"),
    Step("ring", "send and recv: a list goes round the ring, and each rank adds itself",
         _ring, lambda rank, saw: f"{len(saw[rank])} ranks"),
    Step("straggler", "a straggler: the last rank sleeps; the others run out of patience and are told whom they miss",
         _straggler, lambda rank, saw: "slept" if rank == len(saw) - 1 else f"{_names(saw[rank])} missing"),
)  # fmt: skip


def _names(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks)) or "nobody"


def table(reports: Sequence[Sequence[Seen]]) -> str:
    """What each rank saw and how long it took: a line for each rank, a column for each step. `reports` by step."""
    saw = [[seen.saw for seen in step] for step in reports]
    rows = [["rank", *(step.name for step in STEPS)]]
    for rank in range(len(reports[0])):
        cells = [
            f"{step.short(rank, saw[number])}, {1000 * reports[number][rank].seconds:.1f} ms"
            for number, step in enumerate(STEPS)
        ]
        rows.append([str(rank), *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
