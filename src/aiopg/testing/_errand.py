"""What a process for tests is to do: call a function of somebody's module with a group; and what came of it.

Both pass as bytes that `MsgpackCodec` made, so that nothing is pickled. `_child` is the program at the other end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiopg.codec import MsgpackCodec

__all__ = ["Outcome", "read_outcome", "write_errand"]


class Outcome(NamedTuple):
    """What became of an errand."""

    value: Any
    """What the function returned."""
    is_echo: bool
    """Whether it failed because another rank did."""


def write_errand(function: Callable[..., Any], arguments: Sequence[object]) -> bytes:
    """The errand to call a function with a group and these arguments.

    Raises:
        ValueError: another process would not find the function.
        CodecError: an argument cannot be sent.
    """
    module = sys.modules.get(function.__module__)
    name = getattr(function, "__qualname__", "")
    if getattr(module, name, None) is not function:
        raise ValueError(
            f"{name or function!r} cannot be found by another process: it must be a function at the top of a module"
        )
    file = getattr(module, "__file__", None)
    if file is None:
        raise ValueError(f"{name} cannot be found by another process: its module {function.__module__} has no file")
    codec = MsgpackCodec()
    return bytes(
        codec.encode(
            {
                "module": function.__module__,
                "file": os.path.abspath(file),
                "function": name,
                "path": [os.path.abspath(place) for place in sys.path],
                # By itself: what is in it may be registered by the module.
                "arguments": bytes(codec.encode(list(arguments))),
            }
        )
    )


def read_outcome(payload: bytes) -> Outcome | None:
    """What the process said; None if it ended without a word."""
    if not payload:
        return None
    said: Any = MsgpackCodec().decode(payload)
    return Outcome(*said)
