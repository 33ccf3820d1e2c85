"""Marked whole lines."""

from __future__ import annotations

import pytest

from aiopg.cli._lines import LINE_LIMIT, Lines


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_whole_however_they_come(size: int) -> None:
    """The same lines come out, whatever pieces they came in."""
    data, lines = b"one\n\ntwo\r\nthree", Lines(b"[7] ")
    out = b"".join(lines.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert out + lines.finish() == b"[7] one\n[7] \n[7] two\r\n[7] three\n"
    assert lines.finish() == b""


@pytest.mark.parametrize("length", [LINE_LIMIT, LINE_LIMIT + 1, 2 * LINE_LIMIT, 5 * LINE_LIMIT // 2])
@pytest.mark.parametrize("size", [1000, LINE_LIMIT, 10 * LINE_LIMIT])
def test_no_part_is_over_the_limit(length: int, size: int) -> None:
    """A line that is too long to hold is passed on in full parts and a rest."""
    data, lines = b"x" * length + b"\n", Lines(b"> ")
    out = b"".join(lines.feed(data[at : at + size]) for at in range(0, len(data), size)) + lines.finish()
    parts = [part.removeprefix(b"> ") for part in out.splitlines()]
    assert b"".join(parts) == data[:-1]
    assert {len(part) for part in parts[:-1]} <= {LINE_LIMIT}
    assert 0 < len(parts[-1]) <= LINE_LIMIT
