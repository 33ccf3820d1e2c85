"""Where in an object a value lies, and how an error says so."""

from __future__ import annotations

import json
from dataclasses import dataclass

from aiopg.errors import CodecError

__all__ = ["ROOT", "Step", "full_name", "how_to_register", "short_name"]

_LONGEST_KEY = 80


@dataclass(frozen=True, slots=True)
class Step:
    """One step from a value into a part of it. Text is made only when an error needs it."""

    parent: Step | None
    form: str
    key: object = None

    def __str__(self) -> str:
        """The whole way from the root: `obj["peers"][3].sock`."""
        forms: list[str] = []
        step: Step | None = self
        while step is not None:
            forms.append(step.form.format(_shown(step.key)))
            step = step.parent
        return "".join(reversed(forms))

    def item(self, key: object) -> Step:
        """The item of a list or tuple at an index, or of a dict at a key."""
        return Step(self, "[{}]", key)

    def field(self, name: str) -> Step:
        """The field of a registered class."""
        return Step(self, ".{}", _Bare(name))

    def member(self) -> Step:
        """A member of a set, which has no place of its own."""
        return Step(self, "{{...}}")

    def keys(self) -> Step:
        """A key of a dict (not the value that it leads to)."""
        return Step(self, ".keys()")

    def encoded(self) -> Step:
        """What the `encode=` function of a registered class returned."""
        return Step(self, ".encode()")

    def refuse(self, value: object, reason: str) -> CodecError:
        """The error that says why the value here has no encoding."""
        return CodecError(str(self), full_name(type(value)), reason)


class _Bare(str):
    """Text that stands in a path as it is, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


ROOT = Step(None, "obj")
"""The object that `encode` was called with."""


def _shown(key: object) -> str:
    # A str in double quotes: the path is read by people, and mostly inside of other quotes.
    text = json.dumps(key, ensure_ascii=not key.isprintable()) if type(key) is str else repr(key)
    return text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 3] + "..."


def full_name(cls: type) -> str:
    """The name of a class with its module; a builtin's has none."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def short_name(cls: type) -> str:
    """The name under which the code that defined a class can call it."""
    return cls.__qualname__.rpartition("<locals>.")[2]


def how_to_register(cls: type, *, by_fields: bool) -> str:
    """The call that registers a class, to be copied from an error."""
    functions = "" if by_fields else ", encode=..., decode=..."
    return f"aiopg.register_type({short_name(cls)}{functions})"
