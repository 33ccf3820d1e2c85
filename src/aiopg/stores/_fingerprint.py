"""Fingerprints of payloads, to know one again without keeping it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from aiopg._core.frames import Buffer

__all__ = ["Fingerprint"]

HASHED_IN_THREAD = 1024 * 1024
"""What is larger is looked at in a thread: 256 MiB take 0.2 to 1 s. (hashlib lets other threads run meanwhile.)"""


class Fingerprint:
    """Of payloads that are cancelled: made at once, and ready when somebody asks."""

    def __init__(self, pieces: Sequence[Buffer]) -> None:
        self._size = sum(map(len, pieces))
        self._digest: bytes | asyncio.Future[bytes] = (
            _digest(pieces) if self._size <= HASHED_IN_THREAD else _digest_in_thread(pieces)
        )

    async def is_of(self, pieces: Sequence[Buffer]) -> bool:
        """Whether these are the same pieces. Waits for nothing unless they are large."""
        if sum(map(len, pieces)) != self._size:
            return False
        if isinstance(self._digest, bytes):
            return self._digest == _digest(pieces)
        # Shielded: who is cancelled here does not take the answer away from the next one.
        return await asyncio.shield(self._digest) == await _digest_in_thread(pieces)


def _digest_in_thread(pieces: Sequence[Buffer]) -> asyncio.Future[bytes]:
    return asyncio.get_running_loop().run_in_executor(None, _digest, pieces)


def _digest(pieces: Sequence[Buffer]) -> bytes:
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(len(piece).to_bytes(8))
        whole.update(piece)
    return whole.digest()
