"""What the programs share."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from aiopg import register_type
from aiopg.integrations.vllm import stateless_group

HOST = "127.0.0.1"


@register_type
@dataclasses.dataclass
class Note:
    """A class of a program."""

    text: str


def make(rank: int, world_size: int, port: int, **options: Any) -> Any:
    """A group under vLLM's face."""
    return stateless_group(HOST, port, rank, world_size, 3600, 30, **options)


@contextlib.contextmanager
def raises(kind: type[BaseException], *words: str) -> Iterator[None]:
    """The block raises an error of this kind, and its text has these words."""
    text = None
    try:
        yield
    except kind as error:
        text = str(error)
    assert text is not None, f"no {kind.__name__}"
    assert all(word in text for word in words), text


def tensor_of(dtype: str, rank: int) -> Any:
    """A tensor of each rank's own."""
    base = torch.arange(24).reshape(2, 3, 4) + rank
    return (base % 2 == 0) if dtype == "bool" else base.to(torch.float32).to(getattr(torch, dtype))


def same(one: Any, other: Any) -> bool:
    """Equal in dtype, shape and every bit."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return bool(torch.equal(*bits))
