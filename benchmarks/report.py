"""From rounds to a table: medians, spread, and ratios paired within rounds."""

import dataclasses
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import payload
from benchmarks.contestants import ENTRIES
from benchmarks.coordinator import Figure, Plan, Results

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Ratio:
    """A column that compares each contestant with one other, the reference."""

    head: str
    reference: str
    inverted: bool = False
    """False: the contestant's time by the reference's. True: the reference's by the contestant's."""
    form: str = "{:.2f}"

    def of(self, figure: Figure, figures: Iterable[Figure]) -> float | None:
        """Return the median over rounds of the ratio within one round; None where there is none."""
        for other in figures:
            if (other.contestant, other.operation, other.size) == (
                self.reference,
                figure.operation,
                figure.size,
            ):
                above, below = (other, figure) if self.inverted else (figure, other)
                if above.error is None and below.error is None:
                    rounds = zip(above.microseconds, below.microseconds, strict=True)
                    return statistics.median(one / two for one, two in rounds)
        return None


RATIOS = (
    Ratio("vLLM's time / this", "vllm", inverted=True, form="{:.1f}x"),
    Ratio("this / TCPStore's time", "tcpstore"),
)


def markdown(plan: Plan, results: Results, machine: Mapping[str, object]) -> str:
    """Return the whole report: the machine, then one table for each operation."""
    versions = ", ".join(f"{name} {value}" for name, value in sorted(results.versions.items()))
    lines = [
        *(f"- {name}: {value}" for name, value in machine.items()),
        f"- versions: {versions}",
        f"- {plan.rounds} rounds, blocks of about {plan.block_seconds:g} s",
        f"- objects of {payload.PICKLED_BYTES} bytes",
    ]
    ratios = [ratio for ratio in RATIOS if ratio.reference in plan.contestants]
    heads = ["N", "contestant", "median", "min - max", *(ratio.head for ratio in ratios)]
    for operation in plan.operations:
        lines += ["", f"### {operation}: microseconds per operation", ""]
        lines += [_row(heads), _row(["--:", ":--", *["--:"] * (len(heads) - 2)])]
        for figure in results.figures:
            if figure.operation == operation:
                lines.append(_row(_cells(figure, results.figures, ratios)))
    return "\n".join(lines)


def _cells(figure: Figure, figures: list[Figure], ratios: list[Ratio]) -> list[str]:
    cells = [str(figure.size), ENTRIES[figure.contestant].label]
    if figure.error is not None:
        return [*cells, "failed", figure.error, *[""] * len(ratios)]
    values = [(ratio.form, ratio.of(figure, figures)) for ratio in ratios]
    return [
        *cells,
        _short(statistics.median(figure.microseconds)),
        f"{_short(min(figure.microseconds))} - {_short(max(figure.microseconds))}",
        *("" if value is None else form.format(value) for form, value in values),
    ]


def _short(microseconds: float) -> str:
    return f"{microseconds:,.1f}" if microseconds < 1000 else f"{microseconds:,.0f}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def write_json(plan: Plan, results: Results, machine: Mapping[str, object], started: datetime) -> Path:
    """Write everything that was measured, round by round, to a file of its own; return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    content = {
        "schema": 1,
        "started": started.isoformat(timespec="seconds"),
        "machine": dict(machine),
        "versions": results.versions,
        "plan": dataclasses.asdict(plan) | {"object_bytes": payload.PICKLED_BYTES},
        "figures": [_entry(figure, results.figures) for figure in results.figures],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _entry(figure: Figure, figures: list[Figure]) -> dict[str, Any]:
    return dataclasses.asdict(figure) | {
        "median": None if figure.error is not None else statistics.median(figure.microseconds),
        "ratios": {ratio.head: ratio.of(figure, figures) for ratio in RATIOS},
    }
