"""How each contestant is drawn, in every plot alike."""

from typing import Any

STYLES: dict[str, dict[str, Any]] = {
    "aiopg-uvloop": {"color": "#0b5fa5", "linewidth": 2.2, "marker": "o"},
    "aiopg-asyncio": {"color": "#4f9bd9", "marker": "o"},
    "aiopg-sync": {"color": "#9cc7ea", "marker": "o"},
    "aiopg-redis": {"color": "#5fb8b0", "marker": "P"},
    "vllm": {"color": "#c0392b", "marker": "s"},
    "tcpstore": {"color": "#e67e22", "marker": "^"},
    "gloo": {"color": "#8e44ad", "marker": "v"},
    "mpi": {"color": "#27803b", "marker": "D"},
    "redis": {"color": "#a0764c", "marker": "P"},
    "floor-uvloop": {"color": "#7f7f7f", "linestyle": "--", "marker": "x"},
    "floor": {"color": "#000000", "linestyle": "--", "marker": "x"},
}
"""aiopg in one hue, and over Redis in one beside it; the peers in others, the floors as lines below all of them."""
