"""Bugs on purpose, to see that the fuzzer finds such: each is put into the product while it is tried.

    python -m tests.fuzz.planted [NAME ...]

tells at which input each is found. One that is not found within its number of inputs means that a target is blind.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import msgpack

from aiopg._core import handshake, journal, wire
from aiopg._core.frames import FrameReceiver
from aiopg._core.journal import FileReader
from aiopg._core.mailboxes import Mailboxes
from aiopg._core.replies import Replies
from aiopg._core.rounds import Rounds
from aiopg._core.session import Session
from aiopg.codec import _reader
from aiopg.codec._reader import Reader
from aiopg.server._doorkeeper import Doorkeeper
from tests.codec.types_for_tests import Peer
from tests.fuzz.fuzzer import Finding, Fuzzer
from tests.fuzz.targets import TARGETS

__all__ = ["BUGS", "find"]


class Bug(NamedTuple):
    """A bug, the target that is to find it, and within how many inputs."""

    target: str
    inputs: int
    plant: Callable[[], AbstractContextManager[Any]]


def forget_to_move_the_rest() -> AbstractContextManager[Any]:
    """The beginning of a frame is not moved to the front, and the receiver believes that it was."""
    keep = FrameReceiver._keep

    def forget(self: FrameReceiver, start: int, end: int) -> None:
        if start > 300:
            self._start, self._end = 0, end - start
            self.window = self._buffer[self._end :]
        else:
            keep(self, start, end)

    return mock.patch.object(FrameReceiver, "_keep", forget)


@contextmanager
def take_any_type_for_a_text() -> Iterator[None]:
    """Texts are taken as they come."""

    def unpack(cls: type[Any], wanted: list[Any], packed: bytes, empty: list[object]) -> list[Any]:
        texts: list[Any] = msgpack.unpackb(packed, strict_map_key=False)
        return texts

    with mock.patch.object(wire, "_unpack_texts", unpack):
        yield


def count_a_gap_as_received() -> AbstractContextManager[Any]:
    """A message after a gap is new."""

    def receive(self: Session, seq: int, ack: int) -> bool:
        if ack > self.acknowledged:
            self.note_acknowledgement(ack)
        is_new = seq > self.received
        self.received = max(seq, self.received)
        return is_new or seq == 0

    return mock.patch.object(Session, "receive", receive)


def look_at_the_first_byte_of_a_login() -> AbstractContextManager[Any]:
    """A proof is right if it begins as the right one does."""
    login = Doorkeeper.login

    def look(self: Doorkeeper, proof: bytes, hello: bytes, welcome: bytes, binding: bytes) -> Any:
        for token in self.tokens:
            right = handshake.login_proofs(token.key, hello, welcome, binding).member
            if proof[:8] == right[:8]:
                return login(self, right, hello, welcome, binding)
        return None

    return mock.patch.object(Doorkeeper, "login", look)


def miscount_what_is_taken_back() -> AbstractContextManager[Any]:
    """The bytes of a message that is taken back stay counted."""
    take_back = Mailboxes.take_back

    def miscount(self: Mailboxes, address: Any, put: int) -> bool:
        before = self.bytes
        taken = take_back(self, address, put)
        self.bytes = before
        return taken

    return mock.patch.object(Mailboxes, "take_back", miscount)


def leave_a_round_behind() -> AbstractContextManager[Any]:
    """A withdrawn arrival that was the only one leaves its round."""

    def withdraw(self: Rounds, arrival: Any) -> bool:
        del arrival.round.arrivals[arrival.rank]
        self._drop_parts(arrival)
        return True

    return mock.patch.object(Rounds, "withdraw", withdraw)


def forget_to_check() -> AbstractContextManager[Any]:
    """Nobody looks whether a call may wait."""
    return mock.patch.object(Replies, "check")


def let_an_error_of_struct_pass() -> AbstractContextManager[Any]:
    """Bytes that are too short for what they claim to be are a `struct.error`."""
    return mock.patch.object(_reader, "MALFORMED", (ValueError, LookupError, OverflowError))


def make_what_is_not_registered() -> AbstractContextManager[Any]:
    """A name that is not registered is looked for among the classes of the program."""
    build = Reader.build_object

    def build_any(self: Reader, items: list[Any]) -> object:
        found = [cls for cls in Peer.__subclasses__() if f"{cls.__module__}.{cls.__qualname__}" == items[1]]
        return found[0]("") if found else build(self, items)

    return mock.patch.dict(_reader._BUILDERS, {3: build_any})


def take_damage_for_a_torn_tail() -> AbstractContextManager[Any]:
    """What is behind a bad record is not looked at."""
    return mock.patch.object(FileReader, "_find_later", return_value=None)


def read_on_behind_a_bad_body() -> AbstractContextManager[Any]:
    """The checksum of a body is not looked at."""
    return mock.patch.object(journal, "crc32", lambda data, start=0: zlib.crc32(bytes(data[:4]), start))


BUGS: dict[str, Bug] = {
    plant.__name__: Bug(target, inputs, plant)
    for target, inputs, plant in (
        ("frames", 20_000, forget_to_move_the_rest),
        ("frames", 20_000, take_any_type_for_a_text),
        ("frames", 20_000, count_a_gap_as_received),
        ("handshake", 20_000, look_at_the_first_byte_of_a_login),
        ("engine", 200_000, miscount_what_is_taken_back),
        ("engine", 20_000, leave_a_round_behind),
        ("engine", 100_000, forget_to_check),
        ("codec", 20_000, let_an_error_of_struct_pass),
        ("codec", 100_000, make_what_is_not_registered),
        ("journal", 20_000, take_damage_for_a_torn_tail),
        ("journal", 20_000, read_on_behind_a_bad_body),
    )
}


def find(name: str, seed: int) -> tuple[int, Finding] | None:
    """After how many inputs this bug is found, and at which; None within its number of them."""
    bug = BUGS[name]
    target = TARGETS[bug.target]()
    fuzzer = Fuzzer(target, seed, [])
    with bug.plant():
        fuzzer.run(bug.inputs, time.monotonic() + 600, most=1)
    findings = fuzzer.report.findings
    return (fuzzer.report.inputs, findings[0]) if findings else None


def main(names: list[str]) -> int:
    """Try these bugs, or all."""
    blind = 0
    for name in names or BUGS:
        found = find(name, seed=1)
        blind += found is None
        what = f"input {found[0]}: {found[1].what.splitlines()[-1]:.200}" if found else "not found"
        print(f"{name} ({BUGS[name].target}): {what}", flush=True)
    return 1 if blind else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
