"""References to payloads that lie elsewhere: where every member hears every command, large bodies are not among them.

A `Blob` stands in a body where a buffer would. The engine counts its bytes and hands it on; it never looks into a
payload, so it need not have it. Whoever is answered with one fetches the bytes (`blobs_in`, `fill`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aiopg._core.frames import Body, Buffer, body_size
from aiopg._core.messages import Arrive, Command, Put
from aiopg._core.parts import join_parts, split_parts

__all__ = ["INLINE_BYTES", "Blob", "blobs_in", "brought_by", "fill", "outsource"]

INLINE_BYTES = 64 * 1024
"""A payload of more bytes is written beside the log, once, and read only by who gets it."""


class Blob:
    """A part of what a session wrote under a number."""

    __slots__ = ("length", "number", "offset", "sid")

    def __init__(self, sid: bytes, number: int, offset: int, length: int) -> None:
        self.sid = sid
        self.number = number
        self.offset = offset
        self.length = length

    def __repr__(self) -> str:
        return f"<Blob {self.sid.hex()} {self.number} [{self.offset}:{self.offset + self.length}]>"

    def __len__(self) -> int:
        return self.length


def outsource(command: Command, sid: bytes, number: int) -> tuple[Command, Body]:
    """The same command with references in place of a large payload, and what is to be written under that number.

    That is nothing where the command's body is small, or none that the engine hands on as it is.
    """
    if not isinstance(command, Put | Arrive) or body_size(command.body) <= INLINE_BYTES:
        return command, ()
    if not isinstance(command, Arrive) or command.pieces <= 1:
        whole = Blob(sid, number, 0, body_size(command.body))
        return command._replace(body=(cast(Buffer, whole),)), command.body
    table, *parts = join_parts(split_parts(command.body, command.pieces))
    references: list[Buffer] = []
    offset = 0
    for part in parts:
        references.append(cast(Buffer, Blob(sid, number, offset, len(part))) if len(part) else b"")
        offset += len(part)
    return command._replace(body=(table, *references)), tuple(parts)


def blobs_in(body: Body) -> tuple[Blob, ...]:
    """The references in a body, in order."""
    return tuple(piece for piece in cast("tuple[object, ...]", body) if type(piece) is Blob)


def brought_by(command: Command) -> tuple[Blob, ...]:
    """The references that a command brings, as `outsource` makes them."""
    return blobs_in(command.body) if isinstance(command, Put | Arrive) else ()


def fill(body: Body, fetched: Mapping[Blob, Buffer]) -> Body:
    """The body with what was fetched in place of the references."""
    return tuple(
        fetched[piece] if isinstance(piece, Blob) else piece for piece in cast("tuple[Buffer | Blob, ...]", body)
    )
