"""Text of strangers, for people to look at."""

from __future__ import annotations

import unicodedata

__all__ = ["plain"]

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of what steers a terminal, turns the order of a line round, ends a line, or shows nothing."""


def plain(text: object) -> str:
    r"""A name or a reason as one line that does nothing to a terminal: what cannot be seen is written as an escape.

    ::

        plain("a\x1b[2Jb") == "a\\x1b[2Jb"

    A backslash stays one, so the text is for eyes and not to be turned back.
    """
    said = str(text)
    if said.isascii() and said.isprintable():
        return said
    return "".join(_seen(sign) for sign in said)


def _seen(sign: str) -> str:
    if unicodedata.category(sign) not in _HIDDEN:
        return sign
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")
