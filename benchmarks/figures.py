"""What a run yields, as plain data: figures, and who was left out; to a JSON file and back."""

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 2

GROUP, PAYLOAD, CONNECTIONS = "group", "payload", "connections"
"""The questions: what an operation takes in groups of N; how payloads grow; how the number of connections grows."""


@dataclass
class Figure:
    """One contestant's result for one operation under one question."""

    question: str
    operation: str
    size: int
    """Ranks in the group."""
    contestant: str
    bytes: int | None = None
    """Length of the payload, where the question is about it."""
    repetitions: int = 0
    """In one block."""
    microseconds: list[float] = field(default_factory=list)
    """Per operation, one entry for each round."""
    error: str | None = None
    """The last words of a contestant that failed here."""
    left_out: str | None = None
    """Why a contestant took no part here, where that is no failure."""

    @property
    def measured(self) -> bool:
        return self.error is None and self.left_out is None and bool(self.microseconds)

    @property
    def median(self) -> float | None:
        return statistics.median(self.microseconds) if self.measured else None

    def races(self, other: "Figure") -> bool:
        """Whether rounds of the two are neighbours in time, so that their ratio means something."""
        mine, its = (
            (each.question, each.operation, each.size, each.bytes, len(each.microseconds)) for each in (self, other)
        )
        return mine == its and self.measured and other.measured


@dataclass(frozen=True)
class Ratio:
    """A column that compares each contestant with one other, the reference."""

    head: str
    reference: str
    inverted: bool = False
    """False: the contestant's time by the reference's. True: the reference's by the contestant's."""

    def of(self, figure: Figure, figures: Iterable[Figure]) -> float | None:
        """Return the median over rounds of the ratio within one round; None where there is none."""
        for other in figures:
            if other.contestant == self.reference and figure.races(other):
                above, below = (other, figure) if self.inverted else (figure, other)
                rounds = zip(above.microseconds, below.microseconds, strict=True)
                return statistics.median(one / two for one, two in rounds)
        return None


RATIOS = (
    Ratio("vLLM's time / this", "vllm", inverted=True),
    Ratio("this / TCPStore's time", "tcpstore"),
    Ratio("this / floor's time", "floor"),
)


@dataclass
class Results:
    """All of one run."""

    started: str
    """ISO 8601, UTC."""
    short: bool
    """Whether it is too short for its figures to be quoted."""
    machine: dict[str, str | int]
    plan: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why a contestant was left out of the whole run, by name."""
    figures: list[Figure] = field(default_factory=list)

    def about(self, question: str) -> list[Figure]:
        return [figure for figure in self.figures if figure.question == question]


def write(results: Results, folder: Path) -> Path:
    """Write everything that was measured, round by round, to a file of its own; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    name = results.started.replace("-", "").replace(":", "").removesuffix("+0000")
    path = folder / f"{name}Z.json"
    content = {"schema": SCHEMA} | dataclasses.asdict(results)
    content["figures"] = [_entry(figure, results.figures) for figure in results.figures]
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def _entry(figure: Figure, figures: list[Figure]) -> dict[str, Any]:
    ratios = {ratio.head: ratio.of(figure, figures) for ratio in RATIOS}
    return dataclasses.asdict(figure) | {"median": figure.median, "ratios": ratios}


def read(path: Path) -> Results:
    """Read a file that `write` wrote.

    Raises:
        ValueError: it is of another version of the benchmarks.
    """
    content = json.loads(path.read_text())
    if content.pop("schema", None) != SCHEMA:
        raise ValueError(f"{path} is no results file of schema {SCHEMA}; run the benchmarks again")
    names = {each.name for each in dataclasses.fields(Figure)}
    figures = [Figure(**{name: entry[name] for name in names}) for entry in content.pop("figures")]
    return Results(figures=figures, **content)
