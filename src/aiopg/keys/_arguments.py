"""What the arguments of calls on keys must be. Each check names the value and says what it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from aiopg._core.limits import Limits

__all__ = [
    "Items",
    "Value",
    "as_value",
    "check_amount",
    "check_count",
    "check_key",
    "check_keys",
    "check_prefix",
    "check_revision",
    "check_ttl",
    "pairs_of",
]

Value: TypeAlias = str | bytes | bytearray | memoryview
"""What a key can be given: text goes as UTF-8."""

Items: TypeAlias = Mapping[str, Value]

_LIMITS = Limits()
_LEAST, _LARGEST = -(2**63), 2**63 - 1


def check_key(key: str, prefix: str = "") -> str:
    """The key behind the prefix, if it is one. Raises `TypeError` or `ValueError`."""
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, not {key!r:.200}")
    whole = prefix + key
    if key and whole.isascii() and len(whole) <= _LIMITS.key_bytes:
        return whole
    size = _size("a key", whole)
    if not key or size > _LIMITS.key_bytes:
        within = f" (with its prefix {prefix!r:.200})" if prefix else ""
        raise ValueError(f"a key has 1 to {_LIMITS.key_bytes} bytes in UTF-8{within}, not {size}: {key!r:.200}")
    return whole


def check_keys(keys: Sequence[str], prefix: str) -> tuple[str, ...]:
    """The keys behind the prefix, if they are 1 to `Limits.keys_per_call`. Raises `TypeError` or `ValueError`."""
    if isinstance(keys, str | bytes):
        raise TypeError(f"keys must be a sequence of str, not the single {keys!r:.200}")
    whole = tuple([check_key(key, prefix) for key in keys])
    _check_number(len(whole))
    return whole


def pairs_of(items: Items, prefix: str) -> list[tuple[str, bytes]]:
    """Keys behind the prefix, and values, if they are 1 to `Limits.keys_per_call`. Raises as the checks of them."""
    if not isinstance(items, Mapping):
        raise TypeError(f"multi_set takes a mapping of keys to values, not {items!r:.200}")
    whole = [(check_key(key, prefix), as_value("value", value)) for key, value in items.items()]
    _check_number(len(whole))
    return whole


def _check_number(count: int) -> None:
    if not 1 <= count <= _LIMITS.keys_per_call:
        raise ValueError(f"one call takes 1 to {_LIMITS.keys_per_call} keys, not {count}; split it into several calls")


def check_prefix(prefix: str, behind: str = "") -> str:
    """The beginning of keys behind the prefix, if it can be one; it may be empty. Raises."""
    if not isinstance(prefix, str):
        raise TypeError(f"a prefix must be a str, not {prefix!r:.200}")
    whole = behind + prefix
    if (size := _size("a prefix", whole)) > _LIMITS.key_bytes:
        raise ValueError(f"a prefix has at most {_LIMITS.key_bytes} bytes in UTF-8, not {size}: {prefix!r:.200}")
    return whole


def _size(what: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must be proper text, not {text!r:.200}: {error}") from error


def as_value(name: str, value: Value) -> bytes:
    """The bytes of a value: of text its UTF-8. Raises `TypeError`, or `ValueError` for text with surrogates."""
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{name} must be proper text, not {value!r:.200}: {error}") from error
    try:
        return bytes(memoryview(value))
    except TypeError:
        raise TypeError(
            f"{name} must be str or bytes, not {value!r:.200}; encode other objects first, or send them through a group"
        ) from None


def check_ttl(ttl: float | None) -> float | None:
    """Seconds over 0, if there are any. Raises `TypeError` or `ValueError`."""
    if ttl is None:
        return None
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl must be a number of seconds, not {ttl!r}")
    if not 0 < ttl < math.inf:
        raise ValueError(f"ttl must be over 0 seconds and finite (None to keep the key), not {ttl!r}")
    return float(ttl)


def check_amount(amount: int) -> int:
    """What is to be added: a whole number of 64 bits. Raises `TypeError` or `ValueError`."""
    if isinstance(amount, bool) or not isinstance(amount, int):
        raise TypeError(f"amount must be an int, not {amount!r:.200}")
    if not _LEAST <= amount <= _LARGEST:
        raise ValueError(f"amount must fit in 64 bits, not {amount}")
    return int(amount)


def check_count(world_size: int) -> int:
    """How many are to come to a barrier. Raises `TypeError` or `ValueError`."""
    if isinstance(world_size, bool) or not isinstance(world_size, int):
        raise TypeError(f"world_size must be an int, not {world_size!r:.200}")
    if not 1 <= world_size <= _LARGEST:
        raise ValueError(f"world_size must be at least 1, not {world_size}")
    return int(world_size)


def check_revision(revision: int) -> int:
    """A revision to follow from. Raises `TypeError` or `ValueError`."""
    if isinstance(revision, bool) or not isinstance(revision, int):
        raise TypeError(f"revision must be an int, as set() returns it, not {revision!r:.200}")
    if not 0 <= revision <= _LARGEST:
        raise ValueError(f"revision must be at least 0, not {revision}")
    return int(revision)
