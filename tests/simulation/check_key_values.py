"""Keys that hold values: each use of a key fits into one order of all of them, which time agrees with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.simulation.key_history import BASE, PLACES, Use
from tests.simulation.view import SETTLE, View

__all__ = ["check_board", "check_counter", "check_log", "check_register"]

EPSILON = 1e-6

# ------------------------------------------------------------------------------------------------- counters


def check_counter(view: View, uses: list[Use]) -> Iterator[str]:
    """A sum is that of the adds that took effect, each once."""
    adds = {use.given: use for use in uses if use.op == "add"}
    told: list[tuple[Use, frozenset[int]]] = []
    for use in uses:
        if not use.ok:
            continue
        digits = _digits(int(use.value))
        if any(count > 1 for count in digits.values()):
            yield f"an add was applied twice: {use}"
            return
        if use.op == "add" and use.given not in digits:
            yield f"a sum without what was added: {use}"
        told.append((use, frozenset(digits)))
    yield from _check_sets(told, adds)
    yield from _check_final(view, uses, told, adds)


def _digits(total: int) -> dict[int, int]:
    """How often each power of the base is in a number."""
    digits = {BASE**place: total // BASE**place % BASE for place in range(PLACES + 1)}
    return {amount: count for amount, count in digits.items() if count}


def _check_sets(told: list[tuple[Use, frozenset[int]]], adds: dict[int, Use]) -> Iterator[str]:
    """Sums grow, as time goes; nothing is in one that was not added by then, nothing is missing that was before."""
    for use, held in told:
        for amount in held:
            add = adds.get(amount)
            if add is None or add.started > use.ended:
                yield f"a sum with what nobody had added by then ({add}): {use}"
            elif add.was_refused:
                yield f"a sum with an add that was told not to be applied ({add}): {use}"
        for amount, add in adds.items():
            if add.was_applied and add.ended < use.started and amount not in held:
                yield f"a sum without an add that was applied before ({add}): {use}"
    by_size = sorted(told, key=lambda pair: (len(pair[1]), pair[0].op == "get"))
    for (one, fewer), (other, more) in pairwise(by_size):
        if not fewer <= more:
            yield f"two sums of which neither is part of the other: {one}; {other}"
        elif fewer == more and one.op == other.op == "add":
            yield f"one sum of two adds: {one}; {other}"


def _check_final(
    view: View, uses: list[Use], told: list[tuple[Use, frozenset[int]]], adds: dict[int, Use]
) -> Iterator[str]:
    last = view.audited(uses)
    if last is None:
        return
    held = next((held for use, held in told if use is last), frozenset())
    for amount, add in adds.items():
        if add.was_applied and amount not in held:
            yield f"the total at the end is without {add}: {last}"
    for use, earlier in told:
        if not earlier <= held:
            yield f"the total at the end is without what was in it before ({use}): {last}"


# ------------------------------------------------------------------------------------------------ registers


def check_register(view: View, uses: list[Use]) -> Iterator[str]:
    """Swaps chain: each value was swapped for one other at most, and whoever looks sees the chain grow."""
    swaps = {use.given[1]: use for use in uses if use.op == "compare_set"}
    follows: dict[bytes | None, Use] = {}
    seen: list[bytes | None] = []
    for use in uses:
        if use.ok and use.op == "compare_set":
            done, held = use.value
            if done != (held == use.given[1]):
                yield f"it says that it swapped, and holds another value, or the reverse: {use}"
            if not done and held == use.given[0]:
                yield f"it held what was expected, and was not swapped: {use}"
            seen += [held, use.given[0]] if done else [held]
        elif use.ok:
            seen.append(use.value)
    while seen:
        value = seen.pop()
        if value is None:
            continue
        swap = swaps.get(value)
        if swap is None:
            yield f"a value that nobody gave: {value!r}"
            return
        if swap.was_refused or (swap.ok and not swap.value[0]):
            yield f"a value that was told not to be set is there: {swap}"
            return
        other = follows.get(swap.given[0])
        if other is swap:
            continue
        if other is not None:
            yield f"two swaps of one value: {other}; {swap}"
            return
        follows[swap.given[0]] = swap
        seen.append(swap.given[0])
    yield from _check_chain(uses, follows)


def _check_chain(uses: list[Use], follows: dict[bytes | None, Use]) -> Iterator[str]:
    places: dict[bytes | None, int] = {None: 0}
    value: bytes | None = None
    while (swap := follows.get(value)) is not None and swap.given[1] not in places:
        value = swap.given[1]
        places[value] = len(places)
    looks: list[tuple[Use, int, bool]] = []
    for use in uses:
        if use.ok:
            swapped = use.op == "compare_set" and use.value[0]
            held = use.value[1] if use.op == "compare_set" else use.value
            if held not in places:
                yield f"a value that nothing led to: {use}"
                return
            looks.append((use, places[held], swapped))
    for use, place, _ in looks:
        for later, after, swapped in looks:
            if use.ended < later.started and (after < place or (swapped and after == place)):
                yield f"an older value after a newer one ({use}): {later}"


# ------------------------------------------------------------------------------------------------------ logs


def check_log(view: View, uses: list[Use]) -> Iterator[str]:
    """What is appended is there once, in one order for all, from then on."""
    appends = {use.given: use for use in uses if use.op == "append"}
    reads = [use for use in uses if use.op == "get" and use.ok]
    longest = max((use.value for use in reads), key=len, default=b"")
    tokens = [token + b";" for token in longest.split(b";")[:-1]]
    if len(set(tokens)) < len(tokens):
        yield f"an append was applied twice: {longest!r}"
        return
    for token in tokens:
        if token not in appends or appends[token].was_refused:
            yield f"what nobody appended, or was told not to have: {token!r} in {longest!r}"
            return
    for read in reads:
        if not longest.startswith(read.value):
            yield f"two stories of one log, {longest!r}: {read}"
        for append in appends.values():
            if append.was_applied and append.ended < read.started and append.given not in read.value:
                yield f"what was appended before is missing ({append}): {read}"
            if append.started > read.ended and append.given in read.value:
                yield f"it was read before it was appended ({append}): {read}"
    for append in appends.values():
        if append.ok and append.given in longest:
            place = tokens.index(append.given) + 1
            if append.value != len(b"".join(tokens[:place])):
                yield f"not the length of the log at its place in {longest!r}: {append}"
    lengths = [append.value for append in appends.values() if append.ok]
    if len(set(lengths)) < len(lengths):
        yield f"two appends made the log equally long: {sorted(lengths)}"


# ---------------------------------------------------------------------------------------------------- boards


def check_board(view: View, uses: list[Use]) -> Iterator[str]:
    """What is read was there: given by somebody, and not surely gone by then."""
    sets = {use.given: use for use in uses if use.op == "set"}
    for use in uses:
        if use.ok and use.op == "get":
            given = sets.get(use.value)
            if given is None:
                yield f"a value that nobody gave: {use}"
            elif why := _was_not_there(view, given, use, uses):
                yield f"{why} ({given}): {use}"
        elif use.ok and (use.op == "wait" or (use.op in ("check", "delete") and use.value)):
            if not any(not _was_not_there(view, given, use, uses) for given in sets.values()):
                yield f"nothing can have been there: {use}"
        elif use.ok and use.op in ("check", "delete"):
            yield from _check_absent(view, use, uses)
        elif use.timed_out and use.op in ("get", "wait"):
            yield from _check_starved(view, use, uses)


def _was_not_there(view: View, given: Use, use: Use, uses: Sequence[Use]) -> str:
    """Why what was given so cannot have been there while this use looked; "" if it can."""
    if given.started > use.ended:
        return "a value from the future"
    if given.was_refused:
        return "a value that was told not to be set"
    if given.session and view.is_out(given.seat, use.started):
        return "a key of a session that had ended"
    if not given.was_applied:
        return ""  # it may take effect late
    if given.ttl is not None and not view.history.restarts and given.ended + given.ttl < use.started - EPSILON:
        return "a key whose time was over"
    for other in uses:
        replaces = other.op == "set" or other.op == "delete"
        if replaces and other.was_applied and given.ended < other.started and other.ended < use.started:
            return f"a value that was gone by {other}"
    return ""


def _stays(given: Use) -> bool:
    return given.op == "set" and given.was_applied and given.ttl is None and not given.session


def _may_remove(other: Use, given: Use, by: float) -> bool:
    """Whether this may have taken a key away that was given before, or made it one that goes by itself."""
    if other.was_refused or other.started > by or (other.was_applied and other.ended < given.started):
        return False
    return other.op == "delete" or (other.op == "set" and (other.ttl is not None or other.session))


def _check_absent(view: View, use: Use, uses: Sequence[Use]) -> Iterator[str]:
    for given in uses:
        lasts = _stays(given) and given.ended < use.started
        if lasts and not any(_may_remove(other, given, use.ended) for other in uses if other is not use):
            yield f"a key that was there was not found ({given}): {use}"
            return


def _check_starved(view: View, use: Use, uses: Sequence[Use]) -> Iterator[str]:
    since = use.deadline - SETTLE
    if use.started > since or view.history.lowered or not view.is_well(use.seat.life, since, use.deadline):
        return
    for given in uses:
        lasts = _stays(given) and given.ended < since
        if lasts and not any(_may_remove(other, given, use.ended) for other in uses):
            yield f"a key was there, and yet it timed out ({given}): {use}"
            return
