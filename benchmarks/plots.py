"""`python -m benchmarks.plots FILE FOLDER`: one plot for each question, from a results file, as SVG.

It needs matplotlib and runs in the peers' environment, where that is; `benchmarks.page` calls it.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.contestants import ENTRIES
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD, Figure, Results, read
from benchmarks.names import plot_name
from benchmarks.styles import STYLES

# The same file comes out of the same figures: no date in it, and no names made by chance.
SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "aiopg",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
}


def draw(results: Results, folder: Path) -> None:
    """Draw every plot that the results have figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    for question, across, along in (
        (GROUP, "ranks in the group", lambda figure: figure.size),
        (CONNECTIONS, "ranks, held by 2 processes", lambda figure: figure.size),
    ):
        figures = results.about(question)
        for operation in dict.fromkeys(figure.operation for figure in figures):
            lines = [figure for figure in figures if figure.operation == operation]
            title = operation if question == GROUP else f"{operation}, many connections"
            axes = _plot(lines, along, lambda figure: figure.median, title)
            axes.set(xlabel=across, ylabel="microseconds per operation (less is better)")
            _save(folder / plot_name(question, operation))
    if payloads := results.about(PAYLOAD):
        axes = _plot(payloads, lambda figure: figure.bytes, _bytes_per_second, "broadcast to 3 ranks")
        axes.set(xlabel="payload, bytes", ylabel="bytes per second to each rank (more is better)")
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(_binary))
        _save(folder / plot_name(PAYLOAD, "broadcast"))


def _bytes_per_second(figure: Figure) -> float | None:
    return None if figure.median is None or figure.bytes is None else figure.bytes / figure.median * 1e6


def _plot(
    figures: Sequence[Figure],
    along: Callable[[Figure], float | None],
    up: Callable[[Figure], float | None],
    title: str,
) -> Any:
    """Draw one line for each contestant on new logarithmic axes; return the axes."""
    _, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    for name in ENTRIES:
        points = [(along(figure), up(figure)) for figure in figures if figure.contestant == name and figure.measured]
        if points:
            axes.plot(*zip(*points, strict=True), label=ENTRIES[name].label, markersize=5, **STYLES[name])
    places = sorted({place for figure in figures if (place := along(figure)) is not None})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(places, labels=[f"{place:,}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return axes


def _binary(length: float, _: int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if length < 1024:
            return f"{length:.0f} {unit}"
        length /= 1024
    return f"{length:.0f} GiB"


def _save(path: Path) -> None:
    plt.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close()


if __name__ == "__main__":
    with plt.rc_context(SETTINGS):
        draw(read(Path(sys.argv[1])), Path(sys.argv[2]))
