"""Vectors of bodies: tables of parts, the protocol's own values, and errors."""

from __future__ import annotations

from aiopg import errors
from aiopg._core.messages import pack_error, pack_value
from aiopg._core.parts import join_parts
from aiopg.errors import AiopgError

from . import Vector

__all__ = ["ERRORS", "about", "error_of", "sections"]

about = "Bodies. All bytes are hexadecimal; an error is written as Python makes one, and its fields are JSON's."

PARTS: dict[str, list[bytes]] = {
    "two parts": [bytes.fromhex("81a472616e6b07"), b"\x08"],
    "a part that is empty": [b"", b"\x08", b""],
    "one part": [b"\xc0"],
    "all of them empty": [b"", b""],
    "a part of 300 bytes": [bytes(range(256)) + bytes(44), b"\xc3"],
}

BAD_PARTS: dict[str, tuple[int, str, str]] = {
    "too short for the table": (2, "00000001", "holds no table of 2 lengths"),
    "a part that is cut off": (2, "0000000200000001aabb", "does not hold 2 parts of 3 bytes"),
    "bytes behind the last part": (1, "00000001aabb", "does not hold 1 parts of 1 bytes"),
}

VALUES: dict[str, object] = {
    "the incarnation of a group, in the answer to a join": 1,
    "whether a put that is taken back had been taken": True,
    "how many payloads expired": 3,
    "who arrived and who is missing": [[0, 2], [1, 3]],
    "who arrived and who is missing, where the store does not know": [None, None],
    "a call that waits no more": None,
    "what happened to the members": [["joined", 0, "pid 4711 on host-a"], ["left", 0, "it left the group"]],
}

BAD_VALUES: dict[str, tuple[str, str]] = {
    "nothing": ("", "a value's bytes are not MessagePack"),
    "a byte that begins nothing": ("c1", "a value's bytes are not MessagePack"),
    "two values": ("c0c0", "a value's bytes are not MessagePack"),
    "a text that is cut off": ("a568656c6c", "a value's bytes are not MessagePack"),
}

ERRORS: list[str] = [
    'UsageError("root must be 0 to 1, not 2")',
    'GroupClosedError("seat 1 is not taken")',
    'RankConflictError("default", 0, "pid 4711 on host-a")',
    'FencedError("default", 0, "pid 4712 on host-b")',
    'WorldSizeMismatchError("default", 4, 2)',
    'CollectiveMismatchError("default", 0, 3, {0: "barrier()", 1: "broadcast(root=0)"})',
    "PayloadTooLargeError(2147483648, 1073807360)",
    'PeerLostError("default", [1, 2], "it left the group")',
    'GroupAbortedError("default", 1, "loss is nan")',
    'AuthenticationError("", "this member\'s token is not for group \'other\'")',
    'StoreFullError("group_bytes", 4294967296, "group \'default\'")',
    'KeyOperationError("add", "n", "it holds no whole number")',
    'QueueEmptyError("queue")',
    'WatchGapError("ke", 3, 7)',
    'DataExpiredError("default", "the message from rank 0, tag 0,")',
    'ProtocolError("the group is not formed yet")',
]
"""Those that a store tells of a call."""

BAD_ERRORS: dict[str, tuple[object, str]] = {
    "a name that no error has": (["OSError", {}], "names no known error"),
    "a field that the error does not have": (["UsageError", {"text": "no"}], "names no known error"),
    "a field that is missing": (["DataExpiredError", {"group": "g"}], "names no known error"),
    "no pair": ("UsageError", "names no known error"),
    "fields that are no map": (["UsageError", 7], "names no known error"),
}


def error_of(text: str) -> AiopgError:
    """The error that is written so."""
    name, _, arguments = text.partition("(")
    made: AiopgError = eval(f"cls({arguments}", {"cls": getattr(errors, name)})
    return made


def sections() -> dict[str, list[Vector]]:
    """All of them, by section."""
    said = [(text, error_of(text)) for text in ERRORS]
    return {
        "parts": [
            {"name": name, "parts": [part.hex() for part in parts], "body": b"".join(join_parts(list(parts))).hex()}
            for name, parts in PARTS.items()
        ],
        "values": [
            {"name": name, "value": value, "body": pack_value(value)[0].hex()} for name, value in VALUES.items()
        ],
        "errors": [
            {
                "name": type(error).__name__,
                "error": text,
                "fields": error.fields(),
                "body": b"".join(pack_error(error)).hex(),
            }
            for text, error in said
        ],
        "malformed": _malformed(),
    }


def _malformed() -> list[Vector]:
    found: list[Vector] = [
        {"name": name, "of": "parts", "count": count, "body": body, "error": "ProtocolError", "says": says}
        for name, (count, body, says) in BAD_PARTS.items()
    ]
    found += [
        {"name": name, "of": "values", "body": body, "error": "ProtocolError", "says": says}
        for name, (body, says) in BAD_VALUES.items()
    ]
    found += [
        {"name": name, "of": "errors", "body": pack_value(value)[0].hex(), "error": "ProtocolError", "says": says}
        for name, (value, says) in BAD_ERRORS.items()
    ]
    return found
