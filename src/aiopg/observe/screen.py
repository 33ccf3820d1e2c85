"""A picture of a store for a terminal, as small as that is; needs rich (`pip install 'aiopg-group[top]'`).

What waits is at the top: who looks because something stands still sees it without a key pressed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from aiopg.observe.picture import BOUNDS, GroupView, Histogram, Picture, RankView, RoundView
from aiopg.observe.plain import plain
from aiopg.observe.report import about_store, awaited, called, ranks, states
from aiopg.observe.words import duration, size

__all__ = ["MARKS", "screen"]

MARKS = {"joined": ("o", "green"), "away": ("~", "yellow"), "absent": (".", "dim"), "left": ("-", "dim"),
         "lost": ("x", "bold red")}  # fmt: skip
"""How a rank is drawn: a sign and a style, so that colour alone says nothing. Who is awaited is `AWAITED`."""

AWAITED = ("?", "bold yellow reverse")

RANKS_DRAWN = 256
"""Of a group. Of a larger one those lines are drawn in which something is to be seen."""

ROUNDS_SHOWN = 4
SLOWEST_SHOWN = 3


def screen(url: str, picture: Picture, width: int, height: int, *, note: str = "") -> Sequence[Text]:
    """At most `height` lines of at most `width` columns; `note` goes to the right of the first one."""
    lines = [_spread(Text(plain(url), "bold"), Text(plain(note), "reverse"), width), Text(about_store(picture), "dim")]
    groups = sorted(picture.groups, key=_urgency)
    shown = 0
    for group in groups:
        block = [Text(), *_group(group, width)]
        rest = len(groups) - shown - 1
        if len(lines) + len(block) + (rest > 0) > height:
            if shown == 0:  # one is better cut than not shown at all
                lines += block[: height - len(lines) - (rest > 0)]
                shown += 1
            break
        lines += block
        shown += 1
    if shown < len(groups):
        lines.append(Text(f"and {len(groups) - shown} more groups", "dim"))
    if not groups:
        lines += [Text(), Text("no groups")]
    # What the store itself says is escaped here: it may be no store of ours.
    lines = [line if line.plain.isprintable() else Text(plain(line.plain)) for line in lines[:height]]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _urgency(group: GroupView) -> tuple[bool, float, str, int]:
    """Those come first that wait for who will not come, then those that wait for long."""
    waits = [round for round in group.rounds if round.missing_count and not round.failed]
    return not any(r.gone for r in waits), -max((r.age for r in waits), default=0.0), group.name, group.incarnation


def _group(group: GroupView, width: int) -> Iterator[Text]:
    style = {"live": "bold", "forming": "bold yellow"}.get(group.state, "bold red")
    title = Text(f"{plain(group.name)} #{group.incarnation} {group.state}", style)
    yield _spread(title, Text(_speed(group)), width)
    yield Text(f"  {states(group)}" + _held(group))
    for round in group.rounds[:ROUNDS_SHOWN]:
        yield _round(round)
    if len(group.rounds) > ROUNDS_SHOWN:
        yield Text(f"  and {len(group.rounds) - ROUNDS_SHOWN} more calls under way", "dim")
    if group.slowest:
        late = ", ".join(f"rank {rank} +{duration(late)}" for rank, late in group.slowest[:SLOWEST_SHOWN])
        yield Text(f"  latest on average: {late}")
    yield from _grid(group.ranks, width)


def _speed(group: GroupView) -> str:
    said = []
    if group.rounds_per_second is not None:
        said.append(f"{group.rounds_per_second:.1f} rounds/s")
    if group.messages_per_second is not None:
        said.append(f"{group.messages_per_second:.1f} messages/s")
    if group.latency.count:
        said.append(f"half {_within(group.latency, 0.5)}, 99% {_within(group.latency, 0.99)}")
    return "  ".join(said)


def _within(latency: Histogram, share: float) -> str:
    bound = latency.quantile(share)
    return f"over {BOUNDS[-1]:g} s" if bound == float("inf") else f"<= {duration(bound or 0.0)}"


def _held(group: GroupView) -> str:
    if not group.messages and not group.bytes:
        return ""
    return f"; {group.messages} messages in {group.mailboxes} mailboxes, {size(group.bytes)}"


def _round(round: RoundView) -> Text:
    if not round.missing_count:
        return Text(f"  {called(round)}: complete, {duration(round.age)}", "dim")
    line = Text(f"  {called(round)}: ")
    if round.failed:
        return line.append(f"failed, {plain(round.failed)}", "bold red")
    line.append(f"waits for {awaited(round)}", "bold red" if round.gone else "bold yellow")
    if round.gone and round.op != "join":
        line.append(f" (gone: {ranks(round.gone)})", "bold red")
    if round.age:
        line.append(f" for {duration(round.age)}")
    return line


def _grid(all_ranks: Sequence[RankView], width: int) -> Iterator[Text]:
    """One sign for each rank, in lines of a round number of them."""
    per_line = max((width - 9) // 10 * 10, 10)
    drawn = 0
    for first in range(0, len(all_ranks), per_line):
        some = all_ranks[first : first + per_line]
        if len(all_ranks) > RANKS_DRAWN and all(rank.state == "joined" and not rank.awaited for rank in some):
            continue
        line = Text(f"  {first:>5}  ", "dim")
        for rank in some:
            line.append(*(AWAITED if rank.awaited else MARKS[rank.state]))
        yield line
        drawn += len(some)
        if drawn >= RANKS_DRAWN:
            break
    if drawn < len(all_ranks):
        yield Text(f"  and {len(all_ranks) - drawn} more ranks", "dim")


def _spread(left: Text, right: Text, width: int) -> Text:
    """Two texts at the two ends of a line; the right one is whole."""
    room = width - right.cell_len - (2 if right else 0)
    if room < 8:
        return left
    left.truncate(room, overflow="ellipsis")
    return left + Text(" " * (width - left.cell_len - right.cell_len)) + right if right else left
