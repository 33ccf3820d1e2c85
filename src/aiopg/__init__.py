"""Process groups for asyncio programs.

Processes that serve or train together exchange metadata: ids, addresses, handshakes, "is everyone ready?".

- `AsyncStatelessGroup`: send, recv, broadcast, all_gather, barrier and the rest, awaitable, each with a deadline.
- `StatelessGroup`: the same, blocking.
- `AsyncStore`, `Store`: keys, queues, watches and locks; a group has one of its own (`group.store`).
- `StoreServer`: the store that groups meet at, where they do not host one themselves.
- `register_type`, `MsgpackCodec` and the other codecs: how objects become bytes.
"""

from aiopg._core.limits import Limits
from aiopg.codec import Codec, JsonCodec, MsgpackCodec, RawCodec, register_type
from aiopg.errors import (
    AddressInUseError,
    AiopgError,
    AuthenticationError,
    CodecError,
    CollectiveMismatchError,
    DataExpiredError,
    FencedError,
    ForkError,
    GroupAbortedError,
    GroupClosedError,
    GroupTimeoutError,
    JournalCorruptError,
    KeyOperationError,
    KeyTimeoutError,
    Outcome,
    PayloadTooLargeError,
    PeerError,
    PeerLostError,
    ProtocolError,
    QueueEmptyError,
    RankConflictError,
    StoreError,
    StoreFullError,
    StoreLostError,
    StoreUnreachableError,
    UsageError,
    WatchGapError,
    WorldSizeMismatchError,
    WrongThreadError,
)
from aiopg.group import AsyncStatelessGroup, MemberEvent, PendingCall
from aiopg.keys import AsyncStore, KeyEvent
from aiopg.server import StoreServer
from aiopg.sync import StatelessGroup, Store
from aiopg.tls import Tls
from aiopg.tokens import Token
from aiopg.version import __version__

__all__ = [
    # groups
    "AsyncStatelessGroup",
    "StatelessGroup",
    "MemberEvent",
    "PendingCall",
    # stores
    "AsyncStore",
    "Store",
    "KeyEvent",
    "StoreServer",
    "Limits",
    "Token",
    "Tls",
    # codecs
    "Codec",
    "MsgpackCodec",
    "JsonCodec",
    "RawCodec",
    "register_type",
    # errors
    "AiopgError",
    "Outcome",
    "UsageError",
    "GroupClosedError",
    "WrongThreadError",
    "ForkError",
    "RankConflictError",
    "FencedError",
    "WorldSizeMismatchError",
    "CollectiveMismatchError",
    "KeyOperationError",
    "CodecError",
    "PayloadTooLargeError",
    "PeerError",
    "GroupTimeoutError",
    "KeyTimeoutError",
    "QueueEmptyError",
    "PeerLostError",
    "GroupAbortedError",
    "StoreError",
    "StoreUnreachableError",
    "AddressInUseError",
    "StoreLostError",
    "AuthenticationError",
    "StoreFullError",
    "DataExpiredError",
    "WatchGapError",
    "JournalCorruptError",
    "ProtocolError",
    "__version__",
]
