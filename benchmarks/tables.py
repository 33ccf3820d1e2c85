"""From figures to Markdown tables: medians, spread, ratios paired within rounds, and who failed or was left out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.contestants import ENTRIES
from benchmarks.figures import CONNECTIONS, GROUP, PAYLOAD, RATIOS, Figure, Ratio, Results


def markdown(results: Results) -> str:
    """Return the whole report: the machine, who was left out, then the tables of each question."""
    parts = [conditions(results)]
    for question in (GROUP, PAYLOAD, CONNECTIONS):
        parts += [f"### {section.title}\n\n{section.table}" for section in sections(results, question)]
    return "\n\n".join(parts)


def conditions(results: Results) -> str:
    """Return under which conditions the figures were measured, as a list."""
    plan = results.plan
    versions = ", ".join(f"{name} {value}" for name, value in sorted(results.versions.items()))
    lines = [
        *(f"- {name}: {value}" for name, value in results.machine.items()),
        f"- versions: {versions}",
        f"- {plan['rounds']} rounds ({plan['sweep_rounds']} for payloads and connections), blocks of about "
        f"{plan['block_seconds']:g} s, objects of {plan['object_bytes']} bytes",
        *(f"- left out: {ENTRIES[name].label}: {why}" for name, why in results.left_out.items()),
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Section:
    """One table, and what it is about."""

    operation: str
    title: str
    table: str


def sections(results: Results, question: str) -> list[Section]:
    """Return the tables about a question, one for each operation."""
    made = []
    for operation, figures in _by_operation(results.about(question)):
        if question == PAYLOAD:
            made.append(
                Section(operation, "broadcast to 3 ranks, microseconds", _table(figures, "payload", _length, SPEED))
            )
        else:
            title = (
                f"{operation}, microseconds" if question == GROUP else f"{operation} of many connections, microseconds"
            )
            made.append(Section(operation, title, _table(figures, "N", _size)))
    return made


def _by_operation(figures: Sequence[Figure]) -> list[tuple[str, list[Figure]]]:
    names = dict.fromkeys(figure.operation for figure in figures)
    return [(name, [figure for figure in figures if figure.operation == name]) for name in names]


def _size(figure: Figure) -> str:
    return f"{figure.size:,}"


def _length(figure: Figure) -> str:
    length, unit = figure.bytes or 0, "B"
    for larger in ("KiB", "MiB", "GiB"):
        if length >= 1024 and length % 1024 == 0:
            length, unit = length // 1024, larger
    return f"{length:,} {unit}"


def _speed(figure: Figure) -> str:
    if figure.median is None or figure.bytes is None:
        return ""
    return f"{figure.bytes / figure.median:,.1f}"


@dataclass(frozen=True)
class Column:
    """One more column of a table."""

    head: str
    of: Callable[[Figure], str]


SPEED = Column("MB/s to each rank", _speed)


def _table(figures: Sequence[Figure], head: str, key: Callable[[Figure], str], extra: Column | None = None) -> str:
    """One line for each figure; `key` tells what differs between those of one contestant."""
    ratios = _ratios(figures)
    extras = [extra] if extra is not None else []
    heads = [
        head,
        "contestant",
        "median",
        "min - max",
        *(each.head for each in extras),
        *(each.head for each in ratios),
    ]
    lines = [_row(heads), _row(["--:", ":--", *["--:"] * (len(heads) - 2)])]
    for figure in figures:
        first = [key(figure), ENTRIES[figure.contestant].label]
        if figure.median is None:
            what = ["failed", figure.error] if figure.left_out is None else ["left out", figure.left_out]
            lines.append(_row([*first, *(text or "" for text in what), *[""] * (len(heads) - 4)]))
            continue
        lines.append(
            _row(
                [
                    *first,
                    _short(figure.median),
                    f"{_short(min(figure.microseconds))} - {_short(max(figure.microseconds))}",
                    *(each.of(figure) for each in extras),
                    *(_ratio(ratio.of(figure, figures)) for ratio in ratios),
                ]
            )
        )
    return "\n".join(lines)


def _ratios(figures: Iterable[Figure]) -> list[Ratio]:
    return [ratio for ratio in RATIOS if any(figure.contestant == ratio.reference for figure in figures)]


def _short(microseconds: float) -> str:
    return f"{microseconds:,.1f}" if microseconds < 1000 else f"{microseconds:,.0f}"


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
