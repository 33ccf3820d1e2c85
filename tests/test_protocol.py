"""docs/protocol.md says what is so: its tables are the code's, its bytes are in the vectors, its client works."""

from __future__ import annotations

import asyncio
import json
import os
import re
import struct
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from aiopg import AsyncStatelessGroup, StoreServer, errors
from aiopg._core import messages as m
from aiopg._core import wire
from aiopg._core.limits import Limits
from aiopg.codec._extensions import Code
from aiopg.codec._marks import Kind

from .vectors import Vector, generate, load
from .vectors.bodies import ERRORS, error_of

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
TYPES: dict[object, str] = {
    int: "int", bool: "bool", float: "float", str: "text", bytes: "bytes", wire._TAG: "tag", wire._OP: "op",
}  # fmt: skip
FIXED = {"int": "q", "bool": "?", "float": "d", "op": "B", "tag": "q"}


def rows(header: str) -> list[list[str]]:
    """The rows of every table whose header begins so, as cells."""
    found = []
    for table in re.findall(rf"^{re.escape(header)}.*\n *\|[-:|]+\|\n((?: *\|.*\n)+)", PROTOCOL, re.MULTILINE):
        found += [[cell.strip() for cell in line.strip()[1:-1].split("|")] for line in table.splitlines()]
    return found


(OPERATIONS,) = (re.findall(r"\d (\w+)", how) for type_, _, how in rows("   | type | size |") if type_ == "op")
"""In the order of their numbers."""


def told_messages() -> dict[int, tuple[str, list[tuple[str, str]]]]:
    """Kind -> name and (field, type) of each message, as the document has it."""
    told = {}
    for kind, name, _, fields, *_ in rows("| kind | message |"):
        assert int(kind) not in told
        told[int(kind)] = name, re.findall(r"`(\w+)` (\w+)", fields)
    return told


# ---------------------------------------------------------------------------------------------------- tables


def test_the_messages_are_those_that_there_are() -> None:
    """Kinds, names, fields and their types: of all of them, and of no others."""
    there = {
        kind: (cls.__name__, [(name, TYPES[type_]) for name, type_ in zip(cls._fields, fields, strict=False)])
        for kind, (cls, fields) in wire._WIRE.items()
    }
    assert told_messages() == there


def test_each_message_says_who_sends_it() -> None:
    """Commands come from members, events from a store."""
    for kind, _, who, *_ in rows("| kind | message |"):
        cls = wire._WIRE[int(kind)][0]
        if cls in m.COMMANDS:
            assert who == "member"
        elif cls in (m.Answer, m.Failed, m.Withdrawn):
            assert who == "store"


@pytest.mark.parametrize("vector", load("frames")["frames"], ids=lambda vector: vector["name"])
def test_a_frame_can_be_read_by_the_document_alone(vector: Vector) -> None:
    """With its table of fields, and what it says of frames: none of the code has a part in this."""
    data = bytes.fromhex(vector["frame"])
    head, body, number, ack, kind = struct.unpack_from(">IIQQB", data)
    name, fields = told_messages()[kind]
    assert (len(data), number, ack) == (8 + head + body, vector["seq"], vector["ack"])
    assert name == vector["message"]
    assert list(vector["fields"]) == [field for field, _ in fields]
    fixed = struct.Struct(">" + "".join(FIXED[type_] for _, type_ in fields if type_ in FIXED))
    numbers = iter(fixed.unpack(data[25 : 25 + fixed.size]))
    packed = data[25 + fixed.size : 8 + head]
    texts: Iterator[Any] = iter(msgpack.unpackb(packed)) if packed else iter(())
    for field, type_ in fields:
        value: Any = next(numbers) if type_ in FIXED else next(texts, b"" if type_ == "bytes" else "")
        if type_ == "tag" and packed and (text := next(texts)) is not None:
            value = text
        elif type_ == "op":
            value = OPERATIONS[value]
        elif type_ == "bytes":
            value = value.hex()
        assert value == (float(vector["fields"][field]) if type_ == "float" else vector["fields"][field])
    assert data[8 + head :].hex() == vector["body"]


def test_the_operations_are_those_that_there_are() -> None:
    """In the order of their numbers; and each has a row that says what it gives."""
    assert tuple(OPERATIONS) == m.COLLECTIVES
    given = [name for op, *_ in rows("| op | gives |") for name in op.split(", ")]
    assert sorted(given) == sorted(m.COLLECTIVES)


def test_the_needs_are_those_that_there_are() -> None:
    """By number."""
    assert [int(needs) for needs, *_ in rows("| `needs` |")] == [0, 1, 2, 3]
    assert (m.Needs.NOTHING, m.Needs.ROOT, m.Needs.ALL, m.Needs.ALL_TOLD) == (0, 1, 2, 3)


def test_the_errors_are_those_that_a_store_tells() -> None:
    """With the fields that each has."""
    told = {name: re.findall(r"`(\w+)`", fields) for name, fields, *_ in rows("| error | fields |")}
    assert told == {type(error).__name__: list(error.fields()) for error in map(error_of, ERRORS)}
    core = "".join(path.read_text() for path in (ROOT / "src" / "aiopg" / "_core").rglob("*.py"))
    raised = set(re.findall(r"\b(\w+Error)\(", core)) & set(errors.__all__)
    assert raised - OF_A_JOURNAL == set(told)


OF_A_JOURNAL = {"JournalCorruptError"}
"""Raised by the core and told to no member."""


def test_the_extensions_and_marks_are_those_that_there_are() -> None:
    """By code and number."""
    assert [int(code) for code, *_ in rows("| code | type |")] == [*Code, -1]
    assert [int(mark) for mark, *_ in rows("| mark | type |")] == list(Kind)


def test_the_limits_are_those_that_there_are() -> None:
    """The defaults of a store."""
    limits = Limits()
    told = {what: re.sub("[^0-9 ]", "", most).split() for what, most, *_ in rows("| what | at most |")}
    wanted = {
        "head of a frame": limits.head_bytes,
        "a group's name": limits.name_bytes,
        "a tag that is a text": limits.tag_bytes,
        "`reason` of Abort": limits.reason_bytes,
        "`holder` of Join": limits.reason_bytes,
        "`world_size`": limits.world_size,
        "seats of a session": limits.seats,
        "calls of a session that wait": limits.waiting_calls,
        "body of a frame": limits.body_bytes - limits.payload_bytes,
    }
    assert {what: int(numbers[-1]) for what, numbers in told.items()} == wanted


# ----------------------------------------------------------------------------------------------------- bytes


def all_bytes() -> set[str]:
    """Every piece of bytes that the vectors have."""
    found: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, str) and re.fullmatch("([0-9a-f]{2})+", value):
            found.add(value)
        elif isinstance(value, list | dict):
            for part in value.values() if isinstance(value, dict) else value:
                collect(part)

    for file in generate.FILES:
        collect(load(file))
    return found


def examples() -> list[str]:
    """The bytes of each example, without what explains them."""
    found = []
    for block in re.findall(r"```hex\n(.*?)```", PROTOCOL, re.DOTALL):
        pieces = [re.match(r"((?:[0-9a-f]{2})+(?: (?:[0-9a-f]{2})+)*)(?:  |$)", line) for line in block.splitlines()]
        assert all(pieces), block
        found.append("".join(piece[1].replace(" ", "") for piece in pieces if piece))
    return found


def test_each_example_is_a_vector() -> None:
    """To the last byte; there is one of every layer at least."""
    found, there = examples(), all_bytes()
    for example in found:
        assert example in there
    for file in generate.FILES:
        if file != "conversations":
            assert any(example in json.dumps(load(file)) for example in found)


def test_bytes_in_the_text_are_in_a_vector() -> None:
    """Such as the magic."""
    there = all_bytes()
    inline = re.findall(r"`((?:[0-9a-f]{2} )+[0-9a-f]{2})`", PROTOCOL)
    assert len(inline) > 5
    for said in inline:
        assert any(said.replace(" ", "") in data for data in there), said


# ---------------------------------------------------------------------------------------------------- client


async def test_the_client_of_the_document_is_a_rank_like_any_other() -> None:
    """It knows nothing of aiopg, forms a group with it, and its connection breaks on the way."""
    (program,) = re.findall(r"```python\n(.*?)```", PROTOCOL, re.DOTALL)
    assert "aiopg" not in {line.split()[1] for line in program.splitlines() if line.startswith(("import", "from"))}
    token = "sixteen bytes ok or more"
    async with StoreServer(token=token) as server:
        port = server.address.rpartition(":")[2]
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-W", "error", "-W", "ignore::ResourceWarning", "-c", program, "127.0.0.1", port,
            "0", "2", stdout=PIPE, env={**os.environ, "AIOPG_TOKEN": token},
        )  # fmt: skip
        async with await AsyncStatelessGroup.connect(server.address, rank=1, world_size=2, token=token) as group:
            told = await group.all_gather({"rank": 1, "program": "aiopg"}, timeout=20)
        out, _ = await client.communicate()
    assert client.returncode == 0
    assert told == [{"rank": 0, "program": "client.py"}, {"rank": 1, "program": "aiopg"}]
    assert out.decode().splitlines() == [str(said) for said in told]
