"""Labels are bounded."""

from __future__ import annotations

from aiopg.observe.http._names import GROUPS_NAMED, KEPT_SECONDS, OTHER, Names


def test_so_many_groups_have_a_label_of_their_own_and_no_more() -> None:
    """The first ones keep theirs; all others are "other"."""
    names = Names()
    names.see((f"group {n}" for n in range(GROUPS_NAMED + 30)), now=0)
    labels = {names.label(f"group {n}") for n in range(GROUPS_NAMED + 30)}
    assert labels == {f"group {n}" for n in range(GROUPS_NAMED)} | {OTHER}


def test_a_place_is_free_when_its_group_was_not_seen_for_long() -> None:
    """A group that ended an hour ago leaves its place to another one; one that comes again before that has it."""
    names = Names()
    names.see([f"group {n}" for n in range(GROUPS_NAMED)], now=0)
    names.see(["group 0"], now=KEPT_SECONDS - 1)
    names.see(["new"], now=KEPT_SECONDS - 1)
    assert names.label("new") == OTHER
    names.see(["new"], now=KEPT_SECONDS)
    assert (names.label("new"), names.label("group 0"), names.label("group 1")) == ("new", "group 0", OTHER)


def test_a_name_that_is_no_text_is_written_out() -> None:
    """Names may hold bytes that are no text; the label is text."""
    names = Names()
    names.see(["\udc80"], now=0)
    assert names.label("\udc80") == "\\udc80"
