"""What a session has to say in a room, in the order in which it is to take effect, and not written yet."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from aiopg._core.blobs import outsource
from aiopg._core.entries import Gone, Got, Here, Packed, Said, pack_input
from aiopg._core.frames import Body, body_size
from aiopg._core.messages import Cancel, Command
from aiopg.errors import PayloadTooLargeError
from aiopg.stores.etcd._premises import ENTRY_BYTES, LIMITS

__all__ = ["Load", "Sender", "Upload"]

ENTRY_INPUTS: Final = 512
"""More are for the next entry."""


class Upload(NamedTuple):
    """What is to be written beside the log before the entry is."""

    number: int
    body: Body


class Load(NamedTuple):
    """What goes into one entry."""

    inputs: list[Packed]
    uploads: list[Upload]
    commands: int
    """How many of the inputs are commands."""
    calls: list[int]
    """Of those that are to have an event."""
    got: list[int]
    """Answers whose receipt is told."""
    cancels: list[Packed]
    """Those of the commands that take others back."""


class _Waiting(NamedTuple):
    call: int | None
    packed: Packed
    upload: Upload | None


class Sender:
    """Of one session."""

    def __init__(self, sid: bytes) -> None:
        self._sid = sid
        self._waiting: deque[_Waiting] = deque()
        self._cancels: list[Packed] = []  # that were not written, until `say_again`
        self._blobs = 0
        self.got: list[int] = []
        """Answers that are in hand, and whose receipt is awaited."""
        self.gone: list[Gone] = []
        """Sessions that are over."""
        self.is_here = False
        """Whether to say so."""
        self.is_due = False
        """Whether an entry is to be written even if there is nothing to say."""
        self.commands = 0
        """Not in a `Load` yet."""

    def say(self, command: Command) -> None:
        """A command. Raises `UsageError`, `PayloadTooLargeError` for one that cannot be sent; then it was not."""
        kept, body = outsource(command, self._sid, self._blobs + 1)
        if not body and (size := body_size(command.body)) > ENTRY_BYTES:
            raise PayloadTooLargeError(size, ENTRY_BYTES)
        packed = pack_input(Said(kept), LIMITS.head_bytes)
        upload = None
        if body:
            self._blobs += 1
            upload = Upload(self._blobs, body)
        self._waiting.append(_Waiting(None if type(command) is Cancel else command.call, packed, upload))
        self.commands += 1

    def refused(self, load: Load) -> None:
        """It was not written. Receipts go into the next one; what takes a call back waits for `say_again`, as nobody is
        there any more to say it anew.
        """
        self.got += load.got
        self._cancels += load.cancels

    def say_again(self) -> None:
        """What was refused may be written now."""
        self._waiting.extendleft(_Waiting(None, packed, None) for packed in reversed(self._cancels))
        self.commands += len(self._cancels)
        self._cancels.clear()

    @property
    def has_load(self) -> bool:
        """Whether an entry is to be written."""
        return bool(self._waiting or self.got or self.gone or self.is_here or self.is_due)

    def next_load(self, *, uploads: bool = True) -> Load:
        """What goes into the next entry. Without `uploads` that ends before a command which needs some."""
        inputs = [pack_input(Here(), 0)] if self.is_here else []
        inputs += [pack_input(gone, 0) for gone in self.gone]
        inputs += [pack_input(Got(call), 0) for call in self.got]
        got, self.got = self.got, []
        self.gone.clear()
        self.is_here = self.is_due = False
        written: list[Upload] = []
        calls: list[int] = []
        cancels: list[Packed] = []
        size = commands = 0
        while self._waiting and commands < ENTRY_INPUTS:
            call, packed, upload = self._waiting[0]
            size += packed.size
            if (commands and size > ENTRY_BYTES) or (upload is not None and not uploads):
                break
            self._waiting.popleft()
            inputs.append(packed)
            commands += 1
            if call is not None:
                calls.append(call)
            else:
                cancels.append(packed)
            if upload is not None:
                written.append(upload)
        self.commands -= commands
        return Load(inputs, written, commands, calls, got, cancels)
