"""What travels: the description that one rank gives of itself, numbers to be summed up, and bytes of any length."""

from typing import Any

PICKLED_BYTES = 170
"""The size of one object as `pickle` writes it, the same for every rank."""


def metadata(rank: int) -> dict[str, Any]:
    """Return rank's description of itself: an address, an engine id and a few numbers.

    Numbers that differ by rank are spelled with the same width, so that no rank has a smaller object.
    """
    return {
        "rank": 1000 + rank,
        "host": f"10.20.{100 + rank // 100}.{100 + rank % 100}",
        "port": 29500,
        "engine_id": f"engine{rank:04d}-7f3a9c51-e2d8-4b06-a1c4-5e9d3b7f0c21",
        "block_size": 1024,
        "kv_heads": 1000,
        "dtype": "bfloat16",
    }


NUMBERS = 1000
"""How many floats an all_reduce sums up."""


def numbers(rank: int) -> list[float]:
    """Return what rank gives to an all_reduce."""
    return [rank + 1 + index / NUMBERS for index in range(NUMBERS)]


def sized(length: int) -> bytes:
    """Return a payload of this many bytes, for the sweep over sizes.

    Not zeros: those would be one page of the kernel's, mapped again and again, which no cache misses.
    """
    return b"\xa5" * length
