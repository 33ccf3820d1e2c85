"""Where everything lies in etcd.

Below the URL's path, or nothing, and `/aiopg/v1/`::

    lives                       number of the last incarnation of any room that is gone
    rooms/<room>                there is this room; the value says which
    room/<room>/blob/<sid>/<number>/<chunk>     payloads too large for a log
    room/<room>/chunk/<name>/<chunk>            of a snapshot too large for one key
    room/<room>/log/<sid>/<number>              entries (`_core.entries`), in the order of their `mod_revision`
    room/<room>/session/<sid>                   a session that is in the room; goes with its link's lease
    room/<room>/snapshot                        a replica (`_core.replica`) behind all entries up to some revision

A room is there if its snapshot is: who opens a new one writes that of a replica that begins. Names are such that one
span has logs and sessions and nothing else: it is what every member of a room watches.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple
from urllib.parse import quote

from aiopg.stores._rooms import RoomName
from aiopg.stores.etcd._messages import Span, under

__all__ = ["CHUNK_BYTES", "Layout", "Place", "RoomKeys"]

CHUNK_BYTES: Final = 1024 * 1024
"""Of what is large, as many bytes are in one key: etcd takes requests of 1.5 MiB, if nobody has told it otherwise."""

NAME_CHARACTERS: Final = 512
"""No group that there can be has a longer name, quoted. The engine refuses longer ones; so much of etcd's never sees
them."""


class Place(NamedTuple):
    """What a key of a room's watched span is, or of its payloads."""

    sid: bytes
    number: int
    """Of an entry, or of a payload; 0 for a session."""


class Layout:
    """Of one store."""

    def __init__(self, prefix: str) -> None:
        """`prefix`: of all keys; empty, or a path that begins with a slash and does not end so."""
        self._root = f"{prefix}/aiopg/v1/".encode()
        self.lives = self._root + b"lives"
        self.rooms = under(self._root + b"rooms/")

    def room(self, name: RoomName) -> RoomKeys:
        """The keys of a room."""
        return RoomKeys(self._root, "keys" if name is None else f"g.{_quoted(name)}")


class RoomKeys:
    """Of one room."""

    def __init__(self, root: bytes, room: str) -> None:
        home = root + f"room/{room}/".encode()
        self.marker = root + f"rooms/{room}".encode()
        self.head = home + b"snapshot"
        self.all = under(home)
        self.watched = Span(home + b"log/", home + b"session0")
        self.read = Span(home + b"log/", self.head + b"\0")
        """What is watched, and the snapshot."""
        self.blobs = under(home + b"blob/")
        self.chunks = under(home + b"chunk/")

    def session(self, sid: bytes) -> bytes:
        """There while the session is."""
        return b"%ssession/%s" % (self.all.key, sid.hex().encode())

    def entry(self, sid: bytes, number: int) -> bytes:
        """Of a session's log."""
        return b"%slog/%s/%012d" % (self.all.key, sid.hex().encode(), number)

    def entries(self, sid: bytes, last: int) -> Span:
        """Of a session's log, up to that number."""
        return Span(self.entry(sid, 0), self.entry(sid, last + 1))

    def blob(self, sid: bytes, number: int, chunk: int) -> bytes:
        """A chunk of what a session wrote beside its log."""
        return b"%s%s/%012d/%06d" % (self.blobs.key, sid.hex().encode(), number, chunk)

    def blob_chunks(self, sid: bytes, number: int, first: int, end: int) -> Span:
        """Some chunks of it."""
        return Span(self.blob(sid, number, first), self.blob(sid, number, end))

    def whole_blob(self, sid: bytes, number: int) -> Span:
        """All of them."""
        return under(b"%s%s/%012d/" % (self.blobs.key, sid.hex().encode(), number))

    def blob_place(self, key: bytes) -> Place:
        """Whose it is, and its number there."""
        sid, number, _ = key.removeprefix(self.blobs.key).split(b"/")
        return Place(bytes.fromhex(sid.decode()), int(number))

    def chunk(self, name: bytes, chunk: int) -> bytes:
        """Of the snapshot of that name."""
        return b"%s%s/%06d" % (self.chunks.key, name, chunk)

    def snapshot_chunks(self, name: bytes) -> Span:
        """All of that snapshot."""
        return under(b"%s%s/" % (self.chunks.key, name))

    def place(self, key: bytes) -> Place:
        """What a key of the watched span is."""
        kind, sid, *number = key.removeprefix(self.all.key).split(b"/")
        return Place(bytes.fromhex(sid.decode()), int(number[0]) if kind == b"log" else 0)


def _quoted(name: str) -> str:
    quoted = quote(name.encode("utf-8", "surrogatepass"), safe="")
    return quoted if len(quoted) <= NAME_CHARACTERS else f"~{hashlib.sha256(quoted.encode()).hexdigest()}"
