"""What a group asks of a codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

__all__ = ["BulkCodec", "Buffer", "Codec", "LargeCodec"]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Codec(Protocol):
    """Turns objects into payloads and payloads into objects.

    One codec serves many groups, tasks and threads at once. All members of a group use codecs of one name.
    """

    @property
    def name(self) -> str:
        """What the codec is called in handshakes and messages ("msgpack")."""
        ...

    def encode(self, obj: object) -> Buffer:
        """The payload for an object; it does not change when the object does.

        Raises:
            CodecError: the object, or something in it, has no encoding.
        """
        ...

    def decode(self, payload: Buffer) -> object:
        """The object of a payload; it shares no memory with the payload.

        Raises:
            CodecError: the payload is none of this codec's, whatever its bytes are.
        """
        ...


@runtime_checkable
class BulkCodec(Protocol):
    """A codec that is quicker with many payloads at once; a group asks for nothing but `decode` where it is none."""

    def decode_many(self, payloads: Buffer, sizes: Sequence[int]) -> list[object]:
        """`decode` for payloads that lie behind one another in one buffer, in order.

        Raises what `decode` raises for the first that is none.
        """
        ...


@runtime_checkable
class LargeCodec(Protocol):
    """A codec that lets other threads run while it makes a large payload; of others a group asks for `encode`.

    Either is called in a worker thread where the object looks large, and so is `decode` where the payload is.
    """

    def encode_large(self, obj: object) -> Buffer:
        """`encode` for an object that is large; the payload is the same. Raises what that raises."""
        ...
