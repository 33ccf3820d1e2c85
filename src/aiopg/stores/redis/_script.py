"""The server's part of the store: one Lua text, called as a function (from Redis 7 on) or as a script (before).

It is named by its hash, so a server may hold the texts of several versions of aiopg.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from redis.exceptions import NoScriptError, ResponseError

__all__ = ["Script", "is_not_loaded", "load_script"]


class Script(NamedTuple):
    """How a server that runs the text is asked to."""

    load: tuple[bytes, ...]
    """The command that gives the server the text."""
    call: tuple[bytes, bytes]
    """Begins the command that calls it; behind it stand the number of keys, the key and the arguments."""

    def command(self, prefix: bytes, *arguments: bytes) -> tuple[bytes, ...]:
        """The command that calls it in the room of this prefix."""
        return (*self.call, b"1", prefix, *arguments)


def is_not_loaded(error: ResponseError) -> bool:
    """Whether a server says that it was not given the text."""
    return isinstance(error, NoScriptError) or "Function not found" in str(error)


@cache
def load_script(functions: bool) -> Script:
    """For a server that has functions, or has not."""
    text = _text()
    if not functions:
        script = text + b"\nreturn main(KEYS, ARGV)\n"
        sha = hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
        return Script((b"SCRIPT", b"LOAD", script), (b"EVALSHA", sha))
    name = b"aiopg_" + hashlib.sha256(text).hexdigest()[:16].encode()
    library = b"#!lua name=%s\n%s\nredis.register_function('%s', main)\n" % (name, text, name)
    return Script((b"FUNCTION", b"LOAD", library), (b"FCALL", name))


def _text() -> bytes:
    """The files in the order of their names, which begin with numbers; the last one has `main(keys, arguments)`."""
    places = sorted((files(__package__) / "lua").iterdir(), key=lambda place: place.name)
    return b"\n".join(place.read_bytes() for place in places if place.name.endswith(".lua"))
