"""Every error that aiopg raises.

The tree separates who can mend it: the program (`UsageError`), another rank (`PeerError`), or the
store and the road to it (`StoreError`)::

    AiopgError
    ├── UsageError                  the program asked for what cannot be
    │   ├── GroupClosedError            a call on a group or store that was closed
    │   ├── WrongThreadError            a blocking call from the thread that runs the group's own loop
    │   ├── ForkError                   a group or store made before a fork, used in the child
    │   ├── RankConflictError           the rank is held by a live member
    │   ├── FencedError                 another process took this rank over
    │   ├── WorldSizeMismatchError      a live group of that name has another size
    │   ├── CollectiveMismatchError     ranks called different collectives under one number
    │   ├── KeyOperationError           a key holds what the call cannot work on
    │   ├── CodecError                  an object has no encoding, or bytes no object
    │   └── PayloadTooLargeError        an encoded object is over the limit
    ├── PeerError                   another rank did not do its part
    │   ├── GroupTimeoutError           the deadline passed; also a builtin TimeoutError
    │   ├── KeyTimeoutError             the deadline of a call on keys passed; also a builtin TimeoutError
    │   ├── QueueEmptyError             nothing is in the queue now; also a builtin LookupError
    │   ├── PeerLostError               a rank that the call needs has left or is lost
    │   └── GroupAbortedError           a rank called abort()
    └── StoreError                  the store, or the road to it
        ├── StoreUnreachableError       no store answers there; also a builtin ConnectionError
        ├── AddressInUseError           the port is held by something that is no aiopg store
        ├── StoreLostError              the link to the store ended
        ├── AuthenticationError         the store and this process do not share a token
        ├── StoreFullError              a limit of the store was reached
        ├── DataExpiredError            the data waited longer than data_expiration_seconds
        ├── WatchGapError               changes of keys that a watch was to tell are not kept any more
        ├── JournalCorruptError         the journal on disk is damaged
        └── ProtocolError               the other end sent what the protocol does not allow

Errors carry fields, not only text. A field that is not known is `None`. `outcome` says what became of
the call that failed.

A plain bad argument (a rank out of range, a timeout of 0) is a builtin `ValueError` or `TypeError`.
"""

from __future__ import annotations

from aiopg.errors._peers import (
    GroupAbortedError,
    GroupTimeoutError,
    KeyTimeoutError,
    PeerError,
    PeerLostError,
    QueueEmptyError,
)
from aiopg.errors._peers import describe_keys as describe_keys
from aiopg.errors._root import (
    AiopgError,
    Outcome,
)
from aiopg.errors._root import describe_ranks as describe_ranks
from aiopg.errors._store import (
    AddressInUseError,
    AuthenticationError,
    DataExpiredError,
    JournalCorruptError,
    ProtocolError,
    StoreError,
    StoreFullError,
    StoreLostError,
    StoreUnreachableError,
    WatchGapError,
)
from aiopg.errors._usage import (
    CodecError,
    CollectiveMismatchError,
    FencedError,
    ForkError,
    GroupClosedError,
    KeyOperationError,
    PayloadTooLargeError,
    RankConflictError,
    UsageError,
    WorldSizeMismatchError,
    WrongThreadError,
)

__all__ = [
    "AddressInUseError",
    "AiopgError",
    "AuthenticationError",
    "CodecError",
    "CollectiveMismatchError",
    "DataExpiredError",
    "FencedError",
    "ForkError",
    "GroupAbortedError",
    "GroupClosedError",
    "GroupTimeoutError",
    "JournalCorruptError",
    "KeyOperationError",
    "KeyTimeoutError",
    "Outcome",
    "PayloadTooLargeError",
    "PeerError",
    "PeerLostError",
    "ProtocolError",
    "QueueEmptyError",
    "RankConflictError",
    "StoreError",
    "StoreFullError",
    "StoreLostError",
    "StoreUnreachableError",
    "UsageError",
    "WatchGapError",
    "WorldSizeMismatchError",
    "WrongThreadError",
]

# They are said, documented and pickled as what they are imported as: aiopg.errors.PeerLostError.
for _name in __all__:
    globals()[_name].__module__ = __name__
