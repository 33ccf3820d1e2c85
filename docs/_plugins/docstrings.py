"""What our docstrings have and Markdown has not."""

from __future__ import annotations

import re
from typing import Any

import griffe

LITERAL = re.compile(r"^(?P<before>.*)::\n\n(?P<block>(?:(?: {4}.*)?\n)* {4}.*)$", re.MULTILINE)
"""A block of code that `::` announces, at the end of a line or on a line of its own."""

NAME = re.compile(r"(?<!\[)`(?P<name>\w+)(?:\.(?P<member>\w+))?`(?!\])")
"""Code that may be a public name, or a method of one."""


class Docstrings(griffe.Extension):
    """Literal blocks become fenced ones, and public names become links to where they are shown."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when the whole package was read."""
        self._public = {str(name): pkg[str(name)] for name in pkg.exports or ()}
        self._visit(pkg)

    def _visit(self, obj: griffe.Object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = NAME.sub(self._link, LITERAL.sub(_fence, obj.docstring.value))
        for member in obj.members.values():
            if not member.is_alias:
                self._visit(member)

    def _link(self, match: re.Match[str]) -> str:
        name, member = match["name"], match["member"]
        shown = self._public.get(name)
        if shown is None:
            return match[0]
        if member is None:
            return f"[{match[0]}][aiopg.{name}]"
        methods = shown.final_target.all_members
        return f"[{match[0]}][aiopg.{name}.{member}]" if member in methods else match[0]


def _fence(match: re.Match[str]) -> str:
    lines = [line[4:] for line in match["block"].splitlines()]
    language = "text" if any("──" in line for line in lines) else "python"
    before = [f"{match['before']}:", ""] if match["before"].strip() else []
    return "\n".join([*before, f"```{language}", *lines, "```"])
