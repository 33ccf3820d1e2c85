"""Which groups a session may join and see: the patterns of the token that it logged in with.

A pattern is a group's name, or the beginning of names with a `*` behind: `*` alone is every group.
"""

from __future__ import annotations

from typing import Final, TypeAlias

__all__ = ["ANY_GROUP", "Scope", "allows"]

Scope: TypeAlias = tuple[str, ...]

ANY_GROUP: Final[Scope] = ("*",)


def allows(scope: Scope, name: str) -> bool:
    """Whether a session of this scope may know that there is such a group."""
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in scope)
