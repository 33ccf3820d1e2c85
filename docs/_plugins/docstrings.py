"""What our docstrings have and mkdocstrings does not know.

Literal blocks (`::`), sections of one sentence (`Raises: as create.`), several names with one text (`rank, world_size:
this process's place.`), errors without a text of their own (`GroupAbortedError, StoreLostError.`), and public names in
backticks, which become links.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

LITERAL = re.compile(r"^(?P<before>.*?)(?P<alone> |^)?::\n\n(?P<block>(?:(?: {4}.*)?\n)* {4}.*)$", re.MULTILINE)
"""A block of code that is announced: by a colon more at the end of a sentence, behind one, or on a line of its own."""

SENTENCE = re.compile(r"^(?P<section>Raises|Returns): (?P<text>.+(?:\n +.+)*)$", re.MULTILINE)
"""A section whose text begins behind its name."""

SHARED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:,\s+\w+)+): (?P<text>.+(?:\n(?P=indent) .*)*)$", re.MULTILINE)
"""An entry of Args, Attributes or Raises with several names."""

ERRORS = re.compile(r"^(?P<indent> +)(?P<names>\w+Error(?:, \w+Error)*)\.$", re.MULTILINE)
"""An entry of Raises with nothing but names."""

NAME = re.compile(r"(?<!\[)`(?P<name>\w+)(?:\.(?P<member>\w+))?`(?!\])")
"""Code that may be a public name, or a method of one."""


class Docstrings(griffe.Extension):
    """Makes Google style and Markdown of them."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe when the whole package was read."""
        self._public = {str(name): pkg[str(name)] for name in pkg.exports or ()}
        self._visit(pkg)

    def _visit(self, obj: griffe.Object) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            for pattern, write in (
                (LITERAL, _fence),
                (SENTENCE, _join),
                (SHARED, _split),
                (ERRORS, self._tell),
                (NAME, self._link),
            ):
                text = pattern.sub(write, text)
            obj.docstring.value = text
        for member in obj.members.values():
            if not member.is_alias:
                self._visit(member)

    def _tell(self, match: re.Match[str]) -> str:
        """Each error with what its class says first."""
        lines = []
        for name in match["names"].split(", "):
            docstring = self._public[name].docstring
            assert docstring is not None, f"{name} has no docstring"
            lines.append(f"{match['indent']}{name}: {docstring.value.splitlines()[0]}")
        return "\n".join(lines)

    def _link(self, match: re.Match[str]) -> str:
        name, member = match["name"], match["member"]
        shown = self._public.get(name)
        if shown is None:
            return match[0]
        if member is None:
            return f"[{match[0]}][aiopg.{name}]"
        found = shown.final_target.all_members.get(member)
        is_shown = found is not None and found.has_docstring
        return f"[{match[0]}][aiopg.{name}.{member}]" if is_shown else match[0]


def _fence(match: re.Match[str]) -> str:
    lines = [line[4:] for line in match["block"].splitlines()]
    language = "text" if any("──" in line for line in lines) else "python"
    before = match["before"] if match["alone"] is not None else f"{match['before']}:"
    return "\n".join([before, "", f"```{language}", *lines, "```"])


def _join(match: re.Match[str]) -> str:
    return f"**{match['section']}:** " + " ".join(match["text"].split())


def _split(match: re.Match[str]) -> str:
    return "\n".join(f"{match['indent']}{name}: {match['text']}" for name in re.split(r",\s+", match["names"]))
