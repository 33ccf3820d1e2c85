"""The codec that pickles: asked for by name, marked, and warned of."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aiopg
from aiopg import AsyncStatelessGroup, JsonCodec, MsgpackCodec, StatelessGroup
from aiopg.codec import BulkCodec, Codec, unsafe_pickle
from aiopg.codec._marks import PICKLE_MARK
from aiopg.errors import CodecError

from .types_for_tests import Lock

QUIETLY = pytest.mark.filterwarnings("ignore::aiopg.codec.unsafe_pickle.UnsafePickleWarning")
LONG = 20.0


@QUIETLY
@pytest.mark.parametrize("obj", [None, {"a": (1, {2})}, print, CodecError("obj", "t", "r"), b"x" * 10**6], ids=repr)
def test_whatever_pickles_comes_back(obj: object) -> None:
    """Functions, errors and classes that nobody registered."""
    back = unsafe_pickle.decode(memoryview(bytearray(unsafe_pickle.encode(obj))))
    assert type(back) is type(obj)
    assert repr(back) == repr(obj)


@QUIETLY
def test_it_is_a_codec() -> None:
    """The module has what `Codec` asks for, and only that."""
    codec: Codec = unsafe_pickle
    assert codec.name == "unsafe_pickle"
    assert not isinstance(codec, BulkCodec)
    assert aiopg.codec.unsafe_pickle is unsafe_pickle
    assert isinstance(codec.decode(codec.encode(Lock(3))), Lock)


@QUIETLY
def test_what_does_not_pickle_is_a_codec_error() -> None:
    """Like every codec it raises CodecError, and the path is the root."""
    for obj in (threading.Lock(), lambda: None, [sys]):
        with pytest.raises(CodecError, match="cannot be pickled") as caught:
            unsafe_pickle.encode(obj)
        assert caught.value.path == "obj"


@QUIETLY
@given(st.binary(max_size=40).filter(lambda payload: not payload.startswith(PICKLE_MARK)))
@settings(max_examples=200, print_blob=True, deadline=None)
def test_payloads_without_the_mark_are_refused_unread(payload: bytes) -> None:
    """Nothing that another codec wrote is unpickled: the first bytes tell."""
    with pytest.raises(CodecError, match="asked for by name on every rank"):
        unsafe_pickle.decode(payload)


@QUIETLY
@pytest.mark.parametrize(
    "rest", [b"", b"\x80", b"\x80\x04", b"garbage", b"\x80\x04N", b"I1\n", b"cnowhere\nx\n.", b"."]
)
def test_marked_nonsense_is_a_codec_error(rest: bytes) -> None:
    """A pickle that is cut off, or needs what is not here."""
    with pytest.raises(CodecError, match="cannot be unpickled"):
        unsafe_pickle.decode(PICKLE_MARK + rest)


@QUIETLY
@pytest.mark.parametrize("size", [0, 3000, 2_000_000])
def test_the_other_codecs_name_the_culprit(size: int) -> None:
    """A pickle at a rank that did not ask for one: the error says which codec the peer uses, whatever its size."""
    payload = unsafe_pickle.encode({"a": bytes(size), "b": [{}] * 10, "d4 40": b"\xd4\x40\x00"})
    for codec in (MsgpackCodec(), MsgpackCodec(max_containers=0), JsonCodec()):
        with pytest.raises(CodecError, match=r"the peer uses aiopg\.codec\.unsafe_pickle and this rank does not"):
            codec.decode(payload)
    with pytest.raises(CodecError, match=r"the peer uses aiopg\.codec\.unsafe_pickle"):
        MsgpackCodec().decode_many(MsgpackCodec().encode(1) + payload, [1, len(payload)])
    for codec in (MsgpackCodec(), JsonCodec()):
        with pytest.raises(CodecError, match=r"this rank uses aiopg\.codec\.unsafe_pickle and the peer does not"):
            unsafe_pickle.decode(codec.encode(["x" * size]))


def test_the_mark_begins_no_payload_of_another_codec() -> None:
    """0xC1 is the byte that msgpack never uses, and is neither UTF-8 nor an opcode of pickle."""
    assert PICKLE_MARK[0] == 0xC1
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(PICKLE_MARK + pickle.dumps(1))
    with pytest.raises(UnicodeDecodeError):
        PICKLE_MARK.decode()


def test_the_first_use_warns_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for the process, with a category of its own; where warnings are errors, every use is one."""
    monkeypatch.setattr(unsafe_pickle, "_warned", False)
    for _ in range(2):
        with pytest.raises(unsafe_pickle.UnsafePickleWarning):
            unsafe_pickle.encode(1)
    with pytest.warns(unsafe_pickle.UnsafePickleWarning, match="trusted ranks only") as caught:
        payload = unsafe_pickle.encode(1)
    assert len(caught) == 1
    # Warnings are errors here.
    assert unsafe_pickle.decode(unsafe_pickle.encode(unsafe_pickle.decode(payload))) == 1
    assert caught[0].filename == __file__
    assert issubclass(unsafe_pickle.UnsafePickleWarning, UserWarning)


def test_pickle_is_imported_by_whoever_says_its_name() -> None:
    """Nothing of the package imports pickle: not the import, not a codec at work, not an error."""
    program = """if True:
        import sys
        import aiopg, aiopg.cli, aiopg.sync
        codec = aiopg.MsgpackCodec()
        codec.decode(codec.encode({"a": (1, {2})}))
        try:
            codec.decode(b"\\xc1aiopg pickle\\n\\x80\\x04N.")
        except aiopg.CodecError:
            pass
        before = [name for name in sys.modules if "unsafe" in name and "aiopg" in name]
        aiopg.codec.unsafe_pickle.encode
        after = [name for name in sys.modules if "unsafe" in name and "aiopg" in name]
        print(before, after)
    """
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    assert (ran.stdout, ran.stderr) == ("[] ['aiopg.codec.unsafe_pickle']\n", "")
    with pytest.raises(AttributeError, match="no attribute 'unsafe_pickles'"):
        _ = aiopg.codec.unsafe_pickles  # type: ignore[attr-defined]


@QUIETLY
async def test_groups_take_it_by_name() -> None:
    """On both ranks it carries any object; on one of them each side learns what the other uses, and goes on."""
    url = "memory://unsafe-pickle"
    codecs: list[Any] = [unsafe_pickle, unsafe_pickle, MsgpackCodec()]
    groups = await asyncio.gather(
        *(
            AsyncStatelessGroup.connect(url, rank=rank, world_size=3, store_timeout=LONG, codec=codec)
            for rank, codec in enumerate(codecs)
        )
    )
    await groups[0].send(print, 1)
    assert await groups[1].recv(0) is print
    await groups[0].send({"a": 1}, 2)
    await groups[2].send({"a": 1}, 0)
    with pytest.raises(CodecError, match="the peer uses"):
        await groups[2].recv(0)
    with pytest.raises(CodecError, match="the peer does not"):
        await groups[0].recv(2)
    await groups[0].send(print, 1)
    assert await groups[1].recv(0) is print
    for group in groups:
        await group.close()


@QUIETLY
def test_blocking_groups_take_it_by_name() -> None:
    """The blocking group has the same keyword."""
    with StatelessGroup.connect("memory://pickled", rank=0, world_size=1, codec=unsafe_pickle) as group:
        assert group.all_gather(print) == [print]
