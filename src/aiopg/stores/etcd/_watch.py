"""Changes of keys as etcd tells them, over streams that break.

Each watch has a stream of gRPC of its own. It is opened when somebody reads, and again where it breaks, at whatever
endpoint is current then: from the revision behind the last one that was read. So nothing is read twice, and nothing is
left out but what etcd does not keep any more (`CompactedError`). What nobody reads waits at etcd.

(A stream that goes one way is enough: etcd takes the end of what it is told for nothing but that.)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

from aiopg.stores.etcd._calls import CallFailedError, Stream
from aiopg.stores.etcd._errors import CompactedError, RefusedError, Remedy, remedy
from aiopg.stores.etcd._messages import KeyValue, Span, revision_of
from aiopg.stores.etcd._requests import Requests
from aiopg.stores.etcd._wire import Fields, flag, message, number

__all__ = ["Batch", "Event", "Watch"]

WATCH: Final = "/etcdserverpb.Watch/Watch"


@dataclass(frozen=True, slots=True)
class Event:
    """A key was written or deleted. A deletion has only the key, and `mod_revision` for when it was."""

    kind: Literal["put", "delete"]
    entry: KeyValue

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        return cls("delete" if fields.number(1) == 1 else "put", KeyValue.decode(fields.string(2)))


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes, in order: all there were behind the batch before, up to a revision. Perhaps none."""

    revision: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Told:
    """One message on a watch's stream."""

    revision: int
    created: bool
    canceled: bool
    compacted: int
    reason: str
    is_fragment: bool
    events: list[Event]

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields(data)
        return cls(
            revision=revision_of(fields),
            created=fields.flag(3),
            canceled=fields.flag(4),
            compacted=fields.number(5),
            reason=fields.text(6),
            is_fragment=fields.flag(7),
            events=[Event.decode(event) for event in fields.strings(11)],
        )


class Watch:
    """Read it with `async for`, in one task at a time; leave its `with` block, or close it, when you have read enough.

    Cancelling a read loses nothing: the next read goes on at `next_revision`. Errors of a read:

    - CompactedError: changes from `next_revision` on are not kept any more. Every later read raises it too.
    - AuthenticationError, RefusedError: etcd refuses the watch.
    - GroupClosedError: the client was closed.
    """

    def __init__(self, requests: Requests, span: Span, start_revision: int) -> None:
        if start_revision < 0:
            raise ValueError(f"a watch starts at revision 1 or later, or at 0, which is now; not at {start_revision}")
        self.next_revision = start_revision
        """Changes before this one were read; 0 where it is to start now, and has not yet (`begin`)."""
        self._requests = requests
        self._span = span
        self._endpoint = requests.endpoints.current
        self._stream: Stream | None = None
        self._token = ""
        self._held: list[Event] = []
        self._logins = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def begin(self) -> None:
        """Return when etcd has begun a watch that is to start now: what is written from here on is told.

        A watch that starts at a revision of the past is looked after every 100 ms until it is up to date, one that
        starts now is told of all at once.
        """
        while not self.next_revision:
            told = await self._told()
            if told is not None and told.created:
                self.next_revision = told.revision + 1

    async def __anext__(self) -> Batch:
        while True:
            told = await self._told()
            if told is None:
                continue
            if told.events:
                if batch := self._whole_revisions(told):
                    return batch
            elif not told.created and not self._held:
                # A sign of life, which etcd sends when it has told all changes so far. (So that a watch of quiet keys
                # does not fall behind what is kept.)
                return self._read(told.revision, [])

    async def _told(self) -> Told | None:
        """The next message; None if something was to be mended first."""
        if self._endpoint is not self._requests.endpoints.current:
            self.close()  # all have moved on while nobody read here
        stream = self._stream or self._open()
        try:
            with self._requests.endpoints.telling(stream.close):
                told = Told.decode(await stream.read())
        except CallFailedError as error:
            self.close()
            await self._mend(error)
            return None
        if told.canceled:
            self.close()
            await self._refused(told)
            return None
        return told

    def close(self) -> None:
        """Give the stream back. A later read opens one again."""
        self._held = []
        stream, self._stream = self._stream, None
        if stream is not None:
            self._requests.give_back(stream)

    def _open(self) -> Stream:
        requests = self._requests
        self._endpoint, self._token = requests.endpoints.current, requests.login.token
        create = b"".join((self._span.encode(), number(3, self.next_revision), flag(4, True), flag(8, True)))
        self._stream = requests.stream(WATCH, message(1, create), f"watch {self._span.key.decode(errors='replace')}")
        return self._stream

    async def _mend(self, error: CallFailedError) -> None:
        """Do what helps against a stream that broke; raises as `remedy`."""
        self._requests.check_open()
        what = remedy(error.code, error.details, self._endpoint.address, 0)
        if what is Remedy.LOGIN:
            await self._log_in()
        else:
            await self._requests.after_failure(self._endpoint, error, what)

    async def _refused(self, told: Told) -> None:
        if told.compacted:
            raise CompactedError(
                told.compacted,
                f"changes from revision {self.next_revision} on are not kept any more, only from {told.compacted} on",
            )
        if "permission denied" not in told.reason:
            raise RefusedError("CANCELLED", told.reason or "etcd ended a watch without a reason")
        await self._log_in()  # it says so of a token that has expired, too

    async def _log_in(self) -> None:
        self._logins += 1
        await self._requests.log_in_again(self._token, self._logins, self._endpoint)

    def _whole_revisions(self, told: Told) -> Batch | None:
        """What can be handed out. Of what came in fragments, the last revision may not be whole yet, and is held."""
        self._requests.endpoints.worked()
        self._logins = 0
        events = self._held + told.events
        self._held = []
        if told.is_fragment:
            last = events[-1].entry.mod_revision
            self._held = [event for event in events if event.entry.mod_revision == last]
            events = events[: -len(self._held)]
        return self._read(events[-1].entry.mod_revision, events) if events else None

    def _read(self, revision: int, events: list[Event]) -> Batch:
        self.next_revision = max(self.next_revision, revision + 1)
        return Batch(revision, events)
