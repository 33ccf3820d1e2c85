"""What one who looks may see of a store's state: that of the groups which his token is for."""

from __future__ import annotations

from typing import Any

from aiopg._core.keys import NO_KEYS
from aiopg._core.scopes import ANY_GROUP, Scope, allows

__all__ = ["narrow"]

OF_ALL = ("totals", "round_seconds", "sessions")
"""Counts of all groups together; they are left out where not all groups may be seen."""


def narrow(status: dict[str, Any], scope: Scope) -> dict[str, Any]:
    """The state as a member with a token for these groups is told it (`Engine.describe`)."""
    if scope == ANY_GROUP:
        return status
    groups = [group for group in status["groups"] if allows(scope, group["name"])]
    seen = {name: value for name, value in status.items() if name not in OF_ALL}
    if "done" in seen:
        seen["done"] = {what: sum(group["done"][what] for group in groups) for what in seen["done"]}
    return seen | {
        "groups": groups,
        "rounds": sum(group["open_rounds"] if "open_rounds" in group else len(group["rounds"]) for group in groups),
        "bytes": sum(group["bytes"] for group in groups),
        "members": sum(len(group["members"]) for group in groups),
        "lobbies": [lobby for lobby in status["lobbies"] if allows(scope, lobby["group"])],
        "keys": dict(NO_KEYS),
    }
