"""Process groups for asyncio programs.

Processes that serve or train together exchange metadata: ids, addresses, handshakes, "is everyone ready?".

- `AsyncStatelessGroup`: send, recv, broadcast, all_gather, barrier and the rest, awaitable, each with a deadline.
- `StatelessGroup`: the same, blocking.
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
    Outcome,
    PayloadTooLargeError,
    PeerError,
    PeerLostError,
    ProtocolError,
    RankConflictError,
    StoreError,
    StoreFullError,
    StoreLostError,
    StoreUnreachableError,
    UsageError,
    WorldSizeMismatchError,
    WrongThreadError,
)
from aiopg.group import AsyncStatelessGroup, MemberEvent, PendingCall
from aiopg.server import StoreServer
from aiopg.stores import StoreLink, open_link
from aiopg.sync import StatelessGroup
from aiopg.tls import Tls
from aiopg.tokens import Token

__version__ = "0.1.0"

__all__ = [
    # groups
    "AsyncStatelessGroup",
    "StatelessGroup",
    "MemberEvent",
    "PendingCall",
    # stores
    "StoreServer",
    "StoreLink",
    "open_link",
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
    "CodecError",
    "PayloadTooLargeError",
    "PeerError",
    "GroupTimeoutError",
    "PeerLostError",
    "GroupAbortedError",
    "StoreError",
    "StoreUnreachableError",
    "AddressInUseError",
    "StoreLostError",
    "AuthenticationError",
    "StoreFullError",
    "DataExpiredError",
    "JournalCorruptError",
    "ProtocolError",
    "__version__",
]
