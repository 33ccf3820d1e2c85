"""torch tensors, and torch's dtypes, sizes and devices."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from aiopg import AsyncStatelessGroup
from aiopg.codec import LARGE_BYTES, MsgpackCodec, TypeRegistry, is_large
from aiopg.codec._torch import ITEM_BYTES, take_apart
from aiopg.errors import CodecError

from .test_attacks import peak_of

CODEC = MsgpackCodec()
MIB = 2**20
NUMBERS = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
LARGE = torch.arange(2 * MIB, dtype=torch.float32)


def raw(tensor: Any) -> bytes:
    """The elements, as they lie in a contiguous tensor."""
    plain = tensor.resolve_conj().resolve_neg().contiguous().clone()
    return bytes(plain.untyped_storage().tolist())


def tensor_payload(dtype: object, shape: object, data: object) -> bytes:
    """A tensor as a stranger writes it."""
    return b"\x94\xd4\x40\x06" + b"".join(map(CODEC.encode, (dtype, shape, data)))


def torch_payload(kind: object, content: object) -> bytes:
    """Another value of torch, as a stranger writes it."""
    return b"\x93\xd4\x40\x07" + CODEC.encode(kind) + CODEC.encode(content)


def refusal(payload: bytes) -> CodecError:
    """Why it is refused."""
    with pytest.raises(CodecError) as caught:
        CODEC.decode(payload)
    return caught.value


def assert_same(back: Any, tensor: Any) -> None:
    """Bit by bit, and as a tensor of its own."""
    assert type(back) is torch.Tensor
    assert (back.dtype, back.shape, back.device) == (tensor.dtype, tensor.shape, torch.device("cpu"))
    assert raw(back) == raw(tensor)
    assert back.is_contiguous()
    assert not back.requires_grad


@pytest.mark.parametrize("name", ITEM_BYTES)
def test_every_dtype_comes_back_exactly(name: str) -> None:
    """bfloat16, the float8s and the complex ones too: the same bits, of the size that the table says."""
    dtype = getattr(torch, name)
    bits = torch.arange(48, dtype=torch.uint8)
    tensor = (bits % 2 if name == "bool" else bits).view(dtype)
    assert tensor.element_size() == ITEM_BYTES[name]
    assert_same(CODEC.decode(CODEC.encode(tensor)), tensor)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(3.5), torch.empty(0), torch.empty((2, 0, 3), dtype=torch.int16), NUMBERS[:, 1:, ::2], NUMBERS.mT,
        NUMBERS[1], torch.ones(3).expand(4, 3), torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag,
        torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last), torch.tensor([float("nan"), -0.0]),
        torch.tensor([[True], [False]]), torch.arange(5000)[7:], torch.zeros([1] * 64),
    ],
    ids=lambda tensor: f"{tensor.dtype}{list(tensor.shape)[:5]}",
)  # fmt: skip
def test_every_layout_in_memory_comes_back_contiguous(tensor: Any) -> None:
    """Without dimensions, without elements, with strides, in the middle of a larger one, and lazily conjugated."""
    value = CODEC.decode(CODEC.encode({"w": [tensor, 1]}))
    assert_same(value["w"][0], tensor)  # type: ignore[index]


def test_what_is_received_is_the_receiver_s() -> None:
    """It can be written to and made larger, and shares nothing with the payload or another tensor of it."""
    payload = CODEC.encode([NUMBERS, NUMBERS])
    received: Any = CODEC.decode(payload)
    first, second = received
    first += 1
    first.resize_(100)
    assert torch.equal(second, NUMBERS)
    assert CODEC.encode([NUMBERS, NUMBERS]) == payload


@pytest.mark.parametrize(
    ("make", "advice"),
    [
        (lambda: torch.ones(2, requires_grad=True), r"send tensor\.detach\(\)"),
        (lambda: torch.nn.Parameter(torch.ones(2)), r"send parameter\.detach\(\)"),
        (lambda: torch.ones(2).to_sparse(), r"send tensor\.to_dense\(\)"),
        (lambda: torch.ones(2, device="meta"), "send its shape and dtype"),
        (lambda: torch.nested.nested_tensor([torch.ones(2)], layout=torch.strided), r"send tensor\.unbind\(\)"),
        (lambda: torch.ones(2).as_subclass(Odd), "as_subclass"),
        (lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8), r"dequantize\(\)"),
        (lambda: torch.empty(4, dtype=torch.complex32), "not one of the dtypes"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_of_other_kinds_are_refused(make: Callable[[], Any], advice: str) -> None:
    """What would come back as something else is not sent; the error has its place and says what to send."""
    tensor = make()
    with pytest.raises(CodecError, match=advice) as caught:
        CODEC.encode({"layers": [tensor]})
    assert caught.value.path == 'obj["layers"][0]'
    assert "torch" in caught.value.type or caught.value.type.endswith("Odd")
    assert not is_large(tensor)


class Odd(torch.Tensor):  # type: ignore[misc]
    """A subclass."""


def test_a_tensor_whose_memory_was_let_go_is_refused() -> None:
    """As FSDP does it: the shape stays. Nothing is read where nothing is."""
    tensor = torch.ones(MIB)
    tensor.untyped_storage().resize_(0)
    for encode in (CODEC.encode, CODEC.encode_large):
        with pytest.raises(CodecError, match="storage was resized"):
            encode([tensor])
    elements: Any = take_apart(later := torch.ones(MIB))[-1]  # type: ignore[index]
    later.untyped_storage().resize_(16)
    with pytest.raises(CodecError, match="let go of"):
        elements[:100]


def test_dtypes_sizes_and_devices_come_back_as_themselves() -> None:
    """Also as keys; a device need not be there."""
    size = NUMBERS.shape
    obj = {"dtype": torch.bfloat16, "size": size, "none": torch.Size(()), torch.device("cuda:1"): torch.device("cpu")}
    back = CODEC.decode(CODEC.encode(obj))
    assert back == obj
    assert isinstance(back, dict)
    assert type(back["size"]) is torch.Size
    assert back["dtype"] is torch.bfloat16
    with pytest.raises(CodecError, match="not one of the dtypes"):
        CODEC.encode(torch.qint8)


def test_a_class_that_is_registered_is_sent_as_it_says() -> None:
    """A program that has its own way with tensors keeps it, small or large."""
    registry = TypeRegistry()
    registry.register(torch.Tensor, encode=lambda tensor: tensor.tolist(), decode=torch.tensor)
    codec = MsgpackCodec(registry)
    for tensor in (NUMBERS, LARGE):
        assert codec.encode_large([tensor]) == codec.encode([tensor])
    assert b"\xd4\x40\x06" not in codec.encode(NUMBERS)


# ------------------------------------------------------------------------------------------------- copies


def address(view: memoryview) -> int:
    """Where it lies."""
    return int(numpy.frombuffer(view, "u1").ctypes.data)


def test_elements_are_read_where_they_lie() -> None:
    """What is taken apart is the tensor's own memory, wherever in its storage it begins."""
    for tensor in (LARGE, LARGE[5000:], LARGE.to(torch.bfloat16).reshape(2, -1)[1]):
        elements: Any = take_apart(tensor)[-1]  # type: ignore[index]
        assert address(elements[:]) == tensor.data_ptr()
        assert address(elements[100:]) == tensor.data_ptr() + 100


def test_a_tensor_is_copied_once_on_each_side() -> None:
    """Into the payload, and out of it into memory of torch, which is not counted here."""
    size = LARGE.nbytes
    for obj in (LARGE, {"w": [LARGE, "x"], "step": 7}):
        assert peak_of(lambda obj=obj: CODEC.encode(obj)) < size + MIB  # type: ignore[misc]
        assert peak_of(lambda obj=obj: CODEC.encode_large(obj)) < MIB  # type: ignore[misc]
        payload = CODEC.encode(obj)
        for form in (payload, bytearray(payload), memoryview(payload)):
            assert peak_of(lambda form=form: CODEC.decode(form)) < MIB  # type: ignore[misc]


@pytest.mark.parametrize("obj", [LARGE, LARGE.reshape(2, -1).mT, [LARGE, {"a": (LARGE > 7, 1)}, bytes(MIB)]])
def test_what_is_written_round_the_packer_is_what_the_packer_writes(obj: Any) -> None:
    """Large tensors give the same payload on both ways, and come back from each form of it."""
    assert is_large(obj)
    payload = CODEC.encode_large(obj)
    assert payload == CODEC.encode(obj)
    for form in (payload, bytes(payload), bytearray(payload)):
        assert CODEC.encode(CODEC.decode(form)) == payload


async def test_ranks_exchange_tensors() -> None:
    """A large one, which is encoded and decoded in a thread, and small ones of each rank."""
    url = "memory://tensors"
    groups = await asyncio.gather(*(AsyncStatelessGroup.connect(url, rank=rank, world_size=2) for rank in range(2)))
    first, second = groups
    _, weights = await asyncio.gather(first.broadcast({"w": LARGE}, 0), second.broadcast(None, 0))
    assert torch.equal(weights["w"], LARGE)
    assert weights["w"].data_ptr() != LARGE.data_ptr()
    for gathered in await asyncio.gather(*(group.all_gather(torch.tensor(group.rank)) for group in groups)):
        assert [tensor.item() for tensor in gathered] == [0, 1]
    await asyncio.gather(*(group.close() for group in groups))


# ------------------------------------------------------------------------------------------------- attacks


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("float32", [10**12], b""), ("float32", [10**9], b"1234"), ("float32", [2**62, 4], b""),
        ("float32", [2], bytes(7)), ("bool", [2], b"\1\2"),
        ("float32", [-1, -2], bytes(8)), ("float32", [True], bytes(4)), ("float32", [0] * 65, b""),
        ("float32", "1", b"1234"), ("float32", [1], "1234"), ("float32", [1], [1, 2, 3]), ("float32", [1.0], bytes(4)),
        ("load", [1], bytes(4)), ("float", [1], bytes(4)), ("qint8", [1], b"1"), ("_C", [1], b"1"), (None, [1], b"1"),
        (["float32"], [1], bytes(4)), ("float32", [0, 2**33], b""), ("float32", [0, 2**62, 2**62], b""),
        ("float32", {0: 1}, bytes(4)), ("torch.float32", [1], bytes(4)), ("float32", [1 << 70], b""),
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_tensors_are_refused_before_room_is_made(dtype: object, shape: object, data: object) -> None:
    """Only dtypes of the table are looked up, and a shape must come to the bytes that are there."""
    payload = tensor_payload(dtype, shape, data)
    refusal(payload)
    assert growth("VmPeak", lambda: refusal(payload)) < 64 * MIB


def growth(of: str, call: Callable[[], object]) -> int:
    """How much more memory the process had at most, resident (VmHWM) or at all (VmPeak), after a call than before."""

    def peak() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith(of))

    before = peak()
    call()
    return peak() - before


@pytest.mark.parametrize(
    "tail", [b"\x90", b"\x93\xd4\x40\x06\xa7float32\x90", b"\x95\xd4\x40\x06\xa7float32\x90\xc0\xc0"]
)
def test_marks_with_too_few_or_too_many_parts_are_refused(tail: bytes) -> None:
    """And so is a mark out of place."""
    refusal(b"\x92\xd4\x40\x06" + tail)
    refusal(b"\x92\xd4\x40\x07" + tail)
    refusal(b"\x92\x01\xd4\x40\x06")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("dtype", "load"), ("dtype", "Tensor"), ("dtype", 1), ("Size", [2**63]), ("Size", [1.0]), ("Size", "ab"),
        ("Size", [[1]]), ("device", "nowhere"), ("device", "cuda:999"), ("device", "cpu\n"), ("device", 1),
        ("load", "x"), (["dtype"], "bool"), ("Size", {1: 2}), ("Size", [True]),
    ],
    ids=str,
)  # fmt: skip
def test_nonsense_values_of_torch_are_refused(kind: object, content: object) -> None:
    """Nothing of torch is called with what was not checked."""
    refusal(torch_payload(kind, content))


def test_a_large_tensor_that_lies_or_was_cut_off_is_refused() -> None:
    """Where its elements are taken out of the payload before it is parsed too."""
    payload = CODEC.encode([LARGE, 1])
    assert len(payload) > LARGE_BYTES
    for cut in (1, 2, 3, 100, MIB):
        refusal(payload[:-cut])
    size = struct.pack(">I", len(LARGE))
    refusal(payload.replace(size, struct.pack(">I", len(LARGE) + 1), 1))
    refusal(payload.replace(b"float32", b"float64", 1))
    refusal(payload.replace(b"float32", b"floatxx", 1))
    bools = CODEC.encode((LARGE > 7).repeat(4))
    refusal(bools[:-MIB] + b"\2" + bools[-MIB + 1 :])


@given(st.sampled_from(range(4)), st.data())
@settings(max_examples=300, print_blob=True, deadline=None)
def test_damaged_tensors_give_a_value_or_a_codec_error(which: int, data: st.DataObject) -> None:
    """torch's own errors never come through."""
    obj = (NUMBERS[0], torch.tensor([True, False]), [torch.bfloat16, torch.Size([2, 3])], {"d": torch.device("cuda:0")})
    damaged = bytearray(CODEC.encode(obj[which]))
    start = data.draw(st.integers(0, len(damaged)))
    damaged[start : start + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    with suppress(CodecError):
        CODEC.decode(damaged)


def test_the_defaults_of_a_program_do_not_change_what_comes() -> None:
    """A default device and a default dtype are for what the program makes itself."""
    payload = CODEC.encode(NUMBERS)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            back = CODEC.decode(payload)
        assert_same(back, NUMBERS)
    finally:
        torch.set_default_dtype(torch.float32)


def test_where_torch_makes_no_real_tensors_none_is_received() -> None:
    """A program that traces shapes gets an error and no elements written to nowhere."""
    payload = CODEC.encode(NUMBERS)
    with FakeTensorMode(), pytest.raises(CodecError, match="torch made a FakeTensor"):
        CODEC.decode(payload)


def test_many_small_tensors_stay_within_what_a_payload_may_take() -> None:
    """48 MiB and 64 times its size: a tensor takes more than its few bytes, and counts as two containers."""
    item = tensor_payload("bool", [], b"\0")
    most = (DEFAULT_CONTAINERS - 1) // 2
    payload = b"\xdd" + struct.pack(">I", most) + item * most
    values: list[object] = []
    grown = growth("VmHWM", lambda: values.append(CODEC.decode(payload)))
    assert grown < 48 * MIB + 64 * len(payload)
    refusal(b"\xdd" + struct.pack(">I", 4 * most) + item * 4 * most)


DEFAULT_CONTAINERS = 65536


# ----------------------------------------------------------------------------------------------- no torch


def test_a_process_that_has_not_imported_torch_is_told_to() -> None:
    """torch is not imported by a payload: a CodecError says to do it, and afterwards the payload is read."""
    program = """if True:
        import sys
        from aiopg.codec import MsgpackCodec
        from aiopg.errors import CodecError
        codec = MsgpackCodec()
        tensor, dtype = map(bytes.fromhex, sys.argv[1:])
        for payload in (tensor, dtype):
            try:
                codec.decode(payload)
            except CodecError as error:
                assert error.type == "torch.Tensor", error
                assert "import torch (pip install torch)" in error.reason, error
            else:
                raise AssertionError
        assert "torch" not in sys.modules
        import torch
        assert codec.decode(tensor).tolist() == [1.5, 2.5]
        assert codec.decode(dtype) is torch.bfloat16
    """
    payloads = [CODEC.encode(value).hex() for value in (torch.tensor([1.5, 2.5]), torch.bfloat16)]
    subprocess.run([sys.executable, "-c", program, *payloads], check=True, timeout=50)
