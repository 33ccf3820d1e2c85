"""A picture of a store as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aiopg.errors import describe_ranks
from aiopg.observe.picture import STATES, GroupView, Picture, RankView, RoundView
from aiopg.observe.plain import plain
from aiopg.observe.words import duration, size

__all__ = ["RANKS_LISTED", "about_store", "awaited", "awaiting", "called", "ranks", "report", "states"]

RANKS_LISTED = 64
"""Larger groups are shown by those ranks that are not simply there, and the number of the others."""


def report(url: str, picture: Picture, capabilities: Mapping[str, object]) -> Iterator[str]:
    """All of it, for a terminal or a file. What strangers named is escaped (`plain`)."""
    yield f"{plain(url)}: {about_store(picture)}"
    yield "  " + _promises(capabilities)
    yield from (f"  {line}" for line in _holdings(picture.store, len(picture.groups)))
    for group in picture.groups:
        yield ""
        yield f"{plain(group.name)} (incarnation {group.incarnation}): {group.state}, {states(group)}"
        yield from (f"  {awaiting(round)}" for round in group.rounds)
        if group.messages or group.bytes:
            yield (
                f"  {group.messages} messages wait in {group.mailboxes} mailboxes; {size(group.bytes)} held, "
                f"keys included ({group.keys.get('keys', 0)})"
            )
        yield from _table(group)


def about_store(picture: Picture) -> str:
    """What and how large it is, in a line."""
    store = picture.store
    said = [f"aiopg {plain(store['version'])}"] if "version" in store else []
    said += [f"pid {store['pid']}"] if "pid" in store else []
    said += [f"up {duration(store['uptime'])}"] if "uptime" in store else []
    said += [f"{store['sessions']} sessions"] if isinstance(store.get("sessions"), int) else []
    members = sum(group.members for group in picture.groups)
    groups = len(picture.groups)
    said.append(f"{members} members in {groups} group{'s' * (groups != 1)}")
    said.append(f"{size(store.get('bytes', 0))} held")
    return ", ".join(said)


def states(group: GroupView) -> str:
    """How many ranks are what: "8 ranks: 7 joined, 1 lost"."""
    counts = {state: sum(rank.state == state for rank in group.ranks) for state in STATES}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{group.world_size} ranks: {said}"


def awaiting(round: RoundView) -> str:
    """Who a round waits for, and for how long: "barrier number 3 (tag 0) waits for rank 5, 12.3 s; arrived: 0-4"."""
    for_how_long = f", {duration(round.age)}" if round.age else ""
    if not round.missing_count:
        return f"{called(round)} is complete{for_how_long}"
    if round.failed:
        return f"{called(round)} failed{for_how_long}: {plain(round.failed)}"
    gone = ""
    if round.gone and round.op != "join":
        gone = " (not there to come)" if len(round.gone) == len(round.missing) else f" (gone: {ranks(round.gone)})"
    return f"{called(round)} waits for {awaited(round)}{gone}{for_how_long}; arrived: {ranks(round.arrived)}"


def awaited(round: RoundView) -> str:
    """Whom a round waits for: "ranks 3, 5-7"."""
    return f"rank{'s' * (round.missing_count != 1)} {ranks(round.missing, round.missing_count)}"


def called(round: RoundView) -> str:
    """A round's name for people."""
    if round.op == "join":
        return "joining"
    return f"{plain(round.call.removesuffix('()'))} number {round.number} (tag {plain(repr(round.tag))})"


def ranks(some: Sequence[int], count: int | None = None) -> str:
    """Ranks as runs; `count`: how many there are, where these are not all."""
    more = (count or len(some)) - len(some)
    return describe_ranks(some) + (f" and {more} more" if more > 0 else "")


def _promises(capabilities: Mapping[str, object]) -> str:
    survives = capabilities.get("survives")
    kept = " and ".join(map(str, survives)) if isinstance(survives, list) and survives else "nothing"
    death = capabilities.get("death_seconds")
    return (
        f"engine {capabilities['engine']}: {'exactly once' if capabilities['exactly_once'] else 'at least once'}, "
        f"survives the loss of {kept}, {'keys' if capabilities['keys'] else 'no keys'}, "
        f"payloads up to {size(_number(capabilities['payload_bytes']))}, a death is told within "
        f"{duration(_number(death))}"
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _holdings(store: Mapping[str, Any], groups: int) -> Iterator[str]:
    limits: Mapping[str, Any] = store.get("limits", {})
    if limits:
        held = f"store_bytes {size(store.get('bytes', 0))} of {size(limits['store_bytes'])}"
        sessions = f"sessions {store['sessions']} of {limits['sessions']}, " if "sessions" in store else ""
        yield f"limits: {sessions}groups {groups} of {limits['groups']}, {held}"
    keys: Mapping[str, int] = store.get("keys", {})
    if any(keys.values()):
        yield f"its own keys: {keys.get('keys', 0)}, queues: {keys.get('queues', 0)}, {size(keys.get('bytes', 0))}"
    for lobby in store.get("lobbies", ()):
        there, least = len(lobby["waiting"]), lobby["awaited"]
        yield f"{there} wait for group {plain(repr(lobby['group']))} to form of whoever comes, {least} or more"


def _table(group: GroupView) -> Iterator[str]:
    shown: Sequence[RankView] = group.ranks
    if len(shown) > RANKS_LISTED:
        shown = [rank for rank in shown if rank.state != "joined" or rank.awaited][:RANKS_LISTED]
    if shown:
        yield "  rank   state    since        silent       who"
    for rank in shown:
        since = duration(rank.since) if rank.since is not None else ""
        silent = duration(rank.silent) if rank.silent is not None else ""
        who = plain(rank.holder) if rank.state in ("joined", "away") else plain(rank.reason)
        mark = "   <- awaited" if rank.awaited else ""
        yield f"  {rank.rank:<6} {rank.state:<8} {since:<12} {silent:<12} {who}{mark}".rstrip()
    if len(shown) < len(group.ranks):
        yield f"  and {len(group.ranks) - len(shown)} more ranks"
