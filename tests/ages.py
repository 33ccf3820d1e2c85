"""Descriptions of a store without what changes by itself, to compare them."""

from __future__ import annotations

from typing import Any

__all__ = ["ageless"]

AGES = {"now", "uptime", "since", "silent"}
COUNTED_ANEW = {"totals", "done", "round_seconds"}
"""By each life of a store."""


def ageless(described: Any) -> Any:
    """The same without times, and without what a store counts from its start on."""
    if isinstance(described, dict):
        return {key: ageless(value) for key, value in described.items() if key not in AGES | COUNTED_ANEW}
    return [ageless(each) for each in described] if isinstance(described, list) else described
