"""Vectors of frames: one of every kind of message at least, and some that are none.

To add a message, add it to `CASES` and run `python -m tests.vectors.generate`.
"""

from __future__ import annotations

import math
from typing import Any

import msgpack

from aiopg._core.handshake import resume_proof
from aiopg._core.key_messages import (
    FROM_NOW,
    STORE,
    AddKey,
    AppendKey,
    CheckKeys,
    CompareSet,
    CountKeys,
    DeleteKeys,
    Follow,
    GetKeys,
    ListKeys,
    Lock,
    Meet,
    Pop,
    Push,
    PutBack,
    QueueLength,
    SetKeys,
    Unlock,
    WaitKeys,
)
from aiopg._core.limits import Limits
from aiopg._core.messages import (
    Abort,
    Acknowledge,
    Answer,
    Arrive,
    Cancel,
    Enlist,
    Expire,
    Failed,
    Goodbye,
    Inquire,
    Join,
    Leave,
    Message,
    Needs,
    Open,
    Opened,
    Put,
    Reform,
    Status,
    Take,
    TakeBack,
    Trace,
    Vacate,
    Void,
    Watch,
    Withdrawn,
    pack_error,
    pack_value,
)
from aiopg._core.parts import join_parts
from aiopg._core.wire import _WIRE, encode_message
from aiopg.errors import PeerLostError, RankConflictError

from . import Vector
from .handshakes import CLIENT_NONCE_2, SECRET, SERVER_NONCE_2, SESSION, greeting

__all__ = ["CASES", "KIND_OF", "about", "sections"]

LIMITS = Limits()
KIND_OF: dict[type[Any], int] = {cls: kind for kind, (cls, _) in _WIRE.items()}

BOOT = "3d1c0b6e-6a54-4f0d-9f0e-0d9e4a7c11aa"
PROOF = resume_proof(SECRET, *greeting(CLIENT_NONCE_2, SERVER_NONCE_2), SESSION, 2, 3)
TWO_PARTS = join_parts([b"\x07", b"\x08"])
NAMES = join_parts([b"key", "é".encode()])
TWO_KEYS = join_parts([b"key", b"v1", b"empty", b""])
PLACE = bytes.fromhex("00000000000000020000000000000001")  # rank 0 of 2, incarnation 1
RANK_7 = bytes.fromhex("81a472616e6b07")  # {"rank": 7}, as the codec writes it

HAPPENING = [12, 7.25, "lost", "default", 1, 0, "", 0, -1, "its process 4711 ended"]

about = (
    "Frames. A field that is bytes is hexadecimal, a float that JSON has no number for is a text, a tag is a number or "
    "a text. Numbers are whole ones of 64 bits. The body is hexadecimal."
)

CASES: list[tuple[str, int, int, Message]] = [
    ("a new session", 0, 0, Open(b"", b"", 1, 0, 5.0, 4711, 88_123, 4026531836, BOOT)),
    ("a new session of a client that does not say who it is", 0, 0, Open(b"", b"", 1, 0, 5.0, 0, 0, 0, "")),
    ("a session goes on", 0, 0, Open(SESSION, PROOF, 2, 3, 5.0, 0, 0, 0, "")),
    ("opened", 0, 0, Opened(SESSION, SECRET, 0, 2**30, 4700, 5.0)),
    ("opened again", 0, 0, Opened(SESSION, b"", 4, 2**30, 4700, 60.0)),
    ("nothing but an acknowledgement", 0, 64, Acknowledge()),
    ("goodbye", 0, 9, Goodbye("the member closed its link")),
    ("goodbye without a reason", 0, 0, Goodbye("")),
    ("join", 1, 0, Join(1, 1, "default", 0, 2, 3600.0, "pid 4711 on host-a")),
    ("join, and put the holder out", 1, 0, Join(1, 1, "é", 1, 2, 0.5, "", True)),
    ("join, and nothing expires", 1, 0, Join(1, 1, "default", 0, 2, math.inf, "")),
    ("leave", 12, 11, Leave(12, 1)),
    ("abort", 5, 4, Abort(5, 1, "loss is nan")),
    ("a join is taken back", 2, 0, Vacate(2, 1)),
    ("enlist", 1, 0, Enlist(1, 1, "workers", 2, 4, 1.0, 3600.0, "pid 4711 on host-a", (RANK_7,))),
    ("form anew", 9, 8, Reform(9, 1, 2, 3600.0, "pid 4711 on host-a", (RANK_7,))),
    ("put", 3, 2, Put(3, 1, 1, 0, (RANK_7,))),
    ("put with a text for a tag", 3, 2, Put(3, 1, 1, "weights", (RANK_7,))),
    ("put with an empty text for a tag, which is not the number 0", 3, 2, Put(3, 1, 1, "", (RANK_7,))),
    ("put of nothing at all", 3, 2, Put(3, 1, 1, -1)),
    ("a put is taken back", 4, 2, TakeBack(4, 1, 1, 0, 3)),
    ("a put with a text for a tag is taken back", 4, 2, TakeBack(4, 1, 1, "weights", 3)),
    ("take", 3, 2, Take(3, 1, 0, 0)),
    ("take with a text for a tag", 3, 2, Take(3, 1, 0, "weights")),
    ("barrier", 2, 1, Arrive(2, 1, 0, 1, "barrier", -1, "", Needs.ALL, 0)),
    ("barrier of who leaves last", 2, 1, Arrive(2, 1, 0, 1, "barrier", -1, "", Needs.ALL_TOLD, 0)),
    ("broadcast, from the root", 2, 1, Arrive(2, 1, 0, 1, "broadcast", 0, "", Needs.NOTHING, 1, (RANK_7,))),
    ("broadcast, from another rank", 2, 1, Arrive(2, 1, 0, 1, "broadcast", 0, "", Needs.ROOT, 0)),
    ("all_gather", 2, 1, Arrive(2, 1, 0, 1, "all_gather", -1, "", Needs.ALL, 1, (RANK_7,))),
    ("gather, from who does not wait", 2, 1, Arrive(2, 1, 0, 1, "gather", 1, "", Needs.NOTHING, 1, (RANK_7,))),
    ("scatter, from the root", 2, 1, Arrive(2, 1, 0, 1, "scatter", 0, "", Needs.ROOT, 2, TWO_PARTS)),
    ("all_to_all", 2, 1, Arrive(2, 1, 0, 1, "all_to_all", -1, "", Needs.ALL, 2, TWO_PARTS)),
    ("all_reduce", 2, 1, Arrive(2, 1, 0, 1, "all_reduce", -1, "sum", Needs.ALL, 1, (b"\x07",))),
    ("reduce with a text for a tag", 2, 1, Arrive(2, 1, "loss", 1, "reduce", 0, "max", Needs.ALL, 1, (b"\x07",))),
    ("a call is taken back", 3, 1, Cancel(2)),
    ("whom a call waits for", 3, 1, Inquire(3, 2)),
    ("expire", 6, 5, Expire(6, 1)),
    ("status", 7, 6, Status(7)),
    ("watch", 8, 7, Watch(8, 1, 0)),
    ("what happened on the store", 9, 8, Trace(9, 0, 2000, "")),
    ("what happened lately in a group", 9, 8, Trace(9, -100, 100, "é")),
    ("in the place of a call that was given up", 9, 7, Void(9)),
    ("the answer to a join", 1, 1, Answer(1, False, pack_value(1))),
    ("the answer to a put", 3, 3, Answer(3, False)),
    ("the answer to a take", 3, 3, Answer(3, False, (RANK_7,))),
    ("the answer to a barrier, to be acknowledged at once", 2, 2, Answer(2, True)),
    ("the answer to an all_gather", 2, 2, Answer(2, False, join_parts([RANK_7, b"\x08"]))),
    ("a call failed", 2, 2, Failed(2, pack_error(PeerLostError("default", [1], "it left the group")))),
    ("a call failed, and what happened before", 2, 2, Failed(2, pack_error(PeerLostError("g", [1], "so", ["now"])))),
    ("a join failed", 1, 1, Failed(1, pack_error(RankConflictError("default", 0, "pid 4711 on host-a")))),
    ("withdrawn", 3, 3, Withdrawn(2, pack_value(([0], [1])))),
    ("withdrawn, and what happened before", 3, 3, Withdrawn(2, pack_value(([0], [1], ["2.0 s ago: rank 1 left: so"])))),
    ("withdrawn before the store had it", 9, 9, Withdrawn(9, pack_value((None, None)))),
    ("the answer to a trace", 9, 9, Answer(9, False, pack_value([1.5e9, 7.5, 12, [HAPPENING], 3]))),
    ("the answer to an enlist", 1, 1, Answer(1, False, (PLACE, *TWO_PARTS))),
    ("set a key", 3, 2, SetKeys(3, STORE, 1, 10.0, True, join_parts([b"key", b"v1"]))),
    ("set two keys of a group that go with their member", 3, 2, SetKeys(3, 1, 2, math.inf, False, TWO_KEYS)),
    ("get", 3, 2, GetKeys(3, STORE, 2, NAMES)),
    ("wait", 3, 2, WaitKeys(3, STORE, 2, NAMES)),
    ("check", 3, 2, CheckKeys(3, STORE, 2, NAMES)),
    ("add", 3, 2, AddKey(3, STORE, -5, "é")),
    ("append", 3, 2, AppendKey(3, STORE, "key", (b"more",))),
    ("set if it holds", 3, 2, CompareSet(3, STORE, False, "key", join_parts([b"v1", b"v2"]))),
    ("set if it is not there", 3, 2, CompareSet(3, STORE, True, "key", join_parts([b"", b"v2"]))),
    ("delete", 3, 2, DeleteKeys(3, STORE, 2, NAMES)),
    ("list", 3, 2, ListKeys(3, STORE, "ke")),
    ("list all", 3, 2, ListKeys(3, STORE, "")),
    ("count", 3, 2, CountKeys(3, STORE, "ke")),
    ("push", 3, 2, Push(3, STORE, "queue", (b"item",))),
    ("pop", 3, 2, Pop(3, STORE, True, "queue")),
    ("pop, and do not wait", 3, 2, Pop(3, STORE, False, "queue")),
    ("the answer to a pop", 3, 3, Answer(3, True, (bytes(7) + b"\x01item",))),
    ("put an item back", 4, 3, PutBack(4, STORE, 1, "queue", (b"item",))),
    ("length of a queue", 3, 2, QueueLength(3, STORE, "queue")),
    ("meet", 3, 2, Meet(3, STORE, 3, "meeting")),
    ("lock", 3, 2, Lock(3, STORE, "lock")),
    ("unlock", 4, 3, Unlock(4, STORE, 1, "lock")),
    ("follow from now on", 3, 2, Follow(3, STORE, FROM_NOW, "ke")),
    ("the answer to a follow", 3, 3, Answer(3, False, pack_value([2, [[1, 0, "key", b"v1"], [2, 1, "key", None]]]))),
    ("get of a value that is not there in time", 4, 4, Withdrawn(3, pack_value(([0], [1])))),
    ("the highest numbers", 2**64 - 1, 2**64 - 2, Cancel(2**63 - 1)),
    ("the lowest number of a call", 3, 1, Cancel(-(2**63))),
]  # fmt: skip


def sections() -> dict[str, list[Vector]]:
    """All of them, by section."""
    return {"frames": [_vector(*case) for case in CASES], "malformed": _malformed()}


def _vector(name: str, seq: int, ack: int, message: Message) -> Vector:
    fields = message._asdict()
    body = b"".join(fields.pop("body"))
    return {
        "name": name,
        "kind": KIND_OF[type(message)],
        "message": type(message).__name__,
        "seq": seq,
        "ack": ack,
        "fields": {field: _plain(value) for field, value in fields.items()},
        "body": body.hex(),
        "frame": frame(message, seq, ack).hex(),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def frame(message: Message, seq: int = 1, ack: int = 0) -> bytes:
    """The frame that carries a message."""
    return b"".join(encode_message(seq, ack, message, LIMITS.head_bytes))


def raw(kind: int, fields: bytes, body: bytes = b"") -> bytes:
    """A frame with the number 1 and whatever fields."""
    head = (1).to_bytes(8) + bytes(8) + bytes([kind]) + fields
    return len(head).to_bytes(4) + len(body).to_bytes(4) + head + body


def _malformed() -> list[Vector]:
    put = (3).to_bytes(8) + (1).to_bytes(8) + (1).to_bytes(8)
    arrive = frame(Arrive(2, 1, 0, 1, "barrier", -1, "", Needs.ALL, 0))[25:]
    join = frame(Join(1, 1, "g", 0, 2, 1.0, "h"))[25:]
    answer = frame(Answer(1, True))[25:]
    cases: dict[str, tuple[bytes, str]] = {
        "a head without room for a kind": ((16).to_bytes(4) + bytes(4 + 16), "frame head of 16 bytes"),
        "a head over the limit": ((4097).to_bytes(4) + bytes(4), "frame head of 4097 bytes"),
        "a body over the limit": (
            (25).to_bytes(4) + (LIMITS.body_bytes + 1).to_bytes(4),
            f"frame body of {LIMITS.body_bytes + 1} bytes",
        ),
        "a kind that no message has": (raw(255, b""), "no message has kind 255"),
        "the kind 0": (raw(0, b""), "no message has kind 0"),
        "fields that are cut off": (raw(40, bytes(7)), "is none of a Cancel"),
        "bytes behind the fields": (raw(40, bytes(9)), "is none of a Cancel"),
        "a bool that is 2": (raw(50, answer[:8] + b"\x02"), "a bool of a Answer is neither 0 nor 1"),
        "an operation that is none": (raw(30, arrive[:32] + b"\x08" + arrive[33:]), "is none of a Arrive"),
        "a tag that is a number and a text": (
            raw(20, put + (5).to_bytes(8) + msgpack.packb(["t"])), "a tag of a Put is a number and a text"
        ),
        "texts that say nothing": (raw(20, put + bytes(8) + b"\x91\xc0"), "written in another way"),
        "a text in a longer form than it needs": (
            raw(20, put + bytes(8) + b"\x91\xd9\x01t"), "written in another way"
        ),
        "a number where a text belongs": (raw(20, put + bytes(8) + b"\x91\x07"), "have the wrong types"),
        "bytes where a text belongs": (raw(20, put + bytes(8) + b"\x91\xc4\x01t"), "have the wrong types"),
        "too few texts": (raw(10, join[:-5] + msgpack.packb(["g"])), "has 2 texts in an array"),
        "texts that are no array": (raw(20, put + bytes(8) + b"\xa1t"), "has 1 texts in an array"),
        "texts that are no MessagePack": (raw(20, put + bytes(8) + b"\x91\xc1"), "are not MessagePack"),
        "a text that is no UTF-8": (raw(20, put + bytes(8) + b"\x91\xa1\xff"), "are not MessagePack"),
    }  # fmt: skip
    return [
        {"name": name, "frame": data.hex(), "error": "ProtocolError", "says": says}
        for name, (data, says) in cases.items()
    ]
