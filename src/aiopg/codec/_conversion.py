"""How instances of a registered class are taken apart and built again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

__all__ = ["Conversion", "checked"]


@dataclass(frozen=True, slots=True)
class Conversion:
    """How to take instances of one class apart and to build them again.

    Attributes:
        encode: makes what is sent of an instance.
        decode: makes an instance; raises ValueError or TypeError where that cannot be.
        by_fields: what is sent is a dict of fields.
    """

    encode: Callable[[Any], object]
    decode: Callable[[Any], object]
    by_fields: bool


def checked(content: object, names: Set[str], *, others: bool = False) -> Mapping[str, object]:
    """The content as a dict of exactly these fields, or of at least these.

    Raises:
        ValueError: it is none; the text names what is missing and what is unknown.
    """
    if type(content) is not dict:
        raise ValueError("its fields are missing")
    missing, unknown = names - content.keys(), content.keys() - names
    if others:
        unknown = {name for name in unknown if type(name) is not str}
    if missing or unknown:
        raise ValueError(
            f"fields missing: {sorted(missing)}; fields unknown: {sorted(map(str, unknown))}; "
            "the two sides have different versions of it"
        )
    return content
