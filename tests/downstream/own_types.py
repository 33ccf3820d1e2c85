"""Codecs, those that are there and one's own; types of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from aiopg import AsyncStatelessGroup, Codec, JsonCodec, MsgpackCodec, RawCodec, register_type
from aiopg.codec import LARGE_BYTES, Buffer, BulkCodec, LargeCodec, TypeRegistry, is_large


@register_type
@dataclass
class Offer:
    model: str
    version: int


@dataclass
class Secret:
    text: str


class Reversed:
    """Bytes back to front."""

    name = "reversed"

    def encode(self, obj: object) -> Buffer:
        assert isinstance(obj, bytes)
        return obj[::-1]

    def decode(self, payload: Buffer) -> bytes:
        return bytes(payload)[::-1]

    def decode_many(self, payloads: Buffer, sizes: Sequence[int]) -> list[object]:
        begins = [sum(sizes[:n]) for n in range(len(sizes))]
        return [self.decode(payloads[begin : begin + size]) for begin, size in zip(begins, sizes, strict=True)]

    def encode_large(self, obj: object) -> Buffer:
        return self.encode(obj)


async def round_trip(codec: Codec, obj: object) -> object:
    """What a rank gets of what it gave."""
    group = await AsyncStatelessGroup.connect(f"memory://{codec.name}", rank=0, world_size=1, codec=codec)
    async with group:
        results: list[object] = await group.all_gather(obj)
        return results[0]


async def main() -> None:
    registry = TypeRegistry()
    registry.register(Secret, name="secret")
    codecs: list[tuple[Codec, object]] = [
        (MsgpackCodec(), Offer("shouter", 7)),
        (MsgpackCodec(registry=registry), Secret("x")),
        (JsonCodec(), {"version": 7}),
        (RawCodec(), b"bytes"),
        (Reversed(), b"bytes"),
    ]
    for codec, obj in codecs:
        assert await round_trip(codec, obj) == obj
    mine = Reversed()
    bulk: BulkCodec = mine
    large: LargeCodec = mine
    assert bulk.decode_many(b"badc", [2, 2]) == [b"ab", b"cd"]
    assert bytes(large.encode_large(b"ab")) == b"ba"
    assert is_large(bytes(LARGE_BYTES + 1))


asyncio.run(main())
