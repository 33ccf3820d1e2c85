"""The state that a journal stands for: from a snapshot and the records behind it to an exchange, or to a new snapshot.

A replay is deterministic, so the state at the beginning of a log need not be taken from a store that is at work: it is
that of the snapshot before it with all records in between, whoever replays them. `restore` is how a store begins,
`compact` is how its journal stays short.

Neither knows files: damage to their bytes was found before (`_core.journal`). What is wrong here was written so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiopg._core.exchange import Exchange
from aiopg._core.frames import Buffer
from aiopg._core.limits import Limits
from aiopg._core.records import replay
from aiopg._core.stategraph import dump, load
from aiopg.errors import JournalCorruptError, ProtocolError

__all__ = ["ROTATE_BYTES", "compact", "is_due", "restore"]

ROTATE_BYTES = 64 * 1024 * 1024
"""Logs shorter than this are not worth a snapshot."""


def is_due(log_bytes: int, snapshot_bytes: int) -> bool:
    """Whether a snapshot is to be made: the logs since the last one are long, and twice as long as it is."""
    return log_bytes > max(ROTATE_BYTES, 2 * snapshot_bytes)


def restore(
    snapshot: Buffer | None, records: Iterable[bytes], limits: Limits, about: Mapping[str, object]
) -> tuple[Exchange, float]:
    """The exchange after all records, and the last time that snapshot and records say.

    `limits` and `about` are those of the store that goes on, or did. Raises `JournalCorruptError`, which names the
    record instead of a file, for what makes no sense, and `UsageError` for a snapshot of an unknown version.
    """
    exchange, now = Exchange(limits, about), 0.0
    if snapshot is not None:
        try:
            exchange, now = load(snapshot, limits, about)
        except ProtocolError as error:
            raise JournalCorruptError("snapshot", 0, error.reason) from error
    for number, record in enumerate(records, 1):
        try:
            now = max(replay(exchange, record) or now, now)
        except ProtocolError as error:
            raise JournalCorruptError(f"record {number} since the snapshot", 0, error.reason) from error
        if exchange.overfull:
            exchange.take_overfull()  # where a store acted on it, the end of the session is a record of its own
    return exchange, now


def compact(
    snapshot: Buffer | None, records: Iterable[bytes], limits: Limits, about: Mapping[str, object]
) -> list[Buffer]:
    """Body of the snapshot, in pieces, that stands for another one and the records behind it. Raises as `restore`."""
    return dump(*restore(snapshot, records, limits, about))
