"""What the plain arguments of a group must be. Each check names the value and says what it must be."""

from __future__ import annotations

from aiopg._core.limits import Limits
from aiopg.stores.base import Tag

__all__ = [
    "LARGEST_TAG",
    "LEAST_TAG",
    "check_expiration",
    "check_name",
    "check_place",
    "check_tag",
]

LEAST_TAG, LARGEST_TAG = -(2**63), 2**63 - 1


def check_place(rank: int, world_size: int) -> None:
    """Raises `ValueError` or `TypeError` unless rank and world_size are what they must be."""
    for name, value in (("rank", rank), ("world_size", world_size)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {value!r}")
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, not {world_size}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, not {rank}")


def check_name(group: str) -> str:
    """Raises `TypeError` or `ValueError` unless `group` can name a group."""
    if not isinstance(group, str):
        raise TypeError(f"group must be a str, not {group!r}")
    limit = Limits().name_bytes
    if not 1 <= len(group.encode(errors="replace")) <= limit:
        raise ValueError(f"a group name has 1 to {limit} bytes in UTF-8, not {group!r:.200}")
    return group


def check_tag(tag: Tag) -> None:
    """Raises `TypeError` or `ValueError` unless `tag` can be one."""
    if isinstance(tag, bool) or not isinstance(tag, int | str):
        raise TypeError(f"tag must be an int or a str, not {tag!r}")
    if isinstance(tag, int):
        if not LEAST_TAG <= tag <= LARGEST_TAG:
            raise ValueError(f"an int tag must fit in 64 bits, not {tag}")
        return
    try:
        size = len(tag.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"tag {tag!r} is no proper text: {error}") from error
    if size > (limit := Limits().tag_bytes):
        raise ValueError(f"a text tag has at most {limit} bytes in UTF-8, not {size}: {tag!r:.200}")


def check_expiration(seconds: float) -> float:
    """Raises `ValueError` unless data_expiration_seconds is a number over 0."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(f"data_expiration_seconds must be over 0, not {seconds!r}")
    return float(seconds)
