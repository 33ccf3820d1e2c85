"""Text of strangers on a terminal."""

from __future__ import annotations

import pytest

from aiopg.observe.plain import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("crew/7 of host-a", "crew/7 of host-a"),
        ("größe 漢字", "größe 漢字"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("two\nlines\r\t", r"two\nlines\r\t"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("zero\u200bwidth\u2028", r"zero\u200bwidth\u2028"),
        ("c1 \x9b31m", r"c1 \x9b31m"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_steers_a_terminal_or_hides_is_an_escape(text: str, shown: str) -> None:
    """One line, and nothing in it that a terminal obeys or that a reader cannot see."""
    assert plain(text) == shown
    assert plain(text).isprintable()
