"""Every error is caught by somebody, who reads its fields."""

from __future__ import annotations

import asyncio

from aiopg import (
    AddressInUseError,
    AiopgError,
    AsyncStatelessGroup,
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


def who_is_to_blame(error: AiopgError) -> str:
    """What a program can make of an error. mypy knows the type of each field."""
    match error:
        case GroupTimeoutError():
            ranks: tuple[int, ...] | None = error.missing
            return f"{error.op} {error.seq} waited {error.elapsed:.0f} s for {ranks}, there were {error.arrived}"
        case PeerLostError():
            return f"{error.ranks[0]} is gone: {error.reason}"
        case GroupAbortedError():
            return f"{error.origin + 0} gave up: {error.reason}"
        case KeyTimeoutError():
            keys: tuple[str, ...] | None = error.missing
            return f"{error.op} of {error.keys} had {error.timeout + 0} s: {keys}, {error.arrived}/{error.expected}"
        case QueueEmptyError():
            return f"nobody pushed to {error.key}"
        case PeerError():
            return "another rank"
        case RankConflictError() | FencedError():
            return f"{error.holder} has rank {error.rank + 0} of {error.group}"
        case WorldSizeMismatchError():
            return f"{error.world_size} and {error.expected + 0}"
        case CollectiveMismatchError():
            calls: dict[int, str] = error.calls
            return f"{calls} at {error.tag!r} {error.seq + 0}"
        case KeyOperationError():
            return f"{error.op} of {error.key}: {error.reason}"
        case CodecError():
            return f"{error.path}: {error.type}: {error.reason}"
        case PayloadTooLargeError():
            return f"{error.size - error.limit} bytes too many"
        case GroupClosedError() | WrongThreadError() | ForkError():
            return f"the program: {error.message}"
        case UsageError():
            return "the program"
        case StoreUnreachableError() | AddressInUseError() | StoreLostError() | AuthenticationError():
            return f"{error.address}: {error.reason}"
        case StoreFullError():
            return f"{error.limit} is {error.allowed + 0}, filled by {error.holder}"
        case DataExpiredError():
            return f"{error.what} of {error.group}"
        case WatchGapError():
            return f"{error.prefix} from {error.revision + 0}, kept from {error.oldest + 0}"
        case JournalCorruptError():
            return f"{error.file} at {error.offset + 0}: {error.reason}"
        case ProtocolError():
            return error.reason
        case StoreError():
            return "the store"
    return "somebody"


def may_call_again(error: AiopgError) -> bool:
    outcome: Outcome = error.outcome
    return outcome is Outcome.NOT_APPLIED


async def main() -> None:
    try:
        await AsyncStatelessGroup.connect("memory://errors", rank=0, world_size=2, store_timeout=0.1)
    except AiopgError as error:
        print(who_is_to_blame(error), may_call_again(error))


asyncio.run(main())
